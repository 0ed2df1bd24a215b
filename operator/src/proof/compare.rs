//! Whether an installed object is the one of the code, field by field. Pure.

use serde_json::Value;

/// The first field in which the specs differ, as a path, with what is found there; none if they are equal. A field that this
/// operator does not know is a difference: it may narrow what is judged.
pub(super) fn difference(expected: &Value, found: &Value) -> Option<String> {
    walk("spec", expected, found)
}

fn walk(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let unknown = found.keys().filter(|key| !expected.contains_key(*key));
            expected.keys().chain(unknown).find_map(|key| {
                let of =
                    |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                walk(&format!("{path}.{key}"), &of(expected), &of(found))
            })
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => expected
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(index, (expected, found))| walk(&format!("{path}[{index}]"), expected, found)),
        (expected, found) => (expected != found).then(|| format!("{path} is not as in deploy/")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policies;

    /// The specs of all policies and bindings.
    fn specs() -> Vec<Value> {
        let policies = policies::policies().into_iter().map(|it| serde_json::to_value(it.spec).unwrap());
        let bindings = policies::bindings().into_iter().map(|it| serde_json::to_value(it.spec).unwrap());
        policies.chain(bindings).collect()
    }

    #[test]
    fn what_is_equal_has_no_difference() {
        for spec in specs() {
            assert_eq!(difference(&spec, &spec), None);
        }
    }

    #[test]
    fn every_change_of_every_leaf_is_found_by_its_path() {
        let mut leaves = 0;
        for spec in specs() {
            each_leaf("", &spec, &mut |pointer| {
                leaves += 1;
                for other in [Value::Null, json!("other"), json!({"a": "b"}), json!([])] {
                    let mut changed = spec.clone();
                    let leaf = changed.pointer_mut(pointer).unwrap();
                    if *leaf == other {
                        continue;
                    }
                    *leaf = other;
                    assert!(difference(&spec, &changed).is_some(), "{pointer}");
                }
            });
        }
        assert!(leaves > 50, "{leaves}");
    }

    fn each_leaf(pointer: &str, value: &Value, visit: &mut impl FnMut(&str)) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    each_leaf(&format!("{pointer}/{}", key.replace('/', "~1")), value, visit);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, value) in items.iter().enumerate() {
                    each_leaf(&format!("{pointer}/{index}"), value, visit);
                }
            }
            _ => visit(pointer),
        }
    }

    #[test]
    fn known_ways_to_make_a_policy_inert_are_told() {
        let spec = serde_json::to_value(&policies::bindings()[0].spec).unwrap();
        let with = |key: &str, value: Value| {
            let mut changed = spec.clone();
            changed[key] = value;
            difference(&spec, &changed).unwrap()
        };
        let narrowed = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}});
        assert_eq!(with("matchResources", narrowed), "spec.matchResources is not as in deploy/");
        assert_eq!(with("validationActions", json!(["Warn"])), "spec.validationActions is not as in deploy/");
        assert_eq!(with("aFieldOfTomorrow", json!(1)), "spec.aFieldOfTomorrow is not as in deploy/");
        let spec = serde_json::to_value(&policies::policies()[0].spec).unwrap();
        let mut changed = spec.clone();
        changed["failurePolicy"] = "Ignore".into();
        assert_eq!(difference(&spec, &changed).unwrap(), "spec.failurePolicy is not as in deploy/");
        let mut changed = spec.clone();
        changed["matchConstraints"]["resourceRules"][0]["apiVersions"][0] = "v1".into();
        assert_eq!(
            difference(&spec, &changed).unwrap(),
            "spec.matchConstraints.resourceRules[0].apiVersions[0] is not as in deploy/"
        );
    }
}
