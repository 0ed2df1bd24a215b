//! A small door: accepts runners over real TLS, keeps what they say, and says what the test wants.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    time::Instant,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, SupportedProtocolVersion, crypto::ring, version::TLS13};
use scriptrunner_api::{
    session::{Ack, FromRunner, Hello, SUBPROTOCOL, SnapshotPart, ToRunner},
    snapshot::{Record, Snapshot},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use crate::pod::PATIENCE;

/// The name in the door's certificate.
pub(crate) const NAME: &str = "door.scriptrunner-system.svc";

/// Signs certificates of doors.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// As runners are told of it.
    pub(crate) base64: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let base64 = STANDARD.encode(params.self_signed(&key).unwrap().der());
        Self { issuer: Issuer::new(params, key), base64 }
    }

    /// What a door with a certificate for the name is to be opened with.
    pub(crate) fn server(&self, name: &str, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap());
        Arc::new(config.unwrap())
    }
}

/// How the next connection is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// With a refusal before the upgrade, with this body.
    Refuse(ToRunner),
    /// With nothing at all, not even a handshake.
    Stall,
}

pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    inner: Arc<Inner>,
    visits: mpsc::Receiver<Visit>,
    _runtime: Runtime,
}

struct Inner {
    tls: Mutex<Arc<ServerConfig>>,
    answers: Mutex<VecDeque<Answer>>,
    /// When each connection came.
    knocks: Mutex<Vec<Instant>>,
}

/// A runner that was let in.
pub(crate) struct Visit {
    pub(crate) token: String,
    pub(crate) hello: Hello,
    frames: mpsc::Receiver<Heard>,
    orders: UnboundedSender<Order>,
}

/// What a runner sent, and when.
#[derive(Debug)]
enum Heard {
    Part(Instant, Box<SnapshotPart>),
    Pong,
    Goodbye,
}

#[derive(Debug)]
enum Order {
    Say(String),
    Ping,
    /// Neither reads nor answers any more, and keeps the connection.
    Freeze,
    /// Ends the connection without a word.
    Drop,
}

impl Door {
    pub(crate) fn open() -> Self {
        let authority = Authority::new();
        let tls = authority.server(NAME, &TLS13);
        Self::open_with("127.0.0.1:0".parse().unwrap(), authority, tls)
    }

    pub(crate) fn open_with(address: SocketAddr, authority: Authority, tls: Arc<ServerConfig>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let (sender, visits) = mpsc::channel();
        let inner =
            Arc::new(Inner { tls: Mutex::new(tls), answers: Mutex::default(), knocks: Mutex::default() });
        let address = listener.local_addr().unwrap();
        runtime.spawn(listen(listener, Arc::clone(&inner), sender));
        Self { address, authority, inner, visits, _runtime: runtime }
    }

    /// An address at which nobody listens, though somebody may later.
    pub(crate) fn nowhere() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// Answers the next connections so, before letting in again.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inner.answers.lock().unwrap().extend(answers);
    }

    /// Shows another certificate from now on.
    pub(crate) fn show(&self, tls: Arc<ServerConfig>) {
        *self.inner.tls.lock().unwrap() = tls;
    }

    /// When each connection came so far.
    pub(crate) fn knocks(&self) -> Vec<Instant> {
        self.inner.knocks.lock().unwrap().clone()
    }

    /// Waits for a runner that is let in.
    pub(crate) fn visit(&self) -> Visit {
        self.visits.recv_timeout(PATIENCE).expect("a runner should come")
    }

    pub(crate) fn has_no_visit(&self) -> bool {
        self.visits.try_recv().is_err()
    }
}

impl Visit {
    /// The next snapshot, its parts put together, and when its last part came.
    pub(crate) fn snapshot_at(&self) -> (Snapshot, Instant) {
        let mut history = Vec::new();
        loop {
            match self.heard() {
                Heard::Part(at, part) => {
                    history.extend(part.history);
                    if !part.more {
                        return (Snapshot { record: part.record, history }, at);
                    }
                }
                Heard::Pong => {}
                Heard::Goodbye => panic!("the runner left"),
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_at().0
    }

    /// Takes snapshots until one satisfies the condition.
    pub(crate) fn snapshot_where(&self, condition: impl Fn(&Snapshot) -> bool) -> Snapshot {
        loop {
            let snapshot = self.snapshot();
            if condition(&snapshot) {
                return snapshot;
            }
        }
    }

    /// Takes snapshots until the runner's end.
    pub(crate) fn last_snapshot(&self) -> Snapshot {
        self.snapshot_where(|snapshot| snapshot.record.state != "Running" || snapshot.record.handed_over)
    }

    pub(crate) fn ack(&self, record: &Record) {
        self.say(&ToRunner::Ack(Ack { boot: record.boot.clone(), seq: record.seq }));
    }

    pub(crate) fn say(&self, frame: &ToRunner) {
        self.say_text(frame.encode());
    }

    pub(crate) fn say_text(&self, text: String) {
        // The runner may have left.
        let _ = self.orders.send(Order::Say(text));
    }

    pub(crate) fn freeze(&self) {
        self.orders.send(Order::Freeze).unwrap();
    }

    pub(crate) fn drop_connection(self) {
        let _ = self.orders.send(Order::Drop);
    }

    /// Pings, and waits for the answer.
    pub(crate) fn ping(&self) {
        self.orders.send(Order::Ping).unwrap();
        while !matches!(self.heard(), Heard::Pong) {}
    }

    /// Waits until the runner says goodbye, as opposed to an end without a word.
    pub(crate) fn wait_for_goodbye(&self) {
        while !matches!(self.heard(), Heard::Goodbye) {}
    }

    /// Waits until the connection has ended, whoever ended it.
    pub(crate) fn wait_for_end(&self) {
        let end = Instant::now() + PATIENCE;
        while self.frames.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < end, "the connection should end");
    }

    fn heard(&self) -> Heard {
        self.frames.recv_timeout(PATIENCE).expect("the runner should say something")
    }
}

async fn listen(listener: TcpListener, inner: Arc<Inner>, visits: mpsc::Sender<Visit>) {
    while let Ok((stream, _)) = listener.accept().await {
        inner.knocks.lock().unwrap().push(Instant::now());
        let answer = inner.answers.lock().unwrap().pop_front();
        let tls = TlsAcceptor::from(Arc::clone(&*inner.tls.lock().unwrap()));
        let visits = visits.clone();
        tokio::spawn(async move {
            match answer {
                Some(Answer::Stall) => {
                    std::future::pending::<()>().await;
                    drop(stream);
                }
                Some(Answer::Refuse(frame)) => {
                    let _ = accept(tls, stream, Some(frame)).await;
                }
                None => {
                    if let Some((socket, token)) = accept(tls, stream, None).await {
                        host(socket, token, visits).await;
                    }
                }
            }
        });
    }
}

#[expect(clippy::result_large_err, reason = "the library wants it so")]
async fn accept(
    tls: TlsAcceptor,
    stream: TcpStream,
    refusal: Option<ToRunner>,
) -> Option<(WebSocketStream<TlsStream<TcpStream>>, String)> {
    let stream = tls.accept(stream).await.ok()?;
    let mut token = String::new();
    let decide = |request: &Request, mut response: Response| {
        let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(request.uri().path(), "/v1/session");
        assert_eq!(header("sec-websocket-protocol"), SUBPROTOCOL);
        token = header("authorization").strip_prefix("Bearer ").unwrap().to_owned();
        response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        match refusal {
            None => Ok(response),
            Some(frame) => {
                let body = frame.encode();
                let mut refused = ErrorResponse::new(Some(body.clone()));
                *refused.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::SERVICE_UNAVAILABLE;
                refused.headers_mut().insert("content-length", body.len().into());
                Err(refused)
            }
        }
    };
    let socket = accept_hdr_async(stream, decide).await.ok()?;
    Some((socket, token))
}

async fn host(mut socket: WebSocketStream<TlsStream<TcpStream>>, token: String, visits: mpsc::Sender<Visit>) {
    let Some(Ok(Message::Text(first))) = socket.next().await else { return };
    let Ok(FromRunner::Hello(hello)) = FromRunner::decode(&first) else { panic!("no hello: {first}") };
    let (frame_sender, frames) = mpsc::channel();
    let (order_sender, orders) = unbounded_channel();
    if visits.send(Visit { token, hello, frames, orders: order_sender }).is_ok() {
        converse(socket, frame_sender, orders).await;
    }
}

async fn converse(
    mut socket: WebSocketStream<TlsStream<TcpStream>>,
    frames: mpsc::Sender<Heard>,
    mut orders: UnboundedReceiver<Order>,
) {
    loop {
        let heard = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    assert!(text.len() <= 64 * 1024, "{} bytes", text.len());
                    match FromRunner::decode(&text).unwrap() {
                        FromRunner::Snapshot(part) => Heard::Part(Instant::now(), Box::new(part)),
                        other => panic!("{other:?}"),
                    }
                }
                Some(Ok(Message::Pong(_))) => Heard::Pong,
                Some(Ok(Message::Close(_))) => Heard::Goodbye,
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(_)) | None => return,
            },
            order = orders.recv() => match order {
                Some(Order::Say(text)) => {
                    let _ = socket.send(Message::text(text)).await;
                    continue;
                }
                Some(Order::Ping) => {
                    let _ = socket.send(Message::Ping("?".into())).await;
                    continue;
                }
                Some(Order::Drop) => return,
                // If the test has let go of the visit, the runner may stay.
                Some(Order::Freeze) | None => return std::future::pending().await,
            },
        };
        let _ = frames.send(heard);
    }
}
