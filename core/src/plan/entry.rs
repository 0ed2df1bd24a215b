//! The moves that a node's entry can make: reset for a run, begin, end, leave. Nothing else writes an entry. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    text::head,
    v1alpha1::{NodeState, NodeStatus},
};

use crate::{names::short_id, observed::PodFacts, results::Outcome, status::merge::merge_history};

/// Longest message of an entry, in bytes.
pub(super) const MAX_MESSAGE_BYTES: usize = 512;

/// Puts the entry into a state, with its reason and message.
pub(super) fn set(entry: &mut NodeStatus, state: NodeState, reason: Option<NodeReason>, message: &str) {
    state.as_str().clone_into(&mut entry.state);
    entry.reason = reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default();
    entry.message = head(message, MAX_MESSAGE_BYTES).to_owned();
    if !state.is_active() && state != NodeState::Pending {
        entry.pod_id = None;
        entry.seq = None;
    }
}

/// The reason, if this version knows it.
pub(super) fn reason(entry: &NodeStatus) -> Option<NodeReason> {
    NodeReason::parse(&entry.reason)
}

/// Makes the entry part of a run. What older runs left stays; a pod of an older run that has not ended stays named, so
/// that its end is counted exactly once and nothing starts before it.
pub(super) fn reset_for_run(entry: &mut NodeStatus, run: u64) {
    let pod_id = entry.node_state().is_active().then(|| entry.pod_id.take()).flatten();
    set(entry, NodeState::Pending, None, "");
    entry.run = run;
    entry.attempts = 0;
    entry.serial = 0;
    entry.exit_code = None;
    entry.signal = None;
    entry.pod_id = pod_id;
    entry.seq = None;
}

/// A pod of the entry's run exists.
pub(super) fn begin(
    entry: &mut NodeStatus,
    pod: &PodFacts,
    state: NodeState,
    reason: Option<NodeReason>,
    message: &str,
) {
    entry.attempts = entry.attempts.max(pod.attempt);
    entry.pod_id = Some(short_id(&pod.uid));
    set(entry, state, reason, message);
}

/// Takes in what a pod of the entry's own run left. Counts rest on the serial, which grows over all pods of the run, so
/// that taking in the same outcome twice counts once.
pub(super) fn end(entry: &mut NodeStatus, outcome: &Outcome, history_limit: usize) {
    if let Some(snapshot) = &outcome.snapshot {
        let record = &snapshot.record;
        if record.serial > entry.serial {
            entry.executions += record.serial - entry.serial;
            entry.failures += record.failures;
            entry.serial = record.serial;
        }
        entry.exit_code = record.exit_code;
        entry.signal = record.signal;
        entry.history = merge_history(&entry.history, &snapshot.history, history_limit);
    } else {
        entry.executions += outcome.lost_executions;
        entry.serial += outcome.lost_executions;
        entry.exit_code = None;
        entry.signal = None;
    }
    if outcome.state == NodeState::Failed && outcome.lost_executions > 0 {
        entry.failures += outcome.lost_executions;
    }
    entry.pod_id = None;
    entry.seq = None;
    set(entry, outcome.state, outcome.reason, &outcome.message);
}

/// Takes in what the pod of an older run left while the entry already belongs to a newer one.
pub(super) fn end_of_older_run(entry: &mut NodeStatus, outcome: &Outcome, history_limit: usize) {
    match &outcome.snapshot {
        Some(snapshot) => {
            entry.executions += snapshot.record.executions;
            entry.failures += snapshot.record.failures;
            entry.history = merge_history(&entry.history, &snapshot.history, history_limit);
        }
        None => entry.executions += outcome.lost_executions,
    }
    entry.pod_id = None;
    entry.seq = None;
}

/// The node is no longer part of the run and never started in it: what older runs left becomes the entry again. False if
/// nothing is left to show.
pub(super) fn leave(entry: &mut NodeStatus) -> bool {
    let Some(newest) = entry.history.last().cloned() else { return false };
    let state = if newest.succeeded() { NodeState::Succeeded } else { NodeState::Failed };
    set(entry, state, NodeReason::parse(&newest.reason), "");
    entry.run = newest.run;
    entry.attempts = newest.attempt;
    entry.serial = newest.serial;
    entry.exit_code = newest.exit_code;
    entry.signal = newest.signal;
    true
}

/// Marks the entry's node as gone, once.
pub(super) fn mark_gone(entry: &mut NodeStatus, now: Timestamp) {
    entry.gone_time.get_or_insert(Time(now));
}
