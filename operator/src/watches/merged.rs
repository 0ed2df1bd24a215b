//! Several watches of one kind, of one namespace each, as one. Pure.
//!
//! The tables behind a watch take a list for the whole truth. So the first lists are passed on as one when all of them are
//! complete, and a later list of one namespace as what changed since.

use std::collections::{HashMap, HashSet};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream, select_all},
};
use kube::{
    Resource, ResourceExt,
    runtime::watcher::{self, Event},
};

/// What is known of one of the watches.
struct Part<K> {
    /// What it shows, by name.
    known: HashMap<String, K>,
    /// Names that the list under way has shown.
    listed: Option<HashSet<String>>,
    /// Whether a list of it has been complete.
    is_complete: bool,
}

struct Merged<K> {
    parts: Vec<Part<K>>,
    /// Whether the first lists have been passed on.
    has_begun: bool,
}

/// Passes on what all of them show.
pub(super) fn merge<K>(
    watches: Vec<BoxStream<'static, watcher::Result<Event<K>>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource + Clone + Send + 'static,
{
    let mut merged = Merged::of(watches.len());
    let numbered = watches
        .into_iter()
        .enumerate()
        .map(|(number, watch)| watch.map(move |event| (number, event)).boxed());
    select_all(numbered).flat_map(move |(number, event)| {
        let passed_on = match event {
            Ok(event) => merged.take_in(number, event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(passed_on)
    })
}

impl<K: Resource + Clone> Merged<K> {
    fn of(count: usize) -> Self {
        let part = || Part { known: HashMap::new(), listed: None, is_complete: false };
        Self { parts: (0..count).map(|_| part()).collect(), has_begun: false }
    }

    fn take_in(&mut self, number: usize, event: Event<K>) -> Vec<Event<K>> {
        let changes = self.parts[number].take_in(event);
        if self.has_begun {
            return changes;
        }
        if !self.parts.iter().all(|part| part.is_complete) {
            return Vec::new();
        }
        self.has_begun = true;
        let all = self.parts.iter().flat_map(|part| part.known.values().cloned().map(Event::InitApply));
        [Event::Init].into_iter().chain(all).chain([Event::InitDone]).collect()
    }
}

impl<K: Resource + Clone> Part<K> {
    /// Takes in one event. Gives what it changes.
    fn take_in(&mut self, event: Event<K>) -> Vec<Event<K>> {
        match event {
            Event::Init => {
                self.listed = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(object.name_any());
                }
                self.put(object)
            }
            Event::Apply(object) => self.put(object),
            Event::Delete(object) => {
                self.known.remove(&object.name_any());
                vec![Event::Delete(object)]
            }
            Event::InitDone => {
                self.is_complete = true;
                let listed = self.listed.take().unwrap_or_default();
                let is_gone = |name: &String, _: &mut K| !listed.contains(name);
                self.known.extract_if(is_gone).map(|(_, object)| vanished(object)).collect()
            }
        }
    }

    fn put(&mut self, object: K) -> Vec<Event<K>> {
        let before = self.known.insert(object.name_any(), object.clone());
        // First the older one: tables by name would otherwise lose the newer.
        let replaced = before.filter(|before| before.uid() != object.uid()).map(vanished);
        replaced.into_iter().chain([Event::Apply(object)]).collect()
    }
}

/// An object that went while nobody watched. Whether it was deleted, or only lost the label that it was watched by, nobody has
/// seen; so it must not look like one whose deletion was.
fn vanished<K: Resource>(mut object: K) -> Event<K> {
    object.meta_mut().deletion_timestamp = None;
    Event::Delete(object)
}

#[cfg(test)]
mod tests;
