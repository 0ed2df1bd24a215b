//! Whatever a kubelet, an API server, a runner, a node or a user says: what is stored and announced is harmless.

use scriptrunner_api::{
    hostile::texts,
    session::{FromRunner, snapshot_messages},
    snapshot::Snapshot,
    text::is_harmful,
    v1alpha1::{Execution, ScriptRunnerStatus},
};
use serde_json::{Value, json};

use super::{HELLO, toy::Toy};
use crate::{
    observed::{ContainerFacts, PodConflict, Presence, TaintFacts},
    status::events::notices,
};

/// Every text of the value, keys included.
fn texts_of(value: &Value) -> Vec<&str> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts_of).collect(),
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, member)| texts_of(member).into_iter().chain([key.as_str()]))
            .collect(),
    }
}

#[track_caller]
fn assert_harmless(status: &ScriptRunnerStatus, said: &str) {
    let stored = serde_json::to_value(status).unwrap();
    let announced: Vec<String> = notices(None, status).into_iter().map(|notice| notice.note).collect();
    for text in texts_of(&stored).into_iter().chain(announced.iter().map(String::as_str)) {
        assert!(!text.chars().any(is_harmful), "{said:?} is in {text:?}");
    }
}

/// Brings each text of the corpus before a cluster whose pods were made, and looks at every status until nothing changes, and
/// after the deadline for a start.
fn bring(spec: &str, say: impl Fn(&mut Toy, &str)) {
    for said in texts() {
        let mut toy = Toy::new(spec, 2);
        toy.settle();
        say(&mut toy, &said);
        for _ in 0..2 {
            while toy.step() {
                assert_harmless(toy.status(), &said);
            }
            assert_harmless(toy.status(), &said);
            toy.wait_seconds(3600);
        }
    }
}

#[test]
fn kubelets() {
    bring(HELLO, |toy, said| {
        let (reason, message) = (said.to_owned(), said.to_owned());
        toy.pod("n1").container = ContainerFacts::Waiting { reason, message };
        toy.pod("n2").container =
            ContainerFacts::Waiting { reason: "ErrImagePull".into(), message: said.into() };
    });
    bring(HELLO, |toy, said| {
        let pod = toy.pod("n1");
        (pod.phase, pod.reason, pod.message) = ("Failed".into(), said.into(), said.into());
        let pod = toy.pod("n2");
        (pod.phase, pod.init_failure) = ("Failed".into(), said.into());
    });
    bring(HELLO, |toy, said| {
        toy.terminate("n1", 128, "StartError", said);
        toy.terminate("n2", 137, said, said);
    });
    bring(HELLO, |toy, said| {
        toy.start_all();
        toy.settle();
        let pod = toy.pod("n1");
        (pod.phase, pod.reason, pod.message) = ("Failed".into(), said.into(), said.into());
        let pod = toy.pod("n2");
        (pod.presence, pod.deleting) = (Presence::Gone, true);
        (pod.disruption, pod.message) = ("EvictionByEvictionAPI".into(), said.into());
    });
    bring(HELLO, |toy, said| {
        let taint = TaintFacts { key: said.into(), value: said.into(), effect: "NoSchedule".into() };
        toy.add_node("n3");
        toy.node("n3").taints.push(taint);
    });
}

#[test]
fn api_servers() {
    bring(HELLO, |toy, said| {
        toy.observed.refusal = Some(said.into());
        toy.add_node("n3");
    });
    for said in texts() {
        let mut toy = Toy::new(HELLO, 1);
        toy.observed.config_map_conflict = Some(said.clone());
        toy.step();
        assert_harmless(toy.status(), &said);
    }
    bring(HELLO, |toy, said| {
        let pod = toy.pod("n1").name.clone();
        toy.observed.pods.clear();
        let conflict = PodConflict { pod, message: said.into(), since: toy.now };
        toy.observed.pod_conflicts.insert("n1".into(), conflict);
    });
}

/// A snapshot whose every text is this one.
fn saying(toy: &Toy, node: &str, said: &str, code: i32) -> Snapshot {
    let mut runner = toy.runner(node);
    runner.execute(code);
    runner.complete();
    let mut snapshot = runner.snapshot();
    snapshot.record.message = said.into();
    let text = || said.to_owned();
    let newest = snapshot.history.pop().unwrap();
    let result = Some(json!({ said: [said] }));
    let (stdout, stderr, digest) = (text(), text(), text());
    let reason = if code == 0 { text() } else { newest.reason.clone() };
    snapshot.history.push(Execution { stdout, stderr, digest, reason, result, ..newest });
    snapshot
}

#[test]
fn runners() {
    for group_by in ["Output", "Result"] {
        let spec = format!("{{script: x, nodeLabelSelector: {{}}, output: {{groupBy: {group_by}}}}}");
        bring(&spec, |toy, said| {
            for (node, code) in [("n1", 0), ("n2", 3)] {
                let message = saying(toy, node, said, code).encode(4096);
                toy.terminate(node, code, "Error", &message);
            }
        });
        bring(&spec, |toy, said| {
            toy.start_all();
            for (node, code) in [("n1", 0), ("n2", 3)] {
                let message = snapshot_messages(&saying(toy, node, said, code), usize::MAX).remove(0);
                let FromRunner::Snapshot(part) = FromRunner::decode(&message).unwrap() else {
                    panic!("{message} should be a snapshot")
                };
                let mut runner = toy.runner(node);
                (runner.record, runner.history) = (part.record, part.history);
                toy.hear(node, &runner);
            }
        });
    }
}

#[test]
fn users() {
    for said in texts() {
        for part in [
            json!({"nodeNames": [said]}),
            json!({"nodeLabelSelector": {}, "excludedNodeNames": [said]}),
            json!({"nodeLabelSelector": {}, "parallelism": said, "executionDeadlineSeconds": 1}),
            json!({"nodeLabelSelector": {}, "image": said}),
            json!({"nodeLabelSelector": {}, "args": [said], "env": [{"name": said, "value": said}]}),
            json!({"nodeLabelSelector": {}, "podTemplate": {"labels": {said.as_str(): said}}}),
            json!({"nodeLabelSelector": {"matchExpressions": [{"key": said, "operator": "In", "values": []}]}}),
        ] {
            let mut spec = part;
            spec["script"] = said.as_str().into();
            let mut toy = Toy::new(HELLO, 1);
            toy.observed.object.spec = serde_json::from_value(spec).unwrap();
            toy.settle();
            assert_harmless(toy.status(), &said);
        }
    }
}
