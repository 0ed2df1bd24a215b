//! The status subresource of a real API server, on which the operator's only write rests. On a copy of the definition that
//! no operator watches.

use http::Method;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use scriptrunner_api::v1alpha1::{NodeState, NodeStatus, ScriptRunnerStatus};
use scriptrunner_core::status::patch::diff;
use scriptrunner_testcluster::{Error, namespace::in_namespace};
use serde_json::{Value, json};

use crate::cluster::{admin, install_copy, refusal, send};

/// Runs `body` with an object that has no status, in a namespace and under a definition of its own.
async fn with_object(test: &str, body: impl AsyncFnOnce(&Client, &Api<DynamicObject>, DynamicObject)) {
    let client = admin().await;
    in_namespace(&client, test, &[], async |namespace| {
        let copy = install_copy(&client, &namespace).await;
        let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &copy);
        let made = objects.create(&PostParams::default(), &object(&copy)).await.unwrap();
        body(&client, &objects, made).await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

fn object(kind: &ApiResource) -> DynamicObject {
    let spec = json!({"script": "true", "nodeLabelSelector": {}});
    DynamicObject::new("object", kind).data(json!({"spec": spec, "status": {"progress": "forged"}}))
}

fn status(nodes: &[(&str, &str)]) -> ScriptRunnerStatus {
    let entry = |state: &str| NodeStatus { state: state.to_owned(), run: 1, ..NodeStatus::default() };
    ScriptRunnerStatus {
        desired: 2,
        progress: "1/2".to_owned(),
        nodes: nodes.iter().map(|(name, state)| ((*name).to_owned(), entry(state))).collect(),
        ..ScriptRunnerStatus::default()
    }
}

/// The operator's own patch from one status to the next.
async fn write(
    objects: &Api<DynamicObject>,
    found: &DynamicObject,
    uid: &str,
    old: Option<&ScriptRunnerStatus>,
    new: &ScriptRunnerStatus,
) -> kube::Result<DynamicObject> {
    let patch = diff(old, new, uid, &found.resource_version().unwrap()).unwrap();
    objects.patch_status(&found.name_any(), &PatchParams::default(), &Patch::Json::<()>(patch)).await
}

fn stored(object: &DynamicObject) -> ScriptRunnerStatus {
    serde_json::from_value(object.data["status"].clone()).unwrap()
}

#[tokio::test]
async fn the_operators_patch_writes_the_status_and_nothing_else_does() {
    with_object("status-patch", async |_, objects, made| {
        assert_eq!(made.data.get("status"), None, "a status at creation is dropped");
        let uid = made.uid().unwrap();
        let first = status(&[("a", "Running"), ("b.example", "Pending")]);
        let written = write(objects, &made, &uid, None, &first).await.unwrap();
        assert_eq!(stored(&written), first);
        assert_eq!(written.metadata.generation, Some(1), "a status is no new generation");

        let both = Patch::Merge(
            json!({"spec": {"script": "false"}, "status": {"progress": "forged", "nodes": null}}),
        );
        let edited = objects.patch("object", &PatchParams::default(), &both).await.unwrap();
        assert_eq!((stored(&edited), edited.metadata.generation), (first.clone(), Some(2)));

        let all = Patch::Merge(
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"script": "evil"}, "status": {"desired": 3}}),
        );
        let answered = objects.patch_status("object", &PatchParams::default(), &all).await.unwrap();
        assert_eq!(answered.data["spec"]["script"], "false");
        assert_eq!((answered.labels().len(), answered.metadata.generation), (0, Some(2)));
        assert_eq!(stored(&answered), ScriptRunnerStatus { desired: 3, ..first.clone() });

        let second = status(&[("a", "Succeeded")]);
        let written = write(objects, &answered, &uid, Some(&stored(&answered)), &second).await.unwrap();
        assert_eq!(stored(&written), second);
    })
    .await;
}

#[tokio::test]
async fn a_patch_for_another_object_or_version_is_a_422() {
    with_object("status-test", async |_, objects, made| {
        let uid = made.uid().unwrap();
        let first = status(&[("a", "Running"), ("b", "Pending")]);
        let written = write(objects, &made, &uid, None, &first).await.unwrap();
        let next = status(&[("a", "Succeeded"), ("b", "Pending")]);
        for (found, uid) in [(&made, uid.as_str()), (&written, "another")] {
            let answer = write(objects, found, uid, Some(&first), &next).await;
            let (code, reason, message) = refusal(&answer).unwrap();
            assert_eq!((code, reason), (422, "Invalid"), "{message}");
        }
        let live = objects.get("object").await.unwrap();
        assert_eq!((stored(&live), live.resource_version()), (first, written.resource_version()));
    })
    .await;
}

#[tokio::test]
async fn nodes_are_one_value_to_the_bookkeeping_of_fields() {
    with_object("status-fields", async |_, objects, made| {
        let uid = made.uid().unwrap();
        let first = status(&[("node-1", "Running"), ("node-2", "Pending"), ("node-3", "Pending")]);
        let written = write(objects, &made, &uid, None, &first).await.unwrap();
        let second = status(&[("node-1", "Running"), ("node-2", "Running"), ("node-3", "Pending")]);
        let written = write(objects, &written, &uid, Some(&first), &second).await.unwrap();
        assert_eq!(stored(&written), second);
        let fields = serde_json::to_string(&written.metadata.managed_fields).unwrap();
        assert!(fields.contains(r#""f:nodes":{}"#) && !fields.contains("node-1"), "{fields}");
    })
    .await;
}

#[tokio::test]
async fn what_a_newer_operator_says_is_stored_and_read_as_unknown() {
    with_object("status-newer", async |client, objects, made| {
        let path = format!(
            "/apis/{}/namespaces/{}/scriptrunners/object/status",
            made.types.clone().unwrap().api_version,
            made.namespace().unwrap()
        );
        let newer = json!({"status": {
            "nodes": {"a": {"state": "Hibernating", "reason": "NodeAsleep", "newField": 1}},
            "conditions": [{"type": "Novel", "status": "True", "reason": "New", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "run": {"number": 1, "trigger": "Moon", "specHash": "9:x", "scriptDigest": "y", "startTime": "2026-01-01T00:00:00Z"}}});
        let answer: Value =
            send(client, Method::PATCH, &path, "application/merge-patch+json", &newer).await.unwrap();
        let entry = &answer["status"]["nodes"]["a"];
        assert_eq!((&entry["state"], &entry["reason"]), (&json!("Hibernating"), &json!("NodeAsleep")));
        // This is why an operator whose schema is newer than the installed one writes nothing.
        assert_eq!(entry.get("newField"), None, "a field that the schema does not know is dropped");
        let read = stored(&objects.get("object").await.unwrap());
        assert_eq!(read.nodes["a"].node_state(), NodeState::Unknown);
        assert_eq!((read.run.unwrap().trigger, read.conditions.len()), ("Moon".to_owned(), 1));
    })
    .await;
}
