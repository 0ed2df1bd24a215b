//! Valid documents that belong together: an object whose run has begun, its Node, its pod that has ended, and what the pod's
//! runner said. And the largest that can come.

use scriptrunner_api::{
    digest::sha256_hex, labels::PROTOCOL, session::MAX_FROM_RUNNER_BYTES, snapshot::MAX_MESSAGE_BYTES,
    v1alpha1::ScriptRunnerSpec,
};
use scriptrunner_core::{
    names::short_id,
    validate::{Sources, validate},
};
use serde_json::{Value, json};

pub(super) struct Documents {
    pub(super) object: Value,
    pub(super) node: Value,
    pub(super) pod: Value,
    /// The lines of the pod's termination message, without their checksums.
    pub(super) termination: Value,
    pub(super) session: Value,
}

impl Documents {
    pub(super) fn valid() -> Self {
        let record = json!({"v": PROTOCOL, "b": "0a1b2c3d", "r": 1, "a": 1, "q": 5, "s": "Failed", "w": "ScriptFailed",
            "m": "execution 2 exited with code 3", "x": 2, "f": 1, "n": 2, "h": false, "e": 3});
        let lines = json!([
            record,
            {"n": 2, "t": 1_800_000_000, "d": 1200, "e": 3, "w": "ScriptFailed", "o": "out\n", "r": "err\n", "O": 4, "R": 4,
                "c": "00112233445566aa", "j": {"a": [1, 0.5, "x"]}},
            {"n": 1, "t": 1_799_999_000, "d": 900, "e": 0, "o": "out\n", "O": 4, "R": 0, "c": "00112233445566ab"},
        ]);
        let session =
            json!({"snapshot": {"record": record, "more": false, "history": [execution(1), execution(2)]}});
        Self { object: object(), node: node(), pod: pod(), termination: lines, session }
    }
}

fn execution(serial: u64) -> Value {
    json!({"run": 1, "attempt": 1, "serial": serial, "startTime": "2027-01-15T08:00:00Z", "durationMillis": 1200,
        "exitCode": 3, "reason": "ScriptFailed", "stdout": "out\n", "stderr": "err\n", "stdoutBytes": 4,
        "stderrBytes": 4, "digest": "00112233445566aa", "result": {"a": [1, 0.5, "x"]}})
}

fn object() -> Value {
    let spec = json!({
        "script": "print(1)", "mode": "Normal", "nodeLabelSelector": {"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]},
        "args": ["x"], "env": [{"name": "A", "value": "b"}], "tolerations": [{"key": "t", "operator": "Exists"}],
        "resources": {"limits": {"memory": "64Mi"}}, "excludedNodeNames": ["n9"], "nodeSample": "50%",
        "executionDeadlineSeconds": 60, "activeDeadlineSeconds": 3600, "parallelism": "40%", "maxFailures": 3,
        "backoffLimit": 2, "exitCodes": {"success": [2], "skipped": [4], "retry": [3]}, "historyLimit": 5,
        "podTemplate": {"labels": {"l": "m"}, "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        "output": {"stdoutLimitBytes": 100, "groupBy": "Result"}, "ttlSecondsAfterFinished": 100,
        "rerun": {"at": "2026-01-01T00:00:00Z", "scope": "Failed"}, "runnerIdleSeconds": 10,
    });
    let typed: ScriptRunnerSpec = serde_json::from_value(spec.clone()).expect("the spec should be readable");
    let hash = validate(&typed, &Sources::default()).expect("the spec should be accepted").spec_hash;
    let entry = json!({"state": "Running", "run": 1, "attempts": 1, "executions": 4, "failures": 2, "exitCode": 0,
        "nodeID": short_id("uid-of-n1"), "podID": short_id("uid-of-pod"), "seq": 3, "serial": 1,
        "history": [execution(1)]});
    let gone = json!({"state": "Failed", "reason": "ScriptFailed", "message": "m", "run": 1, "attempts": 2, "retries": 1,
        "executions": 2, "failures": 2, "exitCode": 1, "nodeID": "x", "goneTime": "2026-12-31T00:00:00Z", "serial": 2,
        "history": [execution(2)]});
    let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "m",
        "observedGeneration": 1, "lastTransitionTime": "2026-12-31T00:00:00Z"});
    json!({
        "apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
        "metadata": {"name": "sr", "namespace": "ns", "uid": "uid", "resourceVersion": "7", "generation": 2},
        "spec": spec,
        "status": {
            "observedGeneration": 1, "acceptedGeneration": 1, "objectUID": "uid", "conditions": [condition],
            "run": {"number": 1, "trigger": "Created", "specHash": hash, "scriptDigest": "aa",
                "startTime": "2027-01-15T07:59:00Z", "rerunAt": "2026-01-01T00:00:00Z"},
            "recentRuns": [{"number": 0, "trigger": "Created", "startTime": "2026-12-31T00:00:00Z", "desired": 1,
                "succeeded": 1, "failed": 0, "skipped": 0, "unknown": 0}],
            "desired": 2, "pending": 0, "active": 1, "succeeded": 0, "failed": 1, "skipped": 0, "unknown": 0,
            "failing": 0, "connected": 1, "progress": "1/2",
            "outputGroups": [{"exitCode": 3, "digest": "00112233445566aa", "nodeCount": 1, "nodes": "n2", "sample": "s"}],
            "outputGroupCount": 1, "nodes": {"n1": entry, "n2": gone}, "truncation": {"nodes": 1, "bytes": 10},
        },
    })
}

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "uid": "uid-of-n1", "resourceVersion": "5", "labels": {"a": "b", "kubernetes.io/os": "linux"}},
        "spec": {"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule",
            "timeAdded": "2026-12-31T00:00:00Z"}, {"key": "t", "value": "u", "effect": "NoExecute"}]},
        "status": {"nodeInfo": {"operatingSystem": "linux"}, "conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-12-31T00:00:00Z"}]},
    })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "srn-a", "namespace": "ns", "uid": "uid-of-pod", "resourceVersion": "8",
            "creationTimestamp": "2027-01-15T07:59:10Z", "deletionTimestamp": "2027-01-15T08:00:10Z",
            "labels": {"scriptrunner.io/uid": "uid", "scriptrunner.io/node-uid": "uid-of-n1",
                "scriptrunner.io/run": "1", "scriptrunner.io/attempt": "1"},
            "annotations": {"scriptrunner.io/name": "sr", "scriptrunner.io/node": "n1",
                "scriptrunner.io/failures-before": "1", "scriptrunner.io/longest-seconds": "70"},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "name": "sr",
                "uid": "uid", "controller": true}]},
        "spec": {"nodeName": "n1", "affinity": {"nodeAffinity": {}}},
        "status": {"phase": "Failed", "reason": "Evicted", "message": "m",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "m"},
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}],
            "initContainerStatuses": [{"name": "copy-runner", "state": {"terminated": {"exitCode": 1, "reason": "Error",
                "message": "m"}}}],
            "containerStatuses": [{"name": "runner", "state": {"terminated": {"exitCode": 1, "reason": "Error",
                "message": "", "startedAt": "2027-01-15T07:59:20Z", "finishedAt": "2027-01-15T08:00:10Z"}}}]},
    })
}

/// The termination message of these lines: with right checksums, whatever the lines are.
pub(super) fn seal(lines: &[u8]) -> Vec<u8> {
    let Ok(Value::Array(lines)) = serde_json::from_slice(lines) else { return lines.to_vec() };
    let sealed = lines.iter().map(|line| {
        let json = line.to_string();
        format!("{} {json}\n", &sha256_hex(json.as_bytes())[..8])
    });
    sealed.collect::<String>().into_bytes()
}

/// The pod with this termination message.
pub(super) fn with_message(mut pod: Value, message: &[u8]) -> Value {
    let message = String::from_utf8_lossy(message).into_owned();
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = message.into();
    pod
}

/// The largest that each side may send, filled with what takes longest to read.
pub(super) fn largest() -> Vec<Vec<u8>> {
    let filled = |before: &str, with: &str, after: &str, limit: usize| {
        let times = (limit - before.len() - after.len()) / with.len();
        format!("{before}{}{after}", with.repeat(times)).into_bytes()
    };
    let small = r#"{"run":1,"attempt":1,"serial":1},"#;
    let record = r#"{"v":1,"b":"","r":1,"a":1,"q":1,"s":""}"#;
    let frame = |with: &str, end: &str| {
        let before = format!(r#"{{"snapshot":{{"record":{record},"history":["#);
        filled(&before, with, &format!("{end}]}}}}"), MAX_FROM_RUNNER_BYTES)
    };
    let mut nodes = Documents::valid().object;
    let entry = nodes["status"]["nodes"]["n1"].clone();
    nodes["status"]["nodes"] = (0..2_000).map(|number| (format!("n{number}"), entry.clone())).collect();
    vec![
        filled("", "[", "", MAX_FROM_RUNNER_BYTES),
        filled("", "{\"a\":", "", MAX_FROM_RUNNER_BYTES),
        frame(small, r#"{"run":1,"attempt":1,"serial":2}"#),
        filled("", "0 {}\n", "", MAX_MESSAGE_BYTES),
        filled("{\"hello\":\"", "\\u202e", "\"}", MAX_FROM_RUNNER_BYTES),
        filled("\"", "\\u202e", "\"", 1 << 20),
        filled("[", "0.1,", "1]", 1 << 20),
        nodes.to_string().into_bytes(),
    ]
}
