//! Tests of how many nodes run at once and how many may fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::SignedDuration;
use proptest::{collection::vec, prelude::*};
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    v1alpha1::NodeState,
};

use super::toy::{Toy, failed, settings_with_sessions, stopped, succeeded};
use crate::observed::{PodFacts, Presence};

fn spec(pace: &str) -> String {
    format!("{{script: x, nodeLabelSelector: {{}}, executionDeadlineSeconds: 9, {pace}}}")
}

/// Ends one pod after the other, the first `failures` of them badly, until none is left to end.
fn run_through(toy: &mut Toy, failures: usize) {
    for ended in 0..20 {
        toy.settle();
        toy.start_all();
        toy.settle();
        let record = if ended < failures { failed(1, "") } else { succeeded("") };
        toy.end_some(&record, 1);
    }
    toy.settle();
}

/// Status and reason of a condition.
fn said(toy: &Toy, type_: ConditionType) -> (&str, &str) {
    let condition = find(&toy.status().conditions, type_).unwrap();
    (&condition.status, &condition.reason)
}

fn completed(toy: &Toy) -> bool {
    toy.status().run.as_ref().unwrap().completion_time.is_some()
}

#[test]
fn a_run_ends_once_more_nodes_failed_than_allowed() {
    for (pace, nodes, failures, made) in [
        ("parallelism: 1, maxFailures: 0", 5, 1, 1),
        ("parallelism: 1, maxFailures: 1", 5, 1, 5),
        ("parallelism: 1, maxFailures: 1", 5, 2, 2),
        ("parallelism: 2, maxFailures: 0", 5, 1, 2),
        ("parallelism: 2, maxFailures: 0", 5, 2, 2),
        // 40% of 5 are 2; 1% of them rounds up to 1.
        ("parallelism: 1, maxFailures: '40%'", 5, 5, 3),
        ("parallelism: 1, maxFailures: '1%'", 5, 5, 2),
        ("parallelism: 1, maxFailures: '100%'", 5, 5, 5),
        ("maxFailures: 0", 5, 5, 5),
        ("parallelism: 1", 5, 5, 5),
    ] {
        let mut toy = Toy::new(&spec(pace), nodes);
        run_through(&mut toy, failures);
        assert_eq!(toy.created, made, "{pace}, {failures} failures");
        let status = toy.status();
        let expected = match () {
            () if made < nodes => ("True", "ErrorBudgetExceeded"),
            () if failures > 0 => ("True", "NodesFailed"),
            () => ("False", "NoFailure"),
        };
        assert_eq!(said(&toy, ConditionType::Failed), expected, "{pace}, {failures} failures");
        assert!(!holds(&status.conditions, ConditionType::Complete) && completed(&toy), "{pace}");
        assert!(!holds(&status.conditions, ConditionType::Progressing), "{pace}");
        assert_eq!((status.desired as usize, status.pending as usize), (nodes, nodes - made), "{pace}");
    }
}

#[test]
fn an_exhausted_run_says_how_many_failed_and_what_to_do() {
    let mut toy = Toy::new(&spec("parallelism: 1, maxFailures: 0"), 3);
    run_through(&mut toy, 1);
    assert_eq!(toy.states(), ["Failed", "Pending", "Pending"]);
    let message = &find(&toy.status().conditions, ConditionType::Failed).unwrap().message;
    assert_eq!(
        message,
        "1 of 3 nodes failed or are unknown, and maxFailures allows 0; 2 nodes were not started; raise maxFailures to go on with them, or fix the script: an edit is a new run"
    );
}

#[test]
fn what_runs_goes_on_to_its_end_before_the_run_ends() {
    let mut toy = Toy::new(&spec("parallelism: 2, maxFailures: 0"), 3);
    toy.settle();
    toy.start_all();
    toy.end("n1", &failed(1, ""));
    toy.settle();
    assert_eq!(toy.states(), ["Failed", "Running", "Pending"]);
    assert!(!holds(&toy.status().conditions, ConditionType::Failed) && !completed(&toy));
    assert_eq!(said(&toy, ConditionType::Progressing), ("True", "ErrorBudgetExceeded"));
    assert!(!toy.pod("n2").deleting);
    toy.end("n2", &succeeded(""));
    toy.settle();
    assert_eq!(toy.states(), ["Failed", "Succeeded", "Pending"]);
    assert!(holds(&toy.status().conditions, ConditionType::Failed) && completed(&toy));
}

#[test]
fn raising_the_budget_goes_on_with_what_was_not_started() {
    let mut toy = Toy::new(&spec("parallelism: 1, maxFailures: 0"), 3);
    run_through(&mut toy, 1);
    toy.edit(&spec("parallelism: 1, maxFailures: 1"));
    toy.settle();
    assert_eq!(toy.states(), ["Failed", "Starting", "Pending"]);
    assert_eq!(said(&toy, ConditionType::Failed), ("False", "RunNotEnded"));
    assert_eq!(said(&toy, ConditionType::Progressing), ("True", "NodesPending"));
    assert!(!completed(&toy));
    run_through(&mut toy, 0);
    assert_eq!(toy.states(), ["Failed", "Succeeded", "Succeeded"]);
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "NodesFailed"));
    assert_eq!((toy.status().run.as_ref().unwrap().number, completed(&toy)), (1, true));
}

#[test]
fn lowering_the_budget_again_ends_the_run_again() {
    let mut toy = Toy::new(&spec("parallelism: 1, maxFailures: 3"), 4);
    toy.settle();
    toy.end("n1", &failed(1, ""));
    toy.settle();
    toy.edit(&spec("parallelism: 1, maxFailures: 0"));
    toy.settle();
    assert!(!completed(&toy), "the second node has begun");
    toy.end("n2", &succeeded(""));
    toy.settle();
    assert_eq!((said(&toy, ConditionType::Failed), toy.created), (("True", "ErrorBudgetExceeded"), 2));
}

#[test]
fn a_fixed_script_is_a_new_run_on_every_node() {
    let mut toy = Toy::new(&spec("parallelism: 1, maxFailures: 0"), 3);
    run_through(&mut toy, 1);
    toy.edit(&spec("parallelism: 1, maxFailures: 0").replace("script: x", "script: y"));
    run_through(&mut toy, 0);
    assert_eq!(toy.states(), ["Succeeded"; 3]);
    assert!(toy.status().recent_runs[0].completion_time.is_some());
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
}

#[test]
fn a_spec_that_is_refused_leaves_an_early_end_as_it_is() {
    let mut toy = Toy::new(&spec("parallelism: 1, maxFailures: 0"), 3);
    run_through(&mut toy, 1);
    toy.edit("{script: x, nodeLabelSelector: {}, maxFailures: 5}");
    toy.settle();
    assert_eq!((said(&toy, ConditionType::Failed), completed(&toy)), (("True", "ErrorBudgetExceeded"), true));
    assert_eq!(toy.created, 1);
}

#[test]
fn nothing_is_tried_again_once_the_budget_is_exceeded() {
    let mut toy = Toy::new(&spec("parallelism: 2, maxFailures: 0"), 2);
    toy.settle();
    toy.end("n1", &failed(1, ""));
    let pod = toy.pod("n2");
    (pod.phase, pod.reason) = ("Failed".into(), "OutOfcpu".into());
    toy.settle();
    toy.wait_seconds(120);
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Failed".to_owned(), "Pending".to_owned()], 2));
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "ErrorBudgetExceeded"));
}

#[test]
fn nodes_that_never_started_are_not_given_up_once_the_budget_is_exceeded() {
    let mut toy = Toy::new(&spec("parallelism: 1, maxFailures: 0"), 4);
    for node in ["n2", "n3", "n4"] {
        toy.node(node).ready = false;
    }
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.wait_seconds(601);
    toy.settle();
    assert_eq!(toy.states(), ["Succeeded", "Unknown", "Pending", "Pending"]);
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "ErrorBudgetExceeded"));
    for node in ["n2", "n3", "n4"] {
        toy.node(node).ready = true;
    }
    toy.settle();
    assert_eq!(toy.states()[1], "Starting", "with the unknown node back the run is within its budget again");
    assert!(!completed(&toy));
}

#[test]
fn an_idle_runner_gets_no_order_once_the_budget_is_exceeded() {
    let idle = "runnerIdleSeconds: 600, parallelism: 1, maxFailures: 0";
    let mut toy = Toy::new(&spec(idle), 2);
    toy.settings = settings_with_sessions();
    for node in ["n1", "n2"] {
        toy.settle();
        let mut runner = toy.runner(node);
        runner.execute(0);
        runner.complete();
        toy.start(node);
        toy.hear(node, &runner);
        toy.settle();
        runner.history.clear();
        toy.hear(node, &runner);
    }
    assert_eq!(toy.states(), ["Succeeded"; 2]);
    toy.edit(&spec(idle).replace("script: x", "script: y"));
    toy.settle();
    assert_eq!((toy.created, toy.orders.iter().any(|(uid, _)| uid == "pod-1")), (2, true));
    toy.terminate("n1", 137, "OOMKilled", "");
    toy.settle();
    assert_eq!(toy.states(), ["Failed", "Pending"]);
    assert!(toy.orders.iter().all(|(uid, _)| uid == "pod-1"));
    assert_eq!(said(&toy, ConditionType::Failed), ("True", "ErrorBudgetExceeded"));
}

const NODES: usize = 6;

/// A run of which anything may go wrong at any time, the operator included.
struct Risk {
    toy: Toy,
    parallelism: usize,
    /// The largest budget that the run had.
    allowed: usize,
    execution: &'static str,
    /// UIDs of pods that may have been given up.
    given_up: BTreeSet<String>,
    /// How nodes ended that are done for good.
    ends: BTreeMap<String, String>,
}

impl Risk {
    fn new(parallelism: usize, allowed: usize) -> Self {
        let toy = Toy::new("{script: x, nodeLabelSelector: {}}", NODES);
        let (given_up, ends) = (BTreeSet::new(), BTreeMap::new());
        let mut risk = Self { toy, parallelism, allowed, execution: "Active", given_up, ends };
        risk.edit();
        risk
    }

    fn edit(&mut self) {
        let Self { parallelism, allowed, execution, .. } = self;
        let pace = format!(
            "parallelism: {parallelism}, maxFailures: {allowed}, podStartDeadlineSeconds: 15, execution: {execution}"
        );
        self.toy.edit(&spec(&pace));
    }

    fn act(&mut self, action: u8, pick: usize) {
        let toy = &mut self.toy;
        let unended: Vec<String> =
            toy.observed.pods.iter().filter(|pod| !pod.has_ended()).map(|pod| pod.node.clone()).collect();
        let node = unended.get(pick % unended.len().max(1));
        match (action, node) {
            (0..=3, _) => _ = toy.step(),
            (4, _) => {
                toy.crash_after = Some(pick % 3);
                toy.step();
                self.restart();
            }
            (5, _) => self.restart(),
            (6, _) if pick.is_multiple_of(5) => toy.wait_seconds(50),
            (6, _) => toy.wait_seconds(7),
            (7, _) => {
                let node = format!("n{}", pick % NODES + 1);
                toy.node(&node).ready ^= true;
            }
            (8, _) if pick.is_multiple_of(9) => {
                self.allowed += 1;
                self.edit();
            }
            (21, _) => {
                self.execution = ["Active", "Paused", "Stopped"][pick % 3];
                self.edit();
            }
            (22, Some(node)) if toy.pod(node).deleting => toy.end(node, &stopped("")),
            (9, Some(node)) => {
                let pod = toy.pod(node);
                if !pod.container.started() {
                    (pod.phase, pod.reason) = ("Failed".into(), "OutOfcpu".into());
                }
            }
            (10, Some(node)) if pick.is_multiple_of(4) => {
                let is_named =
                    toy.observed.previous.as_ref().is_some_and(|status| {
                        status.nodes.get(node).is_some_and(|entry| entry.pod_id.is_some())
                    });
                if is_named {
                    toy.pod(node).presence = Presence::Gone;
                }
            }
            (11..=14, Some(node)) => toy.start(node),
            (15..=17, Some(node)) => toy.end(node, &failed(1, "")),
            (18..=20, Some(node)) => toy.end(node, &succeeded("")),
            _ => {}
        }
        self.check();
    }

    fn restart(&mut self) {
        self.toy.observed.known_answers.clear();
        self.toy.observed.pods.retain(|pod| pod.presence != Presence::Gone);
    }

    fn check(&mut self) {
        // A pod that did not start in time is given up, and one that should have ended long ago. It may start all the same.
        for pod in &self.toy.observed.pods {
            let patience = if pod.container.started() { 15 + 9 + 10 + 60 } else { 15 };
            let until = pod.created.unwrap().checked_add(SignedDuration::from_secs(patience)).unwrap();
            if until <= self.toy.now {
                self.given_up.insert(pod.uid.clone());
            }
        }
        let is_busy = |pod: &PodFacts| !pod.has_ended() && !pod.deleting && !self.given_up.contains(&pod.uid);
        let busy = self.toy.observed.pods.iter().filter(|pod| is_busy(pod)).count();
        assert!(busy <= self.parallelism, "{busy} are busy");
        let Some(status) = &self.toy.observed.previous else { return };
        let is_failure = |state| matches!(state, NodeState::Failed | NodeState::Stopped | NodeState::Unknown);
        let failures = status.nodes.values().filter(|entry| is_failure(entry.node_state()));
        let of_started = failures.filter(|entry| entry.attempts > 0).count();
        assert!(of_started <= self.allowed + self.parallelism, "{of_started} failed: {:#?}", status.nodes);
        for (name, entry) in &status.nodes {
            if matches!(entry.node_state(), NodeState::Succeeded | NodeState::Failed) && entry.executions > 0
            {
                self.ends.entry(name.clone()).or_insert_with(|| entry.state.clone());
            }
            let end = self.ends.get(name).unwrap_or(&entry.state);
            assert_eq!(*end, entry.state, "a node that is done is run again: {entry:#?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_few_are_busy_and_few_fail(
        (parallelism, allowed) in (1..4_usize, 0..3_usize),
        actions in vec((0..23_u8, any::<usize>()), 0..200),
    ) {
        let mut risk = Risk::new(parallelism, allowed);
        for (action, pick) in actions {
            risk.act(action, pick);
        }
        risk.execution = "Active";
        risk.edit();
        let Risk { mut toy, allowed, .. } = risk;
        for node in Arc::make_mut(&mut toy.observed.nodes).values_mut() {
            node.ready = true;
        }
        for _ in 0..NODES * 8 {
            toy.wait_seconds(61);
            toy.step();
            toy.start_all();
            toy.end_all(&succeeded(""));
        }
        toy.settle();
        let status = toy.status();
        let is_exhausted = (status.failed + status.unknown) as usize > allowed;
        prop_assert!(status.pending == 0 || is_exhausted, "{:#?}", status);
        prop_assert!(status.run.as_ref().unwrap().completion_time.is_some());
    }
}
