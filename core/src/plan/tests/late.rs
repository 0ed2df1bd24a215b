//! Tests of pods that are made before anything is stored of their nodes, because these came late.

use std::sync::Arc;

use super::toy::{Toy, failed, succeeded};
use crate::{observed::Presence, status::budget::MAX_OBJECT_BYTES};

#[test]
fn the_pod_of_a_late_node_is_kept_until_its_answer_is_stored() {
    for is_new_node in [true, false] {
        let mut toy = Toy::new("{script: x, nodeLabelSelector: {}}", 1);
        toy.settle();
        toy.end_all(&succeeded(""));
        toy.settle();
        let late = if is_new_node { "n2" } else { "n1" };
        if is_new_node {
            toy.add_node(late);
        } else {
            toy.replace_node(late, "another");
        }
        // One process dies after it has made the pod, the next one before its first write of a status.
        toy.crash_after = Some(1);
        toy.step();
        toy.end(late, &succeeded("late"));
        toy.crash_after = Some(9);
        toy.step();
        assert_eq!(toy.pod(late).presence, Presence::Present);
        toy.settle();
        let entry = &toy.status().nodes[late];
        assert_eq!((entry.state.as_str(), entry.history[0].stdout.as_str()), ("Succeeded", "late"));
        assert_eq!(toy.live_pods(), 0);
    }
}

#[test]
fn a_node_that_is_gone_and_cost_its_entry_by_the_size_limit_does_not_come_back() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}}", 2);
    toy.settle();
    toy.end_all(&failed(1, &"long ".repeat(900)));
    toy.settle();
    Arc::make_mut(&mut toy.observed.nodes).remove("n2");
    toy.pod("n2").presence = Presence::Gone;
    toy.observed.object.other_bytes = MAX_OBJECT_BYTES - 14_000;
    toy.settle();
    assert_eq!(toy.status().nodes.keys().collect::<Vec<_>>(), ["n1"]);
    assert_eq!(toy.status().progress, "1/1");
}

#[test]
fn the_pod_of_a_node_that_leaves_before_it_starts_goes_too() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}}", 2);
    toy.settle();
    toy.end_all(&succeeded("old"));
    toy.settle();
    // In the second run the kubelet refuses a pod, and its node is left out before the next one is made.
    toy.edit("{script: y, nodeLabelSelector: {}}");
    toy.settle();
    let pod = toy.pod("n2");
    (pod.phase, pod.reason) = ("Failed".into(), "OutOfcpu".into());
    toy.edit("{script: y, nodeNames: [n1]}");
    toy.end("n1", &succeeded("new"));
    toy.settle();
    assert_eq!((toy.status().nodes["n2"].run, toy.status().desired), (1, 1));
    assert_eq!(toy.live_pods(), 0, "{:#?}", toy.observed.pods);
}
