//! Pods and what their sessions brought, as one plan looks them up: by node, and by the short id that the status names. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
};

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::{
    session::Ack,
    snapshot::Snapshot,
    v1alpha1::{NodeStatus, ScriptRunnerStatus},
};

use super::Taken;
use crate::{
    in_step::InStep,
    names::short_id,
    observed::{ContainerFacts, Observed, PodFacts, SessionFacts},
};

/// The part of a run that a pod works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) run: u64,
    pub(super) attempt: u32,
}

impl Part {
    fn of(snapshot: &Snapshot) -> Self {
        Self { run: snapshot.record.run, attempt: snapshot.record.attempt }
    }
}

/// A pod and its session.
#[derive(Clone, Copy)]
pub(super) struct Runner<'a> {
    pub(super) pod: &'a PodFacts,
    session: Option<&'a SessionFacts>,
    /// What it works on, or worked on last, by the stored status.
    pub(super) part: Part,
}

impl<'a> Runner<'a> {
    /// Whether the entry names this pod.
    pub(super) fn is_named_by(&self, node_entry: &NodeStatus) -> bool {
        node_entry.pod_id.as_ref() == Some(&self.pod.id)
    }

    /// The newest snapshot of its session. One that speaks of another run or attempt than the pod's part tells nothing of
    /// that part, whoever sent it.
    pub(super) fn live(&self) -> Option<&'a Snapshot> {
        self.newest_snapshot().filter(|snapshot| Part::of(snapshot) == self.part)
    }

    /// The newest snapshot of its session, whatever it speaks of.
    pub(super) fn newest_snapshot(&self) -> Option<&'a Snapshot> {
        self.session?.snapshot.as_deref()
    }

    /// The run and attempt that it was ordered to go on with; none if it works on what it was made for.
    pub(super) fn ordered(&self) -> Option<Part> {
        let made_for = Part { run: self.pod.run, attempt: self.pod.attempt };
        (self.part != made_for).then_some(self.part)
    }

    /// Since when its session is missed; none while it is connected. Of a session that this process has never seen, it is
    /// missed since `since`.
    pub(super) fn missed_since(&self, since: Timestamp) -> Option<Timestamp> {
        match self.session {
            Some(session) if session.connected => None,
            session => Some(session.and_then(|session| session.left).unwrap_or(since)),
        }
    }

    /// When the order of this run was first given to it, by this process.
    pub(super) fn ordered_at(&self, run: u64) -> Option<Timestamp> {
        self.session?.ordered.filter(|(ordered, _)| *ordered == run).map(|(_, at)| at)
    }

    /// Whether it is connected now.
    pub(super) fn is_connected(&self) -> bool {
        self.session.is_some_and(|session| session.connected)
    }

    /// That the status contains the snapshot.
    pub(super) fn heard(&self, live: &'a Snapshot) -> Heard<'a> {
        Heard { pod: self.pod, live }
    }
}

/// A snapshot whose whole content is in the entry of its node.
#[derive(Clone, Copy)]
pub(super) struct Heard<'a> {
    pod: &'a PodFacts,
    live: &'a Snapshot,
}

/// The acknowledgements of snapshots, sorted by node, whose entries are still there and still of that node.
pub(super) fn taken(heard: &[Heard<'_>], nodes: &BTreeMap<String, NodeStatus>) -> Vec<Taken> {
    let mut entries = InStep::new(nodes);
    heard
        .iter()
        .filter(|heard| entries.get(&heard.pod.node).is_some_and(|node| node.node_id == heard.pod.node_id))
        .map(|Heard { pod, live }| Taken {
            pod_uid: pod.uid.clone(),
            ack: Ack { boot: live.record.boot.clone(), seq: live.record.seq },
        })
        .collect()
}

/// Every pod of the object, with its session.
pub(super) struct Runners<'a> {
    /// Sorted by node.
    all: Vec<Runner<'a>>,
    /// Snapshots of pods that no watch knows any more, by short id.
    vanished: HashMap<String, &'a Snapshot>,
}

impl<'a> Runners<'a> {
    pub(super) fn of(observed: &'a Observed) -> Self {
        let mut pods: Vec<&PodFacts> = observed.pods.iter().map(Deref::deref).collect();
        pods.sort_by(|left, right| left.uid.cmp(&right.uid));
        let mut sessions = InStep::new(&observed.sessions);
        let runner = |pod: &'a PodFacts| Runner {
            pod,
            session: sessions.get(&pod.uid),
            part: Part { run: pod.run, attempt: pod.attempt },
        };
        let mut all: Vec<Runner<'_>> = pods.iter().copied().map(runner).collect();
        let matched = all.iter().filter(|runner| runner.session.is_some()).count();
        let is_unmatched = |uid: &str| pods.binary_search_by(|pod| pod.uid.as_str().cmp(uid)).is_err();
        let vanished = if matched < observed.sessions.len() {
            observed
                .sessions
                .iter()
                .filter(|(uid, _)| is_unmatched(uid))
                .filter_map(|(uid, session)| Some((short_id(uid), session.snapshot.as_deref()?)))
                .collect()
        } else {
            HashMap::new()
        };
        all.sort_by(|left, right| left.pod.node.cmp(&right.pod.node));
        if let Some(stored) = &observed.previous {
            assign_parts(&mut all, &stored.nodes);
        }
        Self { all, vanished }
    }

    /// All of them, sorted by node.
    pub(super) fn all(&self) -> &[Runner<'a>] {
        &self.all
    }

    /// A walk from node to node.
    pub(super) fn walk(&self) -> Walk<'_, 'a> {
        Walk { rest: &self.all }
    }

    /// How many desired active nodes have a pod that is connected.
    pub(super) fn connected(&self, status: &ScriptRunnerStatus) -> u32 {
        let number = status.run.as_ref().map_or(0, |run| run.number);
        let mut entries = InStep::new(&status.nodes);
        let is_counted = |runner: &&Runner<'_>| {
            runner.is_connected()
                && entries.get(&runner.pod.node).is_some_and(|node_entry| {
                    node_entry.run == number
                        && node_entry.node_state().is_active()
                        && runner.is_named_by(node_entry)
                })
        };
        u32::try_from(self.all.iter().filter(is_counted).count()).unwrap_or(u32::MAX)
    }

    /// What the session of a pod brought that no watch knows any more.
    pub(super) fn vanished(&self, pod_id: &str) -> Option<&'a Snapshot> {
        self.vanished.get(pod_id).copied()
    }
}

/// Finds out which pods work on a newer run than they were made for.
///
/// **Invariant:** a pod works on what the entry that names it says; its labels only say what it was made for.
fn assign_parts(all: &mut [Runner<'_>], nodes: &BTreeMap<String, NodeStatus>) {
    let mut entries = InStep::new(nodes);
    for on_node in all.chunk_by_mut(|left, right| left.pod.node == right.pod.node) {
        let Some(node_entry) = on_node.first().and_then(|runner| entries.get(&runner.pod.node)) else {
            continue;
        };
        let of_entry = Part { run: node_entry.run, attempt: node_entry.attempts };
        let is_made_for = on_node.iter().any(|runner| runner.part == of_entry);
        for runner in on_node {
            runner.part = part(runner, node_entry, is_made_for);
        }
    }
}

/// What a pod works on. `is_made_for` says whether some pod of the node was made for what its entry is about.
fn part(runner: &Runner<'_>, node_entry: &NodeStatus, is_made_for: bool) -> Part {
    let pod = runner.pod;
    let made_for = Part { run: pod.run, attempt: pod.attempt };
    if pod.shape.is_empty() || pod.node_id != node_entry.node_id || pod.run >= node_entry.run {
        return made_for;
    }
    let of_entry = Part { run: node_entry.run, attempt: node_entry.attempts };
    if runner.is_named_by(node_entry) {
        return match node_entry.node_state() {
            state if state.is_active() => of_entry,
            // A pod that waits is ordered to be the first of its run, or nobody is.
            _ if node_entry.pod_run > pod.run => Part { run: node_entry.pod_run, attempt: 1 },
            _ => made_for,
        };
    }
    let is_done = node_entry.node_state().is_done() && node_entry.attempts > 0 && !is_made_for;
    // No pod is made for a node while another one may run there. So if the entry is done and this pod may still run, there
    // was no other; of one that has ended, its own words tell.
    if is_done && (!pod.has_ended() || last_part(runner) == Some(of_entry)) { of_entry } else { made_for }
}

/// What the runner of a pod that has ended spoke of last.
fn last_part(runner: &Runner<'_>) -> Option<Part> {
    let left = match &runner.pod.container {
        ContainerFacts::Terminated { message, .. } => Snapshot::decode(message).ok(),
        ContainerFacts::Absent | ContainerFacts::Waiting { .. } | ContainerFacts::Running => None,
    };
    left.as_ref().or_else(|| runner.newest_snapshot()).map(Part::of)
}

/// A walk through all pods from node to node.
pub(super) struct Walk<'w, 'a> {
    rest: &'w [Runner<'a>],
}

impl<'w, 'a> Walk<'w, 'a> {
    /// Pods that were made for nodes of this name. Names must be asked for in ascending order.
    pub(super) fn on(&mut self, node: &str) -> &'w [Runner<'a>] {
        let before = self.rest.iter().take_while(|runner| runner.pod.node.as_str() < node).count();
        self.rest = &self.rest[before..];
        let here = self.rest.iter().take_while(|runner| runner.pod.node == node).count();
        &self.rest[..here]
    }
}
