//! Who asked for a run.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use scriptrunner_api::{
    condition::{ConditionType, find},
    digest::sha256_hex,
    labels,
};

use super::toy::{Toy, succeeded};
use crate::{
    observed::{MAX_REQUESTER_BYTES, requested_by},
    plan::{Action, plan},
    status::events::notices,
    validate::{Source, Sources, validate},
};

fn toy(spec: &str, who: &str) -> Toy {
    let mut toy = Toy::new(spec, 1);
    toy.observed.object.requested_by = Some(who.to_owned());
    toy.settle();
    toy
}

fn edit(toy: &mut Toy, spec: &str, who: Option<&str>) {
    toy.edit(spec);
    toy.observed.object.requested_by = who.map(ToOwned::to_owned);
    toy.settle();
}

fn run(toy: &Toy) -> (u64, Option<&str>) {
    let run = toy.status().run.as_ref().unwrap();
    (run.number, run.requested_by.as_deref())
}

#[test]
fn each_run_says_who_wrote_the_spec_that_it_began_with() {
    let mut toy = toy("{script: x, nodeLabelSelector: {}}", "alice");
    assert_eq!(run(&toy), (1, Some("alice")));
    toy.end_all(&succeeded(""));
    toy.settle();
    // Bob changes how fast it runs, not what.
    edit(&mut toy, "{script: x, nodeLabelSelector: {}, historyLimit: 2}", Some("bob"));
    assert_eq!(run(&toy), (1, Some("alice")));
    edit(&mut toy, "{script: y, nodeLabelSelector: {}, historyLimit: 2}", Some("bob"));
    assert_eq!(run(&toy), (2, Some("bob")));
    toy.end_all(&succeeded(""));
    let again = "{script: y, nodeLabelSelector: {}, rerun: {at: '2026-01-01T00:00:00Z'}}";
    edit(&mut toy, again, Some("carol"));
    assert_eq!(run(&toy), (3, Some("carol")));
    // Where nobody stamps nobody is named, least of all who came before.
    edit(&mut toy, "{script: z, nodeLabelSelector: {}}", None);
    assert_eq!(run(&toy), (4, None));
}

#[test]
fn who_wrote_the_spec_did_not_ask_for_what_a_config_map_brings() {
    let script = |text: &str| Sources { script: Some(Source::Text(text.into())), trusted_ca: None };
    let spec = |name: &str| {
        format!("{{scriptFrom: {{configMapKeyRef: {{name: {name}, key: k}}}}, nodeLabelSelector: {{}}}}")
    };
    let mut toy = Toy::new(&spec("a"), 1);
    toy.observed.object.requested_by = Some("alice".to_owned());
    toy.observed.sources = script("x");
    toy.settle();
    assert_eq!(run(&toy), (1, Some("alice")));
    toy.observed.sources = script("y");
    toy.settle();
    assert_eq!(run(&toy), (2, None));
    toy.observed.sources = script("z");
    edit(&mut toy, &spec("b"), Some("bob"));
    assert_eq!(run(&toy), (3, Some("bob")));
}

#[test]
fn the_event_of_a_run_leads_to_who_asked_and_to_the_script() {
    let named = toy("{script: x, nodeLabelSelector: {}}", "alice\"s");
    let note = |toy: &Toy| {
        notices(None, toy.status()).into_iter().find(|it| it.reason == "RunStarted").unwrap().note
    };
    let digest = sha256_hex(b"x");
    let began = format!("run 1 (Created) is for 1 nodes: script sha256:{digest}");
    assert_eq!(note(&named), format!("{began}, requested by \"alice\\\"s\""));
    let mut nameless = Toy::new("{script: x, nodeLabelSelector: {}}", 1);
    nameless.settle();
    assert_eq!(note(&nameless), began);
}

#[test]
fn a_stamp_is_one_short_line_whatever_stands_in_it() {
    let stamped = |text: &str| {
        let annotations = BTreeMap::from([(labels::REQUESTED_BY.to_owned(), text.to_owned())]);
        requested_by(&ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() })
    };
    assert_eq!(stamped("system:serviceaccount:a:b").as_deref(), Some("system:serviceaccount:a:b"));
    assert_eq!(stamped("a\nb\t\u{1b}[1m").as_deref(), Some("a\\nb\t\u{241b}[1m"));
    assert_ne!(stamped("a\nb"), stamped("a b"), "two names stay two");
    assert_eq!(stamped(""), None);
    assert_eq!(requested_by(&ObjectMeta::default()), None);
    for flood in ["x", "\u{1b}", "\u{85}", "🦀"] {
        let name = stamped(&flood.repeat(100_000)).unwrap();
        assert!(name.len() <= MAX_REQUESTER_BYTES && name.len() > MAX_REQUESTER_BYTES - 4, "{flood:?}");
    }
}

#[test]
fn a_name_has_its_room_before_any_pod_is_made() {
    let refused = |who: Option<String>, other_bytes: usize| {
        let mut toy = Toy::new("{script: x, nodeLabelSelector: {}}", 1);
        (toy.observed.object.requested_by, toy.observed.object.other_bytes) = (who, other_bytes);
        let valid = validate(&toy.observed.object.spec, &Sources::default());
        let plan = plan(&valid, &toy.observed, &toy.settings, toy.now);
        let accepted = find(&plan.status.unwrap().conditions, ConditionType::Accepted).unwrap().clone();
        let begins = plan.actions.iter().any(|action| matches!(action, Action::CreateConfigMap(_)));
        assert_eq!(begins, accepted.status == "True");
        !begins
    };
    let least = (0..1_048_576).rev().step_by(64).find(|bytes| !refused(None, *bytes)).unwrap();
    assert!(!refused(Some("x".to_owned()), least - 128));
    assert!(refused(Some("<".repeat(MAX_REQUESTER_BYTES)), least), "stored with six bytes each");
}
