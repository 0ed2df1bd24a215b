//! The operator is killed again and again in the middle of runs: no execution is lost, none happens twice.
//!
//! The truth is a ledger on each node's own disk, written by the script itself.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use serde_json::json;

use crate::{
    answer::{entry, holds_now, run_number},
    ledger::Ledger,
    operator, processes,
    stage::{PRIVILEGED, Stage, alone},
    submitted::Submitted,
};

const REPEATS: u64 = 10;
const HISTORY_LIMIT: usize = 20;

/// A step of splitmix64: the same seed gives the same pauses.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn seed() -> u64 {
    let given = std::env::var("SCRIPTRUNNER_TEST_SEED").ok().map(|text| text.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = given.unwrap_or(now);
    eprintln!("SCRIPTRUNNER_TEST_SEED={seed}");
    seed
}

async fn submit(stage: &Stage, ledger: &Ledger) -> Submitted {
    let fields = json!({"nodeLabelSelector": {}, "parallelism": 2, "executionDeadlineSeconds": 60,
        "historyLimit": HISTORY_LIMIT, "repeat": {"count": REPEATS, "periodSeconds": 1}});
    stage.submit("subject", ledger.spec("", &fields)).await
}

async fn kill_the_operator(stage: &Stage, times: u64) {
    let mut random = seed();
    let ledger = Ledger::of(stage, "subject");
    let subject = submit(stage, &ledger).await;
    for kill in 1..=times {
        operator::leader(&stage.client).await;
        let object = subject.get().await;
        if holds_now(&object, ConditionType::Complete) {
            subject.edit(json!({"spec": {"args": [kill.to_string()]}})).await;
        }
        // Not a wait for anything: the moment of the kill is what the test varies.
        let pause = Duration::from_millis(next_random(&mut random) % 4000);
        tokio::time::sleep(pause).await;
        if kill % 2 == 1 {
            processes::kill(processes::find_one(&stage.cluster, operator::PROGRAM, "").await);
        } else {
            operator::delete_pods(&stage.client).await;
        }
    }
    operator::leader(&stage.client).await;
    let object = subject.until_complete().await;
    for node in stage.cluster.node_names() {
        assert_accounted(&ledger, &object, &node);
    }
}

/// Whether everything that the node's own ledger has stands in the status, and nothing else.
fn assert_accounted(ledger: &Ledger, object: &ScriptRunner, node: &str) {
    let lines: Vec<_> = ledger.executions(node).into_iter().map(|(run, _, serial)| (run, serial)).collect();
    let expected: BTreeSet<_> =
        (1..=run_number(object)).flat_map(|run| (1..=REPEATS).map(move |serial| (run, serial))).collect();
    assert_eq!(lines, expected.iter().copied().collect::<Vec<_>>(), "{node}: each execution once, in order");
    let entry = entry(object, node);
    assert_eq!((entry.executions, entry.failures, entry.attempts), (lines.len() as u64, 0, 1), "{node}");
    let kept: Vec<_> = entry.history.iter().map(|execution| (execution.run, execution.serial)).collect();
    let newest = &lines[lines.len().saturating_sub(HISTORY_LIMIT)..];
    assert_eq!(kept, newest, "{node}: what is kept is the newest");
}

#[tokio::test]
async fn five_kills_lose_nothing_and_repeat_nothing() {
    alone("operator_killed::five", PRIVILEGED, async |stage| kill_the_operator(&stage, 5).await).await;
}

#[tokio::test]
#[ignore = "long; run by ./test.sh faults"]
async fn twenty_kills_lose_nothing_and_repeat_nothing() {
    alone("operator_killed::twenty", PRIVILEGED, async |stage| kill_the_operator(&stage, 20).await).await;
}
