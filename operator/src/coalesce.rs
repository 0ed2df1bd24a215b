//! Spaces the looks at each object: a burst of events about an object is one look, and many objects share the process.
//!
//! A trigger of an object at rest is passed on at once. After a look, further triggers of the object wait for a time that
//! grows with what the look cost, all merged into one. After looks that failed they wait longer each time, so that events
//! do not undercut the pauses between tries. What an object asked for itself, to be looked at again at some time, is the
//! controller's and is not held back.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// An object rests this many times as long as a look at it took.
const SHARE: u32 = 4;
/// The same while its status waits to be written: most of what a look finds then can only be found again later.
const SHARE_WAITING: u32 = 19;
/// The looks at all objects together may cost half of the time.
const SHARE_OF_ALL: u32 = 2;
/// Shortest rest.
const SHORTEST: Duration = Duration::from_millis(20);
/// Longest rest because of what one object costs.
const LONGEST: Duration = Duration::from_secs(1);
/// Longest rest because of what all objects cost together.
const LONGEST_OF_ALL: Duration = Duration::from_secs(5);
/// Rest after the first failure; each further one doubles it.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Most often that it is doubled.
const MOST_DOUBLINGS: u32 = 4;

/// Merges triggers, and passes them on when their object may be looked at.
pub struct Coalescer<K> {
    table: Mutex<Table<K>>,
    passed: mpsc::UnboundedSender<K>,
    changed: Notify,
}

struct Table<K> {
    /// Objects that are not at rest.
    objects: HashMap<K, Phase>,
    /// Looks in a row that failed, where the last one did.
    failures: HashMap<K, u32>,
    /// Objects whose rest ends, by when it does.
    ends: BTreeMap<(Instant, u64), K>,
    tickets: u64,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Passed on, and not yet looked at; whether it was triggered again since.
    Passed { again: bool },
    /// Being looked at; whether it was triggered meanwhile.
    Looked { again: bool },
    /// Resting; the key of its end, and whether it was triggered meanwhile.
    Resting { end: (Instant, u64), again: bool },
}

impl<K: Clone + Eq + Hash> Coalescer<K> {
    /// Passes triggers on to the receiver.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<K>) {
        let (passed, receiver) = mpsc::unbounded_channel();
        let table =
            Table { objects: HashMap::new(), failures: HashMap::new(), ends: BTreeMap::new(), tickets: 0 };
        (Self { table: Mutex::new(table), passed, changed: Notify::new() }, receiver)
    }

    /// Something that the object rests on may have changed.
    pub fn trigger(&self, key: K) {
        let mut table = self.lock();
        match table.objects.get_mut(&key) {
            Some(Phase::Passed { again } | Phase::Looked { again } | Phase::Resting { again, .. }) => {
                *again = true;
            }
            None => self.pass(&mut table, key),
        }
    }

    /// The controller begins to look at the object. Dropping what is returned ends the look.
    pub fn begin(self: &Arc<Self>, key: K) -> Look<K> {
        let mut table = self.lock();
        if let Some(Phase::Resting { end, .. }) =
            table.objects.insert(key.clone(), Phase::Looked { again: false })
        {
            table.ends.remove(&end);
        }
        drop(table);
        Look { coalescer: self.clone(), key, cost: Duration::ZERO, ended: Ended::Well }
    }

    /// The controller could not look at the object that was passed on: it does not know it.
    pub fn unknown(&self, key: K) {
        let mut table = self.lock();
        table.failures.remove(&key);
        // It may have come into being since.
        if matches!(table.objects.get(&key), Some(Phase::Passed { again: true })) {
            self.rest(&mut table, key, SHORTEST, true);
        } else {
            table.objects.remove(&key);
        }
    }

    /// Passes on what waits, each when its rest ends. Never returns.
    pub async fn run(&self) {
        loop {
            let changed = self.changed.notified();
            match self.pass_due() {
                Some(next) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(next) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends every rest that is over. When the next one is.
    fn pass_due(&self) -> Option<Instant> {
        let mut table = self.lock();
        let now = Instant::now();
        while let Some(first) = table.ends.first_entry() {
            if first.key().0 > now {
                return Some(first.key().0);
            }
            let key = first.remove();
            if let Some(Phase::Resting { again: true, .. }) = table.objects.remove(&key) {
                self.pass(&mut table, key);
            }
        }
        None
    }

    fn pass(&self, table: &mut Table<K>, key: K) {
        table.objects.insert(key.clone(), Phase::Passed { again: false });
        // The receiver is gone only when the process ends.
        let _ = self.passed.send(key);
    }

    fn rest(&self, table: &mut Table<K>, key: K, rest: Duration, again: bool) {
        table.tickets += 1;
        let end = (Instant::now() + rest, table.tickets);
        table.ends.insert(end, key.clone());
        table.objects.insert(key, Phase::Resting { end, again });
        self.changed.notify_one();
    }

    fn end(&self, key: K, cost: Duration, ended: Ended) {
        let mut table = self.lock();
        let Some(Phase::Looked { again }) = table.objects.get(&key).copied() else { return };
        let failures = if ended == Ended::Failed {
            let count = table.failures.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            *count
        } else {
            table.failures.remove(&key);
            0
        };
        let active = u32::try_from(table.objects.len()).unwrap_or(u32::MAX);
        self.rest(&mut table, key, rest_after(cost, active, ended, failures), again);
    }

    fn lock(&self) -> MutexGuard<'_, Table<K>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an object rests after a look that cost so much, beside so many that are not at rest.
fn rest_after(cost: Duration, active: u32, ended: Ended, failures: u32) -> Duration {
    let share = if ended == Ended::Waiting { SHARE_WAITING } else { SHARE };
    let own = cost.saturating_mul(share).clamp(SHORTEST, LONGEST);
    let of_all = cost.saturating_mul(SHARE_OF_ALL.saturating_mul(active)).min(LONGEST_OF_ALL);
    let after_failure = match failures {
        0 => Duration::ZERO,
        failures => AFTER_FAILURE * (1 << (failures - 1).min(MOST_DOUBLINGS)),
    };
    own.max(of_all).max(after_failure)
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// Something is to be written when its time has come.
    Waiting,
    Failed,
}

/// A look at an object, from its beginning to its end.
pub struct Look<K: Clone + Eq + Hash> {
    coalescer: Arc<Coalescer<K>>,
    key: K,
    cost: Duration,
    ended: Ended,
}

impl<K: Clone + Eq + Hash> Look<K> {
    /// Looks, and counts the time that this takes of the process: not that of waiting for answers. `is_waiting` says at the
    /// end whether something waits to be written.
    pub async fn run<T, E>(
        mut self,
        look: impl Future<Output = Result<T, E>>,
        is_waiting: impl FnOnce() -> bool,
    ) -> Result<T, E> {
        let mut look = pin!(look);
        let outcome = std::future::poll_fn(|context: &mut task::Context<'_>| {
            let begin = std::time::Instant::now();
            let polled = Pin::as_mut(&mut look).poll(context);
            self.cost += begin.elapsed();
            polled
        })
        .await;
        self.ended = match &outcome {
            Err(_) => Ended::Failed,
            Ok(_) if is_waiting() => Ended::Waiting,
            Ok(_) => Ended::Well,
        };
        outcome
    }
}

impl<K: Clone + Eq + Hash> Drop for Look<K> {
    fn drop(&mut self) {
        self.coalescer.end(self.key.clone(), self.cost, self.ended);
    }
}

#[cfg(test)]
mod tests;
