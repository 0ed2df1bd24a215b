//! The way between runners and the operator breaks, goes silent, repeats or loses what is said.

use std::sync::atomic::{AtomicU64, Ordering};

use scriptrunner_api::session::{FromRunner, ToRunner};
use scriptrunner_testcluster::{
    proxy::{Frame, FrameFault, Link, Side, Turn},
    wait,
};

use super::{
    scene::{PATIENCE, Scene, scene},
    subject::Subject,
    witness::Witness,
};

const REPEATS: u64 = 5;

/// A run during which the way never opens: everything comes by termination messages.
async fn run_without_sessions(scene: &Scene, link: Link) {
    let witness = Witness::begin(scene).await;
    scene.sessions.set(link);
    // How long a runner waits at its end for an acknowledgement that never comes.
    let operator = scene.start_with(&scene.flags().with("linger-seconds", 3)).await;
    let subject = Subject::create(scene, "subject", REPEATS).await;
    subject.until_told_exactly(&witness, REPEATS).await;
    assert_eq!(scene.sessions.opened(), 0, "no runner reached the operator");
    let struck = if link == Link::Cut { scene.sessions.broken() } else { scene.sessions.stalled() };
    assert!(struck >= scene.cluster.node_names().len() as u64, "{struck} connections met the fault");
    subject.delete().await;
    drop(operator);
}

#[tokio::test]
async fn a_run_whose_runners_never_reach_the_operator_loses_nothing() {
    scene("faults::link_cut", async |scene| run_without_sessions(scene, Link::Cut).await).await;
}

#[tokio::test]
async fn a_run_whose_runners_hear_nothing_loses_nothing() {
    scene("faults::link_stalled", async |scene| run_without_sessions(scene, Link::Stalled).await).await;
}

#[tokio::test]
async fn results_are_live_again_after_a_way_that_was_cut_and_stalled() {
    const REPEATS: u64 = 20;
    scene("faults::link_back", async |scene| {
        let witness = Witness::begin(scene).await;
        let operator = scene.start().await;
        let subject = Subject::create_wide(scene, "subject", REPEATS).await;
        subject.until_live(1).await;
        let opened = scene.sessions.opened();
        scene.sessions.set(Link::Cut);
        subject.until_ledgers(5, PATIENCE).await;
        scene.sessions.set(Link::Open);
        subject.until_live(6).await;
        let nodes = scene.cluster.node_names().len() as u64;
        assert!(scene.sessions.broken() >= nodes && scene.sessions.opened() >= opened + nodes);
        scene.sessions.set(Link::Stalled);
        subject.until_ledgers(12, PATIENCE).await;
        scene.sessions.set(Link::Open);
        assert!(scene.sessions.stalled() >= nodes);
        subject.until_live(13).await;
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}

#[tokio::test]
async fn an_endless_repetition_without_sessions_goes_from_pod_to_pod_and_loses_nothing() {
    scene("faults::hand_over", async |scene| {
        let witness = Witness::begin(scene).await;
        scene.sessions.set(Link::Cut);
        let flags = scene.flags().with("handover-seconds", 5).with("linger-seconds", 1);
        let operator = scene.start_with(&flags).await;
        let subject = Subject::create_endless(scene, "subject").await;
        wait::until("a third pod on every node", PATIENCE, async |seen| {
            let pods = witness.pods_per_node(&subject.name);
            seen.note(format!("{pods:?}"));
            let nodes = scene.cluster.node_names();
            let all = nodes.iter().all(|node| pods.get(node).is_some_and(|pods| *pods >= 3));
            Ok::<_, kube::Error>(all.then_some(()))
        })
        .await
        .unwrap();
        assert!(scene.sessions.broken() > 0 && scene.sessions.opened() == 0);
        scene.sessions.set(Link::Open);
        let told = subject.get().await.status.unwrap().nodes.values().map(|it| it.executions).max();
        subject.until_live(told.unwrap() + 3).await;
        subject.run_once_more().await;
        let object = subject.until_run_over(2).await;
        subject.until_no_pods().await;
        witness.until_rest(&subject.name).await;
        subject.assert_accounted(&object, &[]);
        witness.assert_nothing_wrong();
        subject.delete().await;
        drop(operator);
    })
    .await;
}

#[tokio::test]
#[ignore = "long; run by ./test.sh faults"]
async fn a_runner_on_a_half_open_connection_makes_another_one() {
    // Either side calls a connection dead after 90 s of silence.
    const REPEATS: u64 = 150;
    scene("faults::half_open", async |scene| {
        let witness = Witness::begin(scene).await;
        let operator = scene.start().await;
        let subject = Subject::create_wide(scene, "subject", REPEATS).await;
        subject.until_live(1).await;
        let opened = scene.sessions.opened();
        scene.sessions.strand();
        let nodes = scene.cluster.node_names().len() as u64;
        let patience = std::time::Duration::from_mins(4);
        subject.until_ledgers(100, patience).await;
        assert!(scene.sessions.stalled() >= nodes);
        subject.until_live(101).await;
        assert!(scene.sessions.opened() >= opened + nodes, "new connections were made");
        subject.until_ledgers(REPEATS, patience).await;
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}

#[tokio::test]
async fn frames_that_come_twice_or_never_change_nothing() {
    const REPEATS: u64 = 10;
    scene("faults::frames", async |scene| {
        let witness = Witness::begin(scene).await;
        let operator = scene.start().await;
        scene.see_frames().await;
        let is_snapshot = |frame: &Frame| {
            frame.from == Side::Runner
                && matches!(FromRunner::decode(&frame.text), Ok(FromRunner::Snapshot(_)))
        };
        let acks = AtomicU64::new(0);
        let every_other_ack = move |frame: &Frame| {
            let is_ack =
                frame.from == Side::Operator && matches!(ToRunner::decode(&frame.text), Ok(ToRunner::Ack(_)));
            is_ack && acks.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
        };
        let twice = scene.sessions.inject(is_snapshot, Turn::every(), FrameFault::Repeat);
        let never = scene.sessions.inject(every_other_ack, Turn::every(), FrameFault::Swallow);
        let subject = Subject::create_wide(scene, "subject", REPEATS).await;
        subject.until_live(5).await;
        // What was sent and not acknowledged is sent once more over other connections.
        scene.sessions.set(Link::Cut);
        scene.sessions.set(Link::Open);
        subject.until_told_exactly(&witness, REPEATS).await;
        let nodes = scene.cluster.node_names().len() as u64;
        assert!(twice.lift() >= nodes && never.lift() >= nodes);
        subject.delete().await;
        drop(operator);
    })
    .await;
}
