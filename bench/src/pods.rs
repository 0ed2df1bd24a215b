//! The kubelets' part that kwok leaves: sees that a pod runs, starts its simulated runner, and ends the pod with the
//! runner's message when the runner has ended.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use scriptrunner_api::labels;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::AbortHandle};

use crate::{
    follow::{Event, follow},
    runner::{Ending, Pod as RunnerPod},
    theatre::Theatre,
};

/// Status writes under way at the same time.
const IN_FLIGHT: usize = 64;
/// Pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Seen {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    labels: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    phase: String,
}

/// What was seen of the pods of a namespace.
#[derive(Default)]
pub(crate) struct Counts {
    /// Pods that were made.
    pub(crate) made: AtomicUsize,
    /// Bytes of these as made.
    pub(crate) made_bytes: AtomicUsize,
    /// Pods whose end was written.
    pub(crate) ended: AtomicUsize,
    /// Pods that are there.
    pub(crate) present: AtomicUsize,
    /// Pods whose end could not be written, because they were gone.
    pub(crate) gone: AtomicUsize,
}

/// The kubelets of a namespace.
pub(crate) struct Kubelets {
    pub(crate) counts: Arc<Counts>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    runners: Runners,
}

type Runners = Arc<Mutex<HashMap<String, AbortHandle>>>;

impl Kubelets {
    /// Begins to watch the pods of a namespace, and to start runners in the theatre.
    pub(crate) async fn watch(
        client: Client,
        namespace: &str,
        theatre: Arc<Theatre>,
    ) -> anyhow::Result<Self> {
        let counts = Arc::new(Counts::default());
        let runners = Runners::default();
        let host = Host {
            api: Api::namespaced(client.clone(), namespace),
            turns: Arc::new(Semaphore::new(IN_FLIGHT)),
            counts: counts.clone(),
            theatre,
        };
        let started = runners.clone();
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let watching = follow(client, &path, move |at, bytes, event: Event<Seen>| {
            host.see(at, bytes, event, &started);
        })
        .await?;
        Ok(Self { counts, task: tokio::spawn(watching), runners })
    }

    /// Whether the watch still goes on; its error otherwise.
    pub(crate) async fn check(&mut self) -> anyhow::Result<()> {
        if self.task.is_finished() { (&mut self.task).await? } else { Ok(()) }
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.task.abort();
        for (_, runner) in self.runners.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            runner.abort();
        }
    }
}

#[derive(Clone)]
struct Host {
    /// Of the answers only the names are read.
    api: Api<PartialObjectMeta<Pod>>,
    turns: Arc<Semaphore>,
    counts: Arc<Counts>,
    theatre: Arc<Theatre>,
}

impl Host {
    fn see(&self, at: Instant, bytes: usize, event: Event<Seen>, runners: &Runners) {
        let Event { kind, object: pod } = event;
        let mut running = runners.lock().unwrap_or_else(PoisonError::into_inner);
        match kind.as_str() {
            "ADDED" => {
                self.counts.made.fetch_add(1, Ordering::Relaxed);
                self.counts.made_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.counts.present.fetch_add(1, Ordering::Relaxed);
            }
            "DELETED" => {
                self.counts.present.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        let is_deleted = kind == "DELETED";
        if is_deleted || pod.metadata.deletion_timestamp.is_some() {
            // A pod that is being deleted is killed; kwok removes it without waiting for its end.
            if let Some(runner) = running.remove(&pod.metadata.uid) {
                runner.abort();
            }
            // One that has ended meanwhile is no longer kwok's.
            if !is_deleted && ["Succeeded", "Failed"].contains(&pod.status.phase.as_str()) {
                tokio::spawn(self.clone().remove(pod.metadata.name));
            }
        } else if pod.status.phase == "Running" && !running.contains_key(&pod.metadata.uid) {
            let uid = pod.metadata.uid.clone();
            running.insert(uid, tokio::spawn(self.clone().run(pod, at)).abort_handle());
        }
    }

    /// The last thing that a kubelet does with a pod that is being deleted.
    async fn remove(self, name: String) {
        while let Err(error) = self.api.delete(&name, &DeleteParams::default().grace_period(0)).await {
            if matches!(&error, kube::Error::Api(status) if status.is_not_found()) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn run(self, pod: Seen, started: Instant) {
        let Seen { metadata, spec, status: _ } = pod;
        let pod = RunnerPod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            node: spec.node_name,
            node_uid: metadata.labels.get(labels::NODE_UID).cloned().unwrap_or_default(),
            object_uid: metadata.labels.get(labels::UID).cloned().unwrap_or_default(),
            args: spec.containers.into_iter().next().map(|container| container.args).unwrap_or_default(),
        };
        let start_time = Timestamp::now();
        let ending = self.theatre.run(&pod, started).await;
        self.end(&pod, start_time, &ending).await;
    }

    /// Writes what a kubelet writes when the only container of a pod has ended; tries until it is written or the pod gone.
    async fn end(&self, pod: &RunnerPod, started: Timestamp, ending: &Ending) {
        let Ok(_turn) = self.turns.acquire().await else { return };
        let patch = Patch::Strategic(ended(started, ending));
        loop {
            let answer = self.api.patch_status(&pod.name, &PatchParams::default(), &patch).await;
            let counter = match answer {
                Ok(_) => &self.counts.ended,
                Err(kube::Error::Api(status)) if status.is_not_found() => &self.counts.gone,
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

fn ended(started: Timestamp, ending: &Ending) -> Value {
    let time = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (phase, reason) =
        if ending.exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    json!({"status": {
        "phase": phase,
        "containerStatuses": [{
            "name": labels::CONTAINER, "image": "", "imageID": "", "ready": false, "started": false,
            "restartCount": 0, "state": {"terminated": {
                "exitCode": ending.exit_code, "reason": reason, "message": ending.message,
                "startedAt": time(started), "finishedAt": time(Timestamp::now()),
            }},
        }],
    }})
}
