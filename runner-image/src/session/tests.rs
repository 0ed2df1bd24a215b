//! Snapshots for the tests of the parts, and what is read of a token.

use base64::{Engine, engine::general_purpose::STANDARD};
use scriptrunner_api::{
    snapshot::Record,
    v1alpha1::{Execution, NodeState},
};

use super::*;

/// A runner's snapshot with these executions, the newest last.
pub(super) fn snapshot(seq: u64, serials: &[u64]) -> Snapshot {
    let record = Record {
        protocol: PROTOCOL,
        boot: "0a1b2c3d".to_owned(),
        run: 1,
        attempt: 1,
        seq,
        state: NodeState::Running.as_str().to_owned(),
        reason: String::new(),
        message: String::new(),
        executions: serials.last().copied().unwrap_or_default(),
        failures: 0,
        serial: serials.last().copied().unwrap_or_default(),
        handed_over: false,
        exit_code: None,
        signal: None,
    };
    let history = serials
        .iter()
        .map(|&serial| Execution { run: 1, attempt: 1, serial, exit_code: Some(0), ..Execution::default() })
        .collect();
    Snapshot { record, history }
}

#[test]
fn token_is_one_line() {
    let read = |text: &str| Token::Text(text.to_owned()).read();
    assert_eq!(read("a.b.c\n").unwrap(), "a.b.c");
    for wrong in ["", " \n", "a\r\nHost: x", "a b", "ä"] {
        assert!(matches!(read(wrong), Err(Broken::MatchToken)), "{wrong:?}");
    }
    let missing = Token::File("/nonexistent/token".into()).read().unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the token \"/nonexistent/token\": "), "{missing}");
}

#[test]
fn pause_that_an_operator_asks_for_is_bounded() {
    let told = refusal(ToRunner::RetryAfter { millis: u64::MAX, reason: String::new() });
    assert!(matches!(told, Parting::Postponed { pause: LONGEST_PAUSE, .. }));
}

#[test]
fn frame_that_is_no_refusal_is_a_failed_try() {
    let told = refusal(ToRunner::Stop { reason: "x".to_owned() });
    assert!(matches!(told, Parting::Broken(Broken::MatchAnswer(_))));
}

#[test]
fn session_takes_little_room_while_it_waits() {
    let authority = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let door = Door::new("127.0.0.1:8443", "door.svc", &[STANDARD.encode(authority.cert.der())]).unwrap();
    let token = Token::Text("a.b.c".to_owned());
    let config = SessionConfig { door, token, boot: "0a1b2c3d".to_owned(), timing: Timing::default() };
    let session = run(config, watch::channel(None).1, mpsc::channel(1).0);
    let bytes = size_of_val(&session);
    assert!(bytes < 2500, "{bytes}");
    drop(sendable(session));
}

/// Sessions move between the threads of a runtime.
fn sendable<T: Send>(session: T) -> T {
    session
}
