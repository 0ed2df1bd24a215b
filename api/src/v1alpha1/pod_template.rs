//! What pods are made of beside the script: the types of the fields about image, resources, volumes and metadata. A closed list:
//! what is not here (security contexts, service accounts, host paths) cannot be asked for.

#![expect(unreachable_pub, reason = "KubeSchema derives through private copies of the structs")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::labels::{NOT_IN_ANNOTATIONS, NOT_IN_ANNOTATIONS_TEXT, SAFE_TO_EVICT};

/// When the image is pulled: `IfNotPresent` (the default), `Always`, or `Never`. A change applies to pods that are made
/// later.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// If the node does not have it.
    #[default]
    IfNotPresent,
    /// Before every pod.
    Always,
    /// Never: the node has it, or the pod does not start.
    Never,
}

impl ImagePullPolicy {
    /// The policy as written in a pod.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

/// A Secret of the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Resources of the container that installs and runs the script, as in a container. What is not stated here the operator's
/// defaults fill in.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the node sets aside, by name of the resource, for example `cpu: 100m`. At most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "given_quantities")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What may be used at most, by name of the resource, for example `memory: 512Mi`. At most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "given_quantities")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// What users may add to the pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))").message("a volumeMount names a volume that podTemplate.volumes does not have; add the volume or correct the name")
)]
pub struct PodTemplate {
    /// Labels of the pods, at most 32. Keys with our prefix `scriptrunner.io/` are refused, and
    /// `sidecar.istio.io/inject` stays `false`: a sidecar would outlive the script and keep the pod from ending. May be set
    /// only by who may create pods in the namespace, because Services and NetworkPolicies choose pods by them. A change
    /// applies to pods that are made later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "pod_labels")]
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('^([^/]*[.])?scriptrunner[.]io/'))").message("labels of scriptrunner.io are the operator's; choose another key"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods, at most 32. Refused are keys that have between dots and slashes our own `scriptrunner.io`, or what
    /// changes what the node does: `kubernetes.io`, `k8s.io`, `cri-o.io`, `crio.io`, `io.kubernetes`, `nri.io`, `cni.cncf.io`,
    /// `multus-cni.io`, `io.containers`, `run.oci`, `org.systemd.property`, `io.katacontainers`, `dev.gvisor`; of these only
    /// `cluster-autoscaler.kubernetes.io/safe-to-evict` is allowed. `linkerd.io/inject` stays `disabled`, as the label of Istio does.
    /// May be set only by who may create pods in the namespace, because controllers act on them. A change applies to pods that are
    /// made later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "pod_annotations")]
    #[x_kube(validation = Rule::new(annotations_of_users()).message(NOT_IN_ANNOTATIONS_TEXT))]
    pub annotations: BTreeMap<String, String>,
    /// Volumes that the script can see, at most 16. A change starts a new run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(v, self.exists_one(o, o.name == v.name))").message("two volumes have the same name; rename one"))]
    pub volumes: Vec<Volume>,
    /// Where they are mounted, at most 32. A change starts a new run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.all(m, self.exists_one(o, o.mountPath == m.mountPath))").message("two volumeMounts have the same mountPath; change one"))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Name of a PriorityClass, at most 253 characters. Default: the cluster's default. May be set only by who may create pods in the
    /// namespace, because pods of a higher priority evict others. A change applies to pods that are made later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Name of a RuntimeClass, at most 253 characters. Default: the node's default runtime. May be set only by who may create pods in
    /// the namespace. A change starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
}

/// A volume, as in a pod; of its kinds those that reach nothing but the namespace. Naming a ConfigMap, Secret or claim needs the right
/// to create pods in the namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.configMap), has(self.secret), has(self.emptyDir), has(self.persistentVolumeClaim), has(self.ephemeral)].filter(x, x).size() == 1").message("give exactly one of configMap, secret, emptyDir, persistentVolumeClaim, ephemeral; other kinds of volumes cannot be used"),
    validation = Rule::new("!self.name.startsWith('scriptrunner-')").message("names of volumes that start with scriptrunner- are the operator's; choose another name")
)]
pub struct Volume {
    /// Name that `volumeMounts` refers to: lower-case letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The keys of a ConfigMap as files; only in mode `Normal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,
    /// The keys of a Secret as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,
    /// An empty folder that lives as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirVolume>,
    /// A claim that exists. Pods with a claim go through the scheduler; on many nodes at once it must allow many writers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimVolume>,
    /// A claim that is made with the pod and goes with it. Such pods go through the scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralVolume>,
}

/// The keys of a ConfigMap as files.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapVolume {
    /// Name of the ConfigMap, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Which keys, and the files they become; default all. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub items: Vec<KeyToPath>,
    /// Permission bits of the files, 0 to 511 (octal 0777), default 420 (0644).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub default_mode: Option<i32>,
    /// Whether it may be missing; default false: the pod waits for it until `podStartDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// The keys of a Secret as files.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolume {
    /// Name of the Secret, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Which keys, and the files they become; default all. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub items: Vec<KeyToPath>,
    /// Permission bits of the files, 0 to 511 (octal 0777), default 420 (0644).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub default_mode: Option<i32>,
    /// Whether it may be missing; default false: the pod waits for it until `podStartDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A key and the file it becomes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyToPath {
    /// Key, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Path of the file below the mount, relative and without `..`, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(p, p == '..')").message("the path of an item is relative and has no .."))]
    pub path: String,
    /// Permission bits of the file, 0 to 511 (octal 0777); default `defaultMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub mode: Option<i32>,
}

/// An empty folder that lives as long as the pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirVolume {
    /// What it is made of: the node's disk (the default), or `Memory`, which counts against the memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<EmptyDirMedium>,
    /// How much it may hold, for example `1Gi`; default: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given_quantity")]
    #[schemars(schema_with = "quantity")]
    pub size_limit: Option<Quantity>,
}

/// What an empty folder is made of.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyDirMedium {
    /// The node's memory.
    Memory,
}

/// A claim that exists.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ClaimVolume {
    /// Name of the PersistentVolumeClaim, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Whether it is mounted read-only; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A claim that is made with the pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralVolume {
    /// The claim.
    pub volume_claim_template: ClaimTemplate,
}

/// A claim that is made with the pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTemplate {
    /// What is claimed.
    pub spec: ClaimSpec,
}

/// What is claimed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// How it is used, 1 to 4.
    #[schemars(length(min = 1, max = 4))]
    pub access_modes: Vec<AccessModes>,
    /// Name of the StorageClass, at most 253 characters; default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// How much: `requests.storage`.
    pub resources: Resources,
}

/// How a claim is used.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessModes {
    /// By the pods of one node, for reading and writing.
    ReadWriteOnce,
    /// By many nodes, for reading.
    ReadOnlyMany,
    /// By many nodes, for reading and writing.
    ReadWriteMany,
    /// By one pod.
    ReadWriteOncePod,
}

impl AccessModes {
    /// The mode as written in a claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadOnlyMany => "ReadOnlyMany",
            Self::ReadWriteMany => "ReadWriteMany",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }
}

/// Where a volume is mounted, as in a container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Name of the volume, at most 63 characters.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Absolute path in the container, at most 512 characters, without `..`, `:` and `//`; not `/`, and not at, above or below
    /// `/scriptrunner`, `/host`, `/dev`, `/proc`, `/sys`, and not `/tmp` itself, which are the runner's own.
    #[schemars(length(min = 2, max = 512), regex(pattern = r"^(/[^/:]+)+$"))]
    #[x_kube(
        validation = Rule::new("!self.split('/').exists(p, p == '..' || p == '.')").message("mountPath has no . and no .."),
        validation = Rule::new("!['/scriptrunner', '/host', '/dev', '/proc', '/sys'].exists(p, self == p || self.startsWith(p + '/')) && self != '/tmp'").message("/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere")
    )]
    pub mount_path: String,
    /// Whether it is read-only; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Path in the volume that is mounted instead of its root, relative and without `..`, at most 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(p, p == '..')").message("subPath is relative and has no .."))]
    pub sub_path: Option<String>,
}

fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maximum": 1_000_000_000_000_000_000_u64,
        "maxLength": 32,
        "pattern": QUANTITY,
    })
}

/// As `resource.Quantity` of Kubernetes is written, without a sign.
const QUANTITY: &str =
    r"^[+]?([0-9]+|[0-9]+\.[0-9]*|[0-9]*\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][-+]?[0-9]+))?$";

/// A quantity as users write it: `cpu: 1` is as good as `cpu: "1"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Number(i64),
    Text(String),
}

impl From<Given> for Quantity {
    fn from(given: Given) -> Self {
        match given {
            Given::Number(number) => Self(number.to_string()),
            Given::Text(text) => Self(text),
        }
    }
}

fn given_quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Quantity>, D::Error> {
    Ok(Option::<Given>::deserialize(deserializer)?.map(Quantity::from))
}

fn given_quantities<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Quantity>, D::Error> {
    let given = BTreeMap::<String, Given>::deserialize(deserializer)?;
    Ok(given.into_iter().map(|(name, given)| (name, given.into())).collect())
}

fn quantities(generator: &mut SchemaGenerator) -> Schema {
    let quantity = quantity(generator);
    json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": quantity})
}

fn pod_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {
        "type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
    }})
}

/// The rule of [`NOT_IN_ANNOTATIONS`] as CEL. The operator has it too, for objects that are older.
fn annotations_of_users() -> String {
    let words = NOT_IN_ANNOTATIONS.join("|").replace('.', "[.]");
    format!("self.all(k, k == '{SAFE_TO_EVICT}' || !k.matches('(^|[./])({words})([./]|$)'))")
}

fn pod_annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 4096}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_annotations_names_all_that_is_refused() {
        let (_, rest) = NOT_IN_ANNOTATIONS_TEXT.split_once("key has ").unwrap();
        let (words, _) = rest.split_once(" between").unwrap();
        assert_eq!(words.replace(" or ", ", ").split(", ").collect::<Vec<_>>(), NOT_IN_ANNOTATIONS);
    }

    #[test]
    fn a_quantity_may_be_a_number() {
        let resources: Resources =
            serde_json::from_str(r#"{"requests": {"cpu": 1}, "limits": {"cpu": "1", "memory": "1Gi"}}"#)
                .unwrap();
        assert_eq!(resources.requests["cpu"], resources.limits["cpu"]);
        assert_eq!(serde_json::to_value(&resources.requests).unwrap(), serde_json::json!({"cpu": "1"}));
        let empty: EmptyDirVolume = serde_json::from_str(r#"{"sizeLimit": 1000}"#).unwrap();
        assert_eq!(empty.size_limit, Some(Quantity("1000".to_owned())));
    }
}
