//! The only writes to children, and the deletion of an object that has ended: performs the actions of a plan, in their order.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use scriptrunner_api::{
    labels,
    session::RunOrder,
    v1alpha1::{Mode, ScriptRunner},
};
use scriptrunner_core::{
    adopt::{config_map_difference, pod_difference},
    observed::{ConfigMapFacts, ObjectFacts, PodConflict, PodFacts, PolicyProof},
    plan::{Action, MOST_CREATIONS},
};

use crate::{
    concurrently::{MOST_AT_ONCE, MOST_UNHURRIED, Progress, in_turn},
    context::Context,
    error::Error,
    metrics::Metrics,
    world::{memory::Memory, pods::PodTable, unbound::Unbound},
};

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

/// Shortest time for the actions of one plan: a plan costs time as well.
const SHORTEST: Duration = Duration::from_millis(200);

/// Performs the actions until the status may be written, or for as long as it then may not: what happens meanwhile to
/// thousands of pods is to be seen meanwhile. Refusals by the state of the cluster (quota, admission) are remembered and stop the creations of this
/// plan; failures of the API server are errors.
///
/// **Invariant:** a privileged pod is asked for only while the policies hold as `proof`, on which the plan rests, says: they
/// are looked at once more before the first one, and before each the newest answer is.
pub async fn apply(
    context: &Context,
    object: Owner<'_>,
    actions: Vec<Action>,
    proof: &PolicyProof,
) -> Result<Progress, Error> {
    let until = until(context, object);
    let mut creations = Vec::new();
    let (mut stops, mut cleanups) = (Vec::new(), Vec::new());
    if !actions.iter().any(|action| matches!(action, Action::CreateConfigMap(_) | Action::CreatePod { .. })) {
        // Nothing is asked for any more, so nothing is refused.
        context
            .world
            .remember(object.uid, |memory| (memory.refusal, memory.config_map_conflict) = (None, None));
    }
    for action in actions {
        match action {
            Action::CreateConfigMap(config_map) => create_config_map(context, object, &config_map).await?,
            Action::CreatePod { node, pod } => creations.push((node, pod)),
            Action::SendRun { node, pod_uid, order } => send_run(context, object, &node, &pod_uid, &order),
            Action::HandOver { node, pod_uid } => hand_over(context, object, &node, &pod_uid),
            Action::DeletePod { name, uid, why, is_over: false } => stops.push((name, uid, why)),
            Action::DeletePod { name, uid, why, is_over: true } => cleanups.push((name, uid, why)),
            Action::DeleteConfigMap { name, uid } => delete_config_map(context, object, &name, uid).await?,
            Action::DeleteObject { uid, resource_version } => {
                delete_object(context, object, uid, resource_version).await?;
            }
        }
    }
    // What must end makes room, and others wait for it; for what is over nobody waits.
    if delete_pods(context, object, &stops, MOST_AT_ONCE, until).await? == Progress::Unfinished {
        return Ok(Progress::Unfinished);
    }
    let created = create_pods(context, object, &creations, proof, until).await?;
    if created == Progress::Unfinished {
        return Ok(Progress::Unfinished);
    }
    let cleaned = if cleanups.is_empty() {
        Progress::Done
    } else if let Some(_turn) = context.turns.clean_up() {
        delete_pods(context, object, &cleanups, MOST_UNHURRIED, until).await?
    } else {
        Progress::Unhurried
    };
    let is_cut = created == Progress::Done && is_cut(context, object, &creations);
    Ok(if is_cut { Progress::Unfinished } else { created.and(cleaned) })
}

fn until(context: &Context, object: Owner<'_>) -> Instant {
    let now = Context::instant();
    let latest = now + context.config.timers.status_interval;
    let due = context.world.remember(object.uid, |memory| memory.due).unwrap_or(latest);
    due.clamp(now + SHORTEST, latest)
}

/// Whether there are more pods to create than a plan has room for. Names that are taken come last in it, and are not tried
/// again at once.
fn is_cut(context: &Context, object: Owner<'_>, creations: &[(String, Box<Pod>)]) -> bool {
    let is_held_up = |memory: &mut Memory| {
        let last = creations.last().is_some_and(|(node, _)| memory.pod_conflicts.contains_key(node));
        last || memory.refusal.is_some()
    };
    creations.len() >= MOST_CREATIONS && !context.world.remember(object.uid, is_held_up)
}

/// Deletes pods, each given by name, UID and why.
async fn delete_pods(
    context: &Context,
    object: Owner<'_>,
    pods: &[(String, String, &'static str)],
    most: usize,
    until: Instant,
) -> Result<Progress, Error> {
    let calls = pods.iter().map(|(name, uid, why)| delete_pod(context, object, name, uid, why));
    in_turn(&context.turns, most, calls.collect(), Some(until)).await
}

/// Tells an idle runner to go on. One that is not there any more is told at a later look, or not at all.
fn send_run(context: &Context, object: Owner<'_>, node: &str, pod_uid: &str, order: &RunOrder) {
    let is_heard = context.sessions.order(pod_uid, order);
    Metrics::count(&context.metrics.run_orders, if is_heard { "sent" } else { "not_connected" });
    tracing::debug!(
        namespace = object.namespace,
        scriptrunner = object.name,
        node,
        run = order.run,
        is_heard,
        "ordered an idle runner to go on"
    );
}

/// Tells the runner of a paused repetition to end after its current execution. One that is not there any more is told at a
/// later look, or ends by itself.
fn hand_over(context: &Context, object: Owner<'_>, node: &str, pod_uid: &str) {
    let is_heard = context.sessions.hand_over(pod_uid, "execution is Paused");
    tracing::debug!(
        namespace = object.namespace,
        scriptrunner = object.name,
        node,
        is_heard,
        "told a runner to end after its current execution"
    );
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

/// Deletes the ScriptRunner itself, unless it is not any more what was looked at. Its pods go as those of every deleted one.
async fn delete_object(
    context: &Context,
    object: Owner<'_>,
    uid: String,
    resource_version: String,
) -> Result<(), Error> {
    let api = Api::<ScriptRunner>::namespaced(context.client.clone(), object.namespace);
    let preconditions = Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    if gone_is_fine(context.call("delete a ScriptRunner", api.delete(object.name, &params)).await)? {
        tracing::info!(
            namespace = object.namespace,
            scriptrunner = object.name,
            "deleted a ScriptRunner: its time to live after its end is over"
        );
    }
    Ok(())
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

/// Creates pods, ever more of them at the same time: each that is accepted makes room for one more. So a quota or a policy
/// is met by one request and not by five thousand, and then the API server is kept busy. A refusal or a failure ends it; what
/// is under way by then is waited for.
async fn create_pods(
    context: &Context,
    object: Owner<'_>,
    creations: &[(String, Box<Pod>)],
    proof: &PolicyProof,
    until: Instant,
) -> Result<Progress, Error> {
    if creations.iter().any(|(_, pod)| is_privileged(pod)) {
        match context.proofs.ask(&context.metrics).await {
            Ok(newest) if newest == *proof => {}
            // The next plan rests on it.
            Ok(_) => return Ok(Progress::Unfinished),
            // Nothing is known, so nothing is started; what runs is reported all the same.
            Err(_) => return Ok(Progress::Unhurried),
        }
    }
    let asked_to_wait = context.pressure.hold(Context::instant()).is_some();
    let (is_refused, room) = context
        .world
        .remember(object.uid, |memory| (memory.refusal.is_some(), std::mem::take(&mut memory.room)));
    if asked_to_wait && is_refused {
        return Ok(Progress::Done);
    }
    let mut rest = creations.iter().peekable();
    let mut under_way = FuturesUnordered::new();
    let (mut room, mut refusal, mut outcome) = (room.max(1), None, Ok(()));
    let mut progress = Progress::Done;
    loop {
        let is_time = Context::instant() < until;
        while under_way.len() < room && is_time && refusal.is_none() && outcome.is_ok() {
            let Some((node, pod)) = rest.next() else { break };
            under_way.push(try_pod(context, object, node, pod, proof, until));
        }
        match under_way.next().await {
            Some(Ok(Tried::TooLate)) => progress = Progress::Unfinished,
            Some(Ok(Tried::NoRoom)) => progress = progress.and(Progress::Unhurried),
            Some(Ok(Tried::Accepted)) => {
                room = (room + 1).min(MOST_AT_ONCE);
                context.world.remember(object.uid, |memory| memory.refusal = None);
            }
            Some(Ok(Tried::Refused(message))) => refusal = Some(message),
            Some(Err(error)) => outcome = outcome.and(Err(error)),
            None => break,
        }
    }
    if refusal.is_some() {
        context.world.remember(object.uid, |memory| memory.refusal = refusal);
        return outcome.map(|()| Progress::Done);
    }
    outcome?;
    if rest.peek().is_none() && progress != Progress::Unfinished {
        return Ok(progress);
    }
    context.world.remember(object.uid, |memory| memory.room = room);
    Ok(Progress::Unfinished)
}

/// What became of one pod that was to be created.
enum Tried {
    /// It is there, or its name is taken.
    Accepted,
    /// The API server refuses it, and says why.
    Refused(String),
    /// Other objects have taken the room that there was for pods that wait for the scheduler.
    NoRoom,
    /// Its turn did not come in time.
    TooLate,
}

/// Whether the pod is one of a privileged mode, or does not say.
fn is_privileged(pod: &Pod) -> bool {
    pod.labels().get(labels::MODE).is_none_or(|mode| mode != Mode::Normal.as_str())
}

/// Creates one pod in its turn.
async fn try_pod(
    context: &Context,
    object: Owner<'_>,
    node: &str,
    pod: &Pod,
    proof: &PolicyProof,
    until: Instant,
) -> Result<Tried, Error> {
    let Some(_turn) = context.turns.take(Some(until)).await else { return Ok(Tried::TooLate) };
    if is_privileged(pod) && context.proofs.newest() != *proof {
        return Ok(Tried::TooLate);
    }
    let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let (name, most) = (pod.name_any(), context.config.most_unbound_pods);
    let begin = |unbound: &mut Unbound, pods: &PodTable| {
        unbound.begin(object.uid, &name, pods, most, Context::instant())
    };
    if !is_bound && !context.world.count_unbound(begin) {
        return Ok(Tried::NoRoom);
    }
    // Without an answer it counts until it is seen, or cannot come any more.
    let refusal = create_pod(context, object, node, pod).await?;
    context.world.count_unbound(|unbound, _| unbound.end(object.uid, &name));
    Ok(refusal.map_or(Tried::Accepted, Tried::Refused))
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
