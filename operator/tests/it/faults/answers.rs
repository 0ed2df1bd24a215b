//! The API server answers badly, or its answer is lost: writes of the status, and of everything else.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use scriptrunner_testcluster::proxy::{Call, Fault, Refusal, Turn};

use super::{
    scene::{PATIENCE, Scene, scene},
    subject::Subject,
    witness::Witness,
};

/// Every other call of a kind, beginning with the first.
fn every_other(
    what: &'static str,
    wanted: impl Fn(&Call) -> bool + Send + 'static,
) -> impl Fn(&Call) -> bool + Send {
    let count = AtomicU64::new(0);
    move |call| call.is(what) && wanted(call) && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
}

fn refuse(code: u16, reason: &'static str) -> Fault {
    Fault::Refuse(Refusal::new(code, reason))
}

/// Runs one object per fault, which befalls every other write of its status.
async fn try_status_writes(scene: &Scene, trials: Vec<(&'static str, Fault)>) {
    const REPEATS: u64 = 3;
    let witness = Witness::begin(scene).await;
    let operator = scene.start().await;
    let mut subjects = Vec::new();
    for (name, fault) in trials {
        let is_its = move |call: &Call| call.name.as_deref() == Some(name);
        let wanted = every_other("patch scriptrunners/status", is_its);
        let injection = scene.api.inject(wanted, Turn::every(), fault);
        subjects.push((Subject::create(scene, name, REPEATS).await, injection));
    }
    for (subject, injection) in &subjects {
        subject.until_told_exactly(&witness, REPEATS).await;
        assert!(injection.hits() > 0, "{:?}", subject.name);
    }
    witness.assert_nothing_wrong();
    for (subject, _) in subjects {
        subject.delete().await;
    }
    drop(operator);
}

#[tokio::test]
async fn a_status_is_whole_though_every_other_write_of_it_is_refused() {
    scene("faults::status_writes", async |scene| {
        let trials = vec![
            ("conflict", refuse(409, "Conflict")),
            ("invalid", refuse(422, "Invalid")),
            ("too-large", refuse(413, "RequestEntityTooLarge")),
            ("broken", refuse(500, "InternalError")),
        ];
        try_status_writes(scene, trials).await;
    })
    .await;
}

#[tokio::test]
async fn a_status_is_whole_though_the_api_server_is_overloaded_and_answers_get_lost() {
    scene("faults::overload", async |scene| {
        let busy = Refusal { retry_after_seconds: Some(1), ..Refusal::new(429, "TooManyRequests") };
        let trials = vec![
            ("busy", Fault::Refuse(busy)),
            ("away", refuse(503, "ServiceUnavailable")),
            ("stored-and-denied", Fault::Answer(Refusal::new(504, "Timeout"))),
            ("stored-and-lost", Fault::Lose),
        ];
        try_status_writes(scene, trials).await;
    })
    .await;
}

/// One run in which the answers to every other write of each kind do not arrive.
async fn run_without_answers(scene: &Scene, witness: &Witness, name: &str, fault: &Fault) {
    const REPEATS: u64 = 2;
    let injections: BTreeMap<_, _> = ["create configmaps", "create pods", "delete pods", "create events"]
        .into_iter()
        .map(|what| (what, scene.api.inject(every_other(what, scene.writes()), Turn::every(), fault.clone())))
        .collect();
    let subject = Subject::create(scene, name, REPEATS).await;
    subject.until_told_exactly(witness, REPEATS).await;
    let hits: BTreeMap<_, _> = injections.into_iter().map(|(what, it)| (what, it.lift())).collect();
    assert!(hits.values().all(|hits| *hits > 0), "{hits:?}");
    let pods = witness.pods_per_node(name);
    assert!(pods.values().all(|pods| *pods == 1), "one pod per node: {pods:?}");
    subject.delete().await;
}

#[tokio::test]
async fn what_was_done_and_not_confirmed_is_not_done_twice() {
    scene("faults::lost_answers", async |scene| {
        let witness = Witness::begin(scene).await;
        let operator = scene.start().await;
        run_without_answers(scene, &witness, "lost", &Fault::Lose).await;
        let denied = Fault::Answer(Refusal::new(504, "Timeout"));
        run_without_answers(scene, &witness, "denied", &denied).await;
        run_without_answers(scene, &witness, "never-there", &Fault::Break).await;
        witness.assert_nothing_wrong();
        drop(operator);
    })
    .await;
}

#[tokio::test]
async fn events_that_come_late_or_in_a_new_watch_change_nothing() {
    const REPEATS: u64 = 2;
    scene("faults::watches", async |scene| {
        let witness = Witness::begin(scene).await;
        let operator = scene.start().await;
        let held = scene.api.hold_watches("pods");
        let subject = Subject::create(scene, "subject", REPEATS).await;
        // All of it happens behind the operator's back.
        subject.until_ledgers(REPEATS, PATIENCE).await;
        assert!(held.hits() > 0);
        let cut = ["pods", "configmaps", "nodes", "scriptrunners"].map(|it| scene.api.cut_watches(it));
        // ConfigMaps of runs, and those that hold inputs.
        assert_eq!(cut, [1, 2, 1, 1]);
        drop(held);
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}
