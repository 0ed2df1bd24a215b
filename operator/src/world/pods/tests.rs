//! Tests of the pod table.

use super::*;
use scriptrunner_core::observed::ContainerFacts;

fn pod(uid: &str, resource_version: u64) -> PodFacts {
    PodFacts {
        namespace: "ns".into(),
        name: format!("srn-{uid}"),
        uid: uid.into(),
        id: String::new(),
        resource_version,
        owner_uid: "owner".into(),
        owner_name: "sr".into(),
        node: "n1".into(),
        node_uid: "node-uid".into(),
        node_id: String::new(),
        run: 1,
        attempt: 1,
        failures_before: 0,
        shape: String::new(),
        longest_seconds: None,
        created: None,
        started: None,
        presence: Presence::Present,
        deleting: false,
        bound: true,
        by_scheduler: false,
        phase: "Running".into(),
        reason: String::new(),
        message: String::new(),
        disruption: String::new(),
        init_failure: String::new(),
        container: ContainerFacts::Running,
    }
}

#[test]
fn an_older_event_changes_nothing() {
    let mut table = PodTable::default();
    assert!(table.put(pod("a", 5)));
    let mut old = pod("a", 4);
    old.container = ContainerFacts::Absent;
    assert!(!table.put(old));
    assert_eq!(table.of("owner")[0].container, ContainerFacts::Running);
}

#[test]
fn a_pod_that_vanishes_without_being_deleted_is_unconfirmed() {
    let mut table = PodTable::default();
    table.put(pod("a", 5));
    table.remove(pod("a", 6));
    assert_eq!(table.of("owner")[0].presence, Presence::Unconfirmed);
    table.confirm_gone("owner", "a");
    assert_eq!(table.of("owner")[0].presence, Presence::Gone);
    assert!(!table.put(pod("a", 7)), "a pod that is gone does not come back");
}

#[test]
fn a_forced_deletion_is_not_taken_for_an_orderly_end() {
    let mut table = PodTable::default();
    table.put(pod("a", 5));
    table.remove(PodFacts { deleting: true, ..pod("a", 6) });
    let facts = &table.of("owner")[0];
    assert_eq!((facts.presence, facts.deleting), (Presence::Gone, false));
}

#[test]
fn what_vanishes_keeps_what_an_answer_told_of_it() {
    let mut table = PodTable::default();
    table.put(pod("a", 5));
    table.put(PodFacts { phase: "Succeeded".into(), ..pod("a", 7) });
    table.remove(pod("a", 5));
    let facts = &table.of("owner")[0];
    assert_eq!((facts.phase.as_str(), facts.presence), ("Succeeded", Presence::Unconfirmed));
}

#[test]
fn a_list_after_a_gap_marks_what_it_does_not_show() {
    let mut table = PodTable::default();
    table.put(pod("a", 5));
    table.put(pod("b", 5));
    table.list_begins();
    table.put(pod("b", 5));
    assert_eq!(table.list_ends(), BTreeSet::from([("ns".to_owned(), "sr".to_owned())]));
    let presences: Vec<_> = table.of("owner").iter().map(|pod| pod.presence).collect();
    assert_eq!(presences, [Presence::Unconfirmed, Presence::Present]);
}

#[test]
fn namesakes_hold_their_nodes_until_they_end() {
    let mut table = PodTable::default();
    table.put(pod("a", 5));
    assert_eq!(table.nodes_of_namesakes("new-owner", "ns", "sr"), BTreeSet::from(["n1".to_owned()]));
    assert!(table.nodes_of_namesakes("owner", "ns", "sr").is_empty());
    assert!(table.nodes_of_namesakes("new-owner", "ns", "another").is_empty());
    assert!(table.nodes_of_namesakes("new-owner", "another", "sr").is_empty());
    table.put(PodFacts { phase: "Succeeded".into(), ..pod("a", 6) });
    assert!(table.nodes_of_namesakes("new-owner", "ns", "sr").is_empty());
}

#[test]
fn a_pod_is_found_by_its_uid_until_it_is_forgotten() {
    let mut table = PodTable::default();
    table.put(pod("a", 5));
    table.put(PodFacts { owner_uid: "another".into(), ..pod("b", 5) });
    let owner = |table: &PodTable, uid: &str| table.find(uid).map(|pod| pod.owner_uid.clone());
    assert_eq!(owner(&table, "a").as_deref(), Some("owner"));
    assert_eq!(owner(&table, "b").as_deref(), Some("another"));
    assert_eq!(owner(&table, "c"), None);
    table.prune("owner", |_| false);
    assert_eq!(owner(&table, "a").as_deref(), Some("owner"), "a pod that is there is kept");
    table.confirm_gone("owner", "a");
    table.prune("owner", |_| false);
    assert_eq!(owner(&table, "a"), None);
}

#[test]
fn nothing_is_kept_of_an_owner_without_pods() {
    let mut table = PodTable::default();
    for number in 0..10 {
        let owner = format!("owner{number}");
        let uid = number.to_string();
        table.put(PodFacts { owner_uid: owner.clone(), ..pod(&uid, 5) });
        table.confirm_gone(&owner, &uid);
        table.prune(&owner, |_| false);
    }
    assert_eq!((table.by_owner.len(), table.owners.len(), table.namesakes.len()), (0, 0, 0));
}

#[test]
fn a_look_under_way_keeps_what_it_saw() {
    let mut table = PodTable::default();
    table.put(pod("a", 5));
    let seen = table.of("owner").remove(0);
    table.mark_deleting("owner", "a");
    assert_eq!((seen.deleting, table.of("owner")[0].deleting), (false, true));
}

#[test]
fn pods_that_wait_for_the_scheduler_are_told() {
    let unbound = |uid: &str| PodFacts { bound: false, container: ContainerFacts::Absent, ..pod(uid, 5) };
    let mut table = PodTable::default();
    let names = |table: &PodTable| -> Vec<String> {
        table.unbound().get("owner").into_iter().flat_map(BTreeMap::keys).cloned().collect()
    };
    table.put(pod("a", 5));
    for uid in ["b", "c", "d", "e"] {
        table.put(unbound(uid));
    }
    assert_eq!(names(&table), ["srn-b", "srn-c", "srn-d", "srn-e"]);
    table.put(PodFacts { resource_version: 6, ..pod("b", 6) });
    table.put(PodFacts { phase: "Failed".into(), resource_version: 6, ..unbound("c") });
    assert_eq!(names(&table), ["srn-d", "srn-e"]);
    table.remove(unbound("d"));
    assert_eq!(names(&table), ["srn-d", "srn-e"], "only its labels may be gone");
    table.confirm_gone("owner", "d");
    assert_eq!(names(&table), ["srn-e"]);
    table.remove(unbound("e"));
    table.prune("owner", |_| false);
    assert!(table.unbound().is_empty());
}
