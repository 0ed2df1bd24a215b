//! The table of runner pods: what watches and answers said of each, kept beyond its end until the outcome is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use scriptrunner_core::observed::{PodFacts, Presence};

/// Runner pods by UID of their owner and by their own UID.
#[derive(Default)]
pub struct PodTable {
    by_owner: HashMap<String, BTreeMap<String, PodFacts>>,
    listed: Option<BTreeSet<String>>,
}

impl PodTable {
    /// Takes in what the API server says of a pod, unless something newer is known. True if that changed anything.
    pub fn put(&mut self, mut facts: PodFacts) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.insert(facts.uid.clone());
        }
        let pods = self.by_owner.entry(facts.owner_uid.clone()).or_default();
        if let Some(known) = pods.get(&facts.uid) {
            if known.resource_version > facts.resource_version || known.presence == Presence::Gone {
                return false;
            }
            facts.deleting |= known.deleting;
            if *known == facts {
                return false;
            }
        }
        pods.insert(facts.uid.clone(), facts);
        true
    }

    /// Takes in that the watch no longer shows the pod. A pod that was being deleted is gone; another one may only have
    /// lost its labels, so it stays unconfirmed until somebody asks for it by name.
    pub fn remove(&mut self, last: PodFacts) {
        let pods = self.by_owner.entry(last.owner_uid.clone()).or_default();
        // Whether it was seen ending must come from before: the last event of a forced deletion says so as well.
        let deleting = pods.get(&last.uid).is_some_and(|known| known.deleting);
        let presence = if last.deleting { Presence::Gone } else { Presence::Unconfirmed };
        pods.insert(last.uid.clone(), PodFacts { deleting, presence, ..last });
    }

    /// A list of all pods begins.
    pub fn list_begins(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    /// The list is complete: what it did not show is unconfirmed. Returns the owners of such pods, by namespace and name.
    pub fn list_ends(&mut self) -> BTreeSet<(String, String)> {
        let listed = self.listed.take().unwrap_or_default();
        let mut owners = BTreeSet::new();
        for pod in self.by_owner.values_mut().flat_map(BTreeMap::values_mut) {
            if pod.presence == Presence::Present && !listed.contains(&pod.uid) {
                pod.presence = Presence::Unconfirmed;
                owners.insert((pod.namespace.clone(), pod.owner_name.clone()));
            }
        }
        owners
    }

    /// The API server says that the pod does not exist.
    pub fn confirm_gone(&mut self, owner_uid: &str, uid: &str) {
        if let Some(pod) = self.by_owner.get_mut(owner_uid).and_then(|pods| pods.get_mut(uid)) {
            pod.presence = Presence::Gone;
        }
    }

    /// The operator asked for the pod's deletion, with its grace period.
    pub fn mark_deleting(&mut self, owner_uid: &str, uid: &str) {
        if let Some(pod) = self.by_owner.get_mut(owner_uid).and_then(|pods| pods.get_mut(uid)) {
            pod.deleting = true;
        }
    }

    /// All pods of an owner.
    pub fn of(&self, owner_uid: &str) -> Vec<PodFacts> {
        self.by_owner.get(owner_uid).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }

    /// Nodes on which a pod of another object with this namespace and name still exists.
    pub fn nodes_of_namesakes(&self, uid: &str, namespace: &str, name: &str) -> BTreeSet<String> {
        self.by_owner
            .iter()
            .filter(|(owner, _)| *owner != uid)
            .flat_map(|(_, pods)| pods.values())
            .filter(|pod| pod.namespace == namespace && pod.owner_name == name && !pod.has_ended())
            .map(|pod| pod.node.clone())
            .collect()
    }

    /// Owners that have pods.
    pub fn owners(&self) -> Vec<String> {
        self.by_owner.keys().cloned().collect()
    }

    /// Forgets vanished pods for which `keep` is false.
    pub fn prune(&mut self, owner_uid: &str, keep: impl Fn(&PodFacts) -> bool) {
        if let Some(pods) = self.by_owner.get_mut(owner_uid) {
            pods.retain(|_, pod| pod.presence == Presence::Present || keep(pod));
            if pods.is_empty() {
                self.by_owner.remove(owner_uid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
