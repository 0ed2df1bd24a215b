//! The only reads: tables, the object, and one GET for each pod that the status names and no table knows. No decisions.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use scriptrunner_api::v1alpha1::{Mode, NodeStatus, ScriptRunner, ScriptRunnerStatus};
use scriptrunner_core::{
    names::{pod_name, short_id},
    observed::{Marks, ObjectFacts, Observed, PodFacts, Presence},
    status::size::stored_bytes,
};

use crate::{context::Context, error::Error};

/// Everything that is known of the object now, and the object as it is stored.
pub struct Sight {
    /// What decisions rest on.
    pub observed: Observed,
    /// The newest version of the object that this process knows.
    pub object: Arc<ScriptRunner>,
    /// Whether somebody else changed the status since this process wrote it.
    pub status_is_foreign: bool,
}

/// Reads everything that is known of the object.
pub async fn observe(context: &Context, cached: &Arc<ScriptRunner>) -> Result<Sight, Error> {
    let uid = cached.uid().unwrap_or_default();
    let (object, remembered) = newest(context, cached, &uid);
    let status_is_foreign = remembered.as_ref().is_some_and(|status| object.status.as_ref() != Some(status));
    let previous = remembered.or_else(|| object.status.clone());
    let facts = object_facts(&object);
    confirm_missing_pods(context, &facts, previous.as_ref()).await?;
    let world = &context.world;
    let (pods, occupied_nodes) = {
        let table = world.pods();
        (table.of(&uid), table.nodes_of_namesakes(&uid, &facts.namespace, &facts.name))
    };
    let memory = world.remember(&uid, |memory| {
        (
            memory.known_answers.clone(),
            memory.refusal.clone(),
            memory.config_map_conflict.clone(),
            memory.pod_conflicts.clone(),
        )
    });
    let (known_answers, refusal, config_map_conflict, pod_conflicts) = memory;
    let config_maps = world
        .config_maps()
        .get(&uid)
        .map(|of_owner| of_owner.values().cloned().collect())
        .unwrap_or_default();
    let namespace_privileged = world.privileged_namespaces().get(&facts.namespace).copied().unwrap_or(false);
    let nodes = world.nodes().clone();
    let observed = Observed {
        object: facts,
        previous,
        nodes,
        pods,
        occupied_nodes,
        config_maps,
        namespace_privileged,
        known_answers,
        refusal,
        config_map_conflict,
        pod_conflicts,
    };
    Ok(Sight { observed, object, status_is_foreign })
}

/// The newer of the watch's version and the one that an answer held, and the status that this process wrote.
fn newest(
    context: &Context,
    cached: &Arc<ScriptRunner>,
    uid: &str,
) -> (Arc<ScriptRunner>, Option<ScriptRunnerStatus>) {
    let (latest, own) = context.world.remember(uid, |memory| (memory.latest.clone(), memory.own.clone()));
    let object = latest.filter(|latest| version(latest) >= version(cached)).unwrap_or_else(|| cached.clone());
    (object, own.and_then(|own| own.status.clone()))
}

/// resourceVersion as a number (comparable since Kubernetes 1.35, KEP-5504; etcd's revision before that as well).
pub fn version(object: &ScriptRunner) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn object_facts(object: &ScriptRunner) -> ObjectFacts {
    let without_status =
        ScriptRunner { metadata: object.metadata.clone(), spec: object.spec.clone(), status: None };
    ObjectFacts {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        deleting: object.metadata.deletion_timestamp.is_some(),
        other_bytes: stored_bytes(&without_status),
        spec: object.spec.clone(),
    }
}

/// Asks by name for every pod that the status names and the watch does not show: its labels may have been stripped, and
/// the watch selects by them.
async fn confirm_missing_pods(
    context: &Context,
    object: &ObjectFacts,
    previous: Option<&ScriptRunnerStatus>,
) -> Result<(), Error> {
    let Some(previous) = previous else { return Ok(()) };
    let known = context.world.pods().of(&object.uid);
    for (node, entry) in &previous.nodes {
        let Some(pod_id) = &entry.pod_id else { continue };
        match known.iter().find(|pod| short_id(&pod.uid) == *pod_id) {
            Some(pod) if pod.presence == Presence::Unconfirmed => confirm(context, pod).await?,
            Some(_) => {}
            None => search(context, object, node, entry, pod_id).await?,
        }
    }
    Ok(())
}

/// Asks for a pod that the watch stopped showing.
async fn confirm(context: &Context, pod: &PodFacts) -> Result<(), Error> {
    let pods = Api::<Pod>::namespaced(context.client.clone(), &pod.namespace);
    let found = context.call("get a pod that vanished", pods.get_opt(&pod.name)).await?;
    match found.filter(|found| found.metadata.uid.as_deref() == Some(pod.uid.as_str())) {
        None => context.world.pods().confirm_gone(&pod.owner_uid, &pod.uid),
        Some(found) => {
            tracing::warn!(
                namespace = pod.namespace,
                pod = pod.name,
                "a runner pod lives without our labels"
            );
            if let Some(facts) = PodFacts::with_marks(&found, &pod.marks()) {
                context.world.pods().put(PodFacts { presence: Presence::Unconfirmed, ..facts });
            }
        }
    }
    Ok(())
}

/// Asks for a pod that only the status knows, by the name that it must have.
async fn search(
    context: &Context,
    object: &ObjectFacts,
    node: &str,
    entry: &NodeStatus,
    pod_id: &str,
) -> Result<(), Error> {
    let node_uid = context
        .world
        .nodes()
        .get(node)
        .map(|facts| facts.uid.clone())
        .filter(|uid| short_id(uid) == entry.node_id);
    let Some(node_uid) = node_uid else { return Ok(()) };
    let pods = Api::<Pod>::namespaced(context.client.clone(), &object.namespace);
    for mode in [Mode::Normal, Mode::Privileged] {
        let name = pod_name(mode, &object.uid, &node_uid, entry.run, entry.attempts);
        let found = context.call("get a pod that the status names", pods.get_opt(&name)).await?;
        let Some(found) =
            found.filter(|found| found.metadata.uid.as_deref().is_some_and(|uid| short_id(uid) == pod_id))
        else {
            continue;
        };
        let marks = Marks {
            owner_uid: object.uid.clone(),
            owner_name: object.name.clone(),
            node: node.to_owned(),
            node_uid: node_uid.clone(),
            run: entry.run,
            attempt: entry.attempts,
        };
        if let Some(facts) = PodFacts::with_marks(&found, &marks) {
            context.world.pods().put(PodFacts { presence: Presence::Unconfirmed, ..facts });
        }
        return Ok(());
    }
    Ok(())
}
