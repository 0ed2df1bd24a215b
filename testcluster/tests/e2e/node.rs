//! The nodes from outside: what can be done to them, and waiting for what Kubernetes makes of it.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use scriptrunner_testcluster::wait;
use serde_json::Value;

use crate::{
    operator, processes,
    stage::{PATIENCE, Stage},
};

/// All nodes.
pub(crate) fn nodes(stage: &Stage) -> Api<Node> {
    Api::all(stage.client.clone())
}

/// A node that the operator does not run on.
pub(crate) async fn victim(stage: &Stage) -> String {
    let spared = operator::node(&stage.client).await;
    stage.cluster.node_names().into_iter().find(|node| *node != spared).unwrap()
}

/// Changes a Node by a merge patch.
pub(crate) async fn change(stage: &Stage, node: &str, patch: Value) {
    nodes(stage).patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// Runs `body` while a Node is changed, and undoes the change whatever happens.
pub(crate) async fn while_changed<T>(
    stage: &Stage,
    node: &str,
    patch: Value,
    undo: Value,
    body: impl AsyncFnOnce() -> T,
) -> T {
    change(stage, node, patch).await;
    let outcome = AssertUnwindSafe(body()).catch_unwind().await;
    change(stage, node, undo).await;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `body`, which may cut, freeze or kill these nodes, and heals them whatever happens; returns once they are Ready again.
pub(crate) async fn while_disturbed<T>(stage: &Stage, nodes: &[&str], body: impl AsyncFnOnce() -> T) -> T {
    let outcome = AssertUnwindSafe(body()).catch_unwind().await;
    for node in nodes {
        stage.cluster.heal(node).unwrap();
    }
    let outcome = outcome.unwrap_or_else(|panic| resume_unwind(panic));
    for node in nodes {
        until_ready(stage, node, true).await;
    }
    outcome
}

/// Kills a node's kubelet, which is started again as a service manager does; returns once Kubernetes has heard from the new one.
pub(crate) async fn restart_kubelet(stage: &Stage, node: &str) {
    let argument = format!("--hostname-override={node}");
    let before = processes::find_one(&stage.cluster, "kubelet", &argument).await;
    // Kubernetes counts whole seconds: what it hears in this one may be of the old kubelet.
    let killed = Timestamp::now().as_second();
    processes::kill(before);
    wait::until(&format!("news from another kubelet of {node:?}"), PATIENCE, async |seen| {
        let found = nodes(stage).get(node).await?;
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let heard = ready.and_then(|ready| ready.last_heartbeat_time).map(|time| time.0.as_second());
        seen.note(format!("killed {killed}, heard {heard:?}"));
        Ok::<_, kube::Error>(heard.is_some_and(|heard| heard > killed).then_some(()))
    })
    .await
    .unwrap();
    let after = processes::find_one(&stage.cluster, "kubelet", &argument).await;
    assert_ne!(before, after, "the kubelet was not killed");
    until_ready(stage, node, true).await;
}

/// Waits until Kubernetes says that the node is or is not Ready, taints included.
pub(crate) async fn until_ready(stage: &Stage, node: &str, expected: bool) {
    wait::until(&format!("node {node:?} to be ready: {expected}"), PATIENCE, async |seen| {
        let found = nodes(stage).get_opt(node).await?;
        let conditions = found.as_ref().and_then(|node| node.status.as_ref()?.conditions.as_ref());
        let is_ready = conditions.is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        let taints = found.as_ref().and_then(|node| node.spec.as_ref()?.taints.clone()).unwrap_or_default();
        seen.note(format!("ready: {is_ready}, taints: {taints:?}"));
        Ok::<_, kube::Error>((is_ready == expected && is_ready == taints.is_empty()).then_some(()))
    })
    .await
    .unwrap();
}
