//! What must hold after every step, whatever happens; judged by the ledger and by what is stored.

use std::{collections::BTreeMap, fmt::Debug, str::FromStr};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    labels,
    pinned::PinnedSpec,
    snapshot::Snapshot,
    v1alpha1::{
        DesiredExecution, Execution, NodeState, NodeStatus, PodCleanupPolicy, ScriptRunner, ScriptRunnerSpec,
        ScriptRunnerStatus,
    },
};
use scriptrunner_core::{
    names::short_id,
    status::{budget::MAX_OBJECT_BYTES, size::stored_bytes},
    validate::ValidRun,
};
use serde_json::Value;

use crate::{
    api_server::{has_ended, uid_of},
    ledger::Part,
    operator::Basis,
    runner::End,
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
        let input =
            volumes.iter().find(|volume| volume.name == "input").and_then(|input| input.config_map.as_ref());
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
            demand(entry.is_none() || part.is_stored(uid, status), || {
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

    /// What must hold of every status that is stored.
    pub(crate) fn check_write(&mut self, before: Option<&ScriptRunner>) -> Result<(), String> {
        let Some(object) = self.server.object.clone() else { return Ok(()) };
        let Some(status) = &object.status else { return complain("no status was written") };
        self.ledger.store(status);
        self.admit_specs(before.and_then(|before| before.status.as_ref()), status);
        let bytes = self.other_bytes + stored_bytes(status);
        demand(bytes <= MAX_OBJECT_BYTES, || format!("the object has {bytes} bytes"))?;
        check_counters(status)?;
        check_conditions(status)?;
        let number = status.run.as_ref().map_or(0, |run| run.number);
        for (name, entry) in &status.nodes {
            self.check_entry(number, name, entry)?;
        }
        if let Some(old) = self.seen.status.take() {
            check_progress(&old, status)?;
            self.check_scope(&old, status)?;
        }
        self.check_failures(status)?;
        self.seen.status = Some(status.clone());
        Ok(())
    }

    /// A rerun begins on the nodes in its scope, and leaves the others as they are.
    fn check_scope(&self, old: &ScriptRunnerStatus, new: &ScriptRunnerStatus) -> Result<(), String> {
        let (Some(before), Some(run)) = (&old.run, &new.run) else { return Ok(()) };
        if before.number == run.number || run.trigger != "Rerun" {
            return Ok(());
        }
        let rerun = &self.specs[&new.accepted_generation.unwrap_or(1)]["rerun"];
        let scope = rerun["scope"].as_str().unwrap_or("All");
        let names = rerun["nodeNames"].as_array();
        for (name, was) in old.nodes.iter().filter(|(_, was)| was.is_in(before.number)) {
            let is_in_scope = match was.node_state() {
                NodeState::Succeeded => scope == "All",
                NodeState::Failed if !GIVEN_UP.contains(&was.reason.as_str()) => {
                    ["All", "Failed"].contains(&scope)
                }
                // What else there is may have become something else by this very look.
                _ => continue,
            };
            let is_named = names.is_none_or(|names| names.iter().any(|named| named == name));
            let Some(is) = new.nodes.get(name).filter(|is| is.node_id == was.node_id) else { continue };
            let is_right = if is_in_scope && is_named {
                is.run == run.number || !is.is_in(run.number)
            } else {
                is.held_for == run.number && is.run == was.run && is.state == was.state
            };
            demand(is_right, || format!("{name}: the scope {rerun} is not kept: {was:?}, {is:?}"))?;
        }
        Ok(())
    }

    /// What the specs allow that the run may rest on.
    fn admit_specs(&mut self, before: Option<&ScriptRunnerStatus>, status: &ScriptRunnerStatus) {
        let number = |status: &ScriptRunnerStatus| status.run.as_ref().map_or(0, |run| run.number);
        if before.map_or(0, number) != number(status) {
            let from = status.accepted_generation.unwrap_or(1);
            for spec in self.specs.range(from..).map(|(_, spec)| spec.clone()).collect::<Vec<_>>() {
                self.admit_spec(&spec);
            }
        }
    }

    /// That the current run may rest on this spec.
    pub(crate) fn admit_spec(&mut self, spec: &Value) {
        let status = self.server.object.as_ref().and_then(|object| object.status.as_ref());
        let Some(run) = status.and_then(|status| status.run.as_ref()) else { return };
        let typed: ScriptRunnerSpec = serde_json::from_value(spec.clone()).unwrap();
        let is_pinned = PinnedSpec::of(&typed).spec_hash() == run.spec_hash;
        self.ledger.rules.entry(run.number).or_default().admit(spec, is_pinned);
    }

    /// An entry says nothing that did not happen.
    fn check_entry(&self, number: u64, name: &str, entry: &NodeStatus) -> Result<(), String> {
        let keys: Vec<_> = entry.history.iter().map(Execution::key).collect();
        demand(keys.is_sorted() && keys.len() <= 100, || {
            format!("{name}: the history is out of order: {keys:?}")
        })?;
        // An entry of an older run is what the newest answer makes of it.
        if entry.attempts == 0 || entry.run < number {
            return Ok(());
        }
        let of_entry = |part: &&Part| {
            (part.node.as_str(), part.run, part.attempt) == (name, entry.run, entry.attempts)
                && short_id(&part.node_uid) == entry.node_id
        };
        let Some(part) = self.ledger.parts.values().filter(of_entry).max_by_key(|part| part.is_started)
        else {
            return complain(format!("{name}: an attempt that never was: {entry:?}"));
        };
        let is_possible = match entry.node_state() {
            NodeState::Succeeded => part.end == Some(End::Succeeded),
            NodeState::Skipped if entry.reason == "ExitCodeSkips" => part.end == Some(End::Skipped),
            NodeState::Failed if entry.reason == "ScriptFailed" => part.end == Some(End::Failed),
            NodeState::Failed if entry.reason == "OOMKilled" => part.end == Some(End::Starved),
            NodeState::Unknown | NodeState::Stopped => {
                part.end != Some(End::Succeeded)
                    || !part.is_known()
                    || GIVEN_UP.contains(&entry.reason.as_str())
            }
            // An endless repetition goes on after whatever became of its pod.
            NodeState::Running => part.is_started || entry.pod_id.is_none(),
            NodeState::Pending | NodeState::Starting | NodeState::Failed | NodeState::Skipped => true,
        };
        demand(is_possible, || format!("{name}: what is said is not what happened: {entry:?}, {part:?}"))
    }

    /// With `parallelism` no more than it and `maxFailures` together fail of the nodes that were started.
    fn check_failures(&self, status: &ScriptRunnerStatus) -> Result<(), String> {
        let number = status.run.as_ref().map_or(0, |run| run.number);
        let Some(rules) = self.ledger.rules.get(&number) else { return Ok(()) };
        if rules.failures.is_open || rules.parallelism.is_open {
            return Ok(());
        }
        let most = rules.failures.most + rules.parallelism.most;
        let failed = desired(status, number).filter(|entry| is_failure(entry) && entry.attempts > 0).count();
        demand(failed <= most, || format!("{failed} nodes failed, at most {most} may"))
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

/// Each desired node is in exactly one counter.
fn check_counters(status: &ScriptRunnerStatus) -> Result<(), String> {
    let number = status.run.as_ref().map_or(0, |run| run.number);
    let mut counts: BTreeMap<NodeState, u32> = BTreeMap::new();
    for entry in desired(status, number) {
        *counts.entry(entry.node_state()).or_default() += 1;
    }
    let count = |states: &[NodeState]| {
        states.iter().map(|state| counts.get(state).copied().unwrap_or(0)).sum::<u32>()
    };
    let counted = [
        count(&NodeState::ALL),
        count(&[NodeState::Pending]),
        count(&[NodeState::Starting, NodeState::Running]),
        count(&[NodeState::Succeeded]),
        count(&[NodeState::Failed, NodeState::Stopped]),
        count(&[NodeState::Skipped]),
        count(&[NodeState::Unknown]),
    ];
    let ScriptRunnerStatus { desired, pending, active, succeeded, failed, skipped, unknown, .. } = status;
    let told = [*desired, *pending, *active, *succeeded, *failed, *skipped, *unknown];
    demand(told == counted, || format!("the counters say {told:?}, the entries {counted:?}"))
}

/// Never both, and a run that is over has an end.
fn check_conditions(status: &ScriptRunnerStatus) -> Result<(), String> {
    let is = |type_| holds(&status.conditions, type_);
    let (complete, failed) = (is(ConditionType::Complete), is(ConditionType::Failed));
    demand(!(complete && failed), || "the run is complete and failed".to_owned())?;
    let has_end = status.run.as_ref().is_some_and(|run| run.completion_time.is_some());
    demand(!(complete || failed) || has_end, || "the run is over and has no completion time".to_owned())
}

/// What a later status may not take back.
fn check_progress(old: &ScriptRunnerStatus, new: &ScriptRunnerStatus) -> Result<(), String> {
    let number = |status: &ScriptRunnerStatus| status.run.as_ref().map_or(0, |run| run.number);
    demand(number(old) <= number(new), || {
        format!("the run goes back from {} to {}", number(old), number(new))
    })?;
    demand(old.observed_generation <= new.observed_generation, || "observedGeneration goes back".to_owned())?;
    demand(new.accepted_generation <= new.observed_generation, || "acceptedGeneration is ahead".to_owned())?;
    for (name, was) in &old.nodes {
        let Some(is) = new.nodes.get(name).filter(|is| is.node_id == was.node_id) else { continue };
        demand(is.executions >= was.executions && is.failures >= was.failures, || {
            format!("{name}: counts go back: {was:?}, {is:?}")
        })?;
        let newest = |entry: &NodeStatus| entry.history.last().map(Execution::key);
        demand(newest(is) >= newest(was) || is.history.is_empty(), || {
            format!("{name}: the newest answer goes back: {was:?}, {is:?}")
        })?;
        // A node that leaves the run before it started has its older answer again.
        let leaves = is.run < was.run && is.history.last().is_some_and(|newest| newest.run == is.run);
        let at = |entry: &NodeStatus| (entry.run, entry.attempts, entry.serial);
        demand(leaves || at(is) >= at(was), || format!("{name}: the triple goes back: {was:?}, {is:?}"))?;
        let is_same = (is.run, is.attempts) == (was.run, was.attempts);
        let is_final = was.node_state() == NodeState::Succeeded && was.attempts > 0;
        demand(!(is_same && is_final) || is.node_state() == NodeState::Succeeded, || {
            format!("{name}: a success is taken back: {was:?}, {is:?}")
        })?;
    }
    Ok(())
}
