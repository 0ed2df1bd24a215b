//! The operator is killed before and after every write of a run to the API server, and before and after every
//! acknowledgement to a runner: each point is tried by itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use scriptrunner_api::session::ToRunner;
use scriptrunner_testcluster::proxy::{Call, Frame, Moment, Side, Stop, Turn};

use super::{
    scene::{PATIENCE, Scene, scene},
    seed::Random,
    subject::Subject,
    witness::Witness,
};

/// Executions per node.
const REPEATS: u64 = 5;

/// What runners are told once their snapshot is stored; the other kinds of events are writes, as in `create pods`.
const ACK: &str = "ack";

/// A crash before or after the event of this kind and number, from 1.
#[derive(Clone, Copy, Debug)]
struct Point<'a> {
    kind: &'a str,
    moment: Moment,
    number: u64,
}

/// Where the operator is to be killed.
enum Trap {
    Write(Stop<Call>),
    Ack(Stop<Frame>),
}

impl Trap {
    fn set(scene: &Scene, Point { kind, moment, number }: Point<'_>) -> Self {
        let turn = Turn::nth(number);
        if kind == ACK {
            return Self::Ack(scene.sessions.stop(is_ack, turn, moment));
        }
        let (is_ours, kind) = (scene.writes(), kind.to_owned());
        Self::Write(scene.api.stop(move |call| is_ours(call) && call.is(&kind), turn, moment))
    }

    /// What waits there until it is dropped.
    async fn reached(&mut self) -> Box<dyn Send> {
        match self {
            Self::Write(stop) => Box::new(stop.reached(PATIENCE).await.unwrap()),
            Self::Ack(stop) => Box::new(stop.reached(PATIENCE).await.unwrap()),
        }
    }

    fn hits(&self) -> u64 {
        match self {
            Self::Write(stop) => stop.hits(),
            Self::Ack(stop) => stop.hits(),
        }
    }
}

fn is_ack(frame: &Frame) -> bool {
    frame.from == Side::Operator && matches!(ToRunner::decode(&frame.text), Ok(ToRunner::Ack(_)))
}

/// Runs without a crash; how many events of each kind there were.
async fn rehearse(scene: &Scene, witness: &Witness) -> BTreeMap<String, u64> {
    let operator = scene.start().await;
    scene.see_frames().await;
    let before = scene.api.records().len();
    let acks = Arc::new(AtomicU64::new(0));
    let count = acks.clone();
    let counts = move |frame: &Frame| {
        count.fetch_add(u64::from(is_ack(frame)), Ordering::Relaxed);
        false
    };
    let counter = scene.sessions.stop(counts, Turn::every(), Moment::Before);
    let subject = Subject::create_wide(scene, "rehearsal", REPEATS).await;
    settle(&subject, witness).await;
    subject.assert_exact(&subject.get().await, REPEATS);
    drop(counter);
    let mut counts = BTreeMap::from([(ACK.to_owned(), acks.load(Ordering::Relaxed))]);
    let is_ours = scene.writes();
    for record in scene.api.records().split_off(before).iter().filter(|record| is_ours(&record.call)) {
        *counts.entry(format!("{} {}", record.call.verb, record.call.resource)).or_default() += 1;
    }
    subject.delete().await;
    drop(operator);
    eprintln!("{counts:?}");
    let nodes = scene.cluster.node_names().len() as u64;
    for kind in [ACK, "create pods", "delete pods", "patch scriptrunners/status"] {
        assert!(counts.get(kind).is_some_and(|count| *count >= nodes), "{kind}: {counts:?}");
    }
    counts
}

/// Runs with a crash at a point. False if the run did not come to it.
async fn crash(scene: &Scene, witness: &Witness, point: Point<'_>) -> bool {
    // The same point may be tried twice.
    let name = format!("crash-{}", scene.api.records().len());
    let mut operator = scene.start().await;
    let mut trap = Trap::set(scene, point);
    let subject = Subject::create_wide(scene, &name, REPEATS).await;
    let crashed = tokio::select! {
        waiting = trap.reached() => {
            operator.kill().await;
            drop(waiting);
            eprintln!("{name} is {point:?}");
            true
        }
        () = settle(&subject, witness) => false,
    };
    assert_eq!(trap.hits(), u64::from(crashed), "the crash was injected once or not at all");
    drop(trap);
    if crashed {
        operator = scene.start().await;
    }
    settle(&subject, witness).await;
    subject.assert_exact(&subject.get().await, REPEATS);
    let pods = witness.pods_per_node(&name);
    assert!(pods.values().all(|pods| *pods == 1), "one pod per node: {pods:?}");
    witness.assert_nothing_wrong();
    subject.delete().await;
    drop(operator);
    crashed
}

async fn settle(subject: &Subject<'_>, witness: &Witness) {
    subject.until_over().await;
    subject.until_no_pods().await;
    witness.until_rest(&subject.name).await;
}

#[tokio::test]
async fn a_sample_of_crash_points_loses_nothing_and_repeats_nothing() {
    scene("faults::crash_sample", async |scene| {
        let mut random = Random::seeded();
        let witness = Witness::begin(scene).await;
        let (acks, writes): (Vec<_>, Vec<_>) =
            rehearse(scene, &witness).await.into_iter().partition(|(kind, _)| kind == ACK);
        for events in [writes, acks] {
            for moment in [Moment::Before, Moment::After] {
                let chosen = random.number(events.len() as u64) - 1;
                let (kind, count) = &events[usize::try_from(chosen).unwrap()];
                let mut number = random.number(*count);
                // No two runs are equally busy: where this one has fewer events, an earlier one is taken.
                while !crash(scene, &witness, Point { kind, moment, number }).await {
                    assert!(number > 1, "a run should have at least one {kind}");
                    number /= 2;
                }
            }
        }
    })
    .await;
}

/// Every point of some kinds of events, one run each.
async fn every_point(test: &str, is_wanted: fn(&str) -> bool) {
    scene(test, async |scene| {
        let witness = Witness::begin(scene).await;
        let counts = rehearse(scene, &witness).await;
        for (kind, count) in counts.iter().filter(|(kind, _)| is_wanted(kind)) {
            for moment in [Moment::Before, Moment::After] {
                let mut number = 1;
                while crash(scene, &witness, Point { kind, moment, number }).await {
                    number += 1;
                }
                eprintln!("{moment:?} {kind}: {} points, {count} in the rehearsal", number - 1);
                assert!(number > 1, "a run should have at least one {kind}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "long; run by ./test.sh faults"]
async fn no_crash_at_a_write_loses_or_repeats_anything() {
    every_point("faults::crash_writes", |kind| kind != ACK).await;
}

#[tokio::test]
#[ignore = "long; run by ./test.sh faults"]
async fn no_crash_at_an_acknowledgement_loses_or_repeats_anything() {
    every_point("faults::crash_acks", |kind| kind == ACK).await;
}
