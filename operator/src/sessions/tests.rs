//! The door on a real socket with real TLS, and clients of every kind, against a scripted API server.

mod attacks;
mod client;
mod flow;
mod house;
mod memory;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use scriptrunner_core::observed::PodFacts;
use serde_json::{Value, json};

use super::identity::Speaker;

/// A pod of ours, by its UID.
pub(super) fn pod(uid: &str) -> PodFacts {
    PodFacts::of(&serde_json::from_value::<Pod>(pod_object(uid)).unwrap()).unwrap()
}

fn pod_object(uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "ns", "name": format!("srn-{uid}"), "uid": uid, "resourceVersion": "1",
            "labels": {"scriptrunner.io/uid": "owner", "scriptrunner.io/node-uid": format!("uid-of-node-{uid}"),
                "scriptrunner.io/run": "1", "scriptrunner.io/attempt": "1"},
            "annotations": {"scriptrunner.io/name": "sr", "scriptrunner.io/node": format!("node-{uid}")},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
                "name": "sr", "uid": "owner", "controller": true}]},
        "spec": {"nodeName": format!("node-{uid}"), "containers": [{"name": "runner"}]},
        "status": {"phase": "Running"}})
}

/// That pod, as the one who speaks.
pub(super) fn speaker(uid: &str) -> Speaker {
    Speaker {
        pod_uid: uid.to_owned(),
        namespace: "ns".to_owned(),
        pod: format!("srn-{uid}"),
        owner: "sr".to_owned(),
        node: format!("node-{uid}"),
        run: 1,
        attempt: 1,
        renewed: Timestamp::MAX,
        expires: Timestamp::MAX,
    }
}
