//! Where a run goes: which nodes are in, out, or waited for, and what is said of those that are left out.

use std::{collections::BTreeSet, sync::Arc};

use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    labels,
    v1alpha1::{NodeStatus, Truncation},
};

use super::toy::{Toy, succeeded};
use crate::observed::{NodeFacts, Presence, TaintFacts};

pub(super) fn taint(key: &str, value: &str, effect: &str) -> TaintFacts {
    TaintFacts { key: key.into(), value: value.into(), effect: effect.into() }
}

pub(super) fn label(node: &mut NodeFacts, key: &str, value: &str) {
    node.labels.insert(key.into(), value.into());
}

/// A spec for every node, with these fields.
fn everywhere(fields: &str) -> String {
    format!("{{script: x, nodeLabelSelector: {{}}, {fields}}}")
}

fn told(entry: &NodeStatus) -> (&str, &str) {
    (&entry.state, &entry.reason)
}

impl Toy {
    fn told(&self, node: &str) -> (&str, &str) {
        self.status().nodes.get(node).map_or(("", ""), told)
    }

    /// Everything that can run runs and succeeds.
    fn finish(&mut self) {
        self.settle();
        self.end_all(&succeeded("hi"));
        self.settle();
    }

    pub(super) fn remove_node(&mut self, name: &str) -> NodeFacts {
        Arc::make_mut(&mut self.observed.nodes).remove(name).unwrap()
    }

    /// Names of the nodes that a pod was ever made for.
    fn nodes_with_pods(&self) -> BTreeSet<String> {
        self.observed.pods.iter().map(|pod| pod.node.clone()).collect()
    }

    pub(super) fn assert_sum(&self) {
        let Some(status) = &self.observed.previous else { return };
        let done = status.succeeded + status.failed + status.skipped + status.unknown;
        assert_eq!(status.pending + status.active + done, status.desired);
        let number = status.run.as_ref().map_or(0, |run| run.number);
        let of_run = status.nodes.values().filter(|entry| entry.run == number).count();
        assert_eq!(of_run, status.desired as usize);
    }
}

/// What leaves a node out, how it is said, and what lets it in again.
struct LeftOut {
    fields: &'static str,
    befall: fn(&mut NodeFacts),
    reason: &'static str,
    words: &'static [&'static str],
    relieve: fn(&mut NodeFacts),
}

#[test]
fn every_node_that_is_left_out_is_listed_with_its_reason_and_judged_again() {
    let cases = [
        LeftOut {
            fields: "",
            befall: |node| label(node, labels::EXCLUDE, "true"),
            reason: "OptedOut",
            words: &["scriptrunner.io/exclude=true"],
            relieve: |node| node.labels.clear(),
        },
        LeftOut {
            fields: "",
            befall: |node| label(node, labels::EXCLUDE, ""),
            reason: "OptedOut",
            words: &["scriptrunner.io/exclude"],
            relieve: |node| label(node, labels::EXCLUDE, "false"),
        },
        LeftOut {
            fields: "unschedulableNodePolicy: Skip",
            befall: |node| node.unschedulable = true,
            reason: "Unschedulable",
            words: &["cordoned", "unschedulableNodePolicy"],
            relieve: |node| node.unschedulable = false,
        },
        LeftOut {
            fields: "unschedulableNodePolicy: Skip, tolerations: [{operator: Exists}]",
            befall: |node| node.taints = vec![taint("node.kubernetes.io/unschedulable", "", "NoSchedule")],
            reason: "Unschedulable",
            words: &["cordoned"],
            relieve: |node| node.taints.clear(),
        },
        LeftOut {
            fields: "notReadyNodePolicy: Skip",
            befall: |node| node.ready = false,
            reason: "NodeNotReady",
            words: &["\"n2\" is not Ready", "notReadyNodePolicy"],
            relieve: |node| node.ready = true,
        },
        LeftOut {
            fields: "notReadyNodePolicy: Skip",
            befall: |node| {
                node.taints = vec![taint("node.kubernetes.io/network-unavailable", "", "NoSchedule")];
            },
            reason: "NodeNotReady",
            words: &["node.kubernetes.io/network-unavailable:NoSchedule"],
            relieve: |node| node.taints.clear(),
        },
        LeftOut {
            fields: "",
            befall: |node| node.taints = vec![taint("gpu", "yes", "NoExecute"), taint("b", "", "NoSchedule")],
            reason: "Tainted",
            words: &["gpu=yes:NoExecute", "b:NoSchedule"],
            relieve: |node| node.taints.clear(),
        },
        LeftOut {
            fields: "tolerations: [{key: gpu, operator: Exists}, {key: b, value: c}]",
            befall: |node| {
                node.taints = vec![taint("gpu", "yes", "NoExecute"), taint("b", "d", "NoSchedule")];
            },
            reason: "Tainted",
            words: &["taint b=d:NoSchedule is not tolerated"],
            relieve: |node| {
                node.taints = vec![taint("b", "c", "NoSchedule"), taint("gpu", "x", "NoSchedule")];
            },
        },
    ];
    for LeftOut { fields, befall, reason, words, relieve } in cases {
        let mut toy = Toy::new(&everywhere(fields), 2);
        befall(toy.node("n2"));
        toy.finish();
        assert_eq!(toy.told("n2"), ("Skipped", reason), "{fields}");
        let message = &toy.status().nodes["n2"].message;
        assert!(words.iter().all(|words| message.contains(words)), "{message}");
        assert_eq!((toy.status().desired, toy.status().skipped, toy.created), (2, 1, 1), "{fields}");
        assert!(holds(&toy.status().conditions, ConditionType::Complete), "{fields}");
        relieve(toy.node("n2"));
        toy.finish();
        assert_eq!((toy.told("n2"), toy.created), (("Succeeded", ""), 2), "{fields}");
        befall(toy.node("n2"));
        toy.finish();
        assert_eq!((toy.told("n2"), toy.created), (("Succeeded", ""), 2), "{fields}: it keeps its outcome");
    }
}

#[test]
fn what_is_tolerated_or_allowed_keeps_no_node_out() {
    for (fields, befall) in [
        ("", (|node| label(node, labels::EXCLUDE, "false")) as fn(&mut NodeFacts)),
        ("", |node| node.unschedulable = true),
        ("", |node| node.taints = vec![taint("a", "", "PreferNoSchedule")]),
        ("", |node| node.taints = vec![taint("node.kubernetes.io/memory-pressure", "", "NoSchedule")]),
        ("notReadyNodePolicy: Skip, unschedulableNodePolicy: Skip, newNodePolicy: Ignore", |_| {}),
        ("tolerations: [{key: gpu, value: 'yes'}]", |node| {
            node.taints = vec![taint("gpu", "yes", "NoExecute"), taint("gpu", "yes", "NoSchedule")];
        }),
        ("tolerations: [{operator: Exists}]", |node| node.taints = vec![taint("a", "b", "NoExecute")]),
        ("tolerations: [{key: node.kubernetes.io/network-unavailable, operator: Exists}]", |node| {
            node.taints = vec![taint("node.kubernetes.io/network-unavailable", "", "NoSchedule")];
        }),
        ("excludedNodeNames: [another, '']", |_| {}),
    ] {
        let mut toy = Toy::new(&everywhere(fields), 1);
        befall(toy.node("n1"));
        toy.finish();
        assert_eq!(toy.told("n1"), ("Succeeded", ""), "{fields}");
    }
}

#[test]
fn what_is_tolerated_stands_in_the_pod_after_what_every_pod_tolerates() {
    let mut toy = Toy::new(
        &everywhere(
            "tolerations: [{key: a, value: b, effect: NoExecute, tolerationSeconds: 9}, {operator: Exists}]",
        ),
        1,
    );
    toy.settle();
    let tolerations = toy.pods_made[0].spec.as_ref().unwrap().tolerations.clone().unwrap();
    let [.., first, second] = &tolerations[..] else { panic!("{tolerations:?}") };
    assert_eq!(tolerations[0].key.as_deref(), Some("node.kubernetes.io/not-ready"));
    assert_eq!(
        (first.key.as_deref(), first.value.as_deref(), first.effect.as_deref(), first.toleration_seconds),
        (Some("a"), Some("b"), Some("NoExecute"), Some(9))
    );
    assert_eq!((second.key.as_deref(), second.operator.as_deref()), (None, Some("Exists")));
}

#[test]
fn excluded_names_are_left_out_of_labels_and_of_names() {
    for spec in [
        "{script: x, nodeLabelSelector: {}, excludedNodeNames: [n2, n9]}",
        "{script: x, nodeNames: [n1, n2], excludedNodeNames: [n2, n9]}",
    ] {
        let mut toy = Toy::new(spec, 2);
        toy.finish();
        assert_eq!(toy.told("n2"), ("Skipped", "Excluded"));
        assert!(toy.status().nodes["n2"].message.contains("excludedNodeNames"));
        assert_eq!((toy.status().nodes.len(), toy.created), (2, 1));
        toy.edit("{script: x, nodeLabelSelector: {}, excludedNodeNames: [n1]}");
        toy.finish();
        assert_eq!((toy.states(), toy.created), (vec!["Succeeded".to_owned(); 2], 2));
    }
}

#[test]
fn a_name_without_a_node_is_judged_again_when_one_appears() {
    let mut toy = Toy::new("{script: x, nodeNames: [n1, n2]}", 1);
    toy.finish();
    assert_eq!(toy.told("n2"), ("Skipped", "NodeNotFound"));
    toy.add_node("n2");
    toy.node("n2").taints = vec![taint("a", "", "NoSchedule")];
    toy.settle();
    assert_eq!(toy.told("n2"), ("Skipped", "Tainted"));
    toy.remove_node("n2");
    toy.settle();
    assert_eq!(toy.told("n2"), ("Skipped", "NodeNotFound"));
    toy.add_node("n2");
    toy.finish();
    assert_eq!((toy.told("n2"), toy.created), (("Succeeded", ""), 2));
    toy.replace_node("n2", "another");
    toy.finish();
    assert_eq!((toy.told("n2"), toy.created), (("Succeeded", ""), 3), "another UID is another node");
}

#[test]
fn who_stops_matching_keeps_an_outcome_and_leaves_without_one() {
    let spec =
        "{script: x, nodeLabelSelector: {matchLabels: {a: b}}, parallelism: 1, executionDeadlineSeconds: 9}";
    let mut toy = Toy::new(spec, 3);
    for name in ["n1", "n2", "n3"] {
        label(toy.node(name), "a", "b");
    }
    toy.settle();
    assert_eq!(toy.states(), ["Starting", "Pending", "Pending"]);
    toy.node("n1").labels.clear();
    toy.node("n2").labels.clear();
    toy.settle();
    assert_eq!((toy.told("n1"), toy.told("n2")), (("Starting", ""), ("", "")), "a started node goes on");
    toy.finish();
    assert_eq!((toy.status().desired, toy.told("n1")), (2, ("Succeeded", "")));
    label(toy.node("n1"), "a", "b");
    label(toy.node("n2"), "a", "b");
    toy.finish();
    toy.finish();
    assert_eq!((toy.status().succeeded, toy.created), (3, 3));
}

#[test]
fn a_node_whose_first_pod_never_started_is_still_judged_again() {
    let mut toy = Toy::new(&everywhere(""), 1);
    toy.settle();
    let pod = toy.pod("n1");
    (pod.deleting, pod.presence) = (true, Presence::Gone);
    toy.node("n1").taints = vec![taint("a", "", "NoSchedule")];
    toy.settle();
    assert_eq!((toy.told("n1"), toy.status().nodes["n1"].attempts), (("Skipped", "Tainted"), 1));
    toy.node("n1").taints.clear();
    toy.wait_seconds(61);
    toy.finish();
    assert_eq!((toy.told("n1"), toy.created), (("Succeeded", ""), 2));
}

#[test]
fn a_node_that_is_not_ready_is_waited_for_until_the_deadline_by_either_clock() {
    let mut toy = Toy::new(&everywhere("podStartDeadlineSeconds: 30, notReadyNodePolicy: Wait"), 2);
    toy.node("n2").ready = false;
    toy.finish();
    toy.wait_seconds(20);
    let now = toy.now;
    toy.node("n2").ready_since = Some(now);
    toy.wait_seconds(20);
    toy.settle();
    assert_eq!(toy.told("n2"), ("Pending", "NodeNotReady"), "it was Ready in between");
    toy.wait_seconds(11);
    toy.settle();
    assert_eq!(toy.told("n2"), ("Unknown", "Unreachable"));
    assert!(holds(&toy.status().conditions, ConditionType::Failed));
    toy.edit(&everywhere("podStartDeadlineSeconds: 30, notReadyNodePolicy: Skip"));
    toy.settle();
    assert_eq!(toy.told("n2"), ("Skipped", "NodeNotReady"));
    toy.node("n2").ready = true;
    toy.finish();
    assert_eq!((toy.told("n2"), toy.created), (("Succeeded", ""), 2));
}

#[test]
fn new_nodes_are_left_to_the_next_run_where_the_policy_says_so() {
    let spec = |extra: &str| {
        format!(
            "{{script: x, nodeLabelSelector: {{matchExpressions: [{{key: a, operator: DoesNotExist}}]}}, {extra}}}"
        )
    };
    let mut toy = Toy::new(&spec("newNodePolicy: Ignore"), 3);
    label(toy.node("n3"), "a", "b");
    toy.finish();
    assert_eq!(toy.status().desired, 2);
    // One joins, one is labelled, one is made again.
    toy.add_node("n4");
    toy.node("n3").labels.clear();
    toy.replace_node("n2", "another");
    toy.finish();
    for node in ["n2", "n3", "n4"] {
        assert_eq!(toy.told(node), ("Skipped", "NewNode"), "{node}");
    }
    let message = toy.status().nodes["n4"].message.clone();
    assert!(message.contains("newNodePolicy") && message.contains("run 1"), "{message}");
    assert_eq!((toy.status().skipped, toy.status().succeeded, toy.created), (3, 1, 2));
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
    // Another reason in between does not make it less new.
    toy.node("n4").taints = vec![taint("a", "", "NoSchedule")];
    toy.settle();
    toy.node("n4").taints.clear();
    toy.edit(&spec("newNodePolicy: Ignore, historyLimit: 2"));
    toy.finish();
    assert_eq!((toy.told("n4"), toy.created), (("Skipped", "NewNode"), 2));
    toy.edit(&spec("newNodePolicy: Run, excludedNodeNames: [n4]"));
    toy.finish();
    assert_eq!((toy.told("n3"), toy.told("n4")), (("Succeeded", ""), ("Skipped", "Excluded")));
    toy.edit(&spec("newNodePolicy: Ignore").replace("script: x", "script: y"));
    toy.finish();
    assert_eq!((toy.status().succeeded, toy.status().run.as_ref().unwrap().number), (4, 2), "the next run");
}

#[test]
fn an_edit_that_means_more_nodes_runs_them_although_new_ones_are_ignored() {
    let mut toy = Toy::new("{script: x, nodeNames: [n1, n9], newNodePolicy: Ignore}", 3);
    toy.finish();
    assert!(toy.status().nodes["n9"].message.contains("newNodePolicy"));
    toy.edit("{script: x, nodeNames: [n1, n2, n9], newNodePolicy: Ignore}");
    toy.finish();
    assert_eq!((toy.told("n2"), toy.created), (("Succeeded", ""), 2));
    toy.add_node("n9");
    toy.finish();
    assert_eq!((toy.told("n9"), toy.created), (("Skipped", "NewNode"), 2));
    toy.remove_node("n9");
    toy.settle();
    assert_eq!(toy.told("n9"), ("Skipped", "NodeNotFound"));
}

#[test]
fn an_ignored_node_that_still_ends_an_older_run_counts_that_and_stays_ignored() {
    let spec = "{script: x, nodeLabelSelector: {matchLabels: {a: b}}, newNodePolicy: Ignore}";
    let mut toy = Toy::new(spec, 2);
    label(toy.node("n1"), "a", "b");
    label(toy.node("n2"), "a", "b");
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.node("n2").labels.clear();
    toy.edit(&spec.replace("script: x", "script: y"));
    toy.settle();
    assert_eq!(toy.status().nodes["n2"].run, 1);
    label(toy.node("n2"), "a", "b");
    toy.settle();
    toy.end_all(&super::toy::stopped("half"));
    toy.settle();
    assert_eq!((toy.told("n2"), toy.status().nodes["n2"].executions), (("Skipped", "NewNode"), 1));
    toy.finish();
    assert_eq!((toy.told("n1"), toy.created), (("Succeeded", ""), 3));
}

#[test]
fn a_sample_is_drawn_by_run_and_node_and_the_others_are_not_desired() {
    let mut drawn = BTreeSet::new();
    let mut toy = Toy::new(&everywhere("nodeSample: 1"), 5);
    for run in 1..=12 {
        toy.finish();
        let status = toy.status();
        let of_run: Vec<_> = status.nodes.iter().filter(|(_, entry)| entry.run == run).collect();
        assert_eq!((of_run.len(), status.desired, toy.created as u64), (1, 1, run));
        drawn.insert(of_run[0].0.clone());
        toy.edit(&everywhere("nodeSample: 1").replace("script: x", &format!("script: x{run}")));
    }
    assert!(drawn.len() > 2, "each run draws anew: {drawn:?}");
    for (sample, nodes, expected) in [("1%", 3, 1), ("50%", 3, 2), ("100%", 3, 3), ("7", 3, 3), ("2", 3, 2)] {
        let sample =
            sample.parse::<u32>().map_or_else(|_| format!("'{sample}'"), |number| number.to_string());
        let mut toy = Toy::new(&everywhere(&format!("nodeSample: {sample}")), nodes);
        toy.finish();
        assert_eq!((toy.created, toy.status().nodes.len()), (expected, expected), "{sample}");
    }
}

#[test]
fn a_node_that_started_stays_in_the_sample_whatever_comes() {
    let mut toy = Toy::new(&everywhere("nodeSample: 2"), 2);
    toy.settle();
    let before = toy.nodes_with_pods();
    for number in 10..60 {
        toy.add_node(&format!("n{number}"));
        toy.settle();
    }
    assert_eq!((toy.nodes_with_pods(), toy.status().desired), (before.clone(), 2));
    toy.finish();
    // Those that are gone were run all the same, whoever has their names now.
    toy.remove_node("n1");
    toy.replace_node("n2", "another");
    label(toy.node("n2"), labels::EXCLUDE, "");
    toy.finish();
    assert_eq!((toy.nodes_with_pods(), toy.status().succeeded, toy.created), (before, 2, 2));
    toy.edit(&everywhere("nodeSample: 5"));
    toy.finish();
    assert_eq!((toy.status().succeeded, toy.created), (5, 5), "a larger sample runs further nodes");
    toy.edit(&everywhere("nodeSample: '1%'"));
    toy.finish();
    assert_eq!((toy.status().succeeded, toy.created), (5, 5), "a smaller one takes none back");
}

#[test]
fn a_node_made_again_under_the_name_of_one_that_started_waits_for_the_next_sample() {
    let mut toy = Toy::new(&everywhere("nodeSample: 1"), 2);
    toy.finish();
    let name = toy.nodes_with_pods().pop_first().unwrap();
    let before = toy.status().nodes[&name].node_id.clone();
    toy.replace_node(&name, "another");
    toy.edit(&everywhere("nodeSample: 3"));
    toy.finish();
    assert_eq!((toy.status().succeeded, toy.created), (2, 2));
    assert_eq!(toy.status().nodes[&name].node_id, before);
    toy.edit(&everywhere("nodeSample: 3").replace("script: x", "script: y"));
    toy.finish();
    assert_eq!((toy.status().succeeded, toy.created), (2, 4));
    assert_ne!(toy.status().nodes[&name].node_id, before);
}

#[test]
fn a_pod_that_was_told_to_end_before_its_start_was_seen_is_not_followed_beside_its_run() {
    let spec = "{script: x, nodeLabelSelector: {matchExpressions: [{key: gone, operator: DoesNotExist}]}}";
    let mut toy = Toy::new(spec, 1);
    toy.finish();
    toy.add_node("n9");
    toy.crash_after = Some(1);
    toy.step();
    // Somebody deletes the pod, which has started unseen.
    toy.pod("n9").deleting = true;
    toy.settle();
    toy.start("n9");
    toy.settle();
    toy.end("n9", &super::toy::stopped("half"));
    toy.settle();
    toy.wait_seconds(61);
    toy.settle();
    assert_eq!((toy.told("n9").0, toy.created, toy.status().nodes["n9"].executions), ("Stopped", 2, 1));
}

#[test]
fn a_sample_consists_of_nodes_that_can_be_run_while_there_are_any() {
    let mut toy = Toy::new(&everywhere("nodeSample: 1"), 4);
    for name in ["n1", "n2", "n3"] {
        toy.node(name).taints = vec![taint("a", "", "NoSchedule")];
    }
    toy.settle();
    assert_eq!((toy.told("n4"), toy.status().nodes.len()), (("Starting", ""), 1));
    let mut toy = Toy::new(&everywhere("nodeSample: 1, excludedNodeNames: [n2]"), 2);
    toy.node("n1").taints = vec![taint("a", "", "NoSchedule")];
    toy.settle();
    assert_eq!((toy.told("n1"), toy.told("n2")), (("Skipped", "Tainted"), ("Skipped", "Excluded")));
    assert_eq!(find(&toy.status().conditions, ConditionType::Complete).unwrap().reason, "AllNodesSkipped");
    toy.add_node("n3");
    toy.finish();
    assert_eq!(
        (toy.told("n1"), toy.told("n3")),
        (("", ""), ("Succeeded", "")),
        "one that can takes its place"
    );
}

#[test]
fn a_sample_that_ignores_new_nodes_is_drawn_once() {
    let mut toy = Toy::new(&everywhere("nodeSample: '50%', newNodePolicy: Ignore"), 4);
    toy.finish();
    let before = toy.nodes_with_pods();
    for number in 10..30 {
        toy.add_node(&format!("n{number}"));
        toy.settle();
    }
    assert_eq!((toy.nodes_with_pods(), toy.status().nodes.len()), (before, 2));
}

#[test]
fn a_sample_of_very_many_nodes_is_not_too_many() {
    let mut toy = Toy::new(&everywhere("nodeSample: 3"), 9_000);
    toy.finish();
    assert_eq!((toy.status().succeeded, toy.created), (3, 3));
}

#[test]
fn an_edit_of_any_target_field_runs_no_finished_node_again() {
    let mut toy = Toy::new(&everywhere(""), 3);
    toy.finish();
    for spec in [
        "{script: x, nodeNames: [n1, n2]}".to_owned(),
        everywhere("excludedNodeNames: [n1]"),
        everywhere("nodeSample: 1"),
        everywhere("nodeSample: 90%"),
        everywhere("tolerations: [{operator: Exists}]"),
        everywhere("unschedulableNodePolicy: Skip"),
        everywhere("notReadyNodePolicy: Skip"),
        everywhere("newNodePolicy: Ignore"),
        everywhere("newNodePolicy: Run"),
        "{script: x, nodeLabelSelector: {matchLabels: {a: b}}}".to_owned(),
        everywhere(""),
    ] {
        toy.edit(&spec);
        toy.finish();
        let status = toy.status();
        assert_eq!((status.run.as_ref().unwrap().number, toy.created), (1, 3), "{spec}");
        assert_eq!((status.succeeded, status.desired), (3, 3), "{spec}");
    }
}

#[test]
fn a_pod_that_no_entry_is_of_makes_its_node_part_of_the_run() {
    for (fields, befall) in [
        ("nodeSample: 2", (|toy: &mut Toy| label(toy.node("n9"), "gone", "")) as fn(&mut Toy)),
        ("", |toy| label(toy.node("n9"), "gone", "")),
        ("", |toy| label(toy.node("n9"), labels::EXCLUDE, "")),
        ("", |toy| toy.edit(&everywhere("excludedNodeNames: [n9]"))),
    ] {
        for ended in [false, true] {
            let spec = format!(
                "{{script: x, nodeLabelSelector: {{matchExpressions: [{{key: gone, operator: DoesNotExist}}]}}, {fields}}}"
            );
            let mut toy = Toy::new(&spec, 1);
            toy.finish();
            toy.add_node("n9");
            // The pod is made, and the process dies before the entry is stored.
            toy.crash_after = Some(1);
            toy.step();
            assert_eq!((toy.created, toy.status().nodes.len()), (2, 1), "{fields}");
            if ended {
                toy.end("n9", &succeeded("hi"));
            }
            befall(&mut toy);
            toy.settle();
            let expected = if ended { "Succeeded" } else { "Starting" };
            assert_eq!((toy.told("n9").0, toy.created), (expected, 2), "{fields}");
            toy.finish();
            assert_eq!((toy.told("n9"), toy.created), (("Succeeded", ""), 2), "{fields}");
        }
    }
}

/// A pod is made for a node that came into the sample late, the process dies before the entry is stored, and another Node
/// takes the node's name.
#[test]
fn a_pod_that_no_entry_is_of_keeps_its_place_in_the_sample_when_its_node_is_replaced() {
    for has_started in [false, true] {
        let mut toy = Toy::new(&everywhere("nodeSample: 1"), 2);
        toy.step();
        let first = toy.status().nodes.keys().next().unwrap().clone();
        let second = if first == "n1" { "n2" } else { "n1" };
        toy.node(&first).taints.push(taint("t", "", "NoExecute"));
        toy.crash_after = Some(1);
        toy.step();
        assert_eq!(toy.nodes_with_pods(), BTreeSet::from([second.to_owned()]));
        assert!(!toy.status().nodes.contains_key(second));
        if has_started {
            toy.start(second);
        }
        toy.replace_node(second, "made-later");
        toy.node(&first).taints.clear();
        toy.settle();
        assert_eq!((toy.told(second), toy.created), (("Unknown", "NodeGone"), 1));
        assert!(toy.pod(second).deleting);
    }
}

#[test]
fn the_pod_of_a_replaced_node_makes_room_for_that_of_the_new_one() {
    for has_started in [false, true] {
        let mut toy = Toy::new(&everywhere(""), 1);
        toy.settle();
        if has_started {
            toy.start("n1");
        }
        toy.replace_node("n1", "made-later");
        toy.settle();
        assert_eq!((toy.pod("n1").deleting, toy.created), (true, 1), "nothing starts beside it");
        toy.pod("n1").presence = Presence::Gone;
        toy.settle();
        let newest = toy.observed.pods.last().unwrap();
        assert_eq!((newest.node_uid.as_str(), toy.created), ("made-later", 2));
    }
}

#[test]
fn what_the_size_limit_took_of_a_replaced_node_stays_away_and_its_pod_goes() {
    let mut toy = Toy::new(
        "{script: x, nodeLabelSelector: {matchExpressions: [{key: out, operator: DoesNotExist}]}}",
        2,
    );
    toy.settle();
    toy.start("n1");
    toy.settle();
    toy.replace_node("n1", "made-later");
    label(toy.node("n1"), "out", "");
    let mut status = toy.status().clone();
    status.nodes.remove("n1");
    status.truncation = Some(Truncation::default());
    toy.store(status);
    toy.step();
    assert!(toy.pod("n1").deleting);
    assert!(!toy.status().nodes.contains_key("n1"), "it would be dropped and come back at every look");
}

#[test]
fn what_age_took_of_a_gone_node_does_not_open_the_run_again() {
    let mut toy = Toy::new(&everywhere("podCleanupPolicy: Never"), 2);
    toy.finish();
    toy.remove_node("n1");
    let mut status = toy.status().clone();
    status.nodes.remove("n1");
    (status.desired, status.succeeded) = (1, 1);
    toy.store(status);
    toy.settle();
    assert_eq!(toy.status().nodes.keys().collect::<Vec<_>>(), ["n2"]);
}

#[test]
fn a_sample_is_not_drawn_again_when_its_nodes_have_long_been_gone() {
    let mut toy = Toy::new(&everywhere("nodeSample: 1"), 3);
    toy.finish();
    let done = toy.nodes_with_pods().pop_first().unwrap();
    toy.remove_node(&done);
    toy.settle();
    toy.wait_seconds(3 * 86_400);
    toy.settle();
    assert_eq!((toy.created, toy.status().desired), (1, 1));
    toy.edit(&everywhere("nodeSample: 1, args: [again]"));
    toy.finish();
    assert_eq!(toy.status().nodes.len(), 1, "the next run needs no memory of it: {:#?}", toy.status().nodes);
}
