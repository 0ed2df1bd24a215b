//! What happens to those who mean well.

use std::time::{Duration, Instant};

use scriptrunner_api::session::{Ack, RunOrder, ToRunner};
use scriptrunner_core::observed::Presence;
use scriptrunner_runner::session::SessionEvent;

use super::{
    super::*,
    client::{Honest, Raw, accepted, connect, honest, request, session, snapshot, snapshot_frame, tls},
    house::{PATIENCE, config, open, token_for, token_of},
    *,
};

fn ack(uid: &str, seq: u64) -> Ack {
    Ack { boot: uid.to_owned(), seq }
}

/// Waits for the event that a session is there.
async fn connected(runner: &mut Honest) {
    while runner.next().await != SessionEvent::Connected {}
}

#[tokio::test]
async fn runner_is_heard_and_hears() {
    let mut house = open(config(), &["a"]).await;
    let mut runner = honest(&house, "a");
    connected(&mut runner).await;
    house.until("a session", |house| house.sessions.connected() == 1).await;
    let trigger = tokio::time::timeout(PATIENCE, house.triggers.recv()).await.unwrap().unwrap();
    assert_eq!(trigger, Trigger::One(object_ref("ns", "sr")));
    assert_eq!(house.metrics.sessions.get(), 1);
    runner.outbox.send_replace(Some(Arc::new(snapshot("a", 7, &[1, 2]))));
    house.until("its snapshot", |house| house.seq("a") == Some(7)).await;
    let facts = house.facts("a").unwrap();
    assert!(facts.connected);
    assert_eq!(facts.snapshot.unwrap().history.len(), 2);
    house.sessions.ack("a", &ack("a", 7));
    assert_eq!(runner.next().await, SessionEvent::Acked(ack("a", 7)));
    assert!(house.facts("a").unwrap().snapshot.unwrap().history.is_empty());
    let order = RunOrder {
        run: 2,
        attempt: 1,
        first_serial: 1,
        remaining: 1,
        spec: "{}".to_owned(),
        script: "x".repeat(60_000),
        history_limit: 5,
        stdout_limit_bytes: 100,
        stderr_limit_bytes: 100,
        grace_seconds: 10,
        execution_deadline_seconds: Some(3),
    };
    assert!(house.sessions.order("a", &order));
    assert!(!house.sessions.order("b", &order));
    assert_eq!(runner.next().await, SessionEvent::Run(Box::new(order)));
    assert!(house.sessions.hand_over("a", "paused") && !house.sessions.hand_over("b", "paused"));
    assert_eq!(runner.next().await, SessionEvent::HandOver { reason: "paused".to_owned() });
    house.sessions.stop("a", "enough");
    assert_eq!(runner.next().await, SessionEvent::Stop { reason: "enough".to_owned() });
    while house.triggers.try_recv().is_ok() {}
    drop(runner);
    house.until("no session", |house| house.sessions.connected() == 0).await;
    assert_eq!(house.seq("a"), Some(7));
    let trigger = tokio::time::timeout(PATIENCE, house.triggers.recv()).await.unwrap();
    assert!(trigger.is_some(), "that it is gone is news");
    assert_eq!((house.ends("goodbye"), house.metrics.sessions.get()), (1, 0));
}

#[tokio::test]
async fn snapshot_that_was_not_acknowledged_comes_again_and_changes_nothing() {
    let house = open(config(), &["a"]).await;
    let mut runner = honest(&house, "a");
    connected(&mut runner).await;
    runner.outbox.send_replace(Some(Arc::new(snapshot("a", 7, &[1, 2]))));
    house.until("its snapshot", |house| house.seq("a") == Some(7)).await;
    let before = house.facts("a").unwrap().snapshot;
    house.door.sessions().lines()[0].end(line::End::Silent);
    connected(&mut runner).await;
    house.until("a session", |house| house.sessions.connected() == 1).await;
    house.sessions.ack("a", &ack("a", 7));
    while runner.next().await != SessionEvent::Acked(ack("a", 7)) {}
    assert_eq!(house.facts("a").unwrap().snapshot.unwrap().record, before.unwrap().record);
    assert_eq!((house.ends("silent"), house.reviews()), (1, 1), "the verdict was remembered");
}

#[tokio::test]
async fn newer_connection_takes_the_place_of_the_older() {
    let house = open(config(), &["a"]).await;
    let mut older = session(&house, "a").await;
    older.say(&snapshot_frame("a", 1)).await;
    house.until("its snapshot", |house| house.seq("a") == Some(1)).await;
    let mut newer = session(&house, "a").await;
    assert_eq!(older.hear().await, None, "it is closed without a word");
    older.say(&snapshot_frame("a", 2)).await;
    newer.say(&snapshot_frame("a", 3)).await;
    house.until("the newer one's snapshot", |house| house.seq("a") == Some(3)).await;
    assert_eq!((house.ends("replaced"), house.sessions.connected()), (1, 1));
    house.sessions.ack("a", &ack("a", 3));
    assert_eq!(newer.hear().await, Some(ToRunner::Ack(ack("a", 3))));
}

#[tokio::test]
async fn stored_outcome_ends_the_session_and_refuses_the_next() {
    let house = open(config(), &["a"]).await;
    let mut raw = session(&house, "a").await;
    raw.say(&snapshot_frame("a", 1)).await;
    house.until("its snapshot", |house| house.seq("a") == Some(1)).await;
    house.sessions.ack("a", &ack("a", 1));
    house.sessions.mark_stored("a");
    assert_eq!(raw.hear().await, Some(ToRunner::Ack(ack("a", 1))));
    assert!(matches!(raw.hear().await, Some(ToRunner::Refused { .. })));
    assert_eq!(raw.hear().await, None);
    let (code, frame) = connect(&house).await.refusal(&request(&token_of("a"))).await;
    assert_eq!(code, 410);
    assert!(matches!(frame, Some(ToRunner::Refused { .. })));
    house.until("counted", |house| house.refusals("stored") == 1).await;
    assert_eq!(house.reviews(), 1);
}

#[tokio::test]
async fn session_ends_with_its_pod_and_with_its_token() {
    let house = open(config(), &["a", "b"]).await;
    let mut of_pod = session(&house, "a").await;
    let mut of_token = connect(&house).await;
    of_token.write(request(&token_for("b", 3)).as_bytes()).await;
    assert!(of_token.head().await.starts_with("HTTP/1.1 101 "));
    of_token.say(&client::hello()).await;
    house.until("both", |house| house.sessions.connected() == 2).await;
    house.world.pods().put(PodFacts {
        presence: Presence::Present,
        deleting: true,
        resource_version: 2,
        ..pod("a")
    });
    house.world.pods().confirm_gone("owner", "a");
    assert!(matches!(of_pod.hear().await, Some(ToRunner::Refused { .. })));
    assert!(matches!(of_token.hear().await, Some(ToRunner::RetryAfter { millis: 0, .. })));
    assert_eq!((house.ends("pod_gone"), house.ends("token_expired")), (1, 1));
    house.until("nobody", |house| house.sessions.connected() == 0).await;
}

#[tokio::test]
async fn process_that_does_not_lead_says_so() {
    let house = open(config(), &["a"]).await;
    let mut raw = session(&house, "a").await;
    house.until("a session", |house| house.sessions.connected() == 1).await;
    house.leads.send_replace(false);
    assert_eq!(raw.hear().await, Some(ToRunner::NotLeader));
    let (code, frame) = connect(&house).await.refusal(&request(&token_of("a"))).await;
    assert_eq!((code, frame), (503, Some(ToRunner::NotLeader)));
    house.until("counted", |house| house.ends("not_leader") == 1 && house.refusals("not_leader") == 1).await;
}

#[tokio::test]
async fn unknown_kinds_of_frames_are_passed_over() {
    let house = open(config(), &["a"]).await;
    let mut raw = accepted(&house, "a").await;
    for message in [r#"{"greeting":{"from":"the future"}}"#, &client::hello(), r#"{"song":{}}"#] {
        raw.say(message).await;
    }
    raw.say(&snapshot_frame("a", 1)).await;
    house.until("its snapshot", |house| house.seq("a") == Some(1)).await;
}

#[tokio::test]
async fn ping_is_answered_with_its_own_bytes() {
    let house = open(config(), &["a"]).await;
    let mut raw = session(&house, "a").await;
    raw.write(&wire::tests::frame(0x89, b"are you there")).await;
    assert_eq!(raw.frame().await, Some((0x8a, b"are you there".to_vec())));
}

#[tokio::test]
async fn settings_name_the_flag_or_the_service() {
    let house = open(config(), &[]).await;
    let settings = house.door.settings().unwrap();
    assert_eq!(settings.address, house.address.to_string());
    assert_eq!(settings.name, "scriptrunner-operator.ns.svc");
    assert_eq!(settings.authorities.len(), 1);
}

/// Lifetimes of seconds: the certificate and its authority change while a session stands. Whoever was told believes what
/// comes after, a pod made in time as well, and whoever was never told does not.
#[tokio::test]
async fn authority_changes_under_a_session() {
    let seconds = Duration::from_secs_f32;
    let quick = DoorConfig {
        certificate: seconds(3.0),
        authority: seconds(8.0),
        authority_overlap: seconds(2.0),
        ..config()
    };
    let house = open(quick, &["told", "late", "forgotten"]).await;
    let first = house.door.settings().unwrap().authorities;
    let mut told = honest(&house, "told");
    connected(&mut told).await;
    house.until("a session", |house| house.sessions.connected() == 1).await;
    let authorities = |house: &house::House| house.door.settings().unwrap().authorities;
    house.until("both authorities", |house| authorities(house).len() == 2).await;
    let both = authorities(&house);
    assert_eq!(both[0], first[0]);
    let mut late = honest(&house, "late");
    connected(&mut late).await;
    house.until("the next one alone", |house| authorities(house) == both[1..]).await;
    assert_eq!(house.sessions.connected(), 2, "sessions stand while certificates change");
    house.door.sessions().lines().iter().for_each(|line| line.end(line::End::Silent));
    connected(&mut told).await;
    connected(&mut late).await;
    // Somebody with the first authority only.
    let began = Instant::now();
    let name = rustls::pki_types::ServerName::try_from(house.door.settings().unwrap().name).unwrap();
    let tcp = tokio::net::TcpStream::connect(house.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(&first)));
    let refused = connector.connect(name, tcp).await.map(Raw);
    assert!(refused.is_err() && began.elapsed() < PATIENCE);
    assert_eq!(house.sessions.connected(), 2);
}
