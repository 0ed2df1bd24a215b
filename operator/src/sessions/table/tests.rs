//! Which connection counts, and what is kept for how long.

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::{labels::PROTOCOL, session::ToRunner, snapshot::Record};

use super::*;
use crate::sessions::{
    line::{Next, order_of},
    tests::speaker,
};

fn line(id: u64, pod: &str) -> Arc<Line> {
    Arc::new(Line::new(id, Arc::new(speaker(pod)), Timestamp::MIN))
}

fn seated(table: &mut Table, id: u64, pod: &str) -> Arc<Line> {
    let line = line(id, pod);
    table.admit(Arc::clone(&line));
    assert!(table.seat(&line));
    line
}

fn part(seq: u64, output: usize) -> SnapshotPart {
    let execution =
        Execution { run: 1, attempt: 1, serial: seq, stdout: "x".repeat(output), ..Execution::default() };
    let record = Record {
        protocol: PROTOCOL,
        boot: "b".to_owned(),
        run: 1,
        attempt: 1,
        seq,
        state: "Running".to_owned(),
        reason: String::new(),
        message: String::new(),
        executions: 1,
        failures: 0,
        serial: seq,
        handed_over: false,
        exit_code: None,
        signal: None,
    };
    SnapshotPart { record, history: vec![execution], more: false }
}

fn ack(seq: u64) -> Ack {
    Ack { boot: "b".to_owned(), seq }
}

/// What is to be done on a connection now.
fn next(line: &Line) -> Option<Next> {
    futures::FutureExt::now_or_never(line.next())
}

fn seq(table: &Table, pod: &str) -> Option<u64> {
    Some(table.facts(pod)?.snapshot?.record.seq)
}

#[test]
fn newest_connection_speaks_for_its_pod() {
    let mut table = Table::default();
    let older = seated(&mut table, 1, "pod");
    assert_eq!(table.bring(&older, part(1, 1)), Ok(true));
    let newer = line(2, "pod");
    table.admit(Arc::clone(&newer));
    assert_eq!(next(&older), None, "one that says nothing ends no session");
    assert_eq!(table.bring(&newer, part(9, 1)), Ok(false), "and does not speak yet");
    assert!(table.seat(&newer));
    assert_eq!(next(&older), Some(Next::End(End::Replaced)));
    assert_eq!(table.bring(&older, part(2, 1)), Ok(false), "what it still says is not heard");
    assert_eq!(table.bring(&newer, part(3, 1)), Ok(true));
    assert_eq!((seq(&table, "pod"), table.connected()), (Some(3), 1));
    assert!(!table.leave(&older, Timestamp::MIN), "its end changes nothing");
    assert!(table.facts("pod").unwrap().connected);
    assert!(table.leave(&newer, Timestamp::MIN));
    assert_eq!((table.facts("pod").unwrap().connected, table.connected()), (false, 0));
    assert_eq!(seq(&table, "pod"), Some(3), "what was brought stays until it is stored");
}

#[test]
fn of_those_that_have_not_said_hello_the_newest_waits() {
    let mut table = Table::default();
    let (older, newer) = (line(1, "pod"), line(2, "pod"));
    table.admit(Arc::clone(&older));
    table.admit(Arc::clone(&newer));
    assert_eq!(next(&older), Some(Next::End(End::Replaced)));
    assert!(!table.seat(&older));
    assert!(table.seat(&newer));
    assert!(!table.seat(&newer), "once");
    assert_eq!(table.lines().count(), 1);
}

#[test]
fn connection_that_only_waited_leaves_nothing() {
    let mut table = Table::default();
    let waiting = line(1, "pod");
    table.admit(Arc::clone(&waiting));
    assert!(!table.leave(&waiting, Timestamp::MIN));
    assert_eq!((table.facts("pod"), table.lines().count()), (None, 0));
}

#[test]
fn runner_is_told_what_is_stored_and_told_again_when_it_asks() {
    let mut table = Table::default();
    let first = seated(&mut table, 1, "pod");
    table.bring(&first, part(4, 1)).unwrap();
    table.ack("pod", &ack(4));
    assert_eq!(next(&first), Some(Next::Say(ToRunner::Ack(ack(4)).encode())));
    table.ack("pod", &ack(4));
    assert_eq!(next(&first), None);
    let second = seated(&mut table, 2, "pod");
    assert_eq!(table.bring(&second, part(4, 1)), Ok(false));
    assert_eq!(next(&second), Some(Next::Say(ToRunner::Ack(ack(4)).encode())));
    assert_eq!(table.facts("pod").unwrap().snapshot.unwrap().history, []);
}

#[test]
fn snapshot_that_is_too_far_is_heard_once_the_status_was_read() {
    let mut table = Table::default();
    let line = seated(&mut table, 1, "pod");
    let far = 3_000_000;
    assert_eq!(table.bring(&line, part(far, 1)).unwrap_err().word, "ahead");
    table.know("pod", far - 10, far - 10);
    assert_eq!(table.bring(&line, part(far, 1)), Ok(true));
}

#[test]
fn stored_outcome_ends_the_session_after_its_acknowledgement() {
    let mut table = Table::default();
    let session = seated(&mut table, 1, "pod");
    table.bring(&session, part(1, 1)).unwrap();
    table.ack("pod", &ack(1));
    table.mark_stored("pod");
    table.mark_stored("pod");
    assert!(table.is_stored("pod") && !table.is_stored("other"));
    assert!(matches!(next(&session), Some(Next::Say(_))));
    let Some(Next::End(End::Refused(refusal))) = next(&session) else { panic!("it ends") };
    assert_eq!((refusal.word, refusal.code.as_u16()), ("stored", 410));
    let late = line(2, "pod");
    table.admit(Arc::clone(&late));
    assert!(!table.seat(&late), "it was let in before, and says hello after that");
    table.know("pod", 1, 1);
    assert!(!table.is_stored("pod"), "the status says that it goes on");
}

#[test]
fn nobody_takes_more_than_a_fair_share_when_memory_is_short() {
    let mut table = Table::default();
    let greedy: Vec<_> =
        (0..200).map(|number| seated(&mut table, number, &format!("greedy{number}"))).collect();
    let mut refused = 0;
    'flood: for seq in 1..100 {
        for line in &greedy {
            if table.bring(line, part(seq, 60_000)).is_err_and(|refusal| refusal.word == "full") {
                refused += 1;
                if refused == 200 {
                    break 'flood;
                }
            }
        }
    }
    assert_eq!(refused, 200);
    assert!(table.bytes < MOST_BYTES + 200 * 61_000, "{}", table.bytes);
    let honest = seated(&mut table, 1000, "honest");
    assert!(table.bytes + 60_000 > MOST_BYTES);
    assert_eq!(table.bring(&honest, part(1, 60_000)), Ok(true), "who has brought little is heard");
    for line in &greedy {
        table.ack(&line.speaker().pod_uid, &ack(100));
    }
    assert_eq!(table.bring(&greedy[0], part(101, 60_000)), Ok(true), "once it is stored there is room");
}

#[test]
fn sum_of_bytes_follows_what_is_kept() {
    let mut table = Table::default();
    let (a, b) = (seated(&mut table, 1, "a"), seated(&mut table, 2, "b"));
    let mut half = part(1, 5_000);
    half.more = true;
    table.bring(&a, half).unwrap();
    table.bring(&b, part(1, 7_000)).unwrap();
    assert!(table.bytes > 12_000);
    table.leave(&a, Timestamp::MIN);
    assert!(table.bytes > 7_000 && table.bytes < 8_000, "{}", table.bytes);
    table.forget("b");
    assert_eq!((table.bytes, table.connected()), (0, 0));
    let Some(Next::End(End::Refused(refusal))) = next(&b) else { panic!("its session ends") };
    assert_eq!(refusal.word, "pod_gone");
    assert!(!table.leave(&b, Timestamp::MIN));
}

#[test]
fn pods_that_no_watch_knows_are_forgotten_after_a_while() {
    let mut table = Table::default();
    let line = seated(&mut table, 1, "gone");
    table.bring(&line, part(1, 10)).unwrap();
    table.leave(&line, Timestamp::MIN);
    table.mark_stored("gone");
    let start = Instant::now();
    table.forget_missing(start, |_| true);
    assert!(table.is_stored("gone"));
    table.forget_missing(start, |_| false);
    assert!(!table.is_stored("gone") && table.facts("gone").is_some(), "its last words may still be wanted");
    table.forget_missing(start + KEPT / 2, |_| true);
    table.forget_missing(start + KEPT, |_| false);
    assert!(table.facts("gone").is_some(), "it was known meanwhile");
    table.forget_missing(start + KEPT * 2, |_| false);
    assert_eq!((table.facts("gone"), table.bytes), (None, 0));
}

#[test]
fn order_is_said_once_on_a_connection_and_again_on_the_next() {
    let mut table = Table::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    assert!(table.line_to_order("pod", 2, at(1)).is_none(), "nobody is there");
    let older = seated(&mut table, 1, "pod");
    let said = |line: &Line| match next(line) {
        Some(Next::Say(message)) => matches!(ToRunner::decode(&message), Ok(ToRunner::Run(_))),
        Some(Next::Ping | Next::End(_)) | None => false,
    };
    table.line_to_order("pod", 2, at(1)).unwrap().order(order_of(2));
    assert!(said(&older));
    for run in [2, 1] {
        table.line_to_order("pod", run, at(5)).unwrap().order(order_of(run));
        assert_eq!(next(&older), None, "it lasts, so it was heard");
    }
    let facts = table.facts("pod").unwrap();
    assert_eq!((facts.connected, facts.left, facts.ordered), (true, None, Some((2, at(1)))));
    table.leave(&older, at(6));
    let facts = table.facts("pod").unwrap();
    assert_eq!((facts.connected, facts.left), (false, Some(at(6))));
    assert!(table.line_to_order("pod", 2, at(7)).is_none());
    let newer = seated(&mut table, 2, "pod");
    table.line_to_order("pod", 2, at(8)).unwrap().order(order_of(2));
    assert!(said(&newer), "the older connection may have lost it");
    table.line_to_order("pod", 3, at(9)).unwrap().order(order_of(3));
    assert!(said(&newer));
    assert_eq!(table.facts("pod").unwrap().ordered, Some((3, at(9))));
}
