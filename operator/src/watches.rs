//! Fills the tables from the API server and says which ScriptRunner may have something to do. No decisions.
//!
//! Lists are consistent reads, and Pods, Nodes, Namespaces and ConfigMaps have been listed before the first ScriptRunner is:
//! an operator that starts never takes a pod that it has not heard of for one that does not exist, nor a script for a missing one.

mod labelled;
mod merged;
pub mod slim;

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use scriptrunner_api::labels;
use scriptrunner_core::observed::{ConfigMapFacts, NodeFacts, PodFacts, controller_uid};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use self::{
    labelled::{Labelled, LabelledEvents},
    merged::merge,
    slim::Slimmed,
};
use crate::{guarded::Reference, metrics::Metrics, scope::Scope, world::World};

/// After this time the API server ends a watch, and it is taken up again where it ended.
const WATCH_SECONDS: u32 = 60;
/// A connection on which nothing is said for longer than this is dead: the API server would at least have ended the watch.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);
/// Objects in one answer to a list. A real Node has 20 KB.
pub const PAGE: u32 = 250;
/// The same of users' ConfigMaps and of ScriptRunners, which may have a megabyte each.
pub const PAGE_OF_LARGE: u32 = 16;

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// One object.
    One(Reference),
    /// Every object of a namespace.
    Namespace(String),
    /// Every object that names this ConfigMap of a user's.
    Source {
        /// The namespace of both.
        namespace: String,
        /// Name of the ConfigMap.
        name: String,
    },
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
pub fn object_ref(namespace: &str, name: &str) -> Reference {
    Reference::new(name).within(namespace)
}

/// The reference of the object that controls a child, by the child's marks.
fn owner_ref(namespace: &str, name: &str) -> Trigger {
    Trigger::One(object_ref(namespace, name))
}

/// Watches everything of a kind, for ever, in the whole cluster or in several namespaces. Whatever ends the watch, it goes on
/// from the version that it has reached; only if the API server does not know that version any more is everything listed again,
/// `page` objects at a time.
pub fn watch_all<K>(
    apis: Vec<Api<K>>,
    selector: Option<&str>,
    page: u32,
) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut watches: Vec<_> =
        apis.into_iter().map(|api| watch_in_pages(api, selector, page).boxed()).collect();
    match watches.pop() {
        Some(only) if watches.is_empty() => only,
        last => merge(watches.into_iter().chain(last).collect()).boxed(),
    }
}

fn watch_in_pages<K>(
    api: Api<K>,
    selector: Option<&str>,
    page: u32,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(page);
    let config = selector.iter().fold(config, |config, selector| config.labels(selector));
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    stream::unfold((None, begin), |(running, begin)| async {
        let mut running: BoxStream<'static, _> = running.unwrap_or_else(&begin);
        let event = running.next().await?;
        // The client library expects to hear this within the watch, and would ask for the same version for ever.
        let is_over = matches!(&event, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410);
        Some((event, ((!is_over).then_some(running), begin)))
    })
    .default_backoff()
}

/// Starts every watch but that of ScriptRunners; each receiver turns true when its first list is complete.
pub fn start(client: &Client, scope: &Scope, sink: &Sink) -> Vec<(&'static str, watch::Receiver<bool>)> {
    let ours = Some(labels::UID);
    let pods = watch_all(scope.apis::<Slimmed<Pod>>(client), ours, PAGE);
    let nodes = watch_all(vec![Api::<Slimmed<Node>>::all(client.clone())], None, PAGE);
    // Those of other namespaces trigger nothing, because nothing of them is known.
    let namespaces = watch_all(vec![Api::all(client.clone())], None, PAGE);
    let config_maps = watch_all(scope.apis(client), ours, PAGE);
    let is_source = format!("{}={}", labels::SOURCE, labels::SOURCE_TRUE);
    let sources = watch_all(scope.apis::<Labelled>(client), Some(&is_source), PAGE_OF_LARGE);
    vec![
        ("pods", spawn(sink, "pods", pods, PodEvents)),
        ("nodes", spawn(sink, "nodes", nodes, NodeEvents::default())),
        ("namespaces", spawn(sink, "namespaces", namespaces, NamespaceEvents)),
        ("configmaps", spawn(sink, "configmaps", config_maps, ConfigMapEvents)),
        ("labelled configmaps", spawn(sink, "labelled configmaps", sources, LabelledEvents)),
    ]
}

/// Takes in the events of one kind.
trait TakeIn<K>: Send + 'static {
    fn take_in(&mut self, event: Event<K>, sink: &Sink);
}

fn spawn<K: Send + 'static>(
    sink: &Sink,
    kind: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    mut table: impl TakeIn<K>,
) -> watch::Receiver<bool> {
    let (synced, receiver) = watch::channel(false);
    let sink = sink.clone();
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
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

impl TakeIn<Slimmed<Pod>> for PodEvents {
    fn take_in(&mut self, event: Event<Slimmed<Pod>>, sink: &Sink) {
        match event {
            Event::Init => sink.world.pods().list_begins(),
            Event::InitApply(Slimmed(pod)) | Event::Apply(Slimmed(pod)) => {
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
            Event::Delete(Slimmed(pod)) => {
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
    listed: HashSet<String>,
    /// Whether the list under way has shown anything new.
    changed: bool,
}

impl TakeIn<Slimmed<Node>> for NodeEvents {
    fn take_in(&mut self, event: Event<Slimmed<Node>>, sink: &Sink) {
        match event {
            Event::Init => *self = Self::default(),
            Event::InitApply(Slimmed(node)) => {
                self.changed |= put_node(&node, sink);
                self.listed.insert(node.name_any());
            }
            Event::Apply(Slimmed(node)) => {
                if put_node(&node, sink) {
                    sink.trigger(Trigger::All);
                }
            }
            Event::Delete(node) => {
                Arc::make_mut(&mut sink.world.nodes()).remove(&node.name_any());
                sink.trigger(Trigger::All);
            }
            Event::InitDone => {
                let Self { listed, changed } = std::mem::take(self);
                let mut nodes = sink.world.nodes();
                let is_gone = nodes.keys().any(|name| !listed.contains(name));
                if is_gone {
                    Arc::make_mut(&mut nodes).retain(|name, _| listed.contains(name));
                }
                drop(nodes);
                if changed || is_gone {
                    sink.trigger(Trigger::All);
                }
            }
        }
    }
}

/// Takes a Node in. True if that changed anything: heartbeats change a Node every few seconds, and little of it is read.
fn put_node(node: &Node, sink: &Sink) -> bool {
    let Some(facts) = NodeFacts::of(node) else { return false };
    let mut nodes = sink.world.nodes();
    let changed = nodes.get(&facts.name) != Some(&facts);
    if changed {
        Arc::make_mut(&mut nodes).insert(facts.name.clone(), facts);
    }
    changed
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

#[cfg(test)]
mod tests;
