//! Tests of pods that wait for the scheduler: no more than there is room for.

use k8s_openapi::jiff::SignedDuration;

use super::toy::{Toy, succeeded};

const THROUGH_SCHEDULER: &str = "{script: x, nodeLabelSelector: {}, placement: Scheduler}";

fn starting(toy: &Toy) -> usize {
    toy.states().iter().filter(|state| *state == "Starting").count()
}

/// Seconds until the next look.
fn next(toy: &Toy) -> Option<i64> {
    toy.next().map(|next| next.duration_since(toy.now).as_secs())
}

#[test]
fn pods_for_the_scheduler_are_made_as_far_as_there_is_room() {
    let mut toy = Toy::new(THROUGH_SCHEDULER, 5);
    toy.observed.unbound_room = 2;
    // One step begins the run, one makes pods.
    for _ in 0..2 {
        toy.step();
    }
    assert_eq!((toy.created, starting(&toy)), (2, 2));
    toy.observed.unbound_room = 0;
    toy.settle();
    assert_eq!((toy.created, next(&toy)), (2, Some(2)), "it asks again soon");
    let waiting = toy.status().nodes.values().filter(|entry| entry.state == "Pending");
    assert!(waiting.clone().all(|entry| entry.reason.is_empty() && entry.message.is_empty()));
    assert_eq!(waiting.count(), 3);
    toy.observed.unbound_room = 3;
    toy.settle();
    assert_eq!((toy.created, starting(&toy)), (5, 5));
    assert_ne!(next(&toy), Some(2));
}

#[test]
fn pods_that_name_their_node_need_no_room_and_wait_for_none() {
    let mut toy = Toy::new(super::HELLO, 3);
    toy.observed.unbound_room = 0;
    toy.settle();
    assert_eq!(toy.created, 3);
    assert_ne!(next(&toy), Some(2));
    let mut toy =
        Toy::new("{script: x, nodeLabelSelector: {}, parallelism: 2, executionDeadlineSeconds: 9}", 3);
    toy.settle();
    for node in ["n1", "n2"] {
        let pod = toy.pod(node);
        (pod.phase, pod.reason) = ("Failed".into(), "OutOfcpu".into());
    }
    toy.observed.unbound_room = 0;
    toy.settle();
    assert_eq!((toy.created, next(&toy)), (3, Some(2)), "the refused ones cost the third node no turn");
    toy.end("n3", &succeeded(""));
    toy.observed.unbound_room = 1;
    toy.step();
    assert_eq!(toy.created, 4);
}

#[test]
fn what_parallelism_holds_back_does_not_ask_for_room() {
    let mut toy = Toy::new(
        "{script: x, nodeLabelSelector: {}, placement: Scheduler, parallelism: 1, executionDeadlineSeconds: 9}",
        3,
    );
    toy.observed.unbound_room = 1;
    for _ in 0..2 {
        toy.step();
    }
    toy.observed.unbound_room = 0;
    toy.settle();
    assert_eq!(toy.created, 1);
    assert_eq!(
        toy.next().unwrap().duration_since(toy.now),
        SignedDuration::from_secs(600),
        "nothing but the start deadline of the only pod"
    );
}
