//! Scripts and certificates that stand in ConfigMaps: a change is a run, and without them no run begins and none ends.

use std::sync::Arc;

use scriptrunner_api::condition::{ConditionType, find, holds};

use super::toy::{Toy, handed_over, succeeded};
use crate::validate::{Pinned, Source, Sources, validate};

fn spec(more: &str) -> String {
    format!("{{scriptFrom: {{configMapKeyRef: {{name: a, key: k}}}}, nodeLabelSelector: {{}}, {more}}}")
}

fn script(text: &str) -> Sources {
    Sources { script: Some(Source::Text(text.into())), trusted_ca: None }
}

fn missing() -> Sources {
    Sources { script: Some(Source::NoConfigMap), trusted_ca: None }
}

fn toy(spec: &str, nodes: usize) -> Toy {
    let mut toy = Toy::new(spec, nodes);
    toy.observed.sources = script("x");
    toy.settle();
    toy
}

/// The ConfigMap goes, and the operator reads what the run is pinned to.
fn lose(toy: &mut Toy) {
    let run = validate(&toy.observed.object.spec, &toy.observed.sources).unwrap();
    let number = toy.status().run.as_ref().unwrap().number;
    toy.observed.pinned = Some((number, Arc::new(Pinned { spec: run.pinned, inputs: run.inputs })));
    toy.observed.sources = missing();
    toy.settle();
}

fn give(toy: &mut Toy, sources: Sources) {
    toy.observed.pinned = None;
    toy.observed.sources = sources;
    toy.settle();
}

fn run(toy: &Toy) -> (u64, &str) {
    let run = toy.status().run.as_ref().unwrap();
    (run.number, &run.trigger)
}

fn says(toy: &Toy, type_: ConditionType) -> (&str, &str) {
    let condition = find(&toy.status().conditions, type_).unwrap();
    (&condition.status, &condition.reason)
}

fn accepted(toy: &Toy) -> (&str, &str) {
    says(toy, ConditionType::Accepted)
}

#[test]
fn a_changed_text_is_a_run_without_an_edit_and_the_same_text_is_none() {
    let mut toy = toy(&spec(""), 1);
    assert_eq!((run(&toy), toy.created), ((1, "Created"), 1));
    toy.end_all(&succeeded(""));
    toy.settle();
    give(&mut toy, script("x"));
    assert_eq!((run(&toy), toy.created), ((1, "Created"), 1));
    give(&mut toy, script("y"));
    assert_eq!((run(&toy), toy.created, toy.observed.object.generation), ((2, "SpecChanged"), 2, 1));
    assert_eq!(toy.status().run.as_ref().unwrap().script_digest, scriptrunner_api::digest::sha256_hex(b"y"));
    // Into the spec as it is: the same bytes are the same run.
    toy.edit("{script: y, nodeLabelSelector: {}}");
    give(&mut toy, Sources::default());
    assert_eq!(run(&toy).0, 2);
}

#[test]
fn changed_certificates_are_a_run() {
    let spec =
        "{script: x, nodeLabelSelector: {}, dependencies: {trustedCA: {configMapKeyRef: {name: a, key: k}}}}";
    let ca = |text: &str| Sources { script: None, trusted_ca: Some(Source::Text(text.into())) };
    let mut toy = Toy::new(spec, 1);
    give(&mut toy, ca("one"));
    toy.end_all(&succeeded(""));
    give(&mut toy, ca("two"));
    assert_eq!(run(&toy), (2, "SpecChanged"));
    let digest = scriptrunner_api::digest::sha256_hex(b"two");
    assert_eq!(toy.status().run.as_ref().unwrap().trusted_ca_digest, Some(digest));
}

#[test]
fn a_run_goes_on_without_its_certificates() {
    let spec = "{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 100, dependencies: {trustedCA: {configMapKeyRef: {name: a, key: k}}}}";
    let mut toy = Toy::new(spec, 2);
    give(&mut toy, Sources { script: None, trusted_ca: Some(Source::Text("one".into())) });
    assert_eq!(toy.created, 1);
    lose(&mut toy);
    toy.observed.sources = Sources { script: None, trusted_ca: Some(Source::NoConfigMap) };
    toy.end_all(&succeeded(""));
    toy.settle();
    assert_eq!((accepted(&toy), toy.created, run(&toy).0), (("False", "InputMissing"), 2, 1));
}

#[test]
fn nothing_begins_until_there_is_a_script() {
    for (source, reason) in [
        (Source::NoConfigMap, "InputMissing"),
        (Source::NoKey, "InputMissing"),
        (Source::Binary, "InputInvalid"),
        (Source::TooLong(1_000_000), "InputInvalid"),
        (Source::NoRoom, "InputInvalid"),
        (Source::Text("".into()), "InputInvalid"),
    ] {
        let mut toy = Toy::new(&spec(""), 1);
        give(&mut toy, Sources { script: Some(source), trusted_ca: None });
        assert_eq!((accepted(&toy), toy.created), (("False", reason), 0));
        assert_eq!((says(&toy, ConditionType::Progressing), &toy.status().run), (("False", reason), &None));
        assert!(toy.observed.config_maps.is_empty());
        give(&mut toy, script("x"));
        assert_eq!((accepted(&toy), run(&toy), toy.created), (("True", "SpecAccepted"), (1, "Created"), 1));
    }
}

#[test]
fn another_text_than_the_spec_names_is_not_run_in_a_privileged_mode() {
    let digest = scriptrunner_api::digest::sha256_hex(b"x");
    let mut toy = Toy::new(
        &format!(
            "{{scriptFrom: {{configMapKeyRef: {{name: a, key: k}}, sha256: {digest}}}, nodeLabelSelector: {{}}, mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9}}"
        ),
        2,
    );
    toy.observed.namespace_privileged = true;
    give(&mut toy, script("evil"));
    assert_eq!((accepted(&toy), toy.created), (("False", "InputChanged"), 0));
    give(&mut toy, script("x"));
    assert_eq!((accepted(&toy), toy.created), (("True", "SpecAccepted"), 1));
    lose(&mut toy);
    toy.observed.sources = script("evil");
    toy.end_all(&succeeded(""));
    toy.settle();
    assert_eq!((accepted(&toy), toy.created, run(&toy).0), (("False", "InputChanged"), 2, 1));
    let pod = toy.pods_made.last().unwrap().spec.as_ref().unwrap();
    let args = pod.containers[0].args.clone().unwrap();
    assert!(args.contains(&digest), "the second node runs what the first did: {args:?}");
}

#[test]
fn a_run_goes_on_without_its_source_also_on_late_nodes() {
    let mut toy = toy(&spec("parallelism: 1, executionDeadlineSeconds: 100"), 2);
    assert_eq!(toy.created, 1);
    lose(&mut toy);
    assert_eq!(
        (accepted(&toy), says(&toy, ConditionType::Progressing)),
        (("False", "InputMissing"), ("True", "NodesPending"))
    );
    for made in [2, 3] {
        toy.end_all(&succeeded(""));
        toy.add_node("n3");
        toy.settle();
        assert_eq!((run(&toy).0, toy.created), (1, made));
    }
    toy.end_all(&succeeded(""));
    toy.settle();
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
    assert_eq!((accepted(&toy), toy.status().progress.as_str()), (("False", "InputMissing"), "3/3"));
    give(&mut toy, script("x"));
    assert_eq!((accepted(&toy), run(&toy).0, toy.created), (("True", "SpecAccepted"), 1, 3));
    lose(&mut toy);
    give(&mut toy, script("y"));
    assert_eq!(run(&toy), (2, "SpecChanged"));
}

#[test]
fn without_source_and_pinned_inputs_pods_go_on_to_their_end() {
    let mut toy = toy(&spec("parallelism: 1, executionDeadlineSeconds: 100"), 2);
    give(&mut toy, missing());
    toy.end_all(&succeeded(""));
    toy.settle();
    assert_eq!((toy.created, toy.status().succeeded, toy.status().pending), (1, 1, 1));
    give(&mut toy, script("x"));
    assert_eq!((toy.created, run(&toy).0), (2, 1));
}

#[test]
fn an_edit_and_a_rerun_wait_for_the_source() {
    for (more, trigger) in [("args: [b]", "SpecChanged"), ("rerun: {at: '2026-01-01T00:00:00Z'}", "Rerun")] {
        let mut toy = toy(&spec(""), 1);
        toy.end_all(&succeeded(""));
        toy.settle();
        lose(&mut toy);
        toy.edit(&spec(&format!("{more}, ttlSecondsAfterFinished: 0")));
        toy.settle();
        toy.wait_seconds(9);
        toy.settle();
        assert_eq!(
            (accepted(&toy), run(&toy).0, toy.created, toy.deleted),
            (("False", "InputMissing"), 1, 1, false)
        );
        give(&mut toy, script("x"));
        assert_eq!((run(&toy), toy.created), ((2, trigger), 2), "{more}");
    }
}

#[test]
fn a_change_waits_for_the_rerun_if_the_policy_says_so() {
    let mut toy = toy(&spec("updatePolicy: OnRerun"), 1);
    toy.end_all(&succeeded(""));
    toy.settle();
    lose(&mut toy);
    toy.observed.sources = script("y");
    toy.add_node("n2");
    toy.settle();
    assert_eq!((accepted(&toy), run(&toy).0, toy.created), (("True", "SpecAccepted"), 1, 2));
    toy.end_all(&succeeded(""));
    toy.edit(&spec("updatePolicy: OnRerun, rerun: {at: '2026-01-01T00:00:00Z'}"));
    toy.settle();
    assert_eq!((run(&toy), toy.created), ((2, "SpecChanged"), 4));
}

#[test]
fn an_endless_repetition_goes_on_in_the_next_pod_with_and_without_its_source() {
    for is_lost in [false, true] {
        let mut toy = toy(&spec("repeat: {periodSeconds: 1}"), 1);
        if is_lost {
            lose(&mut toy);
        }
        toy.wait_seconds(600);
        toy.end("n1", &handed_over(10));
        toy.settle();
        assert_eq!((toy.status().active, toy.created, run(&toy).0), (1, 2, 1), "{is_lost}");
    }
}
