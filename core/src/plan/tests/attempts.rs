//! Tests of what is tried again after failures and interruptions, and of how long a run may take.

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    v1alpha1::{NodeState, NodeStatus},
};

use super::toy::{Toy, failed, stopped, succeeded};
use crate::observed::Presence;

fn spec(more: &str) -> String {
    format!("{{script: x, nodeLabelSelector: {{}}, {more}}}")
}

/// State, reason and numbers of a node: attempts, retries, interruptions.
fn entry<'a>(toy: &'a Toy, node: &str) -> (&'a str, &'a str, [u32; 3]) {
    let entry = &toy.status().nodes[node];
    (&entry.state, &entry.reason, [entry.attempts, entry.retries, entry.interruptions])
}

/// Lets the newest pod of a node start and fail.
fn fail(toy: &mut Toy, node: &str, code: i32) {
    toy.start(node);
    toy.settle();
    toy.end(node, &failed(code, ""));
    toy.settle();
}

#[test]
fn a_failed_node_is_tried_again_as_often_as_it_may() {
    let mut toy = Toy::new(&spec("backoffLimit: 2"), 1);
    toy.settle();
    for retries in 1..=2 {
        fail(&mut toy, "n1", 3);
        assert_eq!(entry(&toy, "n1"), ("Pending", "BackingOff", [retries, retries, 0]));
        let message = &toy.status().nodes["n1"].message;
        assert!(message.contains(&format!("attempt {retries} failed (ScriptFailed)")), "{message}");
        toy.wait_seconds(3600);
        toy.settle();
        assert_eq!(entry(&toy, "n1"), ("Starting", "", [retries + 1, retries, 0]));
    }
    fail(&mut toy, "n1", 3);
    assert_eq!(entry(&toy, "n1"), ("Failed", "ScriptFailed", [3, 2, 0]));
    let status = toy.status();
    assert_eq!((status.nodes["n1"].executions, status.nodes["n1"].failures, status.failed), (3, 3, 1));
    assert!(holds(&status.conditions, ConditionType::Failed));
    toy.wait_seconds(3600);
    toy.settle();
    assert_eq!(toy.created, 3);
}

#[test]
fn a_further_attempt_that_succeeds_makes_the_run_complete() {
    let mut toy = Toy::new(&spec("backoffLimit: 1"), 1);
    toy.settle();
    fail(&mut toy, "n1", 1);
    assert!(!holds(&toy.status().conditions, ConditionType::Failed));
    toy.wait_seconds(10);
    toy.settle();
    toy.end("n1", &succeeded("fine"));
    toy.settle();
    assert_eq!(entry(&toy, "n1"), ("Succeeded", "", [2, 1, 0]));
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
    assert_eq!(toy.status().nodes["n1"].history.len(), 2);
}

#[test]
fn the_pause_before_an_attempt_doubles_and_has_an_end() {
    let mut toy = Toy::new(&spec("backoffLimit: 9"), 1);
    toy.settle();
    for seconds in [10, 20, 40, 80, 160, 320, 360, 360] {
        fail(&mut toy, "n1", 1);
        let made = toy.created;
        assert_eq!(
            toy.next(),
            Some(toy.now.checked_add(k8s_openapi::jiff::SignedDuration::from_secs(seconds)).unwrap())
        );
        toy.wait_seconds(seconds - 1);
        toy.settle();
        assert_eq!(toy.created, made, "{seconds} s");
        toy.wait_seconds(1);
        toy.settle();
        assert_eq!(toy.created, made + 1, "{seconds} s");
    }
}

#[test]
fn only_what_another_attempt_may_mend_is_tried_again() {
    for (more, code, is_tried) in [
        ("backoffLimit: 1", 3, true),
        ("backoffLimit: 0", 3, false),
        ("backoffLimit: 1, exitCodes: {retry: [3, 4]}", 3, true),
        ("backoffLimit: 1, exitCodes: {retry: [4]}", 3, false),
    ] {
        let mut toy = Toy::new(&spec(more), 1);
        toy.settle();
        fail(&mut toy, "n1", code);
        assert_eq!(entry(&toy, "n1").1 == "BackingOff", is_tried, "{more}");
    }
    let mut toy = Toy::new(&spec("backoffLimit: 1"), 1);
    toy.settle();
    toy.terminate("n1", 137, "OOMKilled", "");
    toy.settle();
    assert_eq!(entry(&toy, "n1").1, "BackingOff", "memory may be there the next time");
    let mut toy = Toy::new(&spec("backoffLimit: 1"), 1);
    toy.settle();
    toy.wait_seconds(601);
    toy.settle();
    assert_eq!(entry(&toy, "n1"), ("Failed", "StartDeadlineExceeded", [1, 0, 0]), "it may yet start");
}

#[test]
fn an_edit_of_the_limit_runs_no_node_again_that_is_done() {
    let mut toy = Toy::new(&spec("backoffLimit: 0"), 2);
    toy.settle();
    toy.start_all();
    fail(&mut toy, "n1", 1);
    toy.edit(&spec("backoffLimit: 3"));
    toy.settle();
    toy.wait_seconds(3600);
    toy.settle();
    assert_eq!((entry(&toy, "n1").0, toy.created), ("Failed", 2));
    fail(&mut toy, "n2", 1);
    assert_eq!(entry(&toy, "n2"), ("Pending", "BackingOff", [1, 1, 0]), "what fails later has the new limit");
}

#[test]
fn a_failure_counts_against_the_budget_after_its_last_attempt() {
    let pace = "backoffLimit: 1, parallelism: 1, maxFailures: 0, executionDeadlineSeconds: 9";
    let mut toy = Toy::new(&spec(pace), 2);
    toy.settle();
    fail(&mut toy, "n1", 1);
    assert_eq!((toy.states(), toy.created), (vec!["Pending".to_owned(), "Starting".to_owned()], 2));
    toy.end("n2", &succeeded(""));
    toy.wait_seconds(10);
    toy.settle();
    fail(&mut toy, "n1", 1);
    assert_eq!(toy.states(), ["Failed", "Succeeded"]);
    assert!(holds(&toy.status().conditions, ConditionType::Failed));
}

#[test]
fn a_run_that_is_held_tries_nothing_again_before_it_goes_on() {
    for held in ["execution: Paused", "execution: Stopped"] {
        let mut toy = Toy::new(&spec("backoffLimit: 1"), 1);
        toy.settle();
        toy.start("n1");
        toy.settle();
        toy.edit(&spec(&format!("backoffLimit: 1, {held}")));
        toy.end("n1", &failed(1, ""));
        toy.settle();
        toy.wait_seconds(3600);
        toy.settle();
        assert_eq!((entry(&toy, "n1").1, toy.created), ("BackingOff", 1), "{held}");
        toy.edit(&spec("backoffLimit: 1"));
        toy.settle();
        assert_eq!((entry(&toy, "n1").0, toy.created), ("Starting", 2), "{held}");
    }
}

#[test]
fn a_failed_pod_is_kept_until_its_successor_is_there() {
    let mut toy = Toy::new(&spec("backoffLimit: 1"), 1);
    toy.settle();
    fail(&mut toy, "n1", 1);
    assert!(!toy.pod("n1").deleting);
    toy.wait_seconds(10);
    toy.settle();
    let old = toy.observed.pods.iter().find(|pod| pod.attempt == 1).unwrap();
    assert!(old.deleting && !toy.pod("n1").deleting);
}

/// Somebody deletes the newest pod of a node, and its runner tells so.
fn interrupt(toy: &mut Toy, node: &str) {
    toy.start(node);
    toy.settle();
    toy.pod(node).deleting = true;
    toy.end(node, &stopped(""));
    toy.settle();
}

#[test]
fn an_interrupted_node_is_reported_or_tried_once_more() {
    for (policy, after) in
        [("Report", ("Stopped", "PodDeleted", [1, 0, 0])), ("Retry", ("Pending", "PodDeleted", [1, 0, 1]))]
    {
        let mut toy = Toy::new(&spec(&format!("interruptionPolicy: {policy}")), 1);
        toy.settle();
        interrupt(&mut toy, "n1");
        assert_eq!(entry(&toy, "n1"), after);
        toy.wait_seconds(60);
        toy.settle();
        if policy == "Report" {
            assert_eq!(toy.created, 1);
            continue;
        }
        assert_eq!((entry(&toy, "n1").0, toy.first_serial("n1")), ("Starting", 2));
        interrupt(&mut toy, "n1");
        assert_eq!(entry(&toy, "n1"), ("Stopped", "PodDeleted", [2, 0, 1]), "once is enough");
    }
}

#[test]
fn an_end_that_nobody_saw_is_unknown_or_tried_again() {
    for (policy, state) in [("Report", "Unknown"), ("Retry", "Pending")] {
        let mut toy = Toy::new(&spec(&format!("interruptionPolicy: {policy}")), 1);
        toy.settle();
        toy.start("n1");
        toy.settle();
        toy.terminate("n1", 255, "Unknown", "");
        toy.settle();
        assert_eq!((entry(&toy, "n1").0, entry(&toy, "n1").1), (state, "NodeRestarted"), "{policy}");
    }
}

#[test]
fn a_counted_repetition_goes_on_with_what_is_left() {
    let mut toy = Toy::new(&spec("repeat: {count: 3, periodSeconds: 1}"), 1);
    toy.settle();
    interrupt(&mut toy, "n1");
    assert_eq!(entry(&toy, "n1"), ("Pending", "PodDeleted", [1, 0, 1]));
    toy.wait_seconds(60);
    toy.settle();
    assert_eq!((entry(&toy, "n1").0, toy.first_serial("n1")), ("Starting", 2));
    let mut runner = toy.runner("n1");
    runner.execute(0);
    runner.execute(0);
    runner.complete();
    toy.terminate("n1", 0, "Completed", &runner.message());
    toy.settle();
    assert_eq!(entry(&toy, "n1"), ("Succeeded", "", [2, 0, 1]));
    assert_eq!(toy.status().nodes["n1"].executions, 3);
}

#[test]
fn an_interrupted_node_waits_while_it_is_cordoned_but_not_for_ever() {
    let mut toy = Toy::new(&spec("interruptionPolicy: Retry"), 2);
    toy.settle();
    for node in ["n1", "n2"] {
        let now = toy.now;
        toy.node(node).unschedulable = true;
        toy.node(node).cordoned_since = Some(now);
        interrupt(&mut toy, node);
    }
    toy.wait_seconds(500);
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Pending".to_owned(); 2], 2));
    toy.node("n1").unschedulable = false;
    toy.settle();
    assert_eq!((entry(&toy, "n1").0, toy.created), ("Starting", 3));
    toy.wait_seconds(101);
    toy.end("n1", &succeeded(""));
    toy.settle();
    assert_eq!((entry(&toy, "n2").0, entry(&toy, "n2").1), ("Unknown", "Unschedulable"));
    assert!(toy.status().nodes["n2"].message.contains("stayed cordoned"));
    toy.node("n2").unschedulable = false;
    toy.settle();
    assert_eq!(toy.created, 3);
}

#[test]
fn a_pod_that_is_lost_before_its_runner_started_is_replaced_whatever_the_policy() {
    let mut toy = Toy::new(&spec("interruptionPolicy: Report"), 1);
    toy.settle();
    let pod = toy.pod("n1");
    (pod.deleting, pod.presence) = (true, Presence::Gone);
    toy.settle();
    toy.wait_seconds(60);
    toy.settle();
    assert_eq!(entry(&toy, "n1"), ("Starting", "", [2, 0, 0]));
}

#[test]
fn an_endless_repetition_is_not_put_onto_a_node_that_is_drained() {
    let mut toy = Toy::new(&spec("repeat: {periodSeconds: 1}"), 1);
    toy.settle();
    toy.node("n1").unschedulable = true;
    interrupt(&mut toy, "n1");
    toy.wait_seconds(3600);
    toy.settle();
    assert_eq!((entry(&toy, "n1").0, toy.created), ("Running", 1));
    toy.node("n1").unschedulable = false;
    toy.settle();
    assert_eq!(toy.created, 2);
}

/// Status and reason of a condition.
fn said(toy: &Toy, type_: ConditionType) -> (&str, &str) {
    let condition = find(&toy.status().conditions, type_).unwrap();
    (&condition.status, &condition.reason)
}

const OVERDUE: &str = "activeDeadlineSeconds: 100, parallelism: 1, executionDeadlineSeconds: 9000";

#[test]
fn a_run_that_takes_too_long_is_ended() {
    let mut toy = Toy::new(&spec(OVERDUE), 2);
    toy.settle();
    toy.start("n1");
    toy.settle();
    assert_eq!(toy.next(), Some(Timestamp::from_second(1_800_000_100).unwrap()));
    toy.wait_seconds(99);
    toy.settle();
    assert!(!toy.pod("n1").deleting);
    toy.wait_seconds(1);
    toy.step();
    assert!(!toy.pod("n1").deleting, "that it is to end is stored first");
    assert_eq!(entry(&toy, "n1"), ("Running", "ActiveDeadlineExceeded", [1, 0, 0]));
    toy.settle();
    assert!(toy.pod("n1").deleting);
    assert_eq!(said(&toy, ConditionType::Failed), ("False", "RunNotEnded"));
    toy.end("n1", &stopped(""));
    toy.settle();
    assert_eq!(toy.states(), ["Stopped", "Pending"]);
    assert_eq!(entry(&toy, "n1").1, "ActiveDeadlineExceeded");
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "ActiveDeadlineExceeded"));
    assert_eq!(said(&toy, ConditionType::Progressing), ("False", "ActiveDeadlineExceeded"));
    assert!(toy.status().run.as_ref().unwrap().completion_time.is_some());
    assert_eq!(toy.created, 1);

    toy.edit(&spec("activeDeadlineSeconds: 9000, parallelism: 1, executionDeadlineSeconds: 9000"));
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Stopped".to_owned(), "Starting".to_owned()], 2));
    assert_eq!(said(&toy, ConditionType::Failed), ("False", "RunNotEnded"));
    toy.end("n2", &succeeded(""));
    toy.settle();
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "NodesFailed"));
}

#[test]
fn a_node_that_comes_after_the_run_was_over_is_not_bound_by_its_deadline() {
    let mut toy = Toy::new(&spec("activeDeadlineSeconds: 100"), 1);
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.settle();
    toy.wait_seconds(1000);
    toy.settle();
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
    toy.add_node("n2");
    toy.settle();
    assert_eq!(entry(&toy, "n2").0, "Starting");
    toy.end("n2", &succeeded(""));
    toy.settle();
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
}

#[test]
fn what_was_done_when_the_deadline_came_is_done() {
    let mut toy = Toy::new(&spec("activeDeadlineSeconds: 100"), 2);
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.wait_seconds(100);
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.end("n2", &stopped(""));
    toy.settle();
    let states: Vec<NodeState> = toy.status().nodes.values().map(NodeStatus::node_state).collect();
    assert_eq!(states, [NodeState::Succeeded, NodeState::Stopped]);
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "NodesFailed"), "every node is done");
}

#[test]
fn how_long_an_interrupted_node_waits_is_counted_from_its_own_pods_end() {
    let policy = "interruptionPolicy: Retry";
    let mut toy = Toy::new(&spec(policy), 1);
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.settle();
    toy.edit(&spec(policy).replace("script: x", "script: y"));
    toy.settle();
    let now = toy.now;
    toy.node("n1").unschedulable = true;
    toy.node("n1").cordoned_since = Some(now);
    toy.start("n1");
    toy.settle();
    toy.wait_seconds(500);
    interrupt(&mut toy, "n1");
    toy.wait_seconds(500);
    toy.settle();
    assert_eq!(
        entry(&toy, "n1").0,
        "Pending",
        "the pod of the run before ended long ago, and is none of this"
    );
    toy.wait_seconds(101);
    toy.settle();
    assert_eq!((entry(&toy, "n1").0, entry(&toy, "n1").1), ("Unknown", "Unschedulable"));
}
