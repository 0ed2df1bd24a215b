//! Tests of reruns, of edits that wait for one, and of what is cleaned up after the end.

use crate::validate::Sources;
use std::sync::Arc;

use scriptrunner_api::condition::{ConditionType, find, holds};

use super::toy::{Toy, failed, succeeded};
use crate::{
    observed::Presence,
    validate::{Pinned, validate},
};

fn spec(more: &str) -> String {
    format!("{{script: x, nodeLabelSelector: {{}}, {more}}}")
}

fn rerun(minute: u32, more: &str) -> String {
    spec(&format!("rerun: {{at: '2026-01-01T00:{minute:02}:00Z', {more}}}"))
}

/// A run of three nodes: one succeeded, one failed, one unknown.
fn ended() -> Toy {
    let mut toy = Toy::new(&spec("mode: Normal"), 3);
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.end("n1", &succeeded("a"));
    toy.end("n2", &failed(1, "b"));
    toy.terminate("n3", 255, "Unknown", "");
    toy.settle();
    assert_eq!(toy.states(), ["Succeeded", "Failed", "Unknown"]);
    toy
}

fn runs(toy: &Toy) -> Vec<(u64, u64)> {
    toy.status().nodes.values().map(|entry| (entry.run, entry.held_for)).collect()
}

fn run(toy: &Toy) -> (u64, &str) {
    let run = toy.status().run.as_ref().unwrap();
    (run.number, &run.trigger)
}

/// Pods that are made for the current run.
fn made(toy: &Toy) -> Vec<&str> {
    let number = run(toy).0;
    toy.observed.pods.iter().filter(|pod| pod.run == number).map(|pod| pod.node.as_str()).collect()
}

#[test]
fn a_rerun_is_for_the_nodes_in_its_scope() {
    for (more, nodes) in [
        ("", &["n1", "n2", "n3"][..]),
        ("scope: All", &["n1", "n2", "n3"]),
        ("scope: Failed", &["n2"]),
        ("scope: Unknown", &["n3"]),
        ("scope: Skipped", &[]),
        ("nodeNames: [n1, n3, other]", &["n1", "n3"]),
        ("scope: Failed, nodeNames: [n1]", &[]),
        ("scope: Failed, nodeNames: [n2]", &["n2"]),
    ] {
        let mut toy = ended();
        toy.edit(&rerun(1, more));
        toy.settle();
        assert_eq!((run(&toy), made(&toy)), ((2, "Rerun"), nodes.to_vec()), "{more}");
        assert_eq!(toy.status().desired, 3, "{more}");
        toy.end_all(&succeeded("c"));
        toy.settle();
        assert_eq!(toy.status().progress, "3/3", "{more}");
        assert!(toy.status().run.as_ref().unwrap().completion_time.is_some(), "{more}");
        let counts = |toy: &Toy| (toy.status().succeeded, toy.status().failed, toy.status().unknown);
        let expected = (
            1 + u32::from(nodes.contains(&"n2")) + u32::from(nodes.contains(&"n3")),
            u32::from(!nodes.contains(&"n2")),
            u32::from(!nodes.contains(&"n3")),
        );
        assert_eq!(counts(&toy), expected, "{more}");
    }
}

#[test]
fn nodes_out_of_scope_keep_their_entries_and_are_never_brought_in() {
    let mut toy = ended();
    let before = toy.status().nodes["n1"].clone();
    toy.edit(&rerun(1, "scope: Failed"));
    toy.settle();
    assert_eq!(runs(&toy), [(1, 2), (2, 0), (1, 2)]);
    let held = &toy.status().nodes["n1"];
    assert_eq!((&held.history, held.executions, &held.state), (&before.history, 1, &before.state));
    toy.node("n1").labels.insert("a".into(), "b".into());
    toy.node("n3").ready = false;
    toy.settle();
    toy.node("n3").ready = true;
    toy.settle();
    assert_eq!(made(&toy), ["n2"]);
    toy.edit(&format!(
        "{{script: x, nodeNames: [n2], {}",
        &rerun(1, "scope: Failed")["{script: x, nodeLabelSelector: {}, ".len()..]
    ));
    toy.settle();
    toy.edit(&rerun(1, "scope: Failed"));
    toy.settle();
    assert_eq!((made(&toy), run(&toy).0), (vec!["n2"], 2), "a node that stops matching and matches again");
    assert_eq!(toy.status().desired, 3);
}

#[test]
fn only_a_later_time_runs_again() {
    let mut toy = ended();
    toy.edit(&rerun(5, ""));
    toy.settle();
    assert_eq!(run(&toy), (2, "Rerun"));
    toy.end_all(&succeeded(""));
    toy.settle();
    for spec in [rerun(5, ""), rerun(4, ""), rerun(5, "scope: Failed"), spec("mode: Normal"), rerun(5, "")] {
        toy.edit(&spec);
        toy.settle();
        assert_eq!(run(&toy).0, 2, "{spec}");
    }
    toy.edit(&rerun(6, ""));
    toy.settle();
    assert_eq!(run(&toy), (3, "Rerun"));
    let at = toy.status().run.as_ref().unwrap().rerun_at.as_ref().unwrap();
    assert_eq!(at.0.to_string(), "2026-01-01T00:06:00Z");
}

#[test]
fn a_part_of_a_second_is_no_later_time() {
    let mut toy = ended();
    toy.edit(&spec("rerun: {at: '2026-01-01T00:00:00.7Z'}"));
    toy.settle();
    assert_eq!(run(&toy).0, 2, "and not for ever again");
}

#[test]
fn creation_takes_the_time_as_its_own_and_ignores_the_scope() {
    let mut toy = Toy::new(&rerun(5, "scope: Failed"), 2);
    toy.settle();
    assert_eq!((run(&toy), made(&toy)), ((1, "Created"), vec!["n1", "n2"]));
    toy.end_all(&succeeded(""));
    toy.settle();
    toy.edit(&rerun(5, "scope: All"));
    toy.settle();
    assert_eq!(run(&toy).0, 1);
}

#[test]
fn an_edit_together_with_a_rerun_is_one_run_of_all_nodes() {
    let mut toy = ended();
    toy.edit(&rerun(1, "scope: Failed").replace("script: x", "script: y"));
    toy.settle();
    assert_eq!((run(&toy), made(&toy)), ((2, "SpecChanged"), vec!["n1", "n2", "n3"]));
    toy.end_all(&succeeded(""));
    toy.settle();
    assert_eq!(run(&toy).0, 2);
}

#[test]
fn a_rerun_supersedes_what_still_runs() {
    let mut toy = Toy::new(&spec("mode: Normal"), 2);
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.edit(&rerun(1, "nodeNames: [n1]"));
    toy.settle();
    assert!(toy.pod("n1").deleting && toy.pod("n2").deleting, "a new run stops the one before");
    toy.end_all(&super::toy::stopped(""));
    toy.settle();
    assert_eq!(made(&toy), ["n1"]);
    let left_out = &toy.status().nodes["n2"];
    assert_eq!(
        (left_out.state.as_str(), left_out.reason.as_str(), left_out.executions),
        ("Skipped", "OutOfScope", 1)
    );
    toy.end("n1", &succeeded(""));
    toy.settle();
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
}

#[test]
fn a_rerun_goes_on_with_nodes_that_had_not_ended() {
    let pace = "parallelism: 1, executionDeadlineSeconds: 9, maxFailures: 0";
    let mut toy = Toy::new(&spec(pace), 3);
    toy.settle();
    toy.end("n1", &failed(1, ""));
    toy.settle();
    assert_eq!(toy.states(), ["Failed", "Pending", "Pending"]);
    toy.edit(&spec(&format!("{pace}, rerun: {{at: '2026-01-01T00:01:00Z', scope: Failed}}")));
    for _ in 0..3 {
        toy.settle();
        toy.end_all(&succeeded(""));
    }
    toy.settle();
    assert_eq!((run(&toy).0, toy.states()), (2, vec!["Succeeded".to_owned(); 3]));
}

#[test]
fn failures_that_a_rerun_leaves_out_are_none_of_its_budget() {
    let pace = "executionDeadlineSeconds: 9, maxFailures: 0";
    let mut toy = Toy::new(&spec(pace), 3);
    toy.settle();
    toy.end("n1", &failed(1, ""));
    toy.terminate("n2", 255, "Unknown", "");
    toy.end("n3", &succeeded(""));
    toy.settle();
    toy.edit(&spec(&format!("{pace}, rerun: {{at: '2026-01-01T00:01:00Z', scope: Failed}}")));
    toy.settle();
    assert_eq!(made(&toy), ["n1"]);
    toy.end("n1", &succeeded(""));
    toy.settle();
    assert_eq!(find(&toy.status().conditions, ConditionType::Failed).unwrap().reason, "NodesFailed");
}

#[test]
fn a_rerun_of_a_sample_is_of_the_nodes_in_it() {
    let sample = "nodeSample: 3";
    let mut toy = Toy::new(&spec(sample), 9);
    toy.settle();
    let drawn: Vec<String> = made(&toy).into_iter().map(str::to_owned).collect();
    toy.end(&drawn[0], &failed(1, ""));
    toy.end_all(&succeeded(""));
    toy.settle();
    toy.edit(&spec(&format!("{sample}, rerun: {{at: '2026-01-01T00:01:00Z', scope: Failed}}")));
    toy.settle();
    assert_eq!(made(&toy), [drawn[0].as_str()]);
    assert_eq!(toy.status().desired, 3);
}

#[test]
fn every_crash_while_a_rerun_begins_leads_to_the_same() {
    for crash in 0..6 {
        let mut toy = ended();
        toy.edit(&rerun(1, "scope: Failed"));
        toy.crash_after = Some(crash);
        toy.step();
        toy.observed.known_answers.clear();
        toy.settle();
        assert_eq!((made(&toy), runs(&toy)), (vec!["n2"], vec![(1, 2), (2, 0), (1, 2)]), "{crash}");
    }
}

/// What the operator reads of the current run's ConfigMap while an edit waits.
fn read_pinned(toy: &mut Toy, of: &str) {
    let valid = validate(&serde_saphyr::from_str(of).unwrap(), &Sources::default()).unwrap();
    let pinned = Pinned { spec: valid.pinned, inputs: valid.inputs };
    toy.observed.pinned = Some((run(toy).0, Arc::new(pinned)));
}

#[test]
fn an_edit_waits_for_a_rerun_and_the_run_goes_on_as_it_was() {
    let first = spec("updatePolicy: OnRerun");
    let mut toy = Toy::new(&first, 1);
    toy.settle();
    toy.end("n1", &succeeded("old"));
    toy.settle();
    let edited = first.replace("script: x", "script: y");
    toy.edit(&edited);
    read_pinned(&mut toy, &first);
    toy.settle();
    assert_eq!((run(&toy), toy.created), ((1, "Created"), 1));
    let accepted = find(&toy.status().conditions, ConditionType::Accepted).unwrap();
    assert!(accepted.message.contains("waits for a later rerun.at"), "{}", accepted.message);
    toy.add_node("n2");
    toy.settle();
    assert_eq!(
        (made(&toy), toy.created),
        (vec!["n1", "n2"], 2),
        "a node that comes late is run as the others were"
    );
    let digest = |toy: &Toy| {
        let pod = toy.pods_made.last().unwrap().spec.as_ref().unwrap().containers[0].args.clone().unwrap();
        pod[pod.iter().position(|arg| arg == "--script-sha256").unwrap() + 1].clone()
    };
    assert_eq!(digest(&toy), toy.status().run.as_ref().unwrap().script_digest);
    toy.end("n2", &succeeded("old"));
    toy.settle();
    toy.edit(&edited.replace("updatePolicy", "rerun: {at: '2026-01-01T00:01:00Z'}, updatePolicy"));
    toy.settle();
    assert_eq!((run(&toy), made(&toy)), ((2, "SpecChanged"), vec!["n1", "n2"]));
    assert_ne!(digest(&toy), scriptrunner_api::digest::sha256_hex(b"x"));
}

#[test]
fn an_edit_that_waited_runs_when_the_policy_lets_it() {
    let first = spec("updatePolicy: OnRerun");
    let mut toy = Toy::new(&first, 1);
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.settle();
    toy.edit(&first.replace("script: x", "script: y"));
    read_pinned(&mut toy, &first);
    toy.settle();
    toy.edit(&first.replace("script: x", "script: y").replace("OnRerun", "Rerun"));
    toy.observed.pinned = None;
    toy.settle();
    assert_eq!(run(&toy), (2, "SpecChanged"));
}

#[test]
fn an_edit_that_waits_needs_what_the_run_is_pinned_to() {
    let first = spec("updatePolicy: OnRerun");
    let mut toy = Toy::new(&first, 1);
    toy.settle();
    toy.edit(&first.replace("script: x", "script: y"));
    toy.settle();
    let accepted = find(&toy.status().conditions, ConditionType::Accepted).unwrap();
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "InputChanged"));
    assert!(accepted.message.contains("set rerun.at"), "{}", accepted.message);
}

#[test]
fn an_object_that_has_ended_is_deleted_after_its_time() {
    for (record, seconds) in [(succeeded(""), 100), (failed(1, ""), 100), (succeeded(""), 0)] {
        let mut toy = Toy::new(&spec(&format!("ttlSecondsAfterFinished: {seconds}")), 2);
        toy.settle();
        toy.wait_seconds(1000);
        toy.start_all();
        toy.end("n1", &record);
        toy.settle();
        assert!(!toy.deleted);
        toy.end("n2", &record);
        toy.settle();
        assert_eq!(toy.deleted, seconds == 0);
        if seconds > 0 {
            toy.wait_seconds(seconds - 1);
            toy.step();
            assert!(!toy.deleted && toy.next().is_some());
            toy.wait_seconds(1);
            toy.step();
            assert!(toy.deleted);
        }
    }
}

#[test]
fn what_has_not_ended_is_not_deleted() {
    let ttl = "ttlSecondsAfterFinished: 100";
    let mut toy = Toy::new(&spec(ttl), 1);
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.settle();
    toy.add_node("n2");
    toy.settle();
    toy.start("n2");
    toy.settle();
    toy.wait_seconds(1000);
    toy.step();
    assert!(!toy.deleted, "a late node is at work");
    toy.edit(&spec(&format!("{ttl}, execution: Stopped")));
    toy.settle();
    toy.end("n2", &super::toy::stopped(""));
    toy.settle();
    toy.wait_seconds(1000);
    toy.step();
    assert!(!toy.deleted, "it is stopped to go on");
}

/// Which pods are left when one node succeeded, one failed and one is unknown, all ended.
fn left(policy: &str, seconds: i64) -> Vec<String> {
    let mut toy = Toy::new(&spec(&format!("podCleanupPolicy: {policy}")), 3);
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.end("n2", &failed(1, ""));
    toy.terminate("n3", 255, "Unknown", "");
    toy.settle();
    toy.wait_seconds(seconds);
    toy.settle();
    let left = toy.observed.pods.iter().filter(|pod| pod.presence == Presence::Present);
    left.map(|pod| pod.node.clone()).collect()
}

#[test]
fn ended_pods_are_cleaned_up_as_the_policy_says() {
    assert_eq!(left("OnSuccess", 0), ["n2"]);
    assert_eq!(left("OnSuccess", 86_399), ["n2"]);
    assert_eq!(left("OnSuccess", 86_400), [""; 0], "not for ever");
    assert_eq!(left("Always", 0), [""; 0]);
    assert_eq!(left("Never", 0), ["n1", "n2", "n3"]);
    assert_eq!(left("Never", 1_000_000), ["n1", "n2", "n3"]);
}

#[test]
fn a_pod_that_is_kept_is_not_deleted_while_it_ends() {
    for (policy, is_deleted) in [("Never", false), ("OnSuccess", true)] {
        let mut toy = Toy::new(&spec(&format!("podCleanupPolicy: {policy}")), 1);
        toy.settings = super::toy::settings_with_sessions();
        toy.settle();
        toy.start("n1");
        let mut runner = toy.runner("n1");
        runner.execute(0);
        runner.complete();
        toy.hear("n1", &runner);
        toy.settle();
        assert_eq!(toy.states(), ["Succeeded"]);
        assert_eq!(toy.pod("n1").deleting, is_deleted, "{policy}");
    }
}

#[test]
fn pods_that_are_kept_go_with_a_newer_run() {
    let mut toy = Toy::new(&spec("podCleanupPolicy: Never"), 1);
    toy.settle();
    toy.end("n1", &succeeded(""));
    toy.settle();
    toy.edit(&spec("podCleanupPolicy: Never").replace("script: x", "script: y"));
    toy.settle();
    assert_eq!(toy.observed.pods.iter().filter(|pod| pod.presence == Presence::Present).count(), 1);
    assert_eq!(made(&toy), ["n1"]);
}
