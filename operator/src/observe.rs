//! The only reads: tables, the object, one GET for each pod that the status names and no table knows, and one of what a run is
//! pinned to that the spec does not say any more. No decisions.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, ResourceExt};
use scriptrunner_api::{
    labels,
    v1alpha1::{Mode, NodeStatus, ScriptRunner, ScriptRunnerSpec, ScriptRunnerStatus, UpdatePolicy},
};
use scriptrunner_core::{
    names::{config_map_name, pod_name, short_id},
    observed::{Marks, ObjectFacts, Observed, PodFacts, PolicyProof, Presence, StoredStatus, requested_by},
    status::size::stored_bytes,
    validate::{Pinned, Sources, spec_hash},
};

use crate::{concurrently::concurrently, context::Context, error::Error};

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
    let (object, own) = newest(context, cached, &uid);
    // What this process wrote, unless the object had no status then.
    let own = own.filter(|own| own.status.is_some());
    let status_is_foreign =
        own.as_ref().is_some_and(|own| !Arc::ptr_eq(own, &object) && own.status != object.status);
    let previous = StoredStatus::of(own.as_ref().unwrap_or(&object));
    let mut facts = object_facts(context, &object);
    let policy_proof = prove(context, &facts, previous.as_deref()).await?;
    facts.seen_since = seen_since(context, &facts, &policy_proof).await?;
    confirm_missing_pods(context, &facts, previous.as_deref()).await?;
    let sources = context.world.sources().of(&facts.namespace, &facts.spec);
    let pinned = pinned(context, &facts, &sources, previous.as_deref()).await?;
    let world = &context.world;
    let (pods, occupied_nodes) = {
        let table = world.pods();
        (table.of(&uid), table.nodes_of_namesakes(&uid, &facts.namespace, &facts.name))
    };
    let sessions = context.sessions.facts(pods.iter().map(|pod| pod.uid.as_str()));
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
    let (most, now) = (context.config.most_unbound_pods, Context::instant());
    let unbound_room = world.count_unbound(|unbound, pods| unbound.room(&uid, pods, most, now));
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
        sessions,
        pinned,
        since: context.since,
        unbound_room,
        sources,
        policy_proof,
    };
    Ok(Sight { observed, object, status_is_foreign })
}

/// The newer of the watch's version and the one that an answer held, and the version that this process wrote.
fn newest(
    context: &Context,
    cached: &Arc<ScriptRunner>,
    uid: &str,
) -> (Arc<ScriptRunner>, Option<Arc<ScriptRunner>>) {
    let (latest, own) = context.world.remember(uid, |memory| (memory.latest.clone(), memory.own.clone()));
    let object = latest.filter(|latest| version(latest) >= version(cached)).unwrap_or_else(|| cached.clone());
    (object, own)
}

/// resourceVersion as a number (comparable since Kubernetes 1.35, KEP-5504; etcd's revision before that as well).
pub fn version(object: &ScriptRunner) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn object_facts(context: &Context, object: &ScriptRunner) -> ObjectFacts {
    ObjectFacts {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
        seen_since: None,
        requested_by: requested_by(&object.metadata),
        deleting: object.metadata.deletion_timestamp.is_some(),
        other_bytes: other_bytes(context, object),
        spec: object.spec.clone(),
    }
}

/// Whether the policies hold. A privileged spec that was not accepted yet is judged by what holds after it was seen.
async fn prove(
    context: &Context,
    object: &ObjectFacts,
    previous: Option<&ScriptRunnerStatus>,
) -> Result<PolicyProof, Error> {
    let is_accepted = previous.is_some_and(|previous| {
        previous.accepted_generation == Some(object.generation)
            && previous.object_uid.as_deref() == Some(object.uid.as_str())
    });
    if is_accepted || object.deleting || !may_be_privileged(&object.spec) {
        return Ok(context.proofs.newest());
    }
    context.proofs.ask(&context.metrics).await.map_err(|error| Error::Call {
        doing: "prove the admission policies",
        source: Box::new(kube::Error::Service(error.into())),
    })
}

/// Whether a spec is privileged, or may go on with a privileged one from before its edit.
pub fn may_be_privileged(spec: &ScriptRunnerSpec) -> bool {
    spec.mode.is_privileged() || spec.update_policy == Some(UpdatePolicy::OnRerun)
}

/// A generation that the object had after the proof began, asked for once. A process that began later has it from its lists.
async fn seen_since(
    context: &Context,
    object: &ObjectFacts,
    proof: &PolicyProof,
) -> Result<Option<i64>, Error> {
    let PolicyProof::Proven { since } = proof else { return Ok(None) };
    if object.deleting || !may_be_privileged(&object.spec) {
        return Ok(None);
    }
    let known = context.world.remember(&object.uid, |memory| memory.seen_since);
    if let Some((_, generation)) = known.filter(|(of, _)| of == since) {
        return Ok(Some(generation));
    }
    let generation = if context.since > *since {
        object.generation
    } else {
        let api = Api::<ScriptRunner>::namespaced(context.client.clone(), &object.namespace);
        let found = context.call("get the generation of an object", api.get_metadata_opt(&object.name));
        match found.await?.filter(|found| found.metadata.uid.as_deref() == Some(object.uid.as_str())) {
            Some(found) => found.metadata.generation.unwrap_or(i64::MAX),
            None => return Ok(None),
        }
    };
    context.world.remember(&object.uid, |memory| memory.seen_since = Some((*since, generation)));
    Ok(Some(generation))
}

/// Bytes of the object without its status, counted once per version.
fn other_bytes(context: &Context, object: &ScriptRunner) -> usize {
    let version = object.resource_version().unwrap_or_default();
    context.world.remember(&object.uid().unwrap_or_default(), |memory| match &memory.other_bytes {
        Some((known, bytes)) if *known == version => *bytes,
        Some(_) | None => {
            let without_status =
                ScriptRunner { metadata: object.metadata.clone(), spec: object.spec.clone(), status: None };
            let bytes = stored_bytes(&without_status);
            memory.other_bytes = Some((version, bytes));
            bytes
        }
    })
}

/// What the current run is pinned to, read once, where an edit of what runs waits for a rerun, and where what the spec names
/// cannot be used.
async fn pinned(
    context: &Context,
    object: &ObjectFacts,
    sources: &Sources,
    previous: Option<&ScriptRunnerStatus>,
) -> Result<Option<(u64, Arc<Pinned>)>, Error> {
    let Some(run) = previous.and_then(|previous| previous.run.as_ref()) else { return Ok(None) };
    let waits = object.spec.update_policy == Some(UpdatePolicy::OnRerun);
    if !waits && *sources == Sources::default() {
        return Ok(None);
    }
    if spec_hash(&object.spec, sources).is_some_and(|hash| !waits || hash == run.spec_hash) {
        return Ok(None);
    }
    let known = context.world.remember(&object.uid, |memory| memory.pinned.clone());
    if let Some(known) = known.filter(|(number, _)| *number == run.number) {
        return Ok(Some(known));
    }
    let api = Api::<ConfigMap>::namespaced(context.client.clone(), &object.namespace);
    let name = config_map_name(&object.uid, run.number, &run.spec_hash);
    let found = context.call("get the ConfigMap of a run that goes on", api.get_opt(&name)).await?;
    let data = found.and_then(|found| found.data).unwrap_or_default();
    let read = data.get(labels::SPEC_FILE).zip(data.get(labels::SCRIPT_FILE)).and_then(|(spec, script)| {
        let trusted_ca = data.get(labels::TRUSTED_CA_FILE).map(String::as_str);
        Pinned::read(spec, script, trusted_ca, &run.spec_hash)
    });
    let pinned = read.map(|pinned| (run.number, Arc::new(pinned)));
    context.world.remember(&object.uid, |memory| memory.pinned.clone_from(&pinned));
    Ok(pinned)
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
    let known: HashMap<&str, &PodFacts> = known.iter().map(|pod| (pod.id.as_str(), &**pod)).collect();
    let missing = previous.nodes.iter().filter_map(|(node, entry)| {
        let pod_id = entry.pod_id.as_deref()?;
        let pod = known.get(pod_id).copied();
        pod.is_none_or(|pod| pod.presence == Presence::Unconfirmed).then_some((node, entry, pod_id, pod))
    });
    let calls = missing.map(|(node, entry, pod_id, pod)| async move {
        match pod {
            Some(pod) => confirm(context, pod).await,
            None => search(context, object, node, entry, pod_id).await,
        }
    });
    concurrently(calls.collect()).await
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
