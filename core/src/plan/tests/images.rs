//! Images that the operator does not allow: no pod, whichever mode, whenever the list came.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::condition::{ConditionType, find};

use super::toy::{Toy, succeeded};
use crate::{
    observed::PolicyProof,
    validate::{AllowedImages, Pinned, validate},
};

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn spec(image: &str, more: &str) -> String {
    format!("{{script: x, nodeLabelSelector: {{}}, image: '{image}', {more}}}")
}

fn allow(toy: &mut Toy, entries: &[&str]) {
    toy.settings.allowed_images = AllowedImages::of(entries.iter().copied()).unwrap();
}

fn settled(spec: &str, entries: &[&str]) -> Toy {
    let mut toy = Toy::new(spec, 2);
    toy.observed.namespace_privileged = true;
    toy.observed.policy_proof = PolicyProof::Proven { since: Timestamp::UNIX_EPOCH };
    allow(&mut toy, entries);
    toy.settle();
    toy
}

/// Reason and message of `Accepted`.
fn accepted(toy: &Toy) -> (&str, &str) {
    let accepted = find(&toy.status().conditions, ConditionType::Accepted).unwrap();
    (&accepted.reason, &accepted.message)
}

#[test]
fn an_image_outside_the_list_makes_no_pod_in_any_mode() {
    let privileged = "parallelism: 100%, executionDeadlineSeconds: 5";
    for more in [
        "mode: Normal".to_owned(),
        format!("mode: Privileged, {privileged}"),
        format!("mode: PrivilegedWithHostFS, {privileged}"),
    ] {
        let other = format!("b.example/x@{DIGEST}");
        let mut toy = settled(&spec(&other, &more), &["a.example/"]);
        assert_eq!(toy.created, 0, "{more}");
        let (reason, message) = accepted(&toy);
        assert_eq!(reason, "ImageNotAllowed", "{more}");
        assert!(message.contains(&other) && message.contains("a.example/*"), "{message}");
        assert!(toy.observed.config_maps.is_empty() && toy.status().run.is_none());
        toy.edit(&spec(&format!("a.example/x@{DIGEST}"), &more));
        toy.settle();
        assert_eq!((accepted(&toy).0, toy.created), ("SpecAccepted", 2), "{more}");
    }
}

#[test]
fn the_operators_own_image_needs_no_entry() {
    let own = settled(&spec("runner", ""), &["a.example/"]);
    let default = settled("{script: x, nodeLabelSelector: {}}", &["a.example/"]);
    assert_eq!((own.created, default.created), (2, 2));
}

#[test]
fn a_list_that_is_shortened_stops_what_has_not_started() {
    let mut toy = settled(&spec("b.example/x", "parallelism: 1, executionDeadlineSeconds: 5"), &[]);
    assert_eq!(toy.created, 1);
    allow(&mut toy, &["a.example/"]);
    toy.end_all(&succeeded(""));
    toy.settle();
    assert_eq!((accepted(&toy).0, toy.created, toy.status().succeeded), ("ImageNotAllowed", 1, 1));
    allow(&mut toy, &["b.example/x"]);
    toy.settle();
    assert_eq!((accepted(&toy).0, toy.created), ("SpecAccepted", 2));
}

#[test]
fn what_waits_for_a_rerun_lets_no_older_image_pass() {
    let mut toy = settled(&spec("b.example/x", "updatePolicy: OnRerun"), &[]);
    assert_eq!(toy.created, 2);
    toy.end_all(&succeeded(""));
    toy.settle();
    let run = validate(&toy.observed.object.spec, &toy.observed.sources).unwrap();
    toy.observed.pinned = Some((1, Arc::new(Pinned { spec: run.pinned, inputs: run.inputs })));
    toy.edit(&spec("a.example/x", "updatePolicy: OnRerun"));
    allow(&mut toy, &["a.example/"]);
    toy.add_node("n3");
    toy.settle();
    let (reason, message) = accepted(&toy);
    assert!(reason == "ImageNotAllowed" && message.contains("\"b.example/x\""), "{reason}: {message}");
    assert_eq!(toy.created, 2);
}
