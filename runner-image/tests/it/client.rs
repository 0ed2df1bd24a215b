//! The session alone, without a runner around it, with timers short enough to see them all.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rustls::version::{TLS12, TLS13};
use scriptrunner_api::{
    labels::PROTOCOL,
    session::{Ack, MAX_TO_RUNNER_BYTES, ToRunner},
    snapshot::{Record, Snapshot},
    v1alpha1::Execution,
};
use scriptrunner_runner::session::{self, SessionConfig, SessionEvent, Timing, Token};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use crate::{
    door::{Answer, Authority, Door, NAME},
    pod::PATIENCE,
};

const BOOT: &str = "0a1b2c3d";

/// A session in a runtime of its own.
struct Client {
    outbox: watch::Sender<Option<Arc<Snapshot>>>,
    events: mpsc::Receiver<SessionEvent>,
    _runtime: Runtime,
}

fn timing() -> Timing {
    Timing {
        backoff_first: Duration::from_millis(50),
        backoff_longest: Duration::from_millis(400),
        reconnect_spread: Duration::from_millis(20),
        ..Timing::default()
    }
}

fn connect(address: SocketAddr, authorities: &[&Authority], token: Token, timing: Timing) -> Client {
    let authorities: Vec<String> = authorities.iter().map(|authority| authority.base64.clone()).collect();
    let door = session::Door::new(&address.to_string(), NAME, &authorities).unwrap();
    let config = SessionConfig { door, token, boot: BOOT.to_owned(), timing };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (outbox, receiver) = watch::channel(None);
    let (event_sender, mut events) = tokio::sync::mpsc::channel(1);
    let (sender, kept) = mpsc::channel();
    runtime.spawn(session::run(config, receiver, event_sender));
    runtime.spawn(async move {
        while let Some(event) = events.recv().await {
            let _ = sender.send(event);
        }
    });
    Client { outbox, events: kept, _runtime: runtime }
}

impl Client {
    fn to(door: &Door, timing: Timing) -> Self {
        connect(door.address, &[&door.authority], Token::Text("a.b.c".to_owned()), timing)
    }

    fn publish(&self, snapshot: Snapshot) {
        self.outbox.send_replace(Some(Arc::new(snapshot)));
    }

    fn event(&self) -> SessionEvent {
        self.events.recv_timeout(PATIENCE).expect("something should happen")
    }

    #[track_caller]
    fn assert_connected(&self) {
        assert_eq!(self.event(), SessionEvent::Connected);
    }

    #[track_caller]
    fn assert_disconnected(&self, words: &str) {
        match self.event() {
            SessionEvent::Disconnected { why } => assert!(why.contains(words), "{why:?}"),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the session has ended for good.
    #[track_caller]
    fn assert_over(&self) {
        assert_eq!(self.events.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}

/// A runner's snapshot with these executions, the newest last.
fn snapshot(seq: u64, serials: &[u64]) -> Snapshot {
    let record = Record {
        protocol: PROTOCOL,
        boot: BOOT.to_owned(),
        run: 1,
        attempt: 1,
        seq,
        state: "Running".to_owned(),
        reason: String::new(),
        message: String::new(),
        executions: serials.len() as u64,
        failures: 0,
        serial: serials.last().copied().unwrap_or_default(),
        handed_over: false,
        exit_code: None,
        signal: None,
    };
    let execution = |&serial: &u64| Execution {
        run: 1,
        attempt: 1,
        serial,
        exit_code: Some(0),
        stdout: format!("{serial}\n"),
        ..Execution::default()
    };
    Snapshot { record, history: serials.iter().map(execution).collect() }
}

fn last(seq: u64, serials: &[u64]) -> Snapshot {
    let mut last = snapshot(seq, serials);
    last.record.state = "Succeeded".to_owned();
    last
}

fn serials(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.history.iter().map(|execution| execution.serial).collect()
}

#[test]
fn acknowledged_executions_are_not_sent_again_over_the_next_connection() {
    let door = Door::open();
    let client = Client::to(&door, timing());
    client.publish(snapshot(3, &[1]));
    let visit = door.visit();
    client.assert_connected();
    assert_eq!((visit.token.as_str(), visit.hello.boot.as_str()), ("a.b.c", BOOT));
    let first = visit.snapshot();
    assert_eq!((serials(&first), first.history[0].stdout.as_str()), (vec![1], "1\n"));
    visit.ack(&first.record);
    assert_eq!(client.event(), SessionEvent::Acked(Ack { boot: BOOT.to_owned(), seq: 3 }));
    client.publish(snapshot(5, &[1, 2]));
    assert_eq!(serials(&visit.snapshot()), [2]);
    // Never acknowledged.
    visit.drop_connection();
    client.assert_disconnected("");
    client.publish(snapshot(7, &[1, 2, 3]));
    let visit = door.visit();
    client.assert_connected();
    let again = visit.snapshot();
    assert_eq!((again.record.seq, serials(&again)), (7, vec![2, 3]));
    visit.ack(&again.record);
    client.event();
    visit.drop_connection();
    // Everything is stored, yet the operator, who may be another one, is told where the runner stands.
    let visit = door.visit();
    let settled = visit.snapshot();
    assert_eq!((settled.record.seq, serials(&settled)), (7, vec![]));
}

#[test]
fn failures_in_a_row_double_the_pause() {
    let door = Door::open();
    door.answer((0..6).map(|_| Answer::Refuse(ToRunner::NotLeader)));
    let client = Client::to(&door, timing());
    door.visit();
    for _ in 0..6 {
        client.assert_disconnected("does not lead");
    }
    client.assert_connected();
    let knocks = door.knocks();
    let pauses: Vec<u128> = knocks.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    // Half of 50, 100, 200, 400, 400, 400 at least.
    for (pause, least) in pauses.iter().zip([25, 50, 100, 200, 200, 200]) {
        assert!(*pause >= least, "{pauses:?}");
    }
    assert_eq!(pauses.len(), 6);
}

#[test]
fn session_that_breaks_as_soon_as_it_stands_is_a_failure_too() {
    let door = Door::open();
    let client = Client::to(&door, timing());
    client.publish(snapshot(1, &[]));
    for _ in 0..5 {
        door.visit().drop_connection();
    }
    let knocks = door.knocks();
    let longest = knocks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest >= Duration::from_millis(200), "{longest:?}");
}

#[test]
fn who_is_not_the_operator_learns_nothing() {
    let door = Door::open();
    let stranger = Authority::new();
    let token = || Token::Text("secret".to_owned());
    let client = connect(door.address, &[&stranger], token(), timing());
    client.assert_disconnected("invalid peer certificate");
    drop(client);
    for (server, words) in [
        (door.authority.server("other.svc", &TLS13), "certificate not valid for name"),
        (door.authority.server(NAME, &TLS12), "received fatal alert: ProtocolVersion"),
    ] {
        door.show(server);
        let client = connect(door.address, &[&door.authority], token(), timing());
        client.assert_disconnected(words);
        client.assert_disconnected(words);
    }
    assert!(door.has_no_visit());
}

#[test]
fn new_authorities_replace_the_old_ones() {
    let door = Door::open();
    let client = Client::to(&door, timing());
    let visit = door.visit();
    client.assert_connected();
    let broken = ToRunner::NewCa { authorities: vec![door.authority.base64.clone(), "AA==".to_owned()] };
    visit.say(&broken);
    match client.event() {
        SessionEvent::Ignored { what } => assert!(what.contains("authority number 2"), "{what}"),
        other => panic!("{other:?}"),
    }
    let next = Authority::new();
    visit.say(&ToRunner::NewCa { authorities: vec![next.base64.clone()] });
    door.show(next.server(NAME, &TLS13));
    // The session that is up goes on.
    visit.ping();
    visit.drop_connection();
    client.assert_disconnected("");
    client.assert_connected();
    let visit = door.visit();
    door.show(door.authority.server(NAME, &TLS13));
    visit.drop_connection();
    client.assert_disconnected("");
    client.assert_disconnected("invalid peer certificate");
}

#[test]
fn pause_that_the_operator_asks_for_is_kept_before_and_in_a_session() {
    let later = ToRunner::RetryAfter { millis: 600, reason: "unknown pod".to_owned() };
    let door = Door::open();
    door.answer([Answer::Refuse(later.clone())]);
    let client = Client::to(&door, timing());
    let visit = door.visit();
    assert_eq!(client.event(), SessionEvent::Postponed { reason: "unknown pod".to_owned() });
    client.assert_connected();
    visit.say(&later);
    assert_eq!(client.event(), SessionEvent::Postponed { reason: "unknown pod".to_owned() });
    visit.wait_for_end();
    door.visit();
    let knocks = door.knocks();
    for pair in knocks.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(600), "{knocks:?}");
    }
}

#[test]
fn refusal_ends_all_tries_before_and_in_a_session() {
    let refused = ToRunner::Refused { reason: "its outcome is stored".to_owned() };
    let event = SessionEvent::Refused { reason: "its outcome is stored".to_owned() };
    let door = Door::open();
    door.answer([Answer::Refuse(refused.clone())]);
    let client = Client::to(&door, timing());
    assert_eq!(client.event(), event);
    client.assert_over();
    let client = Client::to(&door, timing());
    door.visit().say(&refused);
    client.assert_connected();
    assert_eq!(client.event(), event);
    client.assert_over();
    assert_eq!(door.knocks().len(), 2);
}

#[test]
fn silent_operator_is_given_up_and_one_that_pings_is_not() {
    let timing = Timing { silence: Duration::from_secs(1), ..timing() };
    let door = Door::open();
    let client = Client::to(&door, timing);
    let visit = door.visit();
    client.assert_connected();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        visit.ping();
    }
    visit.freeze();
    client.assert_disconnected("nothing was heard from the operator for 1s");
    door.visit();
    client.assert_connected();
}

#[test]
fn operator_that_does_not_read_is_given_up() {
    let timing = Timing {
        write: Duration::from_millis(500),
        spacing: Duration::ZERO,
        hold_back: Duration::ZERO,
        ..timing()
    };
    let door = Door::open();
    let client = Client::to(&door, timing);
    let visit = door.visit();
    client.assert_connected();
    visit.freeze();
    let mut large = snapshot(0, &(1..=100).collect::<Vec<_>>());
    large.history.iter_mut().for_each(|execution| execution.stdout = "x".repeat(60_000));
    let end = Instant::now() + PATIENCE;
    let event = loop {
        large.record.seq += 1;
        client.publish(large.clone());
        match client.events.recv_timeout(Duration::from_millis(10)) {
            Ok(event) => break event,
            Err(_) => assert!(Instant::now() < end, "the connection should be given up"),
        }
    };
    assert_eq!(event, SessionEvent::Disconnected { why: "the operator took nothing for 500ms".to_owned() });
    assert!(door.visit().snapshot().history.len() == 100);
}

#[test]
fn operator_that_does_not_answer_is_given_up() {
    let timing = Timing { handshake: Duration::from_millis(300), ..timing() };
    let door = Door::open();
    door.answer([Answer::Stall]);
    let client = Client::to(&door, timing);
    client.assert_disconnected("the operator did not accept within 300ms");
    client.assert_connected();
}

#[test]
fn many_snapshots_cost_few_frames_and_the_last_one_comes_at_once() {
    let timing = Timing { spacing: Duration::from_secs(3), hold_back: Duration::from_mins(1), ..timing() };
    let door = Door::open();
    let client = Client::to(&door, timing);
    let visit = door.visit();
    client.publish(snapshot(1, &[]));
    let (_, first_at) = visit.snapshot_at();
    for seq in 2..=100 {
        client.publish(snapshot(seq, &[seq]));
    }
    let (second, second_at) = visit.snapshot_at();
    assert_eq!(second.record.seq, 100);
    assert!(second_at - first_at >= Duration::from_millis(2900), "{:?}", second_at - first_at);
    client.publish(last(101, &[100, 101]));
    let (third, third_at) = visit.snapshot_at();
    assert_eq!(third.record.seq, 101);
    assert!(third_at - second_at < Duration::from_millis(2900), "{:?}", third_at - second_at);
}

#[test]
fn beginning_waits_for_its_ending_for_a_while() {
    let timing =
        Timing { spacing: Duration::from_millis(10), hold_back: Duration::from_millis(700), ..timing() };
    let door = Door::open();
    let client = Client::to(&door, timing);
    let visit = door.visit();
    client.publish(snapshot(1, &[]));
    visit.snapshot();
    client.publish(snapshot(2, &[]));
    client.publish(snapshot(3, &[1]));
    assert_eq!(visit.snapshot().record.seq, 3);
    let begun = Instant::now();
    client.publish(snapshot(4, &[1]));
    let (alone, at) = visit.snapshot_at();
    assert_eq!(alone.record.seq, 4);
    assert!(at - begun >= Duration::from_millis(690), "{:?}", at - begun);
}

#[test]
fn large_snapshot_comes_in_parts() {
    let door = Door::open();
    let client = Client::to(&door, timing());
    let mut large = last(2, &[1, 2, 3, 4, 5]);
    large.history.iter_mut().for_each(|execution| execution.stdout = "é\n".repeat(12_000));
    client.publish(large.clone());
    // The door refuses messages of more than 64 KiB.
    assert!(door.visit().snapshot() == large);
}

#[test]
fn words_of_a_later_version_are_ignored_and_nonsense_ends_the_connection() {
    let door = Door::open();
    let client = Client::to(&door, timing());
    let visit = door.visit();
    client.assert_connected();
    visit.say_text(r#"{"dance":{"steps":3}}"#.to_owned());
    visit.say(&ToRunner::Ack(Ack { boot: "ffffffff".to_owned(), seq: 9 }));
    visit.say(&ToRunner::Stop { reason: "enough".to_owned() });
    assert_eq!(client.event(), SessionEvent::Stop { reason: "enough".to_owned() });
    visit.say_text("nonsense".to_owned());
    client.assert_disconnected("cannot understand the operator");
    client.assert_connected();
    door.visit().say_text("x".repeat(MAX_TO_RUNNER_BYTES + 1));
    client.assert_disconnected("the connection broke: Space limit exceeded");
}

#[test]
fn token_is_read_at_each_connect() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let door = Door::open();
    let client = connect(door.address, &[&door.authority], Token::File(file.clone()), timing());
    client.assert_disconnected("cannot read the token");
    fs::write(&file, "first\n").unwrap();
    let visit = door.visit();
    assert_eq!(visit.token, "first");
    fs::write(&file, "second").unwrap();
    visit.drop_connection();
    assert_eq!(door.visit().token, "second");
}

#[test]
fn session_ends_politely_when_nobody_sends_any_more() {
    let door = Door::open();
    let client = Client::to(&door, timing());
    let visit = door.visit();
    client.assert_connected();
    let Client { outbox, events, _runtime } = client;
    drop(outbox);
    visit.wait_for_goodbye();
    assert_eq!(events.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn session_that_nobody_needs_ends_in_every_phase() {
    let door = Door::open();
    door.answer([Answer::Stall]);
    for address in [Door::nowhere(), door.address] {
        let Client { outbox, events, _runtime } =
            connect(address, &[&door.authority], Token::Text("a".to_owned()), Timing::default());
        drop(outbox);
        let end = Instant::now() + PATIENCE;
        while events.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < end);
    }
}
