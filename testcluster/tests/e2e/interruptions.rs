//! Pods that are lost after their script began, for a cause outside of it: told with that cause, tried again where the user says so,
//! never a failure. A ledger on the node proves how often the script ran. Causes that befall a whole node are in `whole_cluster`.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, EvictParams},
};
use scriptrunner_api::v1alpha1::{Execution, ScriptRunner};
use serde_json::json;

use crate::{
    answer::{entry, newest, state, summary},
    pair::{AtWork, Pair},
    processes,
    stage::{PRIVILEGED, beside_others},
};

#[tokio::test]
async fn a_deleted_pod_is_told_or_replaced() {
    beside_others("interruptions::deleted", PRIVILEGED, async |stage| {
        let journal = stage.journal().await;
        let pair = Pair::at_work(&stage, &stage.some_node(), &json!({})).await;
        for pod in &pair.pods {
            stage.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        }
        pair.assert_told(&[("Stopped", "PodDeleted")]).await;
        stage.until_pods(0).await;
        assert_eq!(journal.pods(), 1 + 2);
    })
    .await;
}

#[tokio::test]
async fn a_pod_deleted_by_force_is_told_or_replaced() {
    beside_others("interruptions::forced", PRIVILEGED, async |stage| {
        let journal = stage.journal().await;
        let pair = Pair::at_work(&stage, &stage.some_node(), &json!({})).await;
        for pod in &pair.pods {
            let at_once = DeleteParams::default().grace_period(0);
            stage.api::<Pod>().delete(&pod.name_any(), &at_once).await.unwrap();
        }
        // Nobody waits for its end; its last words may have come over its session.
        pair.assert_told(&[("Unknown", "PodDeleted"), ("Stopped", "PodDeleted")]).await;
        stage.until_pods(0).await;
        assert_eq!(journal.pods(), 1 + 2);
    })
    .await;
}

#[tokio::test]
async fn an_evicted_pod_is_told_or_replaced() {
    beside_others("interruptions::evicted", PRIVILEGED, async |stage| {
        let journal = stage.journal().await;
        let pair = Pair::at_work(&stage, &stage.some_node(), &json!({})).await;
        for pod in &pair.pods {
            stage.api::<Pod>().evict(&pod.name_any(), &EvictParams::default()).await.unwrap();
        }
        pair.assert_told(&[("Stopped", "Evicted")]).await;
        stage.until_pods(0).await;
        assert_eq!(journal.pods(), 1 + 2);
    })
    .await;
}

#[tokio::test]
async fn a_killed_runner_is_told_or_replaced() {
    beside_others("interruptions::killed", PRIVILEGED, async |stage| {
        let journal = stage.journal().await;
        let pair = Pair::at_work(&stage, &stage.some_node(), &json!({})).await;
        for at_work in [&pair.report, &pair.retry] {
            processes::kill(at_work.runner(&stage).await);
        }
        pair.assert_told(&[("Unknown", "RunnerKilled")]).await;
        assert_eq!(journal.pods(), 1 + 2);
    })
    .await;
}

#[tokio::test]
async fn a_script_that_is_interrupted_twice_is_not_tried_a_third_time() {
    beside_others("interruptions::twice", PRIVILEGED, async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let fields = json!({"interruptionPolicy": "Retry"});
        let subject = AtWork::submit(&stage, &node, "subject", "echo half; exec sleep 1000", &fields).await;
        subject.until_at_work(&stage, &node).await;
        subject.delete_pod(&stage).await;
        subject.ledger.until(&node, 2).await;
        let second = |object: &ScriptRunner| {
            state(object, &node).0 == "Running" && entry(object, &node).interruptions == 1
        };
        subject.submitted.until("a second attempt", second).await;
        subject.delete_pod(&stage).await;
        let object = subject.submitted.until_failed().await;
        assert_eq!(state(&object, &node), ("Stopped", "PodDeleted"));
        let known = entry(&object, &node);
        assert_eq!(
            (known.attempts, known.interruptions, known.executions),
            (2, 1, 2),
            "{}",
            summary(&object)
        );
        assert_eq!(newest(&object, &node).stdout, "half\n");
        assert_eq!((subject.ledger.executions(&node).len(), journal.pods()), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn a_counted_repetition_goes_on_after_its_pod_was_deleted() {
    const COUNT: u64 = 6;
    beside_others("interruptions::repeat", PRIVILEGED, async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        // The second execution waits to be interrupted.
        let lines = "echo \"$SCRIPTRUNNER_SERIAL\"\n[ \"$SCRIPTRUNNER_SERIAL\" != 2 ] || exec sleep 1000\n";
        let fields = json!({"repeat": {"count": COUNT, "periodSeconds": 1}, "historyLimit": 20});
        let subject = AtWork::submit(&stage, &node, "subject", lines, &fields).await;
        subject.ledger.until(&node, 2).await;
        subject.delete_pod(&stage).await;
        let object = subject.submitted.until_complete().await;
        let expected: Vec<_> = (1..=COUNT).map(|serial| (1, 1 + u32::from(serial > 2), serial)).collect();
        assert_eq!(subject.ledger.executions(&node), expected, "none is left out, none happens twice");
        let known = entry(&object, &node);
        let kept: Vec<_> = known.history.iter().map(Execution::key).collect();
        assert_eq!(kept, expected);
        let answers: Vec<_> = known.history.iter().map(|it| it.stdout.trim().to_owned()).collect();
        assert_eq!(answers, (1..=COUNT).map(|serial| serial.to_string()).collect::<Vec<_>>());
        assert_eq!(known.history[1].reason, "Interrupted");
        assert_eq!(
            (known.executions, known.attempts, known.interruptions),
            (COUNT, 2, 1),
            "{}",
            summary(&object)
        );
        assert_eq!((journal.pods(), journal.shared_nodes()), (2, Vec::new()));
    })
    .await;
}
