//! Makes the pod of a node and the ConfigMap of a run. Cannot fail, asks nobody. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, ConfigMap, ConfigMapKeySelector, ConfigMapVolumeSource, Container,
        EmptyDirVolumeSource, EnvVar, EnvVarSource, HostPathVolumeSource, NodeAffinity, NodeSelector,
        NodeSelectorRequirement, NodeSelectorTerm, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec,
        ProjectedVolumeSource, ResourceFieldSelector, ResourceRequirements, SeccompProfile,
        SecretKeySelector, SecurityContext, ServiceAccountTokenProjection, Toleration, Volume, VolumeMount,
        VolumeProjection,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use scriptrunner_api::{
    GROUP, VERSION,
    digest::sha256_hex,
    labels,
    pinned::Inputs,
    session::AUDIENCE,
    v1alpha1::{self, AccessMode, Mode, RunAs},
};

use crate::{
    names::{config_map_name, pod_name},
    observed::ObjectFacts,
    plan::TOLERATED_TAINTS,
    validate::{Limits, ValidRun},
};

/// The numeric user of mode Normal: the usual number of `nonroot` in minimal images.
const NON_ROOT_USER: i64 = 65532;
/// Annotation of a pod: failures on its node, over all runs, that were counted when it was made. What its runner reports
/// comes on top, however often and in whatever order it is heard.
pub const FAILURES_BEFORE: &str = "scriptrunner.io/failures-before";
/// Annotation of a pod: how many seconds may pass from the start of its container until all its executions are over. Absent
/// where executions have no deadline, or no end.
pub const LONGEST_SECONDS: &str = "scriptrunner.io/longest-seconds";
/// How long installing the dependencies may take before a runner counts as hung. Nobody ends it then.
const INSTALL_SECONDS: u64 = 600;
/// Time that the runner has after the script's grace period, to write its message.
const RUNNER_GRACE_SECONDS: i64 = 5;

/// What the operator's flags say of every pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSettings {
    /// Image of the runner.
    pub runner_image: String,
    /// Memory request and limit; none where empty.
    pub default_memory: Option<String>,
    /// Ephemeral storage request and limit; none on clusters whose kubelets cannot count it.
    pub default_ephemeral_storage: Option<String>,
    /// After how many seconds without a session the pod of an endless repetition ends to hand its results over.
    pub handover_seconds: u32,
    /// How long a runner that has ended waits at most until its answer is stored.
    pub linger_seconds: u32,
    /// How long the token of a runner is valid, in seconds; the kubelet renews it before.
    pub token_lifetime_seconds: u32,
    /// How long an idle runner that is not connected is waited for before a new pod replaces its own, in seconds.
    pub reconnect_seconds: u32,
    /// How long after the latest possible end of its executions a runner that has not ended is given up, in seconds.
    pub hung_after_seconds: u32,
    /// How long after its failure a node is first tried again, in seconds.
    pub retry_seconds: u32,
    /// How long a failed pod is kept for a look, in seconds from its end.
    pub kept_pod_seconds: u32,
    /// Where runners find the operator; none if they cannot.
    pub session: Option<SessionSettings>,
}

/// Where runners find the operator, and how they know that it is it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Address and port.
    pub address: String,
    /// The name in the operator's certificate, a DNS name that leads to it as well.
    pub name: String,
    /// Authorities of the operator's certificate, each in DER, base64.
    pub authorities: Vec<String>,
}

/// Which pod is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the Node.
    pub node: String,
    /// UID of the Node.
    pub node_uid: String,
    /// The run.
    pub run: u64,
    /// Ordinal of the pod within the run.
    pub attempt: u32,
    /// Serial of its first execution.
    pub first_serial: u64,
    /// When the execution before that one started, in seconds of Unix time by the node's clock, so that the period holds
    /// over pods.
    pub last_start_seconds: Option<i64>,
    /// Executions to make; none is endless.
    pub remaining: Option<u64>,
    /// Failures on the node that are counted so far.
    pub failures_before: u64,
    /// Whether the scheduler places it.
    pub by_scheduler: bool,
    /// What further runs of a runner that stays are compared with; none if its pod ends with the run.
    pub shape: Option<String>,
}

/// The immutable ConfigMap that a run is pinned in: the canonical spec and the script, byte for byte.
pub fn build_config_map(object: &ObjectFacts, run: u64, valid: &ValidRun) -> ConfigMap {
    let mut metadata = child_metadata(object, valid.pinned.mode, run);
    metadata.name = Some(config_map_name(&object.uid, run, &valid.spec_hash));
    let mut data = BTreeMap::from([
        (labels::SPEC_FILE.to_owned(), valid.pinned.canonical_json()),
        (labels::SCRIPT_FILE.to_owned(), valid.inputs.script.clone()),
    ]);
    data.extend(valid.inputs.trusted_ca.clone().map(|text| (labels::TRUSTED_CA_FILE.to_owned(), text)));
    ConfigMap { metadata, data: Some(data), immutable: Some(true), ..ConfigMap::default() }
}

/// Digest of all that a pod of the run is made of, but for what differs from pod to pod and what an order brings to a runner
/// that stays: script, args, and the limits of its executions. None if runners do not stay.
pub fn shape(object: &ObjectFacts, valid: &ValidRun, settings: &PodSettings) -> Option<String> {
    if valid.limits.idle_seconds == 0 || settings.session.is_none() || valid.pinned.executions().is_none() {
        return None;
    }
    let pinned = valid.pinned.without_script();
    let limits = Limits {
        execution_deadline_seconds: None,
        start_deadline_seconds: 0,
        idle_seconds: 0,
        history: 0,
        stdout_bytes: 0,
        stderr_bytes: 0,
        ..valid.limits
    };
    let text = pinned.canonical_json();
    let inputs = Inputs::default();
    let blank = ValidRun { pinned, limits, spec_hash: String::new(), inputs, ..valid.clone() };
    let target = Target {
        node: String::new(),
        node_uid: String::new(),
        run: 0,
        attempt: 0,
        first_serial: 0,
        last_start_seconds: None,
        remaining: valid.pinned.executions(),
        failures_before: 0,
        by_scheduler: false,
        shape: None,
    };
    let pod = serde_json::to_string(&pod_spec(object, &blank, &target, settings))
        .expect("an API object should serialise");
    Some(sha256_hex(format!("{text}\0{pod}").as_bytes()))
}

/// The pod of a node.
pub fn build_pod(object: &ObjectFacts, valid: &ValidRun, target: &Target, settings: &PodSettings) -> Pod {
    Pod {
        metadata: pod_metadata(object, valid, target),
        spec: Some(pod_spec(object, valid, target, settings)),
        ..Pod::default()
    }
}

fn child_metadata(object: &ObjectFacts, mode: Mode, run: u64) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(object.namespace.clone()),
        labels: Some(BTreeMap::from([
            (labels::UID.to_owned(), object.uid.clone()),
            (labels::MODE.to_owned(), mode.as_str().to_owned()),
            (labels::RUN.to_owned(), run.to_string()),
        ])),
        annotations: Some(BTreeMap::from([(labels::NAME.to_owned(), object.name.clone())])),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "ScriptRunner".to_owned(),
            name: object.name.clone(),
            uid: object.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

/// How many seconds a runner may need from its start until all its executions are over: it installs, waits, and ends each at
/// its deadline. None where executions have no deadline, or no end.
pub(crate) fn longest_seconds(valid: &ValidRun, first_serial: u64, remaining: Option<u64>) -> Option<u64> {
    let (limits, pinned) = (valid.limits, &valid.pinned);
    let limit = u64::from(limits.execution_deadline_seconds?) + u64::from(limits.grace_seconds);
    let install = if pinned.pip.is_empty() { 0 } else { INSTALL_SECONDS };
    let (period, delay) = pinned.repeat.as_ref().map_or((0, 0), |repeat| {
        let period = u64::from(repeat.period_seconds);
        (period, if first_serial > 1 { period } else { u64::from(repeat.initial_delay_seconds) })
    });
    Some(install + delay + remaining?.saturating_mul(limit.max(period)))
}

fn pod_metadata(object: &ObjectFacts, valid: &ValidRun, target: &Target) -> ObjectMeta {
    let mode = valid.pinned.mode;
    let mut metadata = child_metadata(object, mode, target.run);
    metadata.name = Some(pod_name(mode, &object.uid, &target.node_uid, target.run, target.attempt));
    let pod_labels = metadata.labels.get_or_insert_default();
    pod_labels.insert(labels::ATTEMPT.to_owned(), target.attempt.to_string());
    pod_labels.insert(labels::NODE_UID.to_owned(), target.node_uid.clone());
    // A mesh's sidecar would outlive the script, and keep the pod from ending.
    pod_labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(labels::NODE.to_owned(), target.node.clone());
    annotations.insert(FAILURES_BEFORE.to_owned(), target.failures_before.to_string());
    if let Some(longest) = longest_seconds(valid, target.first_serial, target.remaining) {
        annotations.insert(LONGEST_SECONDS.to_owned(), longest.to_string());
    }
    if let Some(shape) = &target.shape {
        annotations.insert(labels::SHAPE.to_owned(), shape.clone());
    }
    annotations.insert("linkerd.io/inject".to_owned(), "disabled".to_owned());
    annotations.insert("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), "true".to_owned());
    metadata
}

fn pod_spec(object: &ObjectFacts, valid: &ValidRun, target: &Target, settings: &PodSettings) -> PodSpec {
    let mode = valid.pinned.mode;
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        node_name: (!target.by_scheduler).then(|| target.node.clone()),
        affinity: target.by_scheduler.then(|| affinity_to(&target.node)),
        tolerations: Some(tolerations(&valid.targets.tolerations)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(valid.limits.grace_seconds) + RUNNER_GRACE_SECONDS),
        security_context: Some(pod_security(valid)),
        containers: vec![container(valid, target, settings)],
        volumes: Some(volumes(mode, config_map_name(&object.uid, target.run, &valid.spec_hash), settings)),
        ..PodSpec::default()
    }
}

fn affinity_to(node: &str) -> Affinity {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), ..NodeSelectorTerm::default() };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// What a DaemonSet's pods tolerate: a node that becomes unready or unreachable keeps its running pod, without limit. Of two
/// tolerations of a taint the first counts, so what the user tolerates comes after.
fn tolerations(wanted: &[v1alpha1::Toleration]) -> Vec<Toleration> {
    let tolerate = |key: &str, effect: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .map(|key| tolerate(key, "NoExecute"))
        .chain(TOLERATED_TAINTS.into_iter().map(|key| tolerate(key, "NoSchedule")))
        .chain(wanted.iter().map(toleration))
        .collect()
}

fn toleration(wanted: &v1alpha1::Toleration) -> Toleration {
    let v1alpha1::Toleration { key, operator, value, effect, toleration_seconds } = wanted;
    Toleration {
        key: key.clone(),
        operator: operator.map(|operator| operator.as_str().to_owned()),
        value: value.clone(),
        effect: effect.map(|effect| effect.as_str().to_owned()),
        toleration_seconds: toleration_seconds.map(i64::from),
    }
}

fn pod_security(valid: &ValidRun) -> PodSecurityContext {
    let seccomp_profile =
        Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None });
    match (valid.pinned.mode, valid.pinned.run_as) {
        (Mode::Normal, RunAs::NonRoot) => PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NON_ROOT_USER),
            run_as_group: Some(NON_ROOT_USER),
            fs_group: Some(NON_ROOT_USER),
            seccomp_profile,
            ..PodSecurityContext::default()
        },
        (Mode::Normal, RunAs::Root) => {
            PodSecurityContext { run_as_user: Some(0), seccomp_profile, ..PodSecurityContext::default() }
        }
        (Mode::Privileged | Mode::PrivilegedWithHostFS, _) => {
            PodSecurityContext { run_as_user: Some(0), ..PodSecurityContext::default() }
        }
    }
}

fn container_security(valid: &ValidRun) -> SecurityContext {
    match (valid.pinned.mode, valid.pinned.run_as) {
        (Mode::Normal, RunAs::NonRoot) => SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        },
        (Mode::Normal, RunAs::Root) => {
            SecurityContext { allow_privilege_escalation: Some(false), ..SecurityContext::default() }
        }
        (Mode::Privileged | Mode::PrivilegedWithHostFS, _) => {
            SecurityContext { privileged: Some(true), ..SecurityContext::default() }
        }
    }
}

fn container(valid: &ValidRun, target: &Target, settings: &PodSettings) -> Container {
    Container {
        name: labels::CONTAINER.to_owned(),
        image: Some(settings.runner_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(arguments(valid, target, settings)),
        working_dir: Some(labels::WORK_DIR.to_owned()),
        env: (!valid.pinned.env.is_empty()).then(|| valid.pinned.env.iter().map(environment).collect()),
        resources: resources(settings),
        security_context: Some(container_security(valid)),
        volume_mounts: Some(mounts(valid, settings)),
        termination_message_path: Some(labels::TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}

/// Everything the runner must know and a user must not be able to set goes by arguments. None of them contains a `$`, so
/// that Kubernetes expands nothing.
fn arguments(valid: &ValidRun, target: &Target, settings: &PodSettings) -> Vec<String> {
    let spec_sha256 = valid.spec_hash.split_once(':').map_or(valid.spec_hash.as_str(), |(_, digest)| digest);
    let limits = &valid.limits;
    let mut arguments = vec!["run".to_owned()];
    let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    flag("protocol", labels::PROTOCOL.to_string());
    flag("node", target.node.clone());
    flag("run", target.run.to_string());
    flag("attempt", target.attempt.to_string());
    flag("first-serial", target.first_serial.to_string());
    flag(
        "remaining",
        target.remaining.map_or_else(|| "endless".to_owned(), |remaining| remaining.to_string()),
    );
    flag("script-sha256", valid.pinned.script_sha256.clone());
    flag("spec-sha256", spec_sha256.to_owned());
    flag("history-limit", limits.history.to_string());
    flag("stdout-limit-bytes", limits.stdout_bytes.to_string());
    flag("stderr-limit-bytes", limits.stderr_bytes.to_string());
    flag("grace-seconds", limits.grace_seconds.to_string());
    if let Some(deadline) = limits.execution_deadline_seconds {
        flag("execution-deadline-seconds", deadline.to_string());
    }
    if let Some(last_start) = target.last_start_seconds {
        flag("last-start", last_start.to_string());
    }
    let exit_codes = &valid.attempts.exit_codes;
    for (name, codes) in [("success-codes", &exit_codes.success), ("skipped-codes", &exit_codes.skipped)] {
        if !codes.is_empty() {
            flag(name, codes.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
        }
    }
    if let Some(SessionSettings { address, name, authorities }) = &settings.session {
        flag("session-address", address.clone());
        flag("session-name", name.clone());
        for authority in authorities {
            flag("session-authority", authority.clone());
        }
        flag("linger-seconds", settings.linger_seconds.to_string());
        if target.shape.is_some() {
            flag("idle-seconds", limits.idle_seconds.to_string());
        }
    }
    if target.remaining.is_none() {
        flag("handover-seconds", settings.handover_seconds.to_string());
    }
    if valid.pinned.mode == Mode::PrivilegedWithHostFS {
        flag("host-root", labels::HOST_ROOT.to_owned());
    }
    arguments
}

fn environment(variable: &v1alpha1::EnvVar) -> EnvVar {
    EnvVar {
        name: variable.name.clone(),
        value: variable.value.clone(),
        value_from: variable.value_from.as_ref().map(environment_source),
    }
}

fn environment_source(source: &v1alpha1::EnvVarSource) -> EnvVarSource {
    let v1alpha1::EnvVarSource { field_ref, resource_field_ref, config_map_key_ref, secret_key_ref } = source;
    EnvVarSource {
        field_ref: field_ref
            .as_ref()
            .map(|field| ObjectFieldSelector { api_version: None, field_path: field.field_path.clone() }),
        resource_field_ref: resource_field_ref.as_ref().map(|field| ResourceFieldSelector {
            resource: field.resource.clone(),
            ..ResourceFieldSelector::default()
        }),
        config_map_key_ref: config_map_key_ref.as_ref().map(|key| ConfigMapKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: key.optional,
        }),
        secret_key_ref: secret_key_ref.as_ref().map(|key| SecretKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: key.optional,
        }),
    }
}

fn resources(settings: &PodSettings) -> Option<ResourceRequirements> {
    let quantities: BTreeMap<String, Quantity> =
        [("memory", &settings.default_memory), ("ephemeral-storage", &settings.default_ephemeral_storage)]
            .into_iter()
            .filter_map(|(name, quantity)| Some((name.to_owned(), Quantity(quantity.clone()?))))
            .collect();
    (!quantities.is_empty()).then(|| ResourceRequirements {
        requests: Some(quantities.clone()),
        limits: Some(quantities),
        claims: None,
    })
}

fn mounts(valid: &ValidRun, settings: &PodSettings) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        VolumeMount { read_only: Some(true), ..mount("input", labels::INPUT_DIR) },
        mount("work", labels::WORK_DIR),
        mount("state", labels::STATE_DIR),
        mount("tmp", "/tmp"),
    ];
    if settings.session.is_some() {
        mounts.push(VolumeMount { read_only: Some(true), ..mount("token", labels::TOKEN_DIR) });
    }
    if valid.pinned.mode == Mode::PrivilegedWithHostFS {
        let host = mount("host", labels::HOST_ROOT);
        mounts.push(match valid.pinned.host_access_mode {
            // Mounts that the node makes later appear, so that the script sees the node as it is.
            AccessMode::ReadWrite => {
                VolumeMount { mount_propagation: Some("HostToContainer".to_owned()), ..host }
            }
            // Enabled, not IfPossible: a runtime that cannot do it refuses the pod rather than leave submounts writable.
            AccessMode::ReadOnly => {
                VolumeMount { read_only: Some(true), recursive_read_only: Some("Enabled".to_owned()), ..host }
            }
        });
    }
    mounts
}

fn volumes(mode: Mode, config_map: String, settings: &PodSettings) -> Vec<Volume> {
    let empty_dir = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut volumes = vec![
        Volume {
            name: "input".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        empty_dir("work"),
        empty_dir("state"),
        empty_dir("tmp"),
    ];
    if settings.session.is_some() {
        volumes.push(token(settings.token_lifetime_seconds));
    }
    if mode == Mode::PrivilegedWithHostFS {
        volumes.push(Volume {
            name: "host".to_owned(),
            host_path: Some(HostPathVolumeSource { path: "/".to_owned(), type_: None }),
            ..Volume::default()
        });
    }
    volumes
}

/// A token that says which pod it is, for the operator and for nobody else: the API server refuses its audience.
fn token(lifetime_seconds: u32) -> Volume {
    let projection = ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.to_owned()),
        expiration_seconds: Some(i64::from(lifetime_seconds)),
        path: labels::TOKEN_FILE.to_owned(),
    };
    Volume {
        name: "token".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(projection),
                ..VolumeProjection::default()
            }]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests;
