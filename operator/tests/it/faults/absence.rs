//! The operator is away while a run goes on: what its runners did is found, and what nobody can know is called so.

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::wait;

use super::{
    scene::{PATIENCE, Scene, scene},
    subject::{Subject, status},
    witness::Witness,
};

const REPEATS: u64 = 5;

/// Whether the status names the pod of every node.
fn names_all_pods(scene: &Scene) -> impl Fn(&ScriptRunner) -> bool + use<> {
    let nodes = scene.cluster.node_names().len();
    move |object| {
        let entries = object.status.iter().flat_map(|status| status.nodes.values());
        entries.filter(|entry| entry.pod_id.is_some()).count() == nodes
    }
}

/// Waits until the runners of the given pods have ended.
async fn until_ended(subject: &Subject<'_>, count: usize) {
    wait::until(&format!("{count} pods that have ended"), PATIENCE, async |seen| {
        let pods = subject.pods().await;
        let phase = |pod: &Pod| pod.status.clone().and_then(|status| status.phase).unwrap_or_default();
        let phases: Vec<_> = pods.iter().map(phase).collect();
        seen.note(format!("{phases:?}"));
        let all = phases.len() == count && phases.iter().all(|it| it == "Succeeded" || it == "Failed");
        Ok::<_, kube::Error>(all.then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_run_without_an_operator_loses_nothing() {
    scene("faults::absence", async |scene| {
        let witness = Witness::begin(scene).await;
        let mut operator = scene.start_with(&scene.flags().with("linger-seconds", 3)).await;
        let subject = Subject::create(scene, "subject", REPEATS).await;
        subject.until("the pods to be named", names_all_pods(scene)).await;
        operator.kill().await;
        let before = scene.api.records().len();
        until_ended(&subject, scene.cluster.node_names().len()).await;
        assert_eq!(scene.api.records().len(), before, "there was no operator");
        let mut operator = scene.start().await;
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        assert!(operator.terminate().await.success());
    })
    .await;
}

#[tokio::test]
async fn pods_deleted_without_an_operator_are_counted_as_unknown_and_no_others() {
    scene("faults::deleted_pods", async |scene| {
        let witness = Witness::begin(scene).await;
        let mut operator = scene.start_with(&scene.flags().with("linger-seconds", 3)).await;
        let subject = Subject::create(scene, "subject", REPEATS).await;
        subject.until("the pods to be named", names_all_pods(scene)).await;
        operator.kill().await;
        let nodes = scene.cluster.node_names();
        let lost = [nodes[0].as_str(), nodes[2].as_str()];
        let at_once = DeleteParams::default().grace_period(0);
        let mut deleted = 0;
        for pod in subject.pods().await {
            if lost.contains(&pod.annotations()[labels::NODE].as_str()) {
                scene.objects::<Pod>().delete(&pod.name_any(), &at_once).await.unwrap();
                deleted += 1;
            }
        }
        assert_eq!(deleted, lost.len());
        until_ended(&subject, nodes.len() - lost.len()).await;
        let operator = scene.start().await;
        let object = subject.until_over().await;
        witness.until_rest(&subject.name).await;
        subject.assert_accounted(&object, &lost);
        let counted = (status(&object).unknown, status(&object).succeeded, status(&object).failed);
        assert_eq!(counted, (2, 1, 0));
        for node in lost {
            assert_eq!(status(&object).nodes[node].reason, "PodLost");
        }
        witness.assert_nothing_wrong();
        subject.delete().await;
        drop(operator);
    })
    .await;
}
