//! What to do next, as data: from everything observed at one moment to the actions, the status and when to look again. Pure.
//!
//! **Invariant:** every decision to create or delete a pod rests on what is *stored* in the status, never on what this
//! process just learned. So a crash between any two API calls loses nothing and repeats nothing: the next process sees the
//! same stored facts and decides the same.

mod attempts;
mod cleanup;
mod entry;
mod expiry;
mod guard;
mod hung;
mod pacing;
mod rerun;
mod run;
mod runners;
mod settle;
mod suspension;
mod targets;
mod warm;

pub use pacing::MOST_CREATIONS;
pub(crate) use targets::TOLERATED_TAINTS;

use std::{borrow::Cow, sync::Arc};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    jiff::Timestamp,
};
use scriptrunner_api::{
    session::{Ack, RunOrder},
    v1alpha1::{NodeStatus, ScriptRunnerStatus},
};

use self::{
    runners::{Heard, Runners},
    warm::Warm,
};
use crate::{
    observed::Observed,
    pod::PodSettings,
    status::{self, groups::Answers, verdict::Judged},
    validate::{Refusal, ValidRun},
};

/// One write to a child, performed by the operator's `apply`.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the ConfigMap that a run is pinned in.
    CreateConfigMap(Box<ConfigMap>),
    /// Delete the ConfigMap of a run that is over.
    DeleteConfigMap {
        /// Name.
        name: String,
        /// UID, a precondition of the deletion.
        uid: String,
    },
    /// Create the pod of a node.
    CreatePod {
        /// Name of the node.
        node: String,
        /// The pod.
        pod: Box<Pod>,
    },
    /// Tell the idle runner of a pod to go on with the current run. Doing it again changes nothing.
    SendRun {
        /// Name of the node.
        node: String,
        /// UID of the pod.
        pod_uid: String,
        /// What it is told.
        order: Arc<RunOrder>,
    },
    /// Tell the runner of a pod that repeats to end after its current execution. Doing it again changes nothing.
    HandOver {
        /// Name of the node.
        node: String,
        /// UID of the pod.
        pod_uid: String,
    },
    /// Delete a pod.
    DeletePod {
        /// Name.
        name: String,
        /// UID, a precondition of the deletion.
        uid: String,
        /// Why, for the log.
        why: &'static str,
        /// Whether nothing waits for its end: what it did is stored, or it has ended.
        is_over: bool,
    },
    /// Delete the ScriptRunner itself, if it is still what was looked at.
    DeleteObject {
        /// UID, a precondition of the deletion.
        uid: String,
        /// resourceVersion, another one.
        resource_version: String,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Writes to children, in this order; at most [`MOST_CREATIONS`] pods to create, however many there are to be.
    pub actions: Vec<Action>,
    /// The status that is true now; none if it must not be touched.
    pub status: Option<ScriptRunnerStatus>,
    /// Newest answers of the nodes, to be remembered until the next plan: the status may have no room for them.
    pub answers: Answers,
    /// Snapshots of sessions that the status contains: to be acknowledged once it is stored.
    pub taken: Vec<Taken>,
    /// When to look again even if nothing changes.
    pub next: Option<Timestamp>,
    /// Whether pods are held back because there is no room for more that wait for the scheduler.
    pub awaits_room: bool,
}

/// A snapshot that a status contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// UID of the pod whose session brought it.
    pub pod_uid: String,
    /// Which snapshot.
    pub ack: Ack,
}

/// What to do now, before the status is put together: of thousands of nodes that takes longer than all else.
pub struct Steps<'a> {
    /// As in [`Plan`].
    pub actions: Vec<Action>,
    /// As in [`Plan`].
    pub next: Option<Timestamp>,
    /// None if the status must not be touched.
    rest: Option<Rest<'a>>,
}

/// What the status is put together from.
struct Rest<'a> {
    draft: Draft<'a>,
    accepted: Result<Cow<'a, ValidRun>, Refusal>,
    /// The run that goes on although the spec is refused.
    kept: Option<ValidRun>,
    observed: &'a Observed,
}

/// Decides everything. `valid` is the outcome of [`crate::validate::validate`] for the observed spec.
pub fn plan(
    valid: &Result<ValidRun, Refusal>,
    observed: &Observed,
    settings: &PodSettings,
    now: Timestamp,
) -> Plan {
    steps(valid, observed, settings, now).with_status()
}

/// Decides what to do now, as [`plan`] does.
pub fn steps<'a>(
    valid: &'a Result<ValidRun, Refusal>,
    observed: &'a Observed,
    settings: &PodSettings,
    now: Timestamp,
) -> Steps<'a> {
    if observed.object.deleting {
        return Steps { actions: cleanup::delete_everything(observed), next: None, rest: None };
    }
    let runners = Runners::of(observed);
    let mut draft = Draft::new(observed, now);
    settle::settle(&mut draft, observed, &runners);
    let accepted = run::accept(valid, observed, settings);
    let kept = run::kept(valid, observed, settings);
    let run = accepted.as_deref().ok().or(kept.as_ref());
    let (mut actions, mut idle) = (Vec::new(), None);
    if let Some(run) = run {
        // Before a newer run begins, which may leave their nodes out.
        targets::admit_unrecorded(&mut draft, observed, &runners);
        let pinned = if kept.is_some() {
            run::go_on(&draft, run, observed, &mut actions)
        } else {
            run::advance(&mut draft, run, observed, &mut actions)
        };
        if pinned {
            attempts::go_on(&mut draft, run, observed);
            suspension::apply(&mut draft, run);
            suspension::enforce_deadline(&mut draft, run);
            actions.extend(suspension::hand_overs(&draft, run, &runners));
            targets::judge(&mut draft, run, observed, &runners);
            settle::enforce_start_deadlines(&mut draft, run, observed, &runners);
            hung::give_up(&mut draft, run, observed, &runners, settings);
            actions.extend(warm::orders(&mut draft, run, observed, &runners, settings));
            warm::keep_parts(&mut draft, &runners);
            idle = Warm::of(&draft, run, observed, settings);
            actions.extend(pacing::start(&mut draft, run, observed, &runners, settings, idle.as_ref()));
        }
    }
    actions.extend(cleanup::surplus(&mut draft, observed, &runners, settings, run, idle.as_ref()));
    // While an edit waits for its inputs, the object has not ended.
    actions.extend(expiry::delete(&mut draft, accepted.as_deref().ok(), observed));
    draft.status.connected = runners.connected(&draft.status);
    Steps { actions, next: draft.next, rest: Some(Rest { draft, accepted, kept, observed }) }
}

impl Steps<'_> {
    /// The plan that they are part of.
    pub fn with_status(self) -> Plan {
        let Self { actions, next, rest } = self;
        let Some(Rest { draft, accepted, kept, observed }) = rest else {
            return Plan {
                actions,
                status: None,
                answers: Answers::new(),
                taken: Vec::new(),
                next,
                awaits_room: false,
            };
        };
        let held = |run: &Cow<'_, ValidRun>| guard::standing_refusal(run, observed);
        let standing = accepted.as_ref().ok().and_then(held).or_else(|| run::inputs_conflict(observed));
        let (accepted, kept) = match standing {
            Some(refusal) => (accepted.and(Err(refusal)), None),
            None => (accepted, kept),
        };
        let judged = Judged { accepted: accepted.as_deref().map_err(Clone::clone), kept: kept.as_ref() };
        let Draft { status, heard, now, awaits_room, .. } = draft;
        let (status, answers) = status::verdict::assemble(status, &judged, observed, now);
        let taken = runners::taken(&heard, &status.nodes);
        Plan { actions, status: Some(status), answers, taken, next, awaits_room }
    }
}

/// The status while it is being brought up to date.
struct Draft<'a> {
    status: ScriptRunnerStatus,
    /// Snapshots that its entries contain.
    heard: Vec<Heard<'a>>,
    now: Timestamp,
    next: Option<Timestamp>,
    /// Whether pods are held back for want of [`Observed::unbound_room`].
    awaits_room: bool,
    history_limit: usize,
}

impl Draft<'_> {
    fn new(observed: &Observed, now: Timestamp) -> Self {
        let mut status = observed.previous.as_deref().cloned().unwrap_or_default();
        if status.object_uid.as_deref() != Some(observed.object.uid.as_str()) {
            // A status from a backup: what it says of nodes is honoured, what it says of generations is of another object.
            status.accepted_generation = None;
            status.object_uid = Some(observed.object.uid.clone());
        }
        let history_limit =
            observed.object.spec.history_limit.unwrap_or(scriptrunner_api::v1alpha1::DEFAULT_HISTORY_LIMIT);
        Self {
            status,
            heard: Vec::new(),
            now,
            next: None,
            awaits_room: false,
            history_limit: history_limit.clamp(1, 100) as usize,
        }
    }

    /// Number of the current run; 0 before the first.
    fn run_number(&self) -> u64 {
        self.status.run.as_ref().map_or(0, |run| run.number)
    }

    /// Looks again at `when` at the latest.
    fn look_again_at(&mut self, when: Timestamp) {
        self.next = Some(self.next.map_or(when, |next| next.min(when)));
    }
}

/// The stored entry of a node, if the stored status is of the given run.
fn stored_entry<'a>(observed: &'a Observed, run: u64, node: &str) -> Option<&'a NodeStatus> {
    let previous = observed.previous.as_ref()?;
    (previous.run.as_ref()?.number == run).then(|| previous.nodes.get(node))?
}

#[cfg(test)]
mod tests;
