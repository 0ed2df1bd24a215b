//! Watches, triggers, concurrency and shutdown; no decisions.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, FuturesUnordered},
};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        Controller, WatchStreamExt, controller,
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_core::observed::{PodFacts, PolicyProof, Presence};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::{
    apply::{Owner, delete_pod},
    coalesce::Coalescer,
    concurrently::{MOST_AT_ONCE, MOST_UNHURRIED, in_turn},
    context::Context,
    error::Error,
    guarded::{Guarded, Reference},
    observe::{may_be_privileged, version},
    reconcile::{error_policy, reconcile},
    watches::{PAGE_OF_LARGE, Trigger, watch_all},
    world::sources::named,
};

/// Objects that are reconciled at the same time; never two rounds of one object. Each may wait for a second for its pods, and
/// the others for it.
const MOST_LOOKS: usize = 32;
/// Rest between two sweeps.
const SWEEP_REST: Duration = Duration::from_secs(1);
/// Longest pause between two looks at admission policies that do not hold.
const BROKEN_PAUSE: Duration = Duration::from_secs(5);

/// What the parts of the controller share.
struct Parts {
    context: Arc<Context>,
    store: Store<Guarded>,
    coalescer: Arc<Coalescer<Reference>>,
    /// Pods may be there whose object is gone.
    orphans: Notify,
}

/// Runs until `stop` turns true; running reconciles are finished first.
pub async fn run(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    stop: watch::Receiver<bool>,
) {
    let (store, writer) = reflector::store();
    let (coalescer, passed) = Coalescer::new();
    let parts = Parts { context, store, coalescer: Arc::new(coalescer), orphans: Notify::new() };
    tokio::select! {
        () = reconcile_all(&parts, passed, stop) => {}
        // None of these ends.
        () = follow(&parts, writer) => {}
        () = spread(&parts, triggers) => {}
        () = parts.coalescer.run() => {}
        () = sweep_on_demand(&parts) => {}
        () = prove(&parts) => {}
        () = tell_of_proofs(&parts) => {}
    }
}

/// Reconciles what the coalescer passes on.
async fn reconcile_all(
    parts: &Parts,
    passed: mpsc::UnboundedReceiver<Reference>,
    mut stop: watch::Receiver<bool>,
) {
    let (store, coalescer) = (parts.store.clone(), parts.coalescer.clone());
    let places = Arc::new(Semaphore::new(MOST_LOOKS));
    let look = move |object: Arc<Guarded>, context: Arc<Context>| {
        let (store, coalescer, places) = (store.clone(), coalescer.clone(), places.clone());
        async move {
            // First come, first served. It is never closed.
            let _place = places.acquire().await.ok();
            let reference = ObjectRef::from_obj(&*object);
            let look = coalescer.begin(reference.clone());
            // Read only now: what changes from here on triggers another look.
            let object = store.get(&reference).unwrap_or(object);
            let (uid, world) = (object.meta().uid.clone().unwrap_or_default(), context.world.clone());
            let is_waiting = move || world.remember(&uid, |memory| memory.write_waits);
            look.run(Box::pin(reconcile(object, context)), is_waiting).await
        }
    };
    // Changes of the objects come through the coalescer like everything else.
    Controller::for_stream(stream::pending(), parts.store.clone())
        // Without a limit of its own: among those that wait for one it would take any, and some never.
        .with_config(controller::Config::default())
        .reconcile_on(UnboundedReceiverStream::new(passed))
        .graceful_shutdown_on(async move {
            // A closed channel ends the process as well.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .run(look, error_policy, parts.context.clone())
        .for_each(|outcome| async {
            match outcome {
                Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                // The object is gone while something of it still made a noise: its pods may be left.
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.as_deref().unwrap_or_default();
                    parts.coalescer.unknown(Reference::new(&gone.name).within(namespace));
                    parts.orphans.notify_one();
                }
                Err(error) => tracing::error!(%error, "the controller stumbled"),
            }
        })
        .await;
}

/// Keeps the store of ScriptRunners, and triggers those that changed.
async fn follow(parts: &Parts, writer: Writer<Guarded>) {
    let context = &parts.context;
    let events = watch_all(context.config.scope.apis::<Guarded>(&context.client), None, PAGE_OF_LARGE)
        .map_ok(|event| event.modify(|object| share(&parts.context, object)))
        .reflect(writer);
    let mut events = std::pin::pin!(events);
    let mut listed: Vec<Reference> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            // The store shows the list only once it is complete.
            Ok(Event::InitApply(object)) => listed.push(ObjectRef::from_obj(&object)),
            Ok(Event::InitDone) => {
                listed.drain(..).for_each(|reference| parts.coalescer.trigger(reference));
                // Objects may have gone while nobody watched.
                parts.orphans.notify_one();
            }
            Ok(Event::Apply(object)) if is_known(&parts.context, &object) => {}
            // The pods of an object that is gone are deleted at once.
            Ok(Event::Apply(object) | Event::Delete(object)) => {
                parts.coalescer.trigger(ObjectRef::from_obj(&object));
            }
            Err(error) => {
                parts.context.metrics.watch_errors.inc();
                tracing::warn!(%error, "watch of ScriptRunners failed, starting it again");
            }
        }
    }
}

/// Holds one copy of an object that an answer of the API server has brought before the watch.
fn share(context: &Context, guarded: &mut Guarded) {
    let Ok(object) = &mut guarded.0 else { return };
    let latest = context.world.remember(&object.uid().unwrap_or_default(), |memory| memory.latest.clone());
    if let Some(latest) = latest.filter(|latest| version(latest) == version(object)) {
        *object = latest;
    }
}

/// Whether the object has been looked at as it is now, or as it was even later: the watch echoes every write.
fn is_known(context: &Context, guarded: &Guarded) -> bool {
    guarded.0.as_ref().is_ok_and(|object| {
        context.world.remember(&object.uid().unwrap_or_default(), |memory| {
            memory.latest.as_ref().is_some_and(|latest| version(latest) >= version(object))
        })
    })
}

/// Turns triggers into objects to look at.
async fn spread(parts: &Parts, mut triggers: mpsc::UnboundedReceiver<Trigger>) {
    while let Some(trigger) = triggers.recv().await {
        match trigger {
            Trigger::One(reference) => parts.coalescer.trigger(reference),
            Trigger::Namespace(namespace) => {
                trigger_where(parts, |object| object.namespace().as_deref() == Some(&namespace));
            }
            Trigger::Source { namespace, name } => {
                trigger_where(parts, |object| names_source(&parts.context, object, &namespace, &name));
            }
            Trigger::All => trigger_where(parts, |_| true),
            Trigger::Orphans => parts.orphans.notify_one(),
        }
    }
    // The watches end with the process.
    std::future::pending::<()>().await;
}

/// Whether the object names the ConfigMap, as the watch shows it or in a version that an answer brought before it.
fn names_source(context: &Context, guarded: &Guarded, namespace: &str, name: &str) -> bool {
    let Ok(object) = &guarded.0 else { return false };
    let is_named =
        |object: &ScriptRunner| named(&object.spec).into_iter().flatten().any(|key| key.name == name);
    if object.metadata.namespace.as_deref() != Some(namespace) {
        return false;
    }
    let latest = |uid: &str| context.world.remember(uid, |memory| memory.latest.clone());
    is_named(object)
        || object.metadata.uid.as_deref().and_then(latest).is_some_and(|latest| is_named(&latest))
}

fn trigger_where(parts: &Parts, is_chosen: impl Fn(&Guarded) -> bool) {
    for object in parts.store.state().iter().filter(|object| is_chosen(object)) {
        parts.coalescer.trigger(ObjectRef::from_obj(&**object));
    }
}

/// Sweeps when somebody asks for it, beside the reconciles: an object may leave thousands of pods. Others that go meanwhile
/// are not kept waiting by it.
async fn sweep_on_demand(parts: &Parts) {
    // Before the first list every object would seem to be gone.
    if parts.store.wait_until_ready().await.is_err() {
        return std::future::pending().await;
    }
    let (mut under_way, mut owners) = (FuturesUnordered::new(), HashSet::new());
    let mut rested = Instant::now();
    loop {
        let asked = async {
            sleep_until(rested).await;
            parts.orphans.notified().await;
        };
        tokio::select! {
            () = asked => {
                let gone = gone_owners(&parts.context, &parts.store);
                let new = gone.into_iter().filter(|owner| owners.insert(owner.clone()));
                under_way.extend(new.map(|owner| sweep(&parts.context, owner)));
                rested = Instant::now() + SWEEP_REST;
            }
            Some(owner) = under_way.next() => {
                owners.remove(&owner);
            }
        }
    }
}

/// Looks at the admission policies again and again; more often while they do not hold, because somebody may be mending them.
async fn prove(parts: &Parts) {
    let pause = parts.context.config.timers.policy_proof;
    loop {
        let answer = parts.context.proofs.ask(&parts.context.metrics).await;
        let holds = matches!(answer, Ok(PolicyProof::Proven { .. }));
        tokio::time::sleep(if holds { pause } else { pause.min(BROKEN_PAUSE) }).await;
    }
}

/// Whatever is found out of the policies, every privileged object is looked at again.
async fn tell_of_proofs(parts: &Parts) {
    let mut answers = parts.context.proofs.watch();
    while answers.changed().await.is_ok() {
        trigger_where(parts, |object| object.0.as_ref().is_ok_and(|object| may_be_privileged(&object.spec)));
    }
}

/// UIDs of objects that have pods and, as far as the watch knows, no longer exist.
fn gone_owners(context: &Context, store: &Store<Guarded>) -> Vec<String> {
    let live: HashSet<String> = store.state().iter().filter_map(|object| object.meta().uid.clone()).collect();
    // Also of objects without pods: a memory holds a whole object.
    context.world.forget_all_but(&live);
    let owners = context.world.pods().owners();
    owners.into_iter().filter(|owner| !live.contains(owner.as_str())).collect()
}

/// Deletes the pods of an object that no longer exists; gives its UID back.
async fn sweep(context: &Context, owner: String) -> String {
    if let Err(error) = sweep_owner(context, &owner).await {
        tracing::warn!(%error, owner, "pods of a ScriptRunner that is gone could not be deleted; the garbage collector does it");
    }
    owner
}

/// The watch may lag behind, so the API server is asked first.
async fn sweep_owner(context: &Context, owner: &str) -> Result<(), Error> {
    let pods: Vec<Arc<PodFacts>> = context.world.pods().of(owner);
    let Some(first) = pods.first() else { return Ok(()) };
    let api = Api::<Guarded>::namespaced(context.client.clone(), &first.namespace);
    let turn = context.turns.take(None).await;
    let found = context.call("get the ScriptRunner of a pod", api.get_opt(&first.owner_name)).await?;
    drop(turn);
    if found.is_some_and(|found| found.meta().uid.as_deref() == Some(owner)) {
        return Ok(());
    }
    let left = pods.iter().filter(|pod| pod.presence == Presence::Present && !pod.deleting);
    let (over, running): (Vec<_>, Vec<_>) = left.partition(|pod| pod.has_ended());
    for (pods, most) in [(running, MOST_AT_ONCE), (over, MOST_UNHURRIED)] {
        let calls = pods.into_iter().map(|pod| {
            let owner = Owner { namespace: &pod.namespace, name: &pod.owner_name, uid: owner };
            delete_pod(context, owner, &pod.name, &pod.uid, "its ScriptRunner is gone")
        });
        let _all = in_turn(&context.turns, most, calls.collect(), None).await?;
    }
    context.world.pods().prune(owner, |_| false);
    context.world.forget(owner);
    Ok(())
}

#[cfg(test)]
mod tests;
