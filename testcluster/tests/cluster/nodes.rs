//! What can befall a node, and that it comes back.

use std::fs;

use scriptrunner_testcluster::Condition;

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
    succeed(&format!("node {node} heal"));
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
