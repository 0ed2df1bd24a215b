//! What the operator has not stored yet. Pure.

use std::collections::VecDeque;

use scriptrunner_api::snapshot::Snapshot;

use super::pace::{Key, newest};

/// How many sent snapshots are remembered. An acknowledgement of one that is not counts for the one before it.
const MOST_SENT: usize = 64;

/// Which executions are stored, by the acknowledgements of the snapshots that contained them. It lives longer than a
/// connection.
#[derive(Default)]
pub(super) struct Backlog {
    stored: Option<Key>,
    /// Number of each snapshot sent and not acknowledged, and the newest execution in it.
    sent: VecDeque<(u64, Option<Key>)>,
}

impl Backlog {
    /// The snapshot without what is stored.
    pub(super) fn of(&self, snapshot: &Snapshot) -> Snapshot {
        let history = snapshot
            .history
            .iter()
            .filter(|execution| Some(execution.key()) > self.stored)
            .cloned()
            .collect();
        Snapshot { record: snapshot.record.clone(), history }
    }

    /// The snapshot was sent, perhaps again.
    pub(super) fn sent(&mut self, snapshot: &Snapshot) {
        let seq = snapshot.record.seq;
        if self.sent.back().is_some_and(|&(last, _)| seq <= last) {
            return;
        }
        if self.sent.len() == MOST_SENT {
            // Not the oldest: its acknowledgement is the next to come.
            self.sent.pop_back();
        }
        self.sent.push_back((seq, newest(snapshot)));
    }

    /// Everything up to this snapshot is stored.
    pub(super) fn acked(&mut self, seq: u64) {
        while let Some((_, newest)) = self.sent.pop_front_if(|(sent, _)| *sent <= seq) {
            self.stored = self.stored.max(newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::snapshot;

    fn serials(backlog: &Backlog, snapshot: &Snapshot) -> Vec<u64> {
        backlog.of(snapshot).history.iter().map(|execution| execution.serial).collect()
    }

    #[test]
    fn acknowledged_executions_are_not_sent_again() {
        let mut backlog = Backlog::default();
        let (older, newer) = (snapshot(5, &[1, 2]), snapshot(7, &[1, 2, 3]));
        assert_eq!(serials(&backlog, &newer), [1, 2, 3]);
        backlog.sent(&older);
        backlog.sent(&newer);
        backlog.acked(4);
        assert_eq!(serials(&backlog, &newer), [1, 2, 3]);
        backlog.acked(6);
        assert_eq!(serials(&backlog, &newer), [3]);
        backlog.acked(7);
        backlog.acked(5);
        assert_eq!(serials(&backlog, &newer), [0; 0]);
    }

    #[test]
    fn snapshot_that_never_left_is_not_stored_whatever_is_acknowledged() {
        let mut backlog = Backlog::default();
        backlog.sent(&snapshot(2, &[1]));
        backlog.acked(100);
        assert_eq!(serials(&backlog, &snapshot(3, &[1, 2])), [2]);
    }

    #[test]
    fn snapshot_sent_again_is_acknowledged_once() {
        let mut backlog = Backlog::default();
        backlog.sent(&snapshot(2, &[1]));
        backlog.sent(&snapshot(2, &[1]));
        assert_eq!(backlog.sent.len(), 1);
        backlog.acked(2);
        assert!(backlog.sent.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_late_acknowledgements_still_count() {
        let mut backlog = Backlog::default();
        for seq in 1..1000 {
            backlog.sent(&snapshot(seq, &[seq]));
        }
        assert_eq!(backlog.sent.len(), MOST_SENT);
        backlog.acked(3);
        assert_eq!(serials(&backlog, &snapshot(1000, &[2, 3, 4, 999])), [4, 999]);
        backlog.acked(999);
        assert_eq!(serials(&backlog, &snapshot(1000, &[999, 1000])), [1000]);
    }
}
