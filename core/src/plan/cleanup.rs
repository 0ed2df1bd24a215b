//! Which children are surplus: pods whose outcome is stored, pods of older runs, ConfigMaps of runs that are over. Pure.

use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus},
};

use super::{Action, Draft, entry, run, runners::Runners};
use crate::{
    in_step::InStep,
    observed::{ContainerFacts, Observed, PodFacts, Presence},
    validate::ValidRun,
};

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
) -> Vec<Action> {
    let Some(stored) = &observed.previous else { return Vec::new() };
    let Some(stored_run) = &stored.run else { return Vec::new() };
    let mut entries = InStep::new(&stored.nodes);
    let mut actions: Vec<Action> = runners
        .all()
        .iter()
        .map(|runner| runner.pod)
        .filter(|pod| is_deletable(pod))
        .filter_map(|pod| Some(delete(pod, why_surplus(pod, stored_run.number, entries.get(&pod.node))?)))
        .collect();
    let wanted = run::wanted_config_maps(draft, accepted, observed);
    let older_pods =
        observed.pods.iter().any(|pod| pod.run < stored_run.number && pod.presence != Presence::Gone);
    if !older_pods {
        let surplus = observed.config_maps.iter().filter(|config_map| !wanted.contains(&config_map.name));
        actions.extend(surplus.map(|config_map| Action::DeleteConfigMap {
            name: config_map.name.clone(),
            uid: config_map.uid.clone(),
        }));
    }
    actions
}

fn is_deletable(pod: &PodFacts) -> bool {
    pod.presence == Presence::Present && !pod.deleting
}

fn delete(pod: &PodFacts, why: &'static str) -> Action {
    Action::DeletePod { name: pod.name.clone(), uid: pod.uid.clone(), why }
}

/// Why a pod is surplus by what is stored; none if it is still needed or its outcome is not stored yet.
fn why_surplus(pod: &PodFacts, stored_run: u64, stored: Option<&NodeStatus>) -> Option<&'static str> {
    let Some(stored) = stored.filter(|stored| stored.node_id == pod.node_id) else {
        return (pod.run < stored_run || pod.has_ended()).then_some("its node is no longer part of the run");
    };
    let is_named = stored.pod_id.as_ref() == Some(&pod.id);
    if pod.run < stored_run {
        // A named pod that has ended first has its end stored.
        return (!is_named || !pod.has_ended()).then_some("a newer run came first");
    }
    if pod.run > stored.run || is_named {
        return None;
    }
    if pod.attempt < stored.attempts {
        return Some("a newer attempt replaced it");
    }
    if pod.attempt > stored.attempts {
        return None;
    }
    match stored.node_state() {
        NodeState::Succeeded | NodeState::Stopped | NodeState::Skipped | NodeState::Unknown => {
            Some("its outcome is stored")
        }
        // A failed script's pod is kept for a look, until the next run.
        NodeState::Failed => (!is_worth_a_look(pod, stored)).then_some("it did not start in time"),
        NodeState::Pending => {
            (entry::reason(stored) != Some(NodeReason::NameConflict)).then_some("another pod replaces it")
        }
        // An endless repetition: kept until the next pod exists, because it holds the time of its start.
        NodeState::Running | NodeState::Starting => None,
    }
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
