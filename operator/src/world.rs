//! What the watches have shown so far, in the small form that decisions need, and what this process remembers of each
//! object. Everything here can be lost: the cluster is the only memory that counts.
//!
//! **Invariant:** everything about an object is keyed by its UID, never by its name. What users' ConfigMaps hold is looked up by
//! name, as specs name it.

pub mod memory;
pub mod pods;
pub mod sources;
pub mod unbound;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use scriptrunner_core::observed::{ConfigMapFacts, NodeFacts};

use self::{memory::Memory, pods::PodTable, sources::SourceTable, unbound::Unbound};

/// Tables that the watches fill and `observe` reads.
#[derive(Default)]
pub struct World {
    nodes: Mutex<Arc<BTreeMap<String, NodeFacts>>>,
    pods: Mutex<PodTable>,
    config_maps: Mutex<HashMap<String, BTreeMap<String, ConfigMapFacts>>>,
    sources: Mutex<SourceTable>,
    privileged_namespaces: Mutex<HashMap<String, bool>>,
    memories: Mutex<HashMap<String, Memory>>,
    unbound: Mutex<Unbound>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves plain data that is still as true as it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Nodes by name. Shared with every look that is under way; who changes them changes a copy if there is one.
    pub fn nodes(&self) -> MutexGuard<'_, Arc<BTreeMap<String, NodeFacts>>> {
        lock(&self.nodes)
    }

    /// Runner pods of all objects.
    pub fn pods(&self) -> MutexGuard<'_, PodTable> {
        lock(&self.pods)
    }

    /// ConfigMaps by UID of their owner and by name.
    pub fn config_maps(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, ConfigMapFacts>>> {
        lock(&self.config_maps)
    }

    /// What users' ConfigMaps hold.
    pub fn sources(&self) -> MutexGuard<'_, SourceTable> {
        lock(&self.sources)
    }

    /// Runs `ask` on the count of pods that wait for the scheduler.
    pub fn count_unbound<T>(&self, ask: impl FnOnce(&mut Unbound, &PodTable) -> T) -> T {
        // Always in this order; the pods are not to change between a look at them and what follows from it.
        let mut unbound = lock(&self.unbound);
        ask(&mut unbound, &lock(&self.pods))
    }

    /// Whether a namespace is labelled for privileged modes, by name.
    pub fn privileged_namespaces(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        lock(&self.privileged_namespaces)
    }

    /// Runs `change` on what is remembered of the object with this UID.
    pub fn remember<T>(&self, uid: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memories = lock(&self.memories);
        if let Some(memory) = memories.get_mut(uid) {
            return change(memory);
        }
        change(memories.entry(uid.to_owned()).or_default())
    }

    /// Forgets the objects that are not among these UIDs.
    pub fn forget_all_but(&self, live: &HashSet<String>) {
        lock(&self.memories).retain(|uid, _| live.contains(uid));
        lock(&self.unbound).forget_all_but(live);
    }

    /// Forgets the object with this UID.
    pub fn forget(&self, uid: &str) {
        lock(&self.memories).remove(uid);
        lock(&self.unbound).forget(uid);
        self.config_maps().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_are_gone_are_forgotten() {
        let world = World::default();
        world.remember("gone", |memory| memory.failures = 1);
        world.remember("live", |memory| memory.failures = 2);
        world.forget_all_but(&HashSet::from(["live".to_owned()]));
        assert_eq!(world.remember("gone", |memory| memory.failures), 0);
        assert_eq!(world.remember("live", |memory| memory.failures), 2);
    }
}
