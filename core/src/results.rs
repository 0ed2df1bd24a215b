//! From a pod as the API server shows it, termination message included, to what became of the node. Every odd end has its
//! reason here. Pure.
//!
//! The state of the `runner` container decides, not the pod's phase; and within it the runner's own record decides, if it
//! is there and speaks of this pod.

use scriptrunner_api::{
    reason::NodeReason,
    snapshot::{Error, Record, Snapshot},
    v1alpha1::NodeState,
};

use crate::observed::{ContainerFacts, PodFacts, Presence};

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
    /// `Succeeded`, `Failed`, `Stopped` or `Unknown`; meaningless if the runner handed over.
    pub state: NodeState,
    /// Why; none where the state says it.
    pub reason: Option<NodeReason>,
    /// Why, in a sentence; may be empty.
    pub message: String,
    /// What the runner left, if it could be read.
    pub snapshot: Option<Snapshot>,
    /// Executions that began and left no result.
    pub lost_executions: u64,
    /// Whether the repetition goes on in the next pod.
    pub handed_over: bool,
}

impl Outcome {
    fn unknown(reason: NodeReason, message: impl Into<String>) -> Self {
        Self {
            state: NodeState::Unknown,
            reason: Some(reason),
            message: message.into(),
            snapshot: None,
            lost_executions: 1,
            handed_over: false,
        }
    }

    fn failed(reason: NodeReason, message: impl Into<String>) -> Self {
        Self { state: NodeState::Failed, ..Self::unknown(reason, message) }
    }
}

/// Where the pod stands. `superseded` tells that the operator itself stopped it for a newer run.
pub fn pod_state(pod: &PodFacts, superseded: bool) -> PodState {
    match &pod.container {
        ContainerFacts::Terminated { exit_code, reason, message, .. } => {
            if !pod.container.started() {
                let text = format!(
                    "the container could not be started: {}",
                    if message.is_empty() { reason } else { message }
                );
                return ended(Outcome {
                    lost_executions: 0,
                    ..Outcome::failed(NodeReason::ContainerNotStarted, text)
                });
            }
            ended(terminated(pod, *exit_code, reason, message, superseded))
        }
        ContainerFacts::Running => match pod.presence {
            Presence::Present if pod.phase == "Failed" => ended(failed_without_end(pod)),
            Presence::Present | Presence::Unconfirmed => PodState::Running,
            Presence::Gone => ended(vanished(pod, superseded)),
        },
        ContainerFacts::Absent | ContainerFacts::Waiting { .. } => not_started(pod, superseded),
    }
}

fn ended(outcome: Outcome) -> PodState {
    PodState::Ended(Box::new(outcome))
}

fn not_started(pod: &PodFacts, superseded: bool) -> PodState {
    if pod.phase == "Failed" {
        let message = if pod.message.is_empty() {
            pod.reason.clone()
        } else {
            format!("{}: {}", pod.reason, pod.message)
        };
        // Evictions and deletions by controllers say nothing against the node; everything else is the kubelet's refusal.
        let refused = !matches!(
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
            message: "the pod was deleted before it started".to_owned(),
        }),
        Presence::Gone => ended(vanished(pod, superseded)),
    }
}

fn vanished(pod: &PodFacts, superseded: bool) -> Outcome {
    if superseded {
        return Outcome {
            state: NodeState::Stopped,
            ..Outcome::unknown(NodeReason::Superseded, "a newer run came first")
        };
    }
    Outcome::unknown(
        NodeReason::PodDeleted,
        format!("pod {:?} was deleted before it left its answer", pod.name),
    )
}

/// A pod that a controller or kubelet calls failed while its container was last seen running.
fn failed_without_end(pod: &PodFacts) -> Outcome {
    let reason = if pod.reason == "Evicted" { NodeReason::Evicted } else { NodeReason::PodLost };
    Outcome::unknown(
        reason,
        format!("pod {:?} failed without its container's end: {} {}", pod.name, pod.reason, pod.message),
    )
}

fn terminated(pod: &PodFacts, exit_code: i32, reason: &str, message: &str, superseded: bool) -> Outcome {
    match Snapshot::decode(message) {
        Ok(snapshot) if snapshot.record.run == pod.run && snapshot.record.attempt == pod.attempt => {
            recorded(pod, exit_code, reason, snapshot, superseded)
        }
        Ok(snapshot) => Outcome::unknown(
            NodeReason::NoMessage,
            format!(
                "the message is of run {} attempt {}, the pod of run {} attempt {}",
                snapshot.record.run, snapshot.record.attempt, pod.run, pod.attempt
            ),
        ),
        Err(error) => unrecorded(pod, exit_code, reason, superseded, &error),
    }
}

/// The container ended and left no record.
fn unrecorded(pod: &PodFacts, exit_code: i32, reason: &str, superseded: bool, error: &Error) -> Outcome {
    if superseded {
        return Outcome {
            state: NodeState::Stopped,
            ..Outcome::unknown(NodeReason::Superseded, "a newer run came first")
        };
    }
    killed(pod, exit_code, reason).unwrap_or_else(|| {
        Outcome::unknown(
            NodeReason::NoMessage,
            format!("the container ended with exit code {exit_code} ({reason}); {error}"),
        )
    })
}

/// What the container's state says of an end that the runner could not report.
fn killed(pod: &PodFacts, exit_code: i32, reason: &str) -> Option<Outcome> {
    if reason == "OOMKilled" {
        return Some(Outcome::failed(
            NodeReason::OOMKilled,
            "the script and the runner exceeded the memory limit of the container",
        ));
    }
    if pod.reason == "Evicted" {
        return Some(Outcome::unknown(NodeReason::Evicted, pod.message.clone()));
    }
    if exit_code == EXIT_CODE_NODE_DOWN && reason == "Unknown" {
        return Some(Outcome::unknown(NodeReason::NodeRestarted, "the node went down while the script ran"));
    }
    None
}

/// The container ended and the runner's record can be read.
fn recorded(pod: &PodFacts, exit_code: i32, reason: &str, snapshot: Snapshot, superseded: bool) -> Outcome {
    let record = &snapshot.record;
    let lost_executions = record.executions.saturating_sub(finished_executions(&snapshot));
    let handed_over = record.handed_over;
    let outcome = match NodeState::parse(&record.state) {
        NodeState::Succeeded => Outcome { state: NodeState::Succeeded, reason: None, ..told(record) },
        NodeState::Failed => {
            let told = Outcome { state: NodeState::Failed, ..told(record) };
            if reason == "OOMKilled" && record.signal == Some(SIGKILL) {
                Outcome {
                    reason: Some(NodeReason::OOMKilled),
                    message: "the script exceeded the memory limit of the container".to_owned(),
                    ..told
                }
            } else {
                told
            }
        }
        NodeState::Stopped => {
            Outcome { state: NodeState::Stopped, reason: Some(stop_reason(pod, superseded)), ..told(record) }
        }
        NodeState::Running if handed_over => {
            Outcome { state: NodeState::Running, reason: Some(NodeReason::HandedOver), ..told(record) }
        }
        // The record was written while an execution ran, or between two: the runner was killed.
        NodeState::Running | NodeState::Pending | NodeState::Starting => killed(pod, exit_code, reason)
            .unwrap_or_else(|| {
                if superseded {
                    return Outcome {
                        state: NodeState::Stopped,
                        ..Outcome::unknown(NodeReason::Superseded, "a newer run came first")
                    };
                }
                Outcome::unknown(
                    NodeReason::RunnerKilled,
                    format!("the runner was killed at work (exit code {exit_code}, {reason})"),
                )
            }),
        NodeState::Skipped | NodeState::Unknown => Outcome { state: NodeState::Unknown, ..told(record) },
    };
    Outcome { snapshot: Some(snapshot), lost_executions, handed_over, ..outcome }
}

/// Executions whose end the runner recorded: it counts one when it begins, and the newest may be missing its end.
fn finished_executions(snapshot: &Snapshot) -> u64 {
    let record = &snapshot.record;
    let newest_is_there = snapshot.history.last().is_some_and(|execution| execution.serial == record.serial);
    if record.executions == 0
        || newest_is_there
        || NodeState::parse(&record.state) != NodeState::Running
        || record.handed_over
    {
        record.executions
    } else {
        record.executions - 1
    }
}

fn told(record: &Record) -> Outcome {
    Outcome {
        state: NodeState::Unknown,
        reason: NodeReason::parse(&record.reason),
        message: record.message.clone(),
        snapshot: None,
        lost_executions: 0,
        handed_over: false,
    }
}

fn stop_reason(pod: &PodFacts, superseded: bool) -> NodeReason {
    if superseded {
        NodeReason::Superseded
    } else if pod.reason == "Evicted" {
        NodeReason::Evicted
    } else if pod.deleting || pod.presence == Presence::Gone {
        NodeReason::PodDeleted
    } else {
        NodeReason::Interrupted
    }
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
