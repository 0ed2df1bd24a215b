//! A cluster made of plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use scriptrunner_api::{
    labels::PROTOCOL,
    session::RunOrder,
    snapshot::{Record, Snapshot},
    v1alpha1::{Execution, ScriptRunner, ScriptRunnerSpec, ScriptRunnerStatus},
};

use super::runner::ToyRunner;
use crate::{
    names::short_id,
    observed::{
        ConfigMapFacts, ContainerFacts, NodeFacts, ObjectFacts, Observed, PodFacts, PolicyProof, Presence,
        SessionFacts, StoredStatus,
    },
    plan::{Action, Plan, Taken, plan},
    pod::{PodSettings, RunnerTimes, SessionSettings},
    validate::{AllowedImages, Source, Sources, validate},
};

/// What is found of what a spec names: each ConfigMap holds its name.
pub(super) fn sources_of(spec: &ScriptRunnerSpec) -> Sources {
    let text = |name: &str| Source::Text(name.into());
    let trusted_ca = spec.dependencies.as_ref().and_then(|dependencies| dependencies.trusted_ca.as_ref());
    Sources {
        script: spec.script_from.as_ref().map(|from| text(&from.config_map_key_ref.name)),
        trusted_ca: trusted_ca.map(|ca| text(&ca.config_map_key_ref.name)),
    }
}

pub(super) struct Toy {
    pub(super) observed: Observed,
    pub(super) now: Timestamp,
    pub(super) settings: PodSettings,
    pub(super) created: usize,
    pub(super) writes: usize,
    /// Performs only so many actions of the next plan and loses its status.
    pub(super) crash_after: Option<usize>,
    pub(super) pods_made: Vec<Pod>,
    /// What runners were told, by UID of the pod.
    pub(super) orders: Vec<(String, Arc<RunOrder>)>,
    /// UIDs of pods whose runners were told to hand over.
    pub(super) hand_overs: BTreeSet<String>,
    /// Whether the object was deleted.
    pub(super) deleted: bool,
    /// What the last written or unchanged status acknowledged.
    pub(super) taken: Vec<Taken>,
}

impl Toy {
    pub(super) fn new(spec: &str, nodes: usize) -> Self {
        let mut toy = Self {
            observed: Observed {
                object: ObjectFacts {
                    namespace: "ns".into(),
                    name: "sr".into(),
                    uid: "uid".into(),
                    resource_version: "1".into(),
                    generation: 1,
                    created: Timestamp::from_second(1_800_000_000).ok(),
                    seen_since: None,
                    requested_by: None,
                    deleting: false,
                    other_bytes: 1000,
                    spec: serde_saphyr::from_str(spec).unwrap(),
                },
                previous: None,
                nodes: Arc::default(),
                pods: Vec::new(),
                occupied_nodes: BTreeSet::default(),
                config_maps: Vec::new(),
                namespace_privileged: false,
                known_answers: BTreeMap::default(),
                refusal: None,
                config_map_conflict: None,
                pod_conflicts: BTreeMap::default(),
                sessions: BTreeMap::new(),
                pinned: None,
                since: Timestamp::from_second(1_800_000_000).unwrap(),
                unbound_room: usize::MAX,
                sources: Sources::default(),
                policy_proof: PolicyProof::Proven { since: Timestamp::UNIX_EPOCH },
            },
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            settings: settings(),
            created: 0,
            writes: 0,
            crash_after: None,
            pods_made: Vec::new(),
            orders: Vec::new(),
            hand_overs: BTreeSet::new(),
            deleted: false,
            taken: Vec::new(),
        };
        (1..=nodes).for_each(|number| toy.add_node(&format!("n{number}")));
        toy
    }

    pub(super) fn add_node(&mut self, name: &str) {
        let facts = NodeFacts {
            name: name.into(),
            uid: format!("uid-of-{name}"),
            id: short_id(&format!("uid-of-{name}")),
            labels: BTreeMap::default(),
            taints: Vec::new(),
            unschedulable: false,
            cordoned_since: None,
            ready: true,
            ready_since: None,
            os: "linux".into(),
        };
        Arc::make_mut(&mut self.observed.nodes).insert(name.into(), facts);
    }

    /// Makes the node again under the same name.
    pub(super) fn replace_node(&mut self, name: &str, uid: &str) {
        let node = self.node(name);
        (node.uid, node.id) = (uid.into(), short_id(uid));
    }

    pub(super) fn node(&mut self, name: &str) -> &mut NodeFacts {
        Arc::make_mut(&mut self.observed.nodes).get_mut(name).expect("the node should be there")
    }

    pub(super) fn edit(&mut self, spec: &str) {
        self.observed.object.spec = serde_saphyr::from_str(spec).unwrap();
        self.observed.object.generation += 1;
    }

    pub(super) fn wait_seconds(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    pub(super) fn status(&self) -> &ScriptRunnerStatus {
        self.observed.previous.as_ref().expect("a status should be stored")
    }

    pub(super) fn store(&mut self, status: ScriptRunnerStatus) {
        let mut object = ScriptRunner::new("sr", self.observed.object.spec.clone());
        object.status = Some(status);
        self.observed.previous = StoredStatus::of(&Arc::new(object));
    }

    pub(super) fn states(&self) -> Vec<String> {
        self.status().nodes.values().map(|entry| entry.state.clone()).collect()
    }

    pub(super) fn live_pods(&self) -> usize {
        self.observed
            .pods
            .iter()
            .filter(|pod| pod.presence == Presence::Present && !(pod.deleting && pod.has_ended()))
            .count()
    }

    /// The newest pod of a node.
    pub(super) fn pod(&mut self, node: &str) -> &mut PodFacts {
        self.observed
            .pods
            .iter_mut()
            .map(Arc::make_mut)
            .filter(|pod| pod.node == node)
            .max_by_key(|pod| (pod.run, pod.attempt))
            .expect("the node should have a pod")
    }

    /// Arguments of the newest pod that was made for a node.
    fn args(&self, node: &str) -> Vec<String> {
        let made = self
            .pods_made
            .iter()
            .rev()
            .find(|pod| pod.metadata.annotations.as_ref().unwrap()["scriptrunner.io/node"] == node)
            .unwrap();
        made.spec.as_ref().unwrap().containers[0].args.clone().unwrap()
    }

    pub(super) fn first_serial(&self, node: &str) -> u64 {
        let args = self.args(node);
        args[args.iter().position(|arg| arg == "--first-serial").unwrap() + 1].parse().unwrap()
    }

    /// The runner of the newest pod of a node.
    pub(super) fn runner(&self, node: &str) -> ToyRunner {
        ToyRunner::new("boot", &self.args(node))
    }

    /// The session of the newest pod of a node brings this.
    pub(super) fn hear(&mut self, node: &str, runner: &ToyRunner) {
        let uid = self.pod(node).uid.clone();
        self.hear_pod(uid, runner);
    }

    pub(super) fn hear_pod(&mut self, uid: String, runner: &ToyRunner) {
        let session = SessionFacts {
            connected: true,
            snapshot: Some(runner.snapshot().into()),
            ..SessionFacts::default()
        };
        self.observed.sessions.insert(uid, session);
    }

    /// The container of the newest pod of a node ends.
    pub(super) fn terminate(&mut self, node: &str, exit_code: i32, reason: &str, message: &str) {
        let finished = Some(self.now);
        let pod = self.pod(node);
        if pod.deleting {
            pod.presence = Presence::Gone;
        }
        pod.container = ContainerFacts::Terminated {
            exit_code,
            reason: reason.into(),
            message: message.into(),
            finished,
        };
    }

    pub(super) fn start(&mut self, node: &str) {
        self.pod(node).container = ContainerFacts::Running;
    }

    pub(super) fn start_all(&mut self) {
        for pod in self
            .observed
            .pods
            .iter_mut()
            .map(Arc::make_mut)
            .filter(|pod| pod.container == ContainerFacts::Absent)
        {
            pod.container = ContainerFacts::Running;
        }
    }

    /// Ends the newest pod of a node with a record.
    pub(super) fn end(&mut self, node: &str, record: &str) {
        let (made, now) = (self.pods_made.clone(), self.now);
        end(self.pod(node), record, &made, now);
    }

    pub(super) fn end_all(&mut self, record: &str) {
        self.end_some(record, usize::MAX);
    }

    pub(super) fn end_some(&mut self, record: &str, count: usize) {
        let (made, now) = (self.pods_made.clone(), self.now);
        self.observed
            .pods
            .iter_mut()
            .map(Arc::make_mut)
            .filter(|pod| !pod.has_ended())
            .take(count)
            .for_each(|pod| end(pod, record, &made, now));
    }

    /// Plans and performs until nothing changes.
    pub(super) fn settle(&mut self) {
        for _ in 0..50 {
            if !self.step() {
                return;
            }
        }
        panic!("the plan does not come to rest: {:#?}", self.status().nodes);
    }

    /// One reconcile; whether it changed anything.
    pub(super) fn step(&mut self) -> bool {
        if self.observed.sources == Sources::default() {
            self.observed.sources = sources_of(&self.observed.object.spec);
        }
        let valid = validate(&self.observed.object.spec, &self.observed.sources);
        let Plan { actions, .. } = plan(&valid, &self.observed, &self.settings, self.now);
        let mut changed = false;
        let limit = self.crash_after.take();
        for action in actions.into_iter().take(limit.unwrap_or(usize::MAX)) {
            changed |= self.perform(action);
        }
        if limit.is_some() {
            return true;
        }
        let Plan { status, answers, taken, .. } = plan(&valid, &self.observed, &self.settings, self.now);
        self.observed.known_answers = answers;
        self.taken = taken;
        if let Some(status) = status
            && self.observed.previous.as_deref() != Some(&status)
        {
            self.store(status);
            self.writes += 1;
            changed = true;
        }
        changed
    }

    /// When the next plan is to be made if nothing changes.
    pub(super) fn next(&self) -> Option<Timestamp> {
        plan(
            &validate(&self.observed.object.spec, &self.observed.sources),
            &self.observed,
            &self.settings,
            self.now,
        )
        .next
    }

    fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::CreateConfigMap(config_map) => {
                let name = config_map.metadata.name.unwrap();
                self.observed.config_maps.push(ConfigMapFacts {
                    uid: format!("uid-of-{name}"),
                    name,
                    owner_uid: self.observed.object.uid.clone(),
                    run: config_map.metadata.labels.unwrap()["scriptrunner.io/run"].parse().unwrap(),
                });
            }
            Action::DeleteConfigMap { uid, .. } => {
                self.observed.config_maps.retain(|config_map| config_map.uid != uid);
            }
            Action::CreatePod { pod, .. } => {
                assert!(
                    self.observed.pods.iter().all(|other| Some(&other.name) != pod.metadata.name.as_ref()),
                    "a pod is made twice: {:?}",
                    pod.metadata.name
                );
                self.created += 1;
                let mut made = *pod;
                made.metadata.uid = Some(format!("pod-{}", self.created));
                made.metadata.resource_version = Some("1".into());
                made.metadata.creation_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
                let facts = PodFacts::of(&made).expect("our own pod should carry our marks");
                self.observed.pods.push(Arc::new(facts));
                self.pods_made.push(made);
            }
            Action::SendRun { pod_uid, order, .. } => {
                self.orders.push((pod_uid, order));
                return false;
            }
            Action::HandOver { pod_uid, .. } => {
                self.hand_overs.insert(pod_uid);
                return false;
            }
            Action::DeleteObject { .. } => {
                self.deleted = true;
                return false;
            }
            Action::DeletePod { uid, .. } => {
                let pod =
                    self.observed.pods.iter_mut().map(Arc::make_mut).find(|pod| pod.uid == uid).unwrap();
                pod.deleting = true;
                if pod.has_ended() {
                    pod.presence = Presence::Gone;
                }
            }
        }
        true
    }
}

fn end(pod: &mut PodFacts, record: &str, made: &[Pod], now: Timestamp) {
    let args = made
        .iter()
        .find(|made| made.metadata.uid.as_ref() == Some(&pod.uid))
        .unwrap()
        .spec
        .as_ref()
        .unwrap()
        .containers[0]
        .args
        .clone()
        .unwrap();
    let first: u64 = args[args.iter().position(|arg| arg == "--first-serial").unwrap() + 1].parse().unwrap();
    let (mut record, mut execution): (Record, Execution) = serde_json::from_str(record).unwrap();
    (record.run, record.attempt) = (pod.run, pod.attempt);
    record.serial = first + record.executions - 1;
    (execution.run, execution.attempt, execution.serial) = (pod.run, pod.attempt, record.serial);
    pod.phase = if record.state == "Succeeded" { "Succeeded".into() } else { "Failed".into() };
    if pod.deleting {
        pod.presence = Presence::Gone;
    }
    let message = Snapshot { record, history: vec![execution] }.encode(4096);
    pod.container =
        ContainerFacts::Terminated { exit_code: 0, reason: "Completed".into(), message, finished: Some(now) };
}

fn record(state: &str, reason: &str, executions: u64, code: i32, stdout: &str) -> String {
    let failures = u64::from(state == "Failed");
    let record = Record {
        protocol: PROTOCOL,
        boot: "b".into(),
        run: 0,
        attempt: 0,
        seq: 1,
        state: state.into(),
        reason: reason.into(),
        message: String::new(),
        executions,
        failures,
        serial: 0,
        handed_over: reason == "NoSession",
        exit_code: Some(code),
        signal: None,
    };
    let execution = Execution {
        exit_code: Some(code),
        stdout: stdout.into(),
        digest: "00112233445566aa".into(),
        ..Execution::default()
    };
    serde_json::to_string(&(record, execution)).unwrap()
}

pub(super) fn succeeded(stdout: &str) -> String {
    record("Succeeded", "", 1, 0, stdout)
}

pub(super) fn failed(code: i32, stdout: &str) -> String {
    record("Failed", "ScriptFailed", 1, code, stdout)
}

pub(super) fn stopped(stdout: &str) -> String {
    record("Stopped", "Interrupted", 1, 143, stdout)
}

pub(super) fn handed_over(executions: u64) -> String {
    record("Running", "NoSession", executions, 0, "tick")
}

/// Settings of an operator that has a door for runners.
pub(super) fn settings_with_sessions() -> PodSettings {
    let (address, name) = ("10.96.0.7:8443".into(), "operator".into());
    PodSettings {
        session: Some(SessionSettings { address, name, authorities: vec!["QQ==".into()] }),
        ..settings()
    }
}

pub(super) fn settings() -> PodSettings {
    PodSettings {
        runner_image: "runner".into(),
        allowed_images: AllowedImages::default(),
        default_memory: Some("256Mi".into()),
        default_ephemeral_storage: None,
        times: RunnerTimes::DEFAULT,
        session: None,
    }
}
