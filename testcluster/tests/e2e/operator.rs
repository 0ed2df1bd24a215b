//! The operator in the cluster, from outside: where it runs, its log, and everything that can be done to it.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        apps::v1::Deployment,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
};
use scriptrunner_testcluster::wait;
use serde_json::{Value, json};

use crate::stage::PATIENCE;

pub(crate) const NAMESPACE: &str = "scriptrunner-system";
pub(crate) const DEPLOYMENT: &str = "scriptrunner-operator";
/// File name of its program.
pub(crate) const PROGRAM: &str = "scriptrunner-operator";
/// The user it acts as.
pub(crate) const USER: &str = "system:serviceaccount:scriptrunner-system:scriptrunner-operator";

fn deployments(client: &Client) -> Api<Deployment> {
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn pods(client: &Client) -> kube::Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    Ok(api.list(&ListParams::default().labels("app.kubernetes.io/name=scriptrunner-operator")).await?.items)
}

/// The operator's pod that is Ready, holds the Lease, and is the only one.
pub(crate) async fn leader(client: &Client) -> Pod {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    wait::until("the operator to lead", PATIENCE, async |seen| {
        let pods = pods(client).await?;
        let lease = leases.get_opt(DEPLOYMENT).await?.and_then(|lease| lease.spec);
        let holder = lease.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let states: Vec<_> = pods.iter().map(|pod| (pod.name_any(), is_ready(pod))).collect();
        seen.note(format!("the lease is held by {holder:?}, pods {states:?}"));
        Ok::<_, kube::Error>(match &pods[..] {
            [pod] if is_ready(pod) && pod.name_any() == holder => Some(pod.clone()),
            _ => None,
        })
    })
    .await
    .unwrap()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The node that the operator runs on.
pub(crate) async fn node(client: &Client) -> String {
    leader(client).await.spec.and_then(|spec| spec.node_name).unwrap_or_default()
}

/// Deletes the operator's pods at once, as a lost node does.
pub(crate) async fn delete_pods(client: &Client) {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    for pod in pods(client).await.unwrap() {
        let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
    }
}

/// Replaces the operator's pod as an upgrade does, and waits for the new one.
pub(crate) async fn restart(client: &Client) {
    let before = leader(client).await.name_any();
    deployments(client).restart(DEPLOYMENT).await.unwrap();
    until_replaced(client, &before).await;
}

async fn until_replaced(client: &Client, before: &str) {
    wait::until("the operator's pod to be replaced", PATIENCE, async |seen| {
        let names: Vec<_> = pods(client).await?.iter().map(ResourceExt::name_any).collect();
        seen.note(format!("{names:?}"));
        Ok::<_, kube::Error>((!names.is_empty() && names.iter().all(|name| name != before)).then_some(()))
    })
    .await
    .unwrap();
    leader(client).await;
}

/// Runs `body` while the operator has another flag, and puts the old flags back whatever happens.
pub(crate) async fn with_flag(client: &Client, flag: &str, value: &str, body: impl AsyncFnOnce()) {
    let pointer = "/spec/template/spec/containers/0/args";
    let deployment = serde_json::to_value(deployments(client).get(DEPLOYMENT).await.unwrap()).unwrap();
    let old: Vec<String> = serde_json::from_value(deployment.pointer(pointer).unwrap().clone()).unwrap();
    let kept = old.iter().filter(|argument| !argument.starts_with(&format!("--{flag}="))).cloned();
    let new: Vec<String> = kept.chain([format!("--{flag}={value}")]).collect();
    set_arguments(client, &new).await;
    let outcome = AssertUnwindSafe(body()).catch_unwind().await;
    set_arguments(client, &old).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

async fn set_arguments(client: &Client, arguments: &[String]) {
    let before = leader(client).await.name_any();
    let containers = json!([{"name": "operator", "args": arguments}]);
    let patch: Value = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    deployments(client).patch(DEPLOYMENT, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    until_replaced(client, &before).await;
}

/// The seconds after which the operator lets endless repetitions hand over.
pub(crate) async fn handover_seconds(client: &Client) -> u64 {
    let deployment = serde_json::to_value(deployments(client).get(DEPLOYMENT).await.unwrap()).unwrap();
    let environment = deployment.pointer("/spec/template/spec/containers/0/env").cloned().unwrap_or_default();
    let variables = environment.as_array().cloned().unwrap_or_default();
    let value = variables.iter().find(|variable| variable["name"] == "SCRIPTRUNNER_HANDOVER_SECONDS");
    value.and_then(|variable| variable["value"].as_str()?.parse().ok()).unwrap_or(600)
}

/// Before a privileged object is made: waits until the operator, which may have been installed a second ago, has proven the
/// policies.
pub(crate) async fn until_it_admits_as_is(client: &Client, object: &Value) {
    if object["spec"]["mode"].as_str().is_some_and(|mode| mode.starts_with("Privileged")) {
        until_it_admits(client, "scriptrunner-spec").await;
    }
}

/// Waits until the operator has proven the policies with the binding `name` as it is now, and admits privileged specs that are
/// written from then on.
pub(crate) async fn until_it_admits(client: &Client, name: &str) {
    let records: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let probe: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "probe"}})).unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    wait::until("the operator to prove the policies", PATIENCE, async |seen| {
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
        let ObjectMeta { uid, generation, .. } = bindings.get(name).await?.metadata;
        let record = records.get("scriptrunner-policy-proof").await?.data.unwrap_or_default();
        let record: Value = serde_json::from_str(&record["proof.json"]).unwrap();
        let now = records.create(&dry, &probe).await?.metadata.creation_timestamp.map(|time| time.0);
        seen.note(format!("{record} at {now:?}, and the binding {uid:?} {generation:?}"));
        let objects = record["objects"].as_array().cloned().unwrap_or_default();
        let is_proven =
            objects.iter().any(|mark| mark["uid"] == json!(uid) && mark["generation"] == json!(generation));
        let since: Option<Timestamp> = record["since"].as_str().map(|since| since.parse().unwrap());
        Ok::<_, kube::Error>((is_proven && since.is_some() && now > since).then_some(()))
    })
    .await
    .unwrap();
}

/// What the operator that leads has logged.
pub(crate) async fn log(client: &Client) -> String {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    api.logs(&leader(client).await.name_any(), &LogParams::default()).await.unwrap()
}

/// The metrics of the operator that leads, as Prometheus reads them.
pub(crate) async fn metrics(client: &Client) -> String {
    let name = leader(client).await.name_any();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:8080/proxy/metrics");
    client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap()
}

/// Writes the operator's latest words about a namespace to standard error.
pub(crate) async fn show_log(client: &Client, namespace: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let params = LogParams { tail_lines: Some(2000), ..LogParams::default() };
    for pod in pods(client).await.unwrap_or_default() {
        let name = pod.name_any();
        let read = tokio::time::timeout(Duration::from_secs(10), api.logs(&name, &params));
        let Ok(Ok(log)) = read.await else { continue };
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains(namespace) || line.contains("ERROR")).collect();
        eprintln!("--- operator {name}");
        for line in &lines[lines.len().saturating_sub(80)..] {
            eprintln!("  | {line}");
        }
    }
}
