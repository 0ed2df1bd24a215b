//! How many pods that wait for the scheduler may be created: all objects share its time, and so does everybody else in the
//! cluster.
//!
//! **Invariant:** however looks and creations of all objects interleave, no more than `most` pods of ours are there, or may
//! come to be there, that are not bound: a pod is counted from before its creation is asked for until it is known to be bound
//! or not to exist. One for which the scheduler has found no node counts only against its own object: it may wait for days, and
//! nobody's pods are to wait for that.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::pods::PodTable;

/// How long a pod counts whose creation was asked for and never answered, and which no watch shows: longer than an API
/// server works on a request.
const IN_DOUBT: Duration = Duration::from_mins(2);
/// How long room is kept for an object whose pods were held back: it asks again every two seconds.
const ASKED: Duration = Duration::from_secs(30);

/// What the table of pods does not show yet, by UID of the object.
#[derive(Default)]
pub struct Unbound {
    /// Names of pods whose creation was begun and is not known to have ended.
    begun: HashMap<String, HashMap<String, Begun>>,
    /// When pods were last held back for want of room.
    asked: HashMap<String, Instant>,
}

/// Unbound pods of an object.
#[derive(Default)]
struct Count {
    /// Those that the scheduler has not looked at, or may not have.
    in_turn: usize,
    /// Those that it has found no node for.
    unschedulable: usize,
}

/// The creation of a pod.
#[derive(Debug)]
struct Begun {
    /// When it was last asked for.
    at: Instant,
    /// When it was asked for before that, without an answer.
    in_doubt_since: Option<Instant>,
}

impl Unbound {
    /// How many more pods of the object may be created now. Nothing of it is being created: what was begun and not answered
    /// may be asked for once more, and takes no further room.
    pub fn room(&mut self, uid: &str, pods: &PodTable, most: usize, now: Instant) -> usize {
        if self.begun.contains_key(uid) {
            let known: HashSet<String> = pods.of(uid).iter().map(|pod| pod.name.clone()).collect();
            self.keep(uid, |name| !known.contains(name));
        }
        self.begun.retain(|_, names| {
            names.retain(|_, begun| now.saturating_duration_since(begun.at) < IN_DOUBT);
            !names.is_empty()
        });
        self.asked.retain(|_, asked| now.saturating_duration_since(*asked) < ASKED);
        self.left(uid, pods, most) + self.begun.get(uid).map_or(0, HashMap::len)
    }

    /// Whether the creation of this pod may be asked for now. If so, it counts from now on.
    pub fn begin(&mut self, uid: &str, name: &str, pods: &PodTable, most: usize, now: Instant) -> bool {
        let in_doubt_since = self.begun.get(uid).and_then(|names| names.get(name)).map(|begun| begun.at);
        let may_begin = in_doubt_since.is_some() || self.left(uid, pods, most) > 0;
        if may_begin {
            let begun = Begun { at: now, in_doubt_since };
            self.begun.entry(uid.to_owned()).or_default().insert(name.to_owned(), begun);
        } else {
            self.asked.insert(uid.to_owned(), now);
        }
        may_begin
    }

    /// The API server has answered: either the table of pods shows the pod by now, or this creation did not make it. One that
    /// was not answered before may yet have: whether the pod is there is looked at last, after quotas and policies.
    pub fn end(&mut self, uid: &str, name: &str) {
        let Some(begun) = self.begun.get_mut(uid).and_then(|names| names.get_mut(name)) else { return };
        match begun.in_doubt_since.take() {
            Some(before) => begun.at = before,
            None => self.keep(uid, |begun| begun != name),
        }
    }

    /// Whether pods of the object are held back for want of room: then some is kept for it.
    pub fn ask(&mut self, uid: &str, awaits_room: bool, now: Instant) {
        if awaits_room {
            self.asked.insert(uid.to_owned(), now);
        } else {
            self.asked.remove(uid);
        }
    }

    /// Forgets the object with this UID.
    pub fn forget(&mut self, uid: &str) {
        self.begun.remove(uid);
        self.asked.remove(uid);
    }

    /// Forgets the objects that are not among these UIDs.
    pub fn forget_all_but(&mut self, live: &HashSet<String>) {
        self.begun.retain(|uid, _| live.contains(uid));
        self.asked.retain(|uid, _| live.contains(uid));
    }

    fn keep(&mut self, uid: &str, is_kept: impl Fn(&str) -> bool) {
        let Some(names) = self.begun.get_mut(uid) else { return };
        names.retain(|name, _| is_kept(name));
        if names.is_empty() {
            self.begun.remove(uid);
        }
    }

    /// What is left of the object's share and of the whole. Whoever has such pods or waits for room has the same share, at
    /// least one.
    fn left(&self, uid: &str, pods: &PodTable, most: usize) -> usize {
        let counts = self.counts(pods);
        let claimants: HashSet<&str> =
            counts.keys().copied().chain(self.asked.keys().map(String::as_str)).chain([uid]).collect();
        let share = (most / claimants.len()).max(1);
        let own = counts.get(uid).map_or(0, |count| count.in_turn + count.unschedulable);
        let all = counts.values().map(|count| count.in_turn).sum();
        share.saturating_sub(own).min(most.saturating_sub(all))
    }

    /// Pods that wait for the scheduler, or may be made to, by UID of their object.
    fn counts<'a>(&'a self, pods: &'a PodTable) -> HashMap<&'a str, Count> {
        let count = |names: &BTreeMap<String, bool>| {
            let unschedulable = names.values().filter(|is_unschedulable| **is_unschedulable).count();
            Count { in_turn: names.len() - unschedulable, unschedulable }
        };
        let mut counts: HashMap<&str, Count> =
            pods.unbound().iter().map(|(uid, names)| (uid.as_str(), count(names))).collect();
        for (uid, begun) in &self.begun {
            let shown = pods.unbound().get(uid);
            let unseen = begun.keys().filter(|name| !shown.is_some_and(|shown| shown.contains_key(*name)));
            counts.entry(uid).or_default().in_turn += unseen.count();
        }
        counts
    }
}

#[cfg(test)]
mod tests;
