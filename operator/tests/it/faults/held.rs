//! A run is paused and stopped while no runner has a session: it ends later than it would, and goes on with nothing lost.

use scriptrunner_api::v1alpha1::{NodeStatus, ScriptRunner};
use scriptrunner_testcluster::proxy::Link;

use super::{
    scene::{Scene, scene},
    subject::{Subject, status},
    witness::Witness,
};

/// Whether every node is in this state for this reason.
fn all(scene: &Scene, state: &'static str, reason: &'static str) -> impl Fn(&ScriptRunner) -> bool + use<> {
    let nodes = scene.cluster.node_names().len();
    let is_so = move |entry: &&NodeStatus| entry.state == state && entry.reason == reason;
    move |object| {
        object.status.as_ref().is_some_and(|status| status.nodes.values().filter(is_so).count() == nodes)
    }
}

/// Serials that are kept of each node, which is to have begun with the first and left none out.
fn serials(object: &ScriptRunner) -> Vec<u64> {
    let newest = status(object).nodes.values().map(|entry| {
        let serials: Vec<u64> = entry.history.iter().map(|execution| execution.serial).collect();
        assert!(serials.windows(2).all(|pair| pair[1] == pair[0] + 1), "{entry:?}");
        entry.serial
    });
    newest.collect()
}

#[tokio::test]
async fn an_endless_repetition_without_sessions_is_paused_and_stopped_and_goes_on() {
    scene("faults::held", async |scene| {
        let witness = Witness::begin(scene).await;
        scene.sessions.set(Link::Cut);
        let flags = scene.flags().with("linger-seconds", 1).with("handover-seconds", 5);
        let operator = scene.start_with(&flags).await;
        let subject = Subject::create_endless(scene, "subject").await;
        subject.until_running().await;
        subject.hold("Paused").await;
        // Nobody can tell the runners; they end when they next hand over.
        let object = subject.until("three paused nodes", all(scene, "Pending", "Paused")).await;
        subject.until_no_pods().await;
        let paused = serials(&object);
        subject.hold("Active").await;
        subject.until_running().await;
        subject.hold("Stopped").await;
        let object = subject.until("three stopped nodes", all(scene, "Stopped", "Stopped")).await;
        subject.until_no_pods().await;
        let stopped = serials(&object);
        assert!(paused.iter().zip(&stopped).all(|(before, after)| before <= after), "{paused:?} {stopped:?}");
        subject.hold("Active").await;
        let object = subject.until_running().await;
        assert_eq!(status(&object).run.as_ref().unwrap().number, 1);
        subject.run_once_more().await;
        subject.until_run_over(2).await;
        subject.until_no_pods().await;
        witness.until_rest(&subject.name).await;
        subject.assert_accounted(&subject.get().await, &[]);
        witness.assert_nothing_wrong();
        assert_eq!(scene.sessions.opened(), 0, "no runner reached the operator");
        subject.delete().await;
        drop(operator);
    })
    .await;
}
