//! Writes down what happens to the pods of a namespace, so that a test can say what never happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use scriptrunner_api::labels;
use scriptrunner_testcluster::wait;
use tokio::task::JoinHandle;

use crate::stage::PATIENCE;

/// What has been seen of pods since the journal was opened.
#[derive(Default)]
struct Seen {
    is_open: bool,
    /// Node of each pod that was ever there, by UID.
    nodes: BTreeMap<String, String>,
    /// UIDs of pods that are there and whose runner has not ended.
    busy: BTreeSet<String>,
    /// Most busy pods at any moment.
    most_busy: usize,
    /// Nodes that were seen with two busy pods at once.
    shared: BTreeSet<String>,
}

/// A watch that goes on until this is dropped.
pub(crate) struct Journal {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Journal {
    /// Opens a journal; returns once it sees everything.
    pub(crate) async fn start(pods: Api<Pod>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let writer = seen.clone();
        let task = tokio::spawn(async move {
            let events = watcher(pods, watcher::Config::default()).default_backoff();
            pin_mut!(events);
            while let Some(event) = events.next().await {
                if let Ok(event) = event {
                    writer.lock().unwrap().note(event);
                }
            }
        });
        let journal = Self { seen, task };
        wait::until("the watch of pods to begin", PATIENCE, async |_| {
            Ok::<_, kube::Error>(journal.seen.lock().unwrap().is_open.then_some(()))
        })
        .await
        .unwrap();
        journal
    }

    /// How many pods each node has had.
    pub(crate) fn pods_per_node(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for node in self.seen.lock().unwrap().nodes.values() {
            *counts.entry(node.clone()).or_default() += 1;
        }
        counts
    }

    /// How many pods there have been.
    pub(crate) fn pods(&self) -> usize {
        self.seen.lock().unwrap().nodes.len()
    }

    /// How many pods were at work at once, at most.
    pub(crate) fn most_busy(&self) -> usize {
        self.seen.lock().unwrap().most_busy
    }

    /// Nodes on which two pods were at work at once.
    pub(crate) fn shared_nodes(&self) -> Vec<String> {
        self.seen.lock().unwrap().shared.iter().cloned().collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn note(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => {}
            watcher::Event::InitDone => self.is_open = true,
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                self.nodes.insert(uid.clone(), node_of(&pod));
                if has_ended(&pod) {
                    self.busy.remove(&uid);
                } else {
                    self.busy.insert(uid);
                }
            }
            watcher::Event::Delete(pod) => {
                self.busy.remove(&pod.metadata.uid.unwrap_or_default());
            }
        }
        self.most_busy = self.most_busy.max(self.busy.len());
        let mut taken = BTreeSet::new();
        for uid in &self.busy {
            if !taken.insert(&self.nodes[uid]) {
                self.shared.insert(self.nodes[uid].clone());
            }
        }
    }
}

/// The node that a pod was made for.
fn node_of(pod: &Pod) -> String {
    let marks = pod.metadata.annotations.as_ref();
    marks.and_then(|marks| marks.get(labels::NODE)).cloned().unwrap_or_default()
}

/// Whether the pod's container has ended; the kubelet calls the pod itself ended a little later.
fn has_ended(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let has_terminated = containers
        .iter()
        .any(|container| container.state.as_ref().is_some_and(|state| state.terminated.is_some()));
    has_terminated || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}
