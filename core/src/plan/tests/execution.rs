//! Tests of runs that the user pauses, stops and lets go on.

use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    v1alpha1::NodeStatus,
};

use super::toy::{Toy, failed, handed_over, stopped, succeeded};
use crate::observed::Presence;

const ONCE: &str = "{script: x, nodeLabelSelector: {}, execution: Active}";
const SLOW: &str = "{script: x, nodeLabelSelector: {}, parallelism: 1, maxFailures: 0, executionDeadlineSeconds: 9, execution: Active}";
const FIVE: &str =
    "{script: x, nodeLabelSelector: {}, repeat: {count: 5, periodSeconds: 1}, execution: Active}";
const ENDLESS: &str = "{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 1}, execution: Active}";

fn set(toy: &mut Toy, spec: &str, execution: &str) {
    toy.edit(&spec.replace("Active", execution));
    toy.settle();
}

fn entry(toy: &Toy) -> &NodeStatus {
    &toy.status().nodes["n1"]
}

fn said(toy: &Toy, type_: ConditionType) -> (&str, &str) {
    let condition = find(&toy.status().conditions, type_).unwrap();
    (&condition.status, &condition.reason)
}

fn state(toy: &Toy) -> (&str, &str) {
    (&entry(toy).state, &entry(toy).reason)
}

fn completed(toy: &Toy) -> bool {
    toy.status().run.as_ref().unwrap().completion_time.is_some()
}

#[test]
fn a_run_that_is_paused_or_stopped_from_the_beginning_starts_nothing() {
    for (execution, failed) in [("Paused", ("False", "RunNotEnded")), ("Stopped", ("True", "Stopped"))] {
        let mut toy = Toy::new(&ONCE.replace("Active", execution), 3);
        toy.wait_seconds(3600);
        toy.settle();
        assert_eq!((toy.states(), toy.created), (vec!["Pending".to_owned(); 3], 0), "{execution}");
        assert_eq!(said(&toy, ConditionType::Suspended), ("True", execution));
        assert_eq!(said(&toy, ConditionType::Failed), failed);
        assert_eq!(completed(&toy), execution == "Stopped");
        set(&mut toy, ONCE, "Active");
        assert_eq!((toy.states(), toy.created), (vec!["Starting".to_owned(); 3], 3));
        assert_eq!(said(&toy, ConditionType::Suspended), ("False", "NotSuspended"));
        assert_eq!(said(&toy, ConditionType::Failed), ("False", "RunNotEnded"));
        assert!(!completed(&toy));
        toy.end_all(&succeeded(""));
        toy.settle();
        assert!(holds(&toy.status().conditions, ConditionType::Complete) && completed(&toy));
        assert_eq!((toy.created, toy.status().run.as_ref().unwrap().number), (3, 1));
    }
}

#[test]
fn nothing_is_said_of_suspension_to_who_never_used_it() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}}", 1);
    toy.settle();
    assert!(find(&toy.status().conditions, ConditionType::Suspended).is_none());
}

#[test]
fn a_paused_run_lets_single_executions_end_and_starts_no_further_node() {
    let mut toy = Toy::new(SLOW, 3);
    toy.settle();
    toy.start_all();
    set(&mut toy, SLOW, "Paused");
    assert_eq!(toy.states(), ["Running", "Pending", "Pending"]);
    assert_eq!(said(&toy, ConditionType::Progressing), ("True", "Paused"));
    assert!(!toy.pod("n1").deleting && toy.hand_overs.is_empty());
    toy.end("n1", &succeeded(""));
    toy.settle();
    assert_eq!(
        (toy.states(), toy.created),
        (["Succeeded", "Pending", "Pending"].map(str::to_owned).into(), 1)
    );
    assert_eq!(said(&toy, ConditionType::Progressing), ("False", "Paused"));
    assert_eq!(said(&toy, ConditionType::Failed), ("False", "RunNotEnded"));
    set(&mut toy, SLOW, "Active");
    assert_eq!(toy.states(), ["Succeeded", "Starting", "Pending"]);
}

#[test]
fn a_paused_repetition_ends_after_its_execution_and_goes_on_in_another_pod() {
    for spec in [FIVE, ENDLESS] {
        let mut toy = Toy::new(spec, 1);
        toy.settle();
        toy.start_all();
        let mut runner = toy.runner("n1");
        runner.execute(0);
        runner.begin();
        toy.hear("n1", &runner);
        toy.settle();
        assert!(toy.hand_overs.is_empty());
        set(&mut toy, spec, "Paused");
        assert_eq!(toy.hand_overs.len(), 1, "its runner is told");
        assert!(!toy.pod("n1").deleting);
        runner.finish(0);
        runner.end("Running", "Paused");
        toy.hear("n1", &runner);
        toy.settle();
        toy.terminate("n1", 0, "Completed", &runner.message());
        toy.settle();
        assert_eq!(state(&toy), ("Pending", "Paused"));
        assert_eq!((entry(&toy).serial, entry(&toy).executions, toy.status().pending), (2, 2, 1));
        toy.wait_seconds(3600);
        toy.settle();
        assert_eq!((toy.created, toy.live_pods()), (1, 0), "and waits for as long as that lasts");
        set(&mut toy, spec, "Active");
        assert_eq!((toy.created, toy.first_serial("n1"), entry(&toy).attempts), (2, 3, 2));
        assert_eq!(state(&toy), ("Starting", ""));
    }
}

#[test]
fn a_counted_repetition_makes_what_was_left() {
    let mut toy = Toy::new(FIVE, 1);
    toy.settle();
    set(&mut toy, FIVE, "Stopped");
    let mut runner = toy.runner("n1");
    runner.execute(0);
    runner.begin();
    runner.finish(143);
    runner.end("Stopped", "Interrupted");
    toy.terminate("n1", 6, "Error", &runner.message());
    toy.settle();
    toy.wait_seconds(60);
    set(&mut toy, FIVE, "Active");
    let args = toy.pods_made.last().unwrap().spec.as_ref().unwrap().containers[0].args.clone().unwrap();
    let remaining = &args[args.iter().position(|arg| arg == "--remaining").unwrap() + 1];
    assert_eq!((toy.first_serial("n1"), remaining.as_str()), (3, "3"));
}

#[test]
fn an_endless_repetition_that_hands_over_while_paused_waits() {
    let mut toy = Toy::new(ENDLESS, 1);
    toy.settle();
    toy.start_all();
    set(&mut toy, ENDLESS, "Paused");
    assert!(toy.hand_overs.is_empty(), "it has no session");
    toy.end("n1", &handed_over(7));
    toy.settle();
    toy.wait_seconds(3600);
    toy.settle();
    assert_eq!((state(&toy), toy.created), (("Pending", "Paused"), 1));
    set(&mut toy, ENDLESS, "Active");
    assert_eq!((toy.created, toy.first_serial("n1")), (2, 8));
}

#[test]
fn a_stopped_run_ends_its_pods_and_keeps_their_last_words() {
    for spec in [ONCE, FIVE, ENDLESS] {
        let mut toy = Toy::new(spec, 1);
        toy.settle();
        toy.start_all();
        toy.settle();
        set(&mut toy, spec, "Stopped");
        assert!(toy.pod("n1").deleting && state(&toy) == ("Running", "Stopped"));
        assert_eq!(said(&toy, ConditionType::Suspended), ("True", "Stopped"));
        assert_eq!(said(&toy, ConditionType::Failed), ("False", "RunNotEnded"));
        toy.end("n1", &stopped("half"));
        toy.settle();
        assert_eq!(state(&toy), ("Stopped", "Stopped"));
        assert_eq!(entry(&toy).history[0].stdout, "half");
        assert_eq!((said(&toy, ConditionType::Failed), completed(&toy)), (("True", "Stopped"), true));
        assert!(!holds(&toy.status().conditions, ConditionType::Complete));
        toy.wait_seconds(3600);
        toy.settle();
        assert_eq!(toy.created, 1);
        set(&mut toy, spec, "Active");
        assert_eq!((toy.created, toy.first_serial("n1"), entry(&toy).attempts), (2, 2, 2));
        assert_eq!((said(&toy, ConditionType::Failed), completed(&toy)), (("False", "RunNotEnded"), false));
        assert_eq!(toy.status().run.as_ref().unwrap().number, 1);
    }
}

#[test]
fn nodes_that_are_done_are_not_run_again() {
    let mut toy = Toy::new(ONCE, 4);
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.end("n2", &failed(3, ""));
    toy.start("n3");
    toy.settle();
    set(&mut toy, ONCE, "Stopped");
    toy.end("n3", &succeeded("in time"));
    let unstarted = toy.pod("n4");
    assert!(unstarted.deleting);
    unstarted.presence = Presence::Gone;
    toy.settle();
    assert_eq!(toy.states(), ["Succeeded", "Failed", "Succeeded", "Pending"]);
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "Stopped"));
    set(&mut toy, ONCE, "Active");
    toy.wait_seconds(60);
    toy.settle();
    assert_eq!((toy.states()[3].as_str(), toy.created), ("Starting", 5));
    toy.end("n4", &succeeded(""));
    toy.settle();
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "NodesFailed"));
}

#[test]
fn a_stop_that_is_taken_back_before_the_pod_ended_goes_on() {
    let mut toy = Toy::new(FIVE, 1);
    toy.settle();
    toy.start_all();
    toy.settle();
    set(&mut toy, FIVE, "Stopped");
    set(&mut toy, FIVE, "Active");
    assert_eq!((state(&toy), toy.created), (("Running", "Stopped"), 1), "its pod was told to end");
    toy.end("n1", &stopped("half"));
    toy.settle();
    toy.wait_seconds(60);
    toy.settle();
    assert_eq!((state(&toy), toy.created, toy.first_serial("n1")), (("Starting", ""), 2, 2));
}

#[test]
fn a_crash_at_any_moment_of_a_stop_costs_no_node_its_rest() {
    for cut in 0..12 {
        let mut toy = Toy::new(ONCE, 2);
        toy.settle();
        toy.start_all();
        toy.settle();
        toy.edit(&ONCE.replace("Active", "Stopped"));
        for step in 0..12 {
            toy.crash_after = (step == cut).then_some(step % 2);
            toy.step();
            if step == 5 {
                let told: Vec<String> = toy
                    .observed
                    .pods
                    .iter()
                    .filter(|pod| pod.deleting && !pod.has_ended())
                    .map(|pod| pod.node.clone())
                    .collect();
                for node in &told {
                    toy.end(node, &stopped(""));
                }
            }
        }
        set(&mut toy, ONCE, "Active");
        toy.wait_seconds(61);
        toy.settle();
        assert_eq!(toy.created, 4, "cut at {cut}");
        toy.end_all(&succeeded(""));
        toy.settle();
        assert_eq!(toy.states(), ["Succeeded"; 2], "cut at {cut}");
        assert!(toy.status().nodes.values().all(|entry| entry.executions == 2), "cut at {cut}");
    }
}

#[test]
fn a_pod_that_is_killed_while_it_stops_is_stopped() {
    let mut toy = Toy::new(ONCE, 1);
    toy.settle();
    toy.start_all();
    toy.settle();
    set(&mut toy, ONCE, "Stopped");
    toy.pod("n1").presence = Presence::Gone;
    toy.settle();
    assert_eq!((state(&toy), entry(&toy).executions), (("Stopped", "Stopped"), 1));
}

#[test]
fn from_stopped_to_paused_nothing_starts_and_the_run_is_not_over() {
    let mut toy = Toy::new(SLOW, 2);
    toy.settle();
    toy.start_all();
    set(&mut toy, SLOW, "Stopped");
    toy.end("n1", &stopped(""));
    toy.settle();
    assert_eq!(toy.states(), ["Stopped", "Pending"]);
    set(&mut toy, SLOW, "Paused");
    assert_eq!((state(&toy), toy.created), (("Pending", "Paused"), 1));
    assert_eq!((said(&toy, ConditionType::Failed), completed(&toy)), (("False", "RunNotEnded"), false));
    set(&mut toy, SLOW, "Active");
    assert_eq!(toy.created, 2, "what was stopped is no failure any more");
}

#[test]
fn a_stopped_node_that_goes_away_stays_stopped_and_the_run_is_over_without_it() {
    let mut toy = Toy::new(ONCE, 1);
    toy.settle();
    toy.start_all();
    toy.settle();
    set(&mut toy, ONCE, "Stopped");
    toy.end("n1", &stopped(""));
    toy.settle();
    let nodes = std::mem::take(&mut toy.observed.nodes);
    set(&mut toy, ONCE, "Active");
    assert_eq!((state(&toy), toy.created), (("Stopped", "Stopped"), 1));
    assert_eq!((said(&toy, ConditionType::Failed), completed(&toy)), (("True", "NodesFailed"), true));
    toy.observed.nodes = nodes;
    toy.wait_seconds(60);
    toy.settle();
    assert_eq!(toy.created, 2, "it goes on when it is there again");
}

#[test]
fn stopping_a_complete_run_changes_nothing_of_its_verdict() {
    let mut toy = Toy::new(ONCE, 1);
    toy.settle();
    toy.end_all(&succeeded(""));
    toy.settle();
    set(&mut toy, ONCE, "Stopped");
    toy.add_node("n2");
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Succeeded".to_owned(), "Pending".to_owned()], 1));
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
    set(&mut toy, ONCE, "Active");
    assert_eq!(toy.created, 2);
}

#[test]
fn a_paused_node_that_goes_away_is_unknown() {
    let mut toy = Toy::new(ENDLESS, 1);
    toy.settle();
    toy.start_all();
    set(&mut toy, ENDLESS, "Paused");
    toy.end("n1", &handed_over(7));
    toy.settle();
    toy.observed.pods.clear();
    std::mem::take(&mut toy.observed.nodes);
    toy.settle();
    assert_eq!((state(&toy), toy.status().unknown), (("Unknown", "NodeGone"), 1));
}

#[test]
fn the_answer_of_a_pod_that_ended_before_it_was_told_to_is_stored_first() {
    let overdue = ONCE.replace("execution: Active", "activeDeadlineSeconds: 60");
    for (spec, wait) in [(ONCE.replace("Active", "Stopped"), 0), (overdue, 61)] {
        let mut toy = Toy::new(ONCE, 1);
        toy.settle();
        toy.start("n1");
        toy.settle();
        toy.edit(&spec);
        toy.wait_seconds(wait);
        // One process stores that it is to end and dies, the next one sees its end and dies before it has stored that.
        toy.step();
        toy.end("n1", &succeeded("done"));
        toy.crash_after = Some(9);
        toy.step();
        assert_eq!(toy.pod("n1").presence, Presence::Present, "{spec}");
        toy.settle();
        let entry = entry(&toy);
        assert_eq!((entry.state.as_str(), entry.history[0].stdout.as_str()), ("Succeeded", "done"), "{spec}");
        assert_eq!(toy.live_pods(), 0);
    }
}
