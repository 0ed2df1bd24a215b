//! The operator's Deployment. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy},
        core::v1::{
            Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
            PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
            SecurityContext,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{HTTP_PORT, NAMESPACE, OPERATOR, OPERATOR_IMAGE, RUNNER_IMAGE, SESSIONS_PORT};
use crate::sessions::PORT_NAME;

/// User and group of the operator's process; any number but 0 would do.
const USER: i64 = 65_532;
/// Time between SIGTERM and SIGKILL: enough to finish a status write and give the lease back.
const GRACE_SECONDS: i64 = 30;

/// One replica, replaced and never doubled: two operators would only wait for each other's lease.
pub(super) fn deployment() -> Deployment {
    let labels = labels();
    Deployment {
        metadata: ObjectMeta {
            name: Some(OPERATOR.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some(labels.clone()),
            ..Default::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }),
            selector: LabelSelector { match_labels: Some(labels.clone()), ..Default::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..Default::default() }),
                spec: Some(pod()),
            },
            ..Default::default()
        }),
        status: None,
    }
}

/// What the operator's pod is known by.
pub(super) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/name".to_owned(), OPERATOR.to_owned())])
}

fn pod() -> PodSpec {
    PodSpec {
        service_account_name: Some(OPERATOR.to_owned()),
        // So that no pod of a user evicts it, but for one of `system-node-critical`, which only who creates pods can ask for.
        priority_class_name: Some("system-cluster-critical".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..Default::default()
        }),
        containers: vec![container()],
        ..Default::default()
    }
}

fn container() -> Container {
    Container {
        name: "operator".to_owned(),
        image: Some(OPERATOR_IMAGE.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(vec![
            "run".to_owned(),
            format!("--runner-image={RUNNER_IMAGE}"),
            "--namespace=$(POD_NAMESPACE)".to_owned(),
            "--pod-name=$(POD_NAME)".to_owned(),
            format!("--listen=0.0.0.0:{HTTP_PORT}"),
            format!("--session-listen=0.0.0.0:{SESSIONS_PORT}"),
        ]),
        env: Some(vec![field("POD_NAMESPACE", "metadata.namespace"), field("POD_NAME", "metadata.name")]),
        ports: Some(vec![port("http", HTTP_PORT), port(PORT_NAME, SESSIONS_PORT)]),
        liveness_probe: Some(probe("/healthz", 10)),
        // Runners reach the operator only once it is known to be ready, and idle ones are waited for `--reconnect-seconds`.
        readiness_probe: Some(probe("/readyz", 1)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(&[("cpu", "50m"), ("memory", "64Mi")])),
            limits: Some(quantities(&[("memory", "256Mi")])),
            ..Default::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            read_only_root_filesystem: Some(true),
            ..Default::default()
        }),
        // The last words of a crash stand in the pod's status.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Default::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: None }),
            ..Default::default()
        }),
    }
}

fn probe(path: &str, period_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..Default::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(30 / period_seconds),
        ..Default::default()
    }
}

fn quantities(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, quantity)| ((*name).to_owned(), Quantity((*quantity).to_owned()))).collect()
}
