//! What runner and operator know each other by ends in the middle of a run: certificate, authority, token.

use std::time::Duration;

use scriptrunner_testcluster::{proxy::Link, wait};
use serde_json::Value;

use super::{
    scene::{PATIENCE, Scene, scene},
    subject::Subject,
    witness::Witness,
};

/// Waits until the operator's Secret says something else than before.
async fn until_changed(scene: &Scene, what: &str, before: &Value) -> Value {
    wait::until(&format!("another {what}"), PATIENCE, async |_| {
        let material = scene.session_material().await;
        let found = &material.pointer(what).cloned().unwrap_or_default();
        Ok::<_, kube::Error>((found != before).then(|| found.clone()))
    })
    .await
    .unwrap()
}

/// Breaks every connection; returns once new ones were made.
async fn reconnect(scene: &Scene) {
    let nodes = scene.cluster.node_names().len() as u64;
    let (broken, opened) = (scene.sessions.broken(), scene.sessions.opened());
    scene.sessions.set(Link::Cut);
    wait::until("every connection to break", PATIENCE, async |_| {
        Ok::<_, kube::Error>((scene.sessions.broken() >= broken + nodes).then_some(()))
    })
    .await
    .unwrap();
    scene.sessions.set(Link::Open);
    wait::until("new connections", PATIENCE, async |_| {
        Ok::<_, kube::Error>((scene.sessions.opened() >= opened + nodes).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_replaced_in_the_middle_of_a_run_costs_nothing() {
    const REPEATS: u64 = 15;
    scene("faults::certificate", async |scene| {
        let witness = Witness::begin(scene).await;
        let operator = scene.start_with(&scene.flags().with("certificate-seconds", 6)).await;
        let subject = Subject::create_wide(scene, "subject", REPEATS).await;
        subject.until_live(1).await;
        let before = scene.session_material().await["leaf"]["certificate"].clone();
        until_changed(scene, "/leaf/certificate", &before).await;
        let told = subject.until_live(1).await.status.unwrap().nodes.values().map(|it| it.executions).max();
        reconnect(scene).await;
        subject.until_live(told.unwrap() + 3).await;
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}

#[tokio::test]
#[ignore = "long; run by ./test.sh faults"]
async fn an_authority_that_is_replaced_in_the_middle_of_a_run_costs_nothing() {
    const REPEATS: u64 = 60;
    scene("faults::authority", async |scene| {
        let witness = Witness::begin(scene).await;
        let flags = scene.flags().with("authority-seconds", 30).with("authority-overlap-seconds", 5);
        let operator = scene.start_with(&flags.with("certificate-seconds", 10)).await;
        let subject = Subject::create_wide(scene, "subject", REPEATS).await;
        subject.until_live(1).await;
        let before = scene.session_material().await["authority"]["number"].clone();
        until_changed(scene, "/authority/number", &before).await;
        // From here on no runner believes what its pod was started with.
        let told = subject.until_live(1).await.status.unwrap().nodes.values().map(|it| it.executions).max();
        reconnect(scene).await;
        subject.until_live(told.unwrap() + 3).await;
        subject.until_ledgers(REPEATS, Duration::from_mins(3)).await;
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}

#[tokio::test]
#[ignore = "takes eleven minutes: no token is valid for less than ten; run by ./test.sh faults"]
async fn tokens_that_end_in_the_middle_of_a_run_cost_nothing() {
    const LIFETIME_SECONDS: u64 = 600;
    const REPEATS: u64 = LIFETIME_SECONDS + 60;
    scene("faults::token", async |scene| {
        let witness = Witness::begin(scene).await;
        let operator = scene.start_with(&scene.flags().with("token-lifetime-seconds", 600)).await;
        let subject = Subject::create_wide(scene, "subject", REPEATS).await;
        subject.until_live(1).await;
        let (opened, nodes) = (scene.sessions.opened(), scene.cluster.node_names().len() as u64);
        let patience = Duration::from_secs(2 * LIFETIME_SECONDS);
        subject.until_ledgers(LIFETIME_SECONDS + 20, patience).await;
        subject.until_live(LIFETIME_SECONDS + 20).await;
        assert!(scene.sessions.opened() >= opened + nodes, "sessions should end with their tokens");
        subject.until_ledgers(REPEATS, patience).await;
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}
