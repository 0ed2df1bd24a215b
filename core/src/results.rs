//! From a pod as the API server shows it, termination message included, to what became of the node. Every odd end has its
//! reason here. Pure.
//!
//! The state of the `runner` container decides, not the pod's phase; and within it the runner's own record decides, if it
//! is there and speaks of this pod. A record comes in the termination message, over the pod's session, or both: then the
//! newer one decides, and the histories are united.

mod cause;

use scriptrunner_api::{
    reason::NodeReason,
    snapshot::{Error, Record, Snapshot},
    v1alpha1::NodeState,
};

pub(crate) use self::cause::Cause;
use crate::{
    observed::{ContainerFacts, PodFacts, Presence},
    status::merge::merge_history,
};

/// Signal number of SIGKILL.
const SIGKILL: i32 = 9;
/// What containerd and the kubelet say of a container whose end nobody saw, because the node went down.
const EXIT_CODE_NODE_DOWN: i32 = 255;

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// Its runner has not started; the container's waiting reason and message, if there are any.
    Starting {
        /// For example `ImagePullBackOff`; empty if none is given.
        reason: String,
        /// Its message.
        message: String,
    },
    /// Its runner is at work.
    Running,
    /// Its runner never started and never will, and that is certain: another pod may take its place.
    NeverStarted(NeverStarted),
    /// It is over.
    Ended(Box<Outcome>),
}

/// Why a runner never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverStarted {
    /// Whether the kubelet refused the pod, so that the scheduler should place the next one.
    pub refused: bool,
    /// What was said.
    pub message: String,
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// `Succeeded`, `Failed`, `Skipped`, `Stopped` or `Unknown`; meaningless if the runner handed over.
    pub state: NodeState,
    /// Why; none where the state says it.
    pub reason: Option<NodeReason>,
    /// Why, in a sentence; may be empty.
    pub message: String,
    /// What the runner left, if anything could be read: termination message and session united.
    pub snapshot: Option<Snapshot>,
    /// Executions that began and left no result.
    pub lost_executions: u64,
    /// Whether what the runner did last is unknown: there is no termination message, and its session did not say that it
    /// is done. The lost execution then is the newest one that began as far as is known, or else one that nobody knows of.
    pub unseen: bool,
    /// Whether the repetition goes on in the next pod.
    pub handed_over: bool,
}

impl Outcome {
    /// The end of a pod that nobody saw.
    pub(crate) fn unknown(reason: NodeReason, message: impl Into<String>) -> Self {
        Self {
            state: NodeState::Unknown,
            reason: Some(reason),
            message: message.into(),
            snapshot: None,
            lost_executions: 1,
            unseen: true,
            handed_over: false,
        }
    }

    fn failed(reason: NodeReason, message: impl Into<String>) -> Self {
        Self { state: NodeState::Failed, ..Self::unknown(reason, message) }
    }

    fn superseded() -> Self {
        Self { state: NodeState::Stopped, ..Self::unknown(NodeReason::Superseded, "a newer run came first") }
    }
}

/// What is known of a pod beside what the API server shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The newest snapshot of its session, if it speaks of this pod.
    pub live: Option<&'a Snapshot>,
    /// Whether its runner is known to have started, because it spoke before.
    pub has_started: bool,
    /// Whether the operator itself stopped it for a newer run.
    pub superseded: bool,
    /// Whether the repetition is endless, so that the next pod needs this one's container to have ended.
    pub endless: bool,
    /// The run and attempt that its runner was ordered to go on with after those that the pod was made for. What it says of
    /// an older run proves that it had not heard of this one: the first thing that it does with an order is to say so.
    pub ordered: Option<Ordered>,
}

/// What a runner was ordered to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The run.
    pub run: u64,
    /// Ordinal of the pod within that run.
    pub attempt: u32,
    /// Whether the operator deletes its pod because it could not be reached with that order.
    pub given_up: bool,
}

impl Beside<'_> {
    /// Whether the runner may still be idle: nothing says that it has heard of the run it was ordered to go on with.
    fn is_unheard(&self) -> bool {
        self.ordered.is_some() && self.live.is_none() && !self.has_started
    }
}

/// Where the pod stands.
pub fn pod_state(pod: &PodFacts, beside: Beside<'_>) -> PodState {
    match &pod.container {
        ContainerFacts::Terminated { exit_code, reason, message, .. } => {
            if !pod.container.started() {
                let text = format!(
                    "the container could not be started: {}",
                    if message.is_empty() { reason } else { message }
                );
                return ended(Outcome {
                    lost_executions: 0,
                    unseen: false,
                    ..Outcome::failed(NodeReason::ContainerNotStarted, text)
                });
            }
            never_began(message, beside).map_or_else(
                || ended(terminated(pod, *exit_code, reason, message, beside)),
                PodState::NeverStarted,
            )
        }
        ContainerFacts::Running => match pod.presence {
            Presence::Present if pod.phase == "Failed" => {
                ended(unseen(pod, "", beside, failed_without_end(pod)))
            }
            Presence::Present | Presence::Unconfirmed => at_work(pod, beside),
            Presence::Gone => ended(unseen(pod, "", beside, vanished(pod, beside))),
        },
        ContainerFacts::Absent | ContainerFacts::Waiting { .. } => not_started(pod, beside),
    }
}

/// Whether the runner said that it will execute nothing more.
pub fn is_final(record: &Record) -> bool {
    match NodeState::parse(&record.state) {
        NodeState::Succeeded
        | NodeState::Failed
        | NodeState::Stopped
        | NodeState::Skipped
        | NodeState::Unknown => true,
        NodeState::Pending | NodeState::Starting | NodeState::Running => record.handed_over,
    }
}

/// Whether an execution of the runner's part began.
pub(crate) fn has_begun(record: &Record) -> bool {
    record.executions > 0 && record.serial > 0
}

/// Whether the message proves that nothing was executed of what the runner was ordered to go on with.
fn never_began(message: &str, beside: Beside<'_>) -> Option<NeverStarted> {
    let Ordered { run, attempt, given_up } = beside.ordered?;
    let record = Snapshot::decode(message).ok()?.record;
    let is_unheard = beside.is_unheard() && record.run < run;
    let is_undone = given_up
        && (record.run, record.attempt) == (run, attempt)
        && NodeState::parse(&record.state) == NodeState::Stopped
        && !has_begun(&record);
    (is_unheard || is_undone).then(|| NeverStarted {
        refused: false,
        message: "the idle runner ended before it began the run".to_owned(),
    })
}

fn ended(outcome: Outcome) -> PodState {
    PodState::Ended(Box::new(outcome))
}

/// The container has not ended as far as the API server knows. What the runner says may end the node's part at once, unless
/// the container's end can still change what it means: SIGKILL may have been for want of memory, and a stop has a cause. The
/// container of a runner that stays for further runs may not end for long.
fn at_work(pod: &PodFacts, beside: Beside<'_>) -> PodState {
    if beside.is_unheard() {
        return PodState::Starting { reason: String::new(), message: String::new() };
    }
    let Beside { live, has_started: _, superseded: _, endless, ordered: _ } = beside;
    let outcome = live.filter(|live| {
        !endless
            && match NodeState::parse(&live.record.state) {
                NodeState::Succeeded | NodeState::Skipped => true,
                NodeState::Failed => live.record.signal != Some(SIGKILL) || !pod.shape.is_empty(),
                NodeState::Pending
                | NodeState::Starting
                | NodeState::Running
                | NodeState::Stopped
                | NodeState::Unknown => false,
            }
    });
    let cause = Cause::new(NodeReason::Interrupted, "");
    outcome.and_then(|live| concluded(live, "", &cause)).map_or(PodState::Running, ended)
}

fn not_started(pod: &PodFacts, beside: Beside<'_>) -> PodState {
    if beside.live.is_some() || beside.has_started || beside.ordered.is_some() {
        // The runner spoke, so it was started, whatever the API server knows of it.
        return match pod.presence {
            Presence::Present | Presence::Unconfirmed if pod.phase != "Failed" => at_work(pod, beside),
            Presence::Present | Presence::Unconfirmed => {
                ended(unseen(pod, "", beside, failed_without_end(pod)))
            }
            Presence::Gone => ended(unseen(pod, "", beside, vanished(pod, beside))),
        };
    }
    if pod.phase == "Failed" {
        // Who ends a pod ends this container too, and that says nothing of it.
        let is_left_alone = pod.disruption.is_empty() && pod.reason.is_empty() && !pod.deleting;
        if !pod.init_failure.is_empty() && is_left_alone {
            let text = format!("the runner could not be put beside the image: {}", pod.init_failure);
            return ended(Outcome {
                lost_executions: 0,
                unseen: false,
                ..Outcome::failed(NodeReason::ContainerNotStarted, text)
            });
        }
        let message = if pod.message.is_empty() {
            pod.reason.clone()
        } else {
            format!("{}: {}", pod.reason, pod.message)
        };
        // Evictions and deletions by controllers say nothing against the node; everything else is the kubelet's refusal.
        let refused = pod.disruption.is_empty()
            && !pod.reason.is_empty()
            && !matches!(
                pod.reason.as_str(),
                "Evicted" | "Preempting" | "Terminated" | "Shutdown" | "NodeShutdown" | "NodeLost"
            );
        return PodState::NeverStarted(NeverStarted { refused, message });
    }
    match pod.presence {
        Presence::Present | Presence::Unconfirmed => {
            let (reason, message) = match &pod.container {
                ContainerFacts::Waiting { reason, message } => (reason.clone(), message.clone()),
                ContainerFacts::Absent | ContainerFacts::Running | ContainerFacts::Terminated { .. } => {
                    (pod.reason.clone(), pod.message.clone())
                }
            };
            PodState::Starting { reason, message }
        }
        // An unbound pod runs nowhere, and a pod that was seen ending was reported by its kubelet before it went. A bound
        // one that vanished at once (force deletion) may have been starting at that moment.
        Presence::Gone if !pod.bound || pod.deleting => PodState::NeverStarted(NeverStarted {
            refused: false,
            message: Cause::of(pod).unwrap_or_else(Cause::deletion).beside("it had not started"),
        }),
        Presence::Gone => ended(vanished(pod, beside)),
    }
}

fn vanished(pod: &PodFacts, beside: Beside<'_>) -> Outcome {
    if beside.superseded {
        return Outcome::superseded();
    }
    let Cause { reason, text } = Cause::of(pod).unwrap_or_else(Cause::deletion);
    Outcome::unknown(reason, format!("pod {:?} left no answer: {text}", pod.name))
}

/// A pod that a controller or kubelet calls failed while its container was last seen running.
fn failed_without_end(pod: &PodFacts) -> Outcome {
    let Cause { reason, text } = Cause::of_disruption(pod)
        .unwrap_or_else(|| Cause::new(NodeReason::PodLost, format!("{} {}", pod.reason, pod.message).trim()));
    Outcome::unknown(reason, format!("pod {:?} failed without its container's end: {text}", pod.name))
}

fn terminated(pod: &PodFacts, exit_code: i32, reason: &str, message: &str, beside: Beside<'_>) -> Outcome {
    let (run, attempt) =
        beside.ordered.map_or((pod.run, pod.attempt), |ordered| (ordered.run, ordered.attempt));
    match Snapshot::decode(message) {
        Ok(left) if (left.record.run, left.record.attempt) == (run, attempt) => {
            let snapshot = match beside.live {
                Some(live) => united(left, live),
                None => left,
            };
            concluded(&snapshot, reason, &Cause::of_stop(pod, beside.superseded))
                .unwrap_or_else(|| killed_at_work(pod, exit_code, reason, snapshot, beside.superseded))
        }
        Ok(left) => unseen(
            pod,
            reason,
            beside,
            Outcome::unknown(
                NodeReason::NoMessage,
                format!(
                    "the message is of run {} attempt {}, the pod of run {run} attempt {attempt}",
                    left.record.run, left.record.attempt
                ),
            ),
        ),
        Err(error) => {
            unseen(pod, reason, beside, unrecorded(pod, exit_code, reason, beside.superseded, &error))
        }
    }
}

/// The container ended and left no record.
fn unrecorded(pod: &PodFacts, exit_code: i32, reason: &str, superseded: bool, error: &Error) -> Outcome {
    if superseded {
        return Outcome::superseded();
    }
    let ended = format!("the container ended with exit code {exit_code} ({reason}); {error}");
    killed(pod, exit_code, reason).unwrap_or_else(|| cut_short(pod, NodeReason::NoMessage, &ended))
}

/// An end that the runner did not report: by whoever ended the pod, or else for the given reason.
fn cut_short(pod: &PodFacts, reason: NodeReason, message: &str) -> Outcome {
    let cause = Cause::of(pod).unwrap_or_else(|| Cause::new(reason, ""));
    Outcome::unknown(cause.reason, cause.beside(message))
}

/// An end without a readable message: what the session said last is the outcome if it was final, and else tells at least
/// what happened before.
fn unseen(pod: &PodFacts, container_reason: &str, beside: Beside<'_>, outcome: Outcome) -> Outcome {
    with_last_words(beside.live, container_reason, &Cause::of_stop(pod, beside.superseded), outcome)
}

/// What an end becomes that only the session can tell about.
pub(crate) fn with_last_words(
    live: Option<&Snapshot>,
    container_reason: &str,
    stop_cause: &Cause,
    outcome: Outcome,
) -> Outcome {
    match live.map(|live| concluded(live, container_reason, stop_cause)) {
        Some(Some(told)) => told,
        Some(None) | None => Outcome { snapshot: live.cloned(), ..outcome },
    }
}

/// What the container's state says of an end that the runner could not report.
fn killed(pod: &PodFacts, exit_code: i32, reason: &str) -> Option<Outcome> {
    if reason == "OOMKilled" {
        return Some(Outcome::failed(
            NodeReason::OOMKilled,
            "the script and the runner exceeded the memory limit of the container",
        ));
    }
    if let Some(Cause { reason, text }) = Cause::of_disruption(pod) {
        return Some(Outcome::unknown(reason, text));
    }
    if exit_code == EXIT_CODE_NODE_DOWN && reason == "Unknown" {
        return Some(Outcome::unknown(NodeReason::NodeRestarted, "the node went down while the script ran"));
    }
    None
}

/// Message and session of one pod. The record with the higher number decides, of two starts of the runner the one that the
/// container ended with; counts only grow; and the histories are united, because the message may be cut.
fn united(left: Snapshot, live: &Snapshot) -> Snapshot {
    let history = merge_history(&left.history, &live.history, usize::MAX);
    let counts = |record: &Record| (record.executions, record.failures, record.serial);
    let (ours, theirs) = (counts(&left.record), counts(&live.record));
    let is_newer = live.record.boot == left.record.boot && live.record.seq > left.record.seq;
    let decides = if is_newer { live.record.clone() } else { left.record };
    let record = Record {
        executions: ours.0.max(theirs.0),
        failures: ours.1.max(theirs.1),
        serial: ours.2.max(theirs.2),
        ..decides
    };
    Snapshot { record, history }
}

/// The end of a superseded pod by its runner's own word, whatever its container still does.
pub(crate) fn reported_end(live: &Snapshot) -> Option<Outcome> {
    concluded(live, "", &Cause::new(NodeReason::Superseded, ""))
}

/// The outcome that the runner itself reported; none if it was still at work. `stop_cause` says who stopped it, if it was
/// stopped.
fn concluded(snapshot: &Snapshot, container_reason: &str, stop_cause: &Cause) -> Option<Outcome> {
    let record = &snapshot.record;
    let told = || told(snapshot);
    match NodeState::parse(&record.state) {
        NodeState::Succeeded => Some(Outcome { state: NodeState::Succeeded, reason: None, ..told() }),
        NodeState::Failed if container_reason == "OOMKilled" && record.signal == Some(SIGKILL) => {
            Some(Outcome {
                state: NodeState::Failed,
                reason: Some(NodeReason::OOMKilled),
                message: "the script exceeded the memory limit of the container".to_owned(),
                ..told()
            })
        }
        NodeState::Failed => Some(Outcome { state: NodeState::Failed, ..told() }),
        NodeState::Stopped => Some(Outcome {
            state: NodeState::Stopped,
            reason: Some(stop_cause.reason),
            message: stop_cause.beside(&record.message),
            ..told()
        }),
        NodeState::Skipped => {
            Some(Outcome { state: NodeState::Skipped, reason: Some(NodeReason::ExitCodeSkips), ..told() })
        }
        NodeState::Pending | NodeState::Starting | NodeState::Running if record.handed_over => {
            let reason = NodeReason::parse(&record.reason).filter(|reason| *reason == NodeReason::Paused);
            let reason = reason.unwrap_or(NodeReason::NoSession);
            Some(Outcome { state: NodeState::Running, reason: Some(reason), ..told() })
        }
        NodeState::Unknown => Some(Outcome { state: NodeState::Unknown, ..told() }),
        NodeState::Pending | NodeState::Starting | NodeState::Running => None,
    }
}

fn told(snapshot: &Snapshot) -> Outcome {
    let record = &snapshot.record;
    Outcome {
        state: NodeState::Unknown,
        reason: NodeReason::parse(&record.reason),
        message: record.message.clone(),
        snapshot: Some(snapshot.clone()),
        lost_executions: 0,
        unseen: false,
        handed_over: record.handed_over,
    }
}

/// The container ended and its message was written while an execution ran, or between two: the runner was killed.
fn killed_at_work(
    pod: &PodFacts,
    exit_code: i32,
    reason: &str,
    snapshot: Snapshot,
    superseded: bool,
) -> Outcome {
    let outcome = killed(pod, exit_code, reason).unwrap_or_else(|| {
        if superseded {
            return Outcome::superseded();
        }
        let message = format!("the runner was killed at work (exit code {exit_code}, {reason})");
        cut_short(pod, NodeReason::RunnerKilled, &message)
    });
    let record = &snapshot.record;
    let has_result = snapshot.history.last().is_some_and(|newest| newest.serial == record.serial);
    let lost_executions = u64::from(has_begun(record) && !has_result);
    Outcome { snapshot: Some(snapshot), lost_executions, unseen: false, ..outcome }
}

/// The reason of a pod that did not start within its deadline, from what its container waits for.
pub fn start_failure(waiting_reason: &str) -> NodeReason {
    match waiting_reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => NodeReason::ImagePullFailed,
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "StartError"
        | "PostStartHookError" => NodeReason::ContainerNotStarted,
        _ => NodeReason::StartDeadlineExceeded,
    }
}

#[cfg(test)]
mod tests;
