//! Privileged specs wait for proven policies, and those that were written without are not run.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::condition::{ConditionType, find};

use super::toy::{Toy, succeeded};
use crate::observed::PolicyProof;

const PRIVILEGED: &str =
    "{script: x, nodeLabelSelector: {}, mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9}";
const EDITED: &str =
    "{script: y, nodeLabelSelector: {}, mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9}";
const NORMAL: &str = "{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9}";

fn toy(spec: &str) -> Toy {
    let mut toy = Toy::new(spec, 2);
    toy.observed.namespace_privileged = true;
    toy
}

fn broken() -> PolicyProof {
    PolicyProof::NotProven { why: "binding \"b\" does not exist; apply deploy/".to_owned() }
}

fn proven_at(toy: &Toy, seconds: i64) -> PolicyProof {
    PolicyProof::Proven { since: toy.observed.since + SignedDuration::from_secs(seconds) }
}

/// Status, reason and message of the condition `Accepted`.
fn accepted(toy: &Toy) -> (String, String, String) {
    let condition = find(&toy.status().conditions, ConditionType::Accepted).unwrap();
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

fn reason(toy: &Toy) -> String {
    accepted(toy).1
}

#[test]
fn nothing_privileged_starts_while_policies_are_not_proven() {
    let mut toy = toy(PRIVILEGED);
    toy.observed.policy_proof = broken();
    toy.settle();
    let (status, reason, message) = accepted(&toy);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "PolicyNotProven"));
    assert!(message.contains("binding \"b\" does not exist; apply deploy/"), "{message}");
    assert_eq!((toy.created, toy.status().accepted_generation), (0, None));
    assert!(toy.status().run.is_none());
}

#[test]
fn mode_normal_is_not_affected() {
    let mut toy = toy(NORMAL);
    toy.observed.policy_proof = broken();
    toy.observed.object.created = None;
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.created), ("SpecAccepted", 1));
}

#[test]
fn an_accepted_run_is_held_while_the_proof_is_broken_and_goes_on_after_it() {
    let mut toy = toy(PRIVILEGED);
    toy.settle();
    toy.start_all();
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.created, toy.live_pods()), ("SpecAccepted", 1, 1));
    toy.observed.policy_proof = broken();
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.live_pods()), ("PolicyNotProven", 1));
    toy.end_all(&succeeded("hi"));
    toy.settle();
    // Its answer is stored all the same.
    assert_eq!((toy.states(), toy.created), (vec!["Succeeded".into(), "Pending".into()], 1));
    toy.observed.policy_proof = proven_at(&toy, 1000);
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.created), ("SpecAccepted", 2));
    toy.end_all(&succeeded("hi"));
    toy.settle();
    assert_eq!(toy.states(), ["Succeeded"; 2]);
}

#[test]
fn before_the_first_answer_an_accepted_run_waits_without_a_word() {
    let mut toy = toy(PRIVILEGED);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.observed.policy_proof = PolicyProof::Awaited;
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.created), ("SpecAccepted", 1));
    toy.observed.policy_proof = proven_at(&toy, 0);
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.created), ("SpecAccepted", 2));
}

#[test]
fn what_was_written_before_the_proof_is_written_again() {
    let mut toy = toy(PRIVILEGED);
    // In the same second: the safe side.
    toy.observed.policy_proof = proven_at(&toy, 0);
    toy.settle();
    let (_, reason_, message) = accepted(&toy);
    assert_eq!(reason_, "NotAdmitted");
    assert!(message.contains("this spec of mode Privileged was last written before"), "{message}");
    assert!(message.contains("(since 2027-01-15T08:00:00Z)"), "{message}");
    toy.wait_seconds(3600);
    toy.settle();
    assert_eq!(
        (reason(&toy).as_str(), toy.created, toy.status().accepted_generation),
        ("NotAdmitted", 0, None)
    );
    // Whoever edits it now has been judged.
    toy.observed.object.seen_since = Some(1);
    toy.edit(EDITED);
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.created), ("SpecAccepted", 1));
}

#[test]
fn what_is_created_after_the_proof_is_admitted() {
    let mut toy = toy(PRIVILEGED);
    toy.observed.policy_proof = proven_at(&toy, -1);
    toy.observed.object.generation = 7;
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.created), ("SpecAccepted", 1));
}

#[test]
fn an_edit_while_nobody_looked_counts_as_before_unless_something_was_said_since() {
    let mut toy = toy(PRIVILEGED);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    let proof = proven_at(&toy, 100);
    toy.observed.policy_proof = proof.clone();
    toy.edit(EDITED);
    toy.settle();
    assert_eq!(reason(&toy), "NotAdmitted");
    // What it said at the refusal came after the proof, so a further edit did too, whoever looks at it.
    toy.wait_seconds(200);
    toy.observed.policy_proof = broken();
    toy.observed.object.spec.mode = scriptrunner_api::v1alpha1::Mode::Normal;
    toy.settle();
    toy.observed.policy_proof = proof;
    toy.edit(PRIVILEGED);
    toy.settle();
    assert_eq!(reason(&toy), "SpecAccepted");
}

#[test]
fn generations_of_another_object_prove_nothing() {
    let mut toy = toy(PRIVILEGED);
    toy.settle();
    assert_eq!(toy.status().accepted_generation, Some(1));
    toy.observed.object.uid = "another".into();
    toy.observed.policy_proof = PolicyProof::Proven { since: Timestamp::MAX };
    toy.settle();
    assert_eq!((reason(&toy).as_str(), toy.status().accepted_generation), ("NotAdmitted", None));
}
