//! How fast and how safe: how many nodes run at once, and how many may fail.

use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use serde_json::json;

use crate::{
    answer::{entry, message, run_number, says, status},
    stage::beside_others,
};

/// Names of the nodes that are in a state.
fn in_state(object: &ScriptRunner, wanted: &str) -> Vec<String> {
    let nodes = &status(object).nodes;
    nodes.iter().filter(|(_, entry)| entry.state == wanted).map(|(name, _)| name.clone()).collect()
}

#[tokio::test]
async fn a_run_stops_after_the_first_failure_and_goes_on_when_more_are_allowed() {
    beside_others("pacing::max_failures", &[], async |stage| {
        let journal = stage.journal().await;
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "exit 3",
            "parallelism": 1, "maxFailures": 0, "executionDeadlineSeconds": 60});
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_failed().await;
        assert!(says(&object, ConditionType::Failed, "True", "ErrorBudgetExceeded"));
        assert!(says(&object, ConditionType::Progressing, "False", "ErrorBudgetExceeded"));
        let told = message(&object, ConditionType::Failed);
        assert!(told.contains("1 of 3 nodes") && told.contains("raise maxFailures"), "{told}");
        assert!(status(&object).run.as_ref().unwrap().completion_time.is_some());
        assert_eq!((status(&object).pending, status(&object).failed, journal.pods()), (2, 1, 1));

        subject.edit(json!({"spec": {"maxFailures": 1}})).await;
        let is_second = |object: &ScriptRunner| object.status.as_ref().is_some_and(|it| it.failed == 2);
        subject.until("a second failure", is_second).await;
        let object = subject.until_failed().await;
        assert!(says(&object, ConditionType::Failed, "True", "ErrorBudgetExceeded"));
        assert_eq!((status(&object).pending, journal.pods(), run_number(&object)), (1, 2, 1));

        let first = in_state(&object, "Failed");
        subject.edit(json!({"spec": {"script": "exit 0"}})).await;
        let object = subject.until_complete().await;
        assert_eq!((run_number(&object), status(&object).succeeded), (2, 3));
        assert_eq!(journal.most_busy(), 1);
        for node in first {
            assert_eq!(entry(&object, &node).executions, 2, "{node}");
        }
    })
    .await;
}
