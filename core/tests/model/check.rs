//! What must hold after every step, whatever happens; judged by the ledger and by what is stored.

mod stored;

use std::{fmt::Debug, str::FromStr};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    labels,
    snapshot::Snapshot,
    v1alpha1::{
        DesiredExecution, Execution, NodeState, NodeStatus, PodCleanupPolicy, ScriptRunner,
        ScriptRunnerStatus,
    },
};
use scriptrunner_core::{names::short_id, validate::ValidRun};

use crate::{
    api_server::{has_ended, uid_of},
    operator::Basis,
    world::World,
};

/// Reasons of nodes whose pod is not waited for any more.
pub(crate) const GIVEN_UP: [&str; 6] =
    ["NodeGone", "Unreachable", "Hung", "StartDeadlineExceeded", "ImagePullFailed", "ContainerNotStarted"];

/// How long failed pods are kept.
pub(crate) const KEPT_POD_SECONDS: i64 = 900;

/// What was stored last.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    status: Option<ScriptRunnerStatus>,
}

fn complain<T>(what: impl Into<String>) -> Result<T, String> {
    Err(what.into())
}

fn demand(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl World {
    /// What must hold at any time.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let Self { ledger, process, .. } = self;
        ledger.forget_unknown(|uid| process.knows(uid));
        ledger.wrong.take().map_or(Ok(()), Err)
    }

    /// What must hold when a pod is created: that it is the next one of its node, that nothing runs beside it, and that the run
    /// goes on.
    pub(crate) fn check_creation(&self, pod: &Pod, basis: &Basis) -> Result<(), String> {
        let part = Marks::of(pod);
        let (Some(valid), Some(previous)) = (&basis.valid, &basis.previous) else {
            return complain("a pod is created though no spec is accepted or no status stored");
        };
        let run = previous.run.as_ref();
        demand(run.is_some_and(|run| run.number == part.run), || {
            format!("a pod is created before its run is stored: run {}", part.run)
        })?;
        demand(run.is_some_and(|run| run.spec_hash.ends_with(&argument(pod, "--spec-sha256"))), || {
            "a pod is made of another spec than its run is pinned to".to_owned()
        })?;
        demand(valid.execution == DesiredExecution::Active, || {
            format!("a pod is created while execution is {:?}", valid.execution)
        })?;
        demand(!is_overdue(valid, previous, basis.now), || {
            "a pod is created after activeDeadlineSeconds".to_owned()
        })?;
        let entry = previous.nodes.get(&part.node).filter(|entry| entry.node_id == short_id(&part.node_uid));
        demand(entry.is_none_or(|entry| entry.held_for != part.run), || {
            format!("a pod is created for a node out of scope: {entry:?}")
        })?;
        self.check_inputs(pod)?;
        self.check_alone(pod, &part)?;
        self.check_stored(pod, &part)?;
        self.check_serial(pod, &part)?;
        let failures = failures(previous, part.run);
        let desired = desired(previous, part.run).count();
        if let Some(allowed) = valid.max_failures.map(|allowed| allowed.nodes(desired)) {
            demand(failures <= allowed, || {
                format!("a pod is created after {failures} failures, {allowed} are allowed")
            })?;
        }
        let planned = basis.planned.as_ref().unwrap_or(previous);
        self.check_busy(
            valid.parallelism.map(|most| most.nodes(self::desired(planned, part.run).count())),
            planned,
        )
    }

    /// The inputs that the pod mounts are there.
    fn check_inputs(&self, pod: &Pod) -> Result<(), String> {
        let volumes = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap();
        let input = volumes
            .iter()
            .find(|volume| volume.name == "scriptrunner-input")
            .and_then(|input| input.config_map.as_ref());
        let name = &input.unwrap().name;
        demand(self.server.config_maps.contains_key(name), || {
            format!("a pod is created before its inputs: {name} is not there")
        })
    }

    /// Every other pod of the node has ended.
    fn check_alone(&self, pod: &Pod, part: &Marks) -> Result<(), String> {
        let beside = self.server.pods.values().find(|other| {
            uid_of(other) != uid_of(pod) && Marks::of(other).node == part.node && !has_ended(other)
        });
        demand(beside.is_none(), || {
            format!(
                "a pod is created beside another one that may run: {:?} on {}",
                beside.map(uid_of),
                part.node
            )
        })
    }

    /// What became of every earlier pod of the node is stored.
    fn check_stored(&self, pod: &Pod, marks: &Marks) -> Result<(), String> {
        let status = self.server.object.as_ref().and_then(|object| object.status.as_ref());
        let open = self.ledger.parts.iter().find(|(uid, part)| {
            uid.as_str() != uid_of(pod)
                && part.node_uid == marks.node_uid
                && part.is_mentioned
                && !status.is_some_and(|status| part.is_stored(uid, status))
        });
        demand(open.is_none(), || {
            format!("a pod is created before the outcome of another is stored: {open:?}")
        })
    }

    /// The first serial comes after all that anybody heard of.
    fn check_serial(&self, pod: &Pod, part: &Marks) -> Result<(), String> {
        let first: u64 = number(&argument(pod, "--first-serial"));
        let before = self.ledger.of(&part.node_uid, part.run);
        let known = before.iter().filter(|before| before.is_known()).flat_map(|before| &before.began).max();
        demand(known.is_none_or(|known| *known < first), || {
            format!("serials go back: {first} after {known:?} on {}", part.node)
        })
    }

    /// Busy is a node whose pod exists and has not ended, and that was not given up.
    fn check_busy(&self, most: Option<usize>, planned: &ScriptRunnerStatus) -> Result<(), String> {
        let Some(most) = most else { return Ok(()) };
        let is_busy = |pod: &&Pod| {
            let marks = Marks::of(pod);
            let is_given_up = planned
                .nodes
                .get(&marks.node)
                .is_some_and(|entry| entry.run == marks.run && GIVEN_UP.contains(&entry.reason.as_str()));
            !has_ended(pod) && !is_given_up
        };
        let busy = self.server.pods.values().filter(is_busy).count();
        demand(busy <= most, || format!("{busy} nodes are busy, parallelism is {most}"))
    }

    /// What must hold when a pod's deletion is asked for: that nothing is lost by it, and that nobody is told to end without
    /// a stored reason.
    pub(crate) fn check_deletion(
        &self,
        pod: &Pod,
        why: &str,
        is_over: bool,
        basis: &Basis,
    ) -> Result<(), String> {
        let uid = uid_of(pod);
        let Some(part) = self.ledger.parts.get(uid) else { return Ok(()) };
        let status = self.server.object.as_ref().and_then(|object| object.status.as_ref());
        let Some(status) = status else { return complain("a pod is deleted before any status is stored") };
        let number = status.run.as_ref().map_or(0, |run| run.number);
        let entry = status.nodes.get(&part.node).filter(|entry| entry.node_id == short_id(&part.node_uid));
        if has_ended(pod) && is_over {
            demand(entry.is_none() || !part.is_started || part.is_stored(uid, status), || {
                format!("a pod is deleted before its outcome is stored ({why}): {part:?}, {entry:?}")
            })?;
            let Some(entry) = entry else { return Ok(()) };
            self.check_kept(pod, entry)?;
            let is_newest = (entry.run, entry.attempts) == (part.run, part.attempt) && part.run == number;
            let is_wanted = is_newest && self.is_kept_for_a_look(pod, entry, basis);
            return demand(!is_wanted, || {
                format!("a pod is deleted that is to be kept ({why}): {part:?}, {entry:?}")
            });
        }
        let may_end = part.run < number
            || entry.is_none_or(|entry| {
                entry.run > part.run
                    || ["Stopped", "ActiveDeadlineExceeded"].contains(&entry.reason.as_str())
                    || GIVEN_UP.contains(&entry.reason.as_str())
                    || entry.attempts > part.attempt
            });
        demand(may_end || part.end.is_some() && part.is_stored(uid, status), || {
            format!("a pod is told to end without a stored reason ({why}): {part:?}, {entry:?}")
        })
    }

    /// Whether the cleanup policy keeps the ended pod of a node that is done.
    fn is_kept_for_a_look(&self, pod: &Pod, entry: &NodeStatus, basis: &Basis) -> bool {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let state = statuses.and_then(|statuses| statuses.first()?.state.as_ref()?.terminated.as_ref());
        let Some(finished) = state.and_then(|state| state.finished_at.as_ref()) else { return false };
        let is_given_up = GIVEN_UP.contains(&entry.reason.as_str());
        match basis.valid.as_ref().map(|valid| valid.cleanup).unwrap_or_default() {
            PodCleanupPolicy::Never => entry.node_state().is_done(),
            PodCleanupPolicy::Always => false,
            PodCleanupPolicy::OnSuccess => {
                let is_young = self.server.now.duration_since(finished.0).as_secs() < KEPT_POD_SECONDS;
                entry.node_state() == NodeState::Failed && is_young && !is_given_up
            }
        }
    }

    /// What must hold when the object is deleted for its age: that it has ended, so long ago.
    pub(crate) fn check_end(&self, object: &ScriptRunner) -> Result<(), String> {
        let status = object.status.clone().unwrap_or_default();
        let is = |type_| holds(&status.conditions, type_);
        let is_stopped = find(&status.conditions, ConditionType::Failed)
            .is_some_and(|failed| failed.status == "True" && failed.reason == "Stopped");
        let completion = status.run.as_ref().and_then(|run| run.completion_time.as_ref());
        let age = completion.map(|time| self.server.now.duration_since(time.0).as_secs());
        let ttl = object.spec.ttl_seconds_after_finished.map(i64::from);
        let is_due = ttl.zip(age).is_some_and(|(ttl, age)| age >= ttl);
        let has_ended =
            (is(ConditionType::Complete) || is(ConditionType::Failed) && !is_stopped) && status.active == 0;
        demand(is_due && has_ended, || {
            format!("the object is deleted before its time: {:?}", status.conditions)
        })
    }

    /// Every execution of the pod's message is in the entry, or is older than all that it keeps.
    fn check_kept(&self, pod: &Pod, entry: &NodeStatus) -> Result<(), String> {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let state = statuses.and_then(|statuses| statuses.first()?.state.as_ref()?.terminated.as_ref());
        let message = state.and_then(|state| state.message.as_deref()).unwrap_or_default();
        let Ok(snapshot) = Snapshot::decode(message) else { return Ok(()) };
        // Where there is little room for the status, what does not fit is cut.
        if self.other_bytes > 10_000 {
            return Ok(());
        }
        let oldest = entry.history.first().map(Execution::key);
        let lost = snapshot.history.iter().find(|execution| {
            entry.history.iter().all(|kept| kept.key() != execution.key())
                && oldest.is_none_or(|oldest| execution.key() > oldest)
        });
        demand(lost.is_none(), || {
            format!("an answer is lost: {:?} is not in {entry:?}", lost.map(Execution::key))
        })
    }
}

/// Whether the run takes longer than it may; what comes after its end is not bound by that.
pub(crate) fn is_overdue(valid: &ValidRun, status: &ScriptRunnerStatus, now: Timestamp) -> bool {
    let Some(run) = &status.run else { return false };
    let early = ["ErrorBudgetExceeded", "ActiveDeadlineExceeded", "Stopped"];
    let ended_early = find(&status.conditions, ConditionType::Failed)
        .is_some_and(|failed| failed.status == "True" && early.contains(&failed.reason.as_str()));
    let is_bound = run.completion_time.is_none() || ended_early;
    let age = now.duration_since(run.start_time.0).as_secs();
    is_bound && valid.attempts.active_deadline_seconds.is_some_and(|seconds| age >= i64::from(seconds))
}

/// What a pod was made for.
pub(crate) struct Marks {
    node: String,
    node_uid: String,
    run: u64,
}

impl Marks {
    /// The marks that a pod was made with: annotations and labels that nobody strips in this world.
    fn of(pod: &Pod) -> Self {
        let pod_labels = pod.metadata.labels.as_ref().unwrap();
        Self {
            node: pod.metadata.annotations.as_ref().unwrap()[labels::NODE].clone(),
            node_uid: pod_labels[labels::NODE_UID].clone(),
            run: pod_labels[labels::RUN].parse().unwrap(),
        }
    }
}

/// A number that this operator wrote.
pub(crate) fn number<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn argument(pod: &Pod, name: &str) -> String {
    let args = pod.spec.as_ref().unwrap().containers[0].args.as_ref().unwrap();
    args[args.iter().position(|arg| arg == name).unwrap() + 1].clone()
}

/// Entries of the nodes that the run is for.
pub(crate) fn desired(status: &ScriptRunnerStatus, run: u64) -> impl Iterator<Item = &NodeStatus> {
    status.nodes.values().filter(move |entry| run > 0 && entry.is_in(run))
}

pub(crate) fn is_failure(entry: &NodeStatus) -> bool {
    matches!(entry.node_state(), NodeState::Failed | NodeState::Stopped | NodeState::Unknown)
}

/// What counts against `maxFailures`: nodes that the run itself was for.
fn failures(status: &ScriptRunnerStatus, run: u64) -> usize {
    desired(status, run).filter(|entry| entry.run == run && is_failure(entry)).count()
}
