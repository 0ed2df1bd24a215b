//! What the simulated runners did, and when each of it was stored and acknowledged.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::objects::Entry;

/// A snapshot that ends an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) run: u64,
    pub(crate) attempt: u32,
    pub(crate) seq: u64,
    pub(crate) at: Instant,
}

/// Object UID and node.
type Key = (String, String);

#[derive(Default)]
struct Books {
    /// Ended and not seen in a status.
    unstored: HashMap<Key, VecDeque<Ended>>,
    /// From the end of an execution until it was seen in a status.
    stored: Vec<Duration>,
    /// From the end of an execution until its runner was told that it is stored.
    acked: Vec<Duration>,
}

/// Shared by runners and by who watches the status.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Books>);

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An execution ended.
    pub(crate) fn ended(&self, object: &str, node: &str, ended: Ended) {
        let key = (object.to_owned(), node.to_owned());
        self.books().unstored.entry(key).or_default().push_back(ended);
    }

    /// A runner learned that an execution is stored.
    pub(crate) fn acked(&self, after: Duration) {
        self.books().acked.push(after);
    }

    /// A status was seen at `now`.
    pub(crate) fn seen(&self, object: &str, node: &str, entry: &Entry, now: Instant) {
        let mut books = self.books();
        let Books { unstored, stored, acked: _ } = &mut *books;
        let Some(waiting) = unstored.get_mut(&(object.to_owned(), node.to_owned())) else { return };
        while waiting.front().is_some_and(|ended| contains(entry, ended)) {
            stored.extend(waiting.pop_front().map(|ended| now.saturating_duration_since(ended.at)));
        }
    }

    /// Takes the times until something was stored.
    pub(crate) fn take_stored(&self) -> Vec<Duration> {
        std::mem::take(&mut self.books().stored)
    }

    /// Takes the times until something was acknowledged.
    pub(crate) fn take_acked(&self) -> Vec<Duration> {
        std::mem::take(&mut self.books().acked)
    }

    /// How much was acknowledged since it was taken last.
    pub(crate) fn acked_count(&self) -> usize {
        self.books().acked.len()
    }

    /// Nodes with something that is not stored, some of them by name.
    pub(crate) fn unstored(&self) -> (usize, Vec<String>) {
        let books = self.books();
        let mut waiting: Vec<_> =
            books.unstored.iter().filter(|(_, ended)| !ended.is_empty()).map(|((_, node), _)| node).collect();
        waiting.sort();
        (waiting.len(), waiting.into_iter().take(10).cloned().collect())
    }
}

/// Whether an entry says what was known at that end, or more.
fn contains(entry: &Entry, ended: &Ended) -> bool {
    let pod = (entry.run, entry.attempts).cmp(&(ended.run, ended.attempt));
    pod.is_gt() || pod.is_eq() && (entry.is_done() || entry.seq.is_some_and(|seq| seq >= ended.seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: &str, attempts: u32, seq: Option<u64>) -> Entry {
        Entry { state: state.into(), run: 1, attempts, seq }
    }

    #[test]
    fn an_execution_is_stored_once_the_entry_reaches_its_snapshot() {
        let ledger = Ledger::default();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        for (seq, seconds) in [(2, 0), (4, 1)] {
            ledger.ended("u", "n", Ended { run: 1, attempt: 1, seq, at: later(seconds) });
        }
        ledger.seen("u", "n", &entry("Running", 1, Some(1)), later(2));
        assert!(ledger.take_stored().is_empty());
        ledger.seen("other", "n", &entry("Succeeded", 1, None), later(2));
        assert_eq!(ledger.unstored(), (1, vec!["n".to_owned()]));
        ledger.seen("u", "n", &entry("Running", 1, Some(2)), later(3));
        assert_eq!(ledger.take_stored(), [Duration::from_secs(3)]);
        ledger.seen("u", "n", &entry("Succeeded", 1, None), later(4));
        assert_eq!(ledger.take_stored(), [Duration::from_secs(3)]);
        assert_eq!(ledger.unstored(), (0, vec![]));
    }

    #[test]
    fn what_a_later_pod_says_contains_what_its_predecessor_said() {
        let ended = Ended { run: 1, attempt: 1, seq: 9, at: Instant::now() };
        assert!(contains(&entry("Running", 2, Some(1)), &ended));
        assert!(contains(&Entry { run: 2, ..entry("Pending", 0, None) }, &ended));
        assert!(!contains(&Entry { run: 0, ..entry("Succeeded", 1, None) }, &ended));
        assert!(!contains(&entry("Running", 1, None), &ended));
    }
}
