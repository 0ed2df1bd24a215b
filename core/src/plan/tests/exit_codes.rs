//! Tests of exit codes that count as success or skip the node.

use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    v1alpha1::NodeStatus,
};

use super::{
    runner::ToyRunner,
    toy::{Toy, settings_with_sessions},
};
use crate::observed::TaintFacts;

const CODES: &str = "{script: x, nodeLabelSelector: {}, exitCodes: {success: [2, 3], skipped: [4]}}";
const WARM: &str =
    "{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 600, exitCodes: {success: [2], skipped: [4]}}";
const REPEATED: &str =
    "{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 1}, exitCodes: {success: [2]}}";

fn entry<'a>(toy: &'a Toy, node: &str) -> &'a NodeStatus {
    &toy.status().nodes[node]
}

fn state<'a>(toy: &'a Toy, node: &str) -> (&'a str, &'a str) {
    (&entry(toy, node).state, &entry(toy, node).reason)
}

/// The runner of the node's newest pod executes once with this code, and its container ends.
fn end(toy: &mut Toy, node: &str, code: i32) {
    let mut runner = toy.runner(node);
    runner.execute(code);
    runner.complete();
    toy.terminate(node, i32::from(runner.record.state == "Failed"), "", &runner.message());
}

/// The session of the node's newest pod tells that its runner has executed once with this code.
fn tell(toy: &mut Toy, node: &str, runner: &mut ToyRunner, code: i32) {
    runner.execute(code);
    runner.complete();
    toy.hear(node, runner);
}

fn skipped_node() -> Toy {
    let mut toy = Toy::new(CODES, 1);
    toy.settle();
    end(&mut toy, "n1", 4);
    toy.settle();
    toy
}

#[test]
fn codes_are_success_skip_or_failure_as_the_spec_says() {
    let mut toy = Toy::new(CODES, 4);
    toy.settle();
    for (node, code) in [("n1", 0), ("n2", 3), ("n3", 4), ("n4", 5)] {
        end(&mut toy, node, code);
    }
    toy.settle();
    assert_eq!(state(&toy, "n2"), ("Succeeded", ""));
    assert_eq!(state(&toy, "n3"), ("Skipped", "ExitCodeSkips"));
    assert_eq!(state(&toy, "n4"), ("Failed", "ScriptFailed"));
    let status = toy.status();
    assert_eq!((status.succeeded, status.skipped, status.failed), (2, 1, 1));
    for (node, (code, failures)) in [("n2", (3, 0)), ("n3", (4, 0)), ("n4", (5, 1))] {
        let entry = entry(&toy, node);
        assert_eq!((entry.exit_code, entry.executions, entry.failures), (Some(code), 1, failures), "{node}");
    }
    assert_eq!(status.output_group_count, 4, "what they answered is told apart");
    assert_eq!(toy.live_pods(), 1, "only that of the failure is kept for a look");
}

#[test]
fn skipped_nodes_leave_a_run_complete() {
    let toy = skipped_node();
    let status = toy.status();
    assert!(holds(&status.conditions, ConditionType::Complete));
    assert_eq!(find(&status.conditions, ConditionType::Complete).unwrap().reason, "AllNodesSkipped");
    assert!(status.run.as_ref().unwrap().completion_time.is_some());
    assert_eq!((status.progress.as_str(), status.skipped, toy.live_pods()), ("1/1", 1, 0));
}

#[test]
fn node_that_skipped_itself_is_done_in_its_run_whatever_befalls_it() {
    let mut toy = skipped_node();
    let before = entry(&toy, "n1").clone();
    let taint = TaintFacts { key: "k".into(), value: String::new(), effect: "NoSchedule".into() };
    toy.node("n1").taints = vec![taint];
    toy.settle();
    assert_eq!(*entry(&toy, "n1"), before, "it was not left out");
    toy.node("n1").taints.clear();
    toy.wait_seconds(3600);
    toy.settle();
    toy.edit("{script: x, nodeNames: [other], exitCodes: {success: [4]}}");
    toy.settle();
    assert_eq!((entry(&toy, "n1"), toy.created), (&before, 1), "codes mean what they meant");
    toy.edit("{script: y, nodeLabelSelector: {}}");
    toy.settle();
    assert_eq!((state(&toy, "n1"), toy.created), (("Starting", ""), 2), "the next run is another thing");
}

#[test]
fn skip_stays_what_it_is_when_its_node_is_no_part_of_the_next_run() {
    let mut toy = skipped_node();
    toy.node("n1").unschedulable = true;
    toy.edit("{script: y, nodeLabelSelector: {}, unschedulableNodePolicy: Skip, exitCodes: {skipped: [4]}}");
    toy.settle();
    assert_eq!(state(&toy, "n1"), ("Skipped", "Unschedulable"));
    toy.edit("{script: y, nodeNames: [other], exitCodes: {skipped: [4]}}");
    toy.settle();
    assert_eq!((state(&toy, "n1"), entry(&toy, "n1").run), (("Skipped", "ExitCodeSkips"), 1));
}

#[test]
fn success_by_exit_code_is_plain_success_when_its_node_leaves_the_next_run() {
    let mut toy = Toy::new(CODES, 1);
    toy.settle();
    end(&mut toy, "n1", 2);
    toy.settle();
    toy.node("n1").unschedulable = true;
    toy.edit("{script: y, nodeLabelSelector: {}, unschedulableNodePolicy: Skip}");
    toy.settle();
    toy.edit("{script: y, nodeNames: [other]}");
    toy.settle();
    assert_eq!((state(&toy, "n1"), entry(&toy, "n1").exit_code), (("Succeeded", ""), Some(2)));
}

#[test]
fn skip_costs_nothing_of_the_budget() {
    let spec = "{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9, maxFailures: 0, exitCodes: {skipped: [4]}}";
    let mut toy = Toy::new(spec, 3);
    for node in ["n1", "n2", "n3"] {
        toy.settle();
        end(&mut toy, node, 4);
    }
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Skipped".to_owned(); 3], 3));
}

#[test]
fn skip_that_is_told_live_ends_the_node_and_its_runner_goes_on_with_the_next_run() {
    let mut toy = Toy::new(WARM, 1);
    toy.settings = settings_with_sessions();
    toy.settle();
    toy.start_all();
    let mut runner = toy.runner("n1");
    tell(&mut toy, "n1", &mut runner, 4);
    toy.settle();
    assert_eq!(state(&toy, "n1"), ("Skipped", "ExitCodeSkips"));
    assert_eq!((toy.live_pods(), toy.taken.len()), (1, 1));
    assert!(!toy.pod("n1").deleting, "its runner waits");
    runner.history.clear();
    toy.hear("n1", &runner);
    toy.edit(&WARM.replace("script: x", "script: y"));
    toy.settle();
    let (_, order) = toy.orders.pop().expect("the runner should be told to go on");
    runner.go_on(&order);
    tell(&mut toy, "n1", &mut runner, 2);
    toy.settle();
    assert_eq!((state(&toy, "n1"), toy.created), (("Succeeded", ""), 1));
    let entry = entry(&toy, "n1");
    assert_eq!((entry.executions, entry.failures), (2, 0));
}

#[test]
fn other_exit_codes_need_other_pods() {
    let mut toy = Toy::new(WARM, 1);
    toy.settings = settings_with_sessions();
    toy.settle();
    toy.start_all();
    let mut runner = toy.runner("n1");
    tell(&mut toy, "n1", &mut runner, 0);
    toy.settle();
    runner.history.clear();
    toy.hear("n1", &runner);
    toy.edit(&WARM.replace("script: x", "script: y").replace("[2]", "[3]"));
    toy.settle();
    assert!(toy.pod("n1").deleting, "its runner would take the codes for what they meant");
    assert!(toy.orders.is_empty());
}

#[test]
fn execution_that_counts_as_success_is_not_failing_even_if_the_size_limit_cost_it() {
    let mut toy = Toy::new(REPEATED, 1);
    toy.settle();
    toy.start_all();
    let mut runner = toy.runner("n1");
    for (code, failing) in [(2, 0), (5, 1), (2, 0)] {
        runner.execute(code);
        toy.hear("n1", &runner);
        toy.settle();
        assert_eq!((entry(&toy, "n1").exit_code, toy.status().failing), (Some(code), failing));
    }
    let mut status = toy.status().clone();
    status.nodes.get_mut("n1").unwrap().history.clear();
    toy.store(status);
    toy.observed.sessions.clear();
    toy.settle();
    assert_eq!((entry(&toy, "n1").history.len(), toy.status().failing), (0, 0));
}
