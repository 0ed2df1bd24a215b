//! What can befall a node, and that it comes back.

use std::{fs, process::Command};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use scriptrunner_testcluster::{Cluster, Condition};

use crate::owned::{Owned, await_ready, run, succeed, up};

#[tokio::test]
async fn a_node_survives_kill_freeze_and_cut_with_its_disk() {
    let _owned = Owned::new(&["tc-nodes"]);
    let cluster = up("tc-nodes");
    let node = "tc-nodes-node1";
    fs::write(cluster.node_etc(node).unwrap().join("kept"), "etc").unwrap();
    fs::write(cluster.node_var(node).unwrap().join("lib/kept"), "var").unwrap();

    succeed(&format!("node {node} kill"));
    assert_eq!(cluster.condition(node).unwrap(), Condition::Dead);
    await_ready(&cluster, node, false).await;
    up("tc-nodes");
    assert_eq!(cluster.condition(node).unwrap(), Condition::Running);
    await_ready(&cluster, node, true).await;
    let pid = cluster.node_process(node).unwrap().unwrap();
    let inside = |path: &str| fs::read_to_string(format!("/proc/{pid}/root/{path}")).unwrap();
    assert_eq!(inside("etc/kept"), "etc");
    assert_eq!(inside("var/lib/kept"), "var");
    assert_eq!(inside("etc/hostname"), format!("{node}\n"));

    succeed(&format!("node {node} cut"));
    assert_eq!(cluster.condition(node).unwrap(), Condition::Cut);
    await_ready(&cluster, node, false).await;
    succeed(&format!("node {node} heal"));
    await_ready(&cluster, node, true).await;
    assert_eq!(cluster.node_process(node).unwrap(), Some(pid), "a mended cable is no reboot");

    succeed(&format!("node {node} freeze"));
    assert_eq!(cluster.condition(node).unwrap(), Condition::Frozen);
    succeed(&format!("node {node} heal"));
    assert_eq!(cluster.condition(node).unwrap(), Condition::Running);
    assert_eq!(cluster.node_process(node).unwrap(), Some(pid), "a thaw is no reboot");

    let unknown = run("node tc-nodes-node7 kill");
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains(node), "{said}");
}

#[tokio::test]
async fn nodes_that_come_later_have_the_images_and_can_go_again() {
    let _owned = Owned::new(&["tc-more"]);
    let cluster = up("tc-more");
    // Any archive will do; this one is at hand.
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("image.tar");
    fs::copy(cluster.state().folder().path().join("pause.tar"), &archive).unwrap();
    assert_eq!(cluster.load_image(&archive).unwrap(), ["localhost/scriptrunner/pause:1"]);
    assert!(cluster.load_image(&archive).unwrap().is_empty(), "it is there already");

    let wish = "up --name tc-more --node-monitor-grace-period-seconds 15 --nodes";
    succeed(&format!("{wish} 2"));
    let cluster = Cluster::existing("tc-more").unwrap();
    assert_eq!(cluster.node_names(), ["tc-more-node1", "tc-more-node2"]);
    await_ready(&cluster, "tc-more-node2", true).await;
    assert!(images(&cluster, "tc-more-node2").contains("localhost/scriptrunner/pause:1"));
    let recorded = cluster.state().folder().node("tc-more-node2").join("images.json");
    assert!(fs::read_to_string(recorded).unwrap().contains("image.tar"));

    succeed(&format!("{wish} 1"));
    let nodes: Api<Node> = Api::all(cluster.client().await.unwrap());
    assert!(nodes.get_opt("tc-more-node2").await.unwrap().is_none());
    assert!(!cluster.state().folder().node("tc-more-node2").exists());

    succeed(&format!("{wish} 0"));
    assert!(nodes.list(&ListParams::default()).await.unwrap().items.is_empty());
    let alone = Cluster::existing("tc-more").unwrap();
    assert!(alone.node_names().is_empty());
    assert!(alone.components().unwrap().iter().all(|(_, _, running)| *running), "the control plane stays");
}

fn images(cluster: &Cluster, node: &str) -> String {
    let pid = cluster.node_process(node).unwrap().unwrap();
    let socket = format!("/proc/{pid}/root/run/containerd/containerd.sock");
    let mut command = Command::new(cluster.binary("ctr").unwrap());
    let output =
        command.args(["--address", &socket, "--namespace", "k8s.io", "images", "list"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
