//! Counters, progress, conditions and groups: everything in a status that follows from its entries. Pure.
//!
//! **Invariant:** an entry belongs to the current run exactly if it is desired, and each is in one counter: the sum of the
//! counters is `desired` in every status that is written.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use scriptrunner_api::{
    condition::{ConditionType, Verdict, find, holds, set_condition},
    reason::{ConditionReason, NodeReason},
    v1alpha1::{DesiredExecution, ExitCodes, Keep, NodeState, NodeStatus, ScriptRunnerStatus, UpdatePolicy},
};

use super::{
    budget::{expire_gone, fit},
    consensus::Consensus,
    groups::{Answers, Grouped, is_silent, output_groups, remember},
};
use crate::{
    halt::{Halt, Tally, ended_early, is_overdue},
    observed::Observed,
    validate::{Refusal, ValidRun},
};

/// What is known of the spec.
pub struct Judged<'a> {
    /// The run that it asks for, or why there is none.
    pub accepted: Result<&'a ValidRun, Refusal>,
    /// The current run, where it goes on although the spec is refused.
    pub kept: Option<&'a ValidRun>,
}

impl<'a> Judged<'a> {
    /// The run that goes on or is to begin.
    fn run(&self) -> Option<&'a ValidRun> {
        self.accepted.as_ref().ok().copied().or(self.kept)
    }

    /// Why nothing is started.
    fn hindrance(&self) -> Option<&Refusal> {
        self.accepted.as_ref().err().filter(|_| self.kept.is_none())
    }
}

/// Completes a status whose entries and `connected` are up to date; with it the newest answers, which the next call is to know.
pub fn assemble(
    mut status: ScriptRunnerStatus,
    judged: &Judged<'_>,
    observed: &Observed,
    now: Timestamp,
) -> (ScriptRunnerStatus, Answers) {
    let is_same_spec = status.observed_generation == Some(observed.object.generation);
    status.observed_generation = Some(observed.object.generation);
    expire_gone(&mut status, observed.object.spec.node_sample.is_some(), &Time(now));
    let exit_codes = observed.object.spec.exit_codes.as_ref();
    count(&mut status, exit_codes);
    let mut consensus = group(&mut status, observed, is_same_spec);
    let fitted = fit(&mut status, observed.object.other_bytes);
    if !fitted.dropped.is_empty() {
        count(&mut status, exit_codes);
        let silent = desired(&status).filter(|(_, entry)| is_silent(entry)).map(|(name, _)| name).collect();
        if let Some(consensus) = &mut consensus {
            consensus.note_silent(silent);
        }
    }
    let answers = remember(&observed.known_answers, fitted.answers, &status.nodes);
    conclude(&mut status, judged, observed, consensus.as_ref(), now);
    (status, answers)
}

/// Sets the groups of what desired nodes answered. None if nothing can be said about them: then those that are stored stay,
/// unless another spec may have grouped them in another way.
fn group(status: &mut ScriptRunnerStatus, observed: &Observed, is_same_spec: bool) -> Option<Consensus> {
    let output = observed.object.spec.output.clone().unwrap_or_default();
    let by = output.group_by.unwrap_or_default();
    // What an edit says is not to be kept does not stay as a sample either.
    let samples = if output.keep == Some(Keep::DigestOnly) { &[][..] } else { &status.output_groups };
    let grouped = output_groups(desired(status), by, &observed.known_answers, samples);
    if grouped.is_none() && is_same_spec {
        return None;
    }
    let Grouped { groups, consensus } =
        grouped.unwrap_or_else(|| Grouped { groups: Vec::new(), consensus: Consensus::unknown(by) });
    status.output_groups = groups;
    status.output_group_count = u32::try_from(consensus.group_count).unwrap_or(u32::MAX);
    Some(consensus)
}

/// The entries of the current run.
fn desired(status: &ScriptRunnerStatus) -> impl Iterator<Item = (&str, &NodeStatus)> {
    let number = status.run.as_ref().map_or(0, |run| run.number);
    let of_run = status.nodes.iter().filter(move |(_, entry)| entry.is_in(number));
    of_run.map(|(name, entry)| (name.as_str(), entry))
}

/// Sets every counter from the entries.
fn count(status: &mut ScriptRunnerStatus, exit_codes: Option<&ExitCodes>) {
    let number = status.run.as_ref().map_or(0, |run| run.number);
    let [mut pending, mut active, mut succeeded, mut failed, mut skipped, mut unknown] = [0; 6];
    let mut failing = 0;
    for entry in status.nodes.values().filter(|entry| number > 0 && entry.is_in(number)) {
        let counter = match entry.node_state() {
            NodeState::Pending => &mut pending,
            NodeState::Starting | NodeState::Running => {
                failing += u32::from(newest_failed(entry, exit_codes));
                &mut active
            }
            NodeState::Succeeded => &mut succeeded,
            NodeState::Failed | NodeState::Stopped => &mut failed,
            NodeState::Skipped => &mut skipped,
            NodeState::Unknown => &mut unknown,
        };
        *counter += 1;
    }
    (status.pending, status.active, status.succeeded) = (pending, active, succeeded);
    (status.failed, status.skipped, status.unknown) = (failed, skipped, unknown);
    status.failing = failing;
    status.desired = pending + active + succeeded + failed + skipped + unknown;
    status.progress = format!("{}/{}", done(status), status.desired);
}

/// Whether the newest execution that ended failed, by its own entry or, if the size limit cost that, by how it ended and
/// what the spec says of it.
fn newest_failed(entry: &NodeStatus, exit_codes: Option<&ExitCodes>) -> bool {
    let is_excused = |code: i32| {
        exit_codes.is_some_and(|ExitCodes { success, skipped, retry: _ }| {
            success.iter().chain(skipped).any(|excused| i32::from(*excused) == code)
        })
    };
    match entry.history.last() {
        Some(newest) if newest.run == entry.run => newest.failed(),
        Some(_) | None => {
            entry.signal.is_some() || entry.exit_code.is_some_and(|code| code != 0 && !is_excused(code))
        }
    }
}

fn done(status: &ScriptRunnerStatus) -> u32 {
    status.succeeded + status.failed + status.skipped + status.unknown
}

/// Sets the conditions, and the times that go with them.
fn conclude(
    status: &mut ScriptRunnerStatus,
    judged: &Judged<'_>,
    observed: &Observed,
    consensus: Option<&Consensus>,
    now: Timestamp,
) {
    let time = Time(now);
    let generation = Some(observed.object.generation);
    let mut verdicts = vec![acceptance(&judged.accepted, observed)];
    let over = status.desired > 0 && done(status) == status.desired && !may_go_on(status);
    let current = judged.run().filter(|run| is_current(status, run));
    let halt = current.and_then(|run| Halt::of(run, Tally::of(status), is_overdue(run, status, now)));
    let was_over = status.run.as_ref().is_some_and(|run| run.completion_time.is_some());
    let failures = status.failed + status.unknown;
    // Of a run that was complete, nodes that came late are all that is held.
    let was_complete = was_over && failures == 0 && holds(&status.conditions, ConditionType::Complete);
    let early_end = halt.filter(|halt| {
        halt.ends_run() && !over && !was_complete && status.desired > 0 && nothing_executes(status)
    });
    let goes_on = current.is_some() && !over && early_end.is_none() && ended_early(status);
    verdicts.push(progress(status, judged.hindrance(), observed, over, halt));
    verdicts.extend(consensus.map(|consensus| consensus.verdict(&status.output_groups)));
    verdicts.push(truncation(status));
    verdicts.extend(suspension(status, judged.run()));
    if over {
        verdicts.push(completeness(status, failures));
        verdicts.push(failure(status, failures));
    } else if let Some(halt) = early_end {
        let message = halt.ending(status.pending);
        verdicts.extend(ends(true, halt.reason(), &message));
    } else if !was_over || goes_on || status.desired == 0 {
        let message = if status.desired == 0 { "no node matches" } else { "the run has not ended" };
        verdicts.extend(ends(false, ConditionReason::RunNotEnded, message));
    }
    // A late node leaves the verdict of a run that was over as it is, until that node's own outcome.
    let is_over = over || early_end.is_some();
    let newly_over = is_over
        && (!was_over
            || !holds(&status.conditions, ConditionType::Complete)
                && !holds(&status.conditions, ConditionType::Failed));
    let late_node_done = is_over && was_over && holds(&status.conditions, ConditionType::Progressing);
    for verdict in &verdicts {
        set_condition(&mut status.conditions, verdict, generation, &time);
    }
    let Some(run) = &mut status.run else { return };
    if goes_on {
        run.completion_time = None;
    }
    if newly_over || late_node_done {
        run.completion_time = Some(time.clone());
        if over && failures == 0 {
            status.last_successful_time = Some(time);
        }
    }
}

/// Whether the accepted spec is that of the current run: then it decides whether the run goes on.
fn is_current(status: &ScriptRunnerStatus, run: &ValidRun) -> bool {
    status.run.as_ref().is_some_and(|current| current.spec_hash == run.spec_hash)
}

/// Whether no pod executes anything, as far as the entries know: given-up pods aside.
fn nothing_executes(status: &ScriptRunnerStatus) -> bool {
    status.active == 0 && status.nodes.values().all(|entry| entry.pod_id.is_none())
}

/// Whether a node of the run was stopped by the user and may go on.
pub(crate) fn may_go_on(status: &ScriptRunnerStatus) -> bool {
    let number = status.run.as_ref().map_or(0, |run| run.number);
    let is_stopped = |entry: &NodeStatus| {
        entry.node_state() == NodeState::Stopped
            && entry.reason == NodeReason::Stopped.as_str()
            && entry.gone_time.is_none()
    };
    status.nodes.values().any(|entry| entry.run == number && is_stopped(entry))
}

/// That the run is not complete, and whether it failed, for one reason.
fn ends(failed: bool, reason: ConditionReason, message: &str) -> [Verdict; 2] {
    [(ConditionType::Complete, false), (ConditionType::Failed, failed)].map(|(type_, holds)| Verdict {
        type_,
        holds: Some(holds),
        reason,
        message: message.to_owned(),
    })
}

fn acceptance(accepted: &Result<&ValidRun, Refusal>, observed: &Observed) -> Verdict {
    match accepted {
        Ok(run) => Verdict {
            type_: ConditionType::Accepted,
            holds: Some(true),
            reason: ConditionReason::SpecAccepted,
            message: if run.updates == UpdatePolicy::OnRerun
                && observed.pinned.as_ref().is_some_and(|(_, pinned)| pinned.spec == run.pinned)
            {
                "the spec can be run; its edit of what runs waits for a later rerun.at, because updatePolicy is OnRerun"
                    .to_owned()
            } else {
                "the spec can be run".to_owned()
            },
        },
        Err(refusal) => Verdict {
            type_: ConditionType::Accepted,
            holds: Some(false),
            reason: refusal.reason,
            message: refusal.message.clone(),
        },
    }
}

fn progress(
    status: &ScriptRunnerStatus,
    hindrance: Option<&Refusal>,
    observed: &Observed,
    over: bool,
    halt: Option<Halt>,
) -> Verdict {
    let verdict = |holds, reason, message: String| Verdict {
        type_: ConditionType::Progressing,
        holds: Some(holds),
        reason,
        message,
    };
    if let Some(refusal) = hindrance
        && status.active == 0
    {
        return verdict(false, refusal.reason, "nothing is started until the spec is accepted".to_owned());
    }
    if over {
        return verdict(false, ConditionReason::AllNodesDone, "every desired node is done".to_owned());
    }
    if let Some(halt) = halt {
        let executes = !nothing_executes(status);
        let message = if executes { halt.going_on() } else { halt.ending(status.pending) };
        return verdict(executes, halt.reason(), message);
    }
    if let Some(refusal) = &observed.refusal {
        return verdict(
            true,
            ConditionReason::PodsRefused,
            format!("the API server refuses what the run needs, trying again: {refusal}"),
        );
    }
    if status.run.is_some() && status.desired == 0 {
        return verdict(
            true,
            ConditionReason::NoMatchingNodes,
            "no node matches; nodes that begin to match are run".to_owned(),
        );
    }
    verdict(true, ConditionReason::NodesPending, "nodes are still to be done".to_owned())
}

/// Whether the user holds the run; not said of an object that was never held.
fn suspension(status: &ScriptRunnerStatus, run: Option<&ValidRun>) -> Option<Verdict> {
    let type_ = ConditionType::Suspended;
    let halt = match run?.execution {
        DesiredExecution::Active => {
            find(&status.conditions, type_)?;
            let message = "execution is Active".to_owned();
            return Some(Verdict {
                type_,
                holds: Some(false),
                reason: ConditionReason::NotSuspended,
                message,
            });
        }
        DesiredExecution::Paused => Halt::Paused,
        DesiredExecution::Stopped => Halt::Stopped,
    };
    let is_idle = nothing_executes(status);
    let message = if is_idle { halt.ending(status.pending) } else { halt.going_on() };
    Some(Verdict { type_, holds: Some(true), reason: halt.reason(), message })
}

fn truncation(status: &ScriptRunnerStatus) -> Verdict {
    let type_ = ConditionType::ResultsTruncated;
    match &status.truncation {
        None => Verdict {
            type_,
            holds: Some(false),
            reason: ConditionReason::NothingTruncated,
            message: "every kept result stands in the status".to_owned(),
        },
        Some(cut) => Verdict {
            type_,
            holds: Some(true),
            reason: ConditionReason::StatusSizeLimit,
            message: format!(
                "the size limit of the object cost {} bytes of the results of {} nodes; print less, lower historyLimit, or select fewer nodes",
                cut.bytes, cut.nodes
            ),
        },
    }
}

fn completeness(status: &ScriptRunnerStatus, failures: u32) -> Verdict {
    let reason = if failures > 0 {
        ConditionReason::NodesFailed
    } else if status.succeeded == 0 {
        ConditionReason::AllNodesSkipped
    } else {
        ConditionReason::AllNodesSucceeded
    };
    Verdict { type_: ConditionType::Complete, holds: Some(failures == 0), reason, message: summary(status) }
}

fn failure(status: &ScriptRunnerStatus, failures: u32) -> Verdict {
    Verdict {
        type_: ConditionType::Failed,
        holds: Some(failures > 0),
        reason: if failures == 0 { ConditionReason::NoFailure } else { ConditionReason::NodesFailed },
        message: summary(status),
    }
}

fn summary(status: &ScriptRunnerStatus) -> String {
    let ScriptRunnerStatus { desired, succeeded, failed, skipped, unknown, .. } = status;
    format!(
        "of {desired} nodes {succeeded} succeeded, {failed} failed, {skipped} were skipped, {unknown} are unknown"
    )
}
