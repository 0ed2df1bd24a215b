//! The operator's table of pods, as `operator/src/world/pods.rs` has it: a pod that was seen stays until its outcome is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use scriptrunner_core::observed::{PodFacts, Presence};

/// Pods of the only ScriptRunner, by UID.
#[derive(Clone, Default)]
pub(crate) struct PodTable(BTreeMap<String, Arc<PodFacts>>);

impl PodTable {
    /// Takes in what the API server says of a pod, unless something newer is known.
    pub(crate) fn put(&mut self, mut facts: PodFacts) {
        if let Some(known) = self.0.get(&facts.uid) {
            if known.resource_version > facts.resource_version || known.presence == Presence::Gone {
                return;
            }
            facts.deleting |= known.deleting;
        }
        self.0.insert(facts.uid.clone(), Arc::new(facts));
    }

    /// The watch no longer shows the pod.
    pub(crate) fn remove(&mut self, last: &PodFacts) {
        let deleting = self.0.get(&last.uid).is_some_and(|known| known.deleting);
        let presence = if last.deleting { Presence::Gone } else { Presence::Unconfirmed };
        self.0.insert(last.uid.clone(), Arc::new(PodFacts { deleting, presence, ..last.clone() }));
    }

    /// A list is complete: what it did not show is unconfirmed.
    pub(crate) fn list_ends(&mut self, listed: &BTreeSet<String>) {
        for pod in self.0.values_mut() {
            if pod.presence == Presence::Present && !listed.contains(&pod.uid) {
                Arc::make_mut(pod).presence = Presence::Unconfirmed;
            }
        }
    }

    pub(crate) fn confirm_gone(&mut self, uid: &str) {
        self.change(uid, |pod| pod.presence = Presence::Gone);
    }

    pub(crate) fn mark_deleting(&mut self, uid: &str) {
        self.change(uid, |pod| pod.deleting = true);
    }

    fn change(&mut self, uid: &str, change: impl FnOnce(&mut PodFacts)) {
        if let Some(pod) = self.0.get_mut(uid) {
            change(Arc::make_mut(pod));
        }
    }

    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.0.contains_key(uid)
    }

    pub(crate) fn has_ended(&self, uid: &str) -> bool {
        self.0.get(uid).is_some_and(|pod| pod.has_ended())
    }

    /// All pods, sorted by UID.
    pub(crate) fn all(&self) -> Vec<Arc<PodFacts>> {
        self.0.values().cloned().collect()
    }

    /// Forgets vanished pods for which `keep` is false.
    pub(crate) fn prune(&mut self, keep: impl Fn(&PodFacts) -> bool) {
        self.0.retain(|_, pod| pod.presence == Presence::Present || keep(pod));
    }
}
