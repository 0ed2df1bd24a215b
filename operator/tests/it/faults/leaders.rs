//! Two operators: one leads, sleeps too long, and wakes beside the next; or cannot renew its Lease.

use std::time::{Duration, Instant};

use scriptrunner_testcluster::proxy::{Fault, Moment, Turn};

use super::{
    process::free_address,
    scene::{PATIENCE, scene},
    subject::Subject,
    witness::Witness,
};

const REPEATS: u64 = 5;
/// `--lease-seconds`.
const LEASE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_leader_that_wakes_too_late_writes_nothing() {
    scene("faults::two_leaders", async |scene| {
        let witness = Witness::begin(scene).await;
        let mut first = scene.start().await;
        let mut stop = scene.api.stop(|call| call.is("create pods"), Turn::nth(1), Moment::Before);
        let subject = Subject::create(scene, "subject", REPEATS).await;
        let queued = stop.reached(PATIENCE).await.unwrap();
        first.pause().await;

        let (proxy, kubeconfig) = scene.second_proxy().await;
        let mut flags = scene.flags();
        flags.name = "second".to_owned();
        flags.session_listen = free_address(scene.cluster.gateway());
        flags.session_address = flags.session_listen;
        let mut second = scene.launch(&flags, &kubeconfig);
        second.until_ready().await;
        let is_ours = scene.writes();
        subject.until_running().await;
        assert!(proxy.records().iter().any(|record| record.call.is("create pods")));

        // While the first one asks who leads, it has time to try what it had in mind.
        let asks = scene.api.inject(
            |call| call.resource == "leases",
            Turn::every(),
            Fault::Delay(Duration::from_secs(3)),
        );
        let before = scene.api.records().len();
        first.resume().await;
        // What had left before it slept arrives only now; the pod is there already.
        queued.go_on();
        let ended = first.until_ended().await;
        assert!(!ended.success(), "{ended}");
        assert!(asks.hits() > 0);
        let left: Vec<_> =
            scene.api.records().split_off(before).into_iter().filter(|it| is_ours(&it.call)).collect();
        assert!(left.is_empty(), "{left:?}");
        let log = first.log_tail(200);
        assert!(log.contains("does not hold the lease"), "it should have tried to write:\n{log}");

        subject.until_told_exactly(&witness, REPEATS).await;
        let pods = witness.pods_per_node(&subject.name);
        assert!(pods.values().all(|pods| *pods == 1), "one pod per node: {pods:?}");
        witness.assert_nothing_wrong();
        subject.delete().await;
        drop(second);
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_cannot_renew_ends_while_its_lease_is_still_its_own() {
    scene("faults::lease_delayed", async |scene| {
        let witness = Witness::begin(scene).await;
        let mut operator = scene.start().await;
        let subject = Subject::create(scene, "subject", 2 * LEASE.as_secs()).await;
        subject.until_running().await;
        let late = scene.api.inject(|call| call.is("update leases"), Turn::every(), Fault::Delay(2 * LEASE));
        let ended = operator.until_ended().await;
        let end = Instant::now();
        assert!(!ended.success(), "{ended}");
        assert!(late.lift() > 0);
        let records = scene.api.records();
        let mut renewals = records
            .iter()
            .filter(|it| it.call.resource == "leases" && it.call.is_write() && it.answer.is_some());
        let renewed = renewals.next_back().expect("the lease should have been renewed once").at;
        assert!(end - renewed < LEASE, "{:?} after the last renewal", end - renewed);
        let operator = scene.start().await;
        subject.until_told_exactly(&witness, 2 * LEASE.as_secs()).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}
