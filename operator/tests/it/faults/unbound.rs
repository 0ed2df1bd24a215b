//! Pods that wait for the scheduler: over all objects no more than the operator may have, and each object gets its share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::wait;
use serde_json::json;

use super::scene::{PATIENCE, Scene, scene};

const MOST: usize = 2;

async fn submit(scene: &Scene, name: &str) {
    let object = json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "metadata": {"name": name},
        "spec": {"nodeLabelSelector": {}, "interpreter": ["sh"], "script": "true", "placement": "Scheduler"}});
    let object = serde_json::from_value(object).unwrap();
    scene.objects::<ScriptRunner>().create(&PostParams::default(), &object).await.unwrap();
}

/// How many pods each object has. None is ever bound: no node has what they ask for.
async fn counts(scene: &Scene) -> Result<BTreeMap<String, usize>, kube::Error> {
    let mut counts = BTreeMap::new();
    for pod in scene.objects::<Pod>().list(&ListParams::default()).await? {
        assert_eq!(pod.spec.as_ref().unwrap().node_name, None, "{}", pod.name_any());
        *counts.entry(pod.annotations()[labels::NAME].clone()).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    assert!(all <= MOST, "{counts:?}");
    Ok(counts)
}

async fn until_counts(scene: &Scene, wanted: &[(&str, usize)]) {
    let wanted = wanted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<BTreeMap<_, _>>();
    wait::until(&format!("pods {wanted:?}"), PATIENCE, async |seen| {
        let counts = counts(scene).await?;
        seen.note(format!("{counts:?}"));
        Ok::<_, kube::Error>((counts == wanted).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn few_pods_wait_for_the_scheduler_and_every_object_gets_its_share() {
    scene("faults::unbound", async |scene| {
        let flags = scene.flags().with("default-memory", "900Gi").with("most-unbound-pods", MOST);
        let operator = scene.start_with(&flags).await;
        submit(scene, "first").await;
        until_counts(scene, &[("first", MOST)]).await;
        submit(scene, "second").await;
        // The first one has more than its share now, and gives up what becomes free.
        let pod = scene.objects::<Pod>().list(&ListParams::default()).await.unwrap().items.remove(0);
        scene.objects::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        until_counts(scene, &[("first", 1), ("second", 1)]).await;
        scene.objects::<ScriptRunner>().delete("first", &DeleteParams::default()).await.unwrap();
        until_counts(scene, &[("second", MOST)]).await;
        drop(operator);
    })
    .await;
}
