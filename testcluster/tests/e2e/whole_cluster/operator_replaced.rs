//! The operator is upgraded or given other settings: finished work is left alone, new work follows the new settings.

use kube::ResourceExt;
use serde_json::json;

use crate::{
    answer::{entry, run_number, state},
    operator,
    stage::alone,
    submitted::Submitted,
};

async fn versions(subjects: &[Submitted]) -> Vec<(Option<String>, Option<i64>, u64)> {
    let mut versions = Vec::new();
    for subject in subjects {
        let object = subject.get().await;
        versions.push((object.resource_version(), object.metadata.generation, run_number(&object)));
    }
    versions
}

#[tokio::test]
async fn an_upgrade_runs_and_writes_nothing_for_finished_objects() {
    alone("operator_replaced::upgrade", &[], async |stage| {
        let mut subjects = Vec::new();
        for number in 0..20 {
            let script = format!("exit {}", number % 2);
            let spec = json!({"nodeNames": [stage.some_node()], "interpreter": ["bash"], "script": script});
            subjects.push(stage.submit(&format!("subject-{number}"), spec).await);
        }
        for (number, subject) in subjects.iter().enumerate() {
            if number % 2 == 0 {
                subject.until_complete().await
            } else {
                subject.until_failed().await
            };
        }
        // The pods of failed scripts are kept, those of the others go.
        stage.until_pods(10).await;
        let before = versions(&subjects).await;
        let journal = stage.journal().await;
        operator::restart(&stage.client).await;
        // A new object that is done proves that the new operator has looked at the old ones before.
        let probe =
            stage.submit("z-probe", json!({"nodeNames": [stage.node(1)], "script": "print(1)"})).await;
        probe.until_complete().await;
        assert_eq!(versions(&subjects).await, before);
        assert_eq!(journal.pods(), 10 + 1);
        // The last pod of the probe goes when its outcome is stored.
        stage.until_pods(10).await;
    })
    .await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told() {
    alone("operator_replaced::image", &[], async |stage| {
        let node = stage.some_node();
        // Port 1 of the node itself: refused at once, without any network.
        let image = "127.0.0.1:1/none/runner:0";
        operator::with_flag(&stage.client, "runner-image", image, async || {
            let spec = json!({"nodeNames": [node], "script": "print(1)", "podStartDeadlineSeconds": 10});
            let object = stage.submit("subject", spec).await.until_failed().await;
            assert_eq!(state(&object, &node), ("Failed", "ImagePullFailed"));
            let told = &entry(&object, &node).message;
            assert!(told.contains("podStartDeadlineSeconds") && told.contains(image), "{told}");
            assert_eq!(entry(&object, &node).executions, 0);
            stage.until_pods(0).await;
        })
        .await;
    })
    .await;
}
