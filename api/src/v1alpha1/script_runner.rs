//! The ScriptRunner resource: what a user may ask for. The comments here are the manual (`kubectl explain`).

#![expect(clippy::duplicated_attributes, reason = "each printer column repeats its keys")]
#![expect(clippy::struct_field_names, reason = "the names are those of the Kubernetes API")]
#![expect(unreachable_pub, reason = "KubeSchema derives through private copies of the structs")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    Dependencies, DesiredExecution, EnvFromSource, ExitCodes, ImagePullPolicy, InterruptionPolicy,
    NewNodePolicy, NotReadyNodePolicy, PodCleanupPolicy, PodTemplate, Rerun, Resources, ScriptFrom,
    ScriptRunnerStatus, SecretRef, Toleration, UnschedulableNodePolicy, UpdatePolicy, targets::NODE_NAME,
};

/// Longest script, in bytes of UTF-8.
pub const MAX_SCRIPT_BYTES: usize = 65_536;
/// Default of `terminationGracePeriodSeconds`.
pub const DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS: u32 = 10;
/// Default of `podStartDeadlineSeconds`.
pub const DEFAULT_POD_START_DEADLINE_SECONDS: u32 = 600;
/// Longest `runnerIdleSeconds`: a day.
pub const MAX_RUNNER_IDLE_SECONDS: u32 = 86_400;
/// Default of `historyLimit`.
pub const DEFAULT_HISTORY_LIMIT: u32 = 5;
/// Default of `output.stdoutLimitBytes` and `output.stderrLimitBytes`.
pub const DEFAULT_OUTPUT_LIMIT_BYTES: u32 = 4096;

/// Runs a script once, or again and again, on every node that a selector picks, and keeps each node's answers in its
/// status. Editing what runs (script or the ConfigMap it stands in, interpreter, args, env, envFrom, dependencies, mode, runAs,
/// the host fields, image, volumes, placement, repeat) starts a new run on all nodes; editing where and how fast it runs, or how
/// much is kept, does not. A new time in `rerun.at` starts one without an edit.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "scriptrunner.io",
    version = "v1alpha1",
    kind = "ScriptRunner",
    namespaced,
    shortname = "sr",
    category = "all",
    status = "ScriptRunnerStatus",
    derive = "PartialEq",
    doc = "Runs a script on every node that a selector picks, and keeps each node's answers in its status.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desired"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.active"),
    printcolumn(name = "OK", type_ = "integer", json_path = ".status.succeeded"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Skipped", type_ = "integer", json_path = ".status.skipped"),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".status.outputGroupCount"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.script) != has(self.scriptFrom)").message("give exactly one of script and scriptFrom"),
    validation = Rule::new("self.mode == 'Normal' || !has(self.scriptFrom) || has(self.scriptFrom.sha256)").message("a privileged mode needs scriptFrom.sha256, so that admission sees what runs; get it with sha256sum"),
    validation = Rule::new("self.mode == 'Normal' || !has(self.dependencies) || !has(self.dependencies.trustedCA) || has(self.dependencies.trustedCA.sha256)").message("a privileged mode needs dependencies.trustedCA.sha256, so that admission sees what is trusted; get it with sha256sum"),
    validation = Rule::new("self.mode == 'Normal' || !has(self.envFrom)").message("envFrom is for mode Normal only; write the values into the spec, where admission sees them"),
    validation = Rule::new("self.mode == 'Normal' || !has(self.image) || self.image.matches('@sha256:[0-9a-f]{64}$')").message("a privileged mode needs the image by digest (name@sha256:...), so that admission sees what runs"),
    validation = Rule::new("self.mode == 'Normal' || !has(self.podTemplate) || !has(self.podTemplate.volumes) || !self.podTemplate.volumes.exists(v, has(v.configMap))").message("a volume of a ConfigMap is for mode Normal only, because whoever edits the ConfigMap would decide what a privileged script reads"),
    validation = Rule::new("self.mode != 'Normal' || !has(self.dependencies) || !has(self.dependencies.packages) || size(self.dependencies.packages) == 0 || (has(self.runAs) && self.runAs == 'Root')").message("dependencies.packages need root; set runAs: Root, or put the packages into an image of your own"),
    validation = Rule::new("self.mode != 'Normal' || !((has(self.hostPID) && self.hostPID) || (has(self.hostIPC) && self.hostIPC) || (has(self.hostNetwork) && self.hostNetwork))").message("hostPID, hostIPC and hostNetwork need a privileged mode"),
    validation = Rule::new("has(self.nodeLabelSelector) != has(self.nodeNames)").message("give exactly one of nodeLabelSelector and nodeNames; nodeLabelSelector: {} means every node"),
    validation = Rule::new("!has(self.runAs) || self.mode == 'Normal'").message("runAs is for mode Normal only; remove it: a privileged mode always runs as root"),
    validation = Rule::new("!has(self.hostFileSystem) || self.mode == 'PrivilegedWithHostFS'").message("hostFileSystem needs mode: PrivilegedWithHostFS"),
    validation = Rule::new("self.mode == 'Normal' || !has(self.env) || self.env.all(e, !has(e.valueFrom) || !has(e.valueFrom.configMapKeyRef))").message("env from a ConfigMap is for mode Normal only; write the value into the spec, where admission sees it"),
    validation = Rule::new("!has(self.unschedulableNodePolicy) || self.unschedulableNodePolicy == 'Run' || !has(self.tolerations) || !self.tolerations.exists(t, has(t.key) && t.key == 'node.kubernetes.io/unschedulable')").message("unschedulableNodePolicy: Skip leaves out the cordoned nodes that tolerations lets in; remove the toleration of node.kubernetes.io/unschedulable or set unschedulableNodePolicy: Run"),
    validation = Rule::new("!has(self.parallelism) || has(self.executionDeadlineSeconds)").message("parallelism needs executionDeadlineSeconds, so that a hung node cannot hold its slot for ever"),
    validation = Rule::new("!has(self.parallelism) || !has(self.repeat) || has(self.repeat.count)").message("parallelism cannot be combined with an endless repeat; set repeat.count or remove parallelism"),
    validation = Rule::new("!has(self.maxFailures) || has(self.executionDeadlineSeconds)").message("maxFailures needs executionDeadlineSeconds, so that a hung node is counted as a failure"),
    validation = Rule::new("!has(self.maxFailures) || !has(self.repeat) || has(self.repeat.count)").message("maxFailures cannot be combined with an endless repeat, whose nodes never end; set repeat.count or remove maxFailures"),
    validation = Rule::new("!has(self.activeDeadlineSeconds) || !has(self.repeat) || has(self.repeat.count)").message("activeDeadlineSeconds cannot be combined with an endless repeat, which has no end; set repeat.count or remove activeDeadlineSeconds"),
    validation = Rule::new("!has(self.backoffLimit) || self.backoffLimit == 0 || !has(self.repeat)").message("backoffLimit cannot be combined with repeat, which runs the script again anyway; remove one of them"),
    validation = Rule::new("!has(self.exitCodes) || !has(self.exitCodes.retry) || (has(self.backoffLimit) && self.backoffLimit > 0)").message("exitCodes.retry needs backoffLimit: 1 or more, which says how often a node is tried again"),
    validation = Rule::new("!has(self.exitCodes) || !has(self.exitCodes.skipped) || !has(self.repeat)").message("exitCodes.skipped cannot be combined with repeat; remove one of them"),
    validation = Rule::new("!has(self.interruptionPolicy) || self.interruptionPolicy == 'Retry' || !has(self.repeat) || has(self.repeat.count)").message("interruptionPolicy: Report cannot be combined with an endless repeat, which always goes on; set repeat.count or remove interruptionPolicy"),
    validation = Rule::new("!has(self.ttlSecondsAfterFinished) || !has(self.repeat) || has(self.repeat.count)").message("ttlSecondsAfterFinished cannot be combined with an endless repeat, which never finishes; set repeat.count or remove ttlSecondsAfterFinished"),
    validation = Rule::new("!has(self.runnerIdleSeconds) || self.runnerIdleSeconds == 0 || self.mode == 'Normal'").message("runnerIdleSeconds is for mode Normal only; remove it: the pod of a privileged mode ends with its run"),
    validation = Rule::new("self.mode == 'Normal' || has(self.parallelism) || (has(self.repeat) && !has(self.repeat.count))").message("a privileged mode must state parallelism (100% is allowed), unless it repeats endlessly")
)]
pub struct ScriptRunnerSpec {
    /// The script, run byte for byte as given: nothing in it is expanded or escaped. A first line that starts with `#!`
    /// names its interpreter; otherwise `interpreter` does. `uv run --script` there stands for the default of `interpreter`, so
    /// that `dependencies` holds for such a script too. At most 64 KiB. Exactly one of `script` and `scriptFrom`. A change
    /// starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = Rule::new("size(bytes(self)) <= 65536").message("script is longer than 64 KiB (65536 bytes of UTF-8); put the bulk into the image or a package"))]
    pub script: Option<String>,

    /// Where the script stands, if not in the spec. Within seconds a change of it is a new run (with `updatePolicy: OnRerun` it
    /// waits for `rerun.at`); what a run began with it ends with. While it is missing or unusable no run begins, the condition
    /// `Accepted` says what is wrong, and the current run goes on with what it began with, also on nodes that come late. Exactly
    /// one of `script` and `scriptFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_from: Option<ScriptFrom>,

    /// Program and options that run the script; the script's path is appended. Default `["python3", "-u"]`. A `#!` first
    /// line in the script wins over the default, this field wins over a `#!` line. `uv run --script` in either stands for the
    /// default; an option with it that would change what runs fails the run and is named. At most 16 elements. A change starts
    /// a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 1024)))]
    pub interpreter: Option<Vec<String>>,

    /// Arguments of the script, passed as they are, without a shell and without expansion. At most 64. A change starts a
    /// new run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub args: Vec<String>,

    /// Environment of the script and of the installers, with the meaning it has in a container: `$(NAME)` refers to
    /// earlier entries. Names that start with `SCRIPTRUNNER_` are the runner's own. At most 100. A change starts a new run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub env: Vec<EnvVar>,

    /// Whole ConfigMaps and Secrets as environment of the script and of the installers, as in a container: entries of `env` win, and of
    /// several sources the last. Their content is read when a pod starts; a change of it starts no run. Only in mode `Normal`. At most 16. A change starts a new run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,

    /// What is installed before the script runs, once per pod and for all executions in it, also those of further runs in a
    /// pod that stays (`runnerIdleSeconds`). If an installation fails the script is not run, and the node's reason is
    /// `DependencyInstallFailed`. A script with inline metadata (PEP 723, a block from `# /// script` to `# ///`) has its
    /// requirements there; uv reads it, and `pip` may not be combined with it. A block without an end is an installation that fails.
    /// What installers download is thrown away, unless `env` sets `PIP_CACHE_DIR`, or for uv alone `UV_CACHE_DIR`, to a folder in
    /// a volume of `podTemplate`, where the next pod finds it. A change starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,

    /// Nodes by label. `{}` means every node. Exactly one of `nodeLabelSelector` and `nodeNames`. A node that begins to
    /// match is run (but see `newNodePolicy`); one that stops matching keeps its entry if it had started, and leaves
    /// otherwise. A node with label `scriptrunner.io/exclude` (any value but `false`) opts out: it is listed as `Skipped` with
    /// reason `OptedOut`, and run when the label goes. Every node that matches and is left out is listed as `Skipped` with its
    /// reason and judged again when it changes. A change does not run finished nodes again, and stops none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_label_selector: Option<LabelSelector>,

    /// Nodes by name, 1 to 5000. A name without a Node is listed as `Skipped` with reason `NodeNotFound`, and run when
    /// the node appears (but see `newNodePolicy`). A Node that is made again under the same name is another node, and is run.
    /// A change does not run finished nodes again, and stops none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5000), inner(length(min = 1, max = 253), regex(pattern = NODE_NAME)))]
    pub node_names: Option<Vec<String>>,

    /// Nodes that are left out although they match, by name, at most 5000. They are listed as `Skipped` with reason
    /// `Excluded`. Names that do not match do nothing. A change applies at once to nodes that have not started: it stops no
    /// running node and runs no finished one again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000), inner(length(min = 1, max = 253), regex(pattern = NODE_NAME)))]
    pub excluded_node_names: Vec<String>,

    /// Runs on only so many of the nodes that match and are not excluded: a number from 1 to 1000000, or a percentage of them
    /// (rounded up, at least one). Which ones is drawn for each run, by SHA-256 of run number and Node UID; nodes that cannot
    /// be run now are taken last. A node that has started stays in the sample whatever nodes come, and within a run no
    /// more nodes are started than the sample has, those that are gone or were made again since included. Nodes outside the
    /// sample are not desired: they have no entry and are in no counter. A percentage follows the number of nodes; with `newNodePolicy: Ignore` the sample is drawn once. Default:
    /// all. A change applies at once: a larger sample runs further nodes, a smaller one stops none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count_or_percent")]
    pub node_sample: Option<IntOrString>,

    /// Taints that do not keep the script away, at most 64. Nodes are judged as for a DaemonSet: one with a taint of effect
    /// `NoSchedule` or `NoExecute` that is not tolerated is `Skipped` with reason `Tainted`, and run when the taint goes.
    /// The taints of cordoned nodes and of memory, disk and process pressure are tolerated anyway, and so is, without
    /// limit, that a node becomes not ready or unreachable while its pod runs. A toleration that matches
    /// `node-role.kubernetes.io/control-plane` (one without a key does) needs verb `use` on
    /// `nodeclasses.access.scriptrunner.io/control-plane`. A change applies to nodes that have not started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// See [`UnschedulableNodePolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unschedulable_node_policy: Option<UnschedulableNodePolicy>,

    /// See [`NotReadyNodePolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_node_policy: Option<NotReadyNodePolicy>,

    /// See [`NewNodePolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_node_policy: Option<NewNodePolicy>,

    /// How much of the node the script sees. `Normal` passes the Pod Security level *restricted* (with `runAs: Root`
    /// *baseline*). `Privileged` is root with all privileges, `PrivilegedWithHostFS` also has the node's `/` at `/host`;
    /// both run only in a namespace labelled `scriptrunner.io/privileged=allowed`, and writing them needs verb `use` on
    /// `executionmodes.access.scriptrunner.io`. Default `Normal`. A change starts a new run.
    #[serde(default)]
    pub mode: Mode,

    /// See [`RunAs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<RunAs>,

    /// How the node's file system is mounted; only in mode `PrivilegedWithHostFS`. A change starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_file_system: Option<HostFileSystem>,

    /// Whether the script sees the processes of the node; only in a privileged mode. Default false. A change starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "hostPID")]
    pub host_pid: Option<bool>,

    /// Whether the script is in the node's network; only in a privileged mode. Default false. A change starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,

    /// Whether the script shares System V IPC and POSIX message queues with the node; only in a privileged mode. Default false. A change
    /// starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "hostIPC")]
    pub host_ipc: Option<bool>,

    /// Image that the script runs in; in a privileged mode by digest. Any image for Linux on the nodes' architecture will do, it need not
    /// have more than the interpreter: the runner, one static program, is put beside it, and the image's own entry point is not used. Its user
    /// is not used either: `mode` and `runAs` say who the script is. At most 512 characters. Default: the operator's
    /// image with Python. Where the operator runs with `--allowed-images`, one that is not on that list is the condition
    /// `Accepted=False` with reason `ImageNotAllowed`, and makes no pod. A change starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9][!-~]*$"))]
    pub image: Option<String>,

    /// See [`ImagePullPolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets of the namespace with which images are pulled, at most 16. May be named only by who may create pods in the namespace. A
    /// change applies to pods that are made later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretRef>,

    /// CPU, memory and other resources of the script and its installers. Default: the operator's (memory 256Mi, ephemeral storage 1Gi, where
    /// the cluster can count it). A change applies to pods that are made later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// What is added to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,

    /// See [`Placement`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// Runs the script again and again in the same pod. Absent: once. A change starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,

    /// How long one execution may take, in seconds, 1 to 31536000. After that the script's process group gets SIGTERM
    /// and, after `terminationGracePeriodSeconds`, SIGKILL; what it printed is kept. Default: no limit. A change applies
    /// to pods that start later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub execution_deadline_seconds: Option<u32>,

    /// Time between SIGTERM and SIGKILL, in seconds, 0 to 3600, default 10. A change applies to pods that start later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub termination_grace_period_seconds: Option<u32>,

    /// How long a pod may take to start its runner, and a node to become Ready, in seconds, 1 to 86400, default 600.
    /// A pod that has not started by then ends as `Failed` with the reason (for example `ImagePullFailed`), a node that
    /// is not Ready by then as `Unknown` with reason `Unreachable`. A change applies at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub pod_start_deadline_seconds: Option<u32>,

    /// How long the whole run may take, in seconds from its start, 1 to 31536000; time in which it is paused counts. After that
    /// nothing more is started and what executes is told to end: these nodes are `Stopped` with reason
    /// `ActiveDeadlineExceeded`, nodes that never started stay `Pending`, and the run has `Failed` with reason
    /// `ActiveDeadlineExceeded`. A longer deadline goes on with nodes that are `Pending`. A node that comes when the run
    /// is over is run all the same. Not with an endless repeat. Default: no limit. A change applies at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<u32>,

    /// How often a node is tried again after it failed, in another pod, 0 to 100, default 0. The first further attempt starts 10
    /// seconds after the failure, each next one after twice as long, at most 6 minutes; until then the node is `Pending`
    /// with reason `BackingOff`, and counts as failed in `maxFailures` only after its last attempt. `exitCodes.retry` says
    /// which failures are tried again; without it all are but those that no further attempt can mend. Not with `repeat`.
    /// A change applies at once to nodes that are not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: Option<u32>,

    /// What exit codes other than 0 mean; a code may stand in one list only. Default: each is a failure. A change of `success` and
    /// `skipped` applies to pods that start later, one of `retry` to failures that come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_codes: Option<ExitCodes>,

    /// See [`InterruptionPolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interruption_policy: Option<InterruptionPolicy>,

    /// How many nodes may be busy at once: a number from 1 to 1000000, or a percentage of the desired nodes (rounded up, at least
    /// one node). Needs `executionDeadlineSeconds`; not with an endless repeat; a privileged mode must state it (100% is
    /// allowed) unless it repeats endlessly. Default: all. A change applies at once and never stops a running node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count_or_percent")]
    pub parallelism: Option<IntOrString>,

    /// How many nodes may fail or become unknown before the run starts nothing more: a number from 0 to 1000000, or a percentage
    /// of the desired nodes (rounded up); 0 stops at the first failure. Once more nodes than that failed or are unknown no
    /// further node is started and none is tried again. What runs goes on to its end, so with `parallelism` at most
    /// `maxFailures` plus `parallelism` nodes fail in the script. Then the run ends as `Failed` with reason
    /// `ErrorBudgetExceeded`; nodes that never started stay `Pending`. Raising it goes on with them; editing the script is a
    /// new run. Needs `executionDeadlineSeconds`; not with an endless repeat. Default: no limit. A change applies at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "none_or_count_or_percent")]
    pub max_failures: Option<IntOrString>,

    /// Whether the run goes on; see [`DesiredExecution`]. Default `Active`. A change applies at once and starts no new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<DesiredExecution>,

    /// Runs the script again without an edit of what runs, on all nodes or some. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,

    /// See [`UpdatePolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_policy: Option<UpdatePolicy>,

    /// How long a runner that has finished stays connected in its pod, ready to run again, in seconds, 0 to 86400, default 0: its
    /// pod ends with its run. A new run that differs from the one before only in `script` and `args` is then sent to the
    /// pods that wait, and begins within a second instead of the time that a new pod takes; any other change of what
    /// runs, and whatever else pods are made of, replaces them. A pod that waits is idle: its node is done and takes no
    /// part in `parallelism`. Its files stay from run to run. Only in mode `Normal`; without effect on an endless `repeat`,
    /// and where runners have no session with the operator. A change applies to pods that are made later; with 0 no run
    /// is sent to a pod that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub runner_idle_seconds: Option<u32>,

    /// How many executions are kept per node, newest last, 1 to 100, default 5. The status has a size limit of its own:
    /// what had to be cut stands in `status.truncation` and the condition `ResultsTruncated`. A change applies to pods
    /// that start later, and at once to what is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: Option<u32>,

    /// How much of the output is kept. The whole output is always in the log of the pod's container. A change applies to
    /// pods that start later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,

    /// How long after its end the ScriptRunner is deleted, with everything it knows, in seconds, 0 to 31536000. It has ended when it is
    /// `Complete`, or `Failed` for another reason than `Stopped`; while a node is pending or active that can still be run, it has not.
    /// Whatever applies the object again (GitOps) runs it again. Not with an endless repeat. Default: it is kept. A change applies
    /// at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// See [`PodCleanupPolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cleanup_policy: Option<PodCleanupPolicy>,
}

/// One environment variable, as in a container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("give value or valueFrom, not both"),
    validation = Rule::new("!self.name.startsWith('SCRIPTRUNNER_')").message("names that start with SCRIPTRUNNER_ are set by the runner; choose another name")
)]
pub struct EnvVar {
    /// Name, any printable ASCII except `=`, at most 256 characters.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[ -<>-~]+$"))]
    pub name: String,
    /// Value, at most 8192 characters. `$(NAME)` refers to earlier entries, `$$` is a literal `$`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub value: Option<String>,
    /// Where the value comes from. Exactly one of its fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Source of an environment variable, as in a container. Secrets and ConfigMaps are of the ScriptRunner's namespace, and
/// may be named only by who may create pods there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.fieldRef), has(self.resourceFieldRef), has(self.configMapKeyRef), has(self.secretKeyRef)].filter(x, x).size() == 1").message("give exactly one of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef"))]
pub struct EnvVarSource {
    /// A field of the pod, for example `status.hostIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// A resource request or limit of the runner's container, for example `limits.memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// A key of a ConfigMap; only in mode `Normal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// A field of the pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// Path of the field, at most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub field_path: String,
}

/// A resource request or limit of the runner's container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ResourceFieldRef {
    /// Name of the resource, for example `limits.memory`, at most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub resource: String,
}

/// A key of a ConfigMap or Secret of the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the object, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Whether it may be missing; default false: the pod waits for it until `podStartDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// Nodes by label, with the meaning of a Kubernetes label selector: all its parts must hold.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that the node must have, with these values of at most 63 characters. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_values")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions on labels. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One condition on a label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)").message("operators In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct LabelSelectorRequirement {
    /// Label key, at most 317 characters.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is compared.
    pub operator: LabelOperator,
    /// Values for `In` and `NotIn`, at most 256 of at most 63 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// The label exists and its value is one of `values`.
    In,
    /// The label is absent, or its value is none of `values`.
    NotIn,
    /// The label exists.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// How much of the node the script sees.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Passes the Pod Security level *restricted* (with `runAs: Root` *baseline*).
    #[default]
    Normal,
    /// Root with all privileges.
    Privileged,
    /// Root with all privileges, and the node's `/` at `/host`.
    PrivilegedWithHostFS,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Privileged, Self::PrivilegedWithHostFS];

    /// The mode as written in a spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Privileged => "Privileged",
            Self::PrivilegedWithHostFS => "PrivilegedWithHostFS",
        }
    }

    /// Whether this mode is root on the node.
    pub fn is_privileged(self) -> bool {
        match self {
            Self::Normal => false,
            Self::Privileged | Self::PrivilegedWithHostFS => true,
        }
    }
}

/// User of the script in mode `Normal`: `NonRoot` (the default) is a numeric non-root user with a read-only root file
/// system, `Root` is root without added capabilities and passes the Pod Security level *baseline*. A change starts a
/// new run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunAs {
    /// A numeric non-root user.
    #[default]
    NonRoot,
    /// Root without added capabilities.
    Root,
}

/// How the node's file system is mounted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HostFileSystem {
    /// `ReadWrite` (the default) or `ReadOnly`, which includes every mount below `/`. A privileged script can mount it
    /// again for writing: this guards against mistakes, not against intent. `ReadOnly` needs nodes that can mount so: Linux
    /// 5.12 with containerd 2.0 or CRI-O 1.30, or newer; others refuse the pod, and the message says so.
    #[serde(default)]
    pub access_mode: AccessMode,
}

/// Access to the node's file system.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// Read and write.
    #[default]
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// Who puts the pod on its node. `Direct` (the default): the operator names the node, after judging it as a DaemonSet
/// would; a pod that the kubelet refuses is replaced once through the scheduler. `Scheduler`: the scheduler places it
/// from the start, which may wait or preempt. A change starts a new run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The operator names the node.
    #[default]
    Direct,
    /// The scheduler places the pod.
    Scheduler,
}

/// Runs the script again and again in the same pod; executions of a node never overlap.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Repeat {
    /// How many executions, 1 to 1000000. Absent: endless, until the ScriptRunner is changed or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: Option<u32>,
    /// Time from the start of one execution to the start of the next, in seconds, 1 to 2678400. An execution that takes
    /// longer is followed by the next at once.
    #[schemars(range(min = 1, max = 2_678_400))]
    pub period_seconds: u32,
    /// Time before the first execution of the run on each node, in seconds, 0 to 86400, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub initial_delay_seconds: Option<u32>,
    /// See [`StopOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on: Option<StopOn>,
}

/// What ends the repetition of a node early: `Never` (the default), its first `Failure`, or its first `Success`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopOn {
    /// Nothing.
    #[default]
    Never,
    /// The first failed execution.
    Failure,
    /// The first successful execution.
    Success,
}

/// How much of the output is kept in the status.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Bytes of stdout kept per execution, 0 to 65536, default 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_536))]
    pub stdout_limit_bytes: Option<u32>,
    /// Bytes of stderr kept per execution, 0 to 65536, default 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_536))]
    pub stderr_limit_bytes: Option<u32>,
    /// See [`OutputTruncation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation: Option<OutputTruncation>,
    /// See [`GroupBy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<GroupBy>,
    /// See [`Keep`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
}

/// Which part of an output that is longer than its limit is kept: the `Tail` (the default) or the `Head`. A change
/// applies to pods that start later.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputTruncation {
    /// The end.
    #[default]
    Tail,
    /// The beginning.
    Head,
}

impl OutputTruncation {
    /// The choice as the runner's argument has it.
    pub fn as_argument(self) -> &'static str {
        match self {
            Self::Tail => "tail",
            Self::Head => "head",
        }
    }
}

/// Which answers are the same in `status.outputGroups` and the condition `Consistent`: those with the same exit code and
/// `Output` (the default), with the same `ExitCode`, or with the same exit code and `Result`. Where scripts print what differs
/// anyway, such as the time or a host name, group by `ExitCode`, or write what matters to the result file
/// (`$SCRIPTRUNNER_RESULT_FILE`) and group by `Result`. A change applies at once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Exit code, stdout and stderr.
    #[default]
    Output,
    /// Exit code.
    ExitCode,
    /// Exit code and the value in the result file.
    Result,
}

/// What is kept of outputs: all that the limits allow (`Full`, the default), or only their lengths and digest (`DigestOnly`), for
/// scripts that print what nobody should read in a status. A result and the last words of a failed installation are kept either way.
/// A change applies to pods that start later.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// As much as the limits allow.
    #[default]
    Full,
    /// Lengths and digest.
    DigestOnly,
}

fn label_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 63}})
}

fn count_or_percent(_: &mut SchemaGenerator) -> Schema {
    at_least_or_percent(1)
}

fn none_or_count_or_percent(_: &mut SchemaGenerator) -> Schema {
    at_least_or_percent(0)
}

fn at_least_or_percent(minimum: u32) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": minimum,
        "maximum": 1_000_000,
        "maxLength": 4,
        "pattern": "^([1-9][0-9]?|100)%$",
    })
}
