//! The table of what users' ConfigMaps hold: bounded, because whoever may make a ConfigMap may label it.

use std::collections::{BTreeMap, HashMap, HashSet};

use scriptrunner_api::v1alpha1::{ScriptRunnerSpec, SourceKey};
use scriptrunner_core::validate::{Source, Sources};

/// Bytes that are kept of one namespace's ConfigMaps: far more than scripts take.
const MOST_BYTES_OF_NAMESPACE: usize = 8 << 20;
/// Bytes that are kept of all, a small part of the operator's memory.
const MOST_BYTES: usize = 32 << 20;
/// Bytes for which a namespace has room whatever others have.
const SURE_BYTES: usize = 1 << 20;
/// What a key takes beside its name and text.
const BYTES_OF_KEY: usize = 128;

/// Namespace and name of a ConfigMap.
type Place = (String, String);

/// Labelled ConfigMaps, key by key.
#[derive(Default)]
pub struct SourceTable {
    held: HashMap<Place, Held>,
    /// What is kept of each namespace, in bytes.
    bytes: HashMap<String, usize>,
    /// What the list under way has shown. What it does not show stays until it is complete: it may still come.
    listed: Option<HashSet<Place>>,
}

/// What is kept of a ConfigMap.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    Keys(BTreeMap<String, Source>),
    /// Nothing: there was no room.
    NoRoom,
}

impl Held {
    fn bytes(&self) -> usize {
        let Self::Keys(keys) = self else { return 0 };
        let text = |source: &Source| match source {
            Source::Text(text) => text.len(),
            Source::Binary | Source::TooLong(_) | Source::NoKey | Source::NoConfigMap | Source::NoRoom => 0,
        };
        keys.iter().map(|(key, source)| key.len() + BYTES_OF_KEY + text(source)).sum()
    }
}

impl SourceTable {
    /// Takes in what a ConfigMap holds. True if that is something else than before.
    pub fn put(&mut self, place: Place, keys: BTreeMap<String, Source>) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.insert(place.clone());
        }
        let before = self.forget(&place);
        let mut held = Held::Keys(keys);
        let of_namespace = self.bytes.get(&place.0).copied().unwrap_or(0) + held.bytes();
        let of_all = self.bytes.values().sum::<usize>() + held.bytes();
        if of_namespace > MOST_BYTES_OF_NAMESPACE || (of_all > MOST_BYTES && of_namespace > SURE_BYTES) {
            tracing::warn!(namespace = place.0, name = place.1, "no room for what this ConfigMap holds");
            held = Held::NoRoom;
        }
        let is_new = before.as_ref() != Some(&held);
        *self.bytes.entry(place.0.clone()).or_default() += held.bytes();
        self.held.insert(place, held);
        is_new
    }

    /// Takes in that a ConfigMap is gone, or not labelled any more. True if it was known.
    pub fn remove(&mut self, place: &Place) -> bool {
        self.forget(place).is_some()
    }

    fn forget(&mut self, place: &Place) -> Option<Held> {
        let held = self.held.remove(place)?;
        if let Some(bytes) = self.bytes.get_mut(&place.0) {
            *bytes -= held.bytes();
            if *bytes == 0 {
                self.bytes.remove(&place.0);
            }
        }
        Some(held)
    }

    /// A list of all begins.
    pub fn list_begins(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The list is complete. Returns what is gone.
    pub fn list_ends(&mut self) -> Vec<Place> {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<Place> = self.held.keys().filter(|place| !listed.contains(*place)).cloned().collect();
        for place in &gone {
            self.forget(place);
        }
        gone
    }

    /// What is found of the inputs that a spec of this namespace names.
    pub fn of(&self, namespace: &str, spec: &ScriptRunnerSpec) -> Sources {
        let [script, trusted_ca] = named(spec).map(|key| key.map(|key| self.find(namespace, key)));
        Sources { script, trusted_ca }
    }

    fn find(&self, namespace: &str, SourceKey { name, key }: &SourceKey) -> Source {
        match self.held.get(&(namespace.to_owned(), name.clone())) {
            None => Source::NoConfigMap,
            Some(Held::NoRoom) => Source::NoRoom,
            Some(Held::Keys(keys)) => keys.get(key).cloned().unwrap_or(Source::NoKey),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A ConfigMap with one key of so many kibibytes.
    fn put(table: &mut SourceTable, namespace: &str, name: &str, kibibytes: usize) -> bool {
        let keys = BTreeMap::from([("k".to_owned(), Source::Text("x".repeat(kibibytes << 10).into()))]);
        table.put((namespace.to_owned(), name.to_owned()), keys)
    }

    fn find(table: &SourceTable, namespace: &str, name: &str) -> Source {
        table.find(namespace, &SourceKey { name: name.to_owned(), key: "k".to_owned() })
    }

    #[test]
    fn one_namespace_takes_only_its_own_room() {
        let mut table = SourceTable::default();
        for number in 0..200 {
            put(&mut table, "greedy", &number.to_string(), 250);
        }
        assert!(table.bytes["greedy"] <= MOST_BYTES_OF_NAMESPACE);
        assert_eq!(find(&table, "greedy", "199"), Source::NoRoom);
        assert!(put(&mut table, "other", "mine", 200));
        assert!(matches!(find(&table, "other", "mine"), Source::Text(_)));
        // Once there is room again, a change of the ConfigMap is taken in.
        for number in 0..199 {
            table.remove(&("greedy".to_owned(), number.to_string()));
        }
        assert!(put(&mut table, "greedy", "199", 250));
        assert!(matches!(find(&table, "greedy", "199"), Source::Text(_)));
        assert!(!put(&mut table, "greedy", "199", 250), "nothing new");
    }

    #[test]
    fn all_namespaces_together_are_bounded_and_each_has_some_room() {
        let mut table = SourceTable::default();
        for namespace in 0..10 {
            (0..40).for_each(|number| {
                put(&mut table, &namespace.to_string(), &number.to_string(), 250);
            });
        }
        assert!(table.bytes.values().sum::<usize>() <= MOST_BYTES + 10 * SURE_BYTES);
        put(&mut table, "late", "mine", 250);
        assert!(matches!(find(&table, "late", "mine"), Source::Text(_)));
    }

    #[test]
    fn what_is_kept_is_counted_until_it_is_gone() {
        let mut table = SourceTable::default();
        put(&mut table, "a", "x", 100);
        put(&mut table, "a", "x", 200);
        table.list_begins();
        put(&mut table, "b", "y", 10);
        assert_eq!(table.list_ends(), [("a".to_owned(), "x".to_owned())]);
        assert!(!table.bytes.contains_key("a"));
        assert!(table.remove(&("b".to_owned(), "y".to_owned())) && table.bytes.is_empty());
    }
}
