//! The schema as Kubernetes should have it: known integer formats, and no null as a value. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// The definition without formats of unsigned integers: the API server knows none of them and would warn whoever applies
/// it. Nothing is lost, their bounds stand beside them.
///
/// And without `nullable`: then the API server drops a null as if the field were not given, before it validates and before
/// admission sees it. With it a null would be present for an admission policy's `has()` and absent for the operator.
pub(super) fn known_to_kubernetes(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("should be plain data");
    strip(&mut value);
    serde_json::from_value(value).expect("should read back")
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                map.remove("format");
            }
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.remove("nullable");
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
