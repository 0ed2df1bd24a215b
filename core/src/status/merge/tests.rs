//! Tests of merging histories.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

fn execution(serial: u64, stdout: &str) -> Execution {
    Execution { run: 1, attempt: 1, serial, stdout: stdout.into(), ..Execution::default() }
}

fn serials(history: &[Execution]) -> Vec<u64> {
    history.iter().map(|execution| execution.serial).collect()
}

#[test]
fn cut_report_takes_nothing_away() {
    let stored = [execution(1, "one"), execution(2, "two")];
    let merged = merge_history(&stored, &[execution(2, ""), execution(3, "")], 5);
    assert_eq!(merged, [execution(1, "one"), execution(2, "two"), execution(3, "")]);
    assert_eq!(merge_history(&[execution(2, "")], &stored, 5), stored);
}

#[test]
fn newest_are_kept_and_stand_last() {
    let later_attempt = Execution { attempt: 2, ..execution(3, "") };
    let later_run = Execution { run: 2, ..execution(1, "") };
    let reported = [later_run.clone(), later_attempt.clone(), execution(2, ""), execution(1, "")];
    assert_eq!(merge_history(&[], &reported, 3), [execution(2, ""), later_attempt, later_run]);
    assert_eq!(serials(&merge_history(&reported, &[], 1)), [1]);
    assert!(merge_history(&reported, &reported, 0).is_empty());
}

#[test]
fn entry_with_more_facts_wins_at_equal_output() {
    let rich = Execution { stdout_bytes: Some(0), digest: "0f".into(), ..execution(1, "") };
    assert_eq!(merge_history(&[execution(1, "")], std::slice::from_ref(&rich), 5), [rich]);
}

#[test]
fn a_result_stays_whatever_else_is_cut() {
    let with_result = Execution { result: Some(7.into()), ..execution(1, "") };
    let cut = Execution { result_digest: "0f".into(), ..execution(1, "more") };
    let both = Execution { result: Some(7.into()), ..execution(1, "more") };
    for (left, right) in [(&with_result, &cut), (&cut, &with_result), (&both, &cut)] {
        assert_eq!(
            merge_history(std::slice::from_ref(left), std::slice::from_ref(right), 5),
            std::slice::from_ref(&both)
        );
    }
    assert_eq!(merge_history(std::slice::from_ref(&cut), &[execution(1, "")], 5), [cut]);
}

prop_compose! {
    fn any_execution()(
        (run, attempt, serial) in (1..3_u64, 1..3_u32, 1..6_u64),
        (stdout, stderr) in ("[ab]{0,3}", "[ab]{0,3}"),
        (seconds, exit_code, digest) in (proptest::option::of(0..2_i64), proptest::option::of(0..2), "[01]?"),
        (result, result_digest) in (proptest::option::of(0..2), "[ab]?"),
    ) -> Execution {
        let result = result.map(serde_json::Value::from);
        let result_digest = if result.is_some() { String::new() } else { result_digest };
        let start_time = seconds.map(|seconds| Time(Timestamp::from_second(seconds).unwrap()));
        Execution { run, attempt, serial, stdout, stderr, start_time, exit_code, digest, result, result_digest, ..Execution::default() }
    }
}

proptest! {
    #[test]
    fn duplicates_reorderings_and_replays_change_nothing(
        mut reports in vec(vec(any_execution(), 0..8), 1..6),
        replays in vec(any::<Index>(), 0..6),
        limit in 1..12_usize,
        rotation in any::<Index>(),
    ) {
        let all = |reports: &[Vec<Execution>]| {
            reports.iter().fold(Vec::new(), |stored, report| merge_history(&stored, report, limit))
        };
        let once = all(&reports);
        let again: Vec<_> = replays.iter().map(|index| index.get(&reports).clone()).collect();
        reports.extend(again);
        for report in &mut reports {
            report.reverse();
        }
        let start = rotation.index(reports.len());
        reports.rotate_left(start);
        prop_assert_eq!(&all(&reports), &once);
        prop_assert_eq!(&merge_history(&once, &once, limit), &once);
        prop_assert!(once.len() <= limit && once.is_sorted_by(|left, right| left.key() < right.key()));
    }

    #[test]
    fn merging_is_commutative_and_never_loses_output(
        left in vec(any_execution(), 0..10), right in vec(any_execution(), 0..10), limit in 1..12_usize,
    ) {
        let merged = merge_history(&left, &right, limit);
        prop_assert_eq!(&merged, &merge_history(&right, &left, limit));
        for old in left.iter().chain(&right) {
            if let Some(kept) = merged.iter().find(|kept| kept.key() == old.key()) {
                prop_assert!(kept.output_bytes() >= old.output_bytes());
            } else {
                prop_assert!(merged.len() == limit && old.key() < merged[0].key());
            }
        }
    }
}
