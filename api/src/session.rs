//! What runner and operator say to each other over a session: version, frames, limits, and how a large snapshot is split.
//! Pure.
//!
//! A session is a WebSocket over TLS 1.3, opened by the runner: `GET` [`PATH`] with `Authorization: Bearer TOKEN` and
//! `Sec-WebSocket-Protocol:` [`SUBPROTOCOL`]. The operator learns who speaks from the token alone. It accepts (101), or answers
//! with another status code and one [`ToRunner`] frame as the body. After that both sides send text messages, each one frame in
//! JSON. The first frame of a runner is [`FromRunner::Hello`].
//!
//! **Versions.** The number in [`SUBPROTOCOL`] changes only when old and new cannot work together; a runner may offer several
//! and the operator chooses. Within a version both sides ignore fields and kinds of frames that they do not know
//! ([`FromRunner::Unknown`], [`ToRunner::Unknown`]), so that an old runner and a new operator work together, and the other way
//! round.
//!
//! **Ack = stored.** A snapshot is acknowledged only after the status that contains it was stored. What was not acknowledged is
//! sent again; receiving it twice changes nothing.

use serde::{Deserialize, Serialize};

use crate::{
    labels::PROTOCOL,
    reason::NodeReason,
    result,
    snapshot::{MAX_RECORD_TEXT_BYTES, Record, Snapshot, bound, known_boot},
    text::{harmless_head, make_harmless, tail},
    v1alpha1::{Execution, NodeState},
};

/// Path of the door.
pub const PATH: &str = "/v1/session";
/// The version that both sides speak, as WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "scriptrunner.v1";
/// Audience of the tokens that runners identify themselves with.
pub const AUDIENCE: &str = "scriptrunner.io";
/// Longest message from a runner, in bytes.
pub const MAX_FROM_RUNNER_BYTES: usize = 64 * 1024;
/// Longest message to a runner, in bytes.
pub const MAX_TO_RUNNER_BYTES: usize = 512 * 1024;
/// Longest version of a runner that is logged, in bytes.
const MAX_VERSION_BYTES: usize = 64;
/// How far `seq` and `serial` may be ahead of what is known of the pod. Far more than an honest runner makes between two
/// snapshots that arrive; a forged number cannot freeze a node's entry.
pub const MAX_STEP: u64 = 1 << 20;

/// A frame from a runner.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum FromRunner {
    /// The first frame: what the runner speaks and where it stands.
    Hello(Hello),
    /// What the runner did and was not acknowledged.
    Snapshot(SnapshotPart),
    /// A kind that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// What a runner says first. It identifies nobody: that does the token.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Version of the contract of arguments, inputs and messages, [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the runner, for logs.
    pub version: String,
    /// Random per start of the runner.
    pub boot: String,
}

/// A snapshot or a part of one: parts of a snapshot arrive in order, all with the same record.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPart {
    /// State of the runner as a whole.
    pub record: Record,
    /// Executions that were not acknowledged, newest last. Their `run` and `attempt` are the record's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Execution>,
    /// Whether more parts of this snapshot follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A frame to a runner, or the body of a refusal.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum ToRunner {
    /// Everything up to this snapshot is stored.
    Ack(Ack),
    /// Run again, without a new pod.
    Run(Box<RunOrder>),
    /// End now, as on SIGTERM.
    Stop {
        /// Why.
        reason: String,
    },
    /// End after the current execution, and say that what remains is for another pod. Doing it again changes nothing.
    HandOver {
        /// Why.
        reason: String,
    },
    /// Come again after this time; the connection is closed.
    RetryAfter {
        /// Milliseconds to wait; the runner adds jitter.
        millis: u64,
        /// Why.
        reason: String,
    },
    /// This operator does not lead; the connection is closed. Come again as after a broken connection.
    NotLeader,
    /// From now on trust these authorities, and no others.
    #[serde(rename = "newCA")]
    NewCa {
        /// Certificates, each in DER, base64.
        authorities: Vec<String>,
    },
    /// There is no session for this pod, now or later: do not come again.
    Refused {
        /// Why.
        reason: String,
    },
    /// A kind that this version does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// Everything up to `seq` is stored.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The start of the runner that the snapshot was from.
    pub boot: String,
    /// The snapshot.
    pub seq: u64,
}

/// A run that is sent over the session. It differs from the pod's first one only in script, args and numbers; sending it
/// twice is the same as once.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunOrder {
    /// The run; an order whose run is not newer than the runner's is ignored.
    pub run: u64,
    /// Ordinal of the pod within that run.
    pub attempt: u32,
    /// Serial of its first execution.
    pub first_serial: u64,
    /// Executions to make.
    pub remaining: u64,
    /// The pinned document of the run, as in `spec.json`.
    pub spec: String,
    /// The script.
    pub script: String,
    /// How many executions are kept.
    pub history_limit: usize,
    /// Bytes of cleaned stdout kept per execution.
    pub stdout_limit_bytes: usize,
    /// Bytes of cleaned stderr kept per execution.
    pub stderr_limit_bytes: usize,
    /// Seconds between SIGTERM and SIGKILL.
    pub grace_seconds: u32,
    /// Seconds that one execution may take; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_deadline_seconds: Option<u32>,
}

/// Why a message is not a frame.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not JSON of a frame.
    #[error("the message is not a frame: {0}")]
    Decode(#[source] serde_json::Error),
    /// It is of a contract that this version does not speak.
    #[error(
        "the frame is of protocol {found}, this operator speaks {PROTOCOL}; use a runner image of the operator's version"
    )]
    MatchProtocol {
        /// The protocol found.
        found: u32,
    },
    /// Its numbers are beyond any that a runner reaches.
    #[error("the frame has a number that no runner reaches")]
    Count,
}

impl FromRunner {
    /// Reads a message of a runner. All text is made harmless, whoever wrote it.
    pub fn decode(message: &str) -> Result<Self, Error> {
        let mut frame = decoded(message)?;
        match &mut frame {
            Self::Hello(hello) if hello.protocol != PROTOCOL => {
                return Err(Error::MatchProtocol { found: hello.protocol });
            }
            Self::Snapshot(part) if part.record.protocol != PROTOCOL => {
                return Err(Error::MatchProtocol { found: part.record.protocol });
            }
            Self::Snapshot(part) if !part.record.is_possible() => return Err(Error::Count),
            Self::Snapshot(part) => clean(part),
            Self::Hello(hello) => {
                hello.version = harmless_head(&hello.version, MAX_VERSION_BYTES);
                hello.boot = known_boot(&hello.boot);
            }
            Self::Unknown => {}
        }
        Ok(frame)
    }

    /// The message.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("plain data should serialise")
    }
}

impl ToRunner {
    /// Reads a message of the operator.
    pub fn decode(message: &str) -> Result<Self, Error> {
        decoded(message)
    }

    /// The message.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("plain data should serialise")
    }
}

/// A frame of an unknown kind is an object with one unknown key, which `serde(other)` alone does not take.
fn decoded<T: for<'de> Deserialize<'de> + UnknownKind>(message: &str) -> Result<T, Error> {
    match serde_json::from_str::<T>(message) {
        Ok(frame) => Ok(frame),
        Err(error) => match serde_json::from_str::<serde_json::Value>(message) {
            Ok(serde_json::Value::Object(frame))
                if frame.len() == 1 && !frame.keys().any(|kind| T::KINDS.contains(&kind.as_str())) =>
            {
                Ok(T::unknown())
            }
            Ok(_) | Err(_) => Err(Error::Decode(error)),
        },
    }
}

trait UnknownKind: Sized {
    /// Every kind of frame that has content.
    const KINDS: &[&str];
    fn unknown() -> Self;
}

impl UnknownKind for FromRunner {
    const KINDS: &[&str] = &["hello", "snapshot"];

    fn unknown() -> Self {
        Self::Unknown
    }
}

impl UnknownKind for ToRunner {
    const KINDS: &[&str] = &["ack", "run", "stop", "handOver", "retryAfter", "notLeader", "newCA", "refused"];

    fn unknown() -> Self {
        Self::Unknown
    }
}

fn clean(part: &mut SnapshotPart) {
    let record = &mut part.record;
    record.message = harmless_head(&record.message, MAX_RECORD_TEXT_BYTES);
    record.reason = known_reason(&record.reason);
    record.state = NodeState::parse(&record.state).as_str().to_owned();
    record.boot = known_boot(&record.boot);
    for execution in &mut part.history {
        (execution.run, execution.attempt) = (record.run, record.attempt);
        execution.reason = known_reason(&execution.reason);
        execution.stdout = make_harmless(execution.stdout.as_bytes());
        execution.stderr = make_harmless(execution.stderr.as_bytes());
        execution.digest = execution.digest.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        execution.result = result::received(execution.result.take(), &mut execution.reason);
        execution.result_digest.clear();
    }
    part.history.retain_mut(bound);
    part.history.sort_by_key(Execution::key);
    part.history.dedup_by_key(|execution| execution.key());
}

fn known_reason(text: &str) -> String {
    NodeReason::parse(text).map(|reason| reason.as_str().to_owned()).unwrap_or_default()
}

/// The messages of a snapshot, none over `limit` bytes (at most [`MAX_FROM_RUNNER_BYTES`]): as many executions in each as fit;
/// an execution that does not fit alone keeps the ends of its outputs.
pub fn snapshot_messages(snapshot: &Snapshot, limit: usize) -> Vec<String> {
    let limit = limit.min(MAX_FROM_RUNNER_BYTES);
    let message = |history: &[Execution], more| {
        let record = snapshot.record.clone();
        FromRunner::Snapshot(SnapshotPart { record, history: history.to_vec(), more }).encode()
    };
    let frame = message(&[], true).len() + "\"history\":[],".len();
    let room = limit.saturating_sub(frame);
    let mut messages = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for execution in &snapshot.history {
        let (execution, size) = fitted(execution, room);
        if bytes + size + 1 > room && !part.is_empty() {
            messages.push(message(&part, true));
            (part, bytes) = (Vec::new(), 0);
        }
        part.push(execution);
        bytes += size + 1;
    }
    messages.push(message(&part, false));
    messages
}

/// The execution, its outputs cut until it fits into `room` bytes of JSON; and its size.
fn fitted(execution: &Execution, room: usize) -> (Execution, usize) {
    let size =
        |execution: &Execution| serde_json::to_string(execution).expect("plain data should serialise").len();
    let mut cut = execution.clone();
    let mut bytes = size(&cut);
    // One byte of output can take six of JSON, so the room for output is narrowed until it fits.
    let mut keep = execution.stdout.len().max(execution.stderr.len());
    while bytes + 1 > room && keep > 0 {
        keep = keep * 3 / 4;
        cut.stdout = tail(&execution.stdout, keep).to_owned();
        cut.stderr = tail(&execution.stderr, keep).to_owned();
        bytes = size(&cut);
    }
    (cut, bytes)
}

#[cfg(test)]
mod tests;
