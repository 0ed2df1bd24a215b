//! When executions start. Pure: times are durations since the runner started.

use std::time::Duration;

use scriptrunner_api::pinned::PinnedRepeat;

/// How long the first execution of a pod waits: the initial delay before the first of the run, else what is left of the
/// period since the execution in the pod before. A clock that was set back cannot make it longer than one period.
pub(crate) fn first_start(
    repeat: Option<&PinnedRepeat>,
    first_serial: u64,
    last_start: Option<i64>,
    unix_seconds: i64,
) -> Duration {
    let Some(repeat) = repeat else { return Duration::ZERO };
    let period = i64::from(repeat.period_seconds);
    let seconds = match (first_serial, last_start) {
        (1, _) => i64::from(repeat.initial_delay_seconds),
        (_, None) => 0,
        (_, Some(last)) => last.saturating_add(period).saturating_sub(unix_seconds).clamp(0, period),
    };
    Duration::from_secs(seconds.unsigned_abs())
}

/// When the next execution starts: a period after the planned start of the last one; at once if that has passed. Missed
/// starts are not made up for.
pub(crate) fn next_start(planned: Duration, period: Duration, now: Duration) -> Duration {
    (planned + period).max(now)
}

#[cfg(test)]
mod tests {
    use scriptrunner_api::v1alpha1::StopOn;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn repeat() -> PinnedRepeat {
        PinnedRepeat { count: None, period_seconds: 60, initial_delay_seconds: 5, stop_on: StopOn::Never }
    }

    #[test]
    fn first_execution_of_a_run_waits_the_initial_delay() {
        assert_eq!(first_start(None, 1, None, 1000), seconds(0));
        assert_eq!(first_start(Some(&repeat()), 1, None, 1000), seconds(5));
        assert_eq!(first_start(Some(&repeat()), 1, Some(1000), 1000), seconds(5));
    }

    #[test]
    fn first_execution_of_a_further_pod_keeps_the_period() {
        assert_eq!(first_start(Some(&repeat()), 7, None, 1000), seconds(0));
        assert_eq!(first_start(Some(&repeat()), 7, Some(960), 1000), seconds(20));
        assert_eq!(first_start(Some(&repeat()), 7, Some(100), 1000), seconds(0));
        assert_eq!(first_start(Some(&repeat()), 7, Some(9000), 1000), seconds(60));
        assert_eq!(first_start(Some(&repeat()), 7, Some(i64::MAX), i64::MIN), seconds(60));
    }

    #[test]
    fn overdue_executions_start_at_once_and_do_not_burst() {
        assert_eq!(next_start(seconds(0), seconds(10), seconds(3)), seconds(10));
        let late = next_start(seconds(0), seconds(10), seconds(35));
        assert_eq!(late, seconds(35));
        assert_eq!(next_start(late, seconds(10), seconds(36)), seconds(45));
    }
}
