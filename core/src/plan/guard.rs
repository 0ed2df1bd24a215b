//! Whether privileged runs are held back, because nothing proves that admission policies judged who may ask for them. Pure.
//!
//! **Invariant:** a privileged spec is accepted, and a privileged pod made, only while the policies are proven. A spec is
//! accepted only if it was written after that proof began to hold. When something was written is told by what no user can
//! forge: not by managed fields, whose times an edit of a label moves, but by the object's creation and by generations that
//! were seen since.

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::{
    reason::ConditionReason,
    v1alpha1::{Mode, ScriptRunnerStatus},
};

use crate::{
    observed::{ObjectFacts, Observed, PolicyProof},
    validate::{Refusal, ValidRun},
};

/// Why the spec is not accepted as it is, if it is not.
pub(super) fn admit(run: &ValidRun, observed: &Observed) -> Result<(), Refusal> {
    let Some(mode) = privileged_mode(run, observed) else { return Ok(()) };
    if is_accepted(observed) {
        return Ok(());
    }
    match &observed.policy_proof {
        PolicyProof::Proven { since } if is_written_after(*since, observed) => Ok(()),
        PolicyProof::Proven { since } => Err(Refusal {
            reason: ConditionReason::NotAdmitted,
            message: format!(
                "this spec of mode {} was last written before the admission policies were known to hold (since {}); whoever may use the mode must write it again: set rerun.at to the present time",
                mode.as_str(),
                since.strftime("%Y-%m-%dT%H:%M:%SZ")
            ),
        }),
        PolicyProof::NotProven { why } => Err(not_proven(mode, why)),
        PolicyProof::Awaited => Err(not_proven(mode, "nothing has been asked yet; this takes a moment")),
    }
}

/// Whether nothing new is started although the spec is accepted. What runs goes on.
pub(super) fn holds_back(run: &ValidRun, observed: &Observed) -> bool {
    match &observed.policy_proof {
        PolicyProof::Proven { .. } => false,
        PolicyProof::NotProven { .. } | PolicyProof::Awaited => privileged_mode(run, observed).is_some(),
    }
}

/// What is said of a run that is accepted and held back. Nothing before the first answer: it takes a moment.
pub(super) fn standing_refusal(run: &ValidRun, observed: &Observed) -> Option<Refusal> {
    let mode = privileged_mode(run, observed)?;
    match &observed.policy_proof {
        PolicyProof::NotProven { why } => Some(not_proven(mode, why)),
        PolicyProof::Proven { .. } | PolicyProof::Awaited => None,
    }
}

/// The privileged mode of what runs, or of the spec that waits for a rerun.
fn privileged_mode(run: &ValidRun, observed: &Observed) -> Option<Mode> {
    [run.pinned.mode, observed.object.spec.mode].into_iter().find(|mode| mode.is_privileged())
}

fn not_proven(mode: Mode, why: &str) -> Refusal {
    Refusal {
        reason: ConditionReason::PolicyNotProven,
        message: format!(
            "mode {} starts nothing until the admission policies are proven to hold: {why}",
            mode.as_str()
        ),
    }
}

/// The stored status, if it is of this very object.
fn own_status(observed: &Observed) -> Option<&ScriptRunnerStatus> {
    let status = observed.previous.as_deref()?;
    (status.object_uid.as_deref() == Some(observed.object.uid.as_str())).then_some(status)
}

fn is_accepted(observed: &Observed) -> bool {
    own_status(observed).and_then(|status| status.accepted_generation) == Some(observed.object.generation)
}

/// Whether this generation of the spec was certainly written after that moment. Times of the API server are whole seconds, so
/// that of the same second counts as before.
fn is_written_after(since: Timestamp, observed: &Observed) -> bool {
    let ObjectFacts { created, generation, seen_since, .. } = &observed.object;
    created.is_some_and(|created| created > since)
        || seen_since.is_some_and(|seen| seen < *generation)
        // Of an earlier generation something was said after that moment, so this one came later still.
        || own_status(observed).is_some_and(|status| {
            status.observed_generation.is_some_and(|seen| seen < *generation)
                && last_said(status).is_some_and(|said| said > since)
        })
}

/// The latest moment at which the status is known to have been written.
fn last_said(status: &ScriptRunnerStatus) -> Option<Timestamp> {
    let conditions = status.conditions.iter().map(|condition| condition.last_transition_time.0);
    let run = status.run.iter().flat_map(|run| [Some(&run.start_time), run.completion_time.as_ref()]);
    conditions.chain(run.flatten().map(|time| time.0)).max()
}
