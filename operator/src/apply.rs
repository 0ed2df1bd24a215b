//! The only writes to children: performs the actions of a plan, in their order.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use scriptrunner_core::{
    adopt::{config_map_difference, pod_difference},
    observed::{ConfigMapFacts, ObjectFacts, PodConflict, PodFacts},
    plan::Action,
};

use crate::{context::Context, error::Error, metrics::Metrics};

/// Whose children are written.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name of the ScriptRunner.
    pub name: &'a str,
    /// UID of the ScriptRunner.
    pub uid: &'a str,
}

impl<'a> From<&'a ObjectFacts> for Owner<'a> {
    fn from(object: &'a ObjectFacts) -> Self {
        Self { namespace: &object.namespace, name: &object.name, uid: &object.uid }
    }
}

/// Most pods that are created at the same time.
const MOST_AT_ONCE: usize = 32;

/// Performs the actions. Refusals by the state of the cluster (quota, admission) are remembered and stop the creations of
/// this plan; failures of the API server are errors.
pub async fn apply(context: &Context, object: Owner<'_>, actions: Vec<Action>) -> Result<(), Error> {
    let mut creations = Vec::new();
    let mut deletions = Vec::new();
    if !actions.iter().any(|action| matches!(action, Action::CreateConfigMap(_) | Action::CreatePod { .. })) {
        // Nothing is asked for any more, so nothing is refused.
        context
            .world
            .remember(object.uid, |memory| (memory.refusal, memory.config_map_conflict) = (None, None));
    }
    for action in actions {
        match action {
            Action::CreateConfigMap(config_map) => create_config_map(context, object, &config_map).await?,
            Action::CreatePod { node, pod } => creations.push((node, *pod)),
            Action::DeletePod { name, uid, why } => deletions.push((name, uid, why)),
            Action::DeleteConfigMap { name, uid } => delete_config_map(context, object, &name, uid).await?,
        }
    }
    // Deletions first: they make room, for a quota as well.
    for batch in deletions.chunks(MOST_AT_ONCE) {
        for outcome in
            join_all(batch.iter().map(|(name, uid, why)| delete_pod(context, object, name, uid, why))).await
        {
            outcome?;
        }
    }
    create_pods(context, object, &creations).await
}

/// What the API server's answer to a creation means.
enum Created<T> {
    Done(Box<T>),
    NameTaken,
    Refused(String),
}

async fn create<T>(
    context: &Context,
    doing: &'static str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<Created<T>, Error> {
    match context.call(doing, call).await {
        Ok(made) => Ok(Created::Done(Box::new(made))),
        Err(Error::Call { doing, source }) => match *source {
            kube::Error::Api(status) if status.is_already_exists() => Ok(Created::NameTaken),
            // Forbidden (quota, Pod Security, policies, a namespace that ends), invalid, too large, too many requests.
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 413 | 422 | 429) => {
                Ok(Created::Refused(status.message.clone()))
            }
            other => Err(Error::Call { doing, source: Box::new(other) }),
        },
        Err(error) => Err(error),
    }
}

async fn create_config_map(
    context: &Context,
    object: Owner<'_>,
    config_map: &ConfigMap,
) -> Result<(), Error> {
    let api = Api::<ConfigMap>::namespaced(context.client.clone(), object.namespace);
    let name = config_map.name_any();
    let (refusal, conflict) = match create(
        context,
        "create a ConfigMap",
        api.create(&PostParams::default(), config_map),
    )
    .await?
    {
        Created::Done(made) => {
            tracing::info!(
                namespace = object.namespace,
                scriptrunner = object.name,
                config_map = name,
                "created the ConfigMap of a run"
            );
            learn_config_map(context, &made);
            (None, None)
        }
        Created::Refused(message) => (Some(message), None),
        Created::NameTaken => {
            let found = context.call("get a ConfigMap that exists", api.get_opt(&name)).await?;
            match found.map(|found| (config_map_difference(config_map, &found), found)) {
                Some((None, found)) => {
                    learn_config_map(context, &found);
                    (None, None)
                }
                Some((Some(difference), _)) => (
                    None,
                    Some(format!(
                        "ConfigMap {name:?} is not what the run needs ({difference}); delete it, the operator makes it again"
                    )),
                ),
                None => (None, None),
            }
        }
    };
    context.world.remember(object.uid, |memory| {
        memory.refusal = refusal;
        memory.config_map_conflict = conflict;
    });
    Ok(())
}

fn learn_config_map(context: &Context, config_map: &ConfigMap) {
    if let Some(facts) = ConfigMapFacts::of(&config_map.metadata) {
        context
            .world
            .config_maps()
            .entry(facts.owner_uid.clone())
            .or_default()
            .insert(facts.name.clone(), facts);
    }
}

async fn delete_config_map(
    context: &Context,
    object: Owner<'_>,
    name: &str,
    uid: String,
) -> Result<(), Error> {
    let api = Api::<ConfigMap>::namespaced(context.client.clone(), object.namespace);
    gone_is_fine(context.call("delete a ConfigMap", api.delete(name, &with_uid(uid))).await)?;
    tracing::info!(
        namespace = object.namespace,
        scriptrunner = object.name,
        config_map = name,
        "deleted the ConfigMap of a run that is over"
    );
    if let Some(of_owner) = context.world.config_maps().get_mut(object.uid) {
        of_owner.remove(name);
    }
    Ok(())
}

fn with_uid(uid: String) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid: Some(uid), resource_version: None })
}

/// Nothing by that name, or something else by that name: what was to be deleted is gone.
fn gone_is_fine<T>(outcome: Result<T, Error>) -> Result<bool, Error> {
    match outcome {
        Ok(_) => Ok(true),
        Err(Error::Call { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.is_not_found() || status.is_conflict()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Deletes one pod of an object. Also used for pods whose object is gone.
pub async fn delete_pod(
    context: &Context,
    object: Owner<'_>,
    name: &str,
    uid: &str,
    why: &str,
) -> Result<(), Error> {
    let api = Api::<Pod>::namespaced(context.client.clone(), object.namespace);
    let existed =
        gone_is_fine(context.call("delete a pod", api.delete(name, &with_uid(uid.to_owned()))).await);
    Metrics::count(&context.metrics.pod_deletions, if existed.is_ok() { "done" } else { "failed" });
    if existed? {
        tracing::info!(
            namespace = object.namespace,
            scriptrunner = object.name,
            pod = name,
            why,
            "deleted a pod"
        );
        context.world.pods().mark_deleting(object.uid, uid);
    } else {
        context.world.pods().confirm_gone(object.uid, uid);
    }
    Ok(())
}

/// Creates pods in growing batches, so that a quota or a policy is met by one request and not by five thousand.
async fn create_pods(context: &Context, object: Owner<'_>, creations: &[(String, Pod)]) -> Result<(), Error> {
    let mut rest = creations;
    let mut size = 1;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(size.min(rest.len()));
        let outcomes = join_all(batch.iter().map(|(node, pod)| create_pod(context, object, node, pod))).await;
        let mut refused = None;
        for outcome in outcomes {
            refused = outcome?.or(refused);
        }
        let stop = refused.is_some();
        context.world.remember(object.uid, |memory| memory.refusal = refused);
        if stop {
            return Ok(());
        }
        rest = after;
        size = (size * 2).min(MOST_AT_ONCE);
    }
    Ok(())
}

/// Creates one pod; what the API server says if it refuses it.
async fn create_pod(
    context: &Context,
    object: Owner<'_>,
    node: &str,
    pod: &Pod,
) -> Result<Option<String>, Error> {
    let api = Api::<Pod>::namespaced(context.client.clone(), object.namespace);
    let name = pod.name_any();
    let (outcome, refusal, conflict) =
        match create(context, "create a pod", api.create(&PostParams::default(), pod)).await? {
            Created::Done(made) => {
                tracing::info!(
                    namespace = object.namespace,
                    scriptrunner = object.name,
                    node,
                    pod = name,
                    "created a pod"
                );
                learn_pod(context, &made);
                ("done", None, None)
            }
            Created::Refused(message) => ("refused", Some(message), None),
            Created::NameTaken => {
                let found = context.call("get a pod that exists", api.get_opt(&name)).await?;
                match found.map(|found| (pod_difference(pod, &found), found)) {
                    Some((None, found)) => {
                        learn_pod(context, &found);
                        ("adopted", None, None)
                    }
                    Some((Some(difference), _)) => (
                        "conflict",
                        None,
                        Some(format!(
                            "pod {name:?} is not ours ({difference}); delete it, the operator makes it again"
                        )),
                    ),
                    None => ("conflict", None, None),
                }
            }
        };
    Metrics::count(&context.metrics.pod_creations, outcome);
    context.world.remember(object.uid, |memory| match conflict {
        Some(message) => {
            let since = memory.pod_conflicts.get(node).map_or_else(Context::now, |known| known.since);
            memory.pod_conflicts.insert(node.to_owned(), PodConflict { pod: name, message, since });
        }
        None => {
            memory.pod_conflicts.remove(node);
        }
    });
    Ok(refusal)
}

fn learn_pod(context: &Context, pod: &Pod) {
    if let Some(facts) = PodFacts::of(pod) {
        context.world.pods().put(facts);
    }
}

#[cfg(test)]
mod tests;
