//! The status of a ScriptRunner. Only the operator writes it. No bound and no enum stands in its schema, so that an older
//! operator can read a newer one's; sizes are bounded in code.

#![expect(unreachable_pub, reason = "KubeSchema derives through private copies of the structs")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::reason::NodeReason;

/// What became of a ScriptRunner. `nodes` has the answer of each node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScriptRunnerStatus {
    /// The generation of the spec that this status was computed from, accepted or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest generation that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_generation: Option<i64>,
    /// UID of the object this status was written for; another one after a restore from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "objectUID")]
    pub object_uid: Option<String>,
    /// `Accepted`: the spec can be run. `Progressing`: nodes are still to be done. `Complete`: every desired node is done
    /// and none failed or is unknown. `Failed`: the run is over and some did, or it ended early.
    /// `Suspended`: the user paused or stopped the run; not set before that is used. `Consistent`: all
    /// nodes gave the same answer (those that are left out aside; Unknown while some have not answered), or which ones differ
    /// from the others; what the same is `output.groupBy` says.
    /// `ResultsTruncated`: the size limit cost results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The current run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
    /// The last ten runs before the current one, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_runs: Vec<RecentRun>,
    /// When a run last completed without a failed or unknown node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// Nodes that this run is for; the sum of `pending`, `active`, `succeeded`, `failed`, `skipped` and `unknown`.
    #[serde(default)]
    pub desired: u32,
    /// Desired nodes that have not started, or wait for their next pod.
    #[serde(default)]
    pub pending: u32,
    /// Desired nodes whose pod was created and has not ended.
    #[serde(default)]
    pub active: u32,
    /// Desired nodes whose last attempt succeeded.
    #[serde(default)]
    pub succeeded: u32,
    /// Desired nodes whose last attempt failed, or was interrupted.
    #[serde(default)]
    pub failed: u32,
    /// Desired nodes that were left out, with the reason in their entry.
    #[serde(default)]
    pub skipped: u32,
    /// Desired nodes whose outcome cannot be known.
    #[serde(default)]
    pub unknown: u32,
    /// Active nodes whose latest execution failed.
    #[serde(default)]
    pub failing: u32,
    /// Active nodes with a live session.
    #[serde(default)]
    pub connected: u32,
    /// Nodes done, of nodes desired, for example `18/20`.
    #[serde(default)]
    pub progress: String,
    /// Nodes with the same newest answer, largest group first, at most 20 groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_groups: Vec<OutputGroup>,
    /// How many different newest answers there are.
    #[serde(default)]
    pub output_group_count: u32,
    /// One entry per node, keyed by node name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub nodes: BTreeMap<String, NodeStatus>,
    /// What the size limit cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation: Option<Truncation>,
}

/// The current run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Grows with each run, from 1.
    pub number: u64,
    /// What started it: `Created`, `SpecChanged` or `Rerun`.
    pub trigger: String,
    /// Digest of everything that decides what runs; a run is started by its change.
    pub spec_hash: String,
    /// Who asked for it: the user who had last changed the spec when the run began, as the annotation
    /// `scriptrunner.io/requested-by` of the object named him, at most 512 bytes. Absent where the object had no such annotation,
    /// and for a run that began because a ConfigMap changed: who changed that is not known.
    /// With the policies of `deploy/20-policies.yaml` a name that is there is true: nobody can write another one than his own. Without them
    /// whoever may write the object may write any. `deploy/optional/requested-by.yaml` (Kubernetes 1.36) lets the API server write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// SHA-256 of the script.
    pub script_digest: String,
    /// SHA-256 of the trusted certificate authorities; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "trustedCADigest")]
    pub trusted_ca_digest: Option<String>,
    /// When the run was accepted.
    pub start_time: Time,
    /// When its last node was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The latest `rerun.at` that this run or one before it was started with or took as its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_at: Option<Time>,
}

/// A run before the current one.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecentRun {
    /// Number of the run.
    pub number: u64,
    /// What started it.
    pub trigger: String,
    /// When it was accepted.
    pub start_time: Time,
    /// When its last node was done; absent if a newer run came first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Nodes it was for.
    pub desired: u32,
    /// Of these, succeeded.
    pub succeeded: u32,
    /// Of these, failed.
    pub failed: u32,
    /// Of these, skipped.
    pub skipped: u32,
    /// Of these, unknown.
    pub unknown: u32,
}

/// Nodes whose newest answer is the same.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OutputGroup {
    /// Exit code of the newest execution; absent if it ended by a signal or has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Digest of what its nodes have in common, as `output.groupBy` says; empty for exit codes alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// How many nodes answered this.
    pub node_count: u32,
    /// Their names, folded (`worker[01-17]`), at most 1 KiB.
    pub nodes: String,
    /// What one of them printed, the last 1 KiB; with `output.groupBy: Result` the result.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sample: String,
}

/// What became of one node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// `Pending`, `Starting`, `Running`, `Succeeded`, `Failed`, `Skipped`, `Stopped` or `Unknown`.
    pub state: String,
    /// Why, in one word, where the state alone does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The run that this entry is of; older than `status.run.number` if the node is not part of the current run, or out of the
    /// scope of the rerun that began it.
    #[serde(default)]
    pub run: u64,
    /// The run that this older entry stands for as well, because its node was out of the scope of `rerun`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_for: u64,
    /// Pods made for this node in that run.
    #[serde(default)]
    pub attempts: u32,
    /// Of these, made because the one before had failed (`backoffLimit`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// Of these, made because the one before had been interrupted (`interruptionPolicy`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interruptions: u32,
    /// Executions on this node over all runs of this entry.
    #[serde(default)]
    pub executions: u64,
    /// Of these, failed.
    #[serde(default)]
    pub failures: u64,
    /// Exit code of the newest execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the newest execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Short digest of the Node's UID: the same name with another UID is another node.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "nodeID")]
    pub node_id: String,
    /// Short digest of the pod's UID, while active.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "podID")]
    pub pod_id: Option<String>,
    /// Number of the newest snapshot that is stored from that pod's session, once an execution in it began; while active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Serial of the newest execution of the entry's run that is known to have happened or was lost; the next pod of
    /// this node goes on after it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub serial: u64,
    /// Serial of the newest execution of that pod that `executions` contains already, while the pod is of an older run
    /// than the entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pod_serial: u64,
    /// The run that that pod's runner was ordered to go on with after the one that the pod was made for, while both are
    /// older than the entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pod_run: u64,
    /// Since when the Node object is gone; such an entry is kept for at most a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_time: Option<Time>,
    /// The newest executions, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Execution>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// One execution of the script on one node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// The run.
    pub run: u64,
    /// Ordinal of the pod within the run.
    pub attempt: u32,
    /// Ordinal of the execution within the run, growing over pods.
    pub serial: u64,
    /// When it started, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_millis: Option<u64>,
    /// Exit code; absent if a signal ended it or it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it failed, or what `exitCodes` makes of it, in one word, where exit code and signal do not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Kept part of stdout, with controls made visible and characters that are not seen written out, as `\u{202e}`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Kept part of stderr, with controls made visible and characters that are not seen written out, as `\u{202e}`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Bytes that the script wrote to stdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_bytes: Option<u64>,
    /// Bytes that the script wrote to stderr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_bytes: Option<u64>,
    /// Digest of the whole answer: ending, stdout and stderr.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// What the script wrote to the file that `$SCRIPTRUNNER_RESULT_FILE` names: one JSON value of at most 1 KiB, at most 8 levels deep.
    /// Anything else is not kept, and the reason is `ResultInvalid` where no other is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub result: Option<serde_json::Value>,
    /// Digest of the result, in place of a result that the size limit cost.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result_digest: String,
}

fn any_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

impl Execution {
    /// Whether it counts as a success: it ran, and exited with 0 or with a code that `exitCodes.success` has.
    pub fn succeeded(&self) -> bool {
        let is_success = match self.exit_code {
            Some(0) => self.reason.is_empty() || self.reason == NodeReason::ResultInvalid.as_str(),
            Some(_) => self.reason == NodeReason::ExitCodeSucceeds.as_str(),
            None => false,
        };
        is_success && self.signal.is_none()
    }

    /// Whether it is neither success nor failure: it exited with a code that `exitCodes.skipped` has.
    pub fn skipped(&self) -> bool {
        self.exit_code.is_some_and(|code| code != 0)
            && self.signal.is_none()
            && self.reason == NodeReason::ExitCodeSkips.as_str()
    }

    /// Whether it counts as a failure.
    pub fn failed(&self) -> bool {
        !self.succeeded() && !self.skipped()
    }

    /// Digest of the result, also of one that the size limit cost; empty if there was none.
    pub fn digest_of_result(&self) -> String {
        self.result.as_ref().map_or_else(|| self.result_digest.clone(), crate::result::digest)
    }

    /// Bytes of kept output.
    pub fn output_bytes(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }

    /// What identifies and orders an execution on its node.
    pub fn key(&self) -> (u64, u32, u64) {
        (self.run, self.attempt, self.serial)
    }
}

/// What the size limit of the object cost.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Truncation {
    /// Nodes whose results were cut.
    pub nodes: u32,
    /// Bytes that were cut.
    pub bytes: u64,
}

/// State of a node. Typed as text in the schema, so that an older operator can read a newer one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Not started.
    Pending,
    /// Its pod exists and has not started the runner.
    Starting,
    /// The runner is at work.
    Running,
    /// The last attempt succeeded.
    Succeeded,
    /// The last attempt failed.
    Failed,
    /// Left out.
    Skipped,
    /// An execution was interrupted.
    Stopped,
    /// The outcome cannot be known.
    Unknown,
}

impl NodeState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Starting,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
        Self::Stopped,
        Self::Unknown,
    ];

    /// The state as written in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
            Self::Stopped => "Stopped",
            Self::Unknown => "Unknown",
        }
    }

    /// The state that the text names; a text that no version known here writes is `Unknown`.
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == text).unwrap_or(Self::Unknown)
    }

    /// Whether the node's part of the run is over.
    pub fn is_done(self) -> bool {
        match self {
            Self::Pending | Self::Starting | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Stopped | Self::Unknown => true,
        }
    }

    /// Whether a pod of the node has been created and has not ended.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Starting | Self::Running)
    }
}

impl NodeStatus {
    /// Whether the node is desired in a run: its entry is of that run, or stands for it.
    pub fn is_in(&self, run: u64) -> bool {
        self.run == run || (run > 0 && self.held_for == run)
    }

    /// The state, parsed.
    pub fn node_state(&self) -> NodeState {
        NodeState::parse(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execution_is_success_skip_or_failure_by_its_ending_and_its_reason() {
        for (exit_code, signal, reason, (succeeded, skipped, failed)) in [
            (Some(0), None, "", (true, false, false)),
            (Some(0), None, "ResultInvalid", (true, false, false)),
            (Some(2), None, "ResultInvalid", (false, false, true)),
            (Some(0), None, "ExecutionDeadlineExceeded", (false, false, true)),
            (Some(2), None, "ExitCodeSucceeds", (true, false, false)),
            (Some(4), None, "ExitCodeSkips", (false, true, false)),
            (Some(2), None, "ScriptFailed", (false, false, true)),
            // A word that an older version dropped.
            (Some(2), None, "", (false, false, true)),
            // A reason without the ending that belongs to it.
            (None, Some(15), "ExitCodeSucceeds", (false, false, true)),
            (None, None, "ExitCodeSkips", (false, false, true)),
            (Some(0), None, "ExitCodeSkips", (false, false, true)),
            (None, None, "", (false, false, true)),
        ] {
            let execution = Execution { exit_code, signal, reason: reason.into(), ..Execution::default() };
            let found = (execution.succeeded(), execution.skipped(), execution.failed());
            assert_eq!(found, (succeeded, skipped, failed), "{execution:?}");
        }
    }
}
