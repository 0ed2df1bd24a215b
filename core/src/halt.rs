//! Whether a run may start anything more, by what failed in it. Pure.

use std::collections::BTreeMap;

use scriptrunner_api::{
    reason::ConditionReason,
    v1alpha1::{NodeState, NodeStatus, ScriptRunnerStatus},
};

use crate::validate::ValidRun;

/// How many nodes a run is for, and how many of them failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Desired nodes.
    pub(crate) desired: usize,
    /// Of these, failed, stopped or unknown.
    pub(crate) failures: usize,
}

impl Tally {
    /// By the entries of the run.
    pub(crate) fn of_entries(nodes: &BTreeMap<String, NodeStatus>, run: u64) -> Self {
        let mut tally = Self { desired: 0, failures: 0 };
        for node_entry in nodes.values().filter(|node_entry| node_entry.run == run) {
            tally.desired += 1;
            tally.failures += usize::from(is_failure(node_entry.node_state()));
        }
        tally
    }

    /// By the counters of the status.
    pub(crate) fn of_counters(status: &ScriptRunnerStatus) -> Self {
        let failures = status.failed as usize + status.unknown as usize;
        Self { desired: status.desired as usize, failures }
    }
}

fn is_failure(state: NodeState) -> bool {
    match state {
        NodeState::Failed | NodeState::Stopped | NodeState::Unknown => true,
        NodeState::Pending
        | NodeState::Starting
        | NodeState::Running
        | NodeState::Succeeded
        | NodeState::Skipped => false,
    }
}

/// Why a run starts nothing more: no pod, no order to an idle runner, no further attempt. What executes goes on to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// More nodes failed or are unknown than `maxFailures` allows.
    ErrorBudgetExceeded {
        /// What the run has come to.
        tally: Tally,
        /// How many failures are allowed.
        allowed: usize,
    },
}

impl Halt {
    /// None if the run goes on.
    pub(crate) fn of(run: &ValidRun, tally: Tally) -> Option<Self> {
        let allowed = run.max_failures?.nodes(tally.desired);
        (tally.failures > allowed).then_some(Self::ErrorBudgetExceeded { tally, allowed })
    }

    /// The reason of the conditions that tell of it.
    pub(crate) fn reason(self) -> ConditionReason {
        match self {
            Self::ErrorBudgetExceeded { .. } => ConditionReason::ErrorBudgetExceeded,
        }
    }

    /// What is said while something still executes.
    pub(crate) fn going_on(self) -> String {
        match self {
            Self::ErrorBudgetExceeded { .. } => {
                format!("{}: nothing more is started, what runs goes on to its end", self.cause())
            }
        }
    }

    /// What is said at the end, with `pending` nodes that were not started.
    pub(crate) fn ending(self, pending: u32) -> String {
        match self {
            Self::ErrorBudgetExceeded { .. } => format!(
                "{}; {pending} nodes were not started; raise maxFailures to go on with them, or fix the script: an edit is a new run",
                self.cause()
            ),
        }
    }

    fn cause(self) -> String {
        match self {
            Self::ErrorBudgetExceeded { tally: Tally { desired, failures }, allowed } => {
                format!(
                    "{failures} of {desired} nodes failed or are unknown, and maxFailures allows {allowed}"
                )
            }
        }
    }
}

/// Whether a run that is over with this reason ended before all its nodes were done, and may go on.
pub(crate) fn is_early_end(reason: &str) -> bool {
    match ConditionReason::parse(reason) {
        Some(reason) => reason == ConditionReason::ErrorBudgetExceeded,
        None => false,
    }
}
