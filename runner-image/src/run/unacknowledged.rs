//! Since when something is unacknowledged. Pure: times are durations since the runner started.

use std::time::Duration;

/// The time that counts towards a hand-over: that of a runner whose news the operator has not stored. A runner that has no
/// news waits as long as it likes.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    published: u64,
    acked: u64,
    since: Option<Duration>,
}

impl Unacknowledged {
    /// There is a newer snapshot.
    pub(crate) fn publish(&mut self, seq: u64, now: Duration) {
        self.published = seq;
        self.since.get_or_insert(now);
    }

    /// The operator has stored everything up to a snapshot.
    pub(crate) fn ack(&mut self, seq: u64, at: Duration) {
        if seq <= self.acked {
            return;
        }
        self.acked = seq;
        // What is newer has waited at most since then, near enough.
        self.since = (seq < self.published).then_some(at);
    }

    /// Since when something is unacknowledged.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_any_acknowledgement_it_counts_from_the_first_news() {
        let mut unacknowledged = Unacknowledged::default();
        assert_eq!(unacknowledged.since(), None);
        unacknowledged.publish(1, at(0));
        unacknowledged.publish(2, at(50));
        assert_eq!(unacknowledged.since(), Some(at(0)));
    }

    #[test]
    fn acknowledgement_of_everything_stops_the_clock_until_there_is_news() {
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.publish(1, at(0));
        unacknowledged.publish(2, at(1));
        unacknowledged.ack(2, at(3));
        assert_eq!(unacknowledged.since(), None);
        unacknowledged.publish(3, at(5000));
        assert_eq!(unacknowledged.since(), Some(at(5000)));
    }

    #[test]
    fn acknowledgement_of_a_part_sets_the_clock_back_once() {
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.publish(1, at(0));
        unacknowledged.publish(2, at(10));
        unacknowledged.ack(1, at(12));
        assert_eq!(unacknowledged.since(), Some(at(12)));
        unacknowledged.ack(1, at(500));
        assert_eq!(unacknowledged.since(), Some(at(12)));
        unacknowledged.ack(2, at(600));
        assert_eq!(unacknowledged.since(), None);
    }
}
