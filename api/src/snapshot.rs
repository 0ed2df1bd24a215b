//! What a runner says about its node, and its form as a termination message of at most 4096 bytes. Pure.
//!
//! The message is text, one line per part, each `checksum SPACE json`: the first line is the record (state, counts), each
//! further line one execution, the newest first, then failures, then the others from new to old. A line that does not match
//! its checksum is dropped, so that a cut or scribbled file costs only what was hit: of a longer file the kubelet keeps the
//! last 4096 bytes.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    digest::sha256_hex,
    labels::PROTOCOL,
    reason::NodeReason,
    result,
    text::{harmless_head, head, make_harmless, tail},
    v1alpha1::{Execution, NodeState},
};

/// Longest termination message that a kubelet passes on, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// The largest number that a runner can mean. Every reader of JSON knows it exactly, and what is stored has room for the sum of
/// many; a larger one would make the status of all nodes one that the API server refuses.
pub const MAX_NUMBER: u64 = 1 << 53;
/// Longest text of a record's `message`, in bytes.
pub const MAX_RECORD_TEXT_BYTES: usize = 512;
const CHECKSUM_DIGITS: usize = 8;

/// State of the runner as a whole. Serialised in short form: it shares 4096 bytes with the answers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Version of the contract, [`PROTOCOL`].
    #[serde(rename = "v")]
    pub protocol: u32,
    /// Random per start of the runner, so that a second start is told from the first.
    #[serde(rename = "b")]
    pub boot: String,
    /// The run.
    #[serde(rename = "r")]
    pub run: u64,
    /// Ordinal of the pod within the run.
    #[serde(rename = "a")]
    pub attempt: u32,
    /// Grows with every snapshot of this runner.
    #[serde(rename = "q")]
    pub seq: u64,
    /// What became of the node so far: `Running`, `Succeeded`, `Failed`, `Skipped`, `Stopped` or `Unknown`.
    #[serde(rename = "s")]
    pub state: String,
    /// Why, a [`NodeReason`]; empty where the state says it.
    #[serde(rename = "w", default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, in a sentence, at most [`MAX_RECORD_TEXT_BYTES`].
    #[serde(rename = "m", default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Executions of this runner that began.
    #[serde(rename = "x", default)]
    pub executions: u64,
    /// Of these, failed.
    #[serde(rename = "f", default)]
    pub failures: u64,
    /// Serial of the newest execution of this runner; 0 if none began.
    #[serde(rename = "n", default)]
    pub serial: u64,
    /// Whether more executions are to follow in another pod.
    #[serde(rename = "h", default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
    /// Exit code of the newest execution.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the newest execution.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl Record {
    /// What a runner of this version says before its first execution.
    pub fn new(boot: String, run: u64, attempt: u32) -> Self {
        Self {
            protocol: PROTOCOL,
            boot,
            run,
            attempt,
            seq: 0,
            state: NodeState::Running.as_str().to_owned(),
            reason: String::new(),
            message: String::new(),
            executions: 0,
            failures: 0,
            serial: 0,
            handed_over: false,
            exit_code: None,
            signal: None,
        }
    }

    /// Whether a runner can have come so far.
    pub(crate) fn is_possible(&self) -> bool {
        [self.run, self.seq, self.executions, self.failures, self.serial]
            .into_iter()
            .all(|number| number <= MAX_NUMBER)
    }
}

/// A runner's record and its newest executions, newest last.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// State of the runner as a whole.
    pub record: Record,
    /// The newest executions, newest last. Their `run` and `attempt` are the record's.
    pub history: Vec<Execution>,
}

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no first line that matches its checksum and that a runner can have written.
    #[error("the first line of the termination message is missing or damaged")]
    ReadRecord,
    /// The record is of a contract that this version does not speak.
    #[error(
        "the termination message is of protocol {found}, this operator reads {PROTOCOL}; use a runner image of the operator's version"
    )]
    MatchProtocol {
        /// The protocol found.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(rename = "n")]
    serial: u64,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    start_seconds: Option<i64>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    duration_millis: Option<u64>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(rename = "w", default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(rename = "o", default, skip_serializing_if = "String::is_empty")]
    stdout: String,
    #[serde(rename = "r", default, skip_serializing_if = "String::is_empty")]
    stderr: String,
    #[serde(rename = "O", default, skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(rename = "R", default, skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

impl Snapshot {
    /// The termination message: never over `limit` bytes (at most [`MAX_MESSAGE_BYTES`]), never without its record.
    /// Executions enter without result and output first, the newest first, then failures, then the others; what room is left
    /// goes to their results and outputs in the same order, each result before its outputs, of which the ends are kept.
    pub fn encode(&self, limit: usize) -> String {
        let limit = limit.min(MAX_MESSAGE_BYTES);
        let mut record = self.record.clone();
        record.message = head(&record.message, MAX_RECORD_TEXT_BYTES).to_owned();
        let first = sealed(&record);
        let mut room = limit.saturating_sub(first.len());
        let mut chosen: Vec<(&Execution, String)> = Vec::new();
        for execution in self.by_importance() {
            let bare = sealed(&Line::bare(execution));
            if bare.len() > room {
                break;
            }
            room -= bare.len();
            chosen.push((execution, bare));
        }
        for (execution, line) in &mut chosen {
            let full = fitted(execution, line.len() + room);
            room = room + line.len() - full.len();
            *line = full;
        }
        chosen.into_iter().fold(first, |mut message, (_, line)| {
            message.push_str(&line);
            message
        })
    }

    /// Reads a termination message. Damaged lines after the first are dropped; all text is made harmless again, whoever
    /// wrote it.
    pub fn decode(message: &str) -> Result<Self, Error> {
        let mut lines = message.split('\n');
        let record = lines.next().and_then(unsealed).filter(Record::is_possible);
        let mut record: Record = record.ok_or(Error::ReadRecord)?;
        if record.protocol != PROTOCOL {
            return Err(Error::MatchProtocol { found: record.protocol });
        }
        record.message = harmless_head(&record.message, MAX_RECORD_TEXT_BYTES);
        record.boot = known_boot(&record.boot);
        record.reason =
            NodeReason::parse(&record.reason).map(|reason| reason.as_str().to_owned()).unwrap_or_default();
        record.state = NodeState::parse(&record.state).as_str().to_owned();
        let mut history: Vec<Execution> =
            lines.filter_map(unsealed::<Line>).map(|line| line.execution(&record)).collect();
        history.retain_mut(bound);
        history.sort_by_key(Execution::key);
        history.dedup_by_key(|execution| execution.key());
        Ok(Self { record, history })
    }

    fn by_importance(&self) -> Vec<&Execution> {
        let mut newest_first = self.history.iter().rev();
        let newest = newest_first.next();
        let (failures, others): (Vec<_>, Vec<_>) = newest_first.partition(|execution| execution.failed());
        newest.into_iter().chain(failures).chain(others).collect()
    }
}

impl Line {
    fn bare(execution: &Execution) -> Self {
        Self { result: None, ..Self::of(execution, 0) }
    }

    fn of(execution: &Execution, output_bytes: usize) -> Self {
        // stderr explains failures, so it gets the larger part of a tight budget only when the execution failed.
        let (stdout, stderr) = share(execution, output_bytes);
        Self {
            serial: execution.serial,
            start_seconds: execution.start_time.as_ref().map(|time| time.0.as_second()),
            duration_millis: execution.duration_millis,
            exit_code: execution.exit_code,
            signal: execution.signal,
            reason: execution.reason.clone(),
            stdout: tail(&execution.stdout, stdout).to_owned(),
            stderr: tail(&execution.stderr, stderr).to_owned(),
            stdout_bytes: execution.stdout_bytes,
            stderr_bytes: execution.stderr_bytes,
            digest: execution.digest.clone(),
            result: execution.result.clone(),
        }
    }

    fn execution(self, record: &Record) -> Execution {
        let mut reason =
            NodeReason::parse(&self.reason).map(|reason| reason.as_str().to_owned()).unwrap_or_default();
        let result = result::received(self.result, &mut reason);
        Execution {
            run: record.run,
            attempt: record.attempt,
            serial: self.serial,
            start_time: self.start_seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).map(Time),
            duration_millis: self.duration_millis,
            exit_code: self.exit_code,
            signal: self.signal,
            reason,
            stdout: make_harmless(self.stdout.as_bytes()),
            stderr: make_harmless(self.stderr.as_bytes()),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            digest: self.digest.chars().filter(char::is_ascii_hexdigit).take(16).collect(),
            result,
            result_digest: String::new(),
        }
    }
}

/// Whether the execution can be; the figures that it comes with are bounded.
pub(crate) fn bound(execution: &mut Execution) -> bool {
    let Execution { serial, duration_millis, stdout_bytes, stderr_bytes, .. } = execution;
    for figure in [duration_millis, stdout_bytes, stderr_bytes] {
        *figure = figure.map(|figure| figure.min(MAX_NUMBER));
    }
    *serial <= MAX_NUMBER
}

/// What can be the mark of a runner's start.
pub(crate) fn known_boot(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(16).collect()
}

/// How many bytes of stdout and of stderr fit into `output_bytes`: each gets what it needs if the other leaves it, else the
/// stream that matters more (stderr of a failure, stdout of any other) gets three quarters.
fn share(execution: &Execution, output_bytes: usize) -> (usize, usize) {
    let (out, err) = (execution.stdout.len(), execution.stderr.len());
    if out + err <= output_bytes {
        return (out, err);
    }
    let quarter = output_bytes / 4;
    if execution.failed() {
        let out = out.min(quarter.max(output_bytes.saturating_sub(err)));
        (out, output_bytes - out)
    } else {
        let err = err.min(quarter.max(output_bytes.saturating_sub(out)));
        (output_bytes - err, err)
    }
}

/// The line of an execution with its result if that fits into `room` bytes, and with as much output as fits then.
fn fitted(execution: &Execution, room: usize) -> String {
    if execution.result.is_some() && sealed(&Line::of(execution, 0)).len() > room {
        return fitted(&Execution { result: None, ..execution.clone() }, room);
    }
    // More than the room cannot fit: a long answer is not serialised whole, once per execution kept, to find that out.
    let (mut low, mut high) = (0, execution.output_bytes().min(room));
    let whole = sealed(&Line::of(execution, high));
    if whole.len() <= room {
        return whole;
    }
    // JSON escapes make the length unforeseeable, so the cut is searched.
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        if sealed(&Line::of(execution, middle)).len() <= room { low = middle } else { high = middle }
    }
    sealed(&Line::of(execution, low))
}

fn sealed<T: Serialize>(part: &T) -> String {
    let json = serde_json::to_string(part).expect("plain data should serialise");
    format!("{} {json}\n", &sha256_hex(json.as_bytes())[..CHECKSUM_DIGITS])
}

fn unsealed<T: for<'de> Deserialize<'de>>(line: &str) -> Option<T> {
    let (checksum, json) = line.split_once(' ')?;
    (checksum == &sha256_hex(json.as_bytes())[..CHECKSUM_DIGITS]).then(|| serde_json::from_str(json).ok())?
}

#[cfg(test)]
mod tests;
