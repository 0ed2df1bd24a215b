//! What must hold of every status that is stored: by itself, after the one before, and by the ledger.

use scriptrunner_core::validate::Sources;
use scriptrunner_core::validate::spec_hash;
use std::collections::BTreeMap;

use scriptrunner_api::{
    condition::{ConditionType, holds},
    v1alpha1::{Execution, NodeState, NodeStatus, ScriptRunner, ScriptRunnerSpec, ScriptRunnerStatus},
};
use scriptrunner_core::{
    names::short_id,
    status::{budget::MAX_OBJECT_BYTES, size::stored_bytes},
};
use serde_json::Value;

use super::{GIVEN_UP, complain, demand, desired, is_failure};
use crate::{api_server::user_of, ledger::Part, runner::End, world::World};

impl World {
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
            check_requester(Some(&old), status)?;
            self.check_scope(&old, status)?;
        } else {
            check_requester(None, status)?;
        }
        self.check_failures(status)?;
        self.seen.status = Some(status.clone());
        Ok(())
    }

    /// A rerun begins on the nodes in its scope, and leaves the others as they are.
    fn check_scope(&self, old: &ScriptRunnerStatus, new: &ScriptRunnerStatus) -> Result<(), String> {
        let (Some(before), Some(run)) = (&old.run, &new.run) else { return Ok(()) };
        let spec = &self.specs[&new.accepted_generation.unwrap_or(1)];
        let is_asked_for = spec["updatePolicy"] != "OnRerun" || before.rerun_at != run.rerun_at;
        demand(before.number == run.number || is_asked_for, || {
            format!("run {} begins although its edit waits for a rerun", run.number)
        })?;
        if before.number == run.number || run.trigger != "Rerun" {
            return Ok(());
        }
        let rerun = &spec["rerun"];
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
        let is_pinned = spec_hash(&typed, &Sources::default()).as_ref() == Some(&run.spec_hash);
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
        let is_possible = |part: &&Part| match entry.node_state() {
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
        // More than one where nobody is left to know of the first.
        let parts: Vec<&Part> = self.ledger.parts.values().filter(of_entry).collect();
        demand(parts.iter().any(is_possible), || {
            format!("{name}: what is said is not what happened: {entry:?}, {parts:?}")
        })
    }

    /// With `parallelism` no more than it and `maxFailures` together fail of the nodes that were started.
    fn check_failures(&self, status: &ScriptRunnerStatus) -> Result<(), String> {
        let number = status.run.as_ref().map_or(0, |run| run.number);
        let Some(rules) = self.ledger.rules.get(&number) else { return Ok(()) };
        if rules.failures.is_open || rules.parallelism.is_open {
            return Ok(());
        }
        let most = rules.failures.most + rules.parallelism.most;
        let is_counted = |entry: &&NodeStatus| entry.run == number && is_failure(entry) && entry.attempts > 0;
        let failed = desired(status, number).filter(is_counted).count();
        demand(failed <= most, || format!("{failed} nodes failed, at most {most} may"))
    }
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

/// Never complete and failed, nodes agree exactly if all gave one answer, and a run that is over has an end.
fn check_conditions(status: &ScriptRunnerStatus) -> Result<(), String> {
    let is = |type_| holds(&status.conditions, type_);
    let (complete, failed) = (is(ConditionType::Complete), is(ConditionType::Failed));
    demand(!(complete && failed), || "the run is complete and failed".to_owned())?;
    let number = status.run.as_ref().map_or(0, |run| run.number);
    let is_silent = |entry: &&NodeStatus| {
        entry.node_state() != NodeState::Skipped
            && entry.history.last().is_none_or(|newest| newest.run != entry.run || newest.digest.is_empty())
    };
    let silent = status.nodes.values().filter(|entry| entry.is_in(number)).filter(is_silent).count();
    let agree = status.output_group_count == 1 && silent == 0;
    demand(is(ConditionType::Consistent) == agree, || {
        format!("the nodes agree: {agree}, but the conditions are {:?}", status.conditions)
    })?;
    let has_end = status.run.as_ref().is_some_and(|run| run.completion_time.is_some());
    demand(!(complete || failed) || has_end, || "the run is over and has no completion time".to_owned())
}

/// A run says who wrote the spec that it began with, and keeps to it whoever writes the next.
fn check_requester(old: Option<&ScriptRunnerStatus>, new: &ScriptRunnerStatus) -> Result<(), String> {
    let Some(run) = &new.run else { return Ok(()) };
    let before = old.and_then(|old| old.run.as_ref()).filter(|before| before.number == run.number);
    let expected = match before {
        Some(before) => before.requested_by.clone(),
        None => new.accepted_generation.map(user_of),
    };
    demand(run.requested_by == expected, || {
        format!("run {} was requested by {expected:?}, not by {:?}", run.number, run.requested_by)
    })
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
        let leaves = is.run < number(new) && is.history.last().is_some_and(|newest| newest.run == is.run);
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
