//! One reconcile of one object: observe, validate, plan, apply, report. No decisions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action};
use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus, ScriptRunner, ScriptRunnerStatus},
};
use scriptrunner_core::{
    observed::{PodFacts, PolicyProof, Presence},
    plan::{self, Plan, Taken, plan},
    validate::{Refusal, ValidRun, validate},
};

use crate::{
    apply::{Owner, apply},
    concurrently::Progress,
    context::Context,
    error::Error,
    guarded::Guarded,
    metrics::Metrics,
    observe::{Sight, observe},
    report::{Reported, report, report_unreadable},
};

/// Rounds of one reconcile: a write that makes further actions possible is followed by them at once.
const MOST_ROUNDS: usize = 8;

/// Brings one object a step further.
pub async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let object = match &guarded.0 {
        Ok(object) => object.clone(),
        Err(unreadable) => {
            // Its owner has to mend it; every change brings it here again.
            report_unreadable(&context, &guarded, unreadable).await;
            return Ok(Action::await_change());
        }
    };
    let outcome = rounds(&object, &context).await;
    if let Some(duration) = &context.metrics.reconcile_duration {
        duration.observe(started.elapsed().as_secs_f64());
    }
    Metrics::count(&context.metrics.reconciles, if outcome.is_ok() { "done" } else { "failed" });
    if outcome.is_ok() {
        context.world.remember(&object.uid().unwrap_or_default(), |memory| memory.failures = 0);
    }
    outcome
}

async fn rounds(object: &Arc<ScriptRunner>, context: &Context) -> Result<Action, Error> {
    for _ in 0..MOST_ROUNDS {
        match round(object, context).await? {
            Round::Again => {}
            Round::Rest(action) => return Ok(action),
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// Pause between tries of what has to wait for other objects: a look costs time as well.
const UNHURRIED_PAUSE: Duration = Duration::from_secs(2);

enum Round {
    Again,
    Rest(Action),
}

/// What a round has done and found, before it is reported.
struct Performed {
    /// What was seen when the last of it was done.
    sight: Sight,
    valid: Result<ValidRun, Refusal>,
    /// The plan for that; nothing of it is done yet.
    planned: Plan,
    progress: Progress,
    /// When the first plan would have looked again.
    waited_until: Option<Timestamp>,
    now: Timestamp,
}

async fn perform(object: &Arc<ScriptRunner>, context: &Context) -> Result<Performed, Error> {
    let (sight, now) = (observe(context, object).await?, Context::now());
    let valid = validate(&sight.observed.object.spec, &sight.observed.sources);
    let settings = context.pod_settings();
    let (actions, waited_until) = {
        let steps = plan::steps(&valid, &sight.observed, &settings, now);
        if sight.status_is_foreign || is_at_rest(&steps.actions, &sight) {
            // What is stored and not what was decided upon is put right before anything else happens.
            let (planned, progress, waited_until) = (steps.with_status(), Progress::Done, None);
            return Ok(Performed { sight, valid, planned, progress, waited_until, now });
        }
        (steps.actions, steps.next)
    };
    let progress =
        apply(context, (&sight.observed.object).into(), actions, &sight.observed.policy_proof).await?;
    // The status comes from what the API server shows after the actions, not from what they were meant to do.
    let (sight, now) = (observe(context, object).await?, Context::now());
    let planned = plan(&valid, &sight.observed, &settings, now);
    Ok(Performed { sight, valid, planned, progress, waited_until, now })
}

/// Whether there is nothing to do, and nothing to be forgotten of what was done before.
fn is_at_rest(actions: &[plan::Action], sight: &Sight) -> bool {
    actions.is_empty() && sight.observed.refusal.is_none() && sight.observed.config_map_conflict.is_none()
}

async fn round(object: &Arc<ScriptRunner>, context: &Context) -> Result<Round, Error> {
    let Performed { sight, valid, mut planned, mut progress, waited_until, now } =
        perform(object, context).await?;
    if sight.status_is_foreign {
        context.metrics.foreign_status_writes.inc();
        tracing::warn!(
            namespace = object.namespace(),
            scriptrunner = object.name_any(),
            "somebody else wrote the status, putting it right"
        );
    }
    let uid = sight.observed.object.uid.clone();
    context.world.remember(&uid, |memory| {
        memory.known_answers = planned.answers;
        let status = planned.status.as_ref();
        memory.pod_conflicts.retain(|node, _| status.is_some_and(|status| is_in_conflict(status, node)));
    });
    context.world.count_unbound(|unbound, _| unbound.ask(&uid, planned.awaits_room, Context::instant()));
    // The moment that the first plan waited for may have come meanwhile, and what the second would do then is not done yet.
    let next = waited_until.into_iter().chain(planned.next).min();
    let actions = std::mem::take(&mut planned.actions);
    let reported = match &planned.status {
        Some(status) => {
            let telling = tell(context, &sight, status, &planned.taken);
            if progress == Progress::Unfinished && is_same_run(&sight, status) && !assigns(&sight, status) {
                // Boxed: every reconcile would hold room for it, and few need it.
                let (reported, further) =
                    Box::pin(beside(telling, context, object, &valid, actions, &sight.observed.policy_proof))
                        .await;
                progress = further?;
                reported?
            } else {
                drop(actions);
                telling.await?
            }
        }
        None => Reported::Same,
    };
    if reported == Reported::Same {
        prune(context, &sight);
    }
    let look_again = |wait: Option<Duration>| {
        let pause = (progress == Progress::Unhurried).then_some(UNHURRIED_PAUSE);
        Round::Rest(look_again(context, &sight, next, wait.into_iter().chain(pause).min(), now))
    };
    Ok(match (reported, progress) {
        (Reported::Gone, _) => Round::Rest(Action::await_change()),
        // Other objects have their turn between the parts of a long plan.
        (_, Progress::Unfinished) => Round::Rest(Action::requeue(Duration::ZERO)),
        (Reported::Written | Reported::Outdated, Progress::Done | Progress::Unhurried) => Round::Again,
        (Reported::Same, Progress::Done | Progress::Unhurried) => look_again(None),
        (Reported::Later(wait), Progress::Done | Progress::Unhurried) => look_again(Some(wait)),
    })
}

/// Reports the status, and tells runners what is stored.
async fn tell(
    context: &Context,
    sight: &Sight,
    status: &ScriptRunnerStatus,
    taken: &[Taken],
) -> Result<Reported, Error> {
    let reported = report(context, sight, status).await?;
    if matches!(reported, Reported::Written | Reported::Same) {
        acknowledge(context, sight, status, taken);
    }
    Ok(reported)
}

/// Goes on with a long plan while a status is on its way, which takes the API server seconds if it is of thousands of nodes.
///
/// **Invariant:** until the write has returned, decisions rest on what was stored before it, as if it had not begun; what
/// was decided so is performed before anything is decided on what it stored. A write that begins a run is waited for.
async fn beside(
    telling: impl Future<Output = Result<Reported, Error>>,
    context: &Context,
    object: &Arc<ScriptRunner>,
    valid: &Result<ValidRun, Refusal>,
    mut actions: Vec<plan::Action>,
    proof: &PolicyProof,
) -> (Result<Reported, Error>, Result<Progress, Error>) {
    let is_told = AtomicBool::new(false);
    let telling = async {
        let reported = telling.await;
        is_told.store(true, Ordering::Relaxed);
        reported
    };
    let going_on = async {
        let mut progress = Progress::Unfinished;
        let uid = object.uid().unwrap_or_default();
        let name = object.name_any();
        let namespace = object.namespace().unwrap_or_default();
        let owner = Owner { namespace: &namespace, name: &name, uid: &uid };
        let mut proof = proof.clone();
        while !is_told.load(Ordering::Relaxed) {
            progress = apply(context, owner, actions, &proof).await?;
            if progress != Progress::Unfinished || is_told.load(Ordering::Relaxed) {
                break;
            }
            let Sight { observed, .. } = observe(context, object).await?;
            actions = plan::steps(valid, &observed, &context.pod_settings(), Context::now()).actions;
            proof = observed.policy_proof;
        }
        Ok(progress)
    };
    tokio::join!(telling, going_on)
}

/// Whether the stored status is of the same run.
fn is_same_run(sight: &Sight, status: &ScriptRunnerStatus) -> bool {
    let number = |status: &ScriptRunnerStatus| status.run.as_ref().map(|run| run.number);
    sight.observed.previous.as_deref().and_then(number) == number(status)
}

/// Whether the status is the first to say that a pod of an older run goes on with this one. Should that pod end while this is
/// being written, a decision on what was stored before would make another pod for the same part of the run.
fn assigns(sight: &Sight, status: &ScriptRunnerStatus) -> bool {
    let number = status.run.as_ref().map_or(0, |run| run.number);
    let names = |status: &ScriptRunnerStatus, pod: &PodFacts| {
        status.nodes.get(&pod.node).is_some_and(|entry| {
            entry.node_state() == NodeState::Starting && entry.pod_id.as_ref() == Some(&pod.id)
        })
    };
    let is_new =
        |pod: &PodFacts| !sight.observed.previous.as_deref().is_some_and(|stored| names(stored, pod));
    sight.observed.pods.iter().any(|pod| pod.run < number && names(status, pod) && is_new(pod))
}

/// Tells runners what is stored.
///
/// **Invariant:** only called with a status that the API server has confirmed, and with the snapshots that it contains.
fn acknowledge(context: &Context, sight: &Sight, status: &ScriptRunnerStatus, taken: &[Taken]) {
    for Taken { pod_uid, ack } in taken {
        context.sessions.ack(pod_uid, ack);
    }
    for pod in &sight.observed.pods {
        let Some(entry) = status.nodes.get(&pod.node) else { continue };
        let is_named = entry.pod_id.as_ref() == Some(&pod.id);
        if is_stored(entry, pod) {
            context.sessions.mark_stored(&pod.uid);
        } else if is_named || (entry.run == pod.run && entry.attempts == pod.attempt) {
            context.sessions.know(&pod.uid, entry.seq.unwrap_or(0), entry.serial);
        }
    }
}

/// Whether the outcome of the pod stands in its node's entry, and its runner has nothing more to say. One that stays for
/// further runs may always have.
fn is_stored(entry: &NodeStatus, pod: &PodFacts) -> bool {
    pod.shape.is_empty()
        && entry.node_state().is_done()
        && entry.run == pod.run
        && entry.attempts == pod.attempt
}

/// Whether the node still waits for a name that is taken.
fn is_in_conflict(status: &ScriptRunnerStatus, node: &str) -> bool {
    status.nodes.get(node).is_some_and(|entry| {
        entry.node_state() == NodeState::Pending && entry.reason == NodeReason::NameConflict.as_str()
    })
}

/// When to look again if nothing happens.
fn look_again(
    context: &Context,
    sight: &Sight,
    next: Option<Timestamp>,
    wait: Option<Duration>,
    now: Timestamp,
) -> Action {
    let until = |when: Timestamp| {
        Duration::try_from(when.duration_since(now)).unwrap_or_default() + Duration::from_millis(10)
    };
    let refused = sight.observed.refusal.is_some()
        || sight.observed.config_map_conflict.is_some()
        || !sight.observed.pod_conflicts.is_empty();
    let stripped =
        sight.observed.pods.iter().any(|pod| pod.presence == Presence::Unconfirmed && !pod.has_ended());
    [next.map(until), wait, (refused || stripped).then_some(context.config.timers.refusal_retry)]
        .into_iter()
        .flatten()
        .min()
        .map_or_else(Action::await_change, Action::requeue)
}

/// Forgets vanished pods whose outcome is stored and that no decision needs any more.
fn prune(context: &Context, sight: &Sight) {
    let Some(status) = &sight.object.status else { return };
    let keep = |pod: &PodFacts| {
        let Some(entry) = status.nodes.get(&pod.node) else { return false };
        let is_named = entry.pod_id.as_ref() == Some(&pod.id);
        let is_newest = entry.run == pod.run && entry.attempts == pod.attempt;
        // The newest pod of an entry that goes on holds the time of its start.
        is_named
            || (is_newest && (entry.node_state().is_active() || entry.node_state() == NodeState::Pending))
    };
    context.world.pods().prune(&sight.observed.object.uid, keep);
}

/// When to try again after a failure: the pause doubles from one second.
#[expect(clippy::needless_pass_by_value, reason = "the controller asks for this signature")]
pub fn error_policy(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let metadata = kube::Resource::meta(&*guarded);
    let failures = context.world.remember(metadata.uid.as_deref().unwrap_or_default(), |memory| {
        memory.failures += 1;
        memory.failures
    });
    let pause = Duration::from_secs(1 << (failures - 1).min(10)).min(context.config.timers.longest_backoff);
    tracing::warn!(
        namespace = metadata.namespace.as_deref(),
        scriptrunner = metadata.name.as_deref(),
        %error,
        category = error.category(),
        failures,
        pause_seconds = pause.as_secs(),
        "reconcile failed, trying again"
    );
    Action::requeue(pause)
}

#[cfg(test)]
mod overlap;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_runner_that_stays_may_speak_after_its_outcome_is_stored() {
        let entry = |state: NodeState, run, attempts| NodeStatus {
            state: state.as_str().to_owned(),
            run,
            attempts,
            ..NodeStatus::default()
        };
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "ns", "name": "srn-a", "uid": "a", "resourceVersion": "1",
                "labels": {"scriptrunner.io/uid": "owner", "scriptrunner.io/node-uid": "n",
                    "scriptrunner.io/run": "1", "scriptrunner.io/attempt": "1"},
                "annotations": {"scriptrunner.io/name": "sr", "scriptrunner.io/node": "n"},
                "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
                    "name": "sr", "uid": "owner", "controller": true}]},
            "spec": {"containers": []}});
        let pod = PodFacts::of(&serde_json::from_value(pod).unwrap()).unwrap();
        assert!(is_stored(&entry(NodeState::Succeeded, 1, 1), &pod));
        assert!(!is_stored(&entry(NodeState::Running, 1, 1), &pod));
        assert!(!is_stored(&entry(NodeState::Succeeded, 1, 2), &pod));
        assert!(!is_stored(&entry(NodeState::Succeeded, 2, 1), &pod));
        let staying = PodFacts { shape: "digest".to_owned(), ..pod };
        assert!(!is_stored(&entry(NodeState::Succeeded, 1, 1), &staying));
        assert!(!is_stored(&entry(NodeState::Failed, 1, 1), &staying));
    }
}
