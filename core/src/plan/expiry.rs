//! When an object that has ended is deleted. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    reason::ConditionReason,
    v1alpha1::ScriptRunnerStatus,
};

use super::{Action, Draft};
use crate::{observed::Observed, status::verdict::may_go_on, validate::ValidRun};

/// Deletes the object once it has ended and its time is over. What is stored decides, and only while nothing new is known.
pub(super) fn delete(draft: &mut Draft<'_>, run: Option<&ValidRun>, observed: &Observed) -> Option<Action> {
    let seconds = i64::from(run?.ttl_seconds?);
    let stored = observed.previous.as_deref()?;
    let completion = stored.run.as_ref()?.completion_time.as_ref()?.0;
    let expiry = completion.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    let is_known = stored.observed_generation == Some(observed.object.generation)
        && stored.run == draft.status.run
        && stored.nodes == draft.status.nodes;
    if !is_known || !has_ended(stored) {
        return None;
    }
    if expiry > draft.now {
        draft.look_again_at(expiry);
        return None;
    }
    Some(Action::DeleteObject {
        uid: observed.object.uid.clone(),
        resource_version: observed.object.resource_version.clone(),
    })
}

/// Whether nothing more happens to the object unless its spec changes or a node comes.
fn has_ended(status: &ScriptRunnerStatus) -> bool {
    let failed = find(&status.conditions, ConditionType::Failed).filter(|failed| failed.status == "True");
    let has_failed = failed.is_some_and(|failed| failed.reason != ConditionReason::Stopped.as_str());
    // One that the user holds is to go on.
    let is_held =
        holds(&status.conditions, ConditionType::Suspended) && (status.pending > 0 || may_go_on(status));
    (has_failed || holds(&status.conditions, ConditionType::Complete))
        && !holds(&status.conditions, ConditionType::Progressing)
        && !is_held
}
