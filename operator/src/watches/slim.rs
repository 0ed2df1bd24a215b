//! Nodes and pods of which only a part is decoded: what decisions rest on. A real Node has 20 KB, most of it image names,
//! and reports every few minutes; a pod's managed fields are larger than all that is read of it.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1::{
        Affinity, ContainerState, ContainerStatus, Node, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo,
        Pod, PodCondition, PodSpec, PodStatus, Taint,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// A kind of which a part is decoded.
pub trait Slim: Resource<DynamicType = ()> + From<Self::Part> {
    /// The part.
    type Part: DeserializeOwned;
}

/// An object with nothing in it but its part.
#[derive(Clone, Debug)]
pub struct Slimmed<K>(pub K);

impl<'de, K: Slim> Deserialize<'de> for Slimmed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::Part::deserialize(deserializer).map(|part| Self(part.into()))
    }
}

impl<K: Resource> Resource for Slimmed<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

// Fields that are missing or null are empty, as in the whole types.

/// Metadata without managed fields.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetadataPart {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<MetadataPart> for ObjectMeta {
    fn from(part: MetadataPart) -> Self {
        let MetadataPart {
            name,
            namespace,
            uid,
            resource_version,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            owner_references,
        } = part;
        Self {
            name,
            namespace,
            uid,
            resource_version,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            owner_references,
            ..Self::default()
        }
    }
}

/// What is read of a Node.
#[derive(Deserialize)]
pub struct NodePart {
    #[serde(default)]
    metadata: MetadataPart,
    spec: Option<NodeSpecPart>,
    status: Option<NodeStatusPart>,
}

#[derive(Deserialize)]
struct NodeSpecPart {
    taints: Option<Vec<Taint>>,
    unschedulable: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatusPart {
    conditions: Option<Vec<ConditionPart>>,
    node_info: Option<NodeInfoPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConditionPart {
    #[serde(rename = "type")]
    type_: Option<String>,
    status: Option<String>,
    last_transition_time: Option<Time>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeInfoPart {
    operating_system: Option<String>,
}

impl From<NodePart> for Node {
    fn from(part: NodePart) -> Self {
        let status = part.status.map(|NodeStatusPart { conditions, node_info }| NodeStatus {
            conditions: conditions.map(|all| all.into_iter().map(NodeCondition::from).collect()),
            node_info: node_info.map(|NodeInfoPart { operating_system }| NodeSystemInfo {
                operating_system: operating_system.unwrap_or_default(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        });
        let spec = part.spec.map(|NodeSpecPart { taints, unschedulable }| NodeSpec {
            taints,
            unschedulable,
            ..NodeSpec::default()
        });
        Self { metadata: part.metadata.into(), spec, status }
    }
}

impl From<ConditionPart> for NodeCondition {
    fn from(part: ConditionPart) -> Self {
        let ConditionPart { type_, status, last_transition_time } = part;
        Self {
            type_: type_.unwrap_or_default(),
            status: status.unwrap_or_default(),
            last_transition_time,
            ..Self::default()
        }
    }
}

impl Slim for Node {
    type Part = NodePart;
}

/// What is read of a pod.
#[derive(Deserialize)]
pub struct PodPart {
    #[serde(default)]
    metadata: MetadataPart,
    spec: Option<PodSpecPart>,
    status: Option<PodStatusPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpecPart {
    node_name: Option<String>,
    affinity: Option<Affinity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatusPart {
    phase: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    conditions: Option<Vec<PodConditionPart>>,
    init_container_statuses: Option<Vec<ContainerPart>>,
    container_statuses: Option<Vec<ContainerPart>>,
}

#[derive(Deserialize)]
struct PodConditionPart {
    #[serde(rename = "type")]
    type_: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct ContainerPart {
    name: Option<String>,
    state: Option<ContainerState>,
}

impl From<PodPart> for Pod {
    fn from(part: PodPart) -> Self {
        let spec = part.spec.map(|PodSpecPart { node_name, affinity }| PodSpec {
            node_name,
            affinity,
            ..PodSpec::default()
        });
        let status = part.status.map(PodStatus::from);
        Self { metadata: part.metadata.into(), spec, status }
    }
}

impl From<PodStatusPart> for PodStatus {
    fn from(part: PodStatusPart) -> Self {
        let PodStatusPart { phase, reason, message, conditions, init_container_statuses, container_statuses } =
            part;
        let containers =
            |all: Vec<ContainerPart>| all.into_iter().map(ContainerStatus::from).collect::<Vec<_>>();
        Self {
            phase,
            reason,
            message,
            conditions: conditions.map(|all| all.into_iter().map(PodCondition::from).collect()),
            init_container_statuses: init_container_statuses.map(containers),
            container_statuses: container_statuses.map(containers),
            ..Self::default()
        }
    }
}

impl From<PodConditionPart> for PodCondition {
    fn from(part: PodConditionPart) -> Self {
        let PodConditionPart { type_, status, reason, message } = part;
        Self {
            type_: type_.unwrap_or_default(),
            status: status.unwrap_or_default(),
            reason,
            message,
            ..Self::default()
        }
    }
}

impl From<ContainerPart> for ContainerStatus {
    fn from(part: ContainerPart) -> Self {
        let ContainerPart { name, state } = part;
        Self { name: name.unwrap_or_default(), state, ..Self::default() }
    }
}

impl Slim for Pod {
    type Part = PodPart;
}

#[cfg(test)]
mod tests;
