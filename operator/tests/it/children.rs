//! Pods and ConfigMaps as the operator makes them, of which nothing runs.

use kube::{Api, Client, ResourceExt, api::PostParams};
use scriptrunner_api::{
    labels,
    session::AUDIENCE,
    v1alpha1::{Mode, ScriptRunner},
};
use serde_json::{Value, json};

/// Whose children they are.
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Owner {
    pub(crate) fn of(object: &ScriptRunner) -> Self {
        Self { name: object.name_any(), uid: object.uid().unwrap() }
    }
}

/// Makes a ScriptRunner without nodes, for children to belong to. In a namespace that admits no
/// privileged runs no operator accepts it, and so none touches its children.
pub(crate) async fn owner(client: &Client, namespace: &str, name: &str) -> Owner {
    let object: ScriptRunner = serde_json::from_value(json!({"apiVersion": "scriptrunner.io/v1alpha1",
        "kind": "ScriptRunner", "metadata": {"name": name},
        "spec": {"script": "true", "nodeNames": ["nobody"], "mode": "Privileged", "parallelism": 1,
            "executionDeadlineSeconds": 5}}))
    .unwrap();
    let api = Api::<ScriptRunner>::namespaced(client.clone(), namespace);
    Owner::of(&api.create(&PostParams::default(), &object).await.unwrap())
}

fn metadata(name: &str, mode: Mode, owner: &Owner) -> Value {
    json!({"name": name,
        "labels": {labels::UID: owner.uid, labels::MODE: mode, labels::RUN: "1"},
        "annotations": {labels::NAME: owner.name},
        "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "name": owner.name,
            "uid": owner.uid, "controller": true}]})
}

/// A runner's pod that is never scheduled.
pub(crate) fn pod(name: &str, mode: Mode, owner: &Owner) -> Value {
    let is_privileged = mode.is_privileged();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(name, mode, owner), "spec": {
        "schedulingGates": [{"name": "testcluster/never"}],
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": if is_privileged { json!({}) } else { json!({"seccompProfile": {"type": "RuntimeDefault"}}) },
        "containers": [{"name": "runner", "image": "none.invalid/runner:1",
            "securityContext": {"privileged": is_privileged}}],
        "volumes": [{"name": "token", "projected": {"sources": [
            {"serviceAccountToken": {"audience": AUDIENCE, "path": "token", "expirationSeconds": 600}}]}}]}})
}

/// The ConfigMap of a run.
pub(crate) fn config_map(name: &str, mode: Mode, owner: &Owner) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name, mode, owner), "immutable": true,
        "data": {labels::SCRIPT_FILE: "true"}})
}
