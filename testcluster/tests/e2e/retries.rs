//! Failures that are tried again, and exit codes that mean something else than failure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::wait;
use serde_json::json;

use crate::{
    answer::{entry, newest, run_number, says, state, status, summary},
    stage::{PATIENCE, beside_others},
};

#[tokio::test]
async fn every_kind_of_failure_is_tried_again_until_one_attempt_succeeds() {
    beside_others("retries::kinds", &[], async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let script = "echo attempt $SCRIPTRUNNER_ATTEMPT\n\
            case $SCRIPTRUNNER_ATTEMPT in 1) exit 7;; 2) kill -SEGV $$;; 3) exec sleep 1000;; esac\n";
        let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": script, "backoffLimit": 3,
            "executionDeadlineSeconds": 2, "terminationGracePeriodSeconds": 1});
        // It is never called Failed on the way.
        let object = stage.submit("subject", spec).await.until_complete().await;
        let known = entry(&object, &node);
        assert_eq!((state(&object, &node), known.exit_code), (("Succeeded", ""), Some(0)));
        assert_eq!(
            (known.attempts, known.retries, known.executions, known.failures, known.interruptions),
            (4, 3, 4, 3, 0),
            "{}",
            summary(&object)
        );
        let kept: Vec<_> =
            known.history.iter().map(|it| (it.attempt, it.serial, it.reason.as_str())).collect();
        let (failed, late) = ("ScriptFailed", "ExecutionDeadlineExceeded");
        assert_eq!(kept, [(1, 1, failed), (2, 2, failed), (3, 3, late), (4, 4, "")]);
        for execution in &known.history {
            assert_eq!(execution.stdout, format!("attempt {}\n", execution.attempt));
        }
        assert_eq!((journal.pods(), journal.shared_nodes()), (4, Vec::new()));
        stage.until_pods(0).await;
    })
    .await;
}

#[tokio::test]
async fn pauses_between_attempts_grow_and_a_paused_run_tries_nothing() {
    beside_others("retries::pauses", &[], async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let spec =
            json!({"nodeNames": [node], "interpreter": ["bash"], "script": "exit 1", "backoffLimit": 100});
        let subject = stage.submit("subject", spec).await;
        let backs_off = |object: &ScriptRunner| {
            state(object, &node) == ("Pending", "BackingOff") && entry(object, &node).attempts == 4
        };
        let object = subject.until("the pause after the fourth attempt", backs_off).await;
        let seen = Timestamp::now();
        let known = entry(&object, &node);
        assert!(known.message.contains("attempt 4 failed"), "{}", known.message);
        assert_eq!((known.failures, status(&object).pending, status(&object).failed), (4, 1, 0));
        let starts: Vec<_> =
            known.history.iter().map(|it| it.start_time.as_ref().unwrap().0.as_second()).collect();
        // One second, two, four; each start is told in whole seconds.
        assert!(starts[3] - starts[0] >= 6, "{starts:?}");

        subject.edit(json!({"spec": {"execution": "Paused"}})).await;
        let is_paused = |object: &ScriptRunner| says(object, ConditionType::Suspended, "True", "Paused");
        subject.until("the run to be paused", is_paused).await;
        // The next attempt would have been eight seconds after the last.
        wait::until("the time of the next attempt to pass", PATIENCE, async |_| {
            let passed = Timestamp::now().duration_since(seen);
            Ok::<_, kube::Error>((passed > SignedDuration::from_secs(9)).then_some(()))
        })
        .await
        .unwrap();
        assert_eq!((journal.pods(), status(&subject.get().await).pending), (4, 1));
        subject.edit(json!({"spec": {"execution": "Active"}})).await;
        let goes_on = |object: &ScriptRunner| entry(object, &node).attempts == 5;
        subject.until("the fifth attempt", goes_on).await;

        // A newer run does not wait for the older one's pause.
        subject.edit(json!({"spec": {"script": "echo mended"}})).await;
        let object = subject.until_complete().await;
        let known = entry(&object, &node);
        assert_eq!(newest(&object, &node).stdout, "mended\n");
        assert_eq!((run_number(&object), known.attempts, known.retries), (2, 1, 0));
        assert_eq!(journal.shared_nodes(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn failures_are_final_when_no_attempt_is_left_or_none_is_wanted() {
    beside_others("retries::final", &[], async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let chosen = json!({"retry": [7]});
        let trials = [
            // Name, script, exitCodes, backoffLimit; exit code, attempts.
            ("exhausted", "exit 5", json!(null), 1, 5, 2),
            ("chosen", "exit $((6 + SCRIPTRUNNER_ATTEMPT))", chosen.clone(), 5, 8, 2),
            ("other", "exit 9", chosen.clone(), 5, 9, 1),
            ("signal", "kill -TERM $$", chosen, 5, 0, 1),
        ];
        let mut subjects = Vec::new();
        for (name, script, codes, limit, _, _) in &trials {
            let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": script,
                "exitCodes": codes, "backoffLimit": limit});
            subjects.push(stage.submit(name, spec).await);
        }
        for (subject, (name, _, _, _, code, attempts)) in subjects.iter().zip(&trials) {
            let object = subject.until_failed().await;
            assert_eq!(state(&object, &node), ("Failed", "ScriptFailed"), "{name}");
            let known = entry(&object, &node);
            assert_eq!(
                (known.attempts, known.retries),
                (*attempts, attempts - 1),
                "{name}: {}",
                summary(&object)
            );
            assert_eq!(known.failures, u64::from(*attempts), "{name}");
            assert_eq!(known.exit_code.unwrap_or(0), *code, "{name}");
        }
        // Done is done, also where more attempts would be allowed now; of each, the last pod is kept for a look.
        subjects[0].edit(json!({"spec": {"backoffLimit": 9}})).await;
        let object = subjects[0].until_failed().await;
        assert_eq!((run_number(&object), entry(&object, &node).attempts), (1, 2));
        stage.until_pods(4).await;
        assert_eq!(journal.pods(), 2 + 2 + 1 + 1);
    })
    .await;
}

#[tokio::test]
async fn exit_codes_are_what_the_user_says() {
    beside_others("retries::codes", &[], async |stage| {
        let [fine, left_out, plain] = [1, 2, 3].map(|number| stage.node(number));
        let script = format!(
            "echo here\ncase $SCRIPTRUNNER_NODE in {fine}) exit 3;; {left_out}) exit 4;; *) exit 0;; esac\n"
        );
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": script,
            "exitCodes": {"success": [2, 3], "skipped": [4]}});
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_complete().await;
        let counts = (status(&object).succeeded, status(&object).skipped, status(&object).failed);
        assert_eq!((counts, status(&object).progress.as_str()), ((2, 1, 0), "3/3"));
        let told = |node: &str| {
            let known = entry(&object, node);
            let newest = newest(&object, node);
            (
                known.state.as_str(),
                known.exit_code,
                known.failures,
                newest.reason.as_str(),
                newest.stdout.as_str(),
            )
        };
        assert_eq!(told(&fine), ("Succeeded", Some(3), 0, "ExitCodeSucceeds", "here\n"));
        assert_eq!(told(&left_out), ("Skipped", Some(4), 0, "ExitCodeSkips", "here\n"));
        assert_eq!(state(&object, &left_out), ("Skipped", "ExitCodeSkips"));
        assert_eq!(told(&plain), ("Succeeded", Some(0), 0, "", "here\n"));
        stage.until_pods(0).await;
        // What a node has answered is not judged again.
        let journal = stage.journal().await;
        subject.edit(json!({"spec": {"exitCodes": null}})).await;
        let later = subject.until_complete().await;
        assert_eq!((&status(&later).nodes, run_number(&later)), (&status(&object).nodes, 1));
        assert_eq!(journal.pods(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_tried_again_costs_nothing_of_the_error_budget() {
    beside_others("retries::budget", &[], async |stage| {
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"],
            "script": "exit $((SCRIPTRUNNER_ATTEMPT < 2))", "backoffLimit": 1, "maxFailures": 0,
            "executionDeadlineSeconds": 60});
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(status(&object).succeeded, 3);
        for node in stage.cluster.node_names() {
            let known = entry(&object, &node);
            assert_eq!((known.attempts, known.retries, known.failures), (2, 1, 1), "{node}");
        }
    })
    .await;
}
