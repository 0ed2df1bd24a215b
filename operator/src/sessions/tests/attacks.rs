//! What happens to those who do not mean well, and that nobody else notices. Whose a session is, is tried on a real API
//! server.

use std::time::{Duration, Instant};

use rustls::{ClientConfig, RootCertStore, crypto::ring, version::TLS12};
use scriptrunner_api::session::{MAX_FROM_RUNNER_BYTES, RunOrder, ToRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    super::*,
    client::{Raw, accepted, connect, hello, request, session, snapshot, snapshot_frame},
    house::{House, PATIENCE, config, open, token_of},
};
use crate::sessions::wire::tests::{TEXT, frame};

/// An honest session, and proof that it is as good as before.
struct Neighbour(Raw, u64);

impl Neighbour {
    async fn of(house: &House) -> Self {
        Self(session(house, "honest").await, 0)
    }

    /// Brings a snapshot and hears of it.
    async fn is_undisturbed(&mut self, house: &House) {
        self.1 += 1;
        let began = Instant::now();
        self.0.say(&snapshot_frame("honest", self.1)).await;
        house.until("the honest snapshot", |house| house.seq("honest") == Some(self.1)).await;
        let ack = Ack { boot: "honest".to_owned(), seq: self.1 };
        house.sessions.ack("honest", &ack);
        assert_eq!(self.0.hear().await, Some(ToRunner::Ack(ack)));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn requests_for_anything_else_are_refused() {
    let house = open(config(), &["honest"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let good = request(&token_of("honest"));
    for (request, code, word) in [
        (good.replace("/v1/session", "/"), 404, "path"),
        (good.replace("/v1/session", "/v2/session"), 404, "path"),
        (good.replace("GET", "POST"), 404, "path"),
        (good.replace("Upgrade: websocket\r\n", ""), 400, "protocol"),
        (good.replace("scriptrunner.v1", "scriptrunner.v2"), 400, "protocol"),
        (good.replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 400, "protocol"),
        (good.replace("Bearer ", "Basic "), 401, "no_token"),
        (request("junk"), 401, "token_unreadable"),
        (request(&token_of("nobody")), 503, "pod_unknown"),
    ] {
        let before = house.refusals(word);
        let (answered, frame) = connect(&house).await.refusal(&request).await;
        assert_eq!(answered, code, "{request}");
        let is_retry = matches!(frame, Some(ToRunner::RetryAfter { .. }));
        assert!(is_retry == (code == 503) && frame.is_some(), "{request} {frame:?}");
        house.until(word, |house| house.refusals(word) == before + 1).await;
    }
    assert_eq!(house.reviews(), 1, "only that of the honest one");
    neighbour.is_undisturbed(&house).await;
}

#[tokio::test]
async fn what_is_no_request_at_all_is_refused() {
    let house = open(config(), &["honest"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let long = request(&"x".repeat(20_000));
    let many = request("x").replace("Host: door\r\n", &"a: b\r\n".repeat(100));
    for junk in [long.as_str(), &many, "\r\n\r\nnonsense\r\n\r\n", "GET /v1/session HTTP/9.9\r\n\r\n"] {
        let before = house.refusals("no_request");
        let mut raw = connect(&house).await;
        let (code, frame) = raw.refusal(junk).await;
        assert!((code == 0 || (400..500).contains(&code)) && frame.is_none(), "{code}");
        house.until("counted", |house| house.refusals("no_request") == before + 1).await;
    }
    neighbour.is_undisturbed(&house).await;
}

#[tokio::test]
async fn plaintext_and_older_tls_are_refused() {
    let house = open(config(), &["honest"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let mut plain = TcpStream::connect(house.address).await.unwrap();
    plain.write_all(request(&token_of("honest")).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.len() < 20, "an alert at most: {answer:?}");
    let older = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("scriptrunner-operator.ns.svc").unwrap();
    let tcp = TcpStream::connect(house.address).await.unwrap();
    let refused = tokio_rustls::TlsConnector::from(Arc::new(older)).connect(name, tcp).await;
    assert!(refused.unwrap_err().to_string().contains("ProtocolVersion"));
    house.until("both counted", |house| house.refusals("tls") == 2).await;
    neighbour.is_undisturbed(&house).await;
}

#[tokio::test]
async fn frames_that_make_no_sense_end_the_session() {
    let house = open(config(), &["honest", "a"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let mut foreign = snapshot("a", 1, &[1]);
    foreign.record.attempt = 2;
    let part =
        scriptrunner_api::session::SnapshotPart { record: foreign.record, history: Vec::new(), more: false };
    let foreign = scriptrunner_api::session::FromRunner::Snapshot(part).encode();
    let text = |text: &str| frame(TEXT, text.as_bytes());
    let other_protocol = hello().replace("\"protocol\":1", "\"protocol\":9");
    let too_long = frame(TEXT, &vec![b'x'; MAX_FROM_RUNNER_BYTES + 1]);
    for (say_hello, bytes, word, has_frame) in [
        (false, text(&snapshot_frame("a", 1)), "frame", true),
        (false, text(&other_protocol), "frame", true),
        (true, text(&hello()), "frame", true),
        (true, text("no JSON"), "frame", true),
        (true, text(&foreign), "foreign_run", true),
        (true, too_long, "too_long", false),
        (true, frame(0x82, b"binary"), "no_websocket", false),
        (true, b"\x81\x03abc".to_vec(), "no_websocket", false),
    ] {
        let before = house.ends(word);
        let mut raw = accepted(&house, "a").await;
        if say_hello {
            raw.say(&hello()).await;
        }
        raw.write(&bytes).await;
        let heard = raw.hear().await;
        assert_eq!(matches!(heard, Some(ToRunner::Refused { .. })), has_frame, "{word}: {heard:?}");
        house.until(word, |house| house.ends(word) == before + 1).await;
        assert_eq!(house.seq("a"), None, "{word}");
    }
    neighbour.is_undisturbed(&house).await;
}

/// A body that claims to be another pod's is the speaker's own, whatever it says.
#[tokio::test]
async fn what_is_said_is_of_who_says_it() {
    let house = open(config(), &["honest", "a"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let mut raw = session(&house, "a").await;
    raw.say(&snapshot_frame("honest", 99)).await;
    house.until("it is kept", |house| house.seq("a") == Some(99)).await;
    assert_eq!(house.seq("honest"), None);
    neighbour.is_undisturbed(&house).await;
}

#[tokio::test]
async fn who_says_nothing_holds_nothing_for_long() {
    let house = open(config(), &["honest", "a"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let began = Instant::now();
    let silent = TcpStream::connect(house.address).await.unwrap();
    let mut half_hello = TcpStream::connect(house.address).await.unwrap();
    half_hello.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    let mut slow_request = connect(&house).await;
    slow_request.write(b"GET /v1/ses").await;
    let no_hello = accepted(&house, "a").await;
    let drip = async {
        for byte in request("x").bytes() {
            if slow_request.0.write_all(&[byte]).await.is_err() || house.refusals("no_request") > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let seen = house.until("all counted", |house| {
        house.refusals("no_first_byte") == 1
            && house.refusals("tls_slow") == 1
            && house.refusals("no_request") == 1
            && house.ends("no_hello") == 1
    });
    tokio::join!(seen, drip);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    neighbour.is_undisturbed(&house).await;
    drop((silent, half_hello, no_hello));
}

#[tokio::test]
async fn runner_that_does_not_read_is_dropped_and_nothing_piles_up() {
    let house = open(config(), &["honest", "deaf"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let deaf = session(&house, "deaf").await;
    house.until("a session", |house| house.sessions.connected() == 2).await;
    let order = |run| RunOrder {
        run,
        attempt: 1,
        first_serial: 1,
        remaining: 1,
        spec: "{}".to_owned(),
        script: "x".repeat(400_000),
        history_limit: 5,
        stdout_limit_bytes: 1,
        stderr_limit_bytes: 1,
        grace_seconds: 1,
        execution_deadline_seconds: None,
    };
    let began = Instant::now();
    let mut run = 1;
    while house.ends("not_reading") == 0 {
        run += 1;
        house.sessions.order("deaf", &order(run));
        neighbour.is_undisturbed(&house).await;
        assert!(began.elapsed() < Duration::from_secs(40), "the deaf one is still there");
    }
    assert_eq!(house.sessions.connected(), 1);
    drop(deaf);
}

#[tokio::test]
async fn flood_makes_the_flooder_wait_and_nobody_else() {
    let house = open(config(), &["honest", "flood"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let mut flood = session(&house, "flood").await;
    let mut long = snapshot("flood", 1, &[1]);
    long.history[0].stdout = "x".repeat(60_000);
    let part = |seq| {
        let mut record = long.record.clone();
        record.seq = seq;
        scriptrunner_api::session::FromRunner::Snapshot(scriptrunner_api::session::SnapshotPart {
            record,
            history: long.history.clone(),
            more: false,
        })
    };
    let flooding = async {
        for seq in 1..200 {
            flood.say(&part(seq).encode()).await;
        }
    };
    let watching = async {
        for _ in 0..20 {
            neighbour.is_undisturbed(&house).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = flooding => panic!("12 MB were read as fast as they came"),
        () = watching => {}
    }
    let taken = house.seq("flood").unwrap();
    assert!((30..80).contains(&taken), "2 MiB at once and then 256 KiB a second: {taken}");
}

#[tokio::test]
async fn too_many_connections_push_out_those_that_nobody_knows() {
    let house = open(DoorConfig { most_sessions: 20, ..config() }, &["honest", "late"]).await;
    let mut neighbour = Neighbour::of(&house).await;
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(TcpStream::connect(house.address).await.unwrap());
    }
    house.until("the oldest were pushed out", |house| house.refusals("crowded") >= 41).await;
    neighbour.is_undisturbed(&house).await;
    let mut late = session(&house, "late").await;
    late.say(&snapshot_frame("late", 1)).await;
    house.until("who comes late is heard", |house| house.seq("late") == Some(1)).await;
    neighbour.is_undisturbed(&house).await;
}

/// Each with a whole handshake and a request. The time is printed; it is bounded so that a storm of honest runners, who
/// cost the same and a question more, is too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_without_a_token_are_many_and_cheap() {
    const CONNECTS: usize = 1000;
    let house = Arc::new(open(config(), &["honest"]).await);
    let mut neighbour = Neighbour::of(&house).await;
    let began = Instant::now();
    let theirs = Arc::clone(&house);
    let crowd = (0..CONNECTS).map(move |_| {
        let house = Arc::clone(&theirs);
        async move {
            let (code, _) = connect(&house).await.refusal(&request("").replace("Bearer", "None")).await;
            assert_eq!(code, 401);
        }
    });
    let crowd = tokio::spawn(async move {
        use futures::StreamExt;
        futures::stream::iter(crowd).buffer_unordered(64).collect::<()>().await;
    });
    while !crowd.is_finished() {
        neighbour.is_undisturbed(&house).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    crowd.await.unwrap();
    println!("{CONNECTS} connects without a token: {:?}", began.elapsed());
    assert_eq!((house.refusals("no_token"), house.reviews()), (CONNECTS as u64, 1));
    assert!(began.elapsed() < Duration::from_mins(1));
}
