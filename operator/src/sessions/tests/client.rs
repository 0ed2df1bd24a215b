//! Clients: the runner's own, and one that says whatever it is told to.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
    version::TLS13,
};
use scriptrunner_api::{
    labels::PROTOCOL,
    session::{FromRunner, Hello, PATH, SUBPROTOCOL, SnapshotPart, ToRunner},
    snapshot::{Record, Snapshot},
    v1alpha1::Execution,
};
use scriptrunner_runner::session::{self as runner, SessionConfig, SessionEvent, Timing, Token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::house::{House, PATIENCE, token_of};
use crate::sessions::wire::tests::{TEXT, frame};

/// A runner's side that does all that a runner does.
pub(super) struct Honest {
    pub(super) outbox: watch::Sender<Option<Arc<Snapshot>>>,
    pub(super) events: mpsc::Receiver<SessionEvent>,
}

/// Pauses that a test can wait for.
pub(super) fn timing() -> Timing {
    let short = Duration::from_millis(50);
    Timing {
        spacing: short,
        hold_back: short,
        backoff_first: short,
        reconnect_spread: short,
        ..Timing::default()
    }
}

/// Starts the session of a pod, as its arguments would tell it to.
pub(super) fn honest(house: &House, uid: &str) -> Honest {
    let settings = house.door.settings().unwrap();
    let door = runner::Door::new(&settings.address, &settings.name, &settings.authorities).unwrap();
    let config = SessionConfig { door, token: Token::Text(token_of(uid)), boot: boot(uid), timing: timing() };
    let (outbox, receiver) = watch::channel(None);
    let (sender, events) = mpsc::channel(64);
    tokio::spawn(runner::run(config, receiver, sender));
    Honest { outbox, events }
}

impl Honest {
    /// What the operator says next.
    pub(super) async fn next(&mut self) -> SessionEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a session")
    }
}

fn boot(uid: &str) -> String {
    uid.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// A snapshot with one execution per serial.
pub(super) fn snapshot(uid: &str, seq: u64, serials: &[u64]) -> Snapshot {
    let execution = |&serial| Execution {
        run: 1,
        attempt: 1,
        serial,
        exit_code: Some(0),
        stdout: format!("answer {serial}\n"),
        ..Execution::default()
    };
    let record = Record {
        protocol: PROTOCOL,
        boot: boot(uid),
        run: 1,
        attempt: 1,
        seq,
        state: "Running".to_owned(),
        reason: String::new(),
        message: String::new(),
        executions: serials.iter().copied().max().unwrap_or(0),
        failures: 0,
        serial: serials.iter().copied().max().unwrap_or(0),
        handed_over: false,
        exit_code: Some(0),
        signal: None,
    };
    Snapshot { record, history: serials.iter().map(execution).collect() }
}

/// The frame of a whole snapshot.
pub(super) fn snapshot_frame(uid: &str, seq: u64) -> String {
    let Snapshot { record, history } = snapshot(uid, seq, &[seq]);
    FromRunner::Snapshot(SnapshotPart { record, history, more: false }).encode()
}

/// The first frame.
pub(super) fn hello() -> String {
    FromRunner::Hello(Hello { protocol: PROTOCOL, version: "test".to_owned(), boot: "b".to_owned() }).encode()
}

/// A TLS connection whose client says whatever it is told to.
pub(super) struct Raw(pub(super) TlsStream<TcpStream>);

/// The TLS of a client that trusts these authorities.
pub(super) fn tls(authorities: &[String]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from(STANDARD.decode(authority).unwrap())).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Connects with TLS.
pub(super) async fn connect(house: &House) -> Raw {
    let settings = house.door.settings().unwrap();
    let name = ServerName::try_from(settings.name).unwrap();
    let tcp = TcpStream::connect(house.address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let connector = TlsConnector::from(Arc::new(tls(&settings.authorities)));
    Raw(connector.connect(name, tcp).await.unwrap())
}

/// A request for a session.
pub(super) fn request(token: &str) -> String {
    format!(
        "GET {PATH} HTTP/1.1\r\nHost: door\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

/// Connects, asks, and says hello.
pub(super) async fn session(house: &House, uid: &str) -> Raw {
    let mut raw = accepted(house, uid).await;
    raw.say(&hello()).await;
    raw
}

/// Connects and asks.
pub(super) async fn accepted(house: &House, uid: &str) -> Raw {
    let mut raw = connect(house).await;
    raw.write(request(&token_of(uid)).as_bytes()).await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    raw
}

impl Raw {
    /// Writes bytes; that the door may have closed the connection is seen when reading.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }

    /// Sends a message.
    pub(super) async fn say(&mut self, message: &str) {
        self.write(&frame(TEXT, message.as_bytes())).await;
    }

    /// Reads the head of an answer.
    pub(super) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = self.0.read_u8().await else { return };
                head.push(byte);
            }
        };
        timeout(PATIENCE, reading).await.expect("an answer in time");
        String::from_utf8(head).unwrap()
    }

    /// What is answered to a request: its code, and the frame in its body.
    pub(super) async fn refusal(&mut self, request: &str) -> (u16, Option<ToRunner>) {
        self.write(request.as_bytes()).await;
        let head = self.head().await;
        let code = head.split(' ').nth(1).map_or(0, |code| code.parse().unwrap());
        let mut body = String::new();
        let reading = self.0.read_to_string(&mut body);
        timeout(PATIENCE, reading).await.expect("the end in time").expect("an end that is meant");
        (code, ToRunner::decode(&body).ok())
    }

    /// The next frame of the door as its first byte and its payload; none at the end of the connection.
    pub(super) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let reading = async {
            let first = self.0.read_u8().await.ok()?;
            let length = match self.0.read_u8().await.ok()? {
                126 => usize::from(self.0.read_u16().await.ok()?),
                127 => usize::try_from(self.0.read_u64().await.ok()?).unwrap(),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        };
        timeout(PATIENCE, reading).await.expect("a frame in time")
    }

    /// The next message of the door; none at its goodbye or at the end.
    pub(super) async fn hear(&mut self) -> Option<ToRunner> {
        loop {
            match self.frame().await? {
                (0x81, payload) => {
                    return Some(ToRunner::decode(&String::from_utf8(payload).unwrap()).unwrap());
                }
                (0x89, _) => {}
                (0x88, _) => return None,
                other => panic!("{other:?}"),
            }
        }
    }
}
