//! Tests of runners that should have ended and did not.

use k8s_openapi::jiff::SignedDuration;

use super::toy::{Toy, failed, settings_with_sessions, stopped, succeeded};
use crate::observed::Presence;

fn spec(more: &str) -> String {
    format!(
        "{{script: x, nodeLabelSelector: {{}}, executionDeadlineSeconds: 30, terminationGracePeriodSeconds: 5, {more}}}"
    )
}

/// The containers of all pods start now.
fn start_all(toy: &mut Toy) {
    toy.start_all();
    let nodes: Vec<String> = toy.observed.pods.iter().map(|pod| pod.node.clone()).collect();
    for node in nodes {
        let now = toy.now;
        toy.pod(&node).started.get_or_insert(now);
    }
    toy.settle();
}

fn state<'a>(toy: &'a Toy, node: &str) -> (&'a str, &'a str) {
    let entry = &toy.status().nodes[node];
    (&entry.state, &entry.reason)
}

/// Demands that `n1` is given up after so many seconds, and no sooner.
fn assert_given_up_after(toy: &mut Toy, seconds: i64, what: &str) {
    toy.wait_seconds(seconds - 1);
    toy.settle();
    assert_eq!(state(toy, "n1"), ("Running", ""), "{what}");
    toy.wait_seconds(1);
    toy.settle();
    assert_eq!(state(toy, "n1"), ("Unknown", "Hung"), "{what}");
}

#[test]
fn a_runner_is_given_up_a_minute_after_its_executions_must_be_over() {
    for (more, seconds) in [
        ("", 35 + 60),
        ("dependencies: {pip: [six]}", 600 + 35 + 60),
        ("repeat: {count: 4, periodSeconds: 100, initialDelaySeconds: 7}", 7 + 4 * 100 + 60),
        ("repeat: {count: 4, periodSeconds: 10}", 4 * 35 + 60),
    ] {
        let mut toy = Toy::new(&spec(more), 1);
        toy.settle();
        // That it takes long to start costs its executions nothing.
        toy.wait_seconds(500);
        start_all(&mut toy);
        assert_given_up_after(&mut toy, seconds, more);
    }
}

#[test]
fn a_node_that_is_not_ready_hangs_by_the_same_clock() {
    let mut toy = Toy::new(&spec(""), 1);
    toy.settle();
    start_all(&mut toy);
    toy.node("n1").ready = false;
    assert_given_up_after(&mut toy, 95, "");
}

#[test]
fn a_clock_that_is_behind_hangs_nobody() {
    let mut toy = Toy::new(&spec("podStartDeadlineSeconds: 100"), 1);
    toy.settle();
    let behind = toy.now.checked_sub(SignedDuration::from_hours(2)).unwrap();
    toy.pod("n1").started = Some(behind);
    start_all(&mut toy);
    assert_given_up_after(&mut toy, 100 + 95, "it may have started as late as it may");
}

#[test]
fn a_plan_looks_again_when_a_runner_would_hang() {
    let mut toy = Toy::new(&spec(""), 1);
    toy.settle();
    start_all(&mut toy);
    assert_eq!(toy.next(), toy.now.checked_add(SignedDuration::from_secs(95)).ok());
}

#[test]
fn what_has_no_deadline_or_no_end_never_hangs() {
    for spec in [
        "{script: x, nodeLabelSelector: {}}".to_owned(),
        "{script: x, nodeLabelSelector: {}, repeat: {count: 2, periodSeconds: 1}}".to_owned(),
        spec("repeat: {periodSeconds: 1}"),
    ] {
        let mut toy = Toy::new(&spec, 1);
        toy.settle();
        start_all(&mut toy);
        toy.wait_seconds(1_000_000);
        toy.settle();
        assert_eq!(state(&toy, "n1"), ("Running", ""), "{spec}");
    }
}

#[test]
fn a_hung_node_frees_its_slot_and_its_pod_is_told_to_end() {
    let mut toy = Toy::new(&spec("parallelism: 1"), 2);
    toy.settle();
    start_all(&mut toy);
    assert_given_up_after(&mut toy, 95, "");
    assert_eq!((state(&toy, "n2").0, toy.created), ("Starting", 2));
    assert!(toy.pod("n1").deleting);
    toy.end("n2", &succeeded(""));
    toy.settle();
    assert_eq!((toy.status().succeeded, toy.status().unknown), (1, 1));
    assert!(toy.status().run.as_ref().unwrap().completion_time.is_some());
}

#[test]
fn a_hung_node_counts_as_a_failure() {
    let mut toy = Toy::new(&spec("parallelism: 1, maxFailures: 0"), 3);
    toy.settle();
    start_all(&mut toy);
    assert_given_up_after(&mut toy, 95, "");
    assert_eq!((toy.status().pending, toy.created), (2, 1));
}

#[test]
fn a_later_answer_of_the_very_pod_replaces_unknown() {
    for (record, state_after) in [
        (succeeded("late"), ("Succeeded", "")),
        (failed(3, "late"), ("Failed", "ScriptFailed")),
        (stopped("late"), ("Stopped", "Hung")),
    ] {
        let mut toy = Toy::new(&spec(""), 1);
        toy.settle();
        start_all(&mut toy);
        assert_given_up_after(&mut toy, 95, "");
        toy.end("n1", &record);
        toy.settle();
        assert_eq!(state(&toy, "n1"), state_after);
        let entry = &toy.status().nodes["n1"];
        assert_eq!((entry.executions, entry.history[0].stdout.as_str()), (1, "late"));
        toy.observed.pods.retain(|pod| pod.presence != Presence::Gone);
        toy.settle();
        assert_eq!((state(&toy, "n1"), toy.created), (state_after, 1));
    }
}

#[test]
fn a_lower_deadline_is_none_of_a_pod_that_was_made_before() {
    let mut toy = Toy::new(&spec(""), 1);
    toy.settle();
    start_all(&mut toy);
    toy.edit(&spec("").replace(": 30", ": 1"));
    assert_given_up_after(&mut toy, 95, "");
}

#[test]
fn a_runner_that_went_on_hangs_by_the_clock_of_its_order() {
    let idle = spec("runnerIdleSeconds: 6000");
    let mut toy = Toy::new(&idle, 1);
    toy.settings = settings_with_sessions();
    toy.settle();
    start_all(&mut toy);
    let mut runner = toy.runner("n1");
    runner.execute(0);
    runner.complete();
    toy.hear("n1", &runner);
    toy.settle();
    runner.history.clear();
    toy.hear("n1", &runner);
    toy.wait_seconds(5000);
    toy.settle();
    assert_eq!(state(&toy, "n1"), ("Succeeded", ""), "an idle runner does not hang");
    toy.observed.since = toy.now;
    toy.edit(&idle.replace("script: x", "script: y"));
    toy.settle();
    let (_, order) = toy.orders.last().unwrap().clone();
    runner.go_on(&order);
    runner.begin();
    toy.hear("n1", &runner);
    toy.settle();
    assert_given_up_after(&mut toy, 600 + 35 + 60, "the start deadline is how late it may have heard");
}

#[test]
fn what_a_node_that_was_given_up_answers_is_stored_before_its_pod_goes() {
    let mut toy = Toy::new(&spec(""), 1);
    toy.settle();
    start_all(&mut toy);
    toy.wait_seconds(35 + 60);
    toy.step();
    assert_eq!(state(&toy, "n1"), ("Unknown", "Hung"));
    // The process that sees the answer dies before it has stored it.
    toy.end("n1", &failed(1, "late"));
    toy.crash_after = Some(9);
    toy.step();
    assert_eq!(toy.pod("n1").presence, Presence::Present);
    toy.settle();
    assert_eq!((state(&toy, "n1"), toy.live_pods()), (("Failed", "ScriptFailed"), 1));
    assert_eq!(toy.status().nodes["n1"].history[0].stdout, "late");
}
