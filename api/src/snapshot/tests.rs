//! Tests of the termination message's form.

use super::*;
use proptest::prelude::*;

fn record() -> Record {
    Record {
        protocol: PROTOCOL,
        boot: "abcd".into(),
        run: 3,
        attempt: 1,
        seq: 7,
        state: "Succeeded".into(),
        reason: String::new(),
        message: String::new(),
        executions: 5,
        failures: 0,
        serial: 5,
        handed_over: false,
        exit_code: Some(0),
        signal: None,
    }
}

fn execution(serial: u64, exit_code: i32, stdout: &str, stderr: &str) -> Execution {
    Execution {
        run: 3,
        attempt: 1,
        serial,
        start_time: Some(Time(Timestamp::from_second(1_800_000_000).unwrap())),
        duration_millis: Some(12),
        exit_code: Some(exit_code),
        reason: if exit_code == 0 { String::new() } else { "ScriptFailed".into() },
        stdout: stdout.into(),
        stderr: stderr.into(),
        stdout_bytes: Some(stdout.len() as u64),
        stderr_bytes: Some(stderr.len() as u64),
        digest: "0123456789abcdef".into(),
        ..Execution::default()
    }
}

#[test]
fn small_snapshot_round_trips() {
    let snapshot =
        Snapshot { record: record(), history: vec![execution(4, 1, "a\n", "é"), execution(5, 0, "b", "")] };
    assert_eq!(Snapshot::decode(&snapshot.encode(MAX_MESSAGE_BYTES)).unwrap(), snapshot);
}

#[test]
fn exit_codes_that_are_excused_give_way_to_failures() {
    let excused = |serial| {
        let reason = if serial % 2 == 0 { "ExitCodeSucceeds" } else { "ExitCodeSkips" }.to_owned();
        Execution { reason, ..execution(serial, 3, "", "") }
    };
    let mut history: Vec<Execution> = (1..=100).map(excused).collect();
    history[0] = execution(1, 3, "", "");
    let back = Snapshot::decode(&Snapshot { record: record(), history }.encode(MAX_MESSAGE_BYTES)).unwrap();
    assert!(back.history.len() < 100, "not all of them fit");
    assert!((back.history[0].serial, back.history[0].failed()) == (1, true), "the failure stays");
    assert!(back.history[1..].iter().all(|execution| !execution.failed()));
}

#[test]
fn large_output_keeps_the_newest_and_the_ends() {
    let history = (1..=100).map(|serial| execution(serial, 0, &"x\n".repeat(4000), "")).collect();
    let message = Snapshot { record: record(), history }.encode(MAX_MESSAGE_BYTES);
    assert!(message.len() <= MAX_MESSAGE_BYTES, "{}", message.len());
    let back = Snapshot::decode(&message).unwrap();
    assert_eq!(back.history.last().unwrap().serial, 100);
    assert!(back.history.len() > 20, "{}", back.history.len());
    assert!(back.history.last().unwrap().stdout.ends_with("x\n"));
    assert_eq!(back.history.last().unwrap().stdout_bytes, Some(8000));
}

#[test]
fn failures_come_before_older_successes() {
    let mut history: Vec<_> = (1..=60).map(|serial| execution(serial, 0, "ok", "")).collect();
    history[2] = execution(3, 1, "", "why");
    let back = Snapshot::decode(&Snapshot { record: record(), history }.encode(MAX_MESSAGE_BYTES)).unwrap();
    assert!(back.history.iter().any(|execution| execution.serial == 3 && execution.stderr == "why"));
    assert!(back.history.len() < 60);
}

#[test]
fn damaged_lines_are_dropped_and_a_damaged_record_is_an_error() {
    let snapshot =
        Snapshot { record: record(), history: vec![execution(4, 0, "a", ""), execution(5, 0, "b", "")] };
    let message = snapshot.encode(MAX_MESSAGE_BYTES);
    let cut = &message[..message.len() - 3];
    assert_eq!(Snapshot::decode(cut).unwrap().history.len(), 1);
    assert_eq!(Snapshot::decode(&message[1..]), Err(Error::ReadRecord));
    assert_eq!(Snapshot::decode(""), Err(Error::ReadRecord));
    let mut other = record();
    other.protocol = 9;
    let message = Snapshot { record: other, history: vec![] }.encode(MAX_MESSAGE_BYTES);
    assert_eq!(Snapshot::decode(&message), Err(Error::MatchProtocol { found: 9 }));
}

#[test]
fn text_of_a_stranger_is_made_harmless() {
    let mut hostile = execution(1, 0, "\u{1b}[2J", "\u{202e}");
    hostile.reason = "<script>".into();
    let mut bad = record();
    bad.message = "\u{1b}]0;x".into();
    bad.state = "Root".into();
    let back = Snapshot::decode(&Snapshot { record: bad, history: vec![hostile] }.encode(4096)).unwrap();
    assert_eq!(back.history[0].stdout, "\u{241b}[2J");
    assert_eq!(back.history[0].stderr, "\\u{202e}");
    assert_eq!((back.history[0].reason.as_str(), back.record.state.as_str()), ("", "Unknown"));
    assert_eq!(back.record.message, "\u{241b}]0;x");
}

proptest! {
    #[test]
    fn never_longer_than_the_limit_and_always_readable(
        outputs in proptest::collection::vec((any::<String>(), any::<String>(), -1i32..3), 0..20),
        repeat in 1usize..200, message in any::<String>(),
    ) {
        let history = outputs.iter().zip(1..)
            .map(|((out, err, code), serial)| execution(serial, *code, &make_harmless(out.repeat(repeat).as_bytes()), &make_harmless(err.as_bytes())))
            .collect::<Vec<_>>();
        let mut record = record();
        record.message = make_harmless(message.repeat(repeat).as_bytes());
        let text = Snapshot { record, history: history.clone() }.encode(MAX_MESSAGE_BYTES);
        prop_assert!(text.len() <= MAX_MESSAGE_BYTES);
        let back = Snapshot::decode(&text).unwrap();
        prop_assert_eq!(back.history.last().map(Execution::key), history.last().map(Execution::key));
        for execution in &back.history {
            let original = &history[usize::try_from(execution.serial).unwrap() - 1];
            prop_assert!(original.stdout.ends_with(&execution.stdout) && original.stderr.ends_with(&execution.stderr));
        }
    }

    #[test]
    fn any_text_is_read_without_panic(text in any::<String>()) {
        let _ = Snapshot::decode(&text);
    }
}

#[test]
fn results_give_way_to_executions_and_outputs_to_results() {
    let result = Some(Value::from("x".repeat(1_000)));
    let history: Vec<_> = (1..=5)
        .map(|serial| Execution { result: result.clone(), ..execution(serial, 1, "", &"e".repeat(3_000)) })
        .collect();
    let message = Snapshot { record: record(), history }.encode(MAX_MESSAGE_BYTES);
    assert!(message.len() <= MAX_MESSAGE_BYTES);
    let back = Snapshot::decode(&message).unwrap();
    assert_eq!(back.history.iter().map(|one| one.serial).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(back.history.iter().all(|one| (one.exit_code, one.duration_millis) == (Some(1), Some(12))));
    let newest = back.history.last().unwrap();
    assert!(newest.result == result && newest.stderr.len() > 1_000, "{newest:?}");
    assert_eq!(back.history[0].result, None);
}

#[test]
fn a_result_too_large_for_its_room_leaves_that_to_the_outputs() {
    let with_result = Execution { result: Some("x".repeat(1_000).into()), ..execution(5, 0, "out", "") };
    let message = Snapshot { record: record(), history: vec![with_result.clone()] }.encode(700);
    let back = Snapshot::decode(&message).unwrap();
    assert_eq!((back.history[0].result.as_ref(), back.history[0].stdout.as_str()), (None, "out"));
    let message = Snapshot { record: record(), history: vec![with_result.clone()] }.encode(MAX_MESSAGE_BYTES);
    assert_eq!(Snapshot::decode(&message).unwrap().history, [with_result]);
}

#[test]
fn a_hostile_result_costs_only_itself() {
    let hostile = Execution { result: Some("x".repeat(1_100).into()), ..execution(5, 0, "out", "") };
    let message = Snapshot { record: record(), history: vec![hostile] }.encode(MAX_MESSAGE_BYTES);
    let back = Snapshot::decode(&message).unwrap().history.remove(0);
    assert_eq!((back.result, back.reason.as_str(), back.stdout.as_str()), (None, "ResultInvalid", "out"));
}

#[test]
fn numbers_that_no_runner_reaches_are_not_believed() {
    for change in [
        |record: &mut Record| record.executions = MAX_NUMBER + 1,
        |record: &mut Record| record.serial = u64::MAX,
        |record: &mut Record| record.seq = u64::MAX,
        |record: &mut Record| record.run = u64::MAX,
    ] {
        let mut far = record();
        change(&mut far);
        let message = Snapshot { record: far, history: vec![] }.encode(MAX_MESSAGE_BYTES);
        assert_eq!(Snapshot::decode(&message), Err(Error::ReadRecord));
    }
    let most = Some(u64::MAX);
    let far = Execution { duration_millis: most, stdout_bytes: most, ..execution(1, 0, "a", "") };
    let history = vec![far, execution(MAX_NUMBER + 1, 0, "b", "")];
    let read = Snapshot::decode(&Snapshot { record: record(), history }.encode(MAX_MESSAGE_BYTES)).unwrap();
    assert_eq!(read.history.len(), 1);
    let figures = (read.history[0].duration_millis, read.history[0].stdout_bytes);
    assert_eq!(figures, (Some(MAX_NUMBER), Some(MAX_NUMBER)));
}
