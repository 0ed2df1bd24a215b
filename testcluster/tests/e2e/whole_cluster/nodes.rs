//! Nodes that are tainted, cordoned, full, cut off, killed, or forgotten by Kubernetes.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_testcluster::wait;
use serde_json::json;

use crate::{
    answer::{entry, newest, run_number, state, status},
    node::{change, nodes, until_ready, victim, while_disturbed},
    pair::Pair,
    stage::{PATIENCE, PRIVILEGED, alone},
};

#[tokio::test]
async fn a_tainted_node_is_left_out_until_the_taint_goes() {
    alone("nodes::taint", &[], async |stage| {
        let node = stage.node(2);
        let taint = json!([{"key": "e2e/taint", "value": "yes", "effect": "NoSchedule"}]);
        change(&stage, &node, json!({"spec": {"taints": taint}})).await;
        let subject = stage.submit("subject", json!({"nodeLabelSelector": {}, "script": "print(1)"})).await;
        let object = subject.until("all judged", |object| status_is(object, 2, 1)).await;
        change(&stage, &node, json!({"spec": {"taints": null}})).await;
        assert_eq!(state(&object, &node), ("Skipped", "Tainted"));
        assert!(
            entry(&object, &node).message.contains("e2e/taint=yes:NoSchedule"),
            "{}",
            entry(&object, &node).message
        );
        let object = subject.until("all run", |object| status_is(object, 3, 0)).await;
        assert_eq!(run_number(&object), 1);
    })
    .await;
}

fn status_is(object: &ScriptRunner, succeeded: u32, skipped: u32) -> bool {
    object.status.as_ref().is_some_and(|it| (it.succeeded, it.skipped) == (succeeded, skipped))
}

#[tokio::test]
async fn a_cordoned_node_is_run() {
    alone("nodes::cordon", &[], async |stage| {
        let node = stage.node(2);
        change(&stage, &node, json!({"spec": {"unschedulable": true}})).await;
        let direct = json!({"nodeNames": [node], "script": "print(1)"});
        let direct = stage.submit("direct", direct).await;
        let scheduled = json!({"nodeNames": [node], "script": "print(1)", "placement": "Scheduler"});
        let scheduled = stage.submit("scheduled", scheduled).await;
        for subject in [&direct, &scheduled] {
            subject.until("done", |object| status_is(object, 1, 0)).await;
        }
        change(&stage, &node, json!({"spec": {"unschedulable": null}})).await;
        until_ready(&stage, &node, true).await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_the_kubelet_refuses_is_placed_by_the_scheduler_when_there_is_room() {
    alone("nodes::full", &[], async |stage| {
        let node = victim(&stage).await;
        let found = nodes(&stage).get(&node).await.unwrap();
        let memory = found.status.unwrap().allocatable.unwrap()["memory"].0.clone();
        let kibibytes: u64 = memory.strip_suffix("Ki").unwrap().parse().unwrap();
        // Leaves less than a runner asks for.
        let request = json!({"memory": format!("{}Ki", kibibytes - 128 * 1024)});
        let container = json!({"name": "filler", "image": "localhost/scriptrunner/pause:1",
            "resources": {"requests": request}});
        let filler = json!({"metadata": {"name": "filler"}, "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}});
        let filler: Pod = serde_json::from_value(filler).unwrap();
        let pods = stage.api::<Pod>();
        // Pods of earlier tests may still be leaving.
        wait::until("the node to be full", PATIENCE, async |seen| {
            let status = pods.get_opt("filler").await?.map(|pod| pod.status.unwrap_or_default());
            seen.note(format!("{:?}", status.as_ref().map(|status| &status.message)));
            match status.map(|status| status.phase.unwrap_or_default()).as_deref() {
                None => drop(pods.create(&PostParams::default(), &filler).await?),
                Some("Failed") => drop(pods.delete("filler", &DeleteParams::default()).await?),
                Some("Running") => return Ok(Some(())),
                Some(_) => {}
            }
            Ok::<_, kube::Error>(None)
        })
        .await
        .unwrap();
        let subject = stage.submit("subject", json!({"nodeNames": [node], "script": "print(1)"})).await;
        let object =
            subject.until("the second attempt", |object| entry_is(object, &node, "Starting", 2)).await;
        assert_eq!(status(&object).active, 1);
        pods.delete("filler", &DeleteParams::default()).await.unwrap();
        let object = subject.until_complete().await;
        assert_eq!((entry(&object, &node).attempts, entry(&object, &node).executions), (2, 1));
    })
    .await;
}

fn entry_is(object: &ScriptRunner, node: &str, expected: &str, attempts: u32) -> bool {
    state(object, node).0 == expected && entry(object, node).attempts == attempts
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_waited_for_and_then_given_up() {
    alone("nodes::cut", &[], async |stage| {
        let node = victim(&stage).await;
        let journal = stage.journal().await;
        // Ends while nobody can see it.
        let unseen = json!({"nodeNames": [node], "interpreter": ["bash"], "script": "sleep 8; echo unseen"});
        let unseen = stage.submit("unseen", unseen).await;
        stage.until_running("unseen", 1).await;
        stage.cluster.cut(&node).unwrap();
        until_ready(&stage, &node, false).await;
        unseen.until("Running", |object| state(object, &node) == ("Running", "")).await;
        let patient = json!({"nodeLabelSelector": {}, "script": "print(1)"});
        let patient = stage.submit("patient", patient).await;
        let hasty = json!({"nodeLabelSelector": {}, "script": "print(1)", "podStartDeadlineSeconds": 10});
        let hasty = stage.submit("hasty", hasty).await;
        let given_up = hasty.until_failed().await;
        let waits = patient.until("the others are done", |object| status_is(object, 2, 0)).await;
        stage.cluster.heal(&node).unwrap();
        assert_eq!(state(&given_up, &node), ("Unknown", "Unreachable"));
        assert_eq!((status(&given_up).succeeded, status(&given_up).unknown), (2, 1));
        assert_eq!(state(&waits, &node), ("Pending", "NodeNotReady"));
        // Back again, it is run by both: it never started.
        until_ready(&stage, &node, true).await;
        for subject in [patient, hasty] {
            let object = subject.until("the node is done", |object| status_is(object, 3, 0)).await;
            assert_eq!((run_number(&object), entry(&object, &node).attempts), (1, 1));
        }
        let object = unseen.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "unseen\n");
        assert_eq!(journal.pods(), 1 + 3 + 3);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_restarts_under_a_script_is_told_and_not_run_again() {
    alone("nodes::restart", &[], async |stage| {
        let node = victim(&stage).await;
        let journal = stage.journal().await;
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"],
            "script": format!("test $SCRIPTRUNNER_NODE = {node} || exit 0; echo half; sleep 1000")});
        let subject = stage.submit("subject", spec).await;
        let is_at_work = |object: &_| state(object, &node).0 == "Running" && status_is(object, 2, 0);
        subject.until("one at work, two done", is_at_work).await;
        stage.cluster.kill(&node).unwrap();
        stage.cluster.heal(&node).unwrap();
        let object = subject.until_failed().await;
        until_ready(&stage, &node, true).await;
        assert_eq!(state(&object, &node), ("Unknown", "NodeRestarted"));
        assert_eq!((entry(&object, &node).executions, status(&object).succeeded), (1, 2));
        assert_eq!(journal.pods(), 3, "what was under way is not run again");
    })
    .await;
}

#[tokio::test]
async fn a_node_with_another_uid_is_another_node() {
    alone("nodes::gone", PRIVILEGED, async |stage| {
        let node = victim(&stage).await;
        let pair = Pair::at_work(&stage, &node, &json!({})).await;
        let both = [&pair.report, &pair.retry];
        let mut before = Vec::new();
        for at_work in both {
            before.push(entry(&at_work.submitted.get().await, &node).node_id.clone());
        }
        let deleted = nodes(&stage).delete(&node, &DeleteParams::default()).await.unwrap();
        let uid = deleted.left().and_then(|node| node.uid());
        let mut gone = Vec::new();
        for at_work in both {
            let is_gone = |object: &ScriptRunner| state(object, &node).1 == "NodeGone";
            gone.push(at_work.submitted.until("NodeGone", is_gone).await);
        }
        // A kubelet registers its node once, when it starts.
        while_disturbed(&stage, &[&node], async || stage.cluster.kill(&node).unwrap()).await;
        for object in gone {
            assert_eq!(state(&object, &node), ("Unknown", "NodeGone"));
            assert!(entry(&object, &node).gone_time.is_some());
            assert_eq!(entry(&object, &node).interruptions, 0, "there is nowhere to try again");
        }
        assert_ne!(nodes(&stage).get(&node).await.unwrap().uid(), uid);
        for (at_work, before) in both.into_iter().zip(before) {
            // What the old node left stays Failed until the operator sees the new one.
            let is_done = |object: &ScriptRunner| status_is(object, 1, 0);
            let object = at_work.submitted.until("the new node done", is_done).await;
            let known = entry(&object, &node);
            assert_eq!(newest(&object, &node).stdout, "half\nwhole\n");
            assert_ne!(known.node_id, before);
            assert_eq!((run_number(&object), known.executions, known.interruptions), (1, 1, 0));
            assert_eq!(at_work.ledger.executions(&node), [(1, 1, 1); 2], "once on each of two nodes");
        }
    })
    .await;
}
