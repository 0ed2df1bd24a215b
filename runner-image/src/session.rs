//! The runner's side of a session: keeps one open, sends the newest snapshot and hears what the operator says. Talks to the
//! network; never looks at the environment.
//!
//! [`run`] is the whole of it. What it is given to send is a snapshot that replaces the one before, so nothing piles up
//! while there is no session; what was acknowledged is not sent again.

mod backlog;
mod backoff;
mod door;
mod pace;
mod upgrade;

use std::{convert::Infallible, fs::File, io::Read, path::PathBuf, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use scriptrunner_api::{
    labels::PROTOCOL,
    session::{
        self as api, Ack, FromRunner, Hello, MAX_FROM_RUNNER_BYTES, RunOrder, ToRunner, snapshot_messages,
    },
    snapshot::Snapshot,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message},
};

pub use self::door::{Door, Error};
use self::{
    backlog::Backlog,
    backoff::{Backoff, chance},
    door::Unreached,
    pace::Pace,
    upgrade::Answer,
};

/// Longest token.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
/// Longest pause that an operator can ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// How long saying goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The newest snapshot. Its `seq` grows with each that replaces it.
pub type Outbox = watch::Receiver<Option<Arc<Snapshot>>>;

/// With whom a session is held, and as whom.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The operator.
    pub door: Door,
    /// What the operator learns from who speaks.
    pub token: Token,
    /// The `boot` of all snapshots.
    pub boot: String,
    /// How long things take.
    pub timing: Timing,
}

/// What the operator learns from who speaks.
#[derive(Clone, Debug)]
pub enum Token {
    /// A file, read afresh at each connect, because the kubelet renews it.
    File(PathBuf),
    /// The token itself.
    Text(String),
}

/// How long things take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Longest time until a TCP connection stands, 5 s.
    pub connect: Duration,
    /// Longest time from there until the operator has accepted, 20 s: thousands may ask at once.
    pub handshake: Duration,
    /// Longest time that the operator may leave a message in the pipe, 10 s.
    pub write: Duration,
    /// Longest time without a word from the operator, 90 s; it pings every 30 s.
    pub silence: Duration,
    /// Least time between two snapshots, 200 ms; the first and the last of all go at once.
    pub spacing: Duration,
    /// How long the news that an execution began waits for its end, 1 s.
    pub hold_back: Duration,
    /// Pause after the first failure, 500 ms; each further one in a row doubles it. All pauses are spread by a half.
    pub backoff_first: Duration,
    /// Longest pause, 10 s.
    pub backoff_longest: Duration,
    /// Longest pause after a session that worked, 1 s; any pause up to it is as likely.
    pub reconnect_spread: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(20),
            write: Duration::from_secs(10),
            silence: Duration::from_secs(90),
            spacing: Duration::from_millis(200),
            hold_back: Duration::from_secs(1),
            backoff_first: Duration::from_millis(500),
            backoff_longest: Duration::from_secs(10),
            reconnect_spread: Duration::from_secs(1),
        }
    }
}

/// What became of the session, and what the operator said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The operator accepted, and knows where this runner stands.
    Connected,
    /// A try failed or the session broke; it is tried again after a pause.
    Disconnected {
        /// Why.
        why: String,
    },
    /// The operator asked for a pause before the next try.
    Postponed {
        /// Why.
        reason: String,
    },
    /// Everything up to a snapshot of this boot is stored.
    Acked(Ack),
    /// Run again.
    Run(Box<RunOrder>),
    /// End now, as on SIGTERM.
    Stop {
        /// Why.
        reason: String,
    },
    /// End after the current execution; what remains is for another pod.
    HandOver {
        /// Why.
        reason: String,
    },
    /// The operator said what makes no sense here; the session goes on.
    Ignored {
        /// What.
        what: String,
    },
    /// There will be no session: the last event.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Why there is no session any more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("cannot read the token {path:?}: {source}")]
    ReadToken { path: PathBuf, source: std::io::Error },
    #[error("the token is not one line of visible characters")]
    MatchToken,
    #[error(transparent)]
    Reach(#[from] Unreached),
    #[error(transparent)]
    Upgrade(#[from] upgrade::Error),
    #[error("the operator did not accept within {0:?}")]
    Accept(Duration),
    #[error("the connection broke: {0}")]
    Exchange(#[from] tungstenite::Error),
    #[error("the operator took nothing for {0:?}")]
    Write(Duration),
    #[error("nothing was heard from the operator for {0:?}")]
    Hear(Duration),
    #[error("the operator closed the connection")]
    Closed,
    #[error("cannot understand the operator: {0}")]
    Decode(#[source] api::Error),
    #[error("the operator answered a request for a session with {0}")]
    MatchAnswer(String),
    #[error("this operator does not lead")]
    NotLeader,
}

/// How a connection, or the try to get one, ended.
enum Parting {
    Broken(Broken),
    Postponed {
        pause: Duration,
        reason: String,
    },
    Refused {
        reason: String,
    },
    /// Nobody has anything to send, or listens.
    Abandoned,
}

impl<E: Into<Broken>> From<E> for Parting {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

struct Session {
    config: SessionConfig,
    outbox: Outbox,
    events: mpsc::Sender<SessionEvent>,
    backlog: Backlog,
    backoff: Backoff,
}

/// Keeps a session open until the operator refuses it for good, the outbox has no sender any more, or nobody receives the
/// events. Nothing goes on while the events are full.
pub async fn run(config: SessionConfig, outbox: Outbox, events: mpsc::Sender<SessionEvent>) {
    let Timing { backoff_first, backoff_longest, reconnect_spread, .. } = config.timing;
    let backoff = Backoff::new(backoff_first, backoff_longest, reconnect_spread);
    let mut session = Session { config, outbox, events, backlog: Backlog::default(), backoff };
    while let Some(pause) = session.once().await {
        tokio::select! {
            () = sleep(pause) => {}
            () = abandoned(&mut session.outbox, &session.events) => return,
        }
    }
}

/// Waits until there is nobody left to talk for.
async fn abandoned(outbox: &mut Outbox, events: &mpsc::Sender<SessionEvent>) {
    let gone = async { while outbox.changed().await.is_ok() {} };
    tokio::select! {
        () = gone => {}
        () = events.closed() => {}
    }
}

impl Session {
    /// One connection. Returns the pause before the next.
    async fn once(&mut self) -> Option<Duration> {
        let opened = tokio::select! {
            // Its state is large, and not needed while a session is held.
            opened = Box::pin(open(&self.config)) => opened,
            () = abandoned(&mut self.outbox, &self.events) => return None,
        };
        let (parting, worked) = match opened {
            Ok(Answer::Accepted(socket)) => self.talk(socket).await,
            Ok(Answer::Refused(frame)) => (refusal(frame), false),
            Err(broken) => (Parting::Broken(broken), false),
        };
        let (pause, event) = match parting {
            Parting::Broken(broken) => {
                let pause = if worked {
                    self.backoff.after_session(chance())
                } else {
                    self.backoff.after_failure(chance())
                };
                (Some(pause), SessionEvent::Disconnected { why: broken.to_string() })
            }
            Parting::Postponed { pause, reason } => {
                (Some(backoff::as_told(pause, chance())), SessionEvent::Postponed { reason })
            }
            Parting::Refused { reason } => (None, SessionEvent::Refused { reason }),
            Parting::Abandoned => return None,
        };
        self.events.send(event).await.is_ok().then_some(pause)?
    }

    /// Holds a session. Returns also whether it was of use: one that breaks as soon as it stands is a failed try.
    async fn talk(&mut self, mut socket: Box<Socket>) -> (Parting, bool) {
        let began = Instant::now();
        let mut was_acked = false;
        let parting = match self.exchange(&mut socket, &mut was_acked).await {
            Ok(never) => match never {},
            Err(parting) => parting,
        };
        if matches!(parting, Parting::Abandoned) {
            // Whether the operator hears it changes nothing.
            let _ = timeout(FAREWELL, socket.as_mut().close(None)).await;
        }
        (parting, was_acked || began.elapsed() >= self.config.timing.backoff_longest)
    }

    async fn exchange(&mut self, socket: &mut Socket, was_acked: &mut bool) -> Result<Infallible, Parting> {
        let Timing { write, silence, spacing, hold_back, .. } = self.config.timing;
        let hello = Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.config.boot.clone(),
        };
        send(socket, FromRunner::Hello(hello).encode(), write).await?;
        self.tell(SessionEvent::Connected).await?;
        let mut pace = Pace::new(spacing, hold_back);
        let mut heard = Instant::now();
        loop {
            let newest = self.outbox.borrow_and_update().clone();
            let due = newest.as_deref().and_then(|newest| pace.due(newest, Instant::now()));
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    let message = message.ok_or(Broken::Closed)?.map_err(Broken::Exchange)?;
                    *was_acked |= self.hear(message).await?;
                }
                changed = self.outbox.changed() => changed.map_err(|_| Parting::Abandoned)?,
                () = self.events.closed() => return Err(Parting::Abandoned),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some(newest) = newest {
                        for message in snapshot_messages(&self.backlog.of(&newest), MAX_FROM_RUNNER_BYTES) {
                            send(socket, message, write).await?;
                        }
                        self.backlog.sent(&newest);
                        pace.sent(&newest, Instant::now());
                    }
                }
                () = sleep_until(heard + silence) => return Err(Broken::Hear(silence).into()),
            }
        }
    }

    /// Takes in a message; says whether it was an acknowledgement.
    async fn hear(&mut self, message: Message) -> Result<bool, Parting> {
        let text = match message {
            Message::Text(text) => text,
            // The library has answered the ping.
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => return Ok(false),
            Message::Close(_) => return Err(Broken::Closed.into()),
        };
        match ToRunner::decode(&text).map_err(Broken::Decode)? {
            ToRunner::Ack(ack) if ack.boot == self.config.boot => {
                self.backlog.acked(ack.seq);
                self.tell(SessionEvent::Acked(ack)).await?;
                return Ok(true);
            }
            // Of a start before this one.
            ToRunner::Ack(_) | ToRunner::Unknown => {}
            ToRunner::Run(order) => self.tell(SessionEvent::Run(order)).await?,
            ToRunner::Stop { reason } => self.tell(SessionEvent::Stop { reason }).await?,
            ToRunner::HandOver { reason } => self.tell(SessionEvent::HandOver { reason }).await?,
            ToRunner::NewCa { authorities } => {
                if let Err(error) = self.config.door.trust(&authorities) {
                    self.tell(SessionEvent::Ignored { what: format!("new authorities: {error}") }).await?;
                }
            }
            last @ (ToRunner::RetryAfter { .. } | ToRunner::NotLeader | ToRunner::Refused { .. }) => {
                return Err(refusal(last));
            }
        }
        Ok(false)
    }

    async fn tell(&self, event: SessionEvent) -> Result<(), Parting> {
        self.events.send(event).await.map_err(|_| Parting::Abandoned)
    }
}

async fn open(config: &SessionConfig) -> Result<Answer<TlsStream<TcpStream>>, Broken> {
    let token = config.token.read()?;
    let stream = config.door.tcp(config.timing.connect).await?;
    let accept = async {
        let stream = config.door.tls(stream).await?;
        Ok(upgrade::upgrade(stream, &config.door.host(), &token).await?)
    };
    timeout(config.timing.handshake, accept).await.map_err(|_| Broken::Accept(config.timing.handshake))?
}

/// What a frame means that ends the connection.
fn refusal(frame: ToRunner) -> Parting {
    match frame {
        ToRunner::RetryAfter { millis, reason } => {
            Parting::Postponed { pause: Duration::from_millis(millis).min(LONGEST_PAUSE), reason }
        }
        ToRunner::NotLeader => Broken::NotLeader.into(),
        ToRunner::Refused { reason } => Parting::Refused { reason },
        other @ (ToRunner::Ack(_)
        | ToRunner::Run(_)
        | ToRunner::Stop { .. }
        | ToRunner::HandOver { .. }
        | ToRunner::NewCa { .. }
        | ToRunner::Unknown) => Broken::MatchAnswer(other.encode()).into(),
    }
}

async fn send(socket: &mut Socket, message: String, patience: Duration) -> Result<(), Broken> {
    let sent = timeout(patience, socket.send(Message::text(message))).await;
    Ok(sent.map_err(|_| Broken::Write(patience))??)
}

impl Token {
    fn read(&self) -> Result<String, Broken> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::File(path) => {
                let mut text = String::new();
                // A few hundred bytes in memory, so nobody waits for a disk here.
                File::open(path)
                    .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
                    .map_err(|source| Broken::ReadToken { path: path.clone(), source })?;
                text
            }
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Broken::MatchToken);
        }
        Ok(token.to_owned())
    }
}

#[cfg(test)]
mod tests;
