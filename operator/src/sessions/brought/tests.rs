//! Snapshots in every order, doubled, replayed, cut and forged.

use scriptrunner_api::labels::PROTOCOL;

use super::*;

fn record(boot: &str, seq: u64, serial: u64) -> Record {
    Record {
        protocol: PROTOCOL,
        boot: boot.to_owned(),
        run: 1,
        attempt: 1,
        seq,
        state: "Running".to_owned(),
        reason: String::new(),
        message: String::new(),
        executions: serial,
        failures: 0,
        serial,
        handed_over: false,
        exit_code: Some(0),
        signal: None,
    }
}

fn execution(serial: u64) -> Execution {
    Execution { run: 1, attempt: 1, serial, stdout: format!("answer {serial}"), ..Execution::default() }
}

fn part(seq: u64, serials: &[u64]) -> SnapshotPart {
    let serial = serials.iter().copied().max().unwrap_or(seq);
    SnapshotPart {
        record: record("b1", seq, serial),
        history: serials.iter().copied().map(execution).collect(),
        more: false,
    }
}

fn begun(seq: u64, serials: &[u64], serial: u64) -> SnapshotPart {
    SnapshotPart { record: record("b1", seq, serial), more: true, ..part(seq, serials) }
}

fn ack(seq: u64) -> Ack {
    Ack { boot: "b1".to_owned(), seq }
}

fn serials(brought: &Brought) -> Vec<u64> {
    let history = brought.snapshot().map(|snapshot| snapshot.history.clone()).unwrap_or_default();
    history.iter().map(|execution| execution.serial).collect()
}

fn seq(brought: &Brought) -> u64 {
    brought.snapshot().unwrap().record.seq
}

#[test]
fn executions_gather_until_they_are_stored() {
    let mut brought = Brought::default();
    assert_eq!(brought.take_in(1, part(1, &[1])), Ok(Taken::News));
    assert_eq!(brought.take_in(1, part(2, &[1, 2])), Ok(Taken::News));
    assert_eq!(serials(&brought), [1, 2]);
    brought.ack(&ack(1));
    assert_eq!(serials(&brought), [2], "what a newer snapshot brought is not stored yet");
    brought.ack(&ack(2));
    assert_eq!(serials(&brought), [0_u64; 0]);
    assert_eq!(seq(&brought), 2, "how the runner stands is still known");
    assert_eq!(brought.take_in(1, part(3, &[3])), Ok(Taken::News));
    assert_eq!(serials(&brought), [3]);
}

#[test]
fn repetitions_and_old_snapshots_change_nothing() {
    let mut brought = Brought::default();
    brought.take_in(1, part(5, &[4, 5])).unwrap();
    assert_eq!(brought.take_in(1, part(5, &[4, 5])), Ok(Taken::Nothing));
    assert_eq!(brought.take_in(2, part(5, &[4, 5])), Ok(Taken::Nothing), "after a reconnect");
    assert_eq!(brought.take_in(1, part(4, &[3, 4])), Err(Refused::Old));
    assert_eq!((seq(&brought), serials(&brought)), (5, vec![4, 5]));
}

#[test]
fn what_is_stored_is_acknowledged_again_at_once() {
    let mut brought = Brought::default();
    brought.take_in(1, part(5, &[5])).unwrap();
    brought.ack(&ack(5));
    assert_eq!(brought.take_in(2, part(5, &[5])), Ok(Taken::Stored(ack(5))));
    assert_eq!(serials(&brought), [0_u64; 0], "it does not come back");
    let mut half = part(5, &[5]);
    half.more = true;
    assert_eq!(brought.take_in(2, half), Ok(Taken::Nothing), "once is enough");
    assert_eq!(brought.take_in(2, part(6, &[5, 6])), Ok(Taken::News), "sent before the answer arrived");
    brought.ack(&ack(6));
    assert_eq!(serials(&brought), [0_u64; 0]);
}

#[test]
fn acknowledgements_of_other_starts_mean_nothing() {
    let mut brought = Brought::default();
    brought.take_in(1, part(5, &[5])).unwrap();
    brought.ack(&Ack { boot: "other".to_owned(), seq: 9 });
    assert_eq!(serials(&brought), [5]);
    brought.ack(&ack(4));
    assert_eq!(serials(&brought), [5]);
}

#[test]
fn another_start_counts_anew_and_keeps_what_is_not_stored() {
    let mut brought = Brought::default();
    brought.take_in(1, part(70, &[5])).unwrap();
    brought.ack(&ack(60));
    let mut restarted = part(1, &[]);
    restarted.record = Record { state: "Unknown".to_owned(), ..record("b2", 1, 0) };
    assert_eq!(brought.take_in(2, restarted), Ok(Taken::News));
    assert_eq!((seq(&brought), serials(&brought)), (1, vec![5]));
    brought.ack(&Ack { boot: "b2".to_owned(), seq: 1 });
    assert_eq!(serials(&brought), [0_u64; 0]);
}

#[test]
fn parts_count_when_the_last_has_come() {
    let mut brought = Brought::default();
    brought.take_in(1, part(1, &[1])).unwrap();
    assert_eq!(brought.take_in(1, begun(2, &[2, 3], 5)), Ok(Taken::Nothing));
    assert_eq!((seq(&brought), serials(&brought)), (1, vec![1]), "half a snapshot is none");
    assert!(brought.bytes() > Brought::default().bytes());
    assert_eq!(brought.take_in(1, begun(2, &[4], 5)), Ok(Taken::Nothing));
    assert_eq!(brought.take_in(1, part(2, &[5])), Ok(Taken::News));
    assert_eq!((seq(&brought), serials(&brought)), (2, vec![1, 2, 3, 4, 5]));
}

#[test]
fn parts_cut_in_the_middle_are_dropped_and_come_again_whole() {
    let mut brought = Brought::default();
    brought.take_in(1, begun(2, &[1, 2], 3)).unwrap();
    let bytes = brought.bytes();
    brought.abandon(7);
    assert_eq!(brought.bytes(), bytes, "of another connection");
    brought.abandon(1);
    assert_eq!((brought.bytes(), brought.snapshot()), (0, None));
    // The last part alone, over another connection: it is a snapshot of its own.
    brought.take_in(1, begun(2, &[1], 3)).unwrap();
    brought.take_in(2, part(2, &[3])).unwrap();
    assert_eq!(serials(&brought), [3]);
    for piece in [begun(2, &[1], 3), begun(2, &[2], 3), part(2, &[3])] {
        brought.take_in(3, piece).unwrap();
    }
    assert_eq!(serials(&brought), [1, 2, 3]);
}

#[test]
fn newer_snapshot_drops_what_an_older_one_began() {
    let mut brought = Brought::default();
    brought.take_in(1, begun(2, &[1], 1)).unwrap();
    brought.take_in(1, part(3, &[2])).unwrap();
    assert_eq!(serials(&brought), [2]);
    assert_eq!(brought.take_in(1, part(2, &[])), Err(Refused::Old));
}

#[test]
fn numbers_cannot_jump() {
    let mut brought = Brought::default();
    let far =
        |seq, serial| SnapshotPart { record: record("b1", seq, serial), history: Vec::new(), more: false };
    assert_eq!(brought.take_in(1, far(MAX_STEP + 1, 1)), Err(Refused::Ahead));
    assert_eq!(brought.take_in(1, far(1, MAX_STEP + 1)), Err(Refused::Ahead));
    assert_eq!(brought.take_in(1, far(u64::MAX, u64::MAX)), Err(Refused::Ahead));
    assert_eq!(brought.snapshot(), None);
    brought.know(5, 3);
    assert_eq!(brought.take_in(1, far(MAX_STEP + 5, MAX_STEP + 3)), Ok(Taken::News));
    assert_eq!(brought.take_in(1, far(MAX_STEP * 2 + 6, 1)), Err(Refused::Ahead));
    brought.know(1, 1);
    assert_eq!(brought.take_in(1, far(MAX_STEP * 2 + 5, 1)), Ok(Taken::News), "known is not forgotten");
    brought.know(u64::MAX, u64::MAX);
    assert_eq!(brought.take_in(1, far(u64::MAX, u64::MAX)), Ok(Taken::News), "and nothing overflows");
}

#[test]
fn numbers_that_contradict_each_other_are_put_right() {
    let mut brought = Brought::default();
    let mut forged = part(3, &[1, 2, 9]);
    forged.record.serial = 2;
    forged.record.executions = u64::MAX;
    forged.record.failures = u64::MAX;
    brought.take_in(1, forged).unwrap();
    let record = &brought.snapshot().unwrap().record;
    assert_eq!((record.executions, record.failures), (3, 3));
    assert_eq!(serials(&brought), [1, 2]);
}

#[test]
fn memory_is_bounded_and_the_oldest_outputs_go_first() {
    let mut brought = Brought::default();
    for seq in 1..=400 {
        let mut part = part(seq, &[seq]);
        part.history[0].stdout = "x".repeat(60_000);
        brought.take_in(1, part).unwrap();
        assert!(brought.bytes() <= MOST_BYTES + 1000, "{}", brought.bytes());
    }
    let history = &brought.snapshot().unwrap().history;
    assert_eq!((history.len(), history[0].serial, history[99].serial), (MOST_EXECUTIONS, 301, 400));
    assert_eq!((history[0].stdout.len(), history[99].stdout.len()), (0, 60_000));
    // And so is what has begun.
    let mut brought = Brought::default();
    for serial in 1..=400 {
        let mut part = begun(1, &[serial], 400);
        part.history[0].stderr = "x".repeat(60_000);
        brought.take_in(1, part).unwrap();
        assert!(brought.bytes() <= MOST_BYTES + 1000, "{}", brought.bytes());
    }
}

#[test]
fn order_of_connections_does_not_matter_for_what_is_kept() {
    // Every order of three snapshots, the older ones refused or not: the newest is there, and nothing that is not stored
    // is lost, because each carries what was not acknowledged.
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    for order in orders {
        let mut brought = Brought::default();
        for seq in order {
            let serials: Vec<u64> = (1..=seq).collect();
            let _ = brought.take_in(seq, part(seq, &serials));
        }
        assert_eq!((seq(&brought), serials(&brought)), (3, vec![1, 2, 3]), "{order:?}");
    }
}
