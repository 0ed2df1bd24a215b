//! Tests of what is said of nodes that agree or differ.

use std::collections::BTreeMap;

use scriptrunner_api::v1alpha1::{Execution, NodeStatus};

use super::*;
use crate::status::groups::{Answers, Grouped, output_groups};

fn node(exit_code: i32, digest: String, stdout: &str) -> NodeStatus {
    let newest = Execution {
        run: 1,
        serial: 1,
        exit_code: Some(exit_code),
        digest,
        stdout: stdout.to_owned(),
        ..Execution::default()
    };
    NodeStatus {
        run: 1,
        serial: 1,
        exit_code: Some(exit_code),
        history: vec![newest],
        ..NodeStatus::default()
    }
}

fn fleet(answers: impl IntoIterator<Item = (i32, String, String)>) -> BTreeMap<String, NodeStatus> {
    (1..)
        .zip(answers)
        .map(|(number, (exit_code, digest, stdout))| {
            (format!("worker{number:02}"), node(exit_code, digest, &stdout))
        })
        .collect()
}

/// So many nodes that give answers 0, 1, and so on.
fn answers(counts: &[usize]) -> BTreeMap<String, NodeStatus> {
    let each = (0..).zip(counts).flat_map(|(code, count)| std::iter::repeat_n(code, *count));
    fleet(each.map(|code: i32| (code, format!("{code:x}"), format!("first\nsaid {code}\n\n"))))
}

fn said(nodes: &BTreeMap<String, NodeStatus>, by: GroupBy) -> (Option<bool>, ConditionReason, String) {
    let named = nodes.iter().map(|(name, node)| (name.as_str(), node));
    let Grouped { groups, consensus } = output_groups(named, by, &Answers::new(), &[]).unwrap();
    let Verdict { type_, holds, reason, message } = consensus.verdict(&groups);
    assert_eq!(type_, ConditionType::Consistent);
    assert!(stored_bytes(&message) <= MAX_STORED_MESSAGE_BYTES + 2, "{message}");
    (holds, reason, message)
}

fn of(counts: &[usize]) -> (Option<bool>, ConditionReason, String) {
    said(&answers(counts), GroupBy::Output)
}

#[test]
fn nodes_agree_only_once_all_have_answered() {
    let what = |nodes: &BTreeMap<_, _>| said(nodes, GroupBy::Output);
    let (holds, reason, _) = of(&[]);
    assert_eq!((holds, reason), (None, ConditionReason::NothingToCompare));
    let text = "the only node answered (exit code 0)";
    assert_eq!(of(&[1]), (Some(true), ConditionReason::SameAnswer, text.to_owned()));
    for (state, answers) in [("Pending", 2), ("Running", 2), ("Unknown", 2), ("Failed", 2), ("Skipped", 3)] {
        let mut nodes = self::answers(&[3]);
        let silent = nodes.get_mut("worker02").unwrap();
        (silent.state, silent.history) = (state.to_owned(), Vec::new());
        (silent.serial, silent.executions) = (0, 0);
        if answers == 2 {
            let text = "2 of 3 nodes have answered and agree (exit code 0); no answer from worker02";
            assert_eq!(what(&nodes), (None, ConditionReason::NotAllAnswered, text.to_owned()), "{state}");
        } else {
            let text = "all 2 nodes agree (exit code 0)";
            assert_eq!(what(&nodes), (Some(true), ConditionReason::SameAnswer, text.to_owned()));
        }
    }
    let mut nodes = self::answers(&[2, 1]);
    nodes.insert("worker09".to_owned(), NodeStatus::default());
    assert_eq!(what(&nodes).1, ConditionReason::Outliers, "who differs is said at once");
}

#[test]
fn outliers_are_named_with_what_they_said() {
    let same = (Some(true), ConditionReason::SameAnswer, "all 50 nodes agree (exit code 0)");
    assert_eq!(of(&[50]), (same.0, same.1, same.2.to_owned()));
    let text = "47 of 50 nodes agree (exit code 0); differ: worker[48-49]: exit code 1: said 1; worker50: exit code 2: said 2";
    assert_eq!(of(&[47, 2, 1]), (Some(false), ConditionReason::Outliers, text.to_owned()));
}

#[test]
fn majority_begins_at_sixty_percent() {
    let reason = |counts: &[usize]| of(counts).1;
    assert_eq!(reason(&[59, 41]), ConditionReason::NoMajority);
    assert_eq!(reason(&[60, 40]), ConditionReason::Outliers);
    assert_eq!(reason(&[3, 2]), ConditionReason::Outliers);
    assert_eq!(reason(&[1, 1]), ConditionReason::NoMajority);
    assert_eq!(reason(&[10, 10, 10]), ConditionReason::NoMajority);
    // Fifty further groups, of which the status lists nineteen.
    let many: Vec<usize> = [60].into_iter().chain([1; 40]).collect();
    assert_eq!(reason(&many), ConditionReason::Outliers);
    let more: Vec<usize> = [60].into_iter().chain([1; 41]).collect();
    assert_eq!(reason(&more), ConditionReason::NoMajority);
}

#[test]
fn message_is_bounded_and_counts_what_it_does_not_name() {
    let spread = [(600, 0)].into_iter().chain((1..=300).map(|code| (1, code)));
    let nodes = fleet(spread.flat_map(|(count, code)| {
        let answer = (code, format!("{code:x}"), "<&\"\\\u{241b}".repeat(100));
        std::iter::repeat_n(answer, count)
    }));
    let (_, reason, message) = said(&nodes, GroupBy::Output);
    assert_eq!(reason, ConditionReason::Outliers);
    assert!(message.starts_with("600 of 900 nodes agree (exit code 0); differ: worker"), "{message}");
    let named = message.matches(": exit code").count();
    assert!(named >= 2 && message.ends_with(&format!("; and {} more groups", 300 - named)), "{message}");
}

#[test]
fn five_thousand_timestamps_have_no_majority_and_one_exit_code() {
    let nodes = fleet((0..5_000).map(|number| (0, format!("{number:016x}"), format!("2026-01-01 {number}"))));
    let (holds, reason, message) = said(&nodes, GroupBy::Output);
    assert_eq!((holds, reason), (Some(false), ConditionReason::NoMajority));
    assert!(message.starts_with("there is no majority: 5000 nodes gave 5000 different answers, the largest group has 1 (0 %; exit code 0): worker01; "), "{message}");
    assert!(message.contains("output.groupBy to ExitCode"), "{message}");
    assert_eq!(said(&nodes, GroupBy::ExitCode).1, ConditionReason::SameAnswer);
    assert_eq!(said(&nodes, GroupBy::Result).1, ConditionReason::SameAnswer);
}

#[test]
fn advice_is_one_that_helps() {
    let nodes = answers(&[5, 5]);
    assert!(!said(&nodes, GroupBy::ExitCode).2.contains("groupBy"));
    let mut nodes = nodes;
    for (number, newest) in (0..).zip(nodes.values_mut().flat_map(|node| &mut node.history)) {
        newest.result = (number > 5).then(|| number.into());
    }
    let (_, reason, message) = said(&nodes, GroupBy::Result);
    assert!(reason == ConditionReason::NoMajority && message.contains("in the results"), "{message}");
}

#[test]
fn results_of_outliers_are_said_and_missing_ones_too() {
    let mut nodes = answers(&[5]);
    for (number, newest) in (1..).zip(nodes.values_mut().flat_map(|node| &mut node.history)) {
        newest.result = match number {
            1 => Some("odd".into()),
            2 => None,
            _ => Some(7.into()),
        };
    }
    let (_, _, message) = said(&nodes, GroupBy::Result);
    let text = "3 of 5 nodes agree (exit code 0); differ: worker02: exit code 0: no result; worker01: exit code 0: \"odd\"";
    assert_eq!(message, text);
}
