//! What users write into a spec: everything that changes where, how fast and how often a script runs; always valid.

use scriptrunner_api::v1alpha1::ScriptRunnerSpec;
use scriptrunner_core::validate::{Sources, validate};
use serde_json::{Map, Value, json};

use crate::random::Random;

/// Changes one or two fields of a spec. The script changes in one of `script_every` edits.
pub(crate) fn edited(spec: &Value, edits: usize, random: &mut Random) -> Value {
    for _ in 0..50 {
        let mut new = spec.clone();
        for _ in 0..=random.below(2) {
            change(new.as_object_mut().unwrap(), edits, random);
        }
        if new != *spec && is_valid(&new) {
            return new;
        }
    }
    spec.clone()
}

/// A first spec.
pub(crate) fn first(random: &mut Random) -> Value {
    loop {
        let mut spec =
            json!({"script": script(0, random), "nodeLabelSelector": {}, "executionDeadlineSeconds": 20});
        for _ in 0..random.below(6) {
            change(spec.as_object_mut().unwrap(), 0, random);
        }
        if is_valid(&spec) {
            return spec;
        }
    }
}

fn is_valid(spec: &Value) -> bool {
    let typed: ScriptRunnerSpec = serde_json::from_value(spec.clone()).unwrap();
    validate(&typed, &Sources::default()).is_ok()
}

fn script(edits: usize, random: &mut Random) -> String {
    let class = random.pick(&["good", "good", "bad", "mixed", "mixed"]);
    let loud = random.pick(&["", "", " loud"]);
    format!("{class} {edits}{loud}")
}

fn change(spec: &mut Map<String, Value>, edits: usize, random: &mut Random) {
    let absent = Value::Null;
    let (field, value) = match random.below(32) {
        0 | 1 => ("script", json!(script(edits, random))),
        2 => (
            "repeat",
            random.pick(&[
                absent,
                json!({"count": 2, "periodSeconds": 1}),
                json!({"count": 3, "periodSeconds": 1, "stopOn": "Failure"}),
                json!({"periodSeconds": 1}),
            ]),
        ),
        3 | 4 => ("parallelism", random.pick(&[absent, json!(1), json!(1), json!(2), json!("50%")])),
        5 | 6 => ("maxFailures", random.pick(&[absent, json!(0), json!(1), json!("40%")])),
        7 | 8 => (
            "execution",
            random.pick(&[absent.clone(), absent, json!("Active"), json!("Paused"), json!("Stopped")]),
        ),
        9 => (
            "nodeLabelSelector",
            random.pick(&[
                json!({}),
                json!({}),
                json!({"matchLabels": {"zone": "a"}}),
                json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["b"]}]}),
            ]),
        ),
        10 => ("nodeNames", random.pick(&[absent, json!(["n1", "n2", "n9"]), json!(["n1", "n3"])])),
        11 => ("excludedNodeNames", random.pick(&[absent, json!(["n2"])])),
        12 => ("nodeSample", random.pick(&[absent.clone(), absent, json!(2), json!("50%")])),
        13 => ("tolerations", random.pick(&[absent, json!([{"key": "busy", "operator": "Exists"}])])),
        14 => ("unschedulableNodePolicy", random.pick(&[absent, json!("Skip")])),
        15 => ("notReadyNodePolicy", random.pick(&[absent, json!("Skip")])),
        16 => ("newNodePolicy", random.pick(&[absent, json!("Ignore")])),
        17 => ("historyLimit", random.pick(&[absent, json!(1), json!(2)])),
        18 => ("podStartDeadlineSeconds", random.pick(&[absent, json!(30)])),
        19 | 20 => ("backoffLimit", random.pick(&[absent, json!(1), json!(2)])),
        21 | 22 => {
            ("interruptionPolicy", random.pick(&[absent, json!("Report"), json!("Retry"), json!("Retry")]))
        }
        23 => (
            "exitCodes",
            random.pick(&[
                absent,
                json!({"success": [1], "skipped": [3]}),
                json!({"skipped": [1, 2]}),
                json!({"retry": [1, 2]}),
            ]),
        ),
        24 | 25 => ("activeDeadlineSeconds", random.pick(&[absent, json!(60), json!(400)])),
        26..=28 => ("rerun", rerun(edits, random)),
        29 => ("updatePolicy", random.pick(&[absent, json!("OnRerun")])),
        30 => ("podCleanupPolicy", random.pick(&[absent, json!("Always"), json!("Never")])),
        31 if random.chance(20) => ("ttlSecondsAfterFinished", json!(100)),
        _ => ("placement", random.pick(&[absent, json!("Scheduler")])),
    };
    set(spec, field, value);
}

/// A rerun, most of the time later than every one before.
fn rerun(edits: usize, random: &mut Random) -> Value {
    let second = if random.chance(80) { edits } else { random.below(edits + 1) };
    let mut rerun = json!({"at": format!("2027-01-15T09:00:{:02}Z", second % 60)});
    if random.chance(60) {
        rerun["scope"] = json!(random.pick(&["All", "Failed", "Unknown", "Skipped"]));
    }
    if random.chance(30) {
        rerun["nodeNames"] = random.pick(&[json!(["n1"]), json!(["n2", "n3", "n9"])]);
    }
    rerun
}

/// Sets a field, and takes back what cannot stand beside it.
fn set(spec: &mut Map<String, Value>, field: &str, value: Value) {
    match (field, value.is_null()) {
        ("nodeNames", false) => _ = spec.remove("nodeLabelSelector"),
        ("nodeNames", true) => _ = spec.insert("nodeLabelSelector".to_owned(), json!({})),
        ("nodeLabelSelector", _) => _ = spec.remove("nodeNames"),
        ("repeat", false) if value["count"].is_null() => {
            for field in ["parallelism", "maxFailures", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
                spec.remove(field);
            }
            for field in ["interruptionPolicy", "backoffLimit", "exitCodes"] {
                spec.remove(field);
            }
        }
        ("repeat", false) => {
            for field in ["backoffLimit", "exitCodes"] {
                spec.remove(field);
            }
        }
        ("backoffLimit" | "exitCodes", false) => {
            spec.remove("repeat");
        }
        _ => {}
    }
    if value.is_null() {
        spec.remove(field);
    } else {
        spec.insert(field.to_owned(), value);
    }
}
