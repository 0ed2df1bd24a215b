//! Brings the entries up to date with what became of their pods and nodes. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    pinned::PinnedSpec,
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus},
};

use super::{Draft, entry, pods_by_node};
use crate::{
    names::short_id,
    observed::{Observed, PodFacts},
    results::{Outcome, PodState, pod_state, start_failure},
    validate::ValidRun,
};

/// Takes in every pod's state and every vanished node.
pub(super) fn settle(draft: &mut Draft, observed: &Observed) {
    let run = draft.run_number();
    let endless = is_endless(draft, observed);
    let (now, history_limit) = (draft.now, draft.history_limit);
    let by_node = pods_by_node(observed);
    for (name, node_entry) in &mut draft.status.nodes {
        let on_node = by_node.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let pods: Vec<&PodFacts> =
            on_node.iter().copied().filter(|pod| short_id(&pod.node_uid) == node_entry.node_id).collect();
        if let Some(outcome) = take_in_pods(node_entry, &pods, run, history_limit)
            && endless
            && node_entry.run == run
        {
            go_on_endlessly(node_entry, &outcome);
        }
        let node_exists =
            observed.nodes.get(name).is_some_and(|node| short_id(&node.uid) == node_entry.node_id);
        if node_exists {
            node_entry.gone_time = None;
        } else if !node_entry.node_id.is_empty() {
            entry::mark_gone(node_entry, now);
            if node_entry.node_state().is_active() {
                give_up(
                    node_entry,
                    NodeReason::NodeGone,
                    "the Node object was deleted while its pod was active",
                );
            }
        }
    }
    drop_unstarted_gone_nodes(draft);
}

/// Whether the current run repeats endlessly. The live spec tells only while it is what the run is pinned to.
fn is_endless(draft: &Draft, observed: &Observed) -> bool {
    let spec = &observed.object.spec;
    spec.repeat.as_ref().is_some_and(|repeat| repeat.count.is_none())
        && draft.status.run.as_ref().is_some_and(|run| run.spec_hash == PinnedSpec::of(spec).spec_hash())
}

/// A gone node that never started in the run is not desired any more.
fn drop_unstarted_gone_nodes(draft: &mut Draft) {
    let run = draft.run_number();
    draft.status.nodes.retain(|_, node_entry| {
        let unstarted = node_entry.run == run && node_entry.node_state() == NodeState::Pending;
        node_entry.gone_time.is_none() || !unstarted || entry::leave(node_entry)
    });
}

/// Takes in the pods of one node; the outcome that ended its newest pod, if one did just now.
fn take_in_pods(
    node_entry: &mut NodeStatus,
    pods: &[&PodFacts],
    run: u64,
    history_limit: usize,
) -> Option<Outcome> {
    let named =
        node_entry.pod_id.as_ref().map(|id| pods.iter().find(|pod| short_id(&pod.uid) == *id).copied());
    match named {
        Some(Some(pod)) if pod.run == node_entry.run => {
            take_in(node_entry, pod, pod.run < run, history_limit)
        }
        Some(Some(pod)) => {
            if let Some(outcome) = ended(pod, true) {
                entry::end_of_older_run(node_entry, &outcome, history_limit);
            }
            None
        }
        Some(None) => {
            vanish(node_entry, history_limit);
            None
        }
        None => {
            let newest = pods.iter().filter(|pod| pod.run == node_entry.run).max_by_key(|pod| pod.attempt)?;
            let unknown_to_status = newest.attempt > node_entry.attempts && !is_final(node_entry);
            let answers_late = newest.attempt == node_entry.attempts
                && has_given_up(node_entry)
                && brings_news(node_entry, newest);
            if unknown_to_status || answers_late {
                return take_in(node_entry, newest, newest.run < run, history_limit);
            }
            None
        }
    }
}

/// Whether the entry's part of its run is over for good, whatever pods appear.
fn is_final(node_entry: &NodeStatus) -> bool {
    node_entry.node_state().is_done()
        && !has_given_up(node_entry)
        && node_entry.node_state() != NodeState::Skipped
}

/// Whether the operator stopped waiting for the pod rather than saw it end.
fn has_given_up(node_entry: &NodeStatus) -> bool {
    matches!(
        entry::reason(node_entry),
        Some(
            NodeReason::NodeGone
                | NodeReason::Unreachable
                | NodeReason::StartDeadlineExceeded
                | NodeReason::ImagePullFailed
                | NodeReason::ContainerNotStarted
        )
    )
}

fn brings_news(node_entry: &NodeStatus, pod: &PodFacts) -> bool {
    ended(pod, false)
        .and_then(|outcome| outcome.snapshot)
        .is_some_and(|snapshot| snapshot.record.serial > node_entry.serial)
}

fn ended(pod: &PodFacts, superseded: bool) -> Option<Outcome> {
    match pod_state(pod, superseded) {
        PodState::Ended(outcome) => Some(*outcome),
        // Nothing ran, so nothing is to be counted.
        PodState::NeverStarted(_) => Some(nothing_ran()),
        PodState::Starting { .. } | PodState::Running => None,
    }
}

fn nothing_ran() -> Outcome {
    Outcome {
        state: NodeState::Stopped,
        reason: Some(NodeReason::Superseded),
        message: String::new(),
        snapshot: None,
        lost_executions: 0,
        handed_over: false,
    }
}

/// Takes in the newest pod of the entry's own run.
fn take_in(
    node_entry: &mut NodeStatus,
    pod: &PodFacts,
    superseded: bool,
    history_limit: usize,
) -> Option<Outcome> {
    node_entry.attempts = node_entry.attempts.max(pod.attempt);
    match pod_state(pod, superseded) {
        PodState::Starting { reason, message } => {
            let message = if reason.is_empty() { String::new() } else { format!("{reason}: {message}") };
            entry::begin(node_entry, pod, NodeState::Starting, None, &message);
            None
        }
        PodState::Running => {
            entry::begin(node_entry, pod, NodeState::Running, None, "");
            None
        }
        PodState::NeverStarted(_) if superseded => {
            entry::end(node_entry, &nothing_ran(), history_limit);
            None
        }
        PodState::NeverStarted(never) => {
            node_entry.pod_id = None;
            node_entry.seq = None;
            if never.refused && pod.by_scheduler {
                entry::set(node_entry, NodeState::Failed, Some(NodeReason::PodRefused), &never.message);
            } else {
                let reason = if never.refused { NodeReason::PodRefused } else { NodeReason::Replaced };
                entry::set(node_entry, NodeState::Pending, Some(reason), &never.message);
            }
            None
        }
        PodState::Ended(outcome) => {
            entry::end(node_entry, &outcome, history_limit);
            Some(*outcome)
        }
    }
}

/// The entry names a pod that the API server does not know, and nobody saw it end.
fn vanish(node_entry: &mut NodeStatus, history_limit: usize) {
    let lost = Outcome {
        state: NodeState::Unknown,
        reason: Some(NodeReason::PodLost),
        message: "the pod vanished and left no answer".to_owned(),
        snapshot: None,
        lost_executions: 1,
        handed_over: false,
    };
    if node_entry.node_state().is_active() {
        entry::end(node_entry, &lost, history_limit);
    } else {
        entry::end_of_older_run(node_entry, &lost, history_limit);
    }
}

/// An endless repetition goes on in the next pod, whatever ended this one, unless the next would meet the same end.
fn go_on_endlessly(node_entry: &mut NodeStatus, outcome: &Outcome) {
    match outcome.reason {
        Some(NodeReason::InputTampered | NodeReason::PodRefused) => {}
        reason => entry::set(node_entry, NodeState::Running, reason, &outcome.message),
    }
}

fn give_up(node_entry: &mut NodeStatus, reason: NodeReason, message: &str) {
    entry::set(node_entry, NodeState::Unknown, Some(reason), message);
}

/// Ends the wait for pods that do not start and for nodes that do not become Ready.
pub(super) fn enforce_start_deadlines(draft: &mut Draft, run: &ValidRun, observed: &Observed) {
    let limit = SignedDuration::from_secs(i64::from(run.limits.start_deadline_seconds));
    let Some((number, run_start)) = draft.status.run.as_ref().map(|run| (run.number, run.start_time.0))
    else {
        return;
    };
    let now = draft.now;
    let mut looks = Vec::new();
    let by_node = pods_by_node(observed);
    for (name, node_entry) in draft.status.nodes.iter_mut().filter(|(_, node_entry)| node_entry.run == number)
    {
        let pods = by_node.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let Some((since, reason, message)) = waits_for(name, node_entry, pods, observed, run_start) else {
            continue;
        };
        match since.checked_add(limit) {
            Ok(deadline) if deadline > now => looks.push(deadline),
            _ if reason == NodeReason::Unreachable => give_up(node_entry, reason, &message),
            _ => entry::set(node_entry, NodeState::Failed, Some(reason), &message),
        }
    }
    for look in looks {
        draft.look_again_at(look);
    }
}

/// Since when an entry waits for a start, and what it fails with if that takes too long.
fn waits_for(
    name: &str,
    node_entry: &NodeStatus,
    pods: &[&PodFacts],
    observed: &Observed,
    run_start: Timestamp,
) -> Option<(Timestamp, NodeReason, String)> {
    let node = observed.nodes.get(name)?;
    let unreachable = || format!("node {name:?} was not Ready within podStartDeadlineSeconds");
    match node_entry.node_state() {
        NodeState::Starting => {
            let pod = pods.iter().find(|pod| Some(short_id(&pod.uid)) == node_entry.pod_id)?;
            let since = pod.created?;
            if !node.ready {
                return Some((
                    since.max(node.ready_since.unwrap_or(since)),
                    NodeReason::Unreachable,
                    unreachable(),
                ));
            }
            let PodState::Starting { reason, message } = pod_state(pod, false) else { return None };
            Some((
                since,
                start_failure(&reason),
                format!(
                    "pod {:?} did not start within podStartDeadlineSeconds: {reason} {message}",
                    pod.name
                ),
            ))
        }
        NodeState::Pending if entry::reason(node_entry) == Some(NodeReason::NodeNotReady) => Some((
            run_start.max(node.ready_since.unwrap_or(run_start)),
            NodeReason::Unreachable,
            unreachable(),
        )),
        NodeState::Pending if entry::reason(node_entry) == Some(NodeReason::NameConflict) => {
            let conflict = observed.pod_conflicts.get(name)?;
            Some((conflict.since, NodeReason::NameConflict, conflict.message.clone()))
        }
        NodeState::Pending
        | NodeState::Running
        | NodeState::Succeeded
        | NodeState::Failed
        | NodeState::Skipped
        | NodeState::Stopped
        | NodeState::Unknown => None,
    }
}
