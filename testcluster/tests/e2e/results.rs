//! What comes back: results, who differs, which end of an output is kept.

use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use serde_json::json;

use crate::{
    answer::{entry, message, newest, says, state, status},
    stage::beside_others,
};

#[tokio::test]
async fn the_node_that_differs_is_named() {
    beside_others("results::outlier", &[], async |stage| {
        let odd = stage.node(2);
        let script = format!("[ $SCRIPTRUNNER_NODE != {odd} ] && echo same || {{ echo other; exit 3; }}");
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": script});
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_failed().await;
        assert!(
            says(&object, ConditionType::Consistent, "False", "Outliers"),
            "{:?}",
            status(&object).conditions
        );
        let told = message(&object, ConditionType::Consistent);
        assert!(told.contains(&odd) && told.contains("exit code 3") && told.contains("2 of 3"), "{told}");
        // What all have in common depends on what is compared.
        subject.edit(json!({"spec": {"output": {"groupBy": "Result"}, "exitCodes": {"success": [3]}}})).await;
        let object = subject.until_observed().await;
        assert!(says(&object, ConditionType::Consistent, "False", "Outliers"));
    })
    .await;
}

#[tokio::test]
async fn answers_that_all_differ_say_how_to_compare_them() {
    beside_others("results::no_majority", &[], async |stage| {
        let spec =
            json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "echo $SCRIPTRUNNER_NODE"});
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_complete().await;
        assert_eq!(status(&object).output_group_count, 3);
        assert!(says(&object, ConditionType::Consistent, "False", "NoMajority"));
        let told = message(&object, ConditionType::Consistent);
        assert!(told.contains("groupBy"), "{told}");
        subject.edit(json!({"spec": {"output": {"groupBy": "ExitCode"}}})).await;
        let is_one = |object: &ScriptRunner| {
            object.status.as_ref().is_some_and(|status| status.output_group_count == 1)
                && says(object, ConditionType::Consistent, "True", "SameAnswer")
        };
        let object = subject.until("one group", is_one).await;
        assert_eq!(
            (status(&object).run.as_ref().unwrap().number, status(&object).output_groups[0].node_count),
            (1, 3)
        );
    })
    .await;
}

#[tokio::test]
async fn a_bad_result_costs_only_the_result() {
    beside_others("results::invalid", &[], async |stage| {
        let node = stage.some_node();
        let submit = async |name: &str, script: &str| {
            let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": script});
            stage.submit(name, spec).await
        };
        let twice =
            submit("twice", "echo said; echo '{\"a\": 1, \"a\": 2}' >$SCRIPTRUNNER_RESULT_FILE").await;
        let link = submit("link", "echo said; ln -s /etc/passwd $SCRIPTRUNNER_RESULT_FILE").await;
        let pipe = submit("pipe", "echo said; mkfifo $SCRIPTRUNNER_RESULT_FILE").await;
        let huge = submit("huge", "echo said; head -c 100000000 /dev/zero >$SCRIPTRUNNER_RESULT_FILE").await;
        let failed = submit("failed", "echo said; echo NaN >$SCRIPTRUNNER_RESULT_FILE; exit 4").await;
        for subject in [twice, link, pipe, huge] {
            let object = subject.until_complete().await;
            let answer = newest(&object, &node);
            assert_eq!((answer.result.as_ref(), answer.reason.as_str()), (None, "ResultInvalid"));
            assert_eq!((answer.stdout.as_str(), answer.exit_code), ("said\n", Some(0)));
        }
        let object = failed.until_failed().await;
        assert_eq!(
            (state(&object, &node), newest(&object, &node).exit_code),
            (("Failed", "ScriptFailed"), Some(4))
        );
        assert_eq!(newest(&object, &node).result, None);
    })
    .await;
}

#[tokio::test]
async fn results_come_live_and_each_execution_has_its_own() {
    beside_others("results::each", &[], async |stage| {
        let node = stage.some_node();
        // The second execution writes none, so the first one's must not stand for it.
        let script = "[ $SCRIPTRUNNER_SERIAL = 2 ] || echo $SCRIPTRUNNER_SERIAL >$SCRIPTRUNNER_RESULT_FILE";
        let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": script,
            "repeat": {"count": 3, "periodSeconds": 1}});
        let object = stage.submit("subject", spec).await.until_complete().await;
        let results: Vec<_> = entry(&object, &node).history.iter().map(|it| it.result.clone()).collect();
        assert_eq!(results, [Some(json!(1)), None, Some(json!(3))]);
    })
    .await;
}

#[tokio::test]
async fn the_head_of_an_output_is_kept_on_request() {
    beside_others("results::head", &[], async |stage| {
        let node = stage.some_node();
        let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": "seq 1 100000",
            "output": {"truncation": "Head", "stdoutLimitBytes": 100}});
        let object = stage.submit("subject", spec).await.until_complete().await;
        let answer = newest(&object, &node);
        assert!(answer.stdout.starts_with("1\n2\n3\n") && answer.stdout.len() <= 100, "{:?}", answer.stdout);
        assert_eq!(answer.stdout_bytes, Some(588_895));
    })
    .await;
}
