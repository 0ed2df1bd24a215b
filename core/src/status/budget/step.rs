//! What may be cut from a node, in which order, and the cutting itself. Pure.

use scriptrunner_api::v1alpha1::{Execution, NodeStatus};

use crate::status::size::{field_bytes, head_within, stored_bytes, tail_within};

/// What is cut, in the order of cutting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Entries of nodes whose Node object is gone, the largest first.
    GoneNodes,
    /// Output and result of all but the newest executions: the oldest first, of outputs the beginnings first.
    OldOutputs,
    /// All but the newest executions, the oldest first.
    OldEntries,
    /// Output of the newest executions that did not fail; stderr before stdout, the beginnings first.
    SuccessOutputs,
    /// Output of the newest executions that failed; stdout before stderr, the beginnings first.
    FailureOutputs,
    /// Results of the newest executions, in whose place their shorter digests stay.
    Results,
    /// Messages of nodes, the ends first: the reason says why in one word, and stays.
    Messages,
    /// Start time, duration and byte counts of the newest executions.
    Details,
    /// Samples of output groups.
    Samples,
    /// Histories whose newest execution did not fail; by now they are only that execution.
    SuccessHistories,
    /// The other histories. State, exit code and reason of the node still tell the failure.
    FailureHistories,
    /// Reasons of nodes.
    Reasons,
    /// Output groups, the smallest first; their count stays.
    Groups,
}

impl Step {
    pub(super) const ALL: [Self; 13] = [
        Self::GoneNodes,
        Self::OldOutputs,
        Self::OldEntries,
        Self::SuccessOutputs,
        Self::FailureOutputs,
        Self::Results,
        Self::Messages,
        Self::Details,
        Self::Samples,
        Self::SuccessHistories,
        Self::FailureHistories,
        Self::Reasons,
        Self::Groups,
    ];

    /// Whether it takes the newest executions as well.
    pub(super) fn cuts_histories(self) -> bool {
        matches!(self, Self::SuccessHistories | Self::FailureHistories)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// A part that may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One output of the entry at the index.
    Output(usize, Stream),
    /// The result of the entry at the index.
    Result(usize),
    /// The result of the newest entry, but for its digest.
    NewestResult,
    /// The oldest entry.
    Entry,
    StartTime,
    Duration,
    ByteCounts,
    Message,
    History,
    Reason,
    Sample,
}

/// A part that may be cut, and the bytes that this saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) target: Target,
    pub(super) bytes: usize,
}

impl Piece {
    /// A text field, which takes no bytes at all when empty.
    pub(super) fn of_field(target: Target, name: &str, text: &str) -> Self {
        Self { target, bytes: if text.is_empty() { 0 } else { field_bytes(name, text) } }
    }

    /// Whether a part of it may stay.
    pub(super) fn is_divisible(self) -> bool {
        match self.target {
            Target::Output(..) | Target::Message | Target::Sample => true,
            Target::Result(_)
            | Target::NewestResult
            | Target::Entry
            | Target::StartTime
            | Target::Duration
            | Target::ByteCounts
            | Target::History
            | Target::Reason => false,
        }
    }
}

/// What the step may cut from the node, in order.
pub(super) fn pieces(step: Step, node: &NodeStatus) -> Vec<Piece> {
    let Some((newest, old)) = node.history.split_last() else {
        return of_node(step, node);
    };
    let index = old.len();
    match step {
        Step::OldOutputs => {
            let parts =
                |(index, execution)| outputs(index, execution).into_iter().chain(result(index, execution));
            old.iter().enumerate().flat_map(parts).collect()
        }
        Step::OldEntries => old
            .iter()
            .map(|execution| Piece { target: Target::Entry, bytes: stored_bytes(execution) + 1 })
            .collect(),
        Step::SuccessOutputs if !newest.failed() => outputs(index, newest).to_vec(),
        Step::FailureOutputs if newest.failed() => outputs(index, newest).to_vec(),
        Step::Results => newest_result(newest).into_iter().collect(),
        Step::Details => details(newest),
        Step::SuccessHistories if !newest.failed() => vec![history(node)],
        Step::FailureHistories if newest.failed() => vec![history(node)],
        Step::SuccessOutputs
        | Step::FailureOutputs
        | Step::SuccessHistories
        | Step::FailureHistories
        | Step::Messages
        | Step::Reasons
        | Step::GoneNodes
        | Step::Samples
        | Step::Groups => of_node(step, node),
    }
}

/// Cuts the pieces in order until at least `need` bytes are saved or none is left. Returns the bytes saved.
pub(super) fn cut(node: &mut NodeStatus, pieces: &[Piece], need: usize) -> usize {
    let (mut saved, mut entries) = (0, 0);
    for piece in pieces {
        if saved >= need {
            break;
        }
        let need = need - saved;
        saved += match piece.target {
            Target::Output(index, Stream::Stdout) => {
                keep_end(&mut node.history[index].stdout, "stdout", piece.bytes, need)
            }
            Target::Output(index, Stream::Stderr) => {
                keep_end(&mut node.history[index].stderr, "stderr", piece.bytes, need)
            }
            Target::Message => keep_beginning(&mut node.message, "message", piece.bytes, need),
            Target::Sample => 0,
            Target::Entry => {
                entries += 1;
                piece.bytes
            }
            Target::Result(index) => {
                node.history[index].result = None;
                piece.bytes
            }
            Target::NewestResult
            | Target::StartTime
            | Target::Duration
            | Target::ByteCounts
            | Target::History
            | Target::Reason => {
                remove(node, piece.target);
                piece.bytes
            }
        };
    }
    node.history.drain(..entries);
    saved
}

/// Cuts a sample as [`cut`] does a node.
pub(super) fn shorten_sample(sample: &mut String, pieces: &[Piece], need: usize) -> usize {
    pieces.iter().map(|piece| keep_end(sample, "sample", piece.bytes, need)).sum()
}

fn of_node(step: Step, node: &NodeStatus) -> Vec<Piece> {
    match step {
        Step::Messages => vec![Piece::of_field(Target::Message, "message", &node.message)],
        Step::Reasons => vec![Piece::of_field(Target::Reason, "reason", &node.reason)],
        Step::GoneNodes
        | Step::OldOutputs
        | Step::OldEntries
        | Step::SuccessOutputs
        | Step::FailureOutputs
        | Step::Results
        | Step::Details
        | Step::Samples
        | Step::SuccessHistories
        | Step::FailureHistories
        | Step::Groups => Vec::new(),
    }
}

/// The outputs, the one that matters less first: stderr explains a failure, stdout is what a success is run for.
fn outputs(index: usize, execution: &Execution) -> [Piece; 2] {
    let stdout = Piece::of_field(Target::Output(index, Stream::Stdout), "stdout", &execution.stdout);
    let stderr = Piece::of_field(Target::Output(index, Stream::Stderr), "stderr", &execution.stderr);
    if execution.failed() { [stdout, stderr] } else { [stderr, stdout] }
}

fn result(index: usize, execution: &Execution) -> Option<Piece> {
    let bytes = field_bytes("result", execution.result.as_ref()?);
    Some(Piece { target: Target::Result(index), bytes })
}

/// None also if the digest would be as long.
fn newest_result(newest: &Execution) -> Option<Piece> {
    const DIGEST: &str = "0123456789abcdef";
    let result = field_bytes("result", newest.result.as_ref()?);
    let bytes = result.checked_sub(field_bytes("resultDigest", DIGEST)).filter(|bytes| *bytes > 0)?;
    Some(Piece { target: Target::NewestResult, bytes })
}

fn details(newest: &Execution) -> Vec<Piece> {
    let start = newest.start_time.as_ref().map(|time| field_bytes("startTime", time));
    let duration = newest.duration_millis.map(|millis| field_bytes("durationMillis", &millis));
    let stdout = newest.stdout_bytes.map(|bytes| field_bytes("stdoutBytes", &bytes));
    let stderr = newest.stderr_bytes.map(|bytes| field_bytes("stderrBytes", &bytes));
    vec![
        Piece { target: Target::StartTime, bytes: start.unwrap_or(0) },
        Piece { target: Target::Duration, bytes: duration.unwrap_or(0) },
        Piece { target: Target::ByteCounts, bytes: stdout.unwrap_or(0) + stderr.unwrap_or(0) },
    ]
}

fn history(node: &NodeStatus) -> Piece {
    Piece { target: Target::History, bytes: field_bytes("history", &node.history) }
}

fn remove(node: &mut NodeStatus, target: Target) {
    let newest = node.history.last_mut();
    match (target, newest) {
        (Target::NewestResult, Some(newest)) => {
            newest.result_digest = newest.digest_of_result();
            newest.result = None;
        }
        (Target::StartTime, Some(newest)) => newest.start_time = None,
        (Target::Duration, Some(newest)) => newest.duration_millis = None,
        (Target::ByteCounts, Some(newest)) => (newest.stdout_bytes, newest.stderr_bytes) = (None, None),
        (Target::History, _) => node.history.clear(),
        (Target::Reason, _) => node.reason.clear(),
        (Target::NewestResult | Target::StartTime | Target::Duration | Target::ByteCounts, None)
        | (Target::Output(..) | Target::Result(_) | Target::Entry | Target::Message | Target::Sample, _) => {}
    }
}

fn keep_end(text: &mut String, name: &str, bytes: usize, need: usize) -> usize {
    let kept = tail_within(text, text_room(name, bytes, need)).to_owned();
    replace(text, kept, name, bytes)
}

fn keep_beginning(text: &mut String, name: &str, bytes: usize, need: usize) -> usize {
    let kept = head_within(text, text_room(name, bytes, need)).to_owned();
    replace(text, kept, name, bytes)
}

/// Room for the text of a field of `bytes` bytes after `need` of them are saved: the name, two quotes more and the
/// separators are not text.
fn text_room(name: &str, bytes: usize, need: usize) -> usize {
    bytes.saturating_sub(need + name.len() + 6)
}

fn replace(text: &mut String, kept: String, name: &str, bytes: usize) -> usize {
    let saved = bytes - Piece::of_field(Target::Sample, name, &kept).bytes;
    *text = kept;
    saved
}
