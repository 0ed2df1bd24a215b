//! What is known at one moment, as plain data: the object, nodes, pods, ConfigMaps. Small parts of the cluster's objects,
//! because a real Node has 20 KB and there may be 5,000. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Node, Pod, PodCondition, PodStatus, Taint},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use scriptrunner_api::{
    labels,
    snapshot::Snapshot,
    text::{head, one_line},
    v1alpha1::{ScriptRunner, ScriptRunnerSpec, ScriptRunnerStatus},
};

use crate::{
    names::short_id,
    pod::{FAILURES_BEFORE, LONGEST_SECONDS},
    status::groups::Answers,
    validate::{Pinned, Sources, spec_hash, targets::UNSCHEDULABLE_TAINT},
};

/// Longest name of who asked for a run, in bytes. A service account's has up to 339.
pub const MAX_REQUESTER_BYTES: usize = 512;

/// Everything that one reconcile of one ScriptRunner may know.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object itself.
    pub object: ObjectFacts,
    /// The status as it is stored; none if there never was one.
    pub previous: Option<StoredStatus>,
    /// Every node, by name.
    pub nodes: Arc<BTreeMap<String, NodeFacts>>,
    /// Pods owned by this object, also ended and vanished ones whose outcome may not be stored yet.
    pub pods: Vec<Arc<PodFacts>>,
    /// Nodes on which a pod of another object with the same namespace and name still exists.
    pub occupied_nodes: BTreeSet<String>,
    /// ConfigMaps owned by this object.
    pub config_maps: Vec<ConfigMapFacts>,
    /// Whether the namespace is labelled for privileged modes.
    pub namespace_privileged: bool,
    /// Newest answers that the stored status may have lost to its size limit.
    pub known_answers: Answers,
    /// What the API server last said when it refused a pod or ConfigMap of this object, until one is accepted.
    pub refusal: Option<String>,
    /// Why the run's ConfigMap cannot be made: its name is taken by something that is not ours.
    pub config_map_conflict: Option<String>,
    /// Nodes whose next pod's name is taken by a pod that is not ours, with what is wrong.
    pub pod_conflicts: BTreeMap<String, PodConflict>,
    /// What sessions brought, by UID of the pod.
    pub sessions: BTreeMap<String, SessionFacts>,
    /// What a run is pinned to, and which run, where the live spec says something else and that run goes on.
    pub pinned: Option<(u64, Arc<Pinned>)>,
    /// Since when sessions are observed: of one that is not known nothing was seen since then.
    pub since: Timestamp,
    /// How many more pods may be created that wait for the scheduler: all objects share it.
    pub unbound_room: usize,
    /// What was found of the ConfigMaps that the spec names.
    pub sources: Sources,
    /// Whether the admission policies hold that decide who may write privileged specs.
    pub policy_proof: PolicyProof,
}

impl Observed {
    /// Hash of what runs by the spec as it is; none if that is refused.
    pub fn spec_hash(&self) -> Option<String> {
        spec_hash(&self.object.spec, &self.sources)
    }
}

/// What is known of the admission policies of this operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyProof {
    /// Nothing yet.
    Awaited,
    /// They are as they should be and are enforced.
    Proven {
        /// Since when they have been so, without a break that anybody knows of.
        since: Timestamp,
    },
    /// They are not, or it cannot be told.
    NotProven {
        /// Which object, what is wrong with it, and what to do.
        why: String,
    },
}

/// The status of an object as it is stored. Shared with whoever holds the object: it may have thousands of entries.
#[derive(Clone, Debug)]
pub struct StoredStatus(Arc<ScriptRunner>);

impl StoredStatus {
    /// The status of the object, if it has one.
    pub fn of(object: &Arc<ScriptRunner>) -> Option<Self> {
        object.status.is_some().then(|| Self(object.clone()))
    }
}

impl Deref for StoredStatus {
    type Target = ScriptRunnerStatus;

    fn deref(&self) -> &ScriptRunnerStatus {
        self.0.status.as_ref().expect("it should only be made of an object that has a status")
    }
}

/// What the session of a pod's runner brought. The newest snapshot stays when the session ends, until it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionFacts {
    /// Whether the runner is connected now.
    pub connected: bool,
    /// When its last connection ended.
    pub left: Option<Timestamp>,
    /// The newest run that it was ordered to go on with, and when it was first told.
    pub ordered: Option<(u64, Timestamp)>,
    /// The newest snapshot, with every execution that is not known to be stored.
    pub snapshot: Option<Arc<Snapshot>>,
}

/// A pod's name is taken by something that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodConflict {
    /// Name of the pod.
    pub pod: String,
    /// What is wrong, naming the pod.
    pub message: String,
    /// When it was first seen.
    pub since: Timestamp,
}

/// The ScriptRunner object without its status.
#[derive(Clone, Debug)]
pub struct ObjectFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// resourceVersion of what is observed.
    pub resource_version: String,
    /// Generation of the spec.
    pub generation: i64,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// A generation that the API server said it had at some moment after [`PolicyProof::Proven`] began: a later one was written
    /// after that. None if it was not asked.
    pub seen_since: Option<i64>,
    /// Who asked for the spec, by the object's annotation.
    pub requested_by: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Bytes of the object as JSON without its status, managed fields included.
    pub other_bytes: usize,
    /// What the user asks for.
    pub spec: ScriptRunnerSpec,
}

/// Who asked for an object's spec, as its annotation [`labels::REQUESTED_BY`] says: on one line and of bounded length, because
/// only where admission guards it the annotation is a name.
pub fn requested_by(metadata: &ObjectMeta) -> Option<String> {
    let name = metadata.annotations.as_ref()?.get(labels::REQUESTED_BY)?;
    let harmless = one_line(head(name, MAX_REQUESTER_BYTES));
    Some(head(&harmless, MAX_REQUESTER_BYTES).to_owned()).filter(|name| !name.is_empty())
}

/// The part of a Node that decisions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// UID: another one under the same name is another node.
    pub uid: String,
    /// Short id of the UID, as the status has it.
    pub id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<TaintFacts>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Since when it is cordoned, where the taint that follows tells.
    pub cordoned_since: Option<Timestamp>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Since when it is or is not Ready.
    pub ready_since: Option<Timestamp>,
    /// `linux`, `windows`; empty if the kubelet has not said it.
    pub os: String,
}

/// A taint without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintFacts {
    /// Key.
    pub key: String,
    /// Value; empty if there is none.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl NodeFacts {
    /// The facts of a Node; none if it has no name or UID, which the API server never sends.
    pub fn of(node: &Node) -> Option<Self> {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"));
        let uid = node.metadata.uid.clone()?;
        Some(Self {
            name: node.metadata.name.clone()?,
            id: short_id(&uid),
            uid,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec
                .and_then(|spec| spec.taints.as_ref())
                .map(|taints| taints.iter().map(TaintFacts::of).collect())
                .unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            cordoned_since: spec
                .and_then(|spec| spec.taints.as_ref())
                .and_then(|taints| taints.iter().find(|taint| taint.key == UNSCHEDULABLE_TAINT))
                .and_then(|taint| taint.time_added.as_ref())
                .map(|time| time.0),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            ready_since: ready
                .and_then(|condition| condition.last_transition_time.as_ref())
                .map(|time| time.0),
            os: status
                .and_then(|status| status.node_info.as_ref())
                .map(|info| info.operating_system.clone())
                .or_else(|| node.metadata.labels.as_ref()?.get("kubernetes.io/os").cloned())
                .unwrap_or_default(),
        })
    }
}

impl TaintFacts {
    fn of(taint: &Taint) -> Self {
        Self {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
            effect: taint.effect.clone(),
        }
    }
}

/// A ConfigMap of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapFacts {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// UID of the ScriptRunner that owns it.
    pub owner_uid: String,
    /// The run that is pinned in it.
    pub run: u64,
}

/// Whether the object is still in the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The watch shows it.
    Present,
    /// The watch no longer shows it and the API server has not been asked by name: its labels may have been stripped.
    Unconfirmed,
    /// The API server says that it does not exist.
    Gone,
}

/// The part of a runner pod that decisions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Short id of the UID, as the status has it.
    pub id: String,
    /// resourceVersion as a number; it orders what two sources say of one pod.
    pub resource_version: u64,
    /// UID of the ScriptRunner that controls it.
    pub owner_uid: String,
    /// Name of the ScriptRunner that controls it.
    pub owner_name: String,
    /// Name of the Node it was made for.
    pub node: String,
    /// UID of the Node it was made for.
    pub node_uid: String,
    /// Short id of that UID.
    pub node_id: String,
    /// The run that it was made for. It may have been ordered to go on with a newer one: which one it works on is said by
    /// the entry that names it.
    pub run: u64,
    /// Ordinal of the pod within the run that it was made for.
    pub attempt: u32,
    /// Failures on its node, over all runs, that were counted when it was made.
    pub failures_before: u64,
    /// What further runs of a runner that stays are compared with; empty if the pod ends with its run.
    pub shape: String,
    /// How many seconds may pass from the start of its container until its executions are over; none if there is no such limit.
    pub longest_seconds: Option<u64>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When its container started, while that runs.
    pub started: Option<Timestamp>,
    /// Whether it is still there.
    pub presence: Presence,
    /// Whether it was seen with a deletionTimestamp.
    pub deleting: bool,
    /// Whether it is bound to a node.
    pub bound: bool,
    /// Whether the scheduler was to place it.
    pub by_scheduler: bool,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// The kubelet's or a controller's reason, for example `Evicted`, `OutOfcpu`.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// Who ends it before its time, by the reason of its condition `DisruptionTarget`, for example `EvictionByEvictionAPI`; empty
    /// if nobody does, or if they let it live after all.
    pub disruption: String,
    /// How the container failed that puts the runner beside an image of the user's; empty if it did not.
    pub init_failure: String,
    /// The runner's container; what it waits for is what its pod waits for.
    pub container: ContainerFacts,
}

/// What says whose a pod is and what it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// UID of the ScriptRunner that controls it.
    pub owner_uid: String,
    /// Name of the ScriptRunner that controls it.
    pub owner_name: String,
    /// Name of the Node it was made for.
    pub node: String,
    /// UID of the Node it was made for.
    pub node_uid: String,
    /// The run.
    pub run: u64,
    /// Ordinal of the pod within the run.
    pub attempt: u32,
}

impl Marks {
    fn of(metadata: &ObjectMeta) -> Option<Self> {
        let owner_uid = controller_uid(metadata)?;
        let label = |key: &str| metadata.labels.as_ref()?.get(key);
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key);
        (label(labels::UID)? == owner_uid).then_some(())?;
        Some(Self {
            owner_uid: owner_uid.to_owned(),
            owner_name: annotation(labels::NAME)?.clone(),
            node: annotation(labels::NODE)?.clone(),
            node_uid: label(labels::NODE_UID)?.clone(),
            run: storable(label(labels::RUN)?)?,
            attempt: label(labels::ATTEMPT)?.parse().ok()?,
        })
    }
}

/// The largest number that can be stored: the API server keeps integers in 64 bits with a sign.
pub(crate) const MAX_STORED: u64 = i64::MAX.unsigned_abs();

fn storable(number: &str) -> Option<u64> {
    number.parse().ok().filter(|number| *number <= MAX_STORED)
}

/// State of the runner's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerFacts {
    /// No status yet.
    Absent,
    /// Not started.
    Waiting {
        /// For example `ImagePullBackOff`.
        reason: String,
        /// Its message.
        message: String,
    },
    /// Started.
    Running,
    /// Ended.
    Terminated {
        /// Exit code.
        exit_code: i32,
        /// For example `OOMKilled`, `Error`, `StartError`.
        reason: String,
        /// The termination message.
        message: String,
        /// When it ended.
        finished: Option<Timestamp>,
    },
}

impl ContainerFacts {
    /// Whether the runner is known to have started.
    pub fn started(&self) -> bool {
        match self {
            Self::Absent | Self::Waiting { .. } => false,
            Self::Running => true,
            Self::Terminated { reason, .. } => {
                !matches!(reason.as_str(), "StartError" | "ContainerCannotRun")
            }
        }
    }

    fn of(status: &ContainerStatus) -> Self {
        let Some(state) = &status.state else { return Self::Absent };
        if let Some(terminated) = &state.terminated {
            return Self::Terminated {
                exit_code: terminated.exit_code,
                reason: terminated.reason.clone().unwrap_or_default(),
                message: terminated.message.clone().unwrap_or_default(),
                finished: terminated.finished_at.as_ref().map(|time| time.0),
            };
        }
        if state.running.is_some() {
            return Self::Running;
        }
        state.waiting.as_ref().map_or(Self::Absent, |waiting| Self::Waiting {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
        })
    }
}

impl PodFacts {
    /// The facts of a pod that carries our marks; none for any other pod, whatever else it carries.
    pub fn of(pod: &Pod) -> Option<Self> {
        Self::with_marks(pod, &Marks::of(&pod.metadata)?)
    }

    /// The facts of a pod whose marks are known from elsewhere: somebody may have stripped them.
    pub fn with_marks(pod: &Pod, marks: &Marks) -> Option<Self> {
        let Marks { owner_uid, owner_name, node, node_uid, run, attempt } = marks.clone();
        let metadata = &pod.metadata;
        let spec = pod.spec.as_ref()?;
        let status = pod.status.as_ref();
        let uid = metadata.uid.clone()?;
        let container = status
            .and_then(|status| status.container_statuses.as_ref())
            .and_then(|statuses| statuses.iter().find(|status| status.name == labels::CONTAINER));
        let init = status
            .and_then(|status| status.init_container_statuses.as_ref())
            .and_then(|statuses| statuses.iter().find(|status| status.name == labels::INIT_CONTAINER));
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            id: short_id(&uid),
            uid,
            resource_version: metadata.resource_version.as_deref()?.parse().ok()?,
            owner_uid,
            owner_name,
            node,
            node_id: short_id(&node_uid),
            node_uid,
            run,
            attempt,
            failures_before: metadata
                .annotations
                .as_ref()
                .and_then(|annotations| storable(annotations.get(FAILURES_BEFORE)?))
                .unwrap_or(0),
            shape: metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(labels::SHAPE).cloned())
                .unwrap_or_default(),
            longest_seconds: metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(LONGEST_SECONDS)?.parse().ok()),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            presence: Presence::Present,
            deleting: metadata.deletion_timestamp.is_some(),
            bound: spec.node_name.is_some(),
            by_scheduler: spec.affinity.is_some(),
            phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
            reason: status.and_then(|status| status.reason.clone()).unwrap_or_default(),
            message: status.and_then(|status| status.message.clone()).unwrap_or_default(),
            disruption: status.and_then(disruption).unwrap_or_default(),
            started: container.and_then(started),
            init_failure: init.and_then(init_failure).unwrap_or_default(),
            container: match container.map_or(ContainerFacts::Absent, ContainerFacts::of) {
                waiting @ (ContainerFacts::Absent | ContainerFacts::Waiting { .. }) => {
                    init.and_then(init_waiting).or_else(|| status.and_then(unscheduled)).unwrap_or(waiting)
                }
                begun @ (ContainerFacts::Running | ContainerFacts::Terminated { .. }) => begun,
            },
        })
    }

    /// The marks that the pod was made with.
    pub fn marks(&self) -> Marks {
        Marks {
            owner_uid: self.owner_uid.clone(),
            owner_name: self.owner_name.clone(),
            node: self.node.clone(),
            node_uid: self.node_uid.clone(),
            run: self.run,
            attempt: self.attempt,
        }
    }

    /// Whether it is there and waits for the scheduler. One that is being deleted does not: the scheduler leaves it out, and
    /// the API server binds none.
    pub fn is_unbound(&self) -> bool {
        !self.bound && !self.deleting && !self.has_ended()
    }

    /// Whether the scheduler has looked at it and found no node.
    pub fn is_unschedulable(&self) -> bool {
        matches!(&self.container, ContainerFacts::Waiting { reason, .. } if reason == "Unschedulable")
    }

    /// Whether nothing of this pod can run any more: its container ended, the kubelet refused it, or it is gone.
    pub fn has_ended(&self) -> bool {
        match self.presence {
            Presence::Gone => true,
            Presence::Present | Presence::Unconfirmed => {
                matches!(self.container, ContainerFacts::Terminated { .. })
                    || matches!(self.phase.as_str(), "Failed" | "Succeeded")
            }
        }
    }
}

fn disruption(status: &PodStatus) -> Option<String> {
    let is_target =
        |condition: &&PodCondition| condition.type_ == "DisruptionTarget" && condition.status == "True";
    status.conditions.as_ref()?.iter().find(is_target)?.reason.clone()
}

/// What keeps the runner from being copied beside the user's image.
fn init_waiting(status: &ContainerStatus) -> Option<ContainerFacts> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let (reason, message) =
        (waiting.reason.clone().unwrap_or_default(), waiting.message.as_deref().unwrap_or_default());
    // What every container waits for at first says nothing of this one.
    let message = if message.is_empty() {
        String::new()
    } else {
        format!("container {:?}: {message}", labels::INIT_CONTAINER)
    };
    (reason != "PodInitializing").then_some(ContainerFacts::Waiting { reason, message })
}

fn init_failure(status: &ContainerStatus) -> Option<String> {
    let terminated = status.state.as_ref()?.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let (name, code) = (labels::INIT_CONTAINER, terminated.exit_code);
    let reason = terminated.reason.as_deref().unwrap_or_default();
    // Nobody saw this end, because the node went down.
    if reason.ends_with("Unknown") {
        return None;
    }
    let message = terminated.message.as_deref().unwrap_or_default().trim();
    Some(format!("container {name:?} ended with exit code {code} ({reason}): {message}"))
}

/// What the scheduler says of a pod that it can place nowhere, for example which claim there is not.
fn unscheduled(status: &PodStatus) -> Option<ContainerFacts> {
    let is_about =
        |condition: &&PodCondition| condition.type_ == "PodScheduled" && condition.status == "False";
    let condition = status.conditions.as_ref()?.iter().find(is_about)?;
    Some(ContainerFacts::Waiting {
        reason: condition.reason.clone()?,
        message: condition.message.clone().unwrap_or_default(),
    })
}

fn started(status: &ContainerStatus) -> Option<Timestamp> {
    Some(status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
}

/// UID of the ScriptRunner that controls an object, if one does.
pub fn controller_uid(metadata: &ObjectMeta) -> Option<&str> {
    metadata
        .owner_references
        .as_ref()?
        .iter()
        .find(|owner| {
            owner.controller == Some(true)
                && owner.kind == "ScriptRunner"
                && owner.api_version.starts_with("scriptrunner.io/")
        })
        .map(|owner| owner.uid.as_str())
}

impl ConfigMapFacts {
    /// The facts of a ConfigMap that carries our marks; none for any other.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let owner_uid = controller_uid(metadata)?;
        (metadata.labels.as_ref()?.get(labels::UID)? == owner_uid).then_some(())?;
        Some(Self {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            owner_uid: owner_uid.to_owned(),
            run: storable(metadata.labels.as_ref()?.get(labels::RUN)?)?,
        })
    }
}
