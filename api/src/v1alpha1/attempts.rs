//! What ends a node's part of a run, and what is tried again: the types of the fields about exit codes, interruptions, reruns
//! and cleaning up.

#![expect(unreachable_pub, reason = "KubeSchema derives through private copies of the structs")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::targets::NODE_NAME;

/// What exit codes other than 0 mean.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.success) && has(self.skipped)) || self.success.all(c, !(c in self.skipped))").message("an exit code stands in exitCodes.success and in exitCodes.skipped; remove it from one of them"),
    validation = Rule::new("!(has(self.success) && has(self.retry)) || self.success.all(c, !(c in self.retry))").message("an exit code stands in exitCodes.success and in exitCodes.retry; remove it from one of them"),
    validation = Rule::new("!(has(self.skipped) && has(self.retry)) || self.skipped.all(c, !(c in self.retry))").message("an exit code stands in exitCodes.skipped and in exitCodes.retry; remove it from one of them")
)]
pub struct ExitCodes {
    /// Codes that are a success as 0 is, 1 to 255, at most 32. The execution's reason is `ExitCodeSucceeds`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 255)))]
    pub success: Vec<u8>,
    /// Codes by which the script leaves its node out, 1 to 255, at most 32: the node is `Skipped` with reason `ExitCodeSkips`, and not
    /// run again in this run. Not with `repeat`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 255)))]
    pub skipped: Vec<u8>,
    /// The only codes after which `backoffLimit` tries again, 1 to 255, at most 32. Every other failure is final then. Absent: all
    /// failures are tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 255)))]
    pub retry: Vec<u8>,
}

/// What becomes of a node whose pod is lost after its script began, for a cause outside the script. `Report`: the node
/// is `Unknown` if nobody saw how the script ended, `Stopped` if it was told to end, with the cause as its reason.
/// `Retry`: the node goes on in another pod once the lost one has ended: a script that does not repeat is tried once
/// more in a run, a counted repetition makes what is left of its count, where a lost execution counts, and at least one
/// more; an endless one always goes on. While the node is cordoned it waits, at most `podStartDeadlineSeconds` from
/// then on, and then is `Unknown` with reason `Unschedulable`. A pod that was lost before its script began is replaced
/// whatever the policy is. Default `Report`, with `repeat` `Retry`. A change applies at once to pods that are lost
/// later.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptionPolicy {
    /// The node's part of the run is over.
    Report,
    /// The node goes on in another pod.
    Retry,
}

/// Runs the script again without an edit.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rerun {
    /// A time (RFC 3339) later than that of every rerun before starts a new run, at once, also if it is in the future: write the time at
    /// which you ask. An earlier one (a revert) and the removal of `rerun` do nothing. A run that is started by the creation of
    /// the ScriptRunner, or by an edit of what runs, takes this time as its own and runs on all nodes.
    #[schemars(length(max = 64))]
    pub at: Time,
    /// See [`RerunScope`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<RerunScope>,
    /// Only these of the nodes in scope, 1 to 5000 names. Nodes that are left out by it and had not ended are `Skipped` with
    /// reason `OutOfScope`. Default: all in scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5000), inner(length(min = 1, max = 253), regex(pattern = NODE_NAME)))]
    pub node_names: Option<Vec<String>>,
}

/// Which nodes, by how they ended in the run before: `All` (the default), `Failed` (`Stopped` included), `Unknown` or
/// `Skipped`. Nodes that had not ended are in every scope. The others keep their entries and count as done in the new
/// run; what they are is decided once, when it begins. Nodes that begin to match later are run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RerunScope {
    /// All that are desired.
    #[default]
    All,
    /// Those that failed or were stopped.
    Failed,
    /// Those whose outcome is not known.
    Unknown,
    /// Those that were left out.
    Skipped,
}

/// What an edit of what runs does: `Rerun` (the default) starts a new run at once; `OnRerun` waits for the next
/// `rerun.at`, and until then the current run goes on as it was, also on nodes that come late. A change to `Rerun`
/// starts what waits.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdatePolicy {
    /// It starts a new run.
    #[default]
    Rerun,
    /// It waits for the next rerun.
    OnRerun,
}

/// Which ended pods are deleted once their answer is stored: `OnSuccess` (the default) those that succeeded, so that
/// the others can be looked at for a day; `Always` all; `Never` none. All go with a newer run, a further attempt on
/// their node, or the ScriptRunner. A change applies at once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodCleanupPolicy {
    /// Those that succeeded.
    #[default]
    OnSuccess,
    /// All of them.
    Always,
    /// None of them.
    Never,
}
