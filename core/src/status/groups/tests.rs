//! Tests of grouping nodes by answer.

use proptest::{collection::btree_map, prelude::*};

use super::*;

fn execution(exit_code: i32, digest: &str, stdout: &str) -> Execution {
    Execution {
        run: 1,
        attempt: 1,
        serial: 1,
        exit_code: Some(exit_code),
        digest: digest.into(),
        stdout: stdout.into(),
        ..Execution::default()
    }
}

fn node(newest: Execution) -> NodeStatus {
    NodeStatus {
        state: "Succeeded".into(),
        run: newest.run,
        serial: newest.serial,
        exit_code: newest.exit_code,
        signal: newest.signal,
        node_id: "id".into(),
        history: vec![newest],
        ..NodeStatus::default()
    }
}

fn grouped(
    nodes: &BTreeMap<String, NodeStatus>,
    by: GroupBy,
    known: &Answers,
    previous: &[OutputGroup],
) -> Option<Grouped> {
    output_groups(nodes.iter().map(|(name, node)| (name.as_str(), node)), by, known, previous)
}

fn groups(
    nodes: &BTreeMap<String, NodeStatus>,
    known: &Answers,
    previous: &[OutputGroup],
) -> (Vec<OutputGroup>, usize) {
    let Grouped { groups, consensus } = grouped(nodes, GroupBy::Output, known, previous).unwrap();
    (groups, consensus.group_count)
}

/// Exit code, number of nodes, names, whether there is a digest, and sample of each group.
fn texts(groups: &[OutputGroup]) -> Vec<String> {
    let text = |group: &OutputGroup| {
        let OutputGroup { exit_code, digest, node_count, nodes, sample } = group;
        format!("{exit_code:?} {node_count} {nodes} {} {sample}", !digest.is_empty())
    };
    groups.iter().map(text).collect()
}

fn fleet() -> BTreeMap<String, NodeStatus> {
    (1..=9)
        .map(|number| match number {
            4 => node(execution(1, "b", "out of space")),
            7 => node(Execution { stderr: "oops".into(), ..execution(1, "c", "") }),
            _ => node(execution(0, "a", "fine")),
        })
        .enumerate()
        .map(|(position, node)| (format!("worker{:02}", position + 1), node))
        .collect()
}

/// As the budget leaves it at its end.
fn without_histories(mut nodes: BTreeMap<String, NodeStatus>) -> BTreeMap<String, NodeStatus> {
    for node in nodes.values_mut() {
        node.history.clear();
    }
    nodes
}

/// What cutting all histories costs.
fn cut() -> Answers {
    fleet().iter().filter_map(|(name, node)| Some((name.clone(), answer_to_keep(node)?))).collect()
}

#[test]
fn outliers_stand_below_the_large_group() {
    let (found, count) = groups(&fleet(), &Answers::new(), &[]);
    let text = |group: &OutputGroup| {
        format!("{:?} {} {} {}", group.exit_code, group.node_count, group.nodes, group.sample)
    };
    assert_eq!(
        found.iter().map(text).collect::<Vec<_>>(),
        [
            "Some(0) 7 worker[01-03,05-06,08-09] fine",
            "Some(1) 1 worker04 out of space",
            "Some(1) 1 worker07 oops",
        ]
    );
    assert_eq!(count, 3);
}

#[test]
fn nodes_without_an_answer_are_in_no_group() {
    let mut nodes = fleet();
    nodes.insert("pending".into(), NodeStatus { run: 1, ..NodeStatus::default() });
    nodes.insert("running".into(), NodeStatus { run: 1, serial: 1, ..NodeStatus::default() });
    nodes.insert("older-run".into(), NodeStatus { run: 2, serial: 0, ..node(execution(0, "z", "")) });
    nodes.insert(
        "lost".into(),
        node(Execution { digest: String::new(), exit_code: None, ..execution(0, "", "") }),
    );
    assert_eq!(groups(&nodes, &Answers::new(), &[]), groups(&fleet(), &Answers::new(), &[]));
}

#[test]
fn only_the_largest_are_listed_and_all_are_counted() {
    let nodes: BTreeMap<String, NodeStatus> = (0..60)
        .map(|number| {
            (format!("n{number}"), node(execution(0, &format!("{:02}", number.min(25)), &"x".repeat(3000))))
        })
        .collect();
    let (found, count) = groups(&nodes, &Answers::new(), &[]);
    assert_eq!((found.len(), count), (MAX_GROUPS, 26));
    assert_eq!((found[0].digest.as_str(), found[0].node_count, found[1].digest.as_str()), ("25", 35, "00"));
    assert_eq!(found[0].sample.len(), MAX_SAMPLE_BYTES);
}

#[test]
fn cut_histories_change_no_group() {
    let before = groups(&fleet(), &Answers::new(), &[]);
    let known = remember(&Answers::new(), cut(), &without_histories(fleet()));
    assert_eq!(remember(&known, Answers::new(), &without_histories(fleet())), known);
    assert!(remember(&known, Answers::new(), &fleet()).is_empty(), "what is stored needs no memory");
    assert_eq!(groups(&without_histories(fleet()), &known, &before.0), before);
    // After a restart nothing is remembered.
    let one_cut = fleet().into_iter().map(|(name, mut node)| {
        if name == "worker04" {
            node.history.clear();
        }
        (name, node)
    });
    let one_cut = one_cut.collect();
    for by in [GroupBy::Output, GroupBy::Result] {
        assert_eq!(grouped(&one_cut, by, &Answers::new(), &before.0), None);
    }
    assert!(grouped(&one_cut, GroupBy::ExitCode, &Answers::new(), &[]).is_some(), "exit codes are never cut");
}

#[test]
fn memory_ends_with_the_run_and_with_the_node() {
    let known = remember(&Answers::new(), cut(), &without_histories(fleet()));
    let mut nodes = without_histories(fleet());
    nodes.remove("worker01");
    let next_run = nodes.get_mut("worker02").unwrap();
    (next_run.run, next_run.serial, next_run.exit_code) = (2, 0, None);
    nodes.get_mut("worker03").unwrap().exit_code = Some(9);
    let known = remember(&known, Answers::new(), &nodes);
    assert_eq!(known.keys().next().unwrap(), "worker04");
    assert_eq!(
        grouped(&nodes, GroupBy::Output, &known, &[]),
        None,
        "the new answer of worker03 is not known"
    );
}

#[test]
fn cut_outputs_keep_the_sample() {
    let before = groups(&fleet(), &Answers::new(), &[]);
    let mut nodes = fleet();
    for newest in nodes.values_mut().flat_map(|node| &mut node.history) {
        newest.stdout.truncate(2);
        newest.stderr.clear();
    }
    assert_eq!(groups(&nodes, &Answers::new(), &before.0), (before.0, 3));
}

/// Nine nodes with a timestamp each; of four the result is another one, and one has none.
fn told() -> BTreeMap<String, NodeStatus> {
    (1..=9)
        .map(|number| {
            let result = match number {
                1..=4 => Some(serde_json::json!({"kernel": "6.1", "old": true})),
                9 => None,
                _ => Some(serde_json::json!({"kernel": "6.8"})),
            };
            let code = i32::from(number == 4);
            let answer = execution(code, &format!("{number:016x}"), &format!("at {number}"));
            (format!("n{number}"), node(Execution { result, ..answer }))
        })
        .collect()
}

#[test]
fn exit_codes_and_results_are_grouped_without_what_was_printed() {
    let found = |by| grouped(&told(), by, &Answers::new(), &[]).unwrap();
    assert_eq!(found(GroupBy::Output).consensus.group_count, 9);
    assert_eq!(
        texts(&found(GroupBy::ExitCode).groups),
        ["Some(0) 8 n[1-3,5-9] false at 1", "Some(1) 1 n4 false at 4"]
    );
    let by_result = found(GroupBy::Result).groups;
    let found = texts(&by_result);
    assert_eq!(found[0], "Some(0) 4 n[5-8] true {\"kernel\":\"6.8\"}");
    assert_eq!(found[1], "Some(0) 3 n[1-3] true {\"kernel\":\"6.1\",\"old\":true}");
    assert_eq!(found[2], "Some(0) 1 n9 false ");
    assert_eq!(found[3], "Some(1) 1 n4 true {\"kernel\":\"6.1\",\"old\":true}");
    assert_eq!(by_result[1].digest, by_result[3].digest);
}

#[test]
fn sample_of_an_exit_code_goes_when_nobody_prints_any_more() {
    let printed = execution(0, "a", "warning: once");
    let quiet = Execution {
        serial: 2,
        stdout: String::new(),
        stdout_bytes: Some(0),
        stderr_bytes: Some(0),
        ..execution(0, "b", "")
    };
    let sample = |nodes: &BTreeMap<String, NodeStatus>, previous: &[OutputGroup]| {
        grouped(nodes, GroupBy::ExitCode, &Answers::new(), previous).unwrap().groups
    };
    let of = |newest: &Execution| BTreeMap::from([("n1".to_owned(), node(newest.clone()))]);
    let before = sample(&of(&printed), &[]);
    assert_eq!(before[0].sample, "warning: once");
    assert_eq!(sample(&of(&quiet), &before)[0].sample, "");
    let cut = Execution { stdout_bytes: Some(13), ..quiet };
    assert_eq!(sample(&of(&cut), &before)[0].sample, "warning: once", "only the room for it is gone");
}

#[test]
fn signals_are_told_apart() {
    let ended = |signal| Execution { exit_code: None, signal: Some(signal), ..execution(0, "d", "") };
    let nodes = [(1, 9), (2, 15), (3, 9)].map(|(number, signal)| (format!("n{number}"), node(ended(signal))));
    let found = grouped(&nodes.into(), GroupBy::ExitCode, &Answers::new(), &[]).unwrap();
    assert_eq!(texts(&found.groups), ["None 2 n[1,3] false ", "None 1 n2 false "]);
    assert_eq!(found.consensus.voices[1].ending, "signal 15");
}

#[test]
fn what_the_budget_cut_is_no_other_answer_in_any_grouping() {
    let cut = told().iter().map(|(name, node)| (name.clone(), answer_to_keep(node).unwrap())).collect();
    let known = remember(&Answers::new(), cut, &without_histories(told()));
    let mut without_results = told();
    for newest in without_results.values_mut().flat_map(|node| &mut node.history) {
        newest.result_digest = newest.digest_of_result();
        (newest.result, newest.stdout) = (None, String::new());
    }
    for by in [GroupBy::Output, GroupBy::ExitCode, GroupBy::Result] {
        let before = grouped(&told(), by, &Answers::new(), &[]).unwrap();
        let again = |nodes: &BTreeMap<String, NodeStatus>, known: &Answers| {
            grouped(nodes, by, known, &before.groups).unwrap()
        };
        assert_eq!(again(&without_histories(told()), &known), before, "{by:?}");
        assert_eq!(again(&without_results, &Answers::new()), before, "{by:?}");
        // Of one the whole history is lost as well.
        let mut without_one = without_results.clone();
        without_one.get_mut("n9").unwrap().history.clear();
        assert_eq!(again(&without_one, &known), before, "{by:?}");
    }
}

#[test]
fn another_grouping_takes_over_no_sample() {
    let all = [GroupBy::Output, GroupBy::ExitCode, GroupBy::Result];
    let fresh = all.map(|by| grouped(&told(), by, &Answers::new(), &[]).unwrap());
    for previous in &fresh {
        for (by, fresh) in all.into_iter().zip(&fresh) {
            assert_eq!(&grouped(&told(), by, &Answers::new(), &previous.groups).unwrap(), fresh, "{by:?}");
        }
    }
}

proptest! {
    #[test]
    fn every_answer_is_counted_once(
        answers in btree_map("n[0-9]{1,3}", (0..3_i32, "[a-f]", "[xy]{0,2}"), 0..60),
    ) {
        let nodes: BTreeMap<_, _> = answers
            .into_iter()
            .map(|(name, (exit_code, digest, stdout))| (name, node(execution(exit_code, &digest, &stdout))))
            .collect();
        let (found, count) = groups(&nodes, &Answers::new(), &[]);
        let total: u32 = found.iter().map(|group| group.node_count).sum();
        prop_assert_eq!(total as usize, nodes.len());
        prop_assert_eq!(count, found.len());
        prop_assert!(found.is_sorted_by(|left, right| left.node_count >= right.node_count));
        prop_assert_eq!(groups(&nodes, &Answers::new(), &found), (found, count));
    }
}
