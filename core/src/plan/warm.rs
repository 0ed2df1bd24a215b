//! Runs that go on in pods which are there already: which runner may be ordered to go on, what it is told, and when it is no
//! longer waited for. Pure.
//!
//! **Invariant:** an order is given only once the status that assigns the pod to the run is stored. So whoever comes after a
//! crash knows which pods may execute the run, and starts nothing beside them.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    session::RunOrder,
    snapshot::Record,
    v1alpha1::{NodeState, NodeStatus},
};

use super::{
    Action, Draft, entry,
    runners::{Part, Runner, Runners},
};
use crate::{
    observed::{ContainerFacts, Observed, Presence},
    pod::{PodSettings, shape},
    validate::ValidRun,
};

/// How soon an order is looked after that nothing was heard of yet.
const NEXT_LOOK: SignedDuration = SignedDuration::from_secs(1);

/// What a runner must be to go on with the current run.
pub(super) struct Warm {
    run: u64,
    pub(super) shape: String,
    patience: SignedDuration,
    since: Timestamp,
    now: Timestamp,
}

/// Whether a runner can be ordered to go on with the current run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It waits for an order.
    Ready,
    /// It may be ready by then; it is waited for.
    Coming(Timestamp),
    /// It cannot, or not soon.
    Never,
}

impl Warm {
    /// None if runners of the run do not stay.
    pub(super) fn of(
        draft: &Draft<'_>,
        run: &ValidRun,
        observed: &Observed,
        settings: &PodSettings,
    ) -> Option<Self> {
        Some(Self {
            run: draft.run_number(),
            shape: shape(&observed.object, run, settings)?,
            patience: SignedDuration::from_secs(i64::from(settings.times.reconnect_seconds)),
            since: observed.since,
            now: draft.now,
        })
    }

    /// Whether the pod's runner can be ordered to go on.
    pub(super) fn readiness(&self, runner: &Runner<'_>) -> Readiness {
        let pod = runner.pod;
        let is_fit = pod.shape == self.shape && pod.run < self.run && is_up(runner);
        if !is_fit {
            return Readiness::Never;
        }
        if let Some(since) = runner.missed_since(self.since) {
            return self.coming(since);
        }
        match runner.newest_snapshot() {
            // It is here again and has not said yet where it stands.
            None => self.coming(self.since),
            Some(newest) if newest.record.run >= self.run || !waits(&newest.record) => Readiness::Never,
            // It waits to hear that its answer is stored.
            Some(newest) if !newest.history.is_empty() => Readiness::Coming(later(self.now, NEXT_LOOK)),
            Some(_) => Readiness::Ready,
        }
    }

    fn coming(&self, since: Timestamp) -> Readiness {
        let until = later(since, self.patience);
        if until > self.now { Readiness::Coming(until) } else { Readiness::Never }
    }

    /// The only runner of the node that has not ended, with its readiness, if it can go on now or soon.
    pub(super) fn candidate<'r, 'a>(
        &self,
        node_entry: &NodeStatus,
        runners: &'r [Runner<'a>],
    ) -> Option<(&'r Runner<'a>, Readiness)> {
        let mut up = runners.iter().filter(|runner| !runner.pod.has_ended());
        let only = up.next().filter(|runner| runner.pod.node_id == node_entry.node_id)?;
        let readiness = self.readiness(only);
        (up.next().is_none() && readiness != Readiness::Never).then_some((only, readiness))
    }
}

fn later(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// Whether the pod's container runs, and nobody is about to end it.
fn is_up(runner: &Runner<'_>) -> bool {
    let pod = runner.pod;
    pod.presence == Presence::Present
        && !pod.deleting
        && pod.phase != "Failed"
        && pod.container == ContainerFacts::Running
}

/// Whether a runner that said this waits for an order, once it knows that everything is stored: it did all that it was to do.
/// One that could not ends.
pub(super) fn waits(record: &Record) -> bool {
    match NodeState::parse(&record.state) {
        NodeState::Succeeded | NodeState::Skipped => true,
        NodeState::Failed => !matches!(
            NodeReason::parse(&record.reason),
            Some(
                NodeReason::RunnerFailed
                    | NodeReason::DependencyInstallFailed
                    | NodeReason::InputTampered
                    | NodeReason::NotExecuted
            )
        ),
        NodeState::Pending
        | NodeState::Starting
        | NodeState::Running
        | NodeState::Stopped
        | NodeState::Unknown => false,
    }
}

/// Whether the pod only waits for further runs, as far as that is known.
pub(super) fn is_idle(runner: &Runner<'_>, node_entry: &NodeStatus) -> bool {
    let part = runner.part;
    !runner.pod.shape.is_empty()
        && node_entry.node_id == runner.pod.node_id
        && !runner.is_named_by(node_entry)
        && ((node_entry.node_state().is_done()
            && (part.run, part.attempt) == (node_entry.run, node_entry.attempts))
            || runner.newest_snapshot().is_some_and(|newest| waits(&newest.record)))
}

/// An entry of a newer run that waits for the end of a pod says which run that one was ordered to go on with.
pub(super) fn keep_parts(draft: &mut Draft<'_>, runners: &Runners<'_>) {
    for runner in runners.all().iter().filter(|runner| runner.ordered().is_some()) {
        if let Some(node_entry) = draft.status.nodes.get_mut(&runner.pod.node)
            && node_entry.node_state() == NodeState::Pending
            && runner.is_named_by(node_entry)
        {
            node_entry.pod_run = runner.part.run;
        }
    }
}

/// The orders to give now: to every runner that is assigned to the run and was not heard of it. One that cannot be reached
/// is given up.
pub(super) fn orders(
    draft: &mut Draft<'_>,
    run: &ValidRun,
    observed: &Observed,
    runners: &Runners<'_>,
    settings: &PodSettings,
) -> Vec<Action> {
    let (number, now) = (draft.run_number(), draft.now);
    let patience = SignedDuration::from_secs(i64::from(settings.times.reconnect_seconds));
    let deadline = SignedDuration::from_secs(i64::from(run.limits.start_deadline_seconds));
    let (mut looks, mut actions) = (Vec::new(), Vec::new());
    let mut walk = runners.walk();
    let mut order = None;
    let entries = draft.status.nodes.iter_mut().filter(|(_, node_entry)| node_entry.run == number);
    for (name, node_entry) in entries.filter(|(_, node_entry)| is_assigned(node_entry)) {
        let of_entry = Part { run: number, attempt: node_entry.attempts };
        let unheard = walk
            .on(name)
            .iter()
            .filter(|runner| runner.is_named_by(node_entry) && runner.ordered() == Some(of_entry))
            .find(|runner| runner.live().is_none() && is_up(runner));
        let Some(runner) = unheard else { continue };
        let (since, patience, message) = match runner.missed_since(observed.since) {
            Some(since) => (Some(since), patience, "the idle runner is not connected"),
            None => (runner.ordered_at(number), deadline, "the idle runner does not take its order"),
        };
        if since.is_some_and(|since| later(since, patience) <= now) {
            entry::give_up_order(node_entry, message);
            continue;
        }
        looks.push(later(now, NEXT_LOOK));
        if runner.is_connected() {
            let order = shared(&mut order, run, number, Numbers::of(run, node_entry));
            let (node, pod_uid) = (name.clone(), runner.pod.uid.clone());
            actions.push(Action::SendRun { node, pod_uid, order });
        }
    }
    for look in looks {
        draft.look_again_at(look);
    }
    actions
}

fn is_assigned(node_entry: &NodeStatus) -> bool {
    node_entry.node_state() == NodeState::Starting
        && !entry::has_given_up_order(node_entry)
        && !entry::is_to_stop(node_entry)
}

/// The numbers of an order: all that can differ between two nodes of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Numbers {
    attempt: u32,
    first_serial: u64,
    remaining: u64,
}

impl Numbers {
    fn of(run: &ValidRun, node_entry: &NodeStatus) -> Self {
        // A run that is sent to idle runners is not endless.
        let total = run.pinned.executions().unwrap_or(1);
        Self {
            attempt: node_entry.attempts,
            first_serial: node_entry.serial.saturating_add(1),
            remaining: total.saturating_sub(node_entry.serial).max(1),
        }
    }
}

/// The order; the one before if it is the same, because its texts may be long and its nodes many.
fn shared(
    before: &mut Option<(Numbers, Arc<RunOrder>)>,
    run: &ValidRun,
    number: u64,
    numbers: Numbers,
) -> Arc<RunOrder> {
    if let Some((_, known)) = before.as_ref().filter(|(known, _)| *known == numbers) {
        return known.clone();
    }
    let limits = run.limits;
    let made = Arc::new(RunOrder {
        run: number,
        attempt: numbers.attempt,
        first_serial: numbers.first_serial,
        remaining: numbers.remaining,
        spec: run.pinned.canonical_json(),
        script: run.inputs.script.clone(),
        history_limit: limits.history as usize,
        stdout_limit_bytes: limits.stdout_bytes as usize,
        stderr_limit_bytes: limits.stderr_bytes as usize,
        grace_seconds: limits.grace_seconds,
        execution_deadline_seconds: limits.execution_deadline_seconds,
    });
    *before = Some((numbers, made.clone()));
    made
}
