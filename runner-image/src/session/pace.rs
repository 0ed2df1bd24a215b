//! When a snapshot leaves: at once, soon, or together with what follows. Pure: the clock is an argument.

use std::time::Duration;

use scriptrunner_api::{
    snapshot::Snapshot,
    v1alpha1::{Execution, NodeState},
};
use tokio::time::Instant;

/// Identifies and orders the executions of a node.
pub(super) type Key = (u64, u32, u64);

/// What was sent over one connection, and when.
pub(super) struct Pace {
    spacing: Duration,
    hold_back: Duration,
    sent: Option<Sent>,
    /// When something was first seen that can wait for company.
    seen: Option<Instant>,
}

struct Sent {
    seq: u64,
    newest: Option<Key>,
    at: Instant,
}

impl Pace {
    /// Snapshots leave at least `spacing` apart; one that tells of no ending waits up to `hold_back` for one that does, so
    /// that a short execution costs one frame.
    pub(super) fn new(spacing: Duration, hold_back: Duration) -> Self {
        Self { spacing, hold_back, sent: None, seen: None }
    }

    /// When this snapshot, the newest, is to be sent; none if it was.
    pub(super) fn due(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Instant> {
        let Some(sent) = &self.sent else { return Some(now) };
        if snapshot.record.seq <= sent.seq {
            return None;
        }
        if is_final(snapshot) {
            return Some(now);
        }
        let seen = *self.seen.get_or_insert(now);
        let wait = if newest(snapshot) > sent.newest { Duration::ZERO } else { self.hold_back };
        Some((sent.at + self.spacing).max(seen + wait))
    }

    /// The snapshot was sent.
    pub(super) fn sent(&mut self, snapshot: &Snapshot, now: Instant) {
        self.sent = Some(Sent { seq: snapshot.record.seq, newest: newest(snapshot), at: now });
        self.seen = None;
    }
}

/// The newest execution that has ended.
pub(super) fn newest(snapshot: &Snapshot) -> Option<Key> {
    snapshot.history.last().map(Execution::key)
}

/// Whether nothing follows it.
fn is_final(snapshot: &Snapshot) -> bool {
    NodeState::parse(&snapshot.record.state) != NodeState::Running || snapshot.record.handed_over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::snapshot;

    const SPACING: Duration = Duration::from_millis(200);
    const HOLD_BACK: Duration = Duration::from_secs(1);

    fn pace(sent: &Snapshot, now: Instant) -> Pace {
        let mut pace = Pace::new(SPACING, HOLD_BACK);
        assert_eq!(pace.due(sent, now), Some(now));
        pace.sent(sent, now);
        pace
    }

    #[test]
    fn first_and_final_snapshots_leave_at_once() {
        let now = Instant::now();
        let mut pace = pace(&snapshot(1, &[]), now);
        let mut last = snapshot(2, &[1]);
        for (state, handed_over) in [("Succeeded", false), ("Stopped", false), ("Running", true)] {
            last.record.state = state.to_owned();
            last.record.handed_over = handed_over;
            assert_eq!(pace.due(&last, now), Some(now), "{state}");
        }
    }

    #[test]
    fn endings_leave_a_spacing_apart() {
        let start = Instant::now();
        let mut pace = pace(&snapshot(1, &[]), start);
        assert_eq!(pace.due(&snapshot(3, &[1]), start), Some(start + SPACING));
        // Looked at again, later.
        assert_eq!(pace.due(&snapshot(5, &[1, 2]), start + SPACING), Some(start + SPACING));
        pace.sent(&snapshot(5, &[1, 2]), start + SPACING);
        assert_eq!(pace.due(&snapshot(5, &[1, 2]), start + 2 * SPACING), None);
        let later = start + 10 * SPACING;
        assert!(pace.due(&snapshot(7, &[1, 2, 3]), later).unwrap() <= later);
    }

    #[test]
    fn beginning_waits_for_its_ending_but_not_for_ever() {
        let start = Instant::now();
        let mut pace = pace(&snapshot(3, &[1]), start);
        let begun = start + 20 * SPACING;
        assert_eq!(pace.due(&snapshot(4, &[1]), begun), Some(begun + HOLD_BACK));
        assert_eq!(pace.due(&snapshot(4, &[1]), begun + SPACING), Some(begun + HOLD_BACK));
        let ended = begun + 2 * SPACING;
        assert!(pace.due(&snapshot(5, &[1, 2]), ended).unwrap() <= ended);
    }

    #[test]
    fn shortened_history_without_a_new_ending_is_a_beginning() {
        let start = Instant::now();
        let mut pace = pace(&snapshot(3, &[1, 2]), start);
        let begun = start + SPACING;
        assert_eq!(pace.due(&snapshot(4, &[2]), begun), Some(begun + HOLD_BACK));
    }
}
