//! Watches, triggers, concurrency and shutdown; no decisions.

use std::{collections::HashSet, sync::Arc};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt, controller,
        reflector::{self, ObjectRef, Store},
        watcher::{self, watcher},
    },
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_core::observed::{PodFacts, Presence};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::{
    apply::{Owner, delete_pod},
    context::Context,
    error::Error,
    reconcile::{error_policy, reconcile},
    watches::Trigger,
};

type Guarded = DeserializeGuard<ScriptRunner>;

/// Objects that are reconciled at the same time; never two rounds of one object.
const CONCURRENCY: u16 = 8;

/// Runs until `stop` turns true; running reconciles are finished first.
pub async fn run(
    context: Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    mut stop: watch::Receiver<bool>,
) {
    let objects = Api::<Guarded>::all(context.client.clone());
    let (store, writer) = reflector::store();
    // Deletions are triggers too: the pods of an object that is gone are deleted at once.
    let touched =
        watcher(objects, watcher::Config::default()).default_backoff().reflect(writer).touched_objects();
    let controller = Controller::for_stream(touched, store.clone());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(spread(context.clone(), store.clone(), triggers, sender));
    controller
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(UnboundedReceiverStream::new(receiver))
        .graceful_shutdown_on(async move {
            // A closed channel ends the process as well.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .run(reconcile, error_policy, context.clone())
        .for_each(|outcome| {
            let (context, store) = (context.clone(), store.clone());
            async move {
                match outcome {
                    Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                    // The object is gone while something of it still made a noise: its pods may be left.
                    Err(controller::Error::ObjectNotFound(_)) => sweep(&context, &store).await,
                    Err(error) => {
                        context.metrics.watch_errors.inc();
                        tracing::warn!(%error, "watch of ScriptRunners failed, starting it again");
                    }
                }
            }
        })
        .await;
}

/// Turns triggers into objects to look at.
async fn spread(
    context: Arc<Context>,
    store: Store<Guarded>,
    mut triggers: mpsc::UnboundedReceiver<Trigger>,
    sender: mpsc::UnboundedSender<ObjectRef<Guarded>>,
) {
    while let Some(trigger) = triggers.recv().await {
        let chosen: Vec<ObjectRef<Guarded>> = match trigger {
            Trigger::One(reference) => vec![reference],
            Trigger::Namespace(namespace) => store
                .state()
                .iter()
                .filter(|object| object.namespace().as_deref() == Some(&namespace))
                .map(|object| ObjectRef::from_obj(&**object))
                .collect(),
            Trigger::All => store.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect(),
            Trigger::Orphans => {
                sweep(&context, &store).await;
                Vec::new()
            }
        };
        for reference in chosen {
            if sender.send(reference).is_err() {
                return;
            }
        }
    }
}

/// Deletes the pods of objects that no longer exist. The watch may lag behind, so the API server is asked first.
async fn sweep(context: &Context, store: &Store<Guarded>) {
    let live: HashSet<String> = store.state().iter().filter_map(|object| object.meta().uid.clone()).collect();
    // Also of objects without pods: a memory holds a whole object.
    context.world.forget_all_but(&live);
    let owners = context.world.pods().owners();
    for owner in owners.into_iter().filter(|owner| !live.contains(owner.as_str())) {
        if let Err(error) = sweep_owner(context, &owner).await {
            tracing::warn!(%error, owner, "pods of a ScriptRunner that is gone could not be deleted; the garbage collector does it");
        }
    }
}

async fn sweep_owner(context: &Context, owner: &str) -> Result<(), Error> {
    let pods: Vec<PodFacts> = context.world.pods().of(owner);
    let Some(first) = pods.first() else { return Ok(()) };
    let api = Api::<Guarded>::namespaced(context.client.clone(), &first.namespace);
    let found = context.call("get the ScriptRunner of a pod", api.get_opt(&first.owner_name)).await?;
    if found.is_some_and(|found| found.meta().uid.as_deref() == Some(owner)) {
        return Ok(());
    }
    for pod in pods.iter().filter(|pod| pod.presence == Presence::Present && !pod.deleting) {
        let owner = Owner { namespace: &pod.namespace, name: &pod.owner_name, uid: owner };
        delete_pod(context, owner, &pod.name, &pod.uid, "its ScriptRunner is gone").await?;
    }
    context.world.pods().prune(owner, |_| false);
    context.world.forget(owner);
    Ok(())
}
