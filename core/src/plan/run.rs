//! Whether a spec is accepted, and whether it is a new run. Pure.

use std::borrow::Cow;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use scriptrunner_api::{
    labels,
    pinned::HASH_ALGORITHM,
    reason::ConditionReason,
    v1alpha1::{InterruptionPolicy, NodeState, RecentRun, RunStatus, ScriptRunnerStatus, UpdatePolicy},
};

use super::{Action, Draft, guard, rerun, targets};
use crate::{
    names::config_map_name,
    observed::{MAX_STORED, Observed},
    pod::{PodSettings, build_config_map},
    status::{budget, size::field_bytes},
    validate::{Refusal, Sources, ValidRun, validate},
};

/// Runs kept in `recentRuns`.
const RECENT_RUNS: usize = 10;
/// What started a run: the object was created.
const TRIGGER_CREATED: &str = "Created";
/// What started a run: what runs was edited.
const TRIGGER_SPEC_CHANGED: &str = "SpecChanged";
/// What started a run: `rerun.at` was set to a later time.
pub(super) const TRIGGER_RERUN: &str = "Rerun";
/// What an entry takes to say which run the pod that it waits for goes on with, a run of six digits.
const POD_RUN_BYTES: usize = "\"podRun\":999999,".len();
/// What an entry takes to count further attempts after failures, and after interruptions.
const RETRIES_BYTES: usize = "\"retries\":100,".len();
const INTERRUPTIONS_BYTES: usize = "\"interruptions\":999,".len();
/// What an entry takes to say which run it stands for, one of six digits.
const HELD_FOR_BYTES: usize = "\"heldFor\":999999,".len();

/// The run if nothing outside the spec stands against it: the spec's own or, while an edit of what runs waits for a rerun, the
/// current one with the rest of the spec.
pub(super) fn accept<'a>(
    valid: &'a Result<ValidRun, Refusal>,
    observed: &Observed,
    settings: &PodSettings,
) -> Result<Cow<'a, ValidRun>, Refusal> {
    let run = wanted(valid.as_ref().map_err(Clone::clone)?, observed)?;
    admit(&run, observed, settings)?;
    Ok(run)
}

/// The current run as it is pinned, where the spec is refused for what a ConfigMap that it names holds: it goes on, with the rest of
/// the spec, and no other run begins.
pub(super) fn kept(
    valid: &Result<ValidRun, Refusal>,
    observed: &Observed,
    settings: &PodSettings,
) -> Option<ValidRun> {
    valid.as_ref().err().filter(|refusal| refusal.is_of_inputs())?;
    let current = observed.previous.as_ref()?.run.as_ref()?;
    let (_, pinned) = observed.pinned.as_ref().filter(|(number, _)| *number == current.number)?;
    let mut spec = observed.object.spec.clone();
    (spec.script, spec.script_from) = (Some(pinned.inputs.script.clone()), None);
    if let Some(dependencies) = &mut spec.dependencies {
        dependencies.trusted_ca = None;
    }
    let rest = validate(&spec, &Sources::default()).ok()?;
    let run = ValidRun { rerun: None, ..rest.pinned_to(pinned) };
    admit(&run, observed, settings).ok()?;
    Some(run)
}

/// Whether anything outside the spec stands against the run.
fn admit(run: &ValidRun, observed: &Observed, settings: &PodSettings) -> Result<(), Refusal> {
    let object = &observed.object;
    if run.pinned.mode.is_privileged() && !observed.namespace_privileged {
        let mode = run.pinned.mode.as_str();
        return Err(Refusal {
            reason: ConditionReason::NamespaceNotPrivileged,
            message: format!(
                "mode {mode} runs only in a namespace labelled {}={}; label namespace {:?} (this needs verb use on executionmodes.access.scriptrunner.io), or use mode Normal",
                labels::PRIVILEGED,
                labels::PRIVILEGED_ALLOWED,
                object.namespace
            ),
        });
    }
    // Of what will run, which may be what an older spec said when everything was allowed.
    settings.allowed_images.check(run.pinned.image.as_deref(), &settings.runner_image)?;
    guard::admit(run, observed)?;
    check_size(run, observed)
}

/// What is to run now, by the spec and its update policy.
fn wanted<'a>(run: &'a ValidRun, observed: &Observed) -> Result<Cow<'a, ValidRun>, Refusal> {
    let Some(number) = held_back(run, observed) else { return Ok(Cow::Borrowed(run)) };
    match &observed.pinned {
        Some((of_run, pinned)) if *of_run == number => Ok(Cow::Owned(run.pinned_to(pinned))),
        Some(_) | None => Err(Refusal {
            reason: ConditionReason::InputChanged,
            message: format!(
                "what run {number} is pinned to is lost, and the edited spec waits because updatePolicy is OnRerun; set rerun.at to a later time to run it"
            ),
        }),
    }
}

/// Number of the current run if the spec says that something else runs and that this waits for a rerun.
fn held_back(run: &ValidRun, observed: &Observed) -> Option<u64> {
    let current = observed.previous.as_ref()?.run.as_ref()?;
    let waits = run.updates == UpdatePolicy::OnRerun
        && current.spec_hash != run.spec_hash
        && !asks_for_rerun(run, current);
    waits.then_some(current.number)
}

/// Whether the spec has a later time in `rerun.at` than every one before.
fn asks_for_rerun(run: &ValidRun, current: &RunStatus) -> bool {
    let known = current.rerun_at.as_ref().map(|at| at.0.as_second());
    run.rerun.as_ref().is_some_and(|rerun| known.is_none_or(|known| rerun.at_seconds > known))
}

/// The number of the run after this one. Labels and an edited status may say any number; that of a run is one that can be stored.
fn after(run: u64) -> u64 {
    run.saturating_add(1).min(MAX_STORED)
}

/// Whether even the shortest status of all desired nodes fits beside the spec.
fn check_size(run: &ValidRun, observed: &Observed) -> Result<(), Refusal> {
    let requester = observed.object.requested_by.as_ref().map_or(0, |name| field_bytes("requestedBy", name));
    let other_bytes = observed.object.other_bytes + requester;
    let names = targets::names_at_most(&run.targets, observed);
    let previous = observed.previous.as_ref().and_then(|previous| previous.run.as_ref());
    let number = after(previous.map_or(0, |run| run.number));
    let fits = |names: &[&str]| {
        let parts = names.len() * optional_bytes(run);
        budget::floor_fits(names.iter().copied(), number, run.pinned.executions(), other_bytes + parts)
    };
    if fits(&names) {
        return Ok(());
    }
    if !fits(&[]) {
        let message = format!(
            "the object has {other_bytes} bytes without its status, which leaves no room for one; shorten script, env or args"
        );
        return Err(Refusal { reason: ConditionReason::SpecInvalid, message });
    }
    let message = format!(
        "{} nodes are too many for one object, even with every output left out; select fewer with nodeLabelSelector or nodeSample and use several ScriptRunners",
        names.len()
    );
    Err(Refusal { reason: ConditionReason::TooManyNodes, message })
}

/// What an entry takes, beside what every one has, for what the spec uses.
fn optional_bytes(run: &ValidRun) -> usize {
    let counts_interruptions =
        run.attempts.interruption == InterruptionPolicy::Retry && run.pinned.executions().is_some();
    [
        (run.limits.idle_seconds > 0, POD_RUN_BYTES),
        (run.attempts.backoff_limit > 0, RETRIES_BYTES),
        (counts_interruptions, INTERRUPTIONS_BYTES),
        (run.rerun.is_some(), HELD_FOR_BYTES),
    ]
    .into_iter()
    .filter_map(|(is_used, bytes)| is_used.then_some(bytes))
    .sum()
}

/// What stands against a run although its spec is accepted: its inputs cannot be made, because their name is taken. It is
/// tried again all the same.
pub(super) fn inputs_conflict(observed: &Observed) -> Option<Refusal> {
    let message = observed.config_map_conflict.clone()?;
    Some(Refusal { reason: ConditionReason::InputChanged, message })
}

/// Starts the run that the spec asks for, if it is not the current one. True if the current run is the spec's own and
/// its pinned inputs exist, so that pods may be made.
pub(super) fn advance(
    draft: &mut Draft<'_>,
    run: &ValidRun,
    observed: &Observed,
    actions: &mut Vec<Action>,
) -> bool {
    let object = &observed.object;
    let Some(trigger) = trigger(&draft.status, run, object.generation) else {
        draft.status.accepted_generation = Some(object.generation);
        let current = draft.status.run.as_ref().is_some_and(|current| current.spec_hash == run.spec_hash);
        return current && go_on(draft, run, observed, actions);
    };
    let newest_pod = observed.pods.iter().map(|pod| pod.run).max().unwrap_or(0);
    let before = draft.run_number();
    let number = after(before.max(newest_pod));
    if !inputs_exist(number, run, observed, actions) {
        return false;
    }
    let used = draft.status.run.as_ref().and_then(|run| run.rerun_at.as_ref()).map(|at| at.0);
    let asked = run.rerun.as_ref().and_then(|rerun| Timestamp::from_second(rerun.at_seconds).ok());
    let requested_by = requester(&draft.status, observed);
    close_current_run(&mut draft.status);
    draft.status.run = Some(RunStatus {
        number,
        trigger: trigger.to_owned(),
        spec_hash: run.spec_hash.clone(),
        requested_by,
        script_digest: run.pinned.script_sha256.clone(),
        trusted_ca_digest: run.pinned.trusted_ca_sha256.clone(),
        start_time: Time(draft.now),
        completion_time: None,
        // One that was used is never used again, whatever the spec goes back to.
        rerun_at: used.max(asked).map(Time),
    });
    if let Some(rerun) = run.rerun.as_ref().filter(|_| trigger == TRIGGER_RERUN) {
        rerun::begin(draft, rerun, before, number);
    }
    draft.status.accepted_generation = Some(object.generation);
    true
}

/// True if the pinned inputs of the current run exist, or no pod needs them any more. The spec is not taken as accepted.
pub(super) fn go_on(
    draft: &Draft<'_>,
    run: &ValidRun,
    observed: &Observed,
    actions: &mut Vec<Action>,
) -> bool {
    !needs_inputs(draft, observed) || inputs_exist(draft.run_number(), run, observed, actions)
}

/// What makes the spec a new run: none if it is the current one. An edit together with a rerun is an edit: it is for all nodes.
/// A hash that differs without an edit is another way to count it, unless what a ConfigMap holds is another text.
fn trigger(status: &ScriptRunnerStatus, run: &ValidRun, generation: i64) -> Option<&'static str> {
    let Some(current) = &status.run else { return Some(TRIGGER_CREATED) };
    let same_algorithm = current.spec_hash.split(':').next() == Some(HASH_ALGORITHM);
    let is_edited = same_algorithm && current.spec_hash != run.spec_hash;
    if asks_for_rerun(run, current) {
        return Some(if is_edited { TRIGGER_SPEC_CHANGED } else { TRIGGER_RERUN });
    }
    let has_other_inputs = current.script_digest != run.pinned.script_sha256
        || current.trusted_ca_digest != run.pinned.trusted_ca_sha256;
    (is_edited && (has_other_inputs || status.accepted_generation != Some(generation)))
        .then_some(TRIGGER_SPEC_CHANGED)
}

/// Who asked for the run that begins. Without an edit since the last one it is a ConfigMap that changed, and who changed that is
/// not who wrote the spec.
fn requester(status: &ScriptRunnerStatus, observed: &Observed) -> Option<String> {
    let is_asked_for = status.accepted_generation != Some(observed.object.generation);
    observed.object.requested_by.clone().filter(|_| is_asked_for)
}

/// Whether the run's ConfigMap exists; asks for it otherwise.
fn inputs_exist(number: u64, run: &ValidRun, observed: &Observed, actions: &mut Vec<Action>) -> bool {
    let name = config_map_name(&observed.object.uid, number, &run.spec_hash);
    if observed.config_maps.iter().any(|config_map| config_map.name == name) {
        return true;
    }
    actions.push(Action::CreateConfigMap(Box::new(build_config_map(&observed.object, number, run))));
    false
}

/// Whether a pod of the current run may still be made: a finished run does not get its lost ConfigMap back.
fn needs_inputs(draft: &Draft<'_>, observed: &Observed) -> bool {
    let number = draft.run_number();
    draft.status.nodes.values().any(|entry| entry.run == number && !entry.node_state().is_done())
        || observed.nodes.keys().any(|name| !draft.status.nodes.contains_key(name))
}

fn close_current_run(status: &mut ScriptRunnerStatus) {
    let Some(run) = status.run.take() else { return };
    let count = |state: &[NodeState]| {
        let entries = status
            .nodes
            .values()
            .filter(|entry| entry.is_in(run.number) && state.contains(&entry.node_state()));
        u32::try_from(entries.count()).unwrap_or(u32::MAX)
    };
    let recent = RecentRun {
        number: run.number,
        trigger: run.trigger.clone(),
        start_time: run.start_time.clone(),
        completion_time: run.completion_time.clone(),
        desired: count(&NodeState::ALL),
        succeeded: count(&[NodeState::Succeeded]),
        failed: count(&[NodeState::Failed, NodeState::Stopped]),
        skipped: count(&[NodeState::Skipped]),
        unknown: count(&[NodeState::Unknown]),
    };
    status.recent_runs.insert(0, recent);
    status.recent_runs.truncate(RECENT_RUNS);
    status.truncation = None;
}

/// Name of the ConfigMap of the current run, and of the run that is about to start.
pub(super) fn wanted_config_maps(
    draft: &Draft<'_>,
    run: Option<&ValidRun>,
    observed: &Observed,
) -> Vec<String> {
    let uid = &observed.object.uid;
    let current =
        draft.status.run.as_ref().map(|current| config_map_name(uid, current.number, &current.spec_hash));
    let newest_pod = observed.pods.iter().map(|pod| pod.run).max().unwrap_or(0);
    let next = run.map(|run| config_map_name(uid, after(draft.run_number().max(newest_pod)), &run.spec_hash));
    current.into_iter().chain(next).collect()
}
