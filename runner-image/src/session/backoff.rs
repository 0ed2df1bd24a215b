//! How long a runner waits before it comes again, so that thousands do not come at once. Pure: chance is an argument.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Pauses that double with each failure in a row.
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    spread: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration, spread: Duration) -> Self {
        Self { first, longest, spread, failures: 0 }
    }

    /// After a try that failed. `chance` is from 0 to 1.
    pub(super) fn after_failure(&mut self, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.longest).mul_f64(0.5 + chance)
    }

    /// After a session that worked: all of its kind may have ended in the same moment.
    pub(super) fn after_session(&mut self, chance: f64) -> Duration {
        self.failures = 0;
        self.spread.mul_f64(chance)
    }
}

/// The pause that the operator asked for: never shorter, and a little longer.
pub(super) fn as_told(pause: Duration, chance: f64) -> Duration {
    pause + pause.mul_f64(0.5 * chance)
}

/// From 0 to 1. Not for secrets.
pub(super) fn chance() -> f64 {
    let bits = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(10), Duration::from_secs(1))
    }

    #[test]
    fn failures_double_the_pause_up_to_the_longest() {
        let mut backoff = backoff();
        let pauses: Vec<_> = (0..100).map(|_| backoff.after_failure(0.5).as_millis()).collect();
        assert_eq!(pauses[..7], [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(pauses[99], 10_000);
        assert_eq!(backoff.after_failure(0.0), Duration::from_secs(5));
        assert_eq!(backoff.after_failure(1.0), Duration::from_secs(15));
    }

    #[test]
    fn session_that_worked_begins_anew() {
        let mut backoff = backoff();
        backoff.after_failure(0.5);
        assert_eq!(backoff.after_session(0.25), Duration::from_millis(250));
        assert_eq!(backoff.after_failure(0.5), Duration::from_millis(500));
    }

    #[test]
    fn pause_that_the_operator_asked_for_is_kept() {
        let pause = Duration::from_secs(4);
        assert_eq!(as_told(pause, 0.0), pause);
        assert_eq!(as_told(pause, 1.0), Duration::from_secs(6));
    }

    #[test]
    fn chances_differ() {
        let chances: Vec<f64> = (0..1000).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        let mean = chances.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}
