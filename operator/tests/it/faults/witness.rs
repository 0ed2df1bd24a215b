//! Sees every version of the ScriptRunners and pods of a namespace, without faults, and notes what must never be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::wait;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::scene::{PATIENCE, Scene};

/// Most bytes of an object, everything included.
const MAX_BYTES: usize = 1024 * 1024;
/// Two periods in which a change of states would have been written (`--state-interval-seconds`).
const REST: Duration = Duration::from_secs(2 * 2);

/// Two watches that go on until this is dropped.
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Seen {
    open: BTreeSet<&'static str>,
    breaches: Vec<String>,
    /// By name.
    objects: BTreeMap<String, Versions>,
    /// UIDs of pods that were ever there, with object and node.
    pods: BTreeMap<String, (String, String)>,
    /// UIDs of pods that are there and whose runner has not ended.
    busy: BTreeSet<String>,
}

struct Versions {
    latest: ScriptRunner,
    at: Instant,
    count: usize,
}

impl Witness {
    /// Begins; returns once it sees everything.
    pub(crate) async fn begin(scene: &Scene) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let resource = ApiResource::erase::<ScriptRunner>(&());
        let objects: Api<DynamicObject> =
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource);
        let tasks = [
            tokio::spawn(follow(objects, seen.clone(), "objects", Seen::note_object)),
            tokio::spawn(follow(scene.objects::<Pod>(), seen.clone(), "pods", Seen::note_pod)),
        ];
        let witness = Self { seen, tasks };
        wait::until("the watches of the witness to begin", PATIENCE, async |_| {
            Ok::<_, kube::Error>((witness.seen.lock().unwrap().open.len() == 2).then_some(()))
        })
        .await
        .unwrap();
        witness
    }

    /// Waits until nothing has been written to the object for two flush periods.
    pub(crate) async fn until_rest(&self, name: &str) {
        wait::until(&format!("{name:?} to come to rest"), PATIENCE, async |seen| {
            let all = self.seen.lock().unwrap();
            let Some(object) = all.objects.get(name) else { return Ok(None) };
            seen.note(format!("version {} is {:.1?} old", object.count, object.at.elapsed()));
            Ok::<_, kube::Error>((object.at.elapsed() >= REST).then_some(()))
        })
        .await
        .unwrap();
    }

    /// How many pods an object has had on each node.
    pub(crate) fn pods_per_node(&self, name: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, node) in self.seen.lock().unwrap().pods.values().filter(|(object, _)| object == name) {
            *counts.entry(node.clone()).or_default() += 1;
        }
        counts
    }

    /// Fails if something was seen that must never be.
    pub(crate) fn assert_nothing_wrong(&self) {
        let breaches = &self.seen.lock().unwrap().breaches;
        assert!(breaches.is_empty(), "{breaches:#?}");
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn follow<K>(api: Api<K>, seen: Arc<Mutex<Seen>>, kind: &'static str, note: fn(&mut Seen, &K, bool))
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let events = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        // The API server may be killed by the test; the watch begins again.
        let Ok(event) = event else { continue };
        let mut seen = seen.lock().unwrap();
        match event {
            Event::Init => {}
            Event::InitDone => drop(seen.open.insert(kind)),
            Event::Apply(object) | Event::InitApply(object) => note(&mut seen, &object, true),
            Event::Delete(object) => note(&mut seen, &object, false),
        }
    }
}

impl Seen {
    fn note_object(&mut self, object: &DynamicObject, is_there: bool) {
        let name = object.name_any();
        if !is_there {
            self.objects.remove(&name);
            return;
        }
        let bytes = serde_json::to_vec(object).unwrap().len();
        if bytes > MAX_BYTES {
            self.breaches.push(format!("{name} has {bytes} bytes"));
        }
        let latest: ScriptRunner = serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap();
        let before = self.objects.get(&name);
        // A watch that begins again shows once more what is known.
        if before.is_some_and(|before| before.latest.resource_version() == latest.resource_version()) {
            return;
        }
        let count = before.map_or(0, |before| before.count) + 1;
        let breaches = before.map(|before| steps_back(&before.latest, &latest)).unwrap_or_default();
        self.breaches.extend(breaches);
        self.objects.insert(name, Versions { latest, at: Instant::now(), count });
    }

    fn note_pod(&mut self, pod: &Pod, is_there: bool) {
        let uid = pod.uid().unwrap_or_default();
        let mark = |key: &str| pod.annotations().get(key).cloned().unwrap_or_default();
        self.pods.insert(uid.clone(), (mark(labels::NAME), mark(labels::NODE)));
        if is_there && !has_ended(pod) {
            self.busy.insert(uid);
        } else {
            self.busy.remove(&uid);
        }
        let mut taken = BTreeSet::new();
        for uid in &self.busy {
            if !taken.insert(&self.pods[uid]) {
                self.breaches.push(format!("two pods at once: {:?}", self.pods[uid]));
            }
        }
    }
}

/// Numbers that must never fall and did.
fn steps_back(before: &ScriptRunner, after: &ScriptRunner) -> Vec<String> {
    let (Some(old), Some(new)) = (&before.status, &after.status) else {
        return before.status.iter().map(|_| "the status is gone".to_owned()).collect();
    };
    let mut found = Vec::new();
    let mut compare = |what: String, old: u64, new: u64| {
        if new < old {
            found.push(format!("{what} fell from {old} to {new}"));
        }
    };
    let run = |status: &scriptrunner_api::v1alpha1::ScriptRunnerStatus| {
        status.run.as_ref().map_or(0, |run| run.number)
    };
    compare("the run".to_owned(), run(old), run(new));
    let generation = |number: Option<i64>| number.unwrap_or(0).unsigned_abs();
    compare(
        "the generation".to_owned(),
        generation(old.observed_generation),
        generation(new.observed_generation),
    );
    for (node, old) in &old.nodes {
        let Some(new) = new.nodes.get(node) else { continue };
        compare(format!("executions on {node}"), old.executions, new.executions);
        compare(format!("failures on {node}"), old.failures, new.failures);
        if old.run == new.run {
            compare(format!("attempts on {node}"), old.attempts.into(), new.attempts.into());
            compare(format!("serial on {node}"), old.serial, new.serial);
        }
    }
    found
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
