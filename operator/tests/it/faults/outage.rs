//! API server and etcd are killed in the middle of a run and come back.

use std::{process::Command, time::Duration};

use scriptrunner_testcluster::wait;

use super::{
    process::Operator,
    scene::{PATIENCE, Scene, scene},
    subject::Subject,
    witness::Witness,
};

const REPEATS: u64 = 10;

fn kill(scene: &Scene, component: &str) {
    let pid = scene.cluster.component_process(component).unwrap();
    let pid = pid.unwrap_or_else(|| panic!("{component} should run"));
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -KILL {pid}: {status}");
}

/// Until it leads again: one that could not renew its Lease has ended, and is started as the kubelet would.
async fn bring_back(scene: &Scene, mut operator: Operator) -> Operator {
    if let Some(status) = operator.ended() {
        assert!(!status.success(), "{status}");
        return scene.start().await;
    }
    operator.until_ready().await;
    operator
}

async fn run_through_an_outage(scene: &Scene, components: &[&str], executions_meanwhile: u64) {
    let witness = Witness::begin(scene).await;
    let operator = scene.start().await;
    let subject = Subject::create(scene, "subject", REPEATS).await;
    subject.until_ledgers(1, PATIENCE).await;
    for component in components {
        kill(scene, component);
    }
    let asked = until_unreachable(scene).await;
    // Runners know nothing of it.
    subject.until_ledgers(executions_meanwhile, Duration::from_mins(1)).await;
    scene.cluster.revive().await.unwrap();
    let unanswered = scene.api.records().split_off(asked).iter().filter(|it| it.answer.is_none()).count();
    assert!(unanswered > 0, "the operator should have noticed");
    let operator = bring_back(scene, operator).await;
    subject.until_told_exactly(&witness, REPEATS).await;
    subject.delete().await;
    drop(operator);
}

/// Waits until a request of the operator has met nobody; how many requests there had been.
async fn until_unreachable(scene: &Scene) -> usize {
    let before = scene.api.records().len();
    wait::until("a request that nobody answers", PATIENCE, async |_| {
        let records = scene.api.records();
        let lost = records[before..].iter().any(|it| it.answer.is_none() && it.at.elapsed().as_secs() >= 1);
        Ok::<_, std::convert::Infallible>(lost.then_some(()))
    })
    .await
    .unwrap();
    before
}

#[tokio::test]
async fn api_server_and_etcd_are_restarted_in_the_middle_of_a_run() {
    scene("faults::outage", async |scene| {
        run_through_an_outage(scene, &["kube-apiserver", "etcd"], 4).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "long; run by ./test.sh faults"]
async fn the_rest_of_a_run_happens_while_there_is_no_api_server() {
    scene("faults::long_outage", async |scene| {
        run_through_an_outage(scene, &["etcd", "kube-apiserver"], REPEATS).await;
    })
    .await;
}
