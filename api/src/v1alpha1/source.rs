//! Inputs that stand in a ConfigMap instead of the spec: the types of the fields that name one.

#![expect(unreachable_pub, reason = "KubeSchema derives through private copies of the structs")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest trusted CA bundle, in bytes.
pub const MAX_TRUSTED_CA_BYTES: usize = 262_144;

/// Where the script stands, if not in the spec.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScriptFrom {
    /// The key of a ConfigMap that holds the script, text of at most 64 KiB. The ConfigMap is of the ScriptRunner's namespace and
    /// has the label `scriptrunner.io/source: "true"`, without which it is not watched. Of all ConfigMaps with it in a namespace
    /// at most 8 MiB are kept.
    pub config_map_key_ref: SourceKey,
    /// SHA-256 that the script must have, 64 lower-case hexadecimal digits; required in a privileged mode. Another
    /// content is not run: the condition `Accepted` is `False` with reason `InputChanged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// Certificate authorities that installers trust.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrustedCA {
    /// The key of a ConfigMap that holds certificates in PEM, at most 256 KiB. The ConfigMap is of the ScriptRunner's
    /// namespace and has the label `scriptrunner.io/source: "true"`, without which it is not watched.
    pub config_map_key_ref: SourceKey,
    /// SHA-256 that the certificates must have, 64 lower-case hexadecimal digits; required in a privileged mode. Another
    /// content is not used: the condition `Accepted` is `False` with reason `InputChanged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// A key of a ConfigMap of the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct SourceKey {
    /// Name of the ConfigMap, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A whole ConfigMap or Secret as environment variables, as in a container; only in mode `Normal`. May be named only by
/// who may create pods in the namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMapRef) != has(self.secretRef)").message("give exactly one of configMapRef and secretRef"),
    validation = Rule::new("!has(self.prefix) || !self.prefix.startsWith('SCRIPTRUNNER_')").message("names that start with SCRIPTRUNNER_ are set by the runner; choose another prefix")
)]
pub struct EnvFromSource {
    /// Put before every key, any printable ASCII except `=`, at most 256 characters. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^[ -<>-~]*$"))]
    pub prefix: Option<String>,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectRef>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectRef>,
}

/// A ConfigMap or Secret of the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Name of the object, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Whether it may be missing; default false: the pod waits for it until `podStartDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}
