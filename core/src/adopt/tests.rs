//! Tests of what is taken for ours and what is not.

use super::*;
use serde_json::json;

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": "srn-a", "namespace": "ns", "labels": {"scriptrunner.io/uid": "u"}, "annotations": {"scriptrunner.io/name": "sr"},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "name": "sr", "uid": "u", "controller": true}],
        },
        "spec": {
            "nodeName": "n1", "restartPolicy": "Never", "automountServiceAccountToken": false,
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "containers": [{"name": "runner", "image": "runner:1", "args": ["run", "--run", "1"]}],
        },
    });
    change(&mut pod);
    serde_json::from_value(pod).unwrap()
}

#[test]
fn what_the_api_server_fills_in_does_not_matter() {
    let theirs = pod(|pod| {
        pod["metadata"]["uid"] = json!("x");
        pod["metadata"]["labels"]["injected"] = json!("y");
        pod["spec"]["dnsPolicy"] = json!("ClusterFirst");
        pod["spec"]["serviceAccountName"] = json!("default");
        pod["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "b"}));
        pod["spec"]["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
    });
    assert_eq!(pod_difference(&pod(|_| {}), &theirs), None);
}

type Change = fn(&mut Value);

#[test]
fn every_change_of_a_stranger_is_named() {
    let cases: [(&str, Change); 9] = [
        ("spec.containers[0].image differs", |pod| pod["spec"]["containers"][0]["image"] = json!("evil")),
        ("spec.containers[0].args differs", |pod| pod["spec"]["containers"][0]["args"] = json!(["run"])),
        ("spec.containers differs", |pod| {
            pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "more"}));
        }),
        ("spec.nodeName differs", |pod| pod["spec"]["nodeName"] = json!("n2")),
        ("spec.hostPID is set", |pod| pod["spec"]["hostPID"] = json!(true)),
        ("spec.initContainers is set", |pod| pod["spec"]["initContainers"] = json!([{"name": "i"}])),
        ("spec.containers[0].env is set", |pod| {
            pod["spec"]["containers"][0]["env"] = json!([{"name": "LD_PRELOAD", "value": "x"}]);
        }),
        ("metadata.ownerReferences[0].uid differs", |pod| {
            pod["metadata"]["ownerReferences"][0]["uid"] = json!("v");
        }),
        ("metadata.labels.scriptrunner.io/uid is missing", |pod| pod["metadata"]["labels"] = json!({})),
    ];
    for (difference, change) in cases {
        assert_eq!(pod_difference(&pod(|_| {}), &pod(change)).as_deref(), Some(difference));
    }
}

#[test]
fn a_config_map_is_ours_only_byte_for_byte() {
    let make = |script: &str, immutable: bool| -> ConfigMap {
        serde_json::from_value(
            json!({"metadata": {"name": "srs-a"}, "data": {"script": script}, "immutable": immutable}),
        )
        .unwrap()
    };
    assert_eq!(config_map_difference(&make("a", true), &make("a", true)), None);
    assert!(config_map_difference(&make("a", true), &make("b", true)).is_some());
    assert!(config_map_difference(&make("a", true), &make("a", false)).is_some());
}
