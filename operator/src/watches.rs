//! Fills the tables from the API server and says which ScriptRunner may have something to do. No decisions.
//!
//! Lists are consistent reads, and Pods, Nodes, Namespaces and ConfigMaps have been listed before the first ScriptRunner is:
//! an operator that starts never takes a pod that it has not heard of for one that does not exist.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::ObjectRef,
        watcher::{self, Event, watcher},
    },
};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use scriptrunner_core::observed::{ConfigMapFacts, NodeFacts, PodFacts, controller_uid};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use crate::{metrics::Metrics, world::World};

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// One object.
    One(ObjectRef<DeserializeGuard<ScriptRunner>>),
    /// Every object of a namespace.
    Namespace(String),
    /// Every object.
    All,
    /// Pods whose object may be gone.
    Orphans,
}

/// Where watches put what they see.
#[derive(Clone)]
pub struct Sink {
    /// The tables.
    pub world: Arc<World>,
    /// What may have something to do.
    pub triggers: mpsc::UnboundedSender<Trigger>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Sink {
    fn trigger(&self, trigger: Trigger) {
        // The receiver lives as long as the process; if it is gone the process is ending.
        let _ = self.triggers.send(trigger);
    }
}

/// Names an object for the controller.
pub fn object_ref(namespace: &str, name: &str) -> ObjectRef<DeserializeGuard<ScriptRunner>> {
    ObjectRef::new(name).within(namespace)
}

/// The reference of the object that controls a child, by the child's marks.
fn owner_ref(namespace: &str, name: &str) -> Trigger {
    Trigger::One(object_ref(namespace, name))
}

/// Starts every watch but that of ScriptRunners; each receiver turns true when its first list is complete.
pub fn start(client: &Client, sink: &Sink) -> Vec<(&'static str, watch::Receiver<bool>)> {
    let ours = watcher::Config::default().labels(labels::UID);
    let all = watcher::Config::default();
    vec![
        ("pods", spawn(sink, "pods", watcher(Api::<Pod>::all(client.clone()), ours.clone()), PodEvents)),
        (
            "nodes",
            spawn(
                sink,
                "nodes",
                watcher(Api::<Node>::all(client.clone()), all.clone()),
                NodeEvents::default(),
            ),
        ),
        (
            "namespaces",
            spawn(
                sink,
                "namespaces",
                watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all),
                NamespaceEvents,
            ),
        ),
        (
            "configmaps",
            spawn(
                sink,
                "configmaps",
                watcher(Api::<PartialObjectMeta<ConfigMap>>::all(client.clone()), ours),
                ConfigMapEvents,
            ),
        ),
    ]
}

/// Takes in the events of one kind.
trait TakeIn<K>: Send + 'static {
    fn take_in(&mut self, event: Event<K>, sink: &Sink);
}

fn spawn<K>(
    sink: &Sink,
    kind: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    mut table: impl TakeIn<K>,
) -> watch::Receiver<bool>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (synced, receiver) = watch::channel(false);
    let sink = sink.clone();
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream.default_backoff());
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    let complete = matches!(event, Event::InitDone);
                    table.take_in(event, &sink);
                    if complete {
                        synced.send_replace(true);
                    }
                }
                Err(error) => {
                    sink.metrics.watch_errors.inc();
                    tracing::warn!(kind, %error, "watch failed, starting it again");
                }
            }
        }
    });
    receiver
}

struct PodEvents;

impl TakeIn<Pod> for PodEvents {
    fn take_in(&mut self, event: Event<Pod>, sink: &Sink) {
        match event {
            Event::Init => sink.world.pods().list_begins(),
            Event::InitApply(pod) | Event::Apply(pod) => {
                let Some(facts) = PodFacts::of(&pod) else {
                    tracing::warn!(
                        namespace = pod.namespace(),
                        pod = pod.name_any(),
                        "a pod has our label and not our marks, left alone"
                    );
                    return;
                };
                let owner = owner_ref(&facts.namespace, &facts.owner_name);
                if sink.world.pods().put(facts) {
                    sink.trigger(owner);
                }
            }
            Event::Delete(pod) => {
                let Some(facts) = PodFacts::of(&pod) else { return };
                let owner = owner_ref(&facts.namespace, &facts.owner_name);
                sink.world.pods().remove(facts);
                sink.trigger(owner);
            }
            Event::InitDone => {
                let owners = sink.world.pods().list_ends();
                for (namespace, name) in owners {
                    sink.trigger(owner_ref(&namespace, &name));
                }
                sink.trigger(Trigger::Orphans);
            }
        }
    }
}

#[derive(Default)]
struct NodeEvents {
    listed: Vec<String>,
}

impl TakeIn<Node> for NodeEvents {
    fn take_in(&mut self, event: Event<Node>, sink: &Sink) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(node) => {
                self.listed.push(node.name_any());
                put_node(&node, sink);
            }
            Event::Apply(node) => put_node(&node, sink),
            Event::Delete(node) => {
                sink.world.nodes().remove(&node.name_any());
                sink.trigger(Trigger::All);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let listed: std::collections::HashSet<&String> = listed.iter().collect();
                let mut nodes = sink.world.nodes();
                let before = nodes.len();
                nodes.retain(|name, _| listed.contains(name));
                if nodes.len() != before {
                    sink.trigger(Trigger::All);
                }
            }
        }
    }
}

/// Heartbeats change a Node every few seconds; only what decisions rest on triggers anything.
fn put_node(node: &Node, sink: &Sink) {
    let Some(facts) = NodeFacts::of(node) else { return };
    let mut nodes = sink.world.nodes();
    if nodes.get(&facts.name) != Some(&facts) {
        nodes.insert(facts.name.clone(), facts);
        sink.trigger(Trigger::All);
    }
}

struct NamespaceEvents;

impl TakeIn<PartialObjectMeta<Namespace>> for NamespaceEvents {
    fn take_in(&mut self, event: Event<PartialObjectMeta<Namespace>>, sink: &Sink) {
        match event {
            Event::Init | Event::InitDone => {}
            Event::InitApply(namespace) | Event::Apply(namespace) => {
                let name = namespace.name_any();
                let allowed = namespace
                    .labels()
                    .get(labels::PRIVILEGED)
                    .is_some_and(|value| value == labels::PRIVILEGED_ALLOWED);
                sink.world.privileged_namespaces().insert(name.clone(), allowed);
                sink.trigger(Trigger::Namespace(name));
            }
            Event::Delete(namespace) => {
                sink.world.privileged_namespaces().remove(&namespace.name_any());
            }
        }
    }
}

struct ConfigMapEvents;

impl TakeIn<PartialObjectMeta<ConfigMap>> for ConfigMapEvents {
    fn take_in(&mut self, event: Event<PartialObjectMeta<ConfigMap>>, sink: &Sink) {
        let trigger = |config_map: &PartialObjectMeta<ConfigMap>| {
            if let (Some(namespace), Some(name)) =
                (config_map.namespace(), config_map.annotations().get(labels::NAME))
            {
                sink.trigger(owner_ref(&namespace, name));
            }
        };
        match event {
            Event::Init => sink.world.config_maps().clear(),
            Event::InitDone => sink.trigger(Trigger::All),
            Event::InitApply(config_map) | Event::Apply(config_map) => {
                if let Some(facts) = ConfigMapFacts::of(&config_map.metadata) {
                    let mut table = sink.world.config_maps();
                    let known = table
                        .entry(facts.owner_uid.clone())
                        .or_default()
                        .insert(facts.name.clone(), facts.clone());
                    if known.as_ref() != Some(&facts) {
                        trigger(&config_map);
                    }
                }
            }
            Event::Delete(config_map) => {
                if let Some(owner) = controller_uid(&config_map.metadata) {
                    let mut table = sink.world.config_maps();
                    if let Some(of_owner) = table.get_mut(owner) {
                        of_owner.remove(&config_map.name_any());
                        if of_owner.is_empty() {
                            table.remove(owner);
                        }
                    }
                }
                trigger(&config_map);
            }
        }
    }
}
