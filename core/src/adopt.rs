//! Whether an object that already has the name is the one we would have made. Pure.
//!
//! Creating is a 409 when a former process made the child and died before it could say so, or when a stranger took the
//! name. Only an object that equals ours in all that we set, and has nothing beyond it that only its maker could have set,
//! is taken for ours.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde::Serialize;
use serde_json::Value;

use crate::quantity;

/// Parts of a pod's spec that the API server, admission plugins or the scheduler fill in.
const FILLED_POD_FIELDS: [&str; 13] = [
    "dnsPolicy",
    "schedulerName",
    "serviceAccount",
    "serviceAccountName",
    "priority",
    "priorityClassName",
    "preemptionPolicy",
    "nodeName",
    "nodeSelector",
    "tolerations",
    "imagePullSecrets",
    "overhead",
    "securityContext",
];
/// Parts of a container that are filled in.
const FILLED_CONTAINER_FIELDS: [&str; 3] =
    ["resources", "terminationMessagePath", "terminationMessagePolicy"];

/// What differs between the pod that exists and ours; none if it is ours.
pub fn pod_difference(ours: &Pod, theirs: &Pod) -> Option<String> {
    let (our_spec, their_spec) = (value(&ours.spec), value(&theirs.spec));
    metadata_difference(&value(&ours.metadata), &value(&theirs.metadata))
        .or_else(|| subset_difference("spec", &our_spec, &their_spec))
        .or_else(|| surplus("spec", &our_spec, &their_spec, &FILLED_POD_FIELDS))
        .or_else(|| {
            ["initContainers", "containers"].into_iter().find_map(|kind| {
                let (ours, theirs) = (&our_spec[kind][0], &their_spec[kind][0]);
                surplus(&format!("spec.{kind}[0]"), ours, theirs, &FILLED_CONTAINER_FIELDS)
            })
        })
}

/// What differs between the ConfigMap that exists and ours; none if it is ours, byte for byte.
pub fn config_map_difference(ours: &ConfigMap, theirs: &ConfigMap) -> Option<String> {
    if ours.data != theirs.data || theirs.binary_data.is_some() {
        return Some("data differs".to_owned());
    }
    if theirs.immutable != Some(true) {
        return Some("it is not immutable".to_owned());
    }
    metadata_difference(&value(&ours.metadata), &value(&theirs.metadata))
}

fn metadata_difference(ours: &Value, theirs: &Value) -> Option<String> {
    ["labels", "annotations", "ownerReferences"]
        .into_iter()
        .find_map(|part| subset_difference(&format!("metadata.{part}"), &ours[part], &theirs[part]))
}

fn value<T: Serialize>(part: &T) -> Value {
    serde_json::to_value(part).expect("an API object should serialise")
}

/// The first path at which `theirs` lacks or contradicts something of `ours`.
fn subset_difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => ours.iter().find_map(|(key, ours)| {
            let path = format!("{path}.{key}");
            theirs.get(key).map_or_else(
                || Some(format!("{path} is missing")),
                |theirs| subset_difference(&path, ours, theirs),
            )
        }),
        // Admission may append tolerations, and only those.
        (Value::Array(ours), Value::Array(theirs))
            if ours.len() == theirs.len() || (path == "spec.tolerations" && ours.len() < theirs.len()) =>
        {
            ours.iter().zip(theirs).enumerate().find_map(|(index, (ours, theirs))| {
                subset_difference(&format!("{path}[{index}]"), ours, theirs)
            })
        }
        // The API server writes quantities in its own way: 1024Mi becomes 1Gi.
        (Value::String(ours), Value::String(theirs)) if is_quantity(path) => {
            (!quantity::is_same(ours, theirs)).then(|| format!("{path} differs"))
        }
        (ours, theirs) => (ours != theirs).then(|| format!("{path} differs")),
    }
}

fn is_quantity(path: &str) -> bool {
    path.ends_with(".sizeLimit") || path.contains(".resources.")
}

/// The first key of `theirs` that we did not set and that nobody but its maker sets.
fn surplus(path: &str, ours: &Value, theirs: &Value, filled: &[&str]) -> Option<String> {
    let theirs = theirs.as_object()?;
    theirs
        .iter()
        .find(|(key, _)| ours.get(key.as_str()).is_none() && !filled.contains(&key.as_str()))
        .map(|(key, _)| format!("{path}.{key} is set"))
}

#[cfg(test)]
mod tests;
