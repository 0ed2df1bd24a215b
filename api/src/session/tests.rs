//! Frames there and back, unknown ones, and snapshots too large for one message.

use super::*;

fn record(seq: u64) -> Record {
    Record {
        protocol: PROTOCOL,
        boot: "0a1b2c3d".to_owned(),
        run: 2,
        attempt: 1,
        seq,
        state: "Running".to_owned(),
        reason: String::new(),
        message: String::new(),
        executions: 3,
        failures: 1,
        serial: 3,
        handed_over: false,
        exit_code: Some(0),
        signal: None,
    }
}

fn execution(serial: u64, stdout: &str) -> Execution {
    Execution {
        run: 2,
        attempt: 1,
        serial,
        exit_code: Some(0),
        stdout: stdout.to_owned(),
        ..Execution::default()
    }
}

fn parts(messages: &[String]) -> Vec<SnapshotPart> {
    messages
        .iter()
        .map(|message| match FromRunner::decode(message).unwrap() {
            FromRunner::Snapshot(part) => part,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn frames_come_back_as_they_were() {
    let hello =
        FromRunner::Hello(Hello { protocol: PROTOCOL, version: "0.1.0".to_owned(), boot: "0a".to_owned() });
    assert_eq!(FromRunner::decode(&hello.encode()).unwrap(), hello);
    for frame in [
        ToRunner::Ack(Ack { boot: "0a".to_owned(), seq: 7 }),
        ToRunner::Stop { reason: "gone".to_owned() },
        ToRunner::HandOver { reason: "paused".to_owned() },
        ToRunner::RetryAfter { millis: 500, reason: "busy".to_owned() },
        ToRunner::NotLeader,
        ToRunner::NewCa { authorities: vec!["AA==".to_owned()] },
        ToRunner::Refused { reason: "its outcome is stored".to_owned() },
    ] {
        assert_eq!(ToRunner::decode(&frame.encode()).unwrap(), frame);
    }
    assert_eq!(ToRunner::NotLeader.encode(), r#""notLeader""#);
    assert_eq!(
        ToRunner::Ack(Ack { boot: "0a".to_owned(), seq: 7 }).encode(),
        r#"{"ack":{"boot":"0a","seq":7}}"#
    );
}

#[test]
fn kinds_and_fields_of_other_versions_are_ignored() {
    assert_eq!(ToRunner::decode(r#"{"sleep":{"millis":1}}"#).unwrap(), ToRunner::Unknown);
    assert_eq!(ToRunner::decode(r#""sleep""#).unwrap(), ToRunner::Unknown);
    assert_eq!(FromRunner::decode(r#"{"sing":1}"#).unwrap(), FromRunner::Unknown);
    let ack = ToRunner::decode(r#"{"ack":{"boot":"0a","seq":7,"more":true}}"#).unwrap();
    assert_eq!(ack, ToRunner::Ack(Ack { boot: "0a".to_owned(), seq: 7 }));
    // A known kind with the wrong content is an error, not an unknown kind.
    assert!(ToRunner::decode(r#"{"ack":{"seq":7}}"#).is_err());
    assert!(FromRunner::decode("[]").is_err());
    let hello = r#"{"hello":{"protocol":PROTOCOL,"version":"\u001b[2J\u202e","boot":"\u001b0a"}}"#;
    let hello = FromRunner::decode(&hello.replace("PROTOCOL", &PROTOCOL.to_string())).unwrap();
    let (version, boot) = ("\u{241b}[2J\\u{202e}".to_owned(), "0a".to_owned());
    assert_eq!(hello, FromRunner::Hello(Hello { protocol: PROTOCOL, version, boot }));
    let other = FromRunner::decode(r#"{"hello":{"protocol":9,"version":"9","boot":"0a"}}"#).unwrap_err();
    assert!(other.to_string().contains("protocol 9"), "{other}");
}

#[test]
fn a_snapshot_that_fits_is_one_message() {
    let history = vec![execution(2, "two"), execution(3, "three")];
    let messages = snapshot_messages(&Snapshot { record: record(5), history: history.clone() }, usize::MAX);
    let parts = parts(&messages);
    assert_eq!(parts.len(), 1);
    assert!(!parts[0].more);
    assert_eq!(parts[0].history, history);
    assert_eq!(parts[0].record, record(5));
    assert!(
        !snapshot_messages(&Snapshot { record: record(5), history: vec![] }, usize::MAX)[0]
            .contains("history")
    );
}

#[test]
fn a_large_snapshot_goes_in_parts_and_loses_only_what_no_message_can_hold() {
    let history: Vec<_> = (1..=9).map(|serial| execution(serial, &"\u{2028}x".repeat(3_000))).collect();
    let messages =
        snapshot_messages(&Snapshot { record: record(5), history: history.clone() }, MAX_FROM_RUNNER_BYTES);
    assert!(messages.iter().all(|message| message.len() <= MAX_FROM_RUNNER_BYTES));
    let received = parts(&messages);
    assert!(received.len() > 1);
    let last = received.len() - 1;
    assert!(received.iter().enumerate().all(|(index, part)| part.more == (index < last)));
    let serials: Vec<_> =
        received.iter().flat_map(|part| part.history.iter().map(|one| one.serial)).collect();
    assert_eq!(serials, (1..=9).collect::<Vec<_>>());

    let huge = execution(1, &"\"".repeat(200_000));
    let messages =
        snapshot_messages(&Snapshot { record: record(5), history: vec![huge] }, MAX_FROM_RUNNER_BYTES);
    assert!(messages.iter().all(|message| message.len() <= MAX_FROM_RUNNER_BYTES));
    assert!(parts(&messages)[0].history[0].stdout.len() > 10_000);
}

#[test]
fn what_a_runner_sends_is_made_harmless_and_stays_its_own() {
    let mut snapshot = Snapshot { record: record(5), history: vec![execution(3, "\u{1b}[31mred")] };
    snapshot.record.message = "\u{1b}]0;title\u{7}".to_owned();
    snapshot.record.reason = "Invented".to_owned();
    snapshot.history[0].run = 77;
    snapshot.history[0].result = Some("x".repeat(1_100).into());
    snapshot.history[0].result_digest = "invented".to_owned();
    let part = parts(&snapshot_messages(&snapshot, usize::MAX)).remove(0);
    assert!(!part.record.message.contains('\u{1b}') && part.record.reason.is_empty());
    assert_eq!((part.history[0].run, part.history[0].attempt), (2, 1));
    assert!(!part.history[0].stdout.contains('\u{1b}'));
    assert_eq!((part.history[0].result.clone(), part.history[0].result_digest.as_str()), (None, ""));
    assert_eq!(part.history[0].reason, "ResultInvalid");
}
