//! What befalls a node under running scripts: drained, preempted, restarted, cut off. Each is told apart from a failure, and what
//! only looks like an interruption changes nothing. A ledger on the node proves how often a script ran.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use k8s_openapi::api::{core::v1::Pod, scheduling::v1::PriorityClass};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use scriptrunner_api::labels;
use scriptrunner_testcluster::wait;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    answer::{entry, newest, state, summary},
    ledger::Ledger,
    node::{nodes, restart_kubelet, until_ready, victim, while_changed, while_disturbed},
    pair::{AtWork, Pair},
    stage::{PATIENCE, PRIVILEGED, Stage, alone},
};

/// Evicts our pods from a node as an administrator does.
async fn drain(stage: &Stage, node: &str) {
    // Neither a proxy for the wide world nor a home is its business.
    let output = Command::new(stage.cluster.kubectl())
        .env_clear()
        .arg("--kubeconfig")
        .arg(stage.cluster.kubeconfig())
        .arg("--cache-dir")
        .arg(stage.cluster.logs().join("kubectl"))
        .args(["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=100s"])
        .args(["--pod-selector", labels::UID])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "kubectl drain {node}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_drained_node_is_told_and_tried_again_when_it_is_uncordoned() {
    alone("interruptions::drained", PRIVILEGED, async |stage| {
        let node = victim(&stage).await;
        let journal = stage.journal().await;
        let pair = Pair::at_work(&stage, &node, &json!({})).await;
        let fields = json!({"interruptionPolicy": "Retry", "podStartDeadlineSeconds": 10});
        let hasty = AtWork::submit(&stage, &node, "hasty", "exec sleep 1000", &fields).await;
        hasty.until_at_work(&stage, &node).await;
        let cordon = |value: Value| json!({"spec": {"unschedulable": value}});
        while_changed(&stage, &node, cordon(true.into()), cordon(Value::Null), async || {
            drain(&stage, &node).await;
            pair.assert_reported(&[("Stopped", "Evicted")]).await;
            // It waits no longer than for any start.
            let object = hasty.submitted.until_failed().await;
            assert_eq!(state(&object, &node), ("Unknown", "Unschedulable"));
            assert_eq!(hasty.ledger.executions(&node).len(), 1);
            let object = pair.retry.submitted.get().await;
            assert_eq!(state(&object, &node), ("Pending", "Evicted"), "it waits: {}", summary(&object));
            assert_eq!(pair.retry.ledger.executions(&node).len(), 1);
        })
        .await;
        pair.assert_tried_again().await;
        assert_eq!(journal.pods(), 1 + 2 + 1);
        until_ready(&stage, &node, true).await;
    })
    .await;
}

/// Namespace of the preemptor: in one for privileged runs nobody but the operator makes pods.
const ELSEWHERE: &str = "default";

/// Runs `body` while a more important pod asks for so much of a node that every runner has to go, and removes it whatever happens.
async fn while_crowded(stage: &Stage, node: &str, body: impl AsyncFnOnce()) {
    let found = nodes(stage).get(node).await.unwrap();
    let memory = found.status.unwrap().allocatable.unwrap()["memory"].0.clone();
    let kibibytes: u64 = memory.strip_suffix("Ki").unwrap().parse().unwrap();
    // Leaves less than one runner asks for.
    let request = json!({"memory": format!("{}Ki", kibibytes - 128 * 1024)});
    let container = json!({"name": "preemptor", "image": "localhost/scriptrunner/pause:1",
        "resources": {"requests": request}});
    let name = stage.namespace.as_str();
    let class = json!({"metadata": {"name": name}, "value": 1000});
    let preemptor = json!({"metadata": {"name": name}, "spec": {"priorityClassName": name,
        "nodeSelector": {"kubernetes.io/hostname": node}, "terminationGracePeriodSeconds": 0,
        "containers": [container]}});
    let classes: Api<PriorityClass> = Api::all(stage.client.clone());
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), ELSEWHERE);
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    let preemptor: Pod = serde_json::from_value(preemptor).unwrap();
    // Admission hears of a new class a moment later.
    let created = wait::until("the preemptor to be admitted", PATIENCE, async |_| {
        pods.create(&PostParams::default(), &preemptor).await.map(Some)
    })
    .await;
    // The pod has its priority from now on.
    classes.delete(name, &DeleteParams::default()).await.unwrap();
    created.unwrap();
    let outcome = AssertUnwindSafe(body()).catch_unwind().await;
    pods.delete(name, &DeleteParams::default()).await.unwrap();
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Waits until the preemptor runs.
async fn until_crowded(stage: &Stage) {
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), ELSEWHERE);
    wait::until("the preemptor to run", PATIENCE, async |seen| {
        let status = pods.get(&stage.namespace).await?.status.unwrap_or_default();
        seen.note(format!("{:?} {:?}", status.phase, status.conditions));
        Ok::<_, kube::Error>((status.phase.as_deref() == Some("Running")).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_preempted_pod_is_told_and_tried_again_when_there_is_room() {
    alone("interruptions::preempted", PRIVILEGED, async |stage| {
        let node = victim(&stage).await;
        // A pod that names its node itself could take the place that the scheduler has just made.
        let pair = Pair::at_work(&stage, &node, &json!({"placement": "Scheduler"})).await;
        while_crowded(&stage, &node, async || {
            pair.assert_reported(&[("Stopped", "Preempted")]).await;
            until_crowded(&stage).await;
            assert_eq!(pair.retry.ledger.executions(&node).len(), 1, "there is no room yet");
        })
        .await;
        pair.assert_tried_again().await;
    })
    .await;
}

#[tokio::test]
async fn a_restarted_node_is_told_and_tried_again() {
    alone("interruptions::restarted", PRIVILEGED, async |stage| {
        let node = victim(&stage).await;
        let journal = stage.journal().await;
        let pair = Pair::at_work(&stage, &node, &json!({})).await;
        while_disturbed(&stage, &[&node], async || stage.cluster.kill(&node).unwrap()).await;
        pair.assert_told(&[("Unknown", "NodeRestarted")]).await;
        assert_eq!(journal.pods(), 1 + 2);
    })
    .await;
}

/// Lines of a script that ends when it is given a sign.
fn until_sign() -> String {
    format!("echo half\n{}echo whole\ntouch \"$ledger.end\"\n", Ledger::AWAIT_SIGN)
}

/// Gives both scripts the sign to end, and waits until they did.
async fn let_end(pair: &Pair) {
    for at_work in [&pair.report, &pair.retry] {
        at_work.ledger.give_sign(&pair.node);
        at_work.ledger.until_left(&pair.node, ".end").await;
    }
}

/// Both answered in their first pod, as if nothing had happened.
async fn assert_undisturbed(pair: &Pair) {
    for at_work in [&pair.report, &pair.retry] {
        let object = at_work.submitted.until_complete().await;
        let known = entry(&object, &pair.node);
        assert_eq!(newest(&object, &pair.node).stdout, "half\nwhole\n");
        assert_eq!(
            (known.executions, known.attempts, known.interruptions),
            (1, 1, 0),
            "{}",
            summary(&object)
        );
        assert_eq!(at_work.ledger.executions(&pair.node), [(1, 1, 1)]);
    }
}

#[tokio::test]
async fn a_restarted_kubelet_interrupts_nothing() {
    alone("interruptions::kubelet", PRIVILEGED, async |stage| {
        let node = victim(&stage).await;
        let journal = stage.journal().await;
        let pair = Pair::doing(&stage, &node, &until_sign(), &json!({})).await;
        restart_kubelet(&stage, &node).await;
        for at_work in [&pair.report, &pair.retry] {
            let object = at_work.submitted.get().await;
            assert_eq!(state(&object, &node).0, "Running", "{}", summary(&object));
        }
        let_end(&pair).await;
        assert_undisturbed(&pair).await;
        assert_eq!(journal.pods(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_interrupts_nothing() {
    alone("interruptions::cut", PRIVILEGED, async |stage| {
        let node = victim(&stage).await;
        let journal = stage.journal().await;
        let pair = Pair::doing(&stage, &node, &until_sign(), &json!({})).await;
        // However long that lasts, Kubernetes does not evict them.
        for pod in &pair.pods {
            let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
            let limited: Vec<_> = tolerations.iter().filter(|it| it.toleration_seconds.is_some()).collect();
            assert_eq!(limited, Vec::<&_>::new());
        }
        while_disturbed(&stage, &[&node], async || {
            stage.cluster.cut(&node).unwrap();
            until_ready(&stage, &node, false).await;
            let_end(&pair).await;
            for at_work in [&pair.report, &pair.retry] {
                let object = at_work.submitted.get().await;
                assert_eq!(state(&object, &node).0, "Running", "nobody can know: {}", summary(&object));
            }
        })
        .await;
        assert_undisturbed(&pair).await;
        assert_eq!(journal.pods(), 2);
    })
    .await;
}
