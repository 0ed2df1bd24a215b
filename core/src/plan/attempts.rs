//! Which nodes get a further attempt after a failure or an interruption, and how long they wait for it. Pure.
//!
//! **Invariant:** only an attempt whose end is not stored yet is followed by another one. So an edit of a limit never runs a node again
//! that is done, and whoever looks after a crash decides as this look would have.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{InterruptionPolicy, NodeState, NodeStatus},
};

use super::{Draft, entry, runners::Runner, stored_entry};
use crate::{
    observed::{ContainerFacts, Observed},
    validate::{Attempts, ValidRun},
};

/// Longest pause before a further attempt, as that of a Job's pods.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(6);

/// Puts every node that has just failed or was interrupted, and is to be tried again, into the state in which it waits for that.
pub(super) fn go_on(draft: &mut Draft<'_>, run: &ValidRun, observed: &Observed) {
    let number = draft.run_number();
    let entries = draft.status.nodes.iter_mut().filter(|(_, node_entry)| node_entry.run == number);
    for (name, node_entry) in entries.filter(|(_, node_entry)| node_entry.node_state().is_done()) {
        let stored = stored_entry(observed, number, name);
        let is_final = stored.is_some_and(|stored| {
            stored.node_state().is_done()
                && (&stored.node_id, stored.attempts) == (&node_entry.node_id, node_entry.attempts)
        });
        if is_final || node_entry.gone_time.is_some() {
            continue;
        }
        if is_tried_after_failure(&run.attempts, node_entry) {
            entry::back_off(node_entry);
        } else if goes_on_after_interruption(run, node_entry) {
            entry::resume(node_entry);
        }
    }
}

/// Whether a node that has just failed has an attempt left, and that can mend it.
fn is_tried_after_failure(attempts: &Attempts, node_entry: &NodeStatus) -> bool {
    let codes = &attempts.exit_codes.retry;
    let is_listed = || {
        let code = node_entry.exit_code.and_then(|code| u8::try_from(code).ok());
        codes.is_empty() || code.is_some_and(|code| codes.contains(&code))
    };
    node_entry.node_state() == NodeState::Failed
        && node_entry.retries < attempts.backoff_limit
        && may_be_mended(entry::reason(node_entry))
        && is_listed()
}

/// Whether a failure may be another time's success. A pod that did not start, or may yet start, is none.
fn may_be_mended(reason: Option<NodeReason>) -> bool {
    matches!(
        reason,
        None | Some(
            NodeReason::ScriptFailed
                | NodeReason::ExecutionDeadlineExceeded
                | NodeReason::DependencyInstallFailed
                | NodeReason::InterpreterNotStarted
                | NodeReason::RunnerFailed
                | NodeReason::NotExecuted
                | NodeReason::OOMKilled
        )
    )
}

/// Whether a node whose pod was lost goes on in another one: a repetition while something of its count is left, and each
/// node once at least.
fn goes_on_after_interruption(run: &ValidRun, node_entry: &NodeStatus) -> bool {
    let is_left =
        run.pinned.repeat.is_some() && run.pinned.executions().is_none_or(|total| node_entry.serial < total);
    run.attempts.interruption == InterruptionPolicy::Retry
        && matches!(node_entry.node_state(), NodeState::Stopped | NodeState::Unknown)
        && entry::reason(node_entry).is_some_and(is_interruption)
        && (is_left || node_entry.interruptions == 0)
}

/// Whether the reason is a cause outside the script that ended a pod after its runner had started.
pub(super) fn is_interruption(reason: NodeReason) -> bool {
    matches!(
        reason,
        NodeReason::PodDeleted
            | NodeReason::PodLost
            | NodeReason::Evicted
            | NodeReason::Preempted
            | NodeReason::NodeRestarted
            | NodeReason::RunnerKilled
            | NodeReason::NoMessage
            | NodeReason::Restarted
            | NodeReason::Interrupted
    )
}

/// Whether the node waits for its next pod after an interruption.
pub(super) fn is_interrupted(node_entry: &NodeStatus) -> bool {
    node_entry.pod_id.is_none()
        && matches!(node_entry.node_state(), NodeState::Pending | NodeState::Running)
        && entry::reason(node_entry).is_some_and(is_interruption)
}

/// When a node that failed is tried again: a time after the failed pod's end that doubles with each attempt.
pub(super) fn backed_off_until(
    node_entry: &NodeStatus,
    failed: &Runner<'_>,
    retry_seconds: u32,
) -> Option<Timestamp> {
    let factor = 1_i64 << node_entry.retries.saturating_sub(1).min(16);
    let pause = SignedDuration::from_secs(i64::from(retry_seconds).saturating_mul(factor));
    ended_at(failed)?.saturating_add(pause.min(LONGEST_PAUSE)).ok()
}

/// When a pod's container ended, or else when the pod was made.
pub(super) fn ended_at(runner: &Runner<'_>) -> Option<Timestamp> {
    let pod = runner.pod;
    let finished = match &pod.container {
        ContainerFacts::Terminated { finished, .. } => *finished,
        ContainerFacts::Absent | ContainerFacts::Waiting { .. } | ContainerFacts::Running => None,
    };
    // An end before the creation is of a node whose clock is wrong.
    finished.max(pod.created)
}
