//! The table of what users' ConfigMaps hold.

use std::collections::{BTreeMap, HashMap, HashSet};

use scriptrunner_api::v1alpha1::{ScriptRunnerSpec, SourceKey};
use scriptrunner_core::validate::{Source, Sources};

/// Namespace and name of a ConfigMap.
type Place = (String, String);

/// Labelled ConfigMaps, key by key.
#[derive(Default)]
pub struct SourceTable {
    keys: HashMap<Place, BTreeMap<String, Source>>,
    /// What the list under way has shown. What it does not show stays until it is complete: it may still come.
    listed: Option<HashSet<Place>>,
}

impl SourceTable {
    /// Takes in what a ConfigMap holds. True if that is something else than before.
    pub fn put(&mut self, place: Place, keys: BTreeMap<String, Source>) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.insert(place.clone());
        }
        let is_new = self.keys.get(&place) != Some(&keys);
        if is_new {
            self.keys.insert(place, keys);
        }
        is_new
    }

    /// Takes in that a ConfigMap is gone, or not labelled any more. True if it was known.
    pub fn remove(&mut self, place: &Place) -> bool {
        self.keys.remove(place).is_some()
    }

    /// A list of all begins.
    pub fn list_begins(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The list is complete. Returns what is gone.
    pub fn list_ends(&mut self) -> Vec<Place> {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<Place> = self.keys.keys().filter(|place| !listed.contains(*place)).cloned().collect();
        self.keys.retain(|place, _| listed.contains(place));
        gone
    }

    /// What is found of the inputs that a spec of this namespace names.
    pub fn of(&self, namespace: &str, spec: &ScriptRunnerSpec) -> Sources {
        let [script, trusted_ca] = named(spec).map(|key| key.map(|key| self.find(namespace, key)));
        Sources { script, trusted_ca }
    }

    fn find(&self, namespace: &str, SourceKey { name, key }: &SourceKey) -> Source {
        match self.keys.get(&(namespace.to_owned(), name.clone())) {
            None => Source::NoConfigMap,
            Some(keys) => keys.get(key).cloned().unwrap_or(Source::NoKey),
        }
    }
}

/// Where a spec has its script and its trusted authorities, if not in itself.
pub fn named(spec: &ScriptRunnerSpec) -> [Option<&SourceKey>; 2] {
    let ca = spec.dependencies.as_ref().and_then(|dependencies| dependencies.trusted_ca.as_ref());
    [
        spec.script_from.as_ref().map(|from| &from.config_map_key_ref),
        ca.map(|trusted_ca| &trusted_ca.config_map_key_ref),
    ]
}
