//! What is decoded of a part is what the whole object says.

use scriptrunner_core::observed::{NodeFacts, PodFacts};
use serde_json::{Value, json};

use super::*;

fn node_json() -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": "n1", "uid": "u1", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/os": "linux", "zone": "a"}, "annotations": {"ttl": "0"},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:images": {}}}}]},
        "spec": {"podCIDR": "10.0.0.0/24", "unschedulable": true, "taints": [
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"},
            {"key": "dedicated", "value": "gpu", "effect": "NoExecute"}]},
        "status": {
            "capacity": {"cpu": "16", "memory": "65Gi"},
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                    "lastTransitionTime": "2026-01-01T00:00:01Z", "reason": "R", "message": "M"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                    "lastTransitionTime": "2026-01-01T00:00:02Z", "reason": "KubeletReady", "message": "M"}],
            "nodeInfo": {"operatingSystem": "windows", "architecture": "amd64", "bootID": "b", "kernelVersion": "6",
                "kubeletVersion": "v1", "machineID": "m", "osImage": "o", "systemUUID": "s", "kubeProxyVersion": "",
                "containerRuntimeVersion": "c"},
            "images": [{"names": ["registry.example/a@sha256:0", "registry.example/a:1"], "sizeBytes": 123}]},
    })
}

fn pod_json(status: &Value) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "srn-a", "namespace": "ns", "uid": "u2", "resourceVersion": "8",
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:09Z",
            "deletionGracePeriodSeconds": 30,
            "labels": {"scriptrunner.io/uid": "owner", "scriptrunner.io/node-uid": "u1", "scriptrunner.io/run": "3",
                "scriptrunner.io/attempt": "2"},
            "annotations": {"scriptrunner.io/name": "sr", "scriptrunner.io/node": "n1",
                "scriptrunner.io/failures-before": "4"},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "name": "sr",
                "uid": "owner", "controller": true}],
            "managedFields": [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {}}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "runner", "image": "runner", "args": ["--run", "3"]}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}}},
            "volumes": [{"name": "work", "emptyDir": {}}], "tolerations": [{"operator": "Exists"}]},
        "status": status,
    })
}

fn pod_statuses() -> Vec<Value> {
    let of = |phase: &str, state: &Value| {
        json!({"phase": phase, "podIP": "10.1.2.3", "startTime": "2026-01-01T00:00:00Z", "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True"},
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "m"}],
            "containerStatuses": [
                {"name": "sidecar", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {}}},
                {"name": "runner", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state,
                    "lastState": {"terminated": {"exitCode": 9}}}]})
    };
    vec![
        json!({}),
        json!({"phase": "Pending", "containerStatuses": null}),
        json!({"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource"}),
        of("Pending", &json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})),
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "no such claim"},
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}),
        json!({"phase": "Failed", "initContainerStatuses": [{"name": "copy-runner", "image": "i", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
        of("Running", &json!({"running": {"startedAt": "2026-01-01T00:00:03Z"}})),
        of(
            "Succeeded",
            &json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "{\"protocol\": 1}",
            "startedAt": "2026-01-01T00:00:03Z", "finishedAt": "2026-01-01T00:00:04Z"}}),
        ),
    ]
}

#[test]
fn a_part_of_a_node_says_what_the_node_says() {
    let mut bare = node_json();
    bare["spec"] = json!({});
    bare["status"] = json!({"conditions": null});
    let empty = json!({"metadata": {"name": "n", "uid": "u", "labels": null}});
    for json in [node_json(), bare, empty] {
        let whole: Node = serde_json::from_value(json.clone()).unwrap();
        let Slimmed(part): Slimmed<Node> = serde_json::from_value(json).unwrap();
        assert_eq!(NodeFacts::of(&part), NodeFacts::of(&whole));
        assert!(NodeFacts::of(&part).is_some());
    }
}

#[test]
fn a_part_of_a_pod_says_what_the_pod_says() {
    for status in pod_statuses() {
        let mut unbound = pod_json(&status);
        unbound["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
        unbound["spec"] = json!({"containers": []});
        for json in [pod_json(&status), unbound] {
            let whole: Pod = serde_json::from_value(json.clone()).unwrap();
            let Slimmed(part): Slimmed<Pod> = serde_json::from_value(json).unwrap();
            assert_eq!(PodFacts::of(&part), PodFacts::of(&whole));
            let facts = PodFacts::of(&part).unwrap();
            assert_eq!(facts.disruption.is_empty(), status["conditions"].is_null());
        }
    }
}

#[test]
fn what_is_not_read_is_not_kept() {
    let Slimmed(node): Slimmed<Node> = serde_json::from_value(node_json()).unwrap();
    assert!(node.metadata.managed_fields.is_none() && node.status.unwrap().images.is_none());
}
