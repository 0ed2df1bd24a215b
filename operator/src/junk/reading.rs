//! Everything that reads what comes from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::Timestamp,
};
use kube::ResourceExt;
use scriptrunner_api::{
    result,
    session::{FromRunner, ToRunner},
    snapshot::{MAX_MESSAGE_BYTES, Snapshot},
    text::is_harmful,
    v1alpha1::{ScriptRunner, ScriptRunnerStatus},
};
use scriptrunner_core::{
    observed::{
        ConfigMapFacts, ContainerFacts, NodeFacts, ObjectFacts, Observed, PodFacts, PolicyProof,
        SessionFacts, StoredStatus, requested_by,
    },
    plan::{Action, plan},
    pod::{PodSettings, RunnerTimes},
    results::{Beside, pod_state},
    status::{events::notices, patch::diff, size::stored_bytes},
    validate::{AllowedImages, Sources, validate},
};

use serde_json::Value;

use crate::{guarded::Guarded, watches::slim::Slimmed};

/// How many cases there were, and in how many each part could be read in spite of its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) cases: usize,
    pub(super) objects: usize,
    pub(super) nodes: usize,
    pub(super) pods: usize,
    pub(super) terminations: usize,
    pub(super) frames: usize,
}

impl Read {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { cases, objects, nodes, pods, terminations, frames } = other;
        self.cases += cases;
        self.objects += objects;
        self.nodes += nodes;
        self.pods += pods;
        self.terminations += terminations;
        self.frames += frames;
    }
}

/// Reads an object, a Node, a pod and a session's message, and plans with what could be read.
pub(super) fn all([object, node, pod, session]: &[Vec<u8>; 4]) -> Read {
    let node = node_of(node);
    let pod = pod_of(pod);
    let frame = frame_of(session);
    let termination = pod.as_ref().and_then(|pod| match &pod.container {
        ContainerFacts::Terminated { message, .. } => Snapshot::decode(message).ok(),
        ContainerFacts::Absent | ContainerFacts::Waiting { .. } | ContainerFacts::Running => None,
    });
    let read = Read {
        cases: 1,
        objects: 0,
        nodes: node.is_some().into(),
        pods: pod.is_some().into(),
        terminations: termination.is_some().into(),
        frames: frame.is_some().into(),
    };
    let Some(object) = object_of(object) else { return read };
    let snapshot = match frame {
        Some(FromRunner::Snapshot(part)) => Some(Snapshot { record: part.record, history: part.history }),
        Some(FromRunner::Hello(_) | FromRunner::Unknown) | None => None,
    };
    plan_with(&object, node, pod, snapshot);
    Read { objects: 1, ..read }
}

/// Reads the bytes as everything.
pub(super) fn junk(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (frame_of(bytes), ToRunner::decode(&text), result::parse(bytes));
    if let Ok(snapshot) = Snapshot::decode(&text) {
        assert!(snapshot.encode(MAX_MESSAGE_BYTES).len() <= MAX_MESSAGE_BYTES);
    }
    if let Some(object) = object_of(bytes) {
        plan_with(&object, node_of(bytes), pod_of(bytes), None);
    }
}

fn object_of(bytes: &[u8]) -> Option<Arc<ScriptRunner>> {
    serde_json::from_slice::<Guarded>(bytes).ok()?.0.ok()
}

fn node_of(bytes: &[u8]) -> Option<NodeFacts> {
    NodeFacts::of(&serde_json::from_slice::<Slimmed<Node>>(bytes).ok()?.0)
}

fn pod_of(bytes: &[u8]) -> Option<PodFacts> {
    let facts = PodFacts::of(&serde_json::from_slice::<Slimmed<Pod>>(bytes).ok()?.0)?;
    let _ = pod_state(&facts, Beside::default());
    Some(facts)
}

fn frame_of(bytes: &[u8]) -> Option<FromRunner> {
    FromRunner::decode(&String::from_utf8_lossy(bytes)).ok()
}

/// Everything that is made of what was read: plan, patch, Events, sizes.
fn plan_with(
    object: &Arc<ScriptRunner>,
    node: Option<NodeFacts>,
    pod: Option<PodFacts>,
    said: Option<Snapshot>,
) {
    let facts = ObjectFacts {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        deleting: object.metadata.deletion_timestamp.is_some(),
        other_bytes: 1000,
        created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
        seen_since: object.metadata.generation,
        requested_by: requested_by(&object.metadata),
        spec: object.spec.clone(),
    };
    let session = said.map(|said| SessionFacts {
        connected: true,
        snapshot: Some(said.into()),
        ..SessionFacts::default()
    });
    let sessions = pod.iter().zip(session).map(|(pod, session)| (pod.uid.clone(), session)).collect();
    let now = Timestamp::from_second(1_800_000_100).expect("the time should be one");
    let mut observed = Observed {
        object: facts,
        previous: StoredStatus::of(object),
        nodes: Arc::new(node.map(|node| (node.name.clone(), node)).into_iter().collect()),
        pods: pod.map(Arc::new).into_iter().collect(),
        occupied_nodes: BTreeSet::new(),
        config_maps: Vec::new(),
        namespace_privileged: true,
        known_answers: BTreeMap::new(),
        refusal: None,
        config_map_conflict: None,
        pod_conflicts: BTreeMap::new(),
        sessions,
        pinned: None,
        since: now,
        unbound_room: 100,
        sources: Sources::default(),
        policy_proof: PolicyProof::Proven { since: Timestamp::UNIX_EPOCH },
    };
    plan_on(object, &mut observed, now);
    // As it is after an edit that begins a run.
    observed.object.spec.args.push("edited".to_owned());
    observed.object.generation = observed.object.generation.saturating_add(1);
    plan_on(object, &mut observed, now);
}

/// Stores what is planned and plans again, a few times.
fn plan_on(object: &ScriptRunner, observed: &mut Observed, now: Timestamp) {
    let valid = validate(&observed.object.spec, &observed.sources);
    for _ in 0..2 {
        let planned = plan(&valid, observed, &settings(), now);
        let Some(status) = planned.status else { return };
        let previous = observed.previous.as_deref();
        // What an administrator wrote into a status is not this one's to mend.
        if previous.is_none_or(is_storable) {
            assert!(is_storable(&status), "{}", serde_json::to_string(&status).unwrap_or_default());
        }
        let _ = (diff(previous, &status, "uid", "7"), notices(previous, &status), stored_bytes(&status));
        let mut next = object.clone();
        next.status = Some(status);
        observed.previous = StoredStatus::of(&Arc::new(next));
        observed.known_answers = planned.answers;
        for action in planned.actions {
            if let Action::CreateConfigMap(made) = action {
                observed.config_maps.extend(ConfigMapFacts::of(&made.metadata));
            }
        }
    }
}

/// Whether the API server keeps the status as it is, and whoever reads it is safe: its integers have 64 bits with a sign.
fn is_storable(status: &ScriptRunnerStatus) -> bool {
    fn is_whole(value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) => true,
            Value::Number(number) => number.is_i64() || !number.is_u64(),
            Value::String(text) => !text.chars().any(is_harmful),
            Value::Array(items) => items.iter().all(is_whole),
            Value::Object(members) => {
                members.iter().all(|(name, member)| !name.chars().any(is_harmful) && is_whole(member))
            }
        }
    }
    // The UID is the API server's.
    let status = ScriptRunnerStatus { object_uid: None, ..status.clone() };
    serde_json::to_value(status).is_ok_and(|value| is_whole(&value))
}

fn settings() -> PodSettings {
    PodSettings {
        runner_image: "runner".to_owned(),
        allowed_images: AllowedImages::default(),
        default_memory: None,
        default_ephemeral_storage: None,
        times: RunnerTimes::DEFAULT,
        session: None,
    }
}
