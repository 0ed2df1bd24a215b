//! Reads metrics in the text form of Prometheus. Pure.

/// The sum over all series of a metric; none if there is no such series. A label part such as `code="429"` narrows it.
pub(crate) fn sum(text: &str, name: &str, label: &str) -> Option<f64> {
    let values: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        .filter_map(value)
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// The value behind a series' labels; a time stamp may follow.
fn value(rest: &str) -> Option<f64> {
    let after = rest.rsplit_once('}').map_or(rest, |(_, after)| after);
    after.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE go_heap gauge\ngo_heap 1.5e+07\nrefused_total{reason=\"a b\"} 2\nrefused_total{reason=\"c\"} 3 1700000000\nrefused_total_more 9\n";

    #[test]
    fn series_of_one_metric_are_added_up() {
        assert_eq!(sum(TEXT, "go_heap", ""), Some(1.5e7));
        assert_eq!(sum(TEXT, "refused_total", ""), Some(5.0));
        assert_eq!(sum(TEXT, "refused_total", "reason=\"c\""), Some(3.0));
        assert_eq!(sum(TEXT, "refused", ""), None);
    }
}
