//! How long a runner that has ended stays for the operator to store its answer. Pure.

use std::time::Duration;

use crate::link::Phase;

/// How long a first connection is waited for: it may be under way since a moment ago.
const FIRST_CONNECTION: Duration = Duration::from_secs(3);
/// What is left after SIGTERM, of the time that the kubelet gives for the message.
const AFTER_SIGTERM: Duration = Duration::from_secs(2);

/// When to leave without an acknowledgement, counted from the runner's end: `whole` says whether the termination message
/// holds everything that is not stored, `terminated` when SIGTERM was seen.
pub(crate) fn leave_at(phase: Phase, whole: bool, limit: Duration, terminated: Option<Duration>) -> Duration {
    let patience = match (phase, whole) {
        (Phase::Off, _) | (Phase::Failing, true) => Duration::ZERO,
        (Phase::Trying, true) => limit.min(FIRST_CONNECTION),
        (Phase::Up, _) | (Phase::Trying | Phase::Failing, false) => limit,
    };
    terminated.map_or(patience, |terminated| patience.min(terminated + AFTER_SIGTERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn nobody_waits_for_a_session_that_cannot_help() {
        assert_eq!(leave_at(Phase::Off, false, LIMIT, None), Duration::ZERO);
        assert_eq!(leave_at(Phase::Off, true, LIMIT, None), Duration::ZERO);
        assert_eq!(leave_at(Phase::Failing, true, LIMIT, None), Duration::ZERO);
    }

    #[test]
    fn session_is_waited_for_as_long_as_it_is_worth() {
        assert_eq!(leave_at(Phase::Up, true, LIMIT, None), LIMIT);
        assert_eq!(leave_at(Phase::Up, false, LIMIT, None), LIMIT);
        assert_eq!(leave_at(Phase::Failing, false, LIMIT, None), LIMIT);
        assert_eq!(leave_at(Phase::Trying, false, LIMIT, None), LIMIT);
        assert_eq!(leave_at(Phase::Trying, true, LIMIT, None), FIRST_CONNECTION);
        assert_eq!(leave_at(Phase::Trying, true, Duration::from_secs(1), None), Duration::from_secs(1));
    }

    #[test]
    fn sigterm_leaves_two_seconds_and_never_more_time() {
        let at = Duration::from_secs;
        assert_eq!(leave_at(Phase::Up, true, LIMIT, Some(at(0))), at(2));
        assert_eq!(leave_at(Phase::Up, true, LIMIT, Some(at(7))), at(9));
        assert_eq!(leave_at(Phase::Up, true, LIMIT, Some(at(29))), LIMIT);
        assert_eq!(leave_at(Phase::Off, false, LIMIT, Some(at(0))), Duration::ZERO);
    }
}
