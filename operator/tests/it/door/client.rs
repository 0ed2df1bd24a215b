//! A client that says whatever it is told to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

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
    snapshot::Record,
    v1alpha1::Execution,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(30);

/// A TLS connection to the door.
pub(crate) struct Raw(TlsStream<TcpStream>);

/// What the door answers to a request.
pub(crate) enum Answer {
    Accepted(Box<Raw>),
    Refused(u16, ToRunner),
}

/// Connects with TLS.
pub(crate) async fn connect(address: SocketAddr, name: &str, authorities: &[String]) -> Raw {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from(STANDARD.decode(authority).unwrap())).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    Raw(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
}

/// Asks for a session with this token.
pub(crate) async fn ask(stage: &Stage, token: &str) -> Answer {
    let mut raw = connect(stage.address, &stage.name, &stage.authorities).await;
    raw.write(request(token).as_bytes()).await;
    let head = raw.head().await;
    if head.starts_with("HTTP/1.1 101 ") {
        return Answer::Accepted(Box::new(raw));
    }
    let (code, body) = raw.body(&head).await;
    Answer::Refused(code, ToRunner::decode(&body).unwrap())
}

/// A request for a session.
pub(crate) fn request(token: &str) -> String {
    format!(
        "GET {PATH} HTTP/1.1\r\nHost: door\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

/// The first frame.
pub(crate) fn hello() -> String {
    FromRunner::Hello(Hello { protocol: PROTOCOL, version: "test".to_owned(), boot: "b".to_owned() }).encode()
}

/// The record of a snapshot.
pub(crate) fn record(boot: &str, seq: u64, run: u64) -> Record {
    Record {
        protocol: PROTOCOL,
        boot: boot.to_owned(),
        run,
        attempt: 1,
        seq,
        state: "Running".to_owned(),
        reason: String::new(),
        message: String::new(),
        executions: 1,
        failures: 0,
        serial: 1,
        handed_over: false,
        exit_code: Some(0),
        signal: None,
    }
}

/// The frame of a snapshot with one execution.
pub(crate) fn snapshot(boot: &str, seq: u64, run: u64) -> String {
    let execution = Execution {
        run,
        attempt: 1,
        serial: 1,
        exit_code: Some(0),
        stdout: "x".repeat(200),
        ..Execution::default()
    };
    let record = record(boot, seq, run);
    FromRunner::Snapshot(SnapshotPart { record, history: vec![execution], more: false }).encode()
}

/// A message as a client sends it.
pub(crate) fn frame(message: &str) -> Vec<u8> {
    let length = u64::try_from(message.len()).unwrap();
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![0x81, 0xff];
    bytes.extend(length.to_be_bytes());
    bytes.extend(mask);
    bytes.extend(message.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

impl Raw {
    /// Writes bytes; that the door has closed the connection is seen when reading.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }

    /// Sends a message.
    pub(crate) async fn say(&mut self, message: &str) {
        self.write(&frame(message)).await;
    }

    /// What is answered to a request.
    pub(crate) async fn refusal(&mut self, request: &str) -> (u16, String) {
        self.write(request.as_bytes()).await;
        let head = self.head().await;
        self.body(&head).await
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.unwrap());
            }
        };
        timeout(PATIENCE, reading).await.unwrap();
        String::from_utf8(head).unwrap()
    }

    async fn body(&mut self, head: &str) -> (u16, String) {
        let mut body = String::new();
        timeout(PATIENCE, self.0.read_to_string(&mut body)).await.unwrap().unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// The next message of the door; none at its goodbye or at the end of the connection.
    pub(crate) async fn hear(&mut self) -> Option<ToRunner> {
        timeout(PATIENCE, async {
            loop {
                let first = self.0.read_u8().await.ok()?;
                let length = match self.0.read_u8().await.ok()? {
                    126 => usize::from(self.0.read_u16().await.ok()?),
                    length => usize::from(length),
                };
                let mut payload = vec![0; length];
                self.0.read_exact(&mut payload).await.ok()?;
                match first {
                    0x81 => return Some(ToRunner::decode(&String::from_utf8(payload).unwrap()).unwrap()),
                    0x88 => return None,
                    _ => {}
                }
            }
        })
        .await
        .unwrap()
    }
}
