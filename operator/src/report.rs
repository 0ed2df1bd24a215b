//! The only writes of a status and of Events.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::error_boundary::InvalidObject,
    runtime::events::{Event, EventType},
};
use scriptrunner_api::{
    reason::ConditionReason,
    v1alpha1::{RunStatus, ScriptRunner, ScriptRunnerStatus},
};
use scriptrunner_core::{
    names::config_map_name,
    status::{
        events::{Notice, harmless_note, notices},
        patch::diff,
        size::stored_bytes,
        urgency::{Urgency, urgency},
    },
};

use crate::{
    context::Context,
    error::Error,
    guarded::Guarded,
    metrics::Metrics,
    observe::{Sight, version},
};

/// Events about nodes in one run; after that one says that there are more.
const NODE_EVENTS: u32 = 10;

/// What came of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The stored status is already this one.
    Same,
    /// It was written.
    Written,
    /// It is to be written after this time, or when more happens.
    Later(Duration),
    /// The object has changed since it was read: look again.
    Outdated,
    /// The object is gone.
    Gone,
}

/// Writes the status if it differs from the stored one and its time has come.
pub async fn report(
    context: &Context,
    sight: &Sight,
    status: &ScriptRunnerStatus,
) -> Result<Reported, Error> {
    let uid = sight.object.uid().unwrap_or_default();
    // Nothing is to be kept short for the write that is on its way.
    context.world.remember(&uid, |memory| memory.due = None);
    let reported = write(context, sight, status, &uid).await;
    let write_waits = matches!(reported, Ok(Reported::Later(_)));
    let pause = match reported {
        Ok(Reported::Later(wait)) => Some(wait),
        Ok(Reported::Written) => Some(context.pressure.interval()),
        Ok(Reported::Same | Reported::Outdated | Reported::Gone) | Err(_) => None,
    };
    let due = pause.map(|pause| Context::instant() + pause);
    context.world.remember(&uid, |memory| (memory.write_waits, memory.due) = (write_waits, due));
    reported
}

async fn write(
    context: &Context,
    sight: &Sight,
    status: &ScriptRunnerStatus,
    uid: &str,
) -> Result<Reported, Error> {
    let object = &sight.object;
    if object.status.as_ref() == Some(status) {
        return Ok(Reported::Same);
    }
    // A patch of thousands of nodes takes its time: it is made only when it may be written.
    if let Some(wait) = pause(context, sight, status, uid) {
        return Ok(Reported::Later(wait));
    }
    let resource_version = object.resource_version().unwrap_or_default();
    let Some(patch) = diff(object.status.as_ref(), status, uid, &resource_version) else {
        return Ok(Reported::Same);
    };
    let bytes = sight.observed.object.other_bytes + stored_bytes(status);
    if let Err(wait) = context.take_status_bytes(uid, bytes) {
        return Ok(Reported::Later(wait));
    }
    let api = Api::<ScriptRunner>::namespaced(context.client.clone(), &sight.observed.object.namespace);
    let name = object.name_any();
    let right_of_way = context.turns.give_way(bytes);
    let written = context
        .call("write the status", api.patch_status(&name, &PatchParams::default(), &Patch::Json::<()>(patch)))
        .await;
    drop(right_of_way);
    match written {
        Ok(stored) => {
            Metrics::count(&context.metrics.status_writes, "done");
            context.metrics.status_bytes.inc_by(bytes as u64);
            let stored = Arc::new(stored);
            context.world.remember(uid, |memory| {
                (memory.latest, memory.own) = (Some(stored.clone()), Some(stored));
                (memory.tried, memory.failed_writes) = (Some(Context::instant()), 0);
            });
            announce(context, sight, status, uid).await;
            Ok(Reported::Written)
        }
        Err(Error::Call { source, .. }) if matches!(&*source, kube::Error::Api(answer) if answer.is_not_found()) => {
            Ok(Reported::Gone)
        }
        // 422: a `test` of the patch failed. 409: somebody wrote between the server's own read and write.
        Err(Error::Call { source, .. }) if matches!(&*source, kube::Error::Api(answer) if answer.is_conflict() || answer.is_invalid()) =>
        {
            Metrics::count(&context.metrics.status_writes, "outdated");
            refresh(context, &api, object, &source).await.inspect_err(|_| note_failure(context, uid))
        }
        Err(error) => {
            Metrics::count(&context.metrics.status_writes, "failed");
            note_failure(context, uid);
            if !is_refusal(&error) {
                // It may have been written all the same: what is stored is believed now, as by a process that begins.
                context.world.remember(uid, |memory| memory.own = None);
            }
            Err(error)
        }
    }
}

/// Whether the API server said that it did not do what it was asked for.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Call { source, .. }
        if matches!(&**source, kube::Error::Api(answer) if (400..500).contains(&answer.code)))
}

/// Tells whoever looks at an object that this operator cannot read it, once per version of the object. Its status cannot
/// be written, because the rest of it would have to be guessed.
pub async fn report_unreadable(context: &Context, guarded: &Guarded, unreadable: &InvalidObject) {
    let InvalidObject { error, metadata } = unreadable;
    let version = metadata.resource_version.clone();
    let is_known = context.world.remember(metadata.uid.as_deref().unwrap_or_default(), |memory| {
        std::mem::replace(&mut memory.unreadable_version, version.clone()) == version
    });
    if is_known {
        return;
    }
    context.metrics.unreadable_objects.inc();
    tracing::error!(
        namespace = metadata.namespace,
        scriptrunner = metadata.name,
        error,
        "the object cannot be read, left alone"
    );
    let event = Event {
        type_: EventType::Warning,
        reason: ConditionReason::Unreadable.as_str().to_owned(),
        note: Some(harmless_note(&format!("this operator cannot read the object, nothing is done: {error}"))),
        action: "Validate".to_owned(),
        secondary: None,
    };
    publish(context, &event, &guarded.object_ref(&())).await;
}

/// Events are for people: a lost one is logged, not tried again.
async fn publish(context: &Context, event: &Event, reference: &ObjectReference) {
    if let Err(error) = context.call("write an event", context.recorder.publish(event, reference)).await {
        tracing::warn!(%error, reason = event.reason, "an event was lost");
    }
}

/// Whatever happens to the object next, the next write waits.
fn note_failure(context: &Context, uid: &str) {
    context.world.remember(uid, |memory| {
        memory.tried = Some(Context::instant());
        memory.failed_writes = memory.failed_writes.saturating_add(1);
    });
}

/// How long the write has to wait; none if it may go now.
fn pause(context: &Context, sight: &Sight, status: &ScriptRunnerStatus, uid: &str) -> Option<Duration> {
    let now = Context::instant();
    let previous = sight.observed.previous.as_deref();
    let (tried, failures) = context.world.remember(uid, |memory| (memory.tried, memory.failed_writes));
    let timers = context.config.timers;
    let backoff = (timers.status_interval * (1 << failures.min(10))).min(timers.longest_backoff);
    let shortest = context.pressure.interval().max(backoff);
    let urgency = if sight.status_is_foreign { Urgency::Result } else { urgency(previous, status) };
    let (since, interval) = match urgency {
        Urgency::Result if is_turn(previous, status) && shortest == timers.status_interval => {
            (None, shortest)
        }
        Urgency::Result => (tried, shortest),
        // A process that has just begun would otherwise write every object that has moved on meanwhile, at once.
        Urgency::State => (tried.or(Some(context.ready)), shortest.max(timers.state_interval)),
    };
    let pause = since.and_then(|since| (since + interval).checked_duration_since(now));
    pause.max(context.pressure.hold(now)).filter(|wait| !wait.is_zero())
}

/// Whether the status begins or completes a run: somebody waits for just this, and no object has many of them.
fn is_turn(previous: Option<&ScriptRunnerStatus>, status: &ScriptRunnerStatus) -> bool {
    let turn = |status: &ScriptRunnerStatus| {
        status.run.as_ref().map(|run| (run.number, run.completion_time.is_some()))
    };
    turn(status) > previous.and_then(turn)
}

/// Reads the object again after a write that did not fit it any more.
async fn refresh(
    context: &Context,
    api: &Api<ScriptRunner>,
    object: &ScriptRunner,
    refused: &kube::Error,
) -> Result<Reported, Error> {
    let Some(live) = context.call("read the object again", api.get_opt(&object.name_any())).await? else {
        return Ok(Reported::Gone);
    };
    let uid = object.uid().unwrap_or_default();
    if live.uid().as_deref() != Some(uid.as_str()) {
        return Ok(Reported::Gone);
    }
    if version(&live) == version(object) {
        // The same version and still refused: the status itself is at fault.
        return Err(Error::Call {
            doing: "write the status",
            source: Box::new(kube::Error::Service(refused.to_string().into())),
        });
    }
    if version(&live) < version(object) {
        tracing::warn!(
            namespace = live.namespace(),
            scriptrunner = live.name_any(),
            "the API server went back in time, forgetting what was written since"
        );
        context.world.remember(&uid, |memory| (memory.latest, memory.own) = (None, None));
        return Ok(Reported::Later(context.config.timers.status_interval));
    }
    context.world.remember(&uid, |memory| memory.latest = Some(Arc::new(live)));
    Ok(Reported::Outdated)
}

/// Writes Events for what the new status says for the first time.
async fn announce(context: &Context, sight: &Sight, status: &ScriptRunnerStatus, uid: &str) {
    let reference = sight.object.object_ref(&());
    let run = status.run.as_ref();
    for notice in notices(sight.observed.previous.as_deref(), status) {
        let number = run.map_or(0, |run| run.number);
        let Some(notice) = within_limit(context, uid, number, notice) else { continue };
        let event = Event {
            type_: if notice.is_warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.to_owned(),
            note: Some(notice.note),
            action: notice.action.to_owned(),
            secondary: related(sight, run, notice.node),
        };
        publish(context, &event, &reference).await;
    }
}

/// What the event is also about: the node, or the inputs of the run. Events that are alike in this become one series with
/// the note of the first.
fn related(sight: &Sight, run: Option<&RunStatus>, node: Option<String>) -> Option<ObjectReference> {
    let object = &sight.observed.object;
    let (kind, namespace, name) = match (node, run) {
        (Some(node), _) => ("Node", None, node),
        (None, Some(run)) => {
            let inputs = config_map_name(&object.uid, run.number, &run.spec_hash);
            ("ConfigMap", Some(object.namespace.clone()), inputs)
        }
        (None, None) => return None,
    };
    Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name),
        namespace,
        ..ObjectReference::default()
    })
}

/// Lets the first notices about nodes of a run pass, then one that says that there are more.
fn within_limit(context: &Context, uid: &str, run: u64, notice: Notice) -> Option<Notice> {
    if notice.node.is_none() {
        return Some(notice);
    }
    context.world.remember(uid, |memory| {
        if memory.node_events.0 != run {
            memory.node_events = (run, 0);
        }
        memory.node_events.1 += 1;
        match memory.node_events.1 {
            count if count <= NODE_EVENTS => Some(notice),
            count if count == NODE_EVENTS + 1 => Some(Notice {
                note: "more nodes failed; see status.nodes and status.outputGroups".to_owned(),
                ..notice
            }),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests;
