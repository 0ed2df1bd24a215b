//! The null driver: the least sequence of calls that makes the same pods, sees them end, and writes one status. Figures of
//! the operator are ratios to it.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, anyhow};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use scriptrunner_api::{
    labels,
    snapshot::Snapshot,
    v1alpha1::{Execution, NodeState, NodeStatus, RunStatus, ScriptRunner, ScriptRunnerStatus},
};
use scriptrunner_core::{
    observed::{ObjectFacts, requested_by},
    pod::{PodSettings, RunnerTimes, SessionSettings, Target, build_config_map, build_pod},
    validate::{AllowedImages, Sources},
    validate::{ValidRun, validate},
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    follow::{Event, follow},
    nodes::FakeNode,
    operator::IMAGE,
};

/// How it calls itself; the audit log repeats it.
pub(crate) const AGENT: &str = "scriptrunner-bench-null";
/// Requests under way at the same time.
const IN_FLIGHT: usize = 32;
/// Bytes of each node's answer that fit into the status of 5,000 nodes.
const ANSWER_BYTES: usize = 40;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    state: State,
}

#[derive(Deserialize)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Deserialize)]
struct Terminated {
    #[serde(default)]
    message: String,
}

/// Drives one ScriptRunner over all nodes, from its creation to its status.
pub(crate) async fn drive(client: &Client, object: &ScriptRunner, nodes: &[FakeNode]) -> anyhow::Result<()> {
    let facts = facts(object)?;
    let valid = validate(&facts.spec, &Sources::default())
        .map_err(|refusal| anyhow!("the spec is refused: {refusal:?}"))?;
    let (ended, mut ends) = mpsc::unbounded_channel();
    let selector = format!("{}%3D{}", labels::UID.replace('/', "%2F"), facts.uid);
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector={selector}", facts.namespace);
    let watching = follow(client.clone(), &path, move |_, _, event: Event<Seen>| {
        let Event { kind: _, object: Seen { spec, status } } = event;
        let container = status.container_statuses.into_iter().next();
        if let Some(terminated) = container.and_then(|container| container.state.terminated) {
            // Nobody listens any more once all have ended.
            let _ = ended.send((spec.node_name, terminated.message));
        }
    })
    .await?;
    let work = async {
        make(client, &facts, &valid, nodes).await?;
        let mut answers = BTreeMap::new();
        while answers.len() < nodes.len() {
            let (node, message) = ends.recv().await.context("the watch of the pods ended")?;
            answers.insert(node, message);
        }
        write(client, &facts, &valid, &answers).await
    };
    tokio::select! {
        done = work => done,
        lost = watching => lost,
    }
}

fn facts(object: &ScriptRunner) -> anyhow::Result<ObjectFacts> {
    let metadata = &object.metadata;
    let known = |value: &Option<String>| value.clone().context("a created object should have it");
    Ok(ObjectFacts {
        resource_version: known(&metadata.resource_version)?,
        namespace: known(&metadata.namespace)?,
        name: known(&metadata.name)?,
        uid: known(&metadata.uid)?,
        generation: metadata.generation.unwrap_or(1),
        created: None,
        seen_since: None,
        requested_by: requested_by(metadata),
        deleting: false,
        other_bytes: 0,
        spec: object.spec.clone(),
    })
}

async fn make(
    client: &Client,
    facts: &ObjectFacts,
    valid: &ValidRun,
    nodes: &[FakeNode],
) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &facts.namespace);
    let inputs = build_config_map(facts, 1, valid);
    maps.create(&PostParams::default(), &inputs).await.context("create the run's ConfigMap")?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &facts.namespace);
    let settings = Arc::new(settings());
    stream::iter(nodes)
        .map(|node| {
            let pod = build_pod(facts, valid, &target(node), &settings);
            let api = api.clone();
            async move {
                let params = PostParams::default();
                api.create(&params, &pod).await.with_context(|| format!("create the pod of {:?}", node.name))
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| async { Ok(()) })
        .await
}

/// As the operator's flags have them by default; the authority is as long as a real one.
fn settings() -> PodSettings {
    PodSettings {
        runner_image: IMAGE.to_owned(),
        allowed_images: AllowedImages::default(),
        default_memory: Some("256Mi".to_owned()),
        default_ephemeral_storage: Some("1Gi".to_owned()),
        times: RunnerTimes::DEFAULT,
        session: Some(SessionSettings {
            address: "127.0.0.1:40000".to_owned(),
            name: "scriptrunner-operator.scriptrunner-system.svc".to_owned(),
            authorities: vec!["A".repeat(560)],
        }),
    }
}

fn target(node: &FakeNode) -> Target {
    Target {
        node: node.name.clone(),
        node_uid: node.uid.clone(),
        run: 1,
        attempt: 1,
        first_serial: 1,
        last_start_seconds: None,
        failures_before: 0,
        remaining: Some(1),
        by_scheduler: false,
        shape: None,
    }
}

async fn write(
    client: &Client,
    facts: &ObjectFacts,
    valid: &ValidRun,
    answers: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let status = status(facts, valid, answers)?;
    let api: Api<ScriptRunner> = Api::namespaced(client.clone(), &facts.namespace);
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(&facts.name, &PatchParams::default(), &patch).await.context("write the status")?;
    Ok(())
}

fn status(
    facts: &ObjectFacts,
    valid: &ValidRun,
    answers: &BTreeMap<String, String>,
) -> anyhow::Result<ScriptRunnerStatus> {
    let count = u32::try_from(answers.len())?;
    let nodes = answers.iter().map(|(node, message)| Ok((node.clone(), entry(message)?)));
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now());
    Ok(ScriptRunnerStatus {
        observed_generation: Some(facts.generation),
        accepted_generation: Some(facts.generation),
        object_uid: Some(facts.uid.clone()),
        run: Some(RunStatus {
            number: 1,
            trigger: "Created".to_owned(),
            spec_hash: valid.spec_hash.clone(),
            requested_by: facts.requested_by.clone(),
            script_digest: valid.pinned.script_sha256.clone(),
            trusted_ca_digest: valid.pinned.trusted_ca_sha256.clone(),
            start_time: now.clone(),
            completion_time: Some(now),
            rerun_at: None,
        }),
        desired: count,
        succeeded: count,
        progress: format!("{count}/{count}"),
        nodes: nodes.collect::<anyhow::Result<_>>()?,
        ..ScriptRunnerStatus::default()
    })
}

fn entry(message: &str) -> anyhow::Result<NodeStatus> {
    let Snapshot { record, history } = Snapshot::decode(message).context("read a termination message")?;
    let newest = history.into_iter().next_back().unwrap_or_default();
    let mut stdout = newest.stdout;
    stdout.truncate(ANSWER_BYTES);
    let newest = Execution {
        run: newest.run,
        attempt: newest.attempt,
        serial: newest.serial,
        exit_code: newest.exit_code,
        stdout,
        ..Execution::default()
    };
    Ok(NodeStatus {
        state: NodeState::parse(&record.state).as_str().to_owned(),
        run: record.run,
        attempts: record.attempt,
        executions: record.executions,
        exit_code: record.exit_code,
        history: vec![newest],
        ..NodeStatus::default()
    })
}
