//! What several watches show is passed on as one would.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::*;

fn object(name: &str, uid: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "uid": uid, "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    )
    .unwrap()
}

fn word(event: &Event<ConfigMap>) -> String {
    let named =
        |verb: &str, object: &ConfigMap| format!("{verb} {} {}", object.name_any(), object.uid().unwrap());
    match event {
        Event::Init => "init".to_owned(),
        Event::InitApply(object) => named("listed", object),
        Event::Apply(object) => named("put", object),
        Event::Delete(object) => named("gone", object),
        Event::InitDone => "done".to_owned(),
    }
}

/// What is passed on of the events of two watches.
fn passed(events: Vec<(usize, Event<ConfigMap>)>) -> Vec<String> {
    let mut merged = Merged::of(2);
    let mut words = Vec::new();
    for (number, event) in events {
        let mut passed: Vec<_> = merged.take_in(number, event).iter().map(word).collect();
        // A table has no order of its own.
        if passed.first().is_some_and(|word| word == "init") {
            let last = passed.len() - 1;
            passed[1..last].sort();
        }
        words.extend(passed);
    }
    words
}

fn first_lists() -> Vec<(usize, Event<ConfigMap>)> {
    vec![
        (0, Event::Init),
        (1, Event::Init),
        (0, Event::InitApply(object("a", "1"))),
        (0, Event::InitDone),
        (1, Event::InitApply(object("b", "2"))),
        (1, Event::InitDone),
    ]
}

fn after_first_lists(events: Vec<(usize, Event<ConfigMap>)>) -> Vec<String> {
    let passed = passed(first_lists().into_iter().chain(events).collect());
    assert_eq!(passed[..4], ["init", "listed a 1", "listed b 2", "done"]);
    passed[4..].to_vec()
}

#[test]
fn the_first_lists_are_one_list_when_the_last_of_them_is_complete() {
    let mut events = first_lists();
    let end = events.pop();
    assert_eq!(passed(events.clone()), Vec::<String>::new());
    // What happens meanwhile in a namespace that is complete is part of it.
    events.push((0, Event::Apply(object("c", "3"))));
    events.push((0, Event::Delete(object("a", "1"))));
    events.extend(end);
    assert_eq!(passed(events), ["init", "listed b 2", "listed c 3", "done"]);
}

#[test]
fn a_first_list_that_begins_anew_holds_what_the_second_try_shows() {
    let mut events = vec![(0, Event::Init), (0, Event::InitApply(object("old", "0")))];
    events.extend(first_lists());
    assert_eq!(passed(events), ["init", "listed a 1", "listed b 2", "done"]);
}

#[test]
fn what_happens_afterwards_is_passed_on_as_it_is() {
    let events = vec![(1, Event::Apply(object("b", "2"))), (0, Event::Delete(object("a", "1")))];
    assert_eq!(after_first_lists(events), ["put b 2", "gone a 1"]);
}

#[test]
fn a_list_of_one_namespace_takes_nothing_from_the_others() {
    let again = |names: &[(&str, &str)]| {
        let listed = names.iter().map(|(name, uid)| (0, Event::InitApply(object(name, uid))));
        [(0, Event::Init)].into_iter().chain(listed).chain([(0, Event::InitDone)]).collect()
    };
    assert_eq!(after_first_lists(again(&[("a", "1"), ("c", "3")])), ["put a 1", "put c 3"]);
    assert_eq!(after_first_lists(again(&[("c", "3")])), ["put c 3", "gone a 1"]);
    // Made anew under its name: the newer one is what is there in the end.
    assert_eq!(after_first_lists(again(&[("a", "9")])), ["gone a 1", "put a 9"]);
    let none: Vec<_> = again(&[]);
    let twice = none.iter().cloned().chain(none.clone()).collect();
    assert_eq!(after_first_lists(twice), ["gone a 1"], "once");
}

#[test]
fn what_vanished_unseen_does_not_look_deleted() {
    let mut merged = Merged::of(1);
    merged.take_in(0, Event::Init);
    merged.take_in(0, Event::InitApply(object("a", "1")));
    merged.take_in(0, Event::InitDone);
    merged.take_in(0, Event::Init);
    let unseen = merged.take_in(0, Event::InitDone);
    let [Event::Delete(unseen)] = &unseen[..] else { panic!("{unseen:?}") };
    assert_eq!(unseen.metadata.deletion_timestamp, None);
    merged.take_in(0, Event::Apply(object("a", "1")));
    let seen = merged.take_in(0, Event::Delete(object("a", "1")));
    let [Event::Delete(seen)] = &seen[..] else { panic!("{seen:?}") };
    assert!(seen.metadata.deletion_timestamp.is_some());
}
