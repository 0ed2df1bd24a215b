//! The API server: the truth of every object, with resourceVersions, preconditions and a log of events per kind.

use std::{collections::BTreeMap, sync::Arc};

use json_patch::Patch;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Node, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp},
};
use scriptrunner_api::{
    labels,
    v1alpha1::{ScriptRunner, ScriptRunnerSpec},
};
use scriptrunner_core::observed::{ConfigMapFacts, NodeFacts, PodFacts};
use serde_json::{Value, json};

/// Namespace and name of the only ScriptRunner.
pub(crate) const NAMESPACE: &str = "ns";
pub(crate) const NAME: &str = "sr";

/// What the server says to a creation.
pub(crate) enum Created<T> {
    Done(T),
    AlreadyExists,
    Refused(String),
}

/// What watches are told, in order. A watch is a position in one of these.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) objects: Vec<Option<Arc<ScriptRunner>>>,
    /// Pods with our label, and whether it is their last event.
    pub(crate) pods: Vec<(Arc<PodFacts>, bool)>,
    pub(crate) nodes: Vec<(String, Option<Arc<NodeFacts>>)>,
    /// ConfigMaps, and whether it is their last event.
    pub(crate) config_maps: Vec<(ConfigMapFacts, bool)>,
}

/// The API server.
#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) now: Timestamp,
    version: u64,
    uids: u64,
    /// The only ScriptRunner, until it is deleted.
    pub(crate) object: Option<Arc<ScriptRunner>>,
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) config_maps: BTreeMap<String, ConfigMap>,
    pub(crate) log: Log,
    /// Whether a quota refuses every pod.
    pub(crate) is_full: bool,
    /// Whether another one refuses every ConfigMap.
    pub(crate) is_full_of_config_maps: bool,
    /// The process that holds the lease: all others may write no child.
    pub(crate) leader: u32,
}

impl ApiServer {
    pub(crate) fn new(now: Timestamp, spec: &Value) -> Self {
        let mut server = Self {
            now,
            version: 1,
            uids: 0,
            object: None,
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            config_maps: BTreeMap::new(),
            log: Log::default(),
            is_full: false,
            is_full_of_config_maps: false,
            leader: 0,
        };
        let mut object = ScriptRunner::new(NAME, spec_of(spec));
        let metadata = server.metadata(NAME);
        object.metadata = ObjectMeta { generation: Some(1), ..metadata };
        stamp(&mut object);
        server.show_object(object);
        server
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// The newest resourceVersion: the same means that nothing changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Metadata of something new.
    fn metadata(&mut self, name: &str) -> ObjectMeta {
        self.uids += 1;
        ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(format!("uid-{}", self.uids)),
            resource_version: Some(self.next_version()),
            creation_timestamp: Some(Time(self.now)),
            ..ObjectMeta::default()
        }
    }

    fn show_object(&mut self, object: ScriptRunner) {
        let object = Arc::new(object);
        self.object = Some(object.clone());
        self.log.objects.push(Some(object));
    }

    /// The user writes a spec.
    pub(crate) fn edit(&mut self, spec: &Value) {
        let Some(object) = &self.object else { return };
        let mut object = ScriptRunner::clone(object);
        let spec = spec_of(spec);
        if object.spec != spec {
            object.spec = spec;
            object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
            stamp(&mut object);
        }
        object.metadata.resource_version = Some(self.next_version());
        self.show_object(object);
    }

    /// A JSON patch of the status; none if one of its tests failed.
    pub(crate) fn patch_status(&mut self, patch: &Patch) -> Option<Arc<ScriptRunner>> {
        let object = self.object.clone()?;
        let mut document = json!({
            "metadata": {"uid": object.metadata.uid, "resourceVersion": object.metadata.resource_version},
        });
        if let Some(status) = &object.status {
            document["status"] = serde_json::to_value(status).unwrap();
        }
        json_patch::patch(&mut document, patch).ok()?;
        let mut object = ScriptRunner::clone(&object);
        object.status = Some(serde_json::from_value(document["status"].take()).unwrap());
        object.metadata.resource_version = Some(self.next_version());
        self.show_object(object);
        self.object.clone()
    }

    /// Deletes the object, if it is still as it was seen. Its children go by the garbage collector.
    pub(crate) fn delete_object(&mut self, uid: &str, resource_version: &str) -> bool {
        let is_same = self.object.as_ref().is_some_and(|object| {
            object.metadata.uid.as_deref() == Some(uid)
                && object.metadata.resource_version.as_deref() == Some(resource_version)
        });
        if is_same {
            self.object = None;
            self.log.objects.push(None);
        }
        is_same
    }

    pub(crate) fn create_config_map(&mut self, config_map: &ConfigMap) -> Created<ConfigMap> {
        let name = config_map.metadata.name.clone().unwrap();
        if self.config_maps.contains_key(&name) {
            return Created::AlreadyExists;
        }
        if self.is_full_of_config_maps {
            return Created::Refused("exceeded quota".to_owned());
        }
        let mut made = config_map.clone();
        made.metadata = born(&config_map.metadata, self.metadata(&name));
        self.config_maps.insert(name, made.clone());
        if let Some(facts) = ConfigMapFacts::of(&made.metadata) {
            self.log.config_maps.push((facts, false));
        }
        Created::Done(made)
    }

    pub(crate) fn delete_config_map(&mut self, name: &str, uid: Option<&str>) {
        let found =
            self.config_maps.get(name).filter(|found| uid.is_none() || found.metadata.uid.as_deref() == uid);
        if let Some(facts) = found.and_then(|found| ConfigMapFacts::of(&found.metadata)) {
            self.config_maps.remove(name);
            self.version += 1;
            self.log.config_maps.push((facts, true));
        }
    }

    pub(crate) fn create_pod(&mut self, pod: &Pod) -> Created<Pod> {
        let name = pod.metadata.name.clone().unwrap();
        if self.pods.contains_key(&name) {
            return Created::AlreadyExists;
        }
        if self.is_full {
            return Created::Refused("exceeded quota".to_owned());
        }
        let mut made = pod.clone();
        made.metadata = born(&pod.metadata, self.metadata(&name));
        made.status.get_or_insert_default().phase = Some("Pending".to_owned());
        self.pods.insert(name.clone(), made.clone());
        self.show_pod(&name);
        Created::Done(made)
    }

    /// Changes a pod that is there.
    pub(crate) fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        if !self.pods.contains_key(name) {
            return;
        }
        let version = self.next_version();
        let pod = self.pods.get_mut(name).unwrap();
        let was_shown = PodFacts::of(pod);
        change(pod);
        pod.metadata.resource_version = Some(version);
        match (PodFacts::of(pod), was_shown) {
            (Some(facts), _) => self.log.pods.push((Arc::new(facts), false)),
            // Its labels were stripped: it leaves every watch that selects by them.
            (None, Some(last)) => self.log.pods.push((Arc::new(last), true)),
            (None, None) => {}
        }
    }

    fn show_pod(&mut self, name: &str) {
        if let Some(facts) = self.pods.get(name).and_then(PodFacts::of) {
            self.log.pods.push((Arc::new(facts), false));
        }
    }

    /// Deletes a pod: at once if it runs nowhere or has ended, else when its kubelet says so. False if there is no such pod.
    pub(crate) fn delete_pod(&mut self, name: &str, uid: &str) -> bool {
        let Some(pod) = self.pods.get(name).filter(|pod| pod.metadata.uid.as_deref() == Some(uid)) else {
            return false;
        };
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if !is_bound || has_ended(pod) {
            self.remove_pod(name);
        } else if pod.metadata.deletion_timestamp.is_none() {
            let now = Time(self.now);
            self.change_pod(name, |pod| pod.metadata.deletion_timestamp = Some(now));
        }
        true
    }

    /// The pod is gone, whatever still runs of it.
    pub(crate) fn remove_pod(&mut self, name: &str) {
        let Some(mut pod) = self.pods.remove(name) else { return };
        pod.metadata.deletion_timestamp.get_or_insert(Time(self.now));
        pod.metadata.resource_version = Some(self.next_version());
        if let Some(facts) = PodFacts::of(&pod) {
            self.log.pods.push((Arc::new(facts), true));
        }
    }

    /// A node registers; its UID is new.
    pub(crate) fn create_node(&mut self, name: &str) {
        let metadata = self.metadata(name);
        let mut node: Node = serde_json::from_value(json!({
            "metadata": {"labels": {"kubernetes.io/os": "linux"}},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": Time(self.now)}]},
        }))
        .unwrap();
        node.metadata = ObjectMeta { labels: node.metadata.labels.take(), namespace: None, ..metadata };
        self.nodes.insert(name.to_owned(), node);
        self.show_node(name);
    }

    pub(crate) fn delete_node(&mut self, name: &str) {
        if self.nodes.remove(name).is_some() {
            self.version += 1;
            self.log.nodes.push((name.to_owned(), None));
        }
    }

    pub(crate) fn change_node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let version = self.next_version();
        if let Some(node) = self.nodes.get_mut(name) {
            change(node);
            node.metadata.resource_version = Some(version);
            self.show_node(name);
        }
    }

    fn show_node(&mut self, name: &str) {
        let facts = self.nodes.get(name).and_then(NodeFacts::of);
        self.log.nodes.push((name.to_owned(), facts.map(Arc::new)));
    }
}

/// Metadata as given, with what the server adds.
fn born(given: &ObjectMeta, new: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        labels: given.labels.clone(),
        annotations: given.annotations.clone(),
        owner_references: given.owner_references.clone(),
        ..new
    }
}

fn spec_of(spec: &Value) -> ScriptRunnerSpec {
    serde_json::from_value(spec.clone()).unwrap()
}

/// The user who writes this generation of the spec: every time another one.
pub(crate) fn user_of(generation: i64) -> String {
    format!("user-{generation}")
}

/// Admission notes who wrote the spec.
fn stamp(object: &mut ScriptRunner) {
    let user = user_of(object.metadata.generation.unwrap());
    object.metadata.annotations.get_or_insert_default().insert(labels::REQUESTED_BY.to_owned(), user);
}

/// Whether the pod's phase says that it is over.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// UID of a pod.
pub(crate) fn uid_of(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
