//! Answers that come over sessions, while the pods run.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::v1alpha1::NodeStatus;
use serde_json::json;

use crate::{
    answer::{entry, newest, says, state, status},
    operator,
    stage::{alone, beside_others},
};

/// An address that no packet comes back from (RFC 5737).
const NOWHERE: &str = "192.0.2.1:443";

/// Panics unless the history is without a gap and everything that was executed is counted once.
fn assert_nothing_lost_or_twice(known: &NodeStatus) {
    let serials: Vec<u64> = known.history.iter().map(|execution| execution.serial).collect();
    let first = serials.first().copied().unwrap_or(1);
    let newest = serials.last().copied().unwrap_or(0);
    assert_eq!(serials, (first..=newest).collect::<Vec<_>>(), "a gap between executions");
    assert_eq!(known.executions, known.serial);
    // The newest may be at work.
    assert!(known.serial - newest <= 1, "{known:?}");
    for execution in &known.history {
        assert_eq!(execution.stdout, format!("{}\n", execution.serial));
    }
}

#[tokio::test]
async fn an_endless_repetition_is_seen_within_two_seconds_and_stays_in_its_pod() {
    alone("live::endless", &[], async |stage| {
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "echo $SCRIPTRUNNER_SERIAL",
            "repeat": {"periodSeconds": 1}, "historyLimit": 100});
        let subject = stage.submit("subject", spec).await;
        let is_live = |known: &NodeStatus| !known.history.is_empty();
        let object = subject
            .until("three runners connected, with answers", |object| {
                let Some(status) = &object.status else { return false };
                status.connected == 3 && status.nodes.values().all(is_live)
            })
            .await;
        assert_eq!((status(&object).active, status(&object).desired), (3, 3));
        // Longer than the time without a session after which these runners hand over.
        let watched = Duration::from_secs(operator::handover_seconds(&stage.client).await.min(30) + 5);
        let started = Instant::now();
        let mut ages = Vec::new();
        while started.elapsed() < watched {
            let object = subject.get().await;
            let now = Timestamp::now();
            for known in status(&object).nodes.values() {
                let start = known.history.last().and_then(|newest| newest.start_time.as_ref()).unwrap().0;
                ages.push(now.duration_since(start).as_secs_f64());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        ages.sort_by(f64::total_cmp);
        let (median, oldest) = (ages[ages.len() / 2], ages[ages.len() - 1]);
        eprintln!("age of the newest answer in the status: median {median:.2} s, at most {oldest:.2} s");
        // A second passes between two executions; the time of a start is stored in whole seconds.
        let late = ages.iter().filter(|age| **age > 4.0).count();
        assert!(late * 100 <= ages.len(), "{late} of {} looks found an older answer; at most {oldest:.2} s", ages.len());
        let object = subject.get().await;
        for known in status(&object).nodes.values() {
            assert_eq!((known.state.as_str(), known.attempts), ("Running", 1), "{known:?}");
            assert_nothing_lost_or_twice(known);
        }
    })
    .await;
}

#[tokio::test]
async fn runners_outlive_the_operator_and_come_back() {
    alone("live::operator", &[], async |stage| {
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "echo $SCRIPTRUNNER_SERIAL",
            "repeat": {"periodSeconds": 1}, "historyLimit": 100});
        let subject = stage.submit("subject", spec).await;
        subject.until("three runners connected", |object| status_connected(object) == 3).await;
        operator::delete_pods(&stage.client).await;
        operator::leader(&stage.client).await;
        let before = subject.get().await;
        let reached = status(&before).nodes.values().map(|known| known.serial).max().unwrap_or(0);
        let object = subject
            .until("three runners connected again, with new answers", |object| {
                status_connected(object) == 3
                    && status(object).nodes.values().all(|known| known.serial > reached + 3)
            })
            .await;
        for known in status(&object).nodes.values() {
            assert_eq!((known.state.as_str(), known.attempts), ("Running", 1), "{known:?}");
            assert_nothing_lost_or_twice(known);
        }
    })
    .await;
}

fn status_connected(object: &scriptrunner_api::v1alpha1::ScriptRunner) -> u32 {
    object.status.as_ref().map_or(0, |status| status.connected)
}

#[tokio::test]
async fn without_a_session_an_endless_repetition_goes_on_in_the_next_pod() {
    alone("live::no_session", &[], async |stage| {
        let handover = operator::handover_seconds(&stage.client).await;
        assert!(handover <= 60, "set SCRIPTRUNNER_HANDOVER_SECONDS to 20; nobody waits {handover} seconds");
        operator::with_flag(&stage.client, "session-address", NOWHERE, async || {
            let node = stage.some_node();
            let journal = stage.journal().await;
            let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": "echo $SCRIPTRUNNER_SERIAL",
                "repeat": {"periodSeconds": 1}, "historyLimit": 100});
            let subject = stage.submit("subject", spec).await;
            let object = subject
                .until("the second pod at work with the first one's answers stored", |object| {
                    state(object, &node).0 == "Running" && {
                        let known = entry(object, &node);
                        known.attempts == 2 && !known.history.is_empty() && known.reason.is_empty()
                    }
                })
                .await;
            assert_nothing_lost_or_twice(entry(&object, &node));
            assert_eq!(journal.shared_nodes(), Vec::<String>::new());
            assert_eq!((status(&object).failed, status(&object).connected, entry(&object, &node).failures), (0, 0, 0));
            let once = stage.submit("once", json!({"nodeNames": [node], "script": "print('alone')"})).await;
            assert_eq!(newest(&once.until_complete().await, &node).stdout, "alone\n");
        })
        .await;
    })
    .await;
}

/// Two full streams are more than a termination message holds.
#[tokio::test]
async fn a_session_carries_what_no_termination_message_can() {
    beside_others("live::large", &[], async |stage| {
        let node = stage.some_node();
        let script = "import sys\nprint('o' * 4000)\nprint('e' * 4000, file=sys.stderr)\n";
        let object = stage
            .submit("subject", json!({"nodeNames": [node], "script": script}))
            .await
            .until_complete()
            .await;
        let answer = newest(&object, &node);
        assert_eq!((answer.stdout.len(), answer.stderr.len()), (4001, 4001));
    })
    .await;
}

/// The script can read the runner's token, which says only what it already is: the API server does not take it.
#[tokio::test]
async fn the_token_of_a_runner_opens_nothing_else() {
    beside_others("live::token", &[], async |stage| {
        let node = stage.some_node();
        let script = r#"
import os, ssl, urllib.request, urllib.error
token = open("/scriptrunner/token/token").read()
url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}/api/v1/nodes"
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
try:
    print(urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"#;
        let object = stage
            .submit("subject", json!({"nodeNames": [node], "script": script}))
            .await
            .until_complete()
            .await;
        assert_eq!(newest(&object, &node).stdout, "401\n");
        assert!(says(
            &object,
            scriptrunner_api::condition::ConditionType::Complete,
            "True",
            "AllNodesSucceeded"
        ));
    })
    .await;
}
