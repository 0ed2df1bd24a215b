//! When an object that has ended is deleted. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    reason::ConditionReason,
    v1alpha1::ScriptRunnerStatus,
};

use crate::{observed::Observed, status::verdict::may_go_on, validate::ValidRun};

/// When the object is to be deleted; none while it has not ended. Only what is stored, and is of the spec as it is, counts.
pub(super) fn expiry(
    status: &ScriptRunnerStatus,
    run: Option<&ValidRun>,
    observed: &Observed,
) -> Option<Timestamp> {
    let seconds = i64::from(run?.ttl_seconds?);
    let is_stored = observed.previous.as_deref() == Some(status)
        && status.observed_generation == Some(observed.object.generation);
    let failed = find(&status.conditions, ConditionType::Failed).filter(|failed| failed.status == "True");
    // One that the user holds is to go on.
    let is_held =
        holds(&status.conditions, ConditionType::Suspended) && (status.pending > 0 || may_go_on(status));
    let has_failed = failed.is_some_and(|failed| failed.reason != ConditionReason::Stopped.as_str());
    let has_ended = (has_failed || holds(&status.conditions, ConditionType::Complete))
        && !holds(&status.conditions, ConditionType::Progressing)
        && !is_held;
    let completion = status.run.as_ref()?.completion_time.as_ref()?.0;
    let expiry = completion.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    (is_stored && has_ended).then_some(expiry)
}
