//! Pods and what their sessions brought, as one plan looks them up: by node, and by the short id that the status names. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
};

use scriptrunner_api::{
    session::Ack,
    snapshot::Snapshot,
    v1alpha1::{NodeStatus, ScriptRunnerStatus},
};

use super::Taken;
use crate::{
    in_step::InStep,
    names::short_id,
    observed::{Observed, PodFacts, SessionFacts},
};

/// A pod and its session.
#[derive(Clone, Copy)]
pub(super) struct Runner<'a> {
    pub(super) pod: &'a PodFacts,
    session: Option<&'a SessionFacts>,
}

impl<'a> Runner<'a> {
    /// Whether the entry names this pod.
    pub(super) fn is_named_by(&self, node_entry: &NodeStatus) -> bool {
        node_entry.pod_id.as_ref() == Some(&self.pod.id)
    }

    /// The newest snapshot of its session. One that speaks of another run or attempt is not the pod's, whoever sent it.
    pub(super) fn live(&self) -> Option<&'a Snapshot> {
        let snapshot = self.session?.snapshot.as_deref()?;
        let is_own = (snapshot.record.run, snapshot.record.attempt) == (self.pod.run, self.pod.attempt);
        is_own.then_some(snapshot)
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
        let runner = |pod: &'a PodFacts| Runner { pod, session: sessions.get(&pod.uid) };
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
