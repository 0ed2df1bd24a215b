//! Tests of pods that are made before anything is stored of their nodes, because these came late.

use super::toy::{Toy, succeeded};
use crate::observed::Presence;

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
