//! The table of runner pods: what watches and answers said of each, kept beyond its end until the outcome is stored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use scriptrunner_core::observed::{PodFacts, Presence};

/// Runner pods by UID of their owner and by their own UID. Facts are shared with every look that is under way.
#[derive(Default)]
pub struct PodTable {
    by_owner: HashMap<String, BTreeMap<String, Arc<PodFacts>>>,
    /// UID of the owner, by UID of the pod.
    owners: HashMap<String, String>,
    /// UIDs of the owners, by their namespace and name.
    namesakes: HashMap<(String, String), BTreeSet<String>>,
    listed: Option<HashSet<String>>,
    unbound: UnboundPods,
}

/// Pods that wait for the scheduler, by UID of their owner and by name: whether there is no node for it, as far as the
/// scheduler has said.
pub type UnboundPods = HashMap<String, BTreeMap<String, bool>>;

impl PodTable {
    /// Takes in what the API server says of a pod, unless something newer is known. True if that changed anything.
    pub fn put(&mut self, mut facts: PodFacts) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.insert(facts.uid.clone());
        }
        if let Some(known) = self.known(&facts.owner_uid, &facts.uid) {
            if known.resource_version > facts.resource_version || known.presence == Presence::Gone {
                return false;
            }
            facts.deleting |= known.deleting;
            if **known == facts {
                return false;
            }
        }
        self.insert(facts);
        true
    }

    /// Takes in that the watch no longer shows the pod. A pod that was being deleted is gone; another one may only have
    /// lost its labels, so it stays unconfirmed until somebody asks for it by name.
    pub fn remove(&mut self, last: PodFacts) {
        // Whether it was seen ending must come from before: the last event of a forced deletion says so as well.
        let known = self.known(&last.owner_uid, &last.uid).cloned();
        let deleting = known.as_ref().is_some_and(|known| known.deleting);
        let presence = if last.deleting { Presence::Gone } else { Presence::Unconfirmed };
        // What vanished while nobody watched was last shown before an answer may have told more.
        let newer = known.filter(|known| known.resource_version > last.resource_version);
        let last = newer.map_or(last, Arc::unwrap_or_clone);
        self.insert(PodFacts { deleting, presence, ..last });
    }

    fn known(&self, owner_uid: &str, uid: &str) -> Option<&Arc<PodFacts>> {
        self.by_owner.get(owner_uid)?.get(uid)
    }

    fn insert(&mut self, facts: PodFacts) {
        let name = (facts.namespace.clone(), facts.owner_name.clone());
        self.namesakes.entry(name).or_default().insert(facts.owner_uid.clone());
        self.owners.insert(facts.uid.clone(), facts.owner_uid.clone());
        note_unbound(&mut self.unbound, &facts);
        let pods = self.by_owner.entry(facts.owner_uid.clone()).or_default();
        pods.insert(facts.uid.clone(), Arc::new(facts));
    }

    /// A list of all pods begins.
    pub fn list_begins(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The list is complete: what it did not show is unconfirmed. Returns the owners of such pods, by namespace and name.
    pub fn list_ends(&mut self) -> BTreeSet<(String, String)> {
        let listed = self.listed.take().unwrap_or_default();
        let mut owners = BTreeSet::new();
        for pod in self.by_owner.values_mut().flat_map(BTreeMap::values_mut) {
            if pod.presence == Presence::Present && !listed.contains(&pod.uid) {
                Arc::make_mut(pod).presence = Presence::Unconfirmed;
                owners.insert((pod.namespace.clone(), pod.owner_name.clone()));
            }
        }
        owners
    }

    /// The API server says that the pod does not exist.
    pub fn confirm_gone(&mut self, owner_uid: &str, uid: &str) {
        self.change(owner_uid, uid, |pod| pod.presence = Presence::Gone);
    }

    /// The operator asked for the pod's deletion, with its grace period.
    pub fn mark_deleting(&mut self, owner_uid: &str, uid: &str) {
        self.change(owner_uid, uid, |pod| pod.deleting = true);
    }

    fn change(&mut self, owner_uid: &str, uid: &str, change: impl FnOnce(&mut PodFacts)) {
        if let Some(pod) = self.by_owner.get_mut(owner_uid).and_then(|pods| pods.get_mut(uid)) {
            let pod = Arc::make_mut(pod);
            change(pod);
            note_unbound(&mut self.unbound, pod);
        }
    }

    /// Pods that wait for the scheduler. Owners without any are not in it.
    pub fn unbound(&self) -> &UnboundPods {
        &self.unbound
    }

    /// All pods of an owner, sorted by UID.
    pub fn of(&self, owner_uid: &str) -> Vec<Arc<PodFacts>> {
        self.by_owner.get(owner_uid).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }

    /// The pod with this UID.
    pub fn find(&self, uid: &str) -> Option<Arc<PodFacts>> {
        self.known(self.owners.get(uid)?, uid).cloned()
    }

    /// Nodes on which a pod of another object with this namespace and name still exists.
    pub fn nodes_of_namesakes(&self, uid: &str, namespace: &str, name: &str) -> BTreeSet<String> {
        let Some(owners) = self.namesakes.get(&(namespace.to_owned(), name.to_owned())) else {
            return BTreeSet::new();
        };
        owners
            .iter()
            .filter(|owner| *owner != uid)
            .filter_map(|owner| self.by_owner.get(owner))
            .flat_map(BTreeMap::values)
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
        let Some(pods) = self.by_owner.get_mut(owner_uid) else { return };
        pods.retain(|uid, pod| {
            let keep = pod.presence == Presence::Present || keep(pod);
            if !keep {
                self.owners.remove(uid);
                forget_unbound(&mut self.unbound, pod);
            }
            keep
        });
        if pods.is_empty() {
            self.by_owner.remove(owner_uid);
            self.namesakes.retain(|_, owners| {
                owners.remove(owner_uid);
                !owners.is_empty()
            });
        }
    }
}

fn note_unbound(unbound: &mut UnboundPods, pod: &PodFacts) {
    if pod.is_unbound() {
        let of_owner = unbound.entry(pod.owner_uid.clone()).or_default();
        of_owner.insert(pod.name.clone(), pod.is_unschedulable());
    } else {
        forget_unbound(unbound, pod);
    }
}

fn forget_unbound(unbound: &mut UnboundPods, pod: &PodFacts) {
    let Some(names) = unbound.get_mut(&pod.owner_uid) else { return };
    names.remove(&pod.name);
    if names.is_empty() {
        unbound.remove(&pod.owner_uid);
    }
}

#[cfg(test)]
mod tests;
