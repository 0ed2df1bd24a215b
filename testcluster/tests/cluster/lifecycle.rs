//! `up` and `down`, from every state a machine can be in.

use std::{collections::BTreeMap, fs, net::TcpListener, process::Command, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use scriptrunner_testcluster::{Cluster, wait::until};

use crate::{
    machine::Machine,
    owned::{Owned, await_ready, run, succeed, up},
};

#[test]
fn down_leaves_the_machine_as_it_was() {
    let owned = Owned::new(&["tc-leak"]);
    let before = Machine::look("tc-leak");
    let cluster = up("tc-leak");
    assert!(!before.differences(&Machine::look("tc-leak")).is_empty(), "the comparison should see a cluster");
    // A node with a hand in every state is the hardest to remove.
    cluster.cut("tc-leak-node1").unwrap();
    cluster.freeze("tc-leak-node1").unwrap();
    owned.down();
    let differences = before.differences(&Machine::look("tc-leak"));
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(!cluster.kubeconfig().exists());
}

#[tokio::test]
async fn up_is_harmless_when_up_and_heals_after_a_crash() {
    let _owned = Owned::new(&["tc-heal"]);
    let cluster = up("tc-heal");
    let node = cluster.node_names().remove(0);
    let pids = |cluster: &Cluster| {
        let components = cluster.components().unwrap().into_iter().map(|(name, ..)| name);
        let mut pids: Vec<u32> =
            components.filter_map(|name| cluster.component_process(name).unwrap()).collect();
        pids.extend(cluster.node_process(&node).unwrap());
        pids
    };
    let first = pids(&cluster);
    assert_eq!(first.len(), 6);
    assert_eq!(pids(&up("tc-heal")), first);

    remember_something(&cluster).await;
    kill(&first);
    let port = cluster.state().slot.ports().etcd;
    let stranger = until("the killed etcd to let go of its port", Duration::from_secs(10), async |_| {
        TcpListener::bind(("127.0.0.1", port)).map(Some)
    })
    .await
    .unwrap();
    let refused = run("up --name tc-heal --nodes 1 --node-monitor-grace-period-seconds 15");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(said.contains("taken"), "{said}");
    drop(stranger);

    // The start of a machine takes this away too.
    let slot = cluster.state().slot;
    assert!(Command::new("ip").args(["link", "delete", &slot.bridge()]).status().unwrap().success());
    let table = slot.filter_table();
    assert!(Command::new("nft").args(["delete", "table", "ip", &table]).status().unwrap().success());
    let healed = up("tc-heal");
    assert!(pids(&healed).iter().all(|pid| !first.contains(pid)));
    await_ready(&healed, &node, true).await;
    assert!(is_remembered(&healed).await);
}

#[tokio::test]
async fn up_starts_empty_when_the_data_is_broken() {
    let _owned = Owned::new(&["tc-broken"]);
    let cluster = up("tc-broken");
    remember_something(&cluster).await;
    kill(&[cluster.component_process("etcd").unwrap().unwrap()]);
    let folder = cluster.state().folder().etcd();
    fs::write(folder.join("member/snap/db"), "broken").unwrap();
    let said = succeed("up --name tc-broken --nodes 1 --node-monitor-grace-period-seconds 15");
    assert!(said.contains("data was broken"), "{said}");
    assert!(!is_remembered(&cluster).await);
    await_ready(&cluster, "tc-broken-node1", true).await;
}

#[test]
fn a_leftover_of_another_checkout_is_replaced() {
    let _owned = Owned::new(&["tc-other"]);
    let cluster = up("tc-other");
    let etcd = cluster.component_process("etcd").unwrap();
    let path = cluster.state().folder().state();
    let elsewhere = tempfile::tempdir().unwrap();
    let state = fs::read_to_string(&path).unwrap();
    let here = cluster.state().checkout.display().to_string();
    let there = elsewhere.path().display().to_string();
    fs::write(&path, state.replace(&format!("{here:?}"), &format!("{there:?}"))).unwrap();
    let said = succeed("up --name tc-other --nodes 1");
    assert!(said.contains(&there), "{said}");
    assert_ne!(cluster.component_process("etcd").unwrap(), etcd);
}

#[tokio::test]
async fn two_clusters_run_side_by_side() {
    let owned = Owned::new(&["tc-left", "tc-right"]);
    let (left, right) = (up("tc-left"), up("tc-right"));
    assert_ne!(left.gateway(), right.gateway());
    await_ready(&left, "tc-left-node1", true).await;
    await_ready(&right, "tc-right-node1", true).await;
    succeed("down --name tc-left");
    assert!(!left.kubeconfig().exists());
    await_ready(&right, "tc-right-node1", true).await;
    assert!(right.components().unwrap().iter().all(|(_, _, running)| *running));
    drop(owned);
}

fn kill(pids: &[u32]) {
    let mut command = Command::new("kill");
    command.arg("-9").args(pids.iter().map(u32::to_string));
    assert!(command.status().unwrap().success());
}

async fn remember_something(cluster: &Cluster) {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client().await.unwrap(), "default");
    let object = ConfigMap {
        metadata: ObjectMeta { name: Some("remembered".into()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".into(), "value".into())])),
        ..ConfigMap::default()
    };
    api.create(&PostParams::default(), &object).await.unwrap();
}

async fn is_remembered(cluster: &Cluster) -> bool {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client().await.unwrap(), "default");
    api.get_opt("remembered").await.unwrap().is_some()
}
