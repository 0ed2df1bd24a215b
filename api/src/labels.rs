//! Every label, annotation, environment variable and path that operator and runner share.

/// Label of a child: UID of the ScriptRunner that owns it.
pub const UID: &str = "scriptrunner.io/uid";
/// Label of a child: the mode, as written in the spec.
pub const MODE: &str = "scriptrunner.io/mode";
/// Label of a child: number of the run it belongs to.
pub const RUN: &str = "scriptrunner.io/run";
/// Label of a pod: ordinal of the pod among the pods of its node in its run, from 1.
pub const ATTEMPT: &str = "scriptrunner.io/attempt";
/// Label of a pod: UID of the Node it was made for.
pub const NODE_UID: &str = "scriptrunner.io/node-uid";
/// Annotation of a child: name of its ScriptRunner (may be longer than a label value).
pub const NAME: &str = "scriptrunner.io/name";
/// Annotation of a pod: name of the Node it was made for (may be longer than a label value).
pub const NODE: &str = "scriptrunner.io/node";
/// Annotation of a pod whose runner stays for further runs: digest of all that the pod was made of, but for what an order
/// over the session brings.
pub const SHAPE: &str = "scriptrunner.io/shape";
/// Annotation of a ScriptRunner: the name of the user who last changed its spec, as admission stamps it.
pub const REQUESTED_BY: &str = "scriptrunner.io/requested-by";
/// Annotation of the CRD: number of the status schema, see [`crate::SCHEMA`].
pub const SCHEMA: &str = "scriptrunner.io/schema";
/// Label of a namespace that admits privileged runs; its only meaning-bearing value is [`PRIVILEGED_ALLOWED`].
pub const PRIVILEGED: &str = "scriptrunner.io/privileged";
/// Value of [`PRIVILEGED`] that admits privileged runs.
pub const PRIVILEGED_ALLOWED: &str = "allowed";
/// Label of a Node by which it opts out of every run: any value but [`EXCLUDE_NOT`], an empty one included. It keeps scripts
/// from beginning on the node; what runs there already goes on.
pub const EXCLUDE: &str = "scriptrunner.io/exclude";
/// Value of [`EXCLUDE`] that is as good as no label.
pub const EXCLUDE_NOT: &str = "false";

/// Label of a ConfigMap of a user that ScriptRunners may name; its only meaning-bearing value is [`SOURCE_TRUE`].
pub const SOURCE: &str = "scriptrunner.io/source";
/// Value of [`SOURCE`] that lets the operator watch the ConfigMap.
pub const SOURCE_TRUE: &str = "true";

/// The one annotation with a key of Kubernetes that users may set.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// What keys of users' annotations do not have as whole parts between dots and slashes: ours, and what kubelets, container runtimes,
/// their hooks and networks act on. Before a slash or without one: `cpu-quota.crio.io` and `io.kubernetes.cri-o.Devices` have none.
pub const NOT_IN_ANNOTATIONS: [&str; 14] = [
    "scriptrunner.io",
    "kubernetes.io",
    "k8s.io",
    // CRI-O <https://github.com/cri-o/cri-o/blob/main/pkg/annotations/annotations.go>; `io.kubernetes` is also containerd's.
    "cri-o.io",
    "crio.io",
    "io.kubernetes",
    "nri.io",
    // Multus, by the standard of networks.
    "cni.cncf.io",
    "multus-cni.io",
    // Hooks and runtimes of podman's family, crun, runc, Kata and gVisor.
    "io.containers",
    "run.oci",
    "org.systemd.property",
    "io.katacontainers",
    "dev.gvisor",
];
/// What is said of them.
pub const NOT_IN_ANNOTATIONS_TEXT: &str = "annotations whose key has scriptrunner.io, kubernetes.io, k8s.io, cri-o.io, crio.io, io.kubernetes, nri.io, cni.cncf.io, multus-cni.io, io.containers, run.oci, org.systemd.property, io.katacontainers or dev.gvisor between dots and slashes are not for users, because nodes act on them; choose another key";

/// Prefix of environment variables that only the runner sets.
pub const ENV_PREFIX: &str = "SCRIPTRUNNER_";
/// Environment of the script: name of the node.
pub const ENV_NODE: &str = "SCRIPTRUNNER_NODE";
/// Environment of the script: number of the run.
pub const ENV_RUN: &str = "SCRIPTRUNNER_RUN";
/// Environment of the script: ordinal of the pod within the run, from 1.
pub const ENV_ATTEMPT: &str = "SCRIPTRUNNER_ATTEMPT";
/// Environment of the script: ordinal of the execution within the run on this node, from 1, growing over pods.
pub const ENV_SERIAL: &str = "SCRIPTRUNNER_SERIAL";
/// Environment of the script: where the node's `/` is mounted; only in mode `PrivilegedWithHostFS`.
pub const ENV_HOST_ROOT: &str = "SCRIPTRUNNER_HOST_ROOT";
/// Environment of the script: file that it may write its result to, one JSON value.
pub const ENV_RESULT_FILE: &str = "SCRIPTRUNNER_RESULT_FILE";

/// Folder with the pinned inputs, read-only.
pub const INPUT_DIR: &str = "/scriptrunner/input";
/// File name of the canonical pinned spec in [`INPUT_DIR`], and key in the run's ConfigMap.
pub const SPEC_FILE: &str = "spec.json";
/// File name of the script in [`INPUT_DIR`], and key in the run's ConfigMap.
pub const SCRIPT_FILE: &str = "script";
/// File name of the trusted certificate authorities in [`INPUT_DIR`], and key in the run's ConfigMap; only if there are any.
pub const TRUSTED_CA_FILE: &str = "trusted-ca.pem";
/// Folder that the runner is copied to for an image of the user's, read-only for the script.
pub const RUNNER_DIR: &str = "/scriptrunner/bin";
/// File name of the runner in [`RUNNER_DIR`].
pub const RUNNER_FILE: &str = "scriptrunner-runner";
/// File name of uv in [`RUNNER_DIR`], where the runner's image has it.
pub const UV_FILE: &str = "uv";
/// Working folder and HOME of the script; made again when the script deleted it.
pub const WORK_DIR: &str = "/scriptrunner/work";
/// Folder of the runner's own state, in an emptyDir that outlives a container restart.
pub const STATE_DIR: &str = "/scriptrunner/state";
/// File in [`STATE_DIR`] that exists from before the first execution on.
pub const STARTED_FILE: &str = "started";
/// File in [`STATE_DIR`] that [`ENV_RESULT_FILE`] names; removed before each execution.
pub const RESULT_FILE: &str = "result.json";
/// Folder of the token that the runner identifies itself with to the operator, and to nobody else.
pub const TOKEN_DIR: &str = "/scriptrunner/token";
/// File name of the token in [`TOKEN_DIR`].
pub const TOKEN_FILE: &str = "token";
/// Where the node's `/` is mounted in mode `PrivilegedWithHostFS`.
pub const HOST_ROOT: &str = "/host";
/// The kubelet's default termination message file.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Name of the runner's container.
pub const CONTAINER: &str = "runner";
/// Name of the init container that copies the runner into [`RUNNER_DIR`].
pub const INIT_CONTAINER: &str = "copy-runner";
/// Version of the contract between operator and runner: arguments, inputs, termination message.
pub const PROTOCOL: u32 = 1;
