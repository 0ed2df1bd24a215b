//! Which children are surplus: pods whose outcome is stored, pods of older runs, ConfigMaps of runs that are over. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus, PodCleanupPolicy},
};

use super::{
    Action, Draft,
    attempts::ended_at,
    entry, run,
    runners::{Runner, Runners},
    warm::{Readiness, Warm, is_idle},
};
use crate::{
    in_step::InStep,
    observed::{ContainerFacts, Observed, PodFacts, Presence},
    pod::PodSettings,
    validate::ValidRun,
};

/// A runner whose outcome is stored ends by itself, if it has not yet.
const STORED: &str = "its outcome is stored";

/// Nothing is known of the pod's node that is of the pod's run.
const LEFT: &str = "its node is no longer part of the run";

/// Another Node has the name of the pod's, and waits for the pod to be gone.
const REPLACED: &str = "its node was replaced by another of the same name";

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
    draft: &mut Draft<'_>,
    observed: &Observed,
    runners: &Runners<'_>,
    settings: &PodSettings,
    accepted: Option<&ValidRun>,
    warm: Option<&Warm>,
) -> Vec<Action> {
    let Some(stored) = &observed.previous else { return Vec::new() };
    let Some(stored_run) = &stored.run else { return Vec::new() };
    let rules = Rules {
        run: stored_run.number,
        policy: observed.object.spec.pod_cleanup_policy.unwrap_or_default(),
        kept: SignedDuration::from_secs(i64::from(settings.times.kept_pod_seconds)),
        now: draft.now,
        warm,
    };
    let (mut entries, mut nodes) = (InStep::new(&stored.nodes), InStep::new(&observed.nodes));
    let mut actions = Vec::new();
    for runner in runners.all().iter().filter(|runner| is_deletable(runner.pod)) {
        let stored = entries.get(&runner.pod.node).filter(|stored| stored.node_id == runner.pod.node_id);
        if stored.is_none() && is_unrecorded(runner, draft) {
            continue;
        }
        let is_replaced = nodes.get(&runner.pod.node).is_some_and(|node| node.id != runner.pod.node_id);
        if stored.is_none() && is_replaced {
            actions.push(delete(runner.pod, REPLACED));
            continue;
        }
        if stored.is_some_and(|stored| brings_late_answer(runner, stored, draft)) {
            continue;
        }
        if stored.is_some_and(|stored| has_left(runner, stored, draft)) {
            actions.push(delete(runner.pod, LEFT));
            continue;
        }
        match rules.judge(runner, stored) {
            Fate::Surplus(why) => actions.push(delete(runner.pod, why)),
            Fate::KeptUntil(when) => draft.look_again_at(when),
            Fate::Needed => {}
        }
    }
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

/// Whether the pod was made before anything was stored of its node, which came late: what became of it is stored first.
fn is_unrecorded(runner: &Runner<'_>, draft: &Draft<'_>) -> bool {
    let drafted = draft.status.nodes.get(&runner.pod.node);
    drafted.is_some_and(|entry| entry.node_id == runner.pod.node_id && runner.is_named_by(entry))
}

/// Whether the pod's node left the run before the pod started, so that its entry is that of an older run again.
fn has_left(runner: &Runner<'_>, stored: &NodeStatus, draft: &Draft<'_>) -> bool {
    let drafted = draft.status.nodes.get(&runner.pod.node);
    stored.run < runner.part.run && drafted.is_none_or(|drafted| drafted.run < runner.part.run)
}

/// Whether the pod has ended after all and answered, after its node had been given up: the answer is stored first.
fn brings_late_answer(runner: &Runner<'_>, stored: &NodeStatus, draft: &Draft<'_>) -> bool {
    let what = |entry: &NodeStatus| (entry.state.clone(), entry.reason.clone(), entry.serial);
    runner.pod.has_ended()
        && entry::awaits_answer(stored)
        && (runner.part.run, runner.part.attempt) == (stored.run, stored.attempts)
        && draft.status.nodes.get(&runner.pod.node).is_some_and(|drafted| {
            (drafted.run, drafted.attempts) == (stored.run, stored.attempts) && what(drafted) != what(stored)
        })
}

/// What becomes of a pod.
enum Fate {
    /// It is deleted, for this reason.
    Surplus(&'static str),
    /// It is kept for a look until then.
    KeptUntil(Timestamp),
    /// Its outcome is not stored yet, or something depends on it.
    Needed,
}

/// What is the same for every pod.
struct Rules<'a> {
    /// The stored run.
    run: u64,
    /// Which ended pods are deleted.
    policy: PodCleanupPolicy,
    /// How long a failed pod is kept.
    kept: SignedDuration,
    now: Timestamp,
    warm: Option<&'a Warm>,
}

impl Rules<'_> {
    /// Judges a pod by what is stored of its node, if anything is.
    fn judge(&self, runner: &Runner<'_>, stored: Option<&NodeStatus>) -> Fate {
        let (pod, part) = (runner.pod, runner.part);
        let Some(stored) = stored else {
            let is_out = part.run < self.run || pod.has_ended();
            return if is_out { Fate::Surplus(LEFT) } else { Fate::Needed };
        };
        if part.run < self.run {
            return self.judge_older(runner, stored);
        }
        if runner.is_named_by(stored) {
            // One that has ended, told to or not, first has its end stored.
            if pod.has_ended() {
                return Fate::Needed;
            }
            if let Some(stop) = entry::stop_of(stored) {
                return Fate::Surplus(stop.cause());
            }
            let is_given_up = entry::has_given_up_order(stored) && runner.live().is_none();
            return if is_given_up { Fate::Surplus("its idle runner was not reached") } else { Fate::Needed };
        }
        if part.run > stored.run || part.attempt > stored.attempts {
            return Fate::Needed;
        }
        if part.attempt < stored.attempts {
            return Fate::Surplus("a newer attempt replaced it");
        }
        self.judge_newest(runner, stored)
    }

    /// Judges a pod of an older run.
    fn judge_older(&self, runner: &Runner<'_>, stored: &NodeStatus) -> Fate {
        // A named pod that has ended first has its end stored.
        let waits_for_store = runner.is_named_by(stored) && runner.pod.has_ended();
        if waits_for_store || is_awaited(runner, stored, self.run, self.warm) {
            return Fate::Needed;
        }
        Fate::Surplus("a newer run came first")
    }

    /// Judges the pod of the entry's own attempt, whose outcome is stored.
    fn judge_newest(&self, runner: &Runner<'_>, stored: &NodeStatus) -> Fate {
        let pod = runner.pod;
        match stored.node_state() {
            // Its runner ends by itself when its idle time is over.
            NodeState::Succeeded | NodeState::Skipped if is_idle(runner, stored) && !pod.has_ended() => {
                Fate::Needed
            }
            NodeState::Succeeded | NodeState::Stopped | NodeState::Skipped | NodeState::Unknown => {
                // One that was given up may still be at work; any other ends by itself, if it has not yet.
                let is_ending = pod.has_ended() || !entry::has_given_up(stored);
                let is_kept = self.policy == PodCleanupPolicy::Never && is_ending;
                if is_kept { Fate::Needed } else { Fate::Surplus(STORED) }
            }
            NodeState::Failed => self.judge_failed(runner, stored),
            NodeState::Pending => match entry::reason(stored) {
                Some(NodeReason::NameConflict) => Fate::Needed,
                // Kept until the next attempt: it can be looked at, and says when it ended.
                Some(NodeReason::BackingOff)
                    if pod.has_ended() && self.policy != PodCleanupPolicy::Always =>
                {
                    Fate::Needed
                }
                Some(_) | None => Fate::Surplus("another pod replaces it"),
            },
            // An endless repetition: kept until the next pod exists, because it holds the time of its start.
            NodeState::Running | NodeState::Starting => Fate::Needed,
        }
    }

    /// Judges the pod of a failed node: it is kept for a look, but not for ever.
    fn judge_failed(&self, runner: &Runner<'_>, stored: &NodeStatus) -> Fate {
        if !is_worth_a_look(runner.pod, stored) {
            return Fate::Surplus("it did not start in time");
        }
        match self.policy {
            PodCleanupPolicy::Never => Fate::Needed,
            PodCleanupPolicy::Always => Fate::Surplus(STORED),
            PodCleanupPolicy::OnSuccess => {
                let Some(ended) = ended_at(runner) else { return Fate::Needed };
                let until = ended.saturating_add(self.kept).unwrap_or(Timestamp::MAX);
                if until > self.now {
                    Fate::KeptUntil(until)
                } else {
                    Fate::Surplus("it was kept long enough")
                }
            }
        }
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
