//! Clusters that belong to one test and are gone after it, however it ends.

use std::{
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use scriptrunner_testcluster::{Cluster, down, wait::until};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_testcluster");

/// One test at a time: a small machine has the strength for one cluster's start.
static TURN: Mutex<()> = Mutex::new(());

/// The right to make clusters of these names; takes them down at the end, and before.
pub(crate) struct Owned {
    names: Vec<&'static str>,
    _turn: MutexGuard<'static, ()>,
}

impl Owned {
    pub(crate) fn new(names: &[&'static str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test needs root, since nodes are made of mounts and network namespaces: run it with sudo"
        );
        let owned = Self { names: names.to_vec(), _turn: turn };
        owned.down();
        owned
    }

    pub(crate) fn down(&self) {
        for name in &self.names {
            down(name).unwrap_or_else(|error| panic!("down of {name:?}: {error}"));
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = down(name) {
                eprintln!("down of {name:?}: {error}");
            }
        }
    }
}

/// Runs the program; its words are separated by single spaces.
pub(crate) fn run(line: &str) -> Output {
    Command::new(PROGRAM).args(line.split(' ')).output().expect("the program should start")
}

/// Runs the program, which must succeed; gives what it wrote to standard error.
pub(crate) fn succeed(line: &str) -> String {
    let output = run(line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "testcluster {line}: {said}");
    said
}

/// Brings a cluster of one node up.
pub(crate) fn up(name: &str) -> Cluster {
    succeed(&format!("up --name {name} --nodes 1 --node-monitor-grace-period-seconds 15"));
    Cluster::existing(name).expect("up should have made the cluster")
}

/// Waits until the API server says that a node is ready, or that it is not.
pub(crate) async fn await_ready(cluster: &Cluster, node: &str, ready: bool) {
    let api: Api<Node> = Api::all(cluster.client().await.unwrap());
    let what = format!("node {node:?} to have ready = {ready}");
    until(&what, Duration::from_mins(2), async |seen| {
        let status = api.get(node).await?.status.unwrap_or_default();
        let condition = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
        seen.note(format!("{condition:?}"));
        Ok::<_, kube::Error>(condition.filter(|condition| (condition.status == "True") == ready))
    })
    .await
    .unwrap();
}
