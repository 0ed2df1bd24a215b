//! The moves that a node's entry can make: reset for a run, begin, end, leave. Nothing else writes an entry. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    snapshot::{Record, Snapshot},
    text::harmless_head,
    v1alpha1::{Execution, NodeState, NodeStatus},
};

use crate::{
    observed::MAX_STORED,
    results::{Outcome, has_begun, is_final},
    status::merge::merge_history,
};

/// Longest message of an entry, in bytes.
pub(super) const MAX_MESSAGE_BYTES: usize = 512;

/// Puts the entry into a state, with its reason and message. Kubelets, the API server and runners have a say in messages: none
/// is stored that does more than to be read.
pub(super) fn set(entry: &mut NodeStatus, state: NodeState, reason: Option<NodeReason>, message: &str) {
    state.as_str().clone_into(&mut entry.state);
    entry.reason = reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default();
    entry.message = harmless_head(message, MAX_MESSAGE_BYTES);
    if !state.is_active() && state != NodeState::Pending {
        entry.pod_id = None;
        entry.seq = None;
    }
}

/// The reason, if this version knows it.
pub(super) fn reason(entry: &NodeStatus) -> Option<NodeReason> {
    NodeReason::parse(&entry.reason)
}

/// Makes the entry part of a run. What older runs left stays; a pod of an older run that has not ended stays named, with
/// what is counted of it, so that what it did is counted exactly once and nothing starts before its end.
pub(super) fn reset_for_run(entry: &mut NodeStatus, run: u64) {
    let state = entry.node_state();
    if state.is_active() && entry.pod_id.is_some() {
        entry.pod_serial = entry.serial;
        // Kept only to tell that the newest execution is in flight.
        entry.seq = entry.seq.filter(|_| !has_newest_result(entry));
    } else if state != NodeState::Pending || entry.pod_id.is_none() {
        forget_pod(entry);
    }
    set(entry, NodeState::Pending, None, "");
    entry.run = run;
    entry.held_for = 0;
    (entry.attempts, entry.retries, entry.interruptions) = (0, 0, 0);
    entry.serial = 0;
    entry.exit_code = None;
    entry.signal = None;
}

/// A pod of the entry's run exists; if it is the next one, the one before is done for good.
pub(super) fn reach_attempt(entry: &mut NodeStatus, attempt: u32) {
    if attempt > entry.attempts {
        entry.attempts = attempt;
        forget_pod(entry);
    }
}

/// The pod of the entry's attempt is not over.
pub(super) fn begin(entry: &mut NodeStatus, pod_id: &str, state: NodeState, message: &str) {
    let is_told = stop_of(entry).filter(|_| entry.pod_id.as_deref() == Some(pod_id));
    pod_id.clone_into(entry.pod_id.get_or_insert_default());
    if let Some(stop) = is_told {
        tell_to_stop(entry, state, stop);
    } else {
        set(entry, state, None, message);
    }
}

/// Why the operator itself ends a pod at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The user stops the run; the node may go on in another pod.
    ByUser,
    /// The run took too long; that is the node's end.
    Overdue,
}

impl Stop {
    /// The reason in the entry while the pod is to end, and after that.
    pub(super) fn reason(self) -> NodeReason {
        match self {
            Self::ByUser => NodeReason::Stopped,
            Self::Overdue => NodeReason::ActiveDeadlineExceeded,
        }
    }

    /// Why, in a few words.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::ByUser => "execution is Stopped",
            Self::Overdue => "the run took longer than activeDeadlineSeconds",
        }
    }
}

/// The pod that the entry names is to end. It is told so only once this is stored: then its end is taken for a stop whatever
/// the user wants by then.
pub(super) fn stop(entry: &mut NodeStatus, stop: Stop) {
    let state = entry.node_state();
    tell_to_stop(entry, state, stop);
}

fn tell_to_stop(entry: &mut NodeStatus, state: NodeState, stop: Stop) {
    set(entry, state, Some(stop.reason()), &format!("{}: the pod is told to end", stop.cause()));
}

/// Why the pod that the entry names is to end; none if it is not.
pub(super) fn stop_of(entry: &NodeStatus) -> Option<Stop> {
    (entry.node_state().is_active() && entry.pod_id.is_some()).then_some(())?;
    [Stop::ByUser, Stop::Overdue].into_iter().find(|stop| reason(entry) == Some(stop.reason()))
}

/// Whether the pod that the entry names is to end.
pub(super) fn is_to_stop(entry: &NodeStatus) -> bool {
    stop_of(entry).is_some()
}

/// The node failed and is tried again.
pub(super) fn back_off(entry: &mut NodeStatus) {
    let why = [&entry.reason, &entry.message].map(String::as_str).into_iter().filter(|text| !text.is_empty());
    let why = why.collect::<Vec<_>>().join(", ");
    let message = format!("attempt {} failed ({why}); the next follows after a pause", entry.attempts);
    entry.retries = entry.retries.saturating_add(1);
    set(entry, NodeState::Pending, Some(NodeReason::BackingOff), &message);
}

/// The node was interrupted and goes on in another pod.
pub(super) fn resume(entry: &mut NodeStatus) {
    let message = format!(
        "attempt {} was interrupted; the node goes on in another pod: {}",
        entry.attempts, entry.message
    );
    entry.interruptions = entry.interruptions.saturating_add(1);
    let reason = reason(entry);
    set(entry, NodeState::Pending, reason, &message);
}

/// Whether the node has begun to execute the run and waits for its next pod.
pub(super) fn is_between_pods(entry: &NodeStatus) -> bool {
    entry.node_state() == NodeState::Pending
        && entry.pod_id.is_none()
        && (entry.serial > 0 || entry.retries > 0 || entry.interruptions > 0 || is_suspended(entry))
}

/// Whether the node was left out of the run: nothing was executed on it, and it is judged again when it changes. One whose
/// script said that there is nothing to do is `Skipped` as well, and done.
pub(super) fn is_left_out(entry: &NodeStatus) -> bool {
    entry.node_state() == NodeState::Skipped && entry.serial == 0
}

/// Whether the node was paused or stopped by the user and has no pod: it may go on in another one, unless it is gone and has
/// an outcome.
pub(super) fn is_suspended(entry: &NodeStatus) -> bool {
    match entry.node_state() {
        NodeState::Stopped => reason(entry) == Some(NodeReason::Stopped) && entry.gone_time.is_none(),
        NodeState::Pending => {
            entry.pod_id.is_none() && matches!(reason(entry), Some(NodeReason::Paused | NodeReason::Stopped))
        }
        NodeState::Starting
        | NodeState::Running
        | NodeState::Succeeded
        | NodeState::Failed
        | NodeState::Skipped
        | NodeState::Unknown => false,
    }
}

/// The pod of the entry's attempt never started and never will.
pub(super) fn replace(entry: &mut NodeStatus, state: NodeState, reason: NodeReason, message: &str) {
    forget_pod(entry);
    set(entry, state, Some(reason), message);
}

/// Takes in what the session of the entry's own pod brought while its container runs. Of an older snapshot than the newest
/// that was taken in, only counts and history can be new. One that says how the pod ended adds no more than these either:
/// how it ended is taken in with the container's end, which may give it another meaning.
pub(super) fn progress(entry: &mut NodeStatus, live: &Snapshot, failures_before: u64, history_limit: usize) {
    take_in(entry, live, failures_before, history_limit);
    let record = &live.record;
    if is_final(record) || !has_begun(record) || entry.seq.is_some_and(|seq| seq > record.seq) {
        return;
    }
    entry.seq = Some(record.seq);
    if record.exit_code.is_some() || record.signal.is_some() {
        (entry.exit_code, entry.signal) = (record.exit_code, record.signal);
    } else if let Some(newest) = live.history.last() {
        // An execution has begun: the newest ending is that of the one before.
        (entry.exit_code, entry.signal) = (newest.exit_code, newest.signal);
    }
}

/// Counts only grow, and never beyond what can be stored, whatever runners say.
fn sum(count: u64, more: u64) -> u64 {
    count.saturating_add(more).min(MAX_STORED)
}

/// Takes in counts and history. Executions are counted by the serial, which grows over all pods of the run, failures by
/// what was counted when the pod was made, which the pod carries with it.
///
/// **Invariant:** counts never decrease, and taking in the same snapshots again, cut or whole, in any order, changes nothing.
fn take_in(entry: &mut NodeStatus, snapshot: &Snapshot, failures_before: u64, history_limit: usize) {
    let serial = snapshot.record.serial;
    entry.executions = sum(entry.executions, serial.saturating_sub(entry.serial));
    entry.serial = entry.serial.max(serial.min(MAX_STORED));
    take_in_failures_and_history(entry, snapshot, failures_before, history_limit);
}

fn take_in_failures_and_history(
    entry: &mut NodeStatus,
    snapshot: &Snapshot,
    failures_before: u64,
    history_limit: usize,
) {
    let Record { executions, failures, .. } = snapshot.record;
    entry.failures = entry.failures.max(sum(failures_before, failures.min(executions)));
    if !snapshot.history.is_empty() {
        entry.history = merge_history(&entry.history, &snapshot.history, history_limit);
    }
}

/// Takes in what a pod of the entry's own run left. Taking in the same outcome twice counts once.
pub(super) fn end(entry: &mut NodeStatus, outcome: &Outcome, failures_before: u64, history_limit: usize) {
    let mut is_begun = entry.seq.is_some();
    if let Some(snapshot) = &outcome.snapshot {
        take_in(entry, snapshot, failures_before, history_limit);
        is_begun |= has_begun(&snapshot.record);
    }
    let is_in_flight = is_begun && !has_newest_result(entry);
    if outcome.unseen && !is_in_flight {
        entry.executions = sum(entry.executions, outcome.lost_executions);
        entry.serial = sum(entry.serial, outcome.lost_executions);
    }
    if outcome.state == NodeState::Failed {
        entry.failures = sum(entry.failures, outcome.lost_executions);
    }
    let newest = outcome.snapshot.as_ref().filter(|_| !outcome.unseen).map(|snapshot| &snapshot.record);
    entry.exit_code = newest.and_then(|record| record.exit_code);
    entry.signal = newest.and_then(|record| record.signal);
    forget_pod(entry);
    set(entry, outcome.state, outcome.reason, &outcome.message);
}

/// Keeps only the newest executions: the limit may be lower than when they were stored.
pub(super) fn keep_newest(entry: &mut NodeStatus, history_limit: usize) {
    let old = entry.history.len().saturating_sub(history_limit);
    entry.history.drain(..old);
}

/// Whether the result of the newest execution of the entry's run is there. If the size limit cost it, it counts as not
/// there.
fn has_newest_result(entry: &NodeStatus) -> bool {
    has_result(entry, entry.run, entry.serial)
}

fn has_result(entry: &NodeStatus, run: u64, serial: u64) -> bool {
    entry.history.iter().rev().any(|execution| (execution.run, execution.serial) == (run, serial))
}

/// Takes in what the pod of an older run left while the entry already belongs to a newer one. Its executions are counted by
/// the serial that was reached when the newer run began.
pub(super) fn end_of_older_run(
    entry: &mut NodeStatus,
    outcome: &Outcome,
    failures_before: u64,
    history_limit: usize,
) {
    let mut is_in_flight = entry.seq.is_some();
    if let Some(snapshot) = &outcome.snapshot {
        take_in_failures_and_history(entry, snapshot, failures_before, history_limit);
        let record = &snapshot.record;
        if has_begun(record) && record.serial >= entry.pod_serial {
            entry.executions = sum(entry.executions, record.serial - entry.pod_serial);
            is_in_flight = !has_result(entry, record.run, record.serial);
        }
    }
    if outcome.unseen && !is_in_flight {
        entry.executions = sum(entry.executions, outcome.lost_executions);
    }
    forget_pod(entry);
}

/// Takes in what a pod that the entry was done with sends once more; whether the entry now holds all of it.
pub(super) fn hear_again(
    entry: &mut NodeStatus,
    live: &Snapshot,
    failures_before: u64,
    history_limit: usize,
) -> bool {
    let is_counted = live.record.serial <= entry.serial;
    if is_counted {
        take_in_failures_and_history(entry, live, failures_before, history_limit);
    }
    is_counted
}

/// Whether the operator stopped waiting for the pod rather than saw it end.
pub(super) fn has_given_up(entry: &NodeStatus) -> bool {
    matches!(
        reason(entry),
        Some(
            NodeReason::NodeGone
                | NodeReason::Unreachable
                | NodeReason::Hung
                | NodeReason::StartDeadlineExceeded
                | NodeReason::ImagePullFailed
                | NodeReason::ContainerNotStarted
        )
    )
}

/// Whether a later answer of the pod that the entry was about replaces what the entry says: it was given up, or nobody saw
/// its end.
pub(super) fn awaits_answer(entry: &NodeStatus) -> bool {
    let is_unseen = matches!(
        reason(entry),
        Some(
            NodeReason::NoMessage
                | NodeReason::PodLost
                | NodeReason::PodDeleted
                | NodeReason::NodeRestarted
                | NodeReason::Evicted
                | NodeReason::Preempted
        )
    );
    // A repetition that goes on after such an end is Running.
    let is_open = matches!(entry.node_state(), NodeState::Unknown | NodeState::Running);
    has_given_up(entry) || (is_unseen && is_open && entry.pod_id.is_none())
}

/// The runner that finished an older run in this pod is to go on with the entry's run. It is told so only once this is
/// stored.
pub(super) fn order(entry: &mut NodeStatus, pod_id: &str) {
    reach_attempt(entry, entry.attempts.saturating_add(1));
    begin(entry, pod_id, NodeState::Starting, "");
}

/// The runner that was to go on with the entry's run was not reached: its pod is deleted, and what it leaves decides.
pub(super) fn give_up_order(entry: &mut NodeStatus, message: &str) {
    set(entry, NodeState::Starting, Some(NodeReason::NotConnected), message);
}

/// Whether the order of the entry's run was given up.
pub(super) fn has_given_up_order(entry: &NodeStatus) -> bool {
    entry.node_state() == NodeState::Starting && reason(entry) == Some(NodeReason::NotConnected)
}

/// Whether the entry holds every execution of a snapshot of an older run.
pub(super) fn holds(entry: &NodeStatus, snapshot: &Snapshot) -> bool {
    let is_kept = |execution: &Execution| entry.history.iter().any(|known| known.key() == execution.key());
    snapshot.record.run < entry.run && snapshot.history.iter().all(is_kept)
}

/// Names no pod any more, and keeps nothing that was only to tell its next report from the last.
fn forget_pod(entry: &mut NodeStatus) {
    entry.pod_id = None;
    entry.seq = None;
    (entry.pod_serial, entry.pod_run) = (0, 0);
}

/// The node is no longer part of the run and never started in it: what older runs left becomes the entry again. False if
/// nothing is left to show.
pub(super) fn leave(entry: &mut NodeStatus) -> bool {
    let Some(newest) = entry.history.last().cloned() else { return false };
    forget_pod(entry);
    let state = if newest.failed() {
        NodeState::Failed
    } else if newest.skipped() {
        NodeState::Skipped
    } else {
        NodeState::Succeeded
    };
    // What counts as success is told by the state alone.
    let reason = NodeReason::parse(&newest.reason).filter(|_| state != NodeState::Succeeded);
    set(entry, state, reason, "");
    entry.run = newest.run;
    (entry.attempts, entry.retries, entry.interruptions) = (newest.attempt, 0, 0);
    entry.serial = newest.serial;
    entry.exit_code = newest.exit_code;
    entry.signal = newest.signal;
    true
}

/// Marks the entry's node as gone, once.
pub(super) fn mark_gone(entry: &mut NodeStatus, now: Timestamp) {
    entry.gone_time.get_or_insert(Time(now));
}
