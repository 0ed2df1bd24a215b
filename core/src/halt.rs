//! Whether a run may start anything more, by what failed in it and by what the user says. Pure.

use std::collections::BTreeMap;

use scriptrunner_api::{
    reason::ConditionReason,
    v1alpha1::{DesiredExecution, NodeState, NodeStatus, ScriptRunnerStatus},
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
    /// The user holds it.
    Paused,
    /// The user stops it.
    Stopped,
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
        let exceeded = || {
            let allowed = run.max_failures?.nodes(tally.desired);
            (tally.failures > allowed).then_some(Self::ErrorBudgetExceeded { tally, allowed })
        };
        match run.execution {
            DesiredExecution::Active => exceeded(),
            DesiredExecution::Paused => exceeded().or(Some(Self::Paused)),
            DesiredExecution::Stopped => Some(Self::Stopped),
        }
    }

    /// Whether the run is over once nothing executes any more.
    pub(crate) fn ends_run(self) -> bool {
        match self {
            Self::Paused => false,
            Self::Stopped | Self::ErrorBudgetExceeded { .. } => true,
        }
    }

    /// The reason of the conditions that tell of it.
    pub(crate) fn reason(self) -> ConditionReason {
        match self {
            Self::Paused => ConditionReason::Paused,
            Self::Stopped => ConditionReason::Stopped,
            Self::ErrorBudgetExceeded { .. } => ConditionReason::ErrorBudgetExceeded,
        }
    }

    /// What is said while something still executes.
    pub(crate) fn going_on(self) -> String {
        let what = match self {
            Self::Paused => "pods that repeat end after their current execution, others go on to their end",
            Self::Stopped => "what executes is told to end",
            Self::ErrorBudgetExceeded { .. } => "what runs goes on to its end",
        };
        format!("{}: nothing more is started, {what}", self.cause())
    }

    /// What is said when nothing executes, with `pending` nodes that wait for a pod.
    pub(crate) fn ending(self, pending: u32) -> String {
        match self {
            Self::Paused | Self::Stopped => format!(
                "{} and no pod executes; {pending} nodes wait; set execution: Active to go on with what remains",
                self.cause()
            ),
            Self::ErrorBudgetExceeded { .. } => format!(
                "{}; {pending} nodes were not started; raise maxFailures to go on with them, or fix the script: an edit is a new run",
                self.cause()
            ),
        }
    }

    fn cause(self) -> String {
        match self {
            Self::Paused => "execution is Paused".to_owned(),
            Self::Stopped => "execution is Stopped".to_owned(),
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
    [ConditionReason::ErrorBudgetExceeded, ConditionReason::Stopped]
        .map(ConditionReason::as_str)
        .contains(&reason)
}
