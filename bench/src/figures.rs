//! Numbers from many numbers. Pure.

use std::time::Duration;

/// The smallest value that `percent` of all values do not exceed; none of none.
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far fewer than 2^52 values"
    )]
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len()) - 1).copied()
}

/// A number for division and for a table.
#[expect(clippy::cast_precision_loss, reason = "figures are far below 2^52")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// Middle, nearly worst and worst of some times, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these times; none of none.
    pub(crate) fn of(times: &[Duration]) -> Option<Self> {
        let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        Some(Self {
            p50: percentile(&mut seconds, 50.0)?,
            p99: percentile(&mut seconds, 99.0)?,
            max: percentile(&mut seconds, 100.0)?,
        })
    }
}

/// A figure as people read it: three digits that matter.
pub(crate) fn readable(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    // An empty sum is minus zero.
    format!("{:.digits$}", value + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 50.0), Some(50.0));
        assert_eq!(percentile(&mut values, 99.0), Some(99.0));
        assert_eq!(percentile(&mut values, 100.0), Some(100.0));
        assert_eq!(percentile(&mut [7.0], 1.0), Some(7.0));
        assert_eq!(percentile(&mut [], 50.0), None);
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 50.0), Some(2.0));
    }

    #[test]
    fn a_spread_is_in_seconds() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(Spread::of(&times), Some(Spread { p50: 0.1, p99: 0.198, max: 0.2 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn figures_have_three_digits_that_matter() {
        for (value, text) in
            [(0.0, "0"), (-0.0, "0"), (0.123, "0.12"), (9.999, "10.0"), (12.34, "12.3"), (1234.5, "1234")]
        {
            assert_eq!(readable(value), text);
        }
    }
}
