//! The time that a whole run may take.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::wait;
use serde_json::json;

use crate::{
    answer::{entry, message, newest, run_number, says, state, status, summary},
    stage::{PATIENCE, beside_others},
};

/// Seconds that a run may take in these tests: longer than two busy cores need to start a pod.
const DEADLINE: i64 = 15;

/// Time of the current run from its start to a moment.
fn since_start(object: &ScriptRunner, moment: Timestamp) -> SignedDuration {
    moment.duration_since(status(object).run.as_ref().unwrap().start_time.0)
}

#[tokio::test]
async fn a_run_that_takes_too_long_ends_and_goes_on_with_what_never_started() {
    beside_others("deadlines::active", &[], async |stage| {
        let journal = stage.journal().await;
        let [slow, second, third] = [1, 2, 3].map(|number| stage.node(number));
        let script = format!("echo begun\n[ \"$SCRIPTRUNNER_NODE\" != {slow} ] || exec sleep 1000\n");
        let spec = json!({"nodeNames": [slow], "interpreter": ["bash"], "script": script, "parallelism": 1,
            "executionDeadlineSeconds": 600, "activeDeadlineSeconds": DEADLINE});
        let subject = stage.submit("subject", spec).await;
        subject.until("the slow node at work", |object| state(object, &slow).0 == "Running").await;
        // Only now, so that it is the slow one that has the slot.
        subject.edit(json!({"spec": {"nodeNames": [slow, second, third]}})).await;
        let object = subject.until_failed().await;
        assert!(
            says(&object, ConditionType::Failed, "True", "ActiveDeadlineExceeded"),
            "{}",
            summary(&object)
        );
        assert!(says(&object, ConditionType::Complete, "False", "ActiveDeadlineExceeded"));
        let told = message(&object, ConditionType::Failed);
        assert!(told.contains("activeDeadlineSeconds"), "{told}");
        assert_eq!(state(&object, &slow), ("Stopped", "ActiveDeadlineExceeded"));
        assert_eq!([&second, &third].map(|node| state(&object, node).0), ["Pending"; 2]);
        assert_eq!((status(&object).failed, status(&object).pending, status(&object).active), (1, 2, 0));
        let last = newest(&object, &slow);
        assert_eq!((last.stdout.as_str(), last.reason.as_str()), ("begun\n", "Interrupted"));
        let completed = status(&object).run.as_ref().unwrap().completion_time.as_ref().unwrap().0;
        assert!(
            since_start(&object, completed) >= SignedDuration::from_secs(DEADLINE),
            "{}",
            summary(&object)
        );
        assert_eq!(journal.pods(), 1);

        subject.edit(json!({"spec": {"activeDeadlineSeconds": 3600}})).await;
        let are_done = |object: &ScriptRunner| status(object).succeeded == 2;
        subject.until("the others done", are_done).await;
        let object = subject.until_failed().await;
        assert!(says(&object, ConditionType::Failed, "True", "NodesFailed"), "{}", summary(&object));
        assert_eq!(state(&object, &slow), ("Stopped", "ActiveDeadlineExceeded"), "what was ended stays so");
        assert_eq!(entry(&object, &slow).executions, 1);
        assert_eq!((run_number(&object), journal.pods(), journal.most_busy()), (1, 3, 1));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_comes_after_the_end_of_a_run_is_not_bound_by_its_deadline() {
    beside_others("deadlines::late", &[], async |stage| {
        let names = [stage.node(1), stage.node(2)];
        let spec = json!({"nodeNames": names[..1], "script": "print(1)", "activeDeadlineSeconds": DEADLINE});
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_complete().await;
        wait::until("the deadline of the run to pass", PATIENCE, async |_| {
            let passed = since_start(&object, Timestamp::now());
            Ok::<_, kube::Error>((passed > SignedDuration::from_secs(DEADLINE)).then_some(()))
        })
        .await
        .unwrap();
        subject.edit(json!({"spec": {"nodeNames": names}})).await;
        let is_done = |object: &ScriptRunner| status(object).succeeded == 2;
        subject.until("the late node done", is_done).await;
        let object = subject.until_complete().await;
        assert_eq!((run_number(&object), status(&object).desired), (1, 2));
    })
    .await;
}
