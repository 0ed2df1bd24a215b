//! Tests of the status patch.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use proptest::{collection::btree_map, option, prelude::*};
use scriptrunner_api::v1alpha1::{Execution, Truncation};
use serde_json::json;

use super::*;

fn node(state: &str, serial: u64) -> NodeStatus {
    NodeStatus { state: state.into(), serial, ..NodeStatus::default() }
}

fn status(nodes: &[(&str, NodeStatus)]) -> ScriptRunnerStatus {
    let nodes: BTreeMap<_, _> = nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect();
    ScriptRunnerStatus { desired: 4, nodes, ..ScriptRunnerStatus::default() }
}

fn object(status: Option<&ScriptRunnerStatus>) -> Value {
    let mut object = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {}});
    if let Some(status) = status {
        object["status"] = json!(status);
    }
    object
}

fn paths(patch: &Patch) -> Vec<String> {
    patch.iter().skip(2).map(|operation| operation.path().to_string()).collect()
}

#[test]
fn equal_statuses_need_no_patch() {
    let old = status(&[("a", node("Running", 1))]);
    assert_eq!(diff(Some(&old), &old.clone(), "u", "7"), None);
    let at = |nanos| {
        let start_time = Some(Time(Timestamp::new(1_800_000_000, nanos).unwrap()));
        let history = vec![Execution { start_time, ..Execution::default() }];
        status(&[("a", NodeStatus { history, ..node("Running", 1) })])
    };
    assert_eq!(diff(Some(&at(0)), &at(5), "u", "7"), None, "times are stored in whole seconds");
}

#[test]
fn only_dirty_nodes_are_written() {
    let nodes = [
        ("a", node("Running", 1)),
        ("b.eu", node("Running", 1)),
        ("c", node("Running", 1)),
        ("d", node("Running", 1)),
    ];
    let old = status(&nodes);
    let mut new = status(&nodes[..3]);
    new.nodes.insert("b.eu".into(), node("Succeeded", 2));
    new.nodes.insert("e".into(), node("Pending", 0));
    new.nodes.insert("f/g~h".into(), node("Pending", 0));
    assert_eq!(paths(&diff(Some(&old), &new, "u", "7").unwrap()), ["/status/nodes"], "more than half");
    for name in ["v", "w", "x", "y", "z"] {
        new.nodes.insert(name.into(), node("Pending", 0));
    }
    let mut old = new.clone();
    old.nodes.remove("f/g~h");
    old.nodes.insert("b.eu".into(), node("Running", 1));
    old.nodes.insert("gone".into(), node("Running", 1));
    let patch = diff(Some(&old), &new, "u", "7").unwrap();
    assert_eq!(paths(&patch), ["/status/nodes/gone", "/status/nodes/b.eu", "/status/nodes/f~1g~0h"]);
    assert_eq!(json!(patch)[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
    assert_eq!(json!(patch)[1], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
}

#[test]
fn first_nodes_bring_their_map() {
    let (empty, one) = (status(&[]), status(&[("a", node("Pending", 0))]));
    assert_eq!(paths(&diff(Some(&empty), &one, "u", "7").unwrap()), ["/status/nodes"]);
    assert_eq!(paths(&diff(Some(&one), &empty, "u", "7").unwrap()), ["/status/nodes"]);
    assert_eq!(paths(&diff(None, &empty, "u", "7").unwrap()), ["/status"]);
}

#[test]
fn other_object_and_other_version_are_refused() {
    let new = status(&[("a", node("Pending", 0))]);
    for (uid, version) in [("other", "7"), ("u", "6")] {
        let patch = diff(None, &new, uid, version).unwrap();
        assert!(json_patch::patch(&mut object(None), &patch).is_err());
    }
}

#[test]
fn absent_counters_are_no_obstacle() {
    let old: ScriptRunnerStatus = serde_json::from_value(json!({})).unwrap();
    let new = status(&[]);
    let mut stored = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "status": {}});
    json_patch::patch(&mut stored, &diff(Some(&old), &new, "u", "7").unwrap()).unwrap();
    assert_eq!(stored["status"]["desired"], json!(4));
}

prop_compose! {
    fn any_node()(state in "Running|Failed", serial in 0..3_u64, output in option::of("[a<\"\n]{0,3}")) -> NodeStatus {
        let history = output.map(|stdout| Execution { serial, stdout, ..Execution::default() });
        NodeStatus { history: history.into_iter().collect(), ..node(&state, serial) }
    }
}

prop_compose! {
    fn any_status()(
        nodes in btree_map("[a-c./~]{1,2}|node-[0-9]{1,2}", any_node(), 0..24),
        (observed_generation, accepted_generation) in (option::of(0..3_i64), option::of(0..3_i64)),
        desired in 0..3_u32,
        progress in "[01]/[01]",
        lost in option::of(0..3_u32),
        reason in option::of("[AB]"),
    ) -> ScriptRunnerStatus {
        let conditions = reason.map(|reason| Condition {
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            message: String::new(),
            observed_generation: None,
            reason,
            status: "True".into(),
            type_: "Accepted".into(),
        });
        ScriptRunnerStatus {
            observed_generation, accepted_generation, desired, progress, nodes,
            conditions: conditions.into_iter().collect(),
            truncation: lost.map(|nodes| Truncation { nodes, bytes: 9 }),
            ..ScriptRunnerStatus::default()
        }
    }
}

proptest! {
    #[test]
    fn patched_old_is_new(old in option::of(any_status()), new in any_status(), keep in any::<u32>()) {
        // Mostly equal nodes, so that single entries are patched too.
        let mut new = new;
        if let Some(old) = &old && keep % 4 > 0 {
            for (position, (name, node)) in old.nodes.iter().enumerate() {
                if (keep >> (position % 32)) & 1 == 1 || keep % 4 == 3 {
                    new.nodes.insert(name.clone(), node.clone());
                }
            }
        }
        let mut stored = object(old.as_ref());
        if let Some(patch) = diff(old.as_ref(), &new, "u", "7") {
            json_patch::patch(&mut stored, &patch).unwrap();
        } else {
            prop_assert_eq!(old.as_ref(), Some(&new));
        }
        prop_assert_eq!(stored, object(Some(&new)));
    }
}
