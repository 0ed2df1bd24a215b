//! What namespaces forbid and what others do to our objects: told, waited for, put right, never run twice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ResourceQuota};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{
    condition::ConditionType,
    labels,
    v1alpha1::{Mode, ScriptRunner},
};
use scriptrunner_testcluster::{
    bindings::{self, Binding},
    wait,
};
use serde_json::{Value, json};

use crate::{
    answer::{entry, message, newest, run_number, says, state, status, summary},
    operator,
    stage::{PATIENCE, PRIVILEGED, Stage, alone, beside_others},
    submitted::Submitted,
};

/// The policy that keeps the inputs of runs.
const CONFIG_MAPS: &str = "scriptrunner-configmaps";

/// Forbids more than `pods` pods in the namespace; returns once that is enforced.
async fn limit_pods(stage: &Stage, pods: u32) {
    let quota = json!({"metadata": {"name": "pods"}, "spec": {"hard": {"pods": pods.to_string()}}});
    let api = stage.api::<ResourceQuota>();
    api.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    wait::until("the quota to be counted", PATIENCE, async |_| {
        let counted = api.get("pods").await?.status.is_some_and(|status| status.hard.is_some());
        Ok::<_, kube::Error>(counted.then_some(()))
    })
    .await
    .unwrap();
}

async fn unlimit_pods(stage: &Stage) {
    stage.api::<ResourceQuota>().delete("pods", &DeleteParams::default()).await.unwrap();
}

async fn label_namespace(stage: &Stage, labels: Value) {
    let api: Api<Namespace> = Api::all(stage.client.clone());
    let patch = json!({"metadata": {"labels": labels}});
    api.patch(&stage.namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

async fn until_refused(subject: &Submitted) -> ScriptRunner {
    subject
        .until("PodsRefused", |object| says(object, ConditionType::Progressing, "True", "PodsRefused"))
        .await
}

fn privileged_on(node: &str) -> Value {
    json!({"nodeNames": [node], "script": "import os; print(os.getuid())", "mode": Mode::Privileged,
        "parallelism": "100%", "executionDeadlineSeconds": 60})
}

#[tokio::test]
async fn a_quota_is_told_and_waited_for() {
    beside_others("limits::quota", &[], async |stage| {
        let journal = stage.journal().await;
        limit_pods(&stage, 1).await;
        // Holds the only place until the refusal of the others has been told.
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "sleep 12"});
        let subject = stage.submit("subject", spec).await;
        let object = until_refused(&subject).await;
        let told = message(&object, ConditionType::Progressing);
        assert!(told.contains("exceeded quota: pods"), "{told}");
        unlimit_pods(&stage).await;
        let object = subject.until_complete().await;
        assert_eq!((status(&object).succeeded, journal.pods()), (3, 3));
    })
    .await;
}

#[tokio::test]
async fn mode_normal_passes_the_level_restricted() {
    let restricted = &[("pod-security.kubernetes.io/enforce", "restricted")];
    beside_others("limits::restricted", restricted, async |stage| {
        let node = stage.some_node();
        let script = "import os; print(os.getuid()); open('here', 'w'); open('/tmp/there', 'w'); open('/nowhere', 'w')";
        let spec = json!({"nodeNames": [node], "script": script});
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(newest(&object, &node).stdout, "65532\n");
        let stderr = &newest(&object, &node).stderr;
        assert!(stderr.contains("Read-only file system: '/nowhere'"), "{stderr}");
    })
    .await;
}

#[tokio::test]
async fn a_privileged_run_against_pod_security_is_told() {
    let labels = &[
        (labels::PRIVILEGED, labels::PRIVILEGED_ALLOWED),
        ("pod-security.kubernetes.io/enforce", "restricted"),
    ];
    beside_others("limits::pod_security", labels, async |stage| {
        let node = stage.some_node();
        let subject = stage.submit("subject", privileged_on(&node)).await;
        let object = until_refused(&subject).await;
        let told = message(&object, ConditionType::Progressing);
        assert!(told.contains("violates PodSecurity \"restricted:latest\""), "{told}");
        label_namespace(&stage, json!({"pod-security.kubernetes.io/enforce": "privileged"})).await;
        let object = subject.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "0\n");
    })
    .await;
}

#[tokio::test]
async fn a_privileged_run_waits_for_its_namespace_to_admit_it() {
    beside_others("limits::namespace", &[PRIVILEGED[1]], async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let subject = stage.submit("subject", privileged_on(&node)).await;
        let is_refused =
            |object: &_| says(object, ConditionType::Accepted, "False", "NamespaceNotPrivileged");
        let object = subject.until("NamespaceNotPrivileged", is_refused).await;
        let told = message(&object, ConditionType::Accepted);
        assert!(
            told.contains("scriptrunner.io/privileged=allowed") && told.contains(&stage.namespace),
            "{told}"
        );
        assert_eq!((run_number(&object), journal.pods()), (0, 0));
        label_namespace(&stage, json!({labels::PRIVILEGED: labels::PRIVILEGED_ALLOWED})).await;
        let object = subject.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "0\n");
    })
    .await;
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_is_put_right_and_nothing_runs_again() {
    beside_others("limits::status", &[], async |stage| {
        let journal = stage.journal().await;
        let subject = stage.submit("subject", json!({"nodeLabelSelector": {}, "script": "print(1)"})).await;
        let before = subject.until_complete().await;
        let vandalism = [
            json!({"status": {"nodes": null}}),
            json!({"status": {"succeeded": 99, "progress": "99/99", "run": {"number": 7}}}),
            json!({"status": {"nodes": {stage.node(1): {"state": "Pending", "run": 1, "attempts": 0}}}}),
            json!({"status": null}),
        ];
        for patch in vandalism {
            subject.edit_status(&stage.operators().await, patch.clone()).await;
            let is_right = |object: &ScriptRunner| {
                let (Some(now), Some(then)) = (&object.status, &before.status) else { return false };
                now.nodes == then.nodes
                    && now.run == then.run
                    && now.succeeded == 3
                    && now.progress == then.progress
            };
            subject.until(&format!("put right after {patch}"), is_right).await;
        }
        let object = subject.until_complete().await;
        assert_eq!((run_number(&object), journal.pods()), (1, 3), "{}", summary(&object));
    })
    .await;
}

/// A run whose pods are held back by a quota, and its ConfigMap.
async fn held_back(stage: &Stage, node: &str) -> (Submitted, ConfigMap) {
    limit_pods(stage, 0).await;
    let subject = stage.submit("subject", json!({"nodeNames": [node], "script": "print('ours')"})).await;
    until_refused(&subject).await;
    let found = stage.api::<ConfigMap>().list(&ListParams::default().labels(labels::UID)).await.unwrap();
    (subject, found.items.into_iter().next().unwrap())
}

/// A ConfigMap with the name of the run's and another script.
fn forged(config_map: &ConfigMap) -> ConfigMap {
    let mut forged = config_map.clone();
    forged.metadata.resource_version = None;
    forged.metadata.uid = None;
    forged.data.get_or_insert_default().insert(labels::SCRIPT_FILE.to_owned(), "print('theirs')".to_owned());
    forged
}

/// Deletes the run's ConfigMap and makes this one in its place.
async fn replace(stage: &Stage, makers: &Api<ConfigMap>, forged: &ConfigMap) {
    let api = stage.api::<ConfigMap>();
    // The operator makes its own again as soon as it can: whoever is first has the name.
    wait::until("the stranger to have the name", PATIENCE, async |_| {
        let _ = api.delete(&forged.name_any(), &DeleteParams::default()).await;
        makers.create(&PostParams::default(), forged).await.map(Some)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn forged_inputs_with_our_marks_are_not_run() {
    beside_others("limits::forged", &[], async |stage| {
        let node = stage.some_node();
        let (subject, config_map) = held_back(&stage, &node).await;
        // Under the operator's account: the policies let nobody else make one with our marks.
        replace(&stage, &stage.operators().await, &forged(&config_map)).await;
        unlimit_pods(&stage).await;
        let object = subject.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "InputTampered"));
        assert_eq!((entry(&object, &node).executions, entry(&object, &node).history.len()), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_strangers_config_map_in_place_of_the_inputs_is_told() {
    // Alone, because a policy is taken away meanwhile: as if the ConfigMap were from before the policies.
    alone("limits::stranger", &[], async |stage| {
        let node = stage.some_node();
        let (subject, config_map) = held_back(&stage, &node).await;
        let mut strange = forged(&config_map);
        strange.metadata.labels = Some(BTreeMap::new());
        strange.metadata.owner_references = None;
        let policy = [Binding::Validating(CONFIG_MAPS)];
        let narrowed = bindings::narrowing().await;
        let replaced = narrowed.without(&stage.client, &policy, &stage.namespace, async || {
            replace(&stage, &stage.api(), &strange).await;
        });
        replaced.await.unwrap();
        operator::until_it_admits(&stage.client, CONFIG_MAPS).await;
        unlimit_pods(&stage).await;
        let is_told = |object: &_| says(object, ConditionType::Accepted, "False", "InputChanged");
        let object = subject.until("InputChanged", is_told).await;
        let told = message(&object, ConditionType::Accepted);
        assert!(told.contains(&config_map.name_any()) && told.contains("delete it"), "{told}");
        assert_eq!(state(&object, &node).0, "Pending");
        // As the message says.
        stage.api::<ConfigMap>().delete(&config_map.name_any(), &DeleteParams::default()).await.unwrap();
        let object = subject.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "ours\n");
    })
    .await;
}
