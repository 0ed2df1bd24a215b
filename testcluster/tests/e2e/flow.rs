//! From edit to edit: what starts a run, what does not, in which order pods come, and what is left at the end.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use scriptrunner_api::condition::ConditionType;
use serde_json::{Value, json};

use crate::{
    answer::{entry, newest, run_number, says, state, status},
    stage::beside_others,
};

#[tokio::test]
async fn an_edit_of_the_script_is_a_second_run_after_the_first_has_ended() {
    beside_others("flow::edit", &[], async |stage| {
        let journal = stage.journal().await;
        // Needs a while to end, so that a second pod beside it would be seen.
        let slow = "trap 'sleep 2; echo told to end; exit 0' TERM; echo first; while :; do sleep 0.1; done";
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": slow});
        let subject = stage.submit("subject", spec).await;
        let all_run = |object: &_| {
            status(object).active == 3 && status(object).nodes.values().all(|node| node.state == "Running")
        };
        subject.until("three at work", |object| object.status.is_some() && all_run(object)).await;
        subject.edit(json!({"spec": {"script": "echo second"}})).await;
        let object = subject.until_complete().await;
        assert_eq!(run_number(&object), 2);
        assert_eq!(status(&object).run.as_ref().unwrap().trigger, "SpecChanged");
        let recent = &status(&object).recent_runs;
        assert_eq!((recent.len(), recent[0].number, recent[0].trigger.as_str()), (1, 1, "Created"));
        assert_eq!((recent[0].desired, recent[0].succeeded), (3, 0));
        for node in stage.cluster.node_names() {
            let entry = entry(&object, &node);
            assert_eq!((entry.state.as_str(), entry.run, entry.attempts), ("Succeeded", 2, 1));
            let kept: Vec<_> = entry.history.iter().map(|it| (it.run, it.stdout.as_str())).collect();
            assert_eq!(kept.last(), Some(&(2, "second\n")));
            assert_eq!((kept.len(), kept[0].0), (2, 1), "the first run's answer stays: {kept:?}");
            assert!(kept[0].1.starts_with("first\n"), "{kept:?}");
            assert_eq!(entry.executions, 2);
        }
        assert_eq!(journal.shared_nodes(), Vec::<String>::new(), "two pods at once");
        assert_eq!(journal.pods(), 6);
        stage.until_pods(0).await;
        stage.until_config_maps(1).await;
    })
    .await;
}

#[tokio::test]
async fn an_edit_of_where_or_how_much_runs_nothing_again() {
    beside_others("flow::where", &[], async |stage| {
        let journal = stage.journal().await;
        let names = |count: usize| (1..=count).map(|number| stage.node(number)).collect::<Vec<_>>();
        let spec = json!({"nodeNames": names(2), "script": "print('once')"});
        let subject = stage.submit("subject", spec).await;
        subject.until_complete().await;
        subject.edit(json!({"spec": {"historyLimit": 1, "podStartDeadlineSeconds": 60}})).await;
        subject.until_complete().await;
        subject.edit(json!({"spec": {"nodeNames": names(3)}})).await;
        let object = subject.until("three done", |object| status(object).succeeded == 3).await;
        assert_eq!(run_number(&object), 1);
        assert!(status(&object).recent_runs.is_empty());
        subject.edit(json!({"spec": {"nodeNames": names(1)}})).await;
        let object = subject.until_complete().await;
        assert_eq!(status(&object).nodes.len(), 3, "nodes that were run keep their answers");
        let once_each: BTreeMap<_, _> = names(3).into_iter().map(|node| (node, 1)).collect();
        assert_eq!(journal.pods_per_node(), once_each);
    })
    .await;
}

#[tokio::test]
async fn deletion_takes_pods_and_inputs_along_and_the_name_can_be_used_again() {
    beside_others("flow::delete", &[], async |stage| {
        let spec = json!({"nodeLabelSelector": {}, "script": "import time; time.sleep(1000)"});
        let subject = stage.submit("subject", spec).await;
        subject
            .until("three at work", |object| object.status.as_ref().is_some_and(|it| it.active == 3))
            .await;
        let journal = stage.journal().await;
        subject.delete().await;
        let spec = json!({"nodeLabelSelector": {}, "script": "print('again')"});
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(run_number(&object), 1);
        for node in stage.cluster.node_names() {
            assert_eq!(newest(&object, &node).stdout, "again\n");
            assert_eq!(entry(&object, &node).executions, 1);
        }
        stage.until_pods(0).await;
        stage.until_config_maps(1).await;
        assert!(journal.pods_per_node().values().all(|pods| *pods == 2), "{:?}", journal.pods_per_node());
        assert_eq!(journal.shared_nodes(), Vec::<String>::new(), "two pods at once");
    })
    .await;
}

#[tokio::test]
async fn a_finished_run_leaves_only_its_inputs_and_they_go_with_it() {
    beside_others("flow::leave", &[], async |stage| {
        let spec = json!({"nodeNames": [stage.some_node()], "interpreter": ["bash"], "script": "exit 1"});
        let subject = stage.submit("subject", spec).await;
        subject.until_failed().await;
        stage.until_pods(1).await;
        subject.delete().await;
        stage.until_pods(0).await;
        stage.until_config_maps(0).await;
    })
    .await;
}

#[tokio::test]
async fn parallelism_one_is_one_pod_at_a_time() {
    beside_others("flow::parallelism", &[], async |stage| {
        let journal = stage.journal().await;
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "sleep 0.5",
            "parallelism": 1, "executionDeadlineSeconds": 60});
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(status(&object).succeeded, 3);
        assert_eq!((journal.pods(), journal.most_busy()), (3, 1));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_comes_to_match_is_run_and_one_that_leaves_keeps_its_answer() {
    beside_others("flow::labels", &[], async |stage| {
        let journal = stage.journal().await;
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let key = format!("e2e/{}", stage.namespace);
        let label = async |node: &str, value: Value| {
            let patch = json!({"metadata": {"labels": {key.as_str(): value}}});
            nodes.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        };
        let selector = json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["a", "b"]}]});
        let subject =
            stage.submit("subject", json!({"nodeLabelSelector": selector, "script": "print(1)"})).await;
        subject
            .until("nothing to do", |object| {
                says(object, ConditionType::Progressing, "True", "NoMatchingNodes")
            })
            .await;
        label(&stage.node(1), "a".into()).await;
        subject.until_complete().await;
        label(&stage.node(1), Value::Null).await;
        label(&stage.node(3), "b".into()).await;
        let third_is_done = |object: &_| state(object, &stage.node(3)).0 == "Succeeded";
        let object = subject.until("the third node done", third_is_done).await;
        label(&stage.node(3), Value::Null).await;
        assert_eq!(state(&object, &stage.node(1)).0, "Succeeded");
        assert_eq!((run_number(&object), journal.pods()), (1, 2));
    })
    .await;
}

#[tokio::test]
async fn a_node_name_without_a_node_is_left_out() {
    beside_others("flow::missing_node", &[], async |stage| {
        let node = stage.some_node();
        let spec = json!({"nodeNames": [node, "no.such.node"], "script": "print(1)"});
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(state(&object, "no.such.node"), ("Skipped", "NodeNotFound"));
        assert_eq!((status(&object).succeeded, status(&object).skipped), (1, 1));
    })
    .await;
}
