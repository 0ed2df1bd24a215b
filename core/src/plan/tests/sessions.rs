//! Tests of what sessions bring: progress, ends, acknowledgements.

use k8s_openapi::jiff::SignedDuration;
use scriptrunner_api::v1alpha1::NodeStatus;

use super::{HELLO, runner::ToyRunner, toy::Toy};
use crate::observed::{ContainerFacts, MAX_STORED, Presence};

const TWICE: &str =
    "{script: x, nodeLabelSelector: {}, repeat: {count: 2, periodSeconds: 1}, interruptionPolicy: Report}";
const ENDLESS: &str = "{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 1}}";

/// One node with a pod that was made.
fn started(spec: &str) -> (Toy, ToyRunner) {
    let mut toy = Toy::new(spec, 1);
    toy.settle();
    let runner = toy.runner("n1");
    (toy, runner)
}

fn entry(toy: &Toy) -> &NodeStatus {
    &toy.status().nodes["n1"]
}

fn counts(toy: &Toy) -> (&str, u64, u64, usize) {
    let entry = entry(toy);
    (entry.state.as_str(), entry.executions, entry.failures, entry.history.len())
}

/// Sequence numbers that are acknowledged.
fn acked(toy: &Toy) -> Vec<u64> {
    toy.taken.iter().map(|taken| taken.ack.seq).collect()
}

#[test]
fn results_are_seen_while_the_pod_runs() {
    let (mut toy, mut runner) = started(ENDLESS);
    runner.execute(3);
    runner.begin();
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!(counts(&toy), ("Running", 2, 1, 1), "the runner speaks before the kubelet does");
    assert_eq!((entry(&toy).exit_code, entry(&toy).seq), (Some(3), Some(4)));
    assert_eq!((toy.status().failing, toy.status().connected, acked(&toy)), (1, 1, vec![4]));
    runner.finish(0);
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!(counts(&toy), ("Running", 2, 1, 2));
    assert_eq!((entry(&toy).exit_code, toy.status().failing), (Some(0), 0));
}

#[test]
fn a_final_word_ends_the_entry_and_lets_the_pod_be_deleted() {
    let (mut toy, mut runner) = started(HELLO);
    runner.execute(0);
    runner.complete();
    toy.start_all();
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((counts(&toy), acked(&toy)), (("Succeeded", 1, 0, 1), vec![4]));
    assert_eq!((toy.status().connected, toy.status().active), (0, 0), "only active nodes are connected ones");
    assert!(toy.pod("n1").deleting && entry(&toy).pod_id.is_none());
    let before = entry(&toy).clone();
    toy.terminate("n1", 0, "Completed", &runner.message());
    toy.settle();
    assert_eq!(*entry(&toy), before);
}

#[test]
fn a_failure_told_live_keeps_its_pod_unless_memory_may_have_run_out() {
    let (mut toy, mut runner) = started(HELLO);
    runner.execute(3);
    runner.complete();
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("ScriptFailed", ("Failed", 1, 1, 1)));
    assert!(!toy.pod("n1").deleting);

    let (mut toy, mut runner) = started(HELLO);
    runner.execute(-9);
    runner.complete();
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((counts(&toy), acked(&toy)), (("Running", 1, 1, 1), vec![4]));
    toy.terminate("n1", 1, "OOMKilled", &runner.message());
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("OOMKilled", ("Failed", 1, 1, 1)));
}

#[test]
fn a_stop_waits_for_the_container() {
    let (mut toy, mut runner) = started(TWICE);
    runner.execute(0);
    runner.end("Stopped", "Interrupted");
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((counts(&toy), acked(&toy)), (("Running", 1, 0, 1), vec![4]));
    toy.pod("n1").deleting = true;
    toy.terminate("n1", 6, "Error", &runner.message());
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("PodDeleted", ("Stopped", 1, 0, 1)));
}

#[test]
fn a_cut_message_and_a_session_are_united() {
    let (mut toy, mut runner) = started(TWICE);
    runner.execute(0);
    runner.execute(0);
    runner.history[0].stdout = "long ".repeat(1000);
    runner.complete();
    let uncut = runner.history.clone();
    toy.terminate("n1", 0, "Completed", &runner.message());
    toy.settle();
    assert_ne!(entry(&toy).history, uncut);
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((counts(&toy), &entry(&toy).history), (("Succeeded", 2, 0, 2), &uncut));
    assert_eq!(acked(&toy), [6], "also of a pod whose end was stored before");
}

#[test]
fn an_unreadable_message_leaves_the_last_word_to_the_session() {
    let (mut toy, mut runner) = started(TWICE);
    runner.execute(0);
    runner.execute(1);
    runner.complete();
    toy.hear("n1", &runner);
    toy.terminate("n1", 1, "Error", "scribbled");
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("ScriptFailed", ("Failed", 2, 1, 2)));
}

#[test]
fn what_a_killed_pod_told_is_kept_and_one_execution_is_lost() {
    for (begun, name) in [(true, "the one that had begun"), (false, "one that nobody heard of")] {
        let executions = if begun { 2 } else { 3 };
        let lost = |end: &dyn Fn(&mut Toy)| {
            let (mut toy, mut runner) = started(
                "{script: x, nodeLabelSelector: {}, repeat: {count: 9, periodSeconds: 1}, interruptionPolicy: Report}",
            );
            runner.execute(0);
            if begun {
                runner.begin();
            } else {
                runner.execute(0);
            }
            toy.start_all();
            toy.hear("n1", &runner);
            toy.settle();
            end(&mut toy);
            toy.settle();
            toy
        };
        let no_message = lost(&|toy| toy.terminate("n1", 137, "Error", ""));
        let gone = lost(&|toy| toy.pod("n1").presence = Presence::Gone);
        let unknown = lost(&|toy| toy.observed.pods.clear());
        let forgotten = lost(&|toy| {
            toy.observed.sessions.clear();
            toy.observed.pods.clear();
        });
        for (toy, reason) in
            [(no_message, "NoMessage"), (gone, "PodDeleted"), (unknown, "PodLost"), (forgotten, "PodLost")]
        {
            let results = if begun { 1 } else { 2 };
            assert_eq!(counts(&toy), ("Unknown", executions, 0, results), "{reason}: {name}");
            assert_eq!((entry(&toy).reason.as_str(), entry(&toy).exit_code), (reason, None));
        }
    }
}

#[test]
fn what_is_heard_together_with_an_unseen_end_is_taken_in_with_it() {
    let (mut toy, mut runner) = started(TWICE);
    runner.execute(1);
    runner.begin();
    toy.hear("n1", &runner);
    toy.terminate("n1", 137, "Error", "");
    toy.step();
    assert_eq!((counts(&toy), acked(&toy)), (("Unknown", 2, 1, 1), vec![4]));
}

#[test]
fn the_word_of_another_run_is_not_the_last_one() {
    let (mut toy, mut runner) = started(HELLO);
    toy.start_all();
    toy.settle();
    runner.execute(0);
    runner.complete();
    runner.record.run += 1;
    toy.hear("n1", &runner);
    toy.observed.pods.clear();
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("PodLost", ("Unknown", 1, 0, 0)));
}

#[test]
fn the_last_word_of_a_pod_that_vanished_is_its_outcome() {
    let (mut toy, mut runner) = started(HELLO);
    toy.start_all();
    toy.settle();
    runner.execute(0);
    runner.complete();
    toy.hear("n1", &runner);
    toy.observed.pods.clear();
    toy.settle();
    assert_eq!(counts(&toy), ("Succeeded", 1, 0, 1));
}

#[test]
fn a_runner_that_speaks_has_started_whatever_the_kubelet_says() {
    let (mut toy, mut runner) = started(HELLO);
    runner.begin();
    toy.hear("n1", &runner);
    let pod = toy.pod("n1");
    (pod.presence, pod.deleting) = (Presence::Gone, true);
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("PodDeleted", ("Unknown", 1, 0, 0)));
    assert_eq!(toy.created, 1, "and is not replaced");
}

#[test]
fn a_runner_that_spoke_has_started_also_for_the_next_process() {
    let (mut toy, runner) = started(HELLO);
    toy.hear("n1", &runner);
    toy.settle();
    toy.observed.sessions.clear();
    toy.wait_seconds(3600);
    toy.settle();
    assert_eq!(counts(&toy), ("Running", 0, 0, 0));
    let pod = toy.pod("n1");
    (pod.presence, pod.deleting) = (Presence::Gone, true);
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("PodDeleted", ("Unknown", 1, 0, 0)));
    assert_eq!(toy.created, 1, "and is not replaced");
}

#[test]
fn a_snapshot_of_another_run_or_attempt_is_ignored() {
    for change in [(|runner: &mut ToyRunner| runner.record.run = 7) as fn(&mut ToyRunner), |runner| {
        runner.record.attempt = 7;
    }] {
        let (mut toy, mut runner) = started(HELLO);
        runner.execute(0);
        runner.complete();
        change(&mut runner);
        toy.hear("n1", &runner);
        toy.settle();
        assert_eq!((counts(&toy), acked(&toy)), (("Starting", 0, 0, 0), vec![]));
    }
}

#[test]
fn a_pod_that_was_given_up_is_not_acknowledged_before_its_end_counts() {
    let (mut toy, mut runner) = started("{script: x, nodeLabelSelector: {}, podStartDeadlineSeconds: 30}");
    toy.wait_seconds(31);
    toy.settle();
    runner.begin();
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((entry(&toy).reason.as_str(), acked(&toy)), ("StartDeadlineExceeded", vec![]));
    runner.finish(0);
    runner.complete();
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((counts(&toy), acked(&toy)), (("Succeeded", 1, 0, 1), vec![4]));
}

#[test]
fn numbers_that_nobody_can_have_overflow_nothing() {
    for state in ["Running", "Succeeded"] {
        let (mut toy, mut runner) = started(ENDLESS);
        runner.execute(1);
        let record = &mut runner.record;
        (record.executions, record.failures, record.serial, record.seq) =
            (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        record.state = state.into();
        toy.hear("n1", &runner);
        toy.settle();
        toy.terminate("n1", 1, "Error", &runner.message());
        toy.settle();
        toy.wait_seconds(61);
        toy.settle();
        toy.terminate("n1", 1, "Error", "");
        toy.settle();
        assert_eq!((entry(&toy).executions, entry(&toy).failures), (MAX_STORED, MAX_STORED));
    }
}

#[test]
fn an_endless_repetition_goes_on_only_when_its_container_ended() {
    for (state, reason) in [("Running", "NoSession"), ("Failed", "RunnerFailed"), ("Succeeded", "")] {
        let (mut toy, mut runner) = started(ENDLESS);
        runner.execute(0);
        runner.end(state, reason);
        toy.hear("n1", &runner);
        toy.wait_seconds(600);
        toy.settle();
        assert_eq!((counts(&toy), toy.created, acked(&toy)), (("Running", 1, 0, 1), 1, vec![4]));
        assert!(entry(&toy).pod_id.is_some(), "its pod is not over");
        toy.terminate("n1", 0, "Completed", &runner.message());
        toy.settle();
        assert_eq!((toy.created, toy.first_serial("n1"), toy.status().active), (2, 2, 1));
    }
}

#[test]
fn an_older_runs_pod_counts_once_and_the_next_begins_when_its_container_has_ended() {
    let edited = "{script: y, nodeLabelSelector: {}, repeat: {count: 9, periodSeconds: 1}}";
    for told in [true, false] {
        let (mut toy, mut runner) = started(ENDLESS);
        runner.execute(1);
        runner.execute(0);
        runner.begin();
        toy.hear("n1", &runner);
        toy.start_all();
        toy.settle();
        toy.edit(edited);
        toy.settle();
        // A second edit while the first pod still runs must not lose it.
        toy.edit("{script: z, nodeLabelSelector: {}, repeat: {count: 9, periodSeconds: 1}}");
        toy.settle();
        assert_eq!((counts(&toy), toy.created), (("Pending", 3, 1, 2), 1));
        assert!(acked(&toy).is_empty() && toy.pod("n1").deleting);
        runner.finish(143);
        runner.end("Stopped", "Interrupted");
        if told {
            toy.hear("n1", &runner);
            toy.settle();
            assert_eq!((counts(&toy), toy.created), (("Pending", 3, 2, 3), 1), "two pods at once");
        } else {
            toy.observed.sessions.clear();
        }
        toy.terminate("n1", 6, "Error", &runner.message());
        toy.settle();
        assert_eq!((counts(&toy), toy.created), (("Starting", 3, 2, 3), 2), "told live: {told}");
    }
}

#[test]
fn an_older_runs_pod_that_vanishes_loses_one_execution_at_most() {
    for (begun, executions) in [(true, 2), (false, 3)] {
        let (mut toy, mut runner) = started(ENDLESS);
        runner.execute(0);
        if begun {
            runner.begin();
        } else {
            runner.execute(0);
        }
        toy.hear("n1", &runner);
        toy.start_all();
        toy.settle();
        toy.edit("{script: y, nodeLabelSelector: {}}");
        toy.step();
        toy.step();
        toy.observed.sessions.clear();
        toy.observed.pods.clear();
        toy.settle();
        assert_eq!((counts(&toy).1, toy.created), (executions, 2));
    }
}

#[test]
fn a_pod_that_starts_after_it_was_given_up_holds_the_next_until_it_has_ended() {
    let (mut toy, mut runner) = started("{script: x, nodeLabelSelector: {}, podStartDeadlineSeconds: 30}");
    toy.wait_seconds(31);
    toy.step();
    toy.start_all();
    runner.begin();
    toy.hear("n1", &runner);
    toy.settle();
    assert!(toy.pod("n1").deleting, "a pod that was given up is not kept for a look");
    toy.edit("{script: y, nodeLabelSelector: {}}");
    toy.settle();
    assert_eq!((counts(&toy).0, toy.created, acked(&toy)), ("Pending", 1, vec![]));
    toy.terminate("n1", 6, "Error", "");
    toy.settle();
    assert_eq!((counts(&toy).0, toy.created), ("Starting", 2));
}

#[test]
fn an_execution_lost_before_does_not_hide_the_next_loss() {
    let (mut toy, mut runner) = started(ENDLESS);
    runner.begin();
    toy.terminate("n1", 137, "Error", &runner.message());
    toy.wait_seconds(61);
    toy.settle();
    assert_eq!((counts(&toy).1, toy.created), (1, 2));
    let runner = toy.runner("n1");
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((counts(&toy), acked(&toy)), (("Running", 1, 0, 0), vec![1]));
    toy.observed.pods.clear();
    toy.settle();
    assert_eq!(counts(&toy).1, 2);
}

#[test]
fn what_no_entry_contains_is_not_acknowledged() {
    let (mut toy, mut runner) = started(TWICE);
    runner.execute(0);
    runner.execute(0);
    runner.complete();
    toy.terminate("n1", 0, "Completed", &runner.message());
    toy.settle();
    runner.record.serial += 1;
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((counts(&toy), acked(&toy)), (("Succeeded", 2, 0, 2), vec![]), "it was done before");

    let (mut toy, mut runner) = started(TWICE);
    runner.execute(0);
    toy.hear("n1", &runner);
    toy.replace_node("n1", "another");
    toy.step();
    assert!(acked(&toy).is_empty(), "another node took the name");
}

#[test]
fn a_cut_message_that_comes_with_the_last_word_cuts_nothing() {
    let (mut toy, mut runner) = started(TWICE);
    runner.execute(1);
    runner.history[0].stdout = "long ".repeat(1000);
    runner.execute(0);
    let begun = runner.clone();
    runner.complete();
    toy.hear("n1", &begun);
    toy.terminate("n1", 1, "Error", &runner.message());
    toy.step();
    assert_eq!((counts(&toy), &entry(&toy).history), (("Failed", 2, 1, 2), &runner.history));
}

#[test]
fn a_second_start_of_the_runner_takes_nothing_from_the_first() {
    for heard_before in [true, false] {
        let (mut toy, mut first) = started(TWICE);
        first.execute(1);
        first.begin();
        toy.hear("n1", &first);
        if heard_before {
            toy.settle();
        }
        let mut second = toy.runner("n1");
        second.record.boot = "other".into();
        second.end("Unknown", "Restarted");
        toy.terminate("n1", 5, "Error", &second.message());
        toy.step();
        assert_eq!((entry(&toy).reason.as_str(), counts(&toy)), ("Restarted", ("Unknown", 2, 1, 1)));
    }
}

#[test]
fn there_are_never_more_failures_than_executions() {
    let (mut toy, mut runner) = started(TWICE);
    runner.execute(1);
    runner.record.failures = 9;
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!(counts(&toy), ("Running", 1, 1, 1));
}

#[test]
fn a_lower_number_takes_nothing_back() {
    let (mut toy, mut runner) = started(ENDLESS);
    runner.execute(1);
    let old = runner.clone();
    runner.execute(0);
    toy.hear("n1", &runner);
    toy.start_all();
    toy.settle();
    let before = entry(&toy).clone();
    toy.hear("n1", &old);
    toy.settle();
    assert_eq!((entry(&toy), acked(&toy)), (&before, vec![3]));
}

#[test]
fn a_slot_is_free_when_the_container_has_ended_and_not_by_the_runners_word() {
    let spec = "{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9}";
    let mut toy = Toy::new(spec, 2);
    toy.settle();
    toy.start_all();
    let mut runner = toy.runner("n1");
    runner.execute(0);
    runner.complete();
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Succeeded".to_owned(), "Pending".to_owned()], 1));
    toy.terminate("n1", 0, "Completed", &runner.message());
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Succeeded".to_owned(), "Starting".to_owned()], 2));
}

#[test]
fn what_is_disconnected_is_not_counted_as_connected() {
    let (mut toy, runner) = started(ENDLESS);
    toy.hear("n1", &runner);
    toy.settle();
    assert_eq!(toy.status().connected, 1);
    for session in toy.observed.sessions.values_mut() {
        session.connected = false;
    }
    toy.settle();
    assert_eq!((toy.status().connected, acked(&toy)), (0, vec![1]));
    toy.now = toy.now.checked_add(SignedDuration::from_hours(1)).unwrap();
    assert_eq!(toy.pod("n1").container, ContainerFacts::Absent);
}
