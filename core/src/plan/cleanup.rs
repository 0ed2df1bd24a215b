//! Which children are surplus: pods whose outcome is stored, pods of older runs, ConfigMaps of runs that are over. Pure.

use std::collections::BTreeSet;

use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus},
};

use super::{
    Action, Draft, entry, run,
    runners::{Runner, Runners},
    warm::{Readiness, Warm, is_idle},
};
use crate::{
    in_step::InStep,
    observed::{ContainerFacts, Observed, PodFacts, Presence},
    validate::ValidRun,
};

/// A runner whose outcome is stored ends by itself, if it has not yet.
const STORED: &str = "its outcome is stored";

/// Every pod: the object is being deleted, and the garbage collector takes its time.
pub(super) fn delete_everything(observed: &Observed) -> Vec<Action> {
    observed
        .pods
        .iter()
        .filter(|pod| is_deletable(pod))
        .map(|pod| delete(pod, "the ScriptRunner is being deleted"))
        .collect()
}

/// Pods and ConfigMaps that nothing needs any more, judged by the stored status alone.
pub(super) fn surplus(
    draft: &Draft<'_>,
    observed: &Observed,
    runners: &Runners<'_>,
    accepted: Option<&ValidRun>,
    warm: Option<&Warm>,
) -> Vec<Action> {
    let Some(stored) = &observed.previous else { return Vec::new() };
    let Some(stored_run) = &stored.run else { return Vec::new() };
    let mut entries = InStep::new(&stored.nodes);
    let mut actions: Vec<Action> = runners
        .all()
        .iter()
        .filter(|runner| is_deletable(runner.pod))
        .filter_map(|runner| {
            let stored = entries.get(&runner.pod.node);
            Some(delete(runner.pod, why_surplus(runner, stored_run.number, stored, warm)?))
        })
        .collect();
    let wanted = run::wanted_config_maps(draft, accepted, observed);
    let used: BTreeSet<u64> =
        observed.pods.iter().filter(|pod| pod.presence != Presence::Gone).map(|pod| pod.run).collect();
    let surplus = observed
        .config_maps
        .iter()
        .filter(|config_map| !wanted.contains(&config_map.name) && !used.contains(&config_map.run));
    actions.extend(surplus.map(|config_map| Action::DeleteConfigMap {
        name: config_map.name.clone(),
        uid: config_map.uid.clone(),
    }));
    actions
}

fn is_deletable(pod: &PodFacts) -> bool {
    pod.presence == Presence::Present && !pod.deleting
}

fn delete(pod: &PodFacts, why: &'static str) -> Action {
    let is_over = pod.has_ended() || why == STORED;
    Action::DeletePod { name: pod.name.clone(), uid: pod.uid.clone(), why, is_over }
}

/// Why a pod is surplus by what is stored; none if it is still needed or its outcome is not stored yet.
fn why_surplus(
    runner: &Runner<'_>,
    stored_run: u64,
    stored: Option<&NodeStatus>,
    warm: Option<&Warm>,
) -> Option<&'static str> {
    let (pod, part) = (runner.pod, runner.part);
    let Some(stored) = stored.filter(|stored| stored.node_id == pod.node_id) else {
        return (part.run < stored_run || pod.has_ended()).then_some("its node is no longer part of the run");
    };
    let is_named = runner.is_named_by(stored);
    if part.run < stored_run {
        if is_awaited(runner, stored, stored_run, warm) {
            return None;
        }
        // A named pod that has ended first has its end stored.
        return (!is_named || !pod.has_ended()).then_some("a newer run came first");
    }
    if is_named {
        if entry::is_to_stop(stored) {
            return Some("execution is Stopped");
        }
        let is_given_up = entry::has_given_up_order(stored) && runner.live().is_none();
        return is_given_up.then_some("its idle runner was not reached");
    }
    if part.run > stored.run {
        return None;
    }
    if part.attempt < stored.attempts {
        return Some("a newer attempt replaced it");
    }
    if part.attempt > stored.attempts {
        return None;
    }
    match stored.node_state() {
        // Its runner ends by itself when its idle time is over.
        NodeState::Succeeded if is_idle(runner, stored) && !pod.has_ended() => None,
        NodeState::Succeeded | NodeState::Stopped | NodeState::Skipped | NodeState::Unknown => Some(STORED),
        // A failed script's pod is kept for a look, until the next run.
        NodeState::Failed => (!is_worth_a_look(pod, stored)).then_some("it did not start in time"),
        NodeState::Pending => {
            (entry::reason(stored) != Some(NodeReason::NameConflict)).then_some("another pod replaces it")
        }
        // An endless repetition: kept until the next pod exists, because it holds the time of its start.
        NodeState::Running | NodeState::Starting => None,
    }
}

/// Whether the pod's runner may yet go on with the current run, for which its node waits.
fn is_awaited(runner: &Runner<'_>, stored: &NodeStatus, stored_run: u64, warm: Option<&Warm>) -> bool {
    stored.run == stored_run
        && stored.node_state() == NodeState::Pending
        && stored.pod_id.is_none()
        && warm.is_some_and(|warm| warm.readiness(runner) != Readiness::Never)
}

/// Whether the failed pod's container ended, or will because its runner said so over its session.
fn is_worth_a_look(pod: &PodFacts, stored: &NodeStatus) -> bool {
    match pod.container {
        ContainerFacts::Terminated { .. } => true,
        ContainerFacts::Running => !entry::has_given_up(stored),
        // A reason that is not there was cut: better no look than a script that starts late.
        ContainerFacts::Absent | ContainerFacts::Waiting { .. } => {
            entry::reason(stored).is_some_and(|reason| reason != NodeReason::PodRefused)
                && !entry::has_given_up(stored)
        }
    }
}
