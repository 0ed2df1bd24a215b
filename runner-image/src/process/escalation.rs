//! When a program gets SIGTERM and when SIGKILL. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use super::Limits;

/// Between one SIGKILL and the next, should the first not have been enough.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// Why a program was ended before its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutBy {
    /// It ran longer than it may.
    Deadline,
    /// The runner was told to stop.
    Stop,
}

/// A signal to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Terminate,
    Kill,
}

/// First SIGTERM, after the grace period SIGKILL. What came first stays the cause.
pub(super) struct Escalation {
    grace: Duration,
    deadline: Option<Instant>,
    cut_by: Option<CutBy>,
    kill_at: Option<Instant>,
}

impl Escalation {
    pub(super) fn new(started: Instant, limits: &Limits) -> Self {
        let deadline = limits.deadline.map(|limit| started + limit);
        Self { grace: limits.grace, deadline, cut_by: None, kill_at: None }
    }

    pub(super) fn step(&mut self, now: Instant, stop_requested: bool) -> Option<Order> {
        match self.kill_at {
            None => {
                self.cut_by = if stop_requested {
                    Some(CutBy::Stop)
                } else {
                    self.deadline.is_some_and(|deadline| now >= deadline).then_some(CutBy::Deadline)
                };
                self.cut_by?;
                self.kill_at = Some(now + self.grace);
                Some(Order::Terminate)
            }
            Some(kill_at) if now >= kill_at => {
                self.kill_at = Some(now + KILL_AGAIN);
                Some(Order::Kill)
            }
            Some(_) => None,
        }
    }

    /// How long nothing needs to be done.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.kill_at.or(self.deadline).map(|next| next.saturating_duration_since(now))
    }

    pub(super) fn cut_by(&self) -> Option<CutBy> {
        self.cut_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Kept;

    fn limits(deadline: Option<u64>) -> Limits {
        Limits {
            deadline: deadline.map(Duration::from_secs),
            grace: Duration::from_secs(3),
            stdout_bytes: 0,
            stderr_bytes: 0,
            kept: Kept::Tail,
        }
    }

    #[test]
    fn deadline_terminates_once_and_kills_after_the_grace_period() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut escalation = Escalation::new(start, &limits(Some(5)));
        assert_eq!(escalation.step(at(4), false), None);
        assert_eq!(escalation.timeout(at(4)), Some(Duration::from_secs(1)));
        assert_eq!(escalation.step(at(5), false), Some(Order::Terminate));
        assert_eq!(escalation.step(at(6), true), None);
        assert_eq!(escalation.timeout(at(6)), Some(Duration::from_secs(2)));
        assert_eq!(escalation.step(at(8), true), Some(Order::Kill));
        assert_eq!(escalation.step(at(8), true), None);
        assert_eq!(escalation.step(at(9), true), Some(Order::Kill));
        assert_eq!(escalation.cut_by(), Some(CutBy::Deadline));
    }

    #[test]
    fn stop_needs_no_deadline() {
        let start = Instant::now();
        let mut escalation = Escalation::new(start, &limits(None));
        assert_eq!(escalation.timeout(start), None);
        assert_eq!(escalation.step(start, false), None);
        assert_eq!(escalation.cut_by(), None);
        assert_eq!(escalation.step(start, true), Some(Order::Terminate));
        assert_eq!(escalation.cut_by(), Some(CutBy::Stop));
    }
}
