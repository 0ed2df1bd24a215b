//! How fast and how safe: how many nodes run at once, and how many may fail.

use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use serde_json::json;

use crate::{
    answer::{entry, message, run_number, says, state, status},
    stage::beside_others,
    submitted::Submitted,
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

/// Two scripts that tell of themselves: one that repeats endlessly, one that repeats many times.
const REPEATS: [(&str, Option<u32>); 2] = [("endless", None), ("counted", Some(1000))];

async fn set_execution(subject: &Submitted, execution: &str) {
    subject.edit(json!({"spec": {"execution": execution}})).await;
}

/// Serials of the executions that are kept of a node, and how many of them were interrupted.
fn serials(object: &ScriptRunner, node: &str) -> (Vec<u64>, usize) {
    let history = &entry(object, node).history;
    let interrupted = history.iter().filter(|execution| execution.reason == "Interrupted").count();
    (history.iter().map(|execution| execution.serial).collect(), interrupted)
}

/// Waits until `count` executions and their results are known of every node, and every runner is connected.
async fn until_executed(subject: &Submitted, count: u64) -> ScriptRunner {
    subject
        .until(&format!("{count} executions on each node"), |object| {
            object.status.as_ref().is_some_and(|status| {
                status.nodes.len() == 3
                    && status.connected == 3
                    && status
                        .nodes
                        .values()
                        .all(|entry| entry.history.last().is_some_and(|newest| newest.serial >= count))
            })
        })
        .await
}

#[tokio::test]
async fn a_paused_repetition_ends_between_executions_and_goes_on_with_the_next() {
    beside_others("pacing::paused", &[], async |stage| {
        for (name, count) in REPEATS {
            let journal = stage.journal().await;
            let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "sleep 1; echo whole",
                "repeat": {"count": count, "periodSeconds": 1}, "historyLimit": 100});
            let subject = stage.submit(name, spec).await;
            until_executed(&subject, 2).await;
            set_execution(&subject, "Paused").await;
            let object = subject
                .until("three paused nodes", |object| {
                    stage.cluster.node_names().iter().all(|node| state(object, node) == ("Pending", "Paused"))
                })
                .await;
            assert!(says(&object, ConditionType::Suspended, "True", "Paused"));
            assert!(says(&object, ConditionType::Failed, "False", "RunNotEnded"));
            stage.until_pods(0).await;
            let reached: Vec<u64> =
                stage.cluster.node_names().iter().map(|node| entry(&object, node).serial).collect();
            for node in stage.cluster.node_names() {
                assert_eq!(serials(&object, &node).1, 0, "no execution was cut short");
                assert!(entry(&object, &node).history.iter().all(|execution| execution.stdout == "whole\n"));
            }
            set_execution(&subject, "Active").await;
            let more = reached.iter().max().unwrap() + 2;
            let object = until_executed(&subject, more).await;
            assert!(says(&object, ConditionType::Suspended, "False", "NotSuspended"));
            for node in stage.cluster.node_names() {
                let (serials, _) = serials(&object, &node);
                assert_eq!(serials, (1..=serials.len() as u64).collect::<Vec<_>>(), "none is left out");
                assert_eq!((entry(&object, &node).attempts, entry(&object, &node).run), (2, 1));
            }
            assert_eq!((journal.pods(), journal.shared_nodes()), (6, Vec::new()));
            subject.delete().await;
            stage.until_pods(0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stopped_repetition_ends_at_once_and_goes_on_with_the_next() {
    beside_others("pacing::stopped", &[], async |stage| {
        for (name, count) in REPEATS {
            let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"],
                "script": "echo begun; if [ \"$SCRIPTRUNNER_SERIAL\" = 2 ]; then sleep 1000; fi",
                "repeat": {"count": count, "periodSeconds": 1}, "historyLimit": 100});
            let subject = stage.submit(name, spec).await;
            let is_second_at_work = |object: &ScriptRunner| {
                object.status.as_ref().is_some_and(|status| {
                    status.nodes.len() == 3 && status.nodes.values().all(|entry| entry.serial == 2)
                })
            };
            subject.until("the second execution on each node", is_second_at_work).await;
            set_execution(&subject, "Stopped").await;
            let object = subject.until_failed().await;
            assert!(says(&object, ConditionType::Failed, "True", "Stopped"));
            assert!(says(&object, ConditionType::Suspended, "True", "Stopped"));
            assert!(status(&object).run.as_ref().unwrap().completion_time.is_some());
            for node in stage.cluster.node_names() {
                assert_eq!(state(&object, &node), ("Stopped", "Stopped"));
                assert_eq!(serials(&object, &node), (vec![1, 2], 1), "its last words");
            }
            stage.until_pods(0).await;
            set_execution(&subject, "Active").await;
            let object = until_executed(&subject, 4).await;
            assert!(says(&object, ConditionType::Failed, "False", "RunNotEnded"));
            assert!(status(&object).run.as_ref().unwrap().completion_time.is_none());
            assert_eq!(run_number(&object), 1);
            for node in stage.cluster.node_names() {
                let (serials, interrupted) = serials(&object, &node);
                assert_eq!(serials, (1..=serials.len() as u64).collect::<Vec<_>>());
                assert_eq!((interrupted, entry(&object, &node).attempts), (1, 2));
            }
            subject.delete().await;
            stage.until_pods(0).await;
        }
    })
    .await;
}
