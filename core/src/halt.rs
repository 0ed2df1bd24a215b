//! Whether a run may start anything more, by what failed in it and by what the user says. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    condition::{ConditionType, find},
    reason::ConditionReason,
    v1alpha1::{DesiredExecution, NodeState, ScriptRunnerStatus},
};

use crate::validate::ValidRun;

/// How many nodes a run is for, and how many of them failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Desired nodes.
    pub(crate) desired: usize,
    /// Of these, failed, stopped or unknown in this very run: what a rerun leaves out is no failure of it.
    pub(crate) failures: usize,
}

impl Tally {
    /// By the entries of the status.
    pub(crate) fn of(status: &ScriptRunnerStatus) -> Self {
        let run = status.run.as_ref().map_or(0, |run| run.number);
        let mut tally = Self { desired: 0, failures: 0 };
        for node_entry in status.nodes.values().filter(|node_entry| node_entry.is_in(run)) {
            tally.desired += 1;
            tally.failures += usize::from(node_entry.run == run && is_failure(node_entry.node_state()));
        }
        tally
    }
}

/// When the whole run is to be over; none if it has no deadline, or is over: what comes late is not bound by it.
pub(crate) fn deadline(run: &ValidRun, status: &ScriptRunnerStatus) -> Option<Timestamp> {
    let current = status.run.as_ref()?;
    let seconds = i64::from(run.attempts.active_deadline_seconds?);
    let is_over = current.completion_time.is_some() && !ended_early(status);
    let deadline = current.start_time.0.saturating_add(SignedDuration::from_secs(seconds));
    (!is_over).then_some(deadline.unwrap_or(Timestamp::MAX))
}

/// Whether the run takes longer than it may.
pub(crate) fn is_overdue(run: &ValidRun, status: &ScriptRunnerStatus, now: Timestamp) -> bool {
    deadline(run, status).is_some_and(|deadline| deadline <= now)
}

/// Whether the run is over without all its nodes being done, and may go on.
pub(crate) fn ended_early(status: &ScriptRunnerStatus) -> bool {
    let failed = find(&status.conditions, ConditionType::Failed);
    status.run.as_ref().is_some_and(|run| run.completion_time.is_some())
        && failed.is_some_and(|failed| failed.status == "True" && is_early_end(&failed.reason))
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
    /// The run took longer than `activeDeadlineSeconds`.
    ActiveDeadlineExceeded {
        /// So many.
        seconds: u32,
    },
}

impl Halt {
    /// None if the run, which came to `tally`, goes on; `is_overdue` as of [`is_overdue`].
    pub(crate) fn of(run: &ValidRun, tally: Tally, is_overdue: bool) -> Option<Self> {
        let exceeded = || {
            let allowed = run.max_failures?.nodes(tally.desired);
            (tally.failures > allowed).then_some(Self::ErrorBudgetExceeded { tally, allowed })
        };
        let overdue = || {
            let seconds = run.attempts.active_deadline_seconds.filter(|_| is_overdue)?;
            Some(Self::ActiveDeadlineExceeded { seconds })
        };
        match run.execution {
            DesiredExecution::Active => exceeded().or_else(overdue),
            DesiredExecution::Paused => exceeded().or_else(overdue).or(Some(Self::Paused)),
            DesiredExecution::Stopped => Some(Self::Stopped),
        }
    }

    /// Whether the run is over once nothing executes any more.
    pub(crate) fn ends_run(self) -> bool {
        match self {
            Self::Paused => false,
            Self::Stopped | Self::ErrorBudgetExceeded { .. } | Self::ActiveDeadlineExceeded { .. } => true,
        }
    }

    /// The reason of the conditions that tell of it.
    pub(crate) fn reason(self) -> ConditionReason {
        match self {
            Self::Paused => ConditionReason::Paused,
            Self::Stopped => ConditionReason::Stopped,
            Self::ErrorBudgetExceeded { .. } => ConditionReason::ErrorBudgetExceeded,
            Self::ActiveDeadlineExceeded { .. } => ConditionReason::ActiveDeadlineExceeded,
        }
    }

    /// What is said while something still executes.
    pub(crate) fn going_on(self) -> String {
        let what = match self {
            Self::Paused => "pods that repeat end after their current execution, others go on to their end",
            Self::Stopped | Self::ActiveDeadlineExceeded { .. } => "what executes is told to end",
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
            Self::ActiveDeadlineExceeded { .. } => format!(
                "{}; {pending} nodes wait; raise activeDeadlineSeconds to go on with them, or set rerun.at to run again",
                self.cause()
            ),
        }
    }

    fn cause(self) -> String {
        match self {
            Self::Paused => "execution is Paused".to_owned(),
            Self::Stopped => "execution is Stopped".to_owned(),
            Self::ActiveDeadlineExceeded { seconds } => {
                format!("the run took longer than activeDeadlineSeconds allows ({seconds})")
            }
            Self::ErrorBudgetExceeded { tally: Tally { desired, failures }, allowed } => {
                format!(
                    "{failures} of {desired} nodes failed or are unknown, and maxFailures allows {allowed}"
                )
            }
        }
    }
}

/// Whether a run that is over with this reason ended before all its nodes were done, and may go on.
fn is_early_end(reason: &str) -> bool {
    match ConditionReason::parse(reason) {
        Some(
            ConditionReason::ErrorBudgetExceeded
            | ConditionReason::ActiveDeadlineExceeded
            | ConditionReason::Stopped,
        ) => true,
        Some(_) | None => false,
    }
}
