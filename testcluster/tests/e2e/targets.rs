//! Where a script runs, on real nodes: excluded, tainted, cordoned, cut off, sampled, and new ones. These tests change
//! nodes, so each has the cluster to itself.

use std::collections::BTreeMap;

use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use serde_json::{Value, json};

use crate::{
    answer::{entry, run_number, state, status},
    journal::Journal,
    node::{change, until_ready, victim, while_changed},
    operator,
    stage::{Stage, alone},
    submitted::Submitted,
};

/// A spec for every node, with further fields.
fn everywhere(fields: &Value) -> Value {
    let mut spec = json!({"nodeLabelSelector": {}, "script": "print('here')"});
    let further = fields.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(further);
    spec
}

fn counts(object: &ScriptRunner) -> (u32, u32, u32, u32) {
    object.status.as_ref().map_or_else(Default::default, |status| {
        (status.desired, status.succeeded, status.skipped, status.unknown)
    })
}

/// Waits until so many nodes are desired, succeeded, skipped and unknown.
async fn until_counts(subject: &Submitted, expected: (u32, u32, u32, u32)) -> ScriptRunner {
    subject
        .until(&format!("desired, succeeded, skipped, unknown: {expected:?}"), |object| {
            counts(object) == expected
        })
        .await
}

/// Every node had one pod, and no run but the first.
fn assert_once_each(stage: &Stage, journal: &Journal, object: &ScriptRunner) {
    let once: BTreeMap<_, _> = stage.cluster.node_names().into_iter().map(|node| (node, 1)).collect();
    assert_eq!((journal.pods_per_node(), run_number(object)), (once, 1));
}

#[tokio::test]
async fn excluded_nodes_are_left_out_until_they_are_let_in() {
    alone("targets::excluded", &[], async |stage| {
        let journal = stage.journal().await;
        let (by_name, by_label) = (stage.node(1), stage.node(2));
        let label = |value: Value| json!({"metadata": {"labels": {labels::EXCLUDE: value}}});
        let spec = everywhere(&json!({"excludedNodeNames": [by_name, "no.such.node"]}));
        let (subject, object) =
            while_changed(&stage, &by_label, label("repair".into()), label(Value::Null), async || {
                let subject = stage.submit("subject", spec).await;
                let object = subject.until_complete().await;
                (subject, object)
            })
            .await;
        assert_eq!(counts(&object), (3, 1, 2, 0));
        assert_eq!(state(&object, &by_name), ("Skipped", "Excluded"));
        assert_eq!(state(&object, &by_label), ("Skipped", "OptedOut"));
        assert!(entry(&object, &by_label).message.contains("scriptrunner.io/exclude=repair"));
        // The label is gone.
        until_counts(&subject, (3, 2, 1, 0)).await;
        let object = while_changed(&stage, &by_label, label("".into()), label(Value::Null), async || {
            subject.edit(json!({"spec": {"excludedNodeNames": null}})).await;
            until_counts(&subject, (3, 3, 0, 0)).await
        })
        .await;
        assert_eq!(state(&object, &by_label).0, "Succeeded", "it keeps its answer");
        assert_once_each(&stage, &journal, &object);
    })
    .await;
}

#[tokio::test]
async fn a_taint_is_tolerated_by_who_says_so_whoever_places_the_pod() {
    alone("targets::tolerations", &[], async |stage| {
        let node = victim(&stage).await;
        let taints = json!([{"key": "e2e/dedicated", "value": "gpu", "effect": "NoSchedule"},
            {"key": "e2e/evicting", "effect": "NoExecute"}]);
        let tolerations =
            json!([{"key": "e2e/dedicated", "value": "gpu"}, {"key": "e2e/evicting", "operator": "Exists"}]);
        let (taint, undo) = (json!({"spec": {"taints": taints}}), json!({"spec": {"taints": null}}));
        let subject = while_changed(&stage, &node, taint, undo, async || {
            for (name, placement) in [("direct", "Direct"), ("scheduled", "Scheduler")] {
                let fields = json!({"tolerations": tolerations, "placement": placement});
                let object = stage.submit(name, everywhere(&fields)).await.until_complete().await;
                assert_eq!((counts(&object), entry(&object, &node).attempts), ((3, 3, 0, 0), 1), "{name}");
            }
            let half = everywhere(&json!({"tolerations": [tolerations[0]]}));
            let subject = stage.submit("half", half).await;
            let object = subject.until_complete().await;
            assert_eq!((counts(&object), state(&object, &node)), ((3, 2, 1, 0), ("Skipped", "Tainted")));
            assert!(
                entry(&object, &node).message.contains("e2e/evicting:NoExecute"),
                "{}",
                entry(&object, &node).message
            );
            subject
        })
        .await;
        let object = until_counts(&subject, (3, 3, 0, 0)).await;
        assert_eq!((run_number(&object), entry(&object, &node).executions), (1, 1));
        until_ready(&stage, &node, true).await;
    })
    .await;
}

#[tokio::test]
async fn a_cordoned_node_is_skipped_where_the_policy_says_so_and_run_when_it_is_uncordoned() {
    alone("targets::cordon", &[], async |stage| {
        let journal = stage.journal().await;
        let node = stage.node(3);
        let cordon = |value: Value| json!({"spec": {"unschedulable": value}});
        let subject = while_changed(&stage, &node, cordon(true.into()), cordon(Value::Null), async || {
            let spec = everywhere(&json!({"unschedulableNodePolicy": "Skip"}));
            let subject = stage.submit("subject", spec).await;
            let object = subject.until_complete().await;
            assert_eq!(
                (counts(&object), state(&object, &node)),
                ((3, 2, 1, 0), ("Skipped", "Unschedulable"))
            );
            subject
        })
        .await;
        let object = until_counts(&subject, (3, 3, 0, 0)).await;
        assert_once_each(&stage, &journal, &object);
        until_ready(&stage, &node, true).await;
    })
    .await;
}

#[tokio::test]
async fn a_sample_is_the_same_node_for_the_next_operator() {
    alone("targets::sample", &[], async |stage| {
        let journal = stage.journal().await;
        let fields = json!({"nodeSample": 1, "interpreter": ["bash"], "script": "sleep 20; echo here"});
        let subject = stage.submit("subject", everywhere(&fields)).await;
        let is_at_work =
            |object: &ScriptRunner| object.status.as_ref().is_some_and(|status| status.active == 1);
        let before = subject.until("one at work", is_at_work).await;
        let drawn: Vec<String> = status(&before).nodes.keys().cloned().collect();
        assert_eq!((drawn.len(), counts(&before).0), (1, 1), "the others are not desired");
        operator::restart(&stage.client).await;
        let object = subject.until_complete().await;
        assert_eq!(status(&object).nodes.keys().collect::<Vec<_>>(), drawn.iter().collect::<Vec<_>>());
        assert_eq!(journal.pods_per_node(), BTreeMap::from([(drawn[0].clone(), 1)]));
        subject.edit(json!({"spec": {"nodeSample": "50%"}})).await;
        let object = until_counts(&subject, (2, 2, 0, 0)).await;
        subject.edit(json!({"spec": {"nodeSample": 1}})).await;
        let smaller = subject.until_observed().await;
        assert_eq!(counts(&smaller), (2, 2, 0, 0), "nothing is taken back");
        assert!(status(&object).nodes.contains_key(&drawn[0]));
        assert_eq!((journal.pods(), run_number(&smaller)), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_comes_later_is_ignored_where_the_policy_says_so() {
    alone("targets::new", &[], async |stage| {
        let journal = stage.journal().await;
        let key = format!("e2e/{}", stage.namespace);
        let label = |value: Value| json!({"metadata": {"labels": {key.as_str(): value}}});
        let (first, late) = (stage.node(1), stage.node(2));
        change(&stage, &first, label("yes".into())).await;
        let spec = json!({"nodeLabelSelector": {"matchLabels": {key.as_str(): "yes"}},
            "script": "print(1)", "newNodePolicy": "Ignore"});
        let subject = stage.submit("subject", spec).await;
        subject.until_complete().await;
        change(&stage, &late, label("yes".into())).await;
        let object = until_counts(&subject, (2, 1, 1, 0)).await;
        assert_eq!(state(&object, &late), ("Skipped", "NewNode"));
        assert!(entry(&object, &late).message.contains("newNodePolicy"), "{}", entry(&object, &late).message);
        // Another operator knows it too, and an edit of something else changes nothing.
        operator::restart(&stage.client).await;
        subject.edit(json!({"spec": {"historyLimit": 2}})).await;
        let object = subject.until_observed().await;
        assert_eq!((state(&object, &late), journal.pods()), (("Skipped", "NewNode"), 1));
        subject.edit(json!({"spec": {"script": "print(2)"}})).await;
        let object = subject.until_complete().await;
        for node in [&first, &late] {
            change(&stage, node, label(Value::Null)).await;
        }
        assert_eq!((counts(&object), run_number(&object), journal.pods()), ((2, 2, 0, 0), 2, 3));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_waited_for_or_skipped_and_run_when_it_is_back() {
    alone("targets::unready", &[], async |stage| {
        let journal = stage.journal().await;
        let node = victim(&stage).await;
        stage.cluster.cut(&node).unwrap();
        until_ready(&stage, &node, false).await;
        let skips = stage.submit("skips", everywhere(&json!({"notReadyNodePolicy": "Skip"}))).await;
        let waits = everywhere(&json!({"notReadyNodePolicy": "Wait", "podStartDeadlineSeconds": 15}));
        let waits = stage.submit("waits", waits).await;
        let skipped = skips.until_complete().await;
        let waiting = waits
            .until("two done", |object| counts(object).1 == 2 && state(object, &node).0 == "Pending")
            .await;
        let given_up = waits.until_failed().await;
        stage.cluster.heal(&node).unwrap();
        assert_eq!((counts(&skipped), state(&skipped, &node)), ((3, 2, 1, 0), ("Skipped", "NodeNotReady")));
        assert!(entry(&skipped, &node).message.contains("notReadyNodePolicy"));
        assert_eq!(state(&waiting, &node), ("Pending", "NodeNotReady"));
        assert_eq!((counts(&given_up), state(&given_up, &node)), ((3, 2, 0, 1), ("Unknown", "Unreachable")));
        until_ready(&stage, &node, true).await;
        for subject in [skips, waits] {
            let object = until_counts(&subject, (3, 3, 0, 0)).await;
            assert_eq!((run_number(&object), entry(&object, &node).attempts), (1, 1));
        }
        assert_eq!(journal.pods(), 6);
    })
    .await;
}
