//! Which nodes start now: how many may be busy, and which must still wait for an older pod. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus},
};

use super::{
    Action, Draft,
    attempts::{backed_off_until, is_interrupted},
    entry, guard,
    runners::{Runner, Runners},
    stored_entry,
    targets::is_cordoned,
    warm::{Readiness, Warm, is_idle},
};
use crate::{
    halt::{Halt, Tally, is_overdue},
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
/// Pause until pods are looked after again that are held back because too many wait for the scheduler. The scheduler binds
/// pods of other objects as well, and nobody tells this one.
const ROOM_PAUSE: SignedDuration = SignedDuration::from_secs(2);

/// Most pods that one plan creates: more than can be created before the next one, which goes on with the rest. A pod takes
/// about ten kilobytes, and there may be 5,000.
pub const MOST_CREATIONS: usize = 512;

/// How a node starts.
enum Start {
    /// In a new pod.
    Pod(Target),
    /// In a pod that is there, whose runner waits.
    Order { node: String, pod_id: String },
}

impl Start {
    fn is_by_scheduler(&self) -> bool {
        match self {
            Self::Pod(target) => target.by_scheduler,
            Self::Order { .. } => false,
        }
    }
}

/// The pods to create now. Idle runners are assigned to the run in its entries: they are given their orders once that is stored.
pub(super) fn start(
    draft: &mut Draft<'_>,
    run: &ValidRun,
    observed: &Observed,
    runners: &Runners<'_>,
    settings: &PodSettings,
    warm: Option<&Warm>,
) -> Vec<Action> {
    if is_halted(draft, run, observed) || guard::holds_back(run, observed) {
        return Vec::new();
    }
    let number = draft.run_number();
    let stored_number =
        observed.previous.as_ref().and_then(|previous| previous.run.as_ref()).map(|run| run.number);
    let free = free_slots(draft, run, runners);
    let mut starts = Vec::new();
    let mut looks = Vec::new();
    let (mut walk, mut nodes) = (runners.walk(), InStep::new(&observed.nodes));
    let entries = draft.status.nodes.iter_mut().filter(|(_, node_entry)| node_entry.run == number);
    for (name, node_entry) in entries.filter(|(_, node_entry)| wants_pod(node_entry)) {
        let Some(node) = nodes.get(name) else { continue };
        let on_node = walk.on(name);
        match warm.and_then(|warm| warm.candidate(node_entry, on_node)) {
            Some((runner, Readiness::Ready)) => {
                if is_settled(observed, node_entry, name) && !observed.occupied_nodes.contains(name) {
                    let (node, pod_id) = (name.clone(), runner.pod.id.clone());
                    starts.push((false, Start::Order { node, pod_id }));
                }
                continue;
            }
            Some((_, Readiness::Coming(until))) => {
                looks.push(until);
                continue;
            }
            Some((_, Readiness::Never)) | None => {}
        }
        if !may_follow(node_entry, stored_entry(observed, number, name), on_node)
            || observed.occupied_nodes.contains(name)
        {
            continue;
        }
        // Whoever drains the node wants it empty; how long that is waited for, the start deadline says.
        if is_interrupted(node_entry) && is_cordoned(node) {
            continue;
        }
        if let Some(when) = held_until(node_entry, on_node, settings).filter(|when| *when > draft.now) {
            looks.push(when);
            continue;
        }
        let target = target(node, node_entry, run, number, warm);
        let in_conflict = mark_conflict(node_entry, &target, run, observed);
        starts.push((in_conflict, Start::Pod(target)));
    }
    for look in looks {
        draft.look_again_at(look);
    }
    // A taken name is tried again, but costs no other node its turn.
    starts.sort_by_key(|(in_conflict, _)| *in_conflict);
    let starts = within_room(draft, starts.into_iter().map(|(_, start)| start), free, observed);
    let mut actions = Vec::new();
    for start in starts {
        match start {
            // The run is not stored yet: a crash now would leave pods of a run that nobody knows.
            Start::Pod(_) if stored_number != Some(number) => {}
            Start::Pod(_) if actions.len() >= MOST_CREATIONS => {}
            Start::Pod(target) => actions.push(creation(observed, run, &target, settings)),
            Start::Order { node, pod_id } => {
                if let Some(node_entry) = draft.status.nodes.get_mut(&node) {
                    entry::order(node_entry, &pod_id);
                }
            }
        }
    }
    actions
}

/// The first `free` of the starts for which there is room: a pod that has to wait for its turn with the scheduler costs no
/// other node its own.
fn within_room(
    draft: &mut Draft<'_>,
    starts: impl Iterator<Item = Start>,
    free: usize,
    observed: &Observed,
) -> Vec<Start> {
    let mut room = observed.unbound_room;
    let mut within = Vec::new();
    for start in starts {
        if within.len() == free {
            break;
        }
        if start.is_by_scheduler() {
            let Some(rest) = room.checked_sub(1) else {
                draft.awaits_room = true;
                continue;
            };
            room = rest;
        }
        within.push(start);
    }
    if draft.awaits_room {
        draft.look_again_at(draft.now.saturating_add(ROOM_PAUSE).unwrap_or(Timestamp::MAX));
    }
    within
}

/// Whether nothing more is started, by what is stored or by what this look has found.
///
/// **Invariant:** a node is started only while what failed is within `maxFailures` and what is busy, with it, within
/// `parallelism`. So no more nodes than both together fail of those that were started.
fn is_halted(draft: &Draft<'_>, run: &ValidRun, observed: &Observed) -> bool {
    let number = draft.run_number();
    let stored = observed
        .previous
        .as_ref()
        .filter(|previous| previous.run.as_ref().is_some_and(|stored| stored.number == number))
        .map(|previous| Tally::of(previous));
    let tallies = [Some(Tally::of(&draft.status)), stored];
    let is_overdue = is_overdue(run, &draft.status, draft.now);
    tallies.into_iter().flatten().any(|tally| Halt::of(run, tally, is_overdue).is_some())
}

/// Whether what is stored of the node names no pod and waits for none.
fn is_settled(observed: &Observed, node_entry: &NodeStatus, node: &str) -> bool {
    let stored = observed.previous.as_ref().and_then(|previous| previous.nodes.get(node));
    stored.is_none_or(|stored| {
        stored.node_id != node_entry.node_id
            || (stored.pod_id.is_none()
                && !stored.node_state().is_active()
                && (stored.run < node_entry.run || stored.attempts == node_entry.attempts))
    })
}

fn creation(observed: &Observed, run: &ValidRun, target: &Target, settings: &PodSettings) -> Action {
    let pod = Box::new(build_pod(&observed.object, run, target, settings));
    Action::CreatePod { node: target.node.clone(), pod }
}

/// Says in the entry whether the name of its next pod is taken.
fn mark_conflict(node_entry: &mut NodeStatus, target: &Target, run: &ValidRun, observed: &Observed) -> bool {
    let conflict = observed.pod_conflicts.get(&target.node).filter(|conflict| {
        let Target { node_uid, run: number, attempt, .. } = target;
        conflict.pod == pod_name(run.pinned.mode, &observed.object.uid, node_uid, *number, *attempt)
    });
    if let Some(conflict) = conflict {
        entry::set(node_entry, NodeState::Pending, Some(NodeReason::NameConflict), &conflict.message);
    } else if entry::reason(node_entry) == Some(NodeReason::NameConflict) {
        entry::set(node_entry, NodeState::Pending, None, "");
    }
    conflict.is_some()
}

/// How many nodes more may become busy. Busy is a node whose pod exists and has not ended, that was not given up, and whose
/// runner does not only wait for further runs.
fn free_slots(draft: &Draft<'_>, run: &ValidRun, runners: &Runners<'_>) -> usize {
    let Some(parallelism) = run.parallelism else { return usize::MAX };
    let number = draft.run_number();
    let desired = draft.status.nodes.values().filter(|node_entry| node_entry.is_in(number)).count();
    let mut entries = InStep::new(&draft.status.nodes);
    let busy = runners
        .all()
        .iter()
        .filter(|runner| !runner.pod.has_ended())
        .filter(|runner| {
            !entries.get(&runner.pod.node).is_some_and(|node_entry| {
                (node_entry.run == runner.part.run && entry::has_given_up(node_entry))
                    || is_idle(runner, node_entry)
            })
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
fn held_until(node_entry: &NodeStatus, runners: &[Runner<'_>], settings: &PodSettings) -> Option<Timestamp> {
    let runner = runners
        .iter()
        .filter(|runner| runner.part.run == node_entry.run && runner.pod.node_id == node_entry.node_id)
        .max_by_key(|runner| runner.part.attempt)?;
    let newest = runner.pod;
    let created = newest.created?;
    match node_entry.node_state() {
        NodeState::Pending if entry::reason(node_entry) == Some(NodeReason::PodRefused) => None,
        NodeState::Pending if entry::reason(node_entry) == Some(NodeReason::BackingOff) => {
            backed_off_until(node_entry, runner, settings.times.retry_seconds)
        }
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

fn target(
    node: &NodeFacts,
    node_entry: &NodeStatus,
    run: &ValidRun,
    number: u64,
    warm: Option<&Warm>,
) -> Target {
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
        by_scheduler: run.is_by_scheduler() || entry::reason(node_entry) == Some(NodeReason::PodRefused),
        shape: warm.map(|warm| warm.shape.clone()),
    }
}
