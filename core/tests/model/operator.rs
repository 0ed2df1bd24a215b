//! One operator process: what it has seen and remembers, and how it reconciles. It mirrors operator/src/{observe,reconcile,
//! apply,report}.rs step by step; between any two steps the rest of the world goes on, and the process may die.

mod apply;
mod observe;

use scriptrunner_core::validate::Sources;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use json_patch::Patch;
use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, ScriptRunner, ScriptRunnerStatus},
};
use scriptrunner_core::{
    names::short_id,
    observed::{ConfigMapFacts, NodeFacts, PodConflict, PodFacts},
    plan::{Action, Plan, plan},
    pod::PodSettings,
    status::{
        groups::Answers,
        patch::diff,
        urgency::{Urgency, urgency},
    },
    validate::{Pinned, ValidRun, validate},
};

use self::{apply::in_order, observe::Sight};
use crate::{api_server::ApiServer, pod_table::PodTable, random::Random};

/// Rounds of one reconcile.
const MOST_ROUNDS: usize = 8;

/// What a watch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Objects,
    Pods,
    Nodes,
    ConfigMaps,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Objects, Self::Pods, Self::Nodes, Self::ConfigMaps];
}

/// How far a watch has come.
#[derive(Clone, Copy, Default)]
struct Watch {
    position: usize,
    /// Whether its events are lost until everything is listed again.
    is_broken: bool,
}

/// What a decision was made on.
pub(crate) struct Basis {
    pub(crate) valid: Option<ValidRun>,
    pub(crate) previous: Option<ScriptRunnerStatus>,
    /// The status that the same plan makes.
    pub(crate) planned: Option<ScriptRunnerStatus>,
    pub(crate) now: Timestamp,
}

/// Something that a process did to the world.
pub(crate) enum Deed {
    Created {
        pod: Box<Pod>,
        basis: Arc<Basis>,
    },
    /// It asked for the deletion of this pod, which was there.
    Deleted {
        pod: Box<Pod>,
        why: &'static str,
        /// Whether it knew that the pod had ended.
        is_over: bool,
        basis: Arc<Basis>,
    },
    /// It deleted the object itself, which was this.
    Ended {
        object: Arc<ScriptRunner>,
    },
    /// It stored a status over the other.
    Wrote {
        before: Option<Arc<ScriptRunner>>,
    },
}

/// A reconcile that is under way.
struct Job {
    actions: VecDeque<Action>,
    basis: Arc<Basis>,
    write: Option<Write>,
    /// Whether the actions are performed while the status is on its way.
    is_beside: bool,
    rounds: usize,
}

struct Write {
    patch: Patch,
    object: Arc<ScriptRunner>,
}

/// How often something goes wrong between process and server, in percent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Line {
    /// A write is done and its answer lost.
    pub(crate) deaf: usize,
    /// A status waits for its bytes.
    pub(crate) slow: usize,
    /// Actions go on while a status is on its way.
    pub(crate) beside: usize,
}

/// One process.
pub(crate) struct Process {
    pub(crate) id: u32,
    settings: PodSettings,
    other_bytes: usize,
    watches: [Watch; 4],
    cached: Option<Arc<ScriptRunner>>,
    latest: Option<Arc<ScriptRunner>>,
    own: Option<Arc<ScriptRunner>>,
    nodes: Arc<BTreeMap<String, NodeFacts>>,
    pods: PodTable,
    config_maps: BTreeMap<String, ConfigMapFacts>,
    pinned: Option<(u64, Arc<Pinned>)>,
    known_answers: Answers,
    refusal: Option<String>,
    config_map_conflict: Option<String>,
    pod_conflicts: BTreeMap<String, PodConflict>,
    tried: Option<Timestamp>,
    since: Timestamp,
    job: Option<Job>,
    /// When it wants to look again.
    pub(crate) next: Option<Timestamp>,
}

impl Process {
    /// A process that begins: it lists everything before it does anything.
    pub(crate) fn start(id: u32, server: &ApiServer, settings: PodSettings, other_bytes: usize) -> Self {
        let mut process = Self {
            id,
            settings,
            other_bytes,
            watches: [Watch::default(); 4],
            cached: None,
            latest: None,
            own: None,
            nodes: Arc::default(),
            pods: PodTable::default(),
            config_maps: BTreeMap::new(),
            pinned: None,
            known_answers: Answers::new(),
            refusal: None,
            config_map_conflict: None,
            pod_conflicts: BTreeMap::new(),
            tried: None,
            since: server.now,
            job: None,
            next: None,
        };
        for kind in Kind::ALL {
            process.list(kind, server);
        }
        process
    }

    /// Lists a kind, and watches it from there.
    pub(crate) fn list(&mut self, kind: Kind, server: &ApiServer) {
        let position = match kind {
            Kind::Objects => {
                self.cached = server.object.clone();
                server.log.objects.len()
            }
            Kind::Pods => {
                let facts: Vec<_> = server.pods.values().filter_map(PodFacts::of).collect();
                let listed: BTreeSet<String> = facts.iter().map(|pod| pod.uid.clone()).collect();
                for pod in facts {
                    self.pods.put(pod);
                }
                self.pods.list_ends(&listed);
                server.log.pods.len()
            }
            Kind::Nodes => {
                let facts = server.nodes.values().filter_map(NodeFacts::of);
                self.nodes = Arc::new(facts.map(|node| (node.name.clone(), node)).collect());
                server.log.nodes.len()
            }
            Kind::ConfigMaps => {
                let facts = server.config_maps.values().filter_map(|map| ConfigMapFacts::of(&map.metadata));
                self.config_maps = facts.map(|map| (map.name.clone(), map)).collect();
                server.log.config_maps.len()
            }
        };
        self.watches[kind as usize] = Watch { position, is_broken: false };
    }

    /// A watch breaks: what happens until the next list is never shown.
    pub(crate) fn break_watch(&mut self, kind: Kind) {
        self.watches[kind as usize].is_broken = true;
    }

    pub(crate) fn is_broken(&self, kind: Kind) -> bool {
        self.watches[kind as usize].is_broken
    }

    /// A watch shows so many further events. Whether there were any.
    pub(crate) fn hear(&mut self, kind: Kind, server: &ApiServer, most: usize) -> bool {
        let Watch { position, is_broken } = self.watches[kind as usize];
        if is_broken {
            return false;
        }
        let log = &server.log;
        let heard = match kind {
            Kind::Objects => {
                let events = log.objects[position..].iter().take(most);
                events.map(|object| self.cached = object.clone()).count()
            }
            Kind::Pods => {
                let events = log.pods[position..].iter().take(most);
                events.map(|(pod, is_last)| self.hear_of_pod(pod, *is_last)).count()
            }
            Kind::Nodes => {
                let events = log.nodes[position..].iter().take(most);
                let nodes = Arc::make_mut(&mut self.nodes);
                events
                    .map(|(name, node)| match node {
                        Some(node) => nodes.insert(name.clone(), NodeFacts::clone(node)),
                        None => nodes.remove(name),
                    })
                    .count()
            }
            Kind::ConfigMaps => {
                let events = log.config_maps[position..].iter().take(most);
                let known = &mut self.config_maps;
                events
                    .map(|(map, is_last)| {
                        if *is_last {
                            known.remove(&map.name)
                        } else {
                            known.insert(map.name.clone(), map.clone())
                        }
                    })
                    .count()
            }
        };
        self.watches[kind as usize].position += heard;
        heard > 0
    }

    fn hear_of_pod(&mut self, pod: &PodFacts, is_last: bool) {
        if is_last { self.pods.remove(pod) } else { self.pods.put(pod.clone()) }
    }

    /// Whether it has seen the pod, and has not forgotten it.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.pods.knows(uid)
    }

    /// Whether it is in the middle of a reconcile.
    pub(crate) fn is_at_work(&self) -> bool {
        self.job.is_some()
    }

    /// One step: it begins a reconcile, or goes on with the one that is under way by one write.
    pub(crate) fn step(&mut self, server: &mut ApiServer, line: Line, random: &mut Random) -> Vec<Deed> {
        let mut deeds = Vec::new();
        if server.leader != self.id {
            self.end(server, &mut deeds);
            return deeds;
        }
        match self.job.take() {
            None => self.begin(server, 0),
            Some(job) => self.go_on(job, server, line, random, &mut deeds),
        }
        deeds
    }

    /// The gate lets nothing pass any more, and the process ends. A status may be on its way to the server already.
    fn end(&mut self, server: &mut ApiServer, deeds: &mut Vec<Deed>) {
        if let Some(write) = self.job.take().and_then(|job| job.write) {
            let before = server.object.clone();
            deeds.extend(server.patch_status(&write.patch).map(|_| Deed::Wrote { before }));
        }
    }

    /// Observe, validate, plan.
    fn begin(&mut self, server: &ApiServer, rounds: usize) {
        let Some(sight) = self.observe(server) else { return };
        let (Plan { actions, status, next, .. }, valid) = self.plan(&sight, server.now);
        if actions
            .iter()
            .all(|action| !matches!(action, Action::CreateConfigMap(_) | Action::CreatePod { .. }))
        {
            (self.refusal, self.config_map_conflict) = (None, None);
        }
        let basis = Arc::new(Basis { valid, previous: previous(&sight), planned: status, now: server.now });
        self.next = next;
        self.job = Some(Job {
            actions: in_order(actions),
            basis,
            write: None,
            is_beside: false,
            rounds: rounds + 1,
        });
    }

    fn plan(&self, sight: &Sight, now: Timestamp) -> (Plan, Option<ValidRun>) {
        let valid = validate(&sight.observed.object.spec, &Sources::default());
        (plan(&valid, &sight.observed, &self.settings, now), valid.ok())
    }

    /// Performs the next action or, when there is none left, reports.
    fn go_on(
        &mut self,
        mut job: Job,
        server: &mut ApiServer,
        line: Line,
        random: &mut Random,
        deeds: &mut Vec<Deed>,
    ) {
        if job.write.is_some() && (job.actions.is_empty() || random.chance(40)) {
            let write = job.write.take().unwrap();
            return self.write(&write, job, server, random.chance(line.deaf), deeds);
        }
        if let Some(action) = job.actions.pop_front() {
            let known = (self.pods.clone(), self.config_maps.clone(), self.pod_conflicts.clone());
            let is_done = self.perform(action, &job.basis, server, deeds);
            if random.chance(line.deaf) {
                // The answer is lost, and that ends the reconcile.
                (self.pods, self.config_maps, self.pod_conflicts) = known;
                self.next = Some(server.now);
                return;
            }
            if !is_done {
                job.actions.retain(|action| !matches!(action, Action::CreatePod { .. }));
            }
            self.job = Some(job);
        } else if job.is_beside {
            self.begin_again(server, job.rounds);
        } else {
            self.report(job, server, line, random);
        }
    }

    /// The status comes from what the API server shows after the actions.
    fn report(&mut self, mut job: Job, server: &ApiServer, line: Line, random: &mut Random) {
        let Some(sight) = self.observe(server) else { return };
        let (planned, valid) = self.plan(&sight, server.now);
        // The moment that the first plan waited for may have come meanwhile.
        self.next = self.next.into_iter().chain(planned.next).min();
        self.known_answers = planned.answers;
        let status = planned.status.as_ref();
        self.pod_conflicts.retain(|node, _| status.is_some_and(|status| is_in_conflict(status, node)));
        let Some(status) = planned.status else { return };
        let object = &sight.object;
        let uid = object.metadata.uid.clone().unwrap();
        let version = object.metadata.resource_version.clone().unwrap();
        let Some(patch) = diff(object.status.as_ref(), &status, &uid, &version) else {
            return self.prune(object);
        };
        let previous = previous(&sight);
        let pause = self.pause(previous.as_ref(), &status, server.now);
        if let Some(pause) =
            pause.or_else(|| random.chance(line.slow).then_some(SignedDuration::from_secs(1)))
        {
            let due = server.now.checked_add(pause).unwrap();
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
            return;
        }
        if is_same_run(previous.as_ref(), &status) && random.chance(line.beside) {
            job.actions = in_order(planned.actions);
            job.basis = Arc::new(Basis { valid, previous, planned: Some(status), now: server.now });
            job.is_beside = true;
        }
        job.write = Some(Write { patch, object: sight.object });
        self.job = Some(job);
    }

    fn write(
        &mut self,
        write: &Write,
        job: Job,
        server: &mut ApiServer,
        is_deaf: bool,
        deeds: &mut Vec<Deed>,
    ) {
        let before = server.object.clone();
        self.tried = Some(server.now);
        if let Some(stored) = server.patch_status(&write.patch) {
            deeds.push(Deed::Wrote { before });
            if is_deaf {
                self.own = None;
                self.next = Some(server.now);
                return;
            }
            (self.latest, self.own) = (Some(stored.clone()), Some(stored));
        } else if let Some(live) = server.object.clone() {
            assert_ne!(version(&live), version(&write.object), "a status is refused though nothing changed");
            self.latest = Some(live);
        }
        if job.actions.is_empty() {
            self.begin_again(server, job.rounds);
        } else {
            self.job = Some(job);
        }
    }

    fn begin_again(&mut self, server: &ApiServer, rounds: usize) {
        if rounds < MOST_ROUNDS {
            self.begin(server, rounds);
        } else {
            self.next = Some(server.now);
        }
    }

    /// How long the write has to wait.
    fn pause(
        &self,
        previous: Option<&ScriptRunnerStatus>,
        status: &ScriptRunnerStatus,
        now: Timestamp,
    ) -> Option<SignedDuration> {
        let turn = |status: &ScriptRunnerStatus| {
            status.run.as_ref().map(|run| (run.number, run.completion_time.is_some()))
        };
        let (since, seconds) = match urgency(previous, status) {
            Urgency::Result if turn(status) > previous.and_then(turn) => return None,
            Urgency::Result => (self.tried?, 1),
            Urgency::State => (self.tried.unwrap_or(self.since), 10),
        };
        let due = since.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        (due > now).then(|| due.duration_since(now))
    }

    /// Forgets vanished pods whose outcome is stored and that no decision needs any more.
    fn prune(&mut self, object: &ScriptRunner) {
        let Some(status) = &object.status else { return };
        self.pods.prune(|pod| {
            let Some(entry) = status.nodes.get(&pod.node) else { return false };
            let is_newest = entry.run == pod.run && entry.attempts == pod.attempt;
            entry.pod_id.as_deref() == Some(short_id(&pod.uid).as_str())
                || (is_newest && (entry.node_state().is_active() || entry.node_state() == NodeState::Pending))
        });
    }
}

fn previous(sight: &Sight) -> Option<ScriptRunnerStatus> {
    sight.observed.previous.as_deref().cloned()
}

fn version(object: &ScriptRunner) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn is_same_run(previous: Option<&ScriptRunnerStatus>, status: &ScriptRunnerStatus) -> bool {
    let number = |status: &ScriptRunnerStatus| status.run.as_ref().map(|run| run.number);
    previous.and_then(number) == number(status)
}

fn is_in_conflict(status: &ScriptRunnerStatus, node: &str) -> bool {
    status.nodes.get(node).is_some_and(|entry| {
        entry.node_state() == NodeState::Pending && entry.reason == NodeReason::NameConflict.as_str()
    })
}
