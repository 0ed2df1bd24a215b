//! Tests of what is written soon and what may wait.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use scriptrunner_api::{
    condition::{ConditionType, Verdict, set_condition},
    reason::ConditionReason,
};

use super::*;

fn status(change: impl FnOnce(&mut NodeStatus)) -> ScriptRunnerStatus {
    let execution = Execution { run: 1, attempt: 1, serial: 1, exit_code: Some(0), ..Execution::default() };
    let mut entry = NodeStatus {
        state: "Running".into(),
        run: 1,
        attempts: 1,
        executions: 1,
        serial: 1,
        seq: Some(3),
        pod_id: Some("pod".into()),
        history: vec![execution],
        ..NodeStatus::default()
    };
    change(&mut entry);
    ScriptRunnerStatus { nodes: [("n1".to_owned(), entry)].into(), ..ScriptRunnerStatus::default() }
}

fn of(change: impl FnOnce(&mut NodeStatus)) -> Urgency {
    urgency(Some(&status(|_| {})), &status(change))
}

#[test]
fn an_execution_that_only_began_may_wait() {
    assert_eq!(of(|_| {}), Urgency::State);
    assert_eq!(of(|entry| (entry.executions, entry.serial, entry.seq) = (2, 2, Some(4))), Urgency::State);
    assert_eq!(of(|entry| entry.state = "Starting".into()), Urgency::State);
    let connected = ScriptRunnerStatus { connected: 1, ..status(|_| {}) };
    assert_eq!(urgency(Some(&status(|_| {})), &connected), Urgency::State);
}

#[test]
fn results_ends_and_pods_are_written_at_once() {
    let grown = |entry: &mut NodeStatus| {
        entry.history.push(Execution { serial: 2, ..entry.history[0].clone() });
    };
    let recovered = |entry: &mut NodeStatus| {
        entry.history.insert(0, Execution { serial: 0, ..entry.history[0].clone() });
    };
    assert_eq!([of(grown), of(recovered)], [Urgency::Result; 2]);
    assert_eq!(of(|entry| entry.state = "Succeeded".into()), Urgency::Result);
    assert_eq!(of(|entry| entry.pod_id = None), Urgency::Result);
    assert_eq!(of(|entry| entry.run = 2), Urgency::Result);
    let failing = ScriptRunnerStatus { failing: 1, ..status(|_| {}) };
    assert_eq!(urgency(Some(&status(|_| {})), &failing), Urgency::Result);
    assert_eq!(urgency(None, &failing), Urgency::Result);
}

#[test]
fn a_condition_that_only_words_it_otherwise_may_wait() {
    let says = |holds, message: &str| {
        let mut status = status(|_| {});
        let reason = ConditionReason::Outliers;
        let verdict =
            Verdict { type_: ConditionType::Consistent, holds, reason, message: message.to_owned() };
        set_condition(&mut status.conditions, &verdict, Some(1), &Time(Timestamp::UNIX_EPOCH));
        status
    };
    let old = says(Some(false), "2 of 3 nodes agree");
    assert_eq!(urgency(Some(&old), &says(Some(false), "3 of 4 nodes agree")), Urgency::State);
    assert_eq!(urgency(Some(&old), &says(Some(true), "")), Urgency::Result);
}
