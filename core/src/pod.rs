//! Makes the pod of a node and the ConfigMap of a run. Cannot fail, asks nobody. Pure.

mod arguments;
mod container;
mod environment;
mod metadata;
mod resources;
mod scheduling;
mod security;
mod user_volumes;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, LocalObjectReference, Pod, PodSpec};
use scriptrunner_api::{digest::sha256_hex, labels, pinned::Inputs};

use self::{
    container::{container, init_container},
    metadata::{child_metadata, pod_metadata},
    scheduling::{affinity_to, tolerations},
    security::pod_security,
    volumes::volumes,
};
use crate::{
    names::config_map_name,
    observed::ObjectFacts,
    validate::{AllowedImages, Limits, ValidRun},
};

/// Annotation of a pod: failures on its node, over all runs, that were counted when it was made. What its runner reports
/// comes on top, however often and in whatever order it is heard.
pub const FAILURES_BEFORE: &str = "scriptrunner.io/failures-before";
/// Annotation of a pod: how many seconds may pass from the start of its container until all its executions are over. Absent
/// where executions have no deadline, or no end.
pub const LONGEST_SECONDS: &str = "scriptrunner.io/longest-seconds";
/// Time that the runner has after the script's grace period, to write its message.
const RUNNER_GRACE_SECONDS: i64 = 5;

/// What the operator's flags say of every pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSettings {
    /// Image of the runner.
    pub runner_image: String,
    /// Images that specs may name beside it.
    pub allowed_images: AllowedImages,
    /// Memory request and limit; none where empty.
    pub default_memory: Option<String>,
    /// Ephemeral storage request and limit; none on clusters whose kubelets cannot count it.
    pub default_ephemeral_storage: Option<String>,
    /// How long what is waited for.
    pub times: RunnerTimes,
    /// Where runners find the operator; none if they cannot.
    pub session: Option<SessionSettings>,
}

/// How long a runner or its pod is waited for, in seconds: flags of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerTimes {
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
}

impl RunnerTimes {
    /// What the flags say if they say nothing.
    pub const DEFAULT: Self = Self {
        handover_seconds: 600,
        linger_seconds: 30,
        token_lifetime_seconds: 3600,
        reconnect_seconds: 20,
        hung_after_seconds: 60,
        retry_seconds: 10,
        kept_pod_seconds: 24 * 3600,
    };
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
    let parts = serde_json::to_string(&(&valid.parts.labels, &valid.parts.annotations))
        .expect("plain data should serialise");
    Some(sha256_hex(format!("{text}\0{pod}\0{parts}").as_bytes()))
}

/// The pod of a node.
pub fn build_pod(object: &ObjectFacts, valid: &ValidRun, target: &Target, settings: &PodSettings) -> Pod {
    Pod {
        metadata: pod_metadata(object, valid, target),
        spec: Some(pod_spec(object, valid, target, settings)),
        ..Pod::default()
    }
}

/// How many seconds a runner may need from its start until all its executions are over: it installs, waits, and ends each at
/// its deadline. None where executions have no deadline, or no end.
pub(crate) fn longest_seconds(valid: &ValidRun, first_serial: u64, remaining: Option<u64>) -> Option<u64> {
    let (limits, pinned) = (valid.limits, &valid.pinned);
    let limit = u64::from(limits.execution_deadline_seconds?) + u64::from(limits.grace_seconds);
    let install = if valid.installs() { u64::from(limits.install_seconds) } else { 0 };
    let (period, delay) = pinned.repeat.as_ref().map_or((0, 0), |repeat| {
        let period = u64::from(repeat.period_seconds);
        (period, if first_serial > 1 { period } else { u64::from(repeat.initial_delay_seconds) })
    });
    Some(install + delay + remaining?.saturating_mul(limit.max(period)))
}

fn pod_spec(object: &ObjectFacts, valid: &ValidRun, target: &Target, settings: &PodSettings) -> PodSpec {
    let (pinned, parts) = (&valid.pinned, &valid.parts);
    let shared = |is_shared: bool| is_shared.then_some(true);
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        node_name: (!target.by_scheduler).then(|| target.node.clone()),
        affinity: target.by_scheduler.then(|| affinity_to(&target.node)),
        tolerations: Some(tolerations(&valid.targets.tolerations)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(valid.limits.grace_seconds) + RUNNER_GRACE_SECONDS),
        security_context: Some(pod_security(valid)),
        host_pid: shared(pinned.host_pid),
        host_ipc: shared(pinned.host_ipc),
        host_network: shared(pinned.host_network),
        // Otherwise names of the cluster could not be resolved in the node's network.
        dns_policy: pinned.host_network.then(|| "ClusterFirstWithHostNet".to_owned()),
        priority_class_name: parts.priority_class.clone(),
        runtime_class_name: pinned.runtime_class_name.clone(),
        image_pull_secrets: (!parts.pull_secrets.is_empty())
            .then(|| parts.pull_secrets.iter().cloned().map(|name| LocalObjectReference { name }).collect()),
        init_containers: pinned.image.is_some().then(|| vec![init_container(valid, settings)]),
        containers: vec![container(valid, target, settings)],
        volumes: Some(volumes(valid, config_map_name(&object.uid, target.run, &valid.spec_hash), settings)),
        ..PodSpec::default()
    }
}

#[cfg(test)]
mod tests;
