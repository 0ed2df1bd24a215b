//! Tests of the byte budget.

use k8s_openapi::jiff::Timestamp;
use proptest::{collection::vec, option, prelude::*, sample::Index};
use scriptrunner_api::v1alpha1::{Execution, OutputGroup};

use super::*;
use crate::status::merge::merge_history;

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(1_800_000_000 + seconds).unwrap())
}

fn execution(serial: u64, exit_code: i32, stdout: &str, stderr: &str) -> Execution {
    Execution {
        run: 1,
        attempt: 1,
        serial,
        start_time: Some(at(0)),
        duration_millis: Some(1234),
        exit_code: Some(exit_code),
        signal: None,
        reason: if exit_code == 0 { String::new() } else { "ScriptFailed".into() },
        stdout: stdout.into(),
        stderr: stderr.into(),
        stdout_bytes: Some(99_999),
        stderr_bytes: Some(stderr.len() as u64),
        digest: format!("{serial:016x}"),
        ..Execution::default()
    }
}

fn node(state: NodeState, history: Vec<Execution>) -> NodeStatus {
    let newest = history.last().cloned().unwrap_or_default();
    NodeStatus {
        state: state.as_str().to_owned(),
        reason: newest.reason.clone(),
        run: 1,
        attempts: 1,
        executions: newest.serial,
        exit_code: newest.exit_code,
        node_id: "abcdefghijk".into(),
        pod_id: state.is_active().then(|| "lmnopqrstuv".to_owned()),
        seq: state.is_active().then_some(newest.serial * 2),
        serial: newest.serial,
        history,
        ..NodeStatus::default()
    }
}

fn status(nodes: impl IntoIterator<Item = (String, NodeStatus)>) -> ScriptRunnerStatus {
    ScriptRunnerStatus { nodes: nodes.into_iter().collect(), ..ScriptRunnerStatus::default() }
}

/// Bytes of everything else that leave so much room for the measured part of the status.
fn others(room: usize) -> usize {
    MAX_OBJECT_BYTES - WRITE_BYTES - VERDICT_BYTES - room
}

fn measured(status: &ScriptRunnerStatus) -> usize {
    Budget::measure(status, 0).total()
}

/// The status with nothing left that may be cut.
fn bare(status: &ScriptRunnerStatus) -> ScriptRunnerStatus {
    let mut bare = status.clone();
    bare.nodes.retain(|_, node| !is_droppable(node));
    for node in bare.nodes.values_mut() {
        node.history.clear();
        node.message.clear();
        node.reason.clear();
    }
    bare.output_groups.clear();
    bare
}

/// The steps that have something to cut.
fn open_steps(status: &ScriptRunnerStatus) -> Vec<Step> {
    let has_pieces =
        |step| status.nodes.values().any(|node| pieces(step, node).iter().any(|piece| piece.bytes > 0));
    let is_open = |step: &Step| match step {
        Step::GoneNodes => status.nodes.values().any(is_droppable),
        Step::Samples => status.output_groups.iter().any(|group| !group.sample.is_empty()),
        Step::Groups => !status.output_groups.is_empty(),
        step => has_pieces(*step),
    };
    Step::ALL.into_iter().filter(is_open).collect()
}

mod examples {
    use super::*;

    #[test]
    fn status_that_fits_stays() {
        let stored = status([("a".into(), node(NodeState::Succeeded, vec![execution(1, 0, "x", "")]))]);
        let mut fitted = stored.clone();
        assert_eq!(fit(&mut fitted, others(measured(&stored))), Fitted { fits: true, ..Fitted::default() });
        assert_eq!(fitted, stored);
        assert!(fit(&mut fitted, others(measured(&stored) - 1)).fits);
        assert_eq!(
            fitted.truncation,
            Some(Truncation { nodes: 1, bytes: 13 }),
            "the field leaves with its text"
        );
    }

    #[test]
    fn one_flood_costs_the_others_nothing() {
        let flood =
            (1..=50).map(|serial| execution(serial, 0, &"\u{241b}[31m\"\\".repeat(400), "")).collect();
        let quiet = node(NodeState::Running, vec![execution(2, 0, "quiet", "")]);
        let mut fitted = status([
            ("a".into(), quiet.clone()),
            ("flood".into(), node(NodeState::Running, flood)),
            ("z".into(), quiet.clone()),
        ]);
        assert!(fit(&mut fitted, others(8_000)).fits);
        assert_eq!((&fitted.nodes["a"], &fitted.nodes["z"]), (&quiet, &quiet));
        let kept = &fitted.nodes["flood"].history;
        assert_eq!(kept.last().unwrap().serial, 50);
        assert_eq!(kept.last().unwrap().output_bytes(), 400 * 9);
        assert!(measured(&fitted) > 7_900);
    }

    #[test]
    fn ends_of_outputs_stay_and_successes_give_before_failures() {
        let long = format!("{}end", "é".repeat(2_000));
        let mut fitted = status([
            ("bad".into(), node(NodeState::Failed, vec![execution(1, 1, &long, &long)])),
            ("good".into(), node(NodeState::Succeeded, vec![execution(1, 0, &long, &long)])),
        ]);
        assert!(fit(&mut fitted, others(12_500)).fits);
        let (good, bad) = (fitted.nodes["good"].history[0].clone(), fitted.nodes["bad"].history[0].clone());
        assert_eq!(bad.output_bytes(), 2 * long.len());
        assert!(good.stderr.is_empty() && good.stdout.ends_with("éend") && good.stdout.len() > 3_000);
        assert!(fit(&mut fitted, others(4_880)).fits);
        let (good, bad) = (&fitted.nodes["good"].history[0], &fitted.nodes["bad"].history[0]);
        assert_eq!((good.output_bytes(), bad.stderr.len()), (0, long.len()));
        assert!(bad.stdout.len() < 100 && long.ends_with(&bad.stdout));
    }

    #[test]
    fn results_give_after_outputs_and_leave_their_digest() {
        let result = Some(serde_json::Value::from("r".repeat(1_000)));
        let with_result = |serial, exit_code| Execution {
            result: result.clone(),
            ..execution(serial, exit_code, &"o".repeat(500), &"e".repeat(500))
        };
        let history = vec![with_result(1, 1), with_result(2, 1)];
        let digest = history[1].digest_of_result();
        let mut fitted = status([("a".into(), node(NodeState::Failed, history))]);
        let all = measured(&fitted);
        assert!(fit(&mut fitted, others(all - 1_100)).fits);
        let kept = &fitted.nodes["a"].history;
        assert!(kept[0].output_bytes() == 0 && kept[0].result.is_none() && kept[0].result_digest.is_empty());
        assert_eq!((kept[1].output_bytes(), &kept[1].result), (1_000, &result));
        assert!(fit(&mut fitted, others(1_600)).fits);
        let kept = &fitted.nodes["a"].history;
        assert!(kept.len() == 1 && kept[0].output_bytes() < 500 && kept[0].result == result);
        assert!(fit(&mut fitted, others(700)).fits);
        let kept = &fitted.nodes["a"].history;
        assert_eq!((kept[0].output_bytes(), &kept[0].result, &kept[0].result_digest), (0, &None, &digest));
        assert!(fitted.truncation.unwrap().bytes > 900);
    }

    #[test]
    fn what_an_exit_code_excuses_gives_before_failures() {
        for reason in ["ExitCodeSucceeds", "ExitCodeSkips"] {
            let excused = Execution { reason: reason.into(), ..execution(1, 3, &"o".repeat(500), "e") };
            let mut fitted = status([
                ("bad".into(), node(NodeState::Failed, vec![execution(1, 1, "", &"e".repeat(500))])),
                ("excused".into(), node(NodeState::Succeeded, vec![excused])),
            ]);
            let room = measured(&fitted) - 100;
            assert!(fit(&mut fitted, others(room)).fits);
            let (bad, excused) = (&fitted.nodes["bad"].history[0], &fitted.nodes["excused"].history[0]);
            assert_eq!(bad.stderr.len(), 500, "{reason}");
            assert!(excused.stderr.is_empty() && (300..500).contains(&excused.stdout.len()), "{reason}");
        }
    }

    #[test]
    fn of_equal_nodes_only_as_many_lose_their_history_as_must() {
        let nodes = (0..100).map(|number| {
            (
                format!("n{number:02}"),
                node(NodeState::Succeeded, vec![Execution { digest: "d".into(), ..Execution::default() }]),
            )
        });
        let mut fitted = status(nodes);
        let room = measured(&fitted) - 170;
        assert!(fit(&mut fitted, others(room)).fits);
        let without: Vec<_> = fitted.nodes.iter().filter(|(_, node)| node.history.is_empty()).collect();
        assert_eq!(without.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["n97", "n98", "n99"]);
        assert_eq!(fitted.truncation.unwrap().nodes, 3);
    }

    #[test]
    fn gone_nodes_leave_first_but_never_with_a_pod() {
        let gone = |state, output: &str| NodeStatus {
            gone_time: Some(at(0)),
            ..node(state, vec![execution(1, 0, output, "")])
        };
        let mut fitted = status([
            ("active".into(), gone(NodeState::Running, "x")),
            ("large".into(), gone(NodeState::Succeeded, "xxx")),
            ("small".into(), gone(NodeState::Succeeded, "")),
            ("there".into(), node(NodeState::Succeeded, vec![execution(1, 0, "x", "")])),
        ]);
        let room = measured(&fitted) - 10;
        assert_eq!(fit(&mut fitted, others(room)).dropped, ["large"]);
        assert!(fit(&mut fitted, others(0)).dropped == ["small"] && fitted.nodes.len() == 2);
    }

    #[test]
    fn gone_nodes_expire_by_age_and_number() {
        let entry = |since: i64, state| NodeStatus { gone_time: Some(at(since)), ..node(state, vec![]) };
        let day = 24 * 3600;
        let mut kept =
            status((0..600).map(|number| (format!("n{number:03}"), entry(number, NodeState::Failed))));
        kept.nodes.insert("active".into(), entry(-day, NodeState::Running));
        kept.nodes.insert("there".into(), node(NodeState::Failed, vec![]));
        let expired = expire_gone(&mut kept, false, &at(day));
        assert_eq!((expired.len(), expired[99].as_str(), kept.nodes.len()), (100, "n099", 502));
        assert_eq!(expire_gone(&mut kept, false, &at(day + 500)).len(), 400);
        assert!(expire_gone(&mut kept, false, &at(-9)).is_empty());
    }

    #[test]
    fn what_cannot_fit_is_said() {
        let mut fitted = status([("a".into(), node(NodeState::Running, vec![execution(1, 1, "x", "x")]))]);
        let floor = bare(&fitted);
        assert!(!fit(&mut fitted, usize::MAX / 2).fits);
        assert_eq!(fitted.nodes, floor.nodes);
    }
}

fn names(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:x>length$}")).collect()
}

fn floor_holds(count: usize, length: usize, executions: Option<u64>) -> bool {
    floor_fits(names(count, length).iter().map(String::as_str), 12, executions, 4096)
}

#[test]
fn floor_is_the_promised_one() {
    assert!(floor_holds(5_000, 60, Some(1)));
    assert!(floor_holds(5_000, 20, None));
    assert!(!floor_holds(20_000, 10, Some(1)));
    assert!(!floor_holds(6_000, 20, None));
}

/// Five thousand nodes as large as tests can hold, each with a message and outputs of any bytes.
fn large(length: usize, state: NodeState, entries: u64, output: usize) -> ScriptRunnerStatus {
    let nodes = names(5_000, length).into_iter().enumerate().map(|(number, name)| {
        let flooding = number % 500 == 0;
        let (entries, output) = if flooding { (100, 4096) } else { (entries, output) };
        let text: String = "\u{240a}é<\"\\\n🦀x".chars().cycle().take(output / 2).collect();
        let exit_code = i32::from(number % 3 == 0);
        let history =
            (1..=entries).map(|serial| execution(serial + 1_000_000, exit_code, &text, &text)).collect();
        (name, NodeStatus { message: "it did not work out".into(), failures: 77, ..node(state, history) })
    });
    let group = OutputGroup {
        digest: "0".repeat(16),
        nodes: "n".repeat(1024),
        sample: "<".repeat(1024),
        ..OutputGroup::default()
    };
    ScriptRunnerStatus { output_groups: vec![group; 20], ..status(nodes) }
}

fn check_large(mut fitted: ScriptRunnerStatus) {
    let floor = bare(&fitted);
    assert!(fit(&mut fitted, 4096).fits);
    assert!(stored_bytes(&fitted) + 4096 <= MAX_OBJECT_BYTES);
    assert!(measured(&fitted) > MAX_OBJECT_BYTES * 9 / 10, "cuts more than it must: {}", measured(&fitted));
    assert_eq!(bare(&fitted).nodes, floor.nodes);
    let once = fitted.clone();
    assert!(fit(&mut fitted, 4096).fits);
    assert_eq!(fitted, once);
}

#[test]
fn five_thousand_finished_nodes_fit() {
    check_large(large(60, NodeState::Succeeded, 2, 40));
}

#[test]
fn five_thousand_endless_nodes_fit() {
    check_large(large(20, NodeState::Running, 4, 16));
}

#[test]
#[ignore = "long; run by ./test.sh faults"]
fn exhaustive_five_thousand_floods_fit() {
    check_large(large(60, NodeState::Failed, 20, 512));
    check_large(large(20, NodeState::Running, 100, 64));
}

prop_compose! {
    fn any_execution(serial: u64)(
        exit_code in 0..2_i32,
        (stdout, stderr) in ("[a<\"\n\u{241b}🦀]{0,60}", "[a&\\\\é]{0,60}"),
        (bare, digest, result) in (any::<bool>(), "[0-9a-f]{0,16}", option::of("[a<\"é]{0,60}")),
    ) -> Execution {
        let result = result.map(serde_json::Value::from);
        let mut execution = Execution { digest, result, ..execution(serial, exit_code, &stdout, &stderr) };
        if bare {
            (execution.start_time, execution.duration_millis, execution.stderr_bytes) = (None, None, None);
        }
        execution
    }
}

fn any_history() -> impl Strategy<Value = Vec<Execution>> {
    (0..7_u64).prop_flat_map(|count| (1..=count).map(any_execution).collect::<Vec<_>>())
}

prop_compose! {
    fn any_node()(
        state in 0..NodeState::ALL.len(),
        history in any_history(),
        message in "[a-z\"<]{0,40}",
        (seq, signal) in (any::<u64>(), option::of(1..64)),
        gone in 0..6,
    ) -> NodeStatus {
        let mut node = node(NodeState::ALL[state], history);
        node.seq = node.seq.map(|_| seq);
        node.gone_time = (gone == 0).then(|| at(0));
        NodeStatus { message, signal, ..node }
    }
}

prop_compose! {
    fn any_status()(
        nodes in proptest::collection::btree_map("[a-z]{1,3}|node-[0-9]{1,40}", any_node(), 0..12),
        samples in vec("[a<é]{0,50}", 0..4),
        stored in option::of((0..4_u32, 0..4000_u64)),
    ) -> ScriptRunnerStatus {
        let group = |sample| OutputGroup { sample, nodes: "a,b".into(), ..OutputGroup::default() };
        ScriptRunnerStatus {
            output_groups: samples.into_iter().map(group).collect(),
            truncation: stored.map(|(nodes, bytes)| Truncation { nodes, bytes }),
            ..status(nodes)
        }
    }
}

/// A room between the floor, or less, and all that the status takes.
fn room(status: &ScriptRunnerStatus, place: Index) -> usize {
    let floor = measured(&bare(status)).saturating_sub(40);
    floor + place.index(measured(status) - floor + 20)
}

/// The status as computed anew from its stored form, while some runners still hold all they had.
fn reported_again(stored: &ScriptRunnerStatus, all: &ScriptRunnerStatus, who: u32) -> ScriptRunnerStatus {
    let mut again = ScriptRunnerStatus { output_groups: all.output_groups.clone(), ..stored.clone() };
    for (position, (name, node)) in again.nodes.iter_mut().enumerate() {
        if (who >> (position % 32)) & 1 == 1 {
            let known = &all.nodes[name];
            node.history = merge_history(&node.history, &known.history, 100);
            (node.reason, node.message) = (known.reason.clone(), known.message.clone());
        }
    }
    again
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn fitted_status_fits_and_keeps_its_floor(all in any_status(), place in any::<Index>()) {
        let room = room(&all, place);
        let mut fitted = all.clone();
        let Fitted { dropped, fits, answers } = fit(&mut fitted, others(room));
        prop_assert_eq!(fits, measured(&bare(&all)) <= room);
        prop_assert_eq!(fits, measured(&fitted) <= room);
        prop_assert!(!fits || stored_bytes(&fitted) + others(room) <= MAX_OBJECT_BYTES);
        prop_assert_eq!(bare(&fitted).nodes, bare(&all).nodes);
        for (name, node) in &fitted.nodes {
            let lost = answer_to_keep(&all.nodes[name]).filter(|_| node.history.is_empty());
            prop_assert_eq!(answers.get(name), lost.as_ref());
        }
        prop_assert!(dropped.iter().all(|name| is_droppable(&all.nodes[name]) && !fitted.nodes.contains_key(name)));
        prop_assert_eq!(dropped.len() + fitted.nodes.len(), all.nodes.len());
        let mut again = fitted.clone();
        prop_assert_eq!(fit(&mut again, others(room)).fits, fits);
        prop_assert_eq!(again, fitted);
    }

    #[test]
    fn truncation_says_what_was_lost(all in any_status(), place in any::<Index>()) {
        let room = room(&all, place);
        let mut fitted = ScriptRunnerStatus { truncation: None, ..all.clone() };
        let _ = fit(&mut fitted, others(room));
        let lost = measured(&all) - measured(&fitted);
        prop_assert_eq!(fitted.truncation.as_ref().map_or(0, |cut| cut.bytes), lost as u64);
        prop_assert!(lost > 0 || measured(&all) <= room || open_steps(&all).is_empty());
        prop_assert!(lost == 0 || measured(&all) > room);
        let cut = all.nodes.iter().filter(|(name, node)| fitted.nodes.get(*name) != Some(node)).count();
        prop_assert_eq!(fitted.truncation.map_or(0, |cut| cut.nodes) as usize, cut);
    }

    #[test]
    fn later_steps_wait_for_the_earlier_ones(all in any_status(), place in any::<Index>()) {
        let mut fitted = all.clone();
        let _ = fit(&mut fitted, others(room(&all, place)));
        let Some(first_open) = open_steps(&fitted).first().copied() else { return Ok(()) };
        for (name, node) in &fitted.nodes {
            let before = &all.nodes[name];
            let bytes = |step, node| pieces(step, node).iter().map(|piece| piece.bytes).collect::<Vec<_>>();
            for step in Step::ALL.into_iter().filter(|step| *step > first_open) {
                // These measure whole entries, which earlier steps made smaller.
                let is_shared =
                    matches!(step, Step::OldEntries | Step::SuccessHistories | Step::FailureHistories);
                prop_assert!(is_shared || bytes(step, node) == bytes(step, before), "{name} at {step:?}");
            }
            prop_assert!(first_open >= Step::OldEntries || node.history.len() == before.history.len());
            prop_assert!(
                first_open >= Step::SuccessHistories || node.history.is_empty() == before.history.is_empty()
            );
            let newest = |node: &NodeStatus| node.history.last().map(Execution::key);
            prop_assert!(node.history.is_empty() || newest(node) == newest(before));
        }
    }

    #[test]
    fn outputs_keep_their_ends(all in any_status(), place in any::<Index>()) {
        let mut fitted = all.clone();
        let _ = fit(&mut fitted, others(room(&all, place)));
        for (name, node) in &fitted.nodes {
            prop_assert!(all.nodes[name].message.starts_with(&node.message));
            for kept in &node.history {
                let old = all.nodes[name].history.iter().find(|old| old.key() == kept.key()).unwrap();
                prop_assert!(old.stdout.ends_with(&kept.stdout) && old.stderr.ends_with(&kept.stderr));
                prop_assert_eq!((&kept.digest, kept.exit_code), (&old.digest, old.exit_code));
                let is_newest = node.history.last() == Some(kept);
                prop_assert!(kept.result == old.result || kept.result.is_none() && kept.output_bytes() == 0);
                prop_assert!(!is_newest || kept.digest_of_result() == old.digest_of_result());
            }
        }
    }

    #[test]
    fn accounts_agree_with_the_status(all in any_status(), place in any::<Index>()) {
        let mut fitted = all.clone();
        let mut budget = Budget::measure(&fitted, room(&all, place));
        for step in Step::ALL {
            if budget.excess() > 0 {
                budget.take(&mut fitted, step);
            }
            prop_assert_eq!(budget.total(), measured(&fitted), "after {:?}", step);
        }
        let mut plain = fitted.clone();
        plain.truncation = None;
        let stored = stored_bytes(&plain);
        prop_assert!((stored..=stored + NODES_FRAME_BYTES).contains(&measured(&fitted)));
    }

    #[test]
    fn same_facts_give_the_same_status(all in any_status(), place in any::<Index>(), who in any::<u32>()) {
        let other_bytes = others(room(&all, place));
        let fitted = |mut status: ScriptRunnerStatus| {
            let _ = fit(&mut status, other_bytes);
            status
        };
        let stored = fitted(all.clone());
        prop_assert_eq!(&fitted(all.clone()), &stored);
        prop_assert_eq!(&fitted(reported_again(&stored, &all, u32::MAX)), &stored);
        // When some runners are gone, what these cannot say again leaves room for the others, once.
        let second = fitted(reported_again(&stored, &all, who));
        prop_assert_eq!(&fitted(reported_again(&second, &all, who)), &second);
    }
}
