//! Node objects as large as real ones, and how they come into the cluster. Their life is kwok's.

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Images that a node lists: the kubelet's limit.
const IMAGES: u32 = 50;
/// Requests under way at the same time.
const IN_FLIGHT: usize = 32;
/// Nodes of one page of a list.
const PAGE: u32 = 500;
/// The taint that every new node begins with; a controller takes it off, twenty nodes a second.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// A node, as far as pods need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FakeNode {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Makes nodes 1 to `count`, all Ready and untainted, so that no controller has work with them.
pub(crate) async fn make(client: &Client, count: u32) -> anyhow::Result<Vec<FakeNode>> {
    let api: Api<Node> = Api::all(client.clone());
    stream::iter(1..=count)
        .map(|index| create(&api, index))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    // What controllers would do one by one is done at once, so that they have nothing to do while something is measured.
    let settled = json!({
        "metadata": {"annotations": {"node.alpha.kubernetes.io/ttl": ttl_seconds(count).to_string()}},
        "spec": {"taints": null},
    });
    stream::iter(1..=count).map(|index| settle(&api, index, &settled)).buffered(IN_FLIGHT).try_collect().await
}

/// How many nodes there are, and how many of them are Ready and untainted.
pub(crate) async fn count(client: &Client) -> anyhow::Result<(usize, usize)> {
    let api: Api<Node> = Api::all(client.clone());
    let (mut all, mut ready) = (0, 0);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await.context("list the nodes")?;
        all += page.items.len();
        ready += page.items.iter().filter(|node| is_ready(node)).count();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok((all, ready)),
        }
    }
}

async fn create(api: &Api<Node>, index: u32) -> anyhow::Result<()> {
    let node: Node = serde_json::from_value(object(index)).context("make a node")?;
    api.create(&PostParams::default(), &node).await.with_context(|| format!("create node {index}"))?;
    Ok(())
}

async fn settle(api: &Api<Node>, index: u32, patch: &Value) -> anyhow::Result<FakeNode> {
    let node = api
        .patch(&name(index), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("settle node {index}"))?;
    ensure!(is_ready(&node), "node {:?} is not ready or tainted: {:?}", node.name_any(), node.spec);
    let uid = node.uid().context("a node should have a UID")?;
    Ok(FakeNode { name: node.name_any(), uid })
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let tainted = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        && !tainted.into_iter().any(|taint| taint.key == NOT_READY)
}

/// What a controller writes into every node of a cluster of that size.
fn ttl_seconds(count: u32) -> u32 {
    match count {
        0..=100 => 0,
        101..=500 => 15,
        501..=1000 => 30,
        1001..=2000 => 60,
        _ => 300,
    }
}

/// The name of node `index` (from 1).
pub(crate) fn name(index: u32) -> String {
    format!("bench-node-{index:05}")
}

/// A Node as a kubelet of some years' standing shows it.
fn object(index: u32) -> Value {
    let name = name(index);
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let address = format!("10.{}.{}.{}", 64 + index / 62_500, index / 250 % 250, index % 250 + 1);
    let room = json!({"cpu": "16", "memory": "65842932Ki", "pods": "250", "ephemeral-storage": "203070420Ki",
        "hugepages-1Gi": "0", "hugepages-2Mi": "0"});
    let hex = |seed: &str| digest(&format!("{seed} {index}"));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels(index, &name),
            "annotations": {
                "csi.volume.kubernetes.io/nodeid": format!("{{\"ebs.csi.example.com\":\"i-{}\"}}", &hex("csi")[..17]),
                "projectcalico.org/IPv4Address": format!("{address}/20"),
                "projectcalico.org/IPv4IPIPTunnelAddr": address,
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": {"podCIDR": format!("100.{}.{}.0/24", 64 + index / 250, index % 250),
            "providerID": format!("example:///zone-{}/i-{}", index % 3, &hex("provider")[..17])},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "allocatable": room,
            "capacity": room,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "images": (0..IMAGES).map(image).collect::<Vec<_>>(),
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kernelVersion": "6.1.0-25-amd64",
                "osImage": "Debian GNU/Linux 12 (bookworm)", "containerRuntimeVersion": "containerd://2.3.7",
                "kubeletVersion": "v1.36.3", "kubeProxyVersion": "", "machineID": &hex("machine")[..32],
                "systemUUID": &hex("system")[..32], "bootID": &hex("boot")[..32],
            },
        },
    })
}

fn labels(index: u32, name: &str) -> Value {
    json!({
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "failure-domain.beta.kubernetes.io/region": "region-1",
        "failure-domain.beta.kubernetes.io/zone": format!("zone-{}", index % 3),
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "large-16",
        "topology.kubernetes.io/region": "region-1",
        "topology.kubernetes.io/zone": format!("zone-{}", index % 3),
    })
}

/// An image under its digest and under its tag, as a kubelet lists both.
fn image(number: u32) -> Value {
    let repository = format!(
        "registry.region-1.example.com/platform/production/team-{}/component-{number:02}-agent",
        number % 7
    );
    let digest = digest(&repository);
    json!({
        "names": [format!("{repository}@sha256:{digest}"), format!("{repository}:v1.{number}.3-build.20261120.{}", &digest[..8])],
        "sizeBytes": 40_000_000 + number * 1_000_003,
    })
}

fn digest(text: &str) -> String {
    scriptrunner_api::digest::sha256_hex(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_as_large_as_a_real_one_and_lists_fifty_images() {
        let node = object(4711);
        assert_eq!(node["status"]["images"].as_array().unwrap().len(), 50);
        let bytes = node.to_string().len();
        assert!((15_000..=25_000).contains(&bytes), "{bytes}");
        let read: Node = serde_json::from_value(node).unwrap();
        assert!(is_ready(&read));
    }

    #[test]
    fn no_two_nodes_share_name_address_or_machine() {
        let key = |index| {
            let node = object(index);
            let status = &node["status"];
            (
                node["metadata"]["name"].to_string(),
                status["addresses"][0].to_string(),
                status["nodeInfo"].to_string(),
            )
        };
        let mut keys: Vec<_> = (1..=600).map(key).collect();
        keys.sort();
        for (one, next) in keys.iter().zip(&keys[1..]) {
            assert!(one.0 != next.0 && one.1 != next.1 && one.2 != next.2, "{one:?} {next:?}");
        }
    }

    #[test]
    fn a_tainted_node_is_not_ready() {
        let mut node: Node = serde_json::from_value(object(1)).unwrap();
        let taint = json!([{"key": NOT_READY, "effect": "NoSchedule"}]);
        node.spec.get_or_insert_default().taints = serde_json::from_value(taint).unwrap();
        assert!(!is_ready(&node));
    }
}
