//! Which nodes start now: how many may be busy, and which must still wait for an older pod. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus, Placement},
};

use super::{
    Action, Draft, entry,
    runners::{Runner, Runners},
    stored_entry,
};
use crate::{
    in_step::InStep,
    names::pod_name,
    observed::{ContainerFacts, NodeFacts, Observed},
    pod::{PodSettings, Target, build_pod},
    validate::ValidRun,
};

/// A pod that is followed by another sooner than this after it was made is followed after this time instead.
const SHORTEST_LIFE: SignedDuration = SignedDuration::from_secs(60);
/// A pod that never started is replaced after `2^attempts` seconds, at most this.
const LONGEST_REPLACEMENT_DELAY: SignedDuration = SignedDuration::from_secs(60);

/// The pods to create now.
pub(super) fn start(
    draft: &mut Draft<'_>,
    run: &ValidRun,
    observed: &Observed,
    runners: &Runners<'_>,
    settings: &PodSettings,
) -> Vec<Action> {
    let number = draft.run_number();
    let stored_number =
        observed.previous.as_ref().and_then(|previous| previous.run.as_ref()).map(|run| run.number);
    if stored_number != Some(number) {
        // The run is not stored yet: a crash now would leave pods of a run that nobody knows.
        return Vec::new();
    }
    let free = free_slots(draft, run, runners);
    let mut targets = Vec::new();
    let mut looks = Vec::new();
    let (mut walk, mut nodes) = (runners.walk(), InStep::new(&observed.nodes));
    let entries = draft.status.nodes.iter_mut().filter(|(_, node_entry)| node_entry.run == number);
    for (name, node_entry) in entries.filter(|(_, node_entry)| wants_pod(node_entry)) {
        let Some(node) = nodes.get(name) else { continue };
        let on_node = walk.on(name);
        if !may_follow(node_entry, stored_entry(observed, number, name), on_node)
            || observed.occupied_nodes.contains(name)
        {
            continue;
        }
        if let Some(when) = held_until(node_entry, on_node).filter(|when| *when > draft.now) {
            looks.push(when);
            continue;
        }
        let target = target(node, node_entry, run, number);
        let in_conflict = mark_conflict(node_entry, &target, run, observed);
        targets.push((in_conflict, target));
    }
    for look in looks {
        draft.look_again_at(look);
    }
    // A taken name is tried again, but costs no other node its turn.
    targets.sort_by_key(|(in_conflict, _)| *in_conflict);
    targets.into_iter().take(free).map(|(_, target)| creation(observed, run, &target, settings)).collect()
}

fn creation(observed: &Observed, run: &ValidRun, target: &Target, settings: &PodSettings) -> Action {
    let pod = Box::new(build_pod(&observed.object, run, target, settings));
    Action::CreatePod { node: target.node.clone(), pod }
}

/// Says in the entry whether the name of its next pod is taken.
fn mark_conflict(node_entry: &mut NodeStatus, target: &Target, run: &ValidRun, observed: &Observed) -> bool {
    let name = pod_name(run.pinned.mode, &observed.object.uid, &target.node_uid, target.run, target.attempt);
    let conflict = observed.pod_conflicts.get(&target.node).filter(|conflict| conflict.pod == name);
    if let Some(conflict) = conflict {
        entry::set(node_entry, NodeState::Pending, Some(NodeReason::NameConflict), &conflict.message);
    } else if entry::reason(node_entry) == Some(NodeReason::NameConflict) {
        entry::set(node_entry, NodeState::Pending, None, "");
    }
    conflict.is_some()
}

/// How many nodes more may become busy. Busy is a node whose pod exists and has not ended, and that was not given up.
fn free_slots(draft: &Draft<'_>, run: &ValidRun, runners: &Runners<'_>) -> usize {
    let Some(parallelism) = run.parallelism else { return usize::MAX };
    let number = draft.run_number();
    let desired = draft.status.nodes.values().filter(|node_entry| node_entry.run == number).count();
    let mut entries = InStep::new(&draft.status.nodes);
    let busy = runners
        .all()
        .iter()
        .map(|runner| runner.pod)
        .filter(|pod| !pod.has_ended())
        .filter(|pod| {
            !entries
                .get(&pod.node)
                .is_some_and(|node_entry| node_entry.run == pod.run && entry::has_given_up(node_entry))
        })
        .count();
    parallelism.nodes(desired).saturating_sub(busy)
}

/// Whether the entry is waiting for a pod to be made.
fn wants_pod(node_entry: &NodeStatus) -> bool {
    node_entry.pod_id.is_none()
        && match node_entry.node_state() {
            NodeState::Pending => entry::reason(node_entry) != Some(NodeReason::NodeNotReady),
            // An endless repetition between two pods.
            NodeState::Running => true,
            NodeState::Starting
            | NodeState::Succeeded
            | NodeState::Failed
            | NodeState::Skipped
            | NodeState::Stopped
            | NodeState::Unknown => false,
        }
}

/// Whether everything that came before on the node is over and stored: a pod is followed only once its outcome is stored,
/// and nothing starts beside a pod that may still run.
fn may_follow(node_entry: &NodeStatus, stored: Option<&NodeStatus>, runners: &[Runner<'_>]) -> bool {
    let is_stored = match stored {
        None => true,
        Some(stored) if stored.run < node_entry.run => !stored.node_state().is_active(),
        Some(stored) => {
            stored.node_id != node_entry.node_id
                || (stored.pod_id.is_none() && stored.attempts == node_entry.attempts)
        }
    };
    is_stored && runners.iter().all(|runner| runner.pod.has_ended())
}

/// Until when the next pod is held back, so that pods that end at once do not follow each other without pause.
fn held_until(node_entry: &NodeStatus, runners: &[Runner<'_>]) -> Option<Timestamp> {
    let newest = runners
        .iter()
        .map(|runner| runner.pod)
        .filter(|pod| pod.run == node_entry.run && pod.node_id == node_entry.node_id)
        .max_by_key(|pod| pod.attempt)?;
    let created = newest.created?;
    match node_entry.node_state() {
        NodeState::Pending if entry::reason(node_entry) == Some(NodeReason::PodRefused) => None,
        NodeState::Pending => {
            let delay = SignedDuration::from_secs(1 << newest.attempt.min(10)).min(LONGEST_REPLACEMENT_DELAY);
            created.checked_add(delay).ok()
        }
        NodeState::Running if matches!(newest.container, ContainerFacts::Terminated { .. }) => {
            created.checked_add(SHORTEST_LIFE).ok()
        }
        NodeState::Running
        | NodeState::Starting
        | NodeState::Succeeded
        | NodeState::Failed
        | NodeState::Skipped
        | NodeState::Stopped
        | NodeState::Unknown => None,
    }
}

fn target(node: &NodeFacts, node_entry: &NodeStatus, run: &ValidRun, number: u64) -> Target {
    debug_assert_eq!(node.id, node_entry.node_id, "the entry should be of this very node");
    Target {
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        run: number,
        attempt: node_entry.attempts.saturating_add(1),
        first_serial: node_entry.serial.saturating_add(1),
        last_start_seconds: node_entry
            .history
            .last()
            .filter(|newest| newest.run == number)
            .and_then(|newest| newest.start_time.as_ref())
            .map(|time| time.0.as_second()),
        remaining: run.pinned.executions().map(|total| total.saturating_sub(node_entry.serial).max(1)),
        failures_before: node_entry.failures,
        by_scheduler: run.pinned.placement == Placement::Scheduler
            || entry::reason(node_entry) == Some(NodeReason::PodRefused),
    }
}
