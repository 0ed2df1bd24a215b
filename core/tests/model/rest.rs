//! After the faults: everything comes to rest, in a state that follows from the last spec and from what the nodes did.

use scriptrunner_api::pinned::Inputs;
use scriptrunner_core::validate::Sources;
use std::{collections::BTreeMap, fmt::Write};

use k8s_openapi::api::core::v1::Node;
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    labels,
    pinned::PinnedSpec,
    v1alpha1::{
        DesiredExecution, NodeState, NodeStatus, PodCleanupPolicy, ScriptRunnerSpec, ScriptRunnerStatus,
    },
};
use scriptrunner_core::{
    names::short_id,
    validate::{Matching, Pinned, ValidRun, validate},
};

use crate::{
    check::{GIVEN_UP, desired, is_failure, is_overdue},
    ledger::Part,
    runner::End,
    world::World,
};

/// Most rounds until everything must be at rest.
const MOST_ROUNDS: usize = 300;

impl World {
    /// Ends the faults, lets everything come to rest with this process and with a new one, and compares.
    pub(crate) fn come_to_rest(&mut self) -> Result<(), String> {
        self.mend();
        // What only this process has seen is stored first: another one could not know it.
        for _ in 0..20 {
            self.server.wait(11);
            if !self.reconcile_all()? {
                break;
            }
        }
        let mut other = self.with_fresh_process();
        self.rest()?;
        self.check_rest()?;
        let outcome = other.rest().and_then(|()| other.check_rest()).and_then(|()| {
            let (ours, theirs) = (self.essence(), other.essence());
            if ours == theirs {
                Ok(())
            } else {
                Err(format!("a new process ends elsewhere:\n{ours}\nits:\n{theirs}"))
            }
        });
        if outcome.is_err() {
            self.story = other.story;
        }
        outcome
    }

    /// Goes on until nothing changes any more.
    fn rest(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..MOST_ROUNDS {
            let mut is_news = self.act_on_pods(3)?;
            is_news |= self.work_to_the_end()?;
            is_news |= self.act_on_pods(1)?;
            is_news |= self.reconcile_all()?;
            self.check()?;
            let now = self.server.now;
            if self.server.object.is_none() {
                return Ok(());
            }
            // Pods that failed are kept for long, and nothing else happens by then.
            let next =
                self.process.next.filter(|next| *next > now && next.duration_since(now).as_secs() < 700);
            let seconds = next.map_or(61, |next| next.duration_since(now).as_secs() + 1);
            quiet = if is_news { 0 } else { quiet + 1 };
            if quiet >= 3 && next.is_none() || quiet >= 15 {
                return Ok(());
            }
            self.server.wait(if is_news { 11 } else { seconds.clamp(1, 700) });
        }
        Err("it does not come to rest".to_owned())
    }

    /// Counted work is done to its end; endless work as far as each pod has something to show.
    fn work_to_the_end(&mut self) -> Result<bool, String> {
        let mut is_news = false;
        for machine in self.machines.values_mut() {
            for uid in machine.containers.keys().cloned().collect::<Vec<_>>() {
                for _ in 0..12 {
                    let runner = &machine.containers[&uid].runner;
                    let is_enough =
                        runner.remaining.is_none() && runner.record.executions > 0 && !runner.is_executing();
                    if is_enough || !machine.work(&uid, &self.server, &mut self.ledger)? {
                        break;
                    }
                    is_news = true;
                }
            }
        }
        Ok(is_news)
    }

    fn status(&self) -> Result<&ScriptRunnerStatus, String> {
        let status = self.server.object.as_ref().and_then(|object| object.status.as_ref());
        status.ok_or_else(|| "there is no status".to_owned())
    }

    /// What must not depend on who the operator was.
    fn essence(&self) -> String {
        let Ok(status) = self.status() else { return String::new() };
        let mut text = String::new();
        for (name, entry) in &status.nodes {
            let NodeStatus { state, reason, run, attempts, serial, executions, failures, .. } = entry;
            let history: Vec<_> =
                entry.history.iter().map(|execution| (execution.key(), execution.exit_code)).collect();
            writeln!(
                text,
                "{name}: {state} {reason} run {run} attempts {attempts} serial {serial} executions {executions} failures {failures} {history:?}"
            )
            .unwrap();
        }
        for condition in &status.conditions {
            writeln!(text, "{} {} {}", condition.type_, condition.status, condition.reason).unwrap();
        }
        let pods: Vec<_> = self.server.pods.keys().collect();
        let config_maps: Vec<_> = self.server.config_maps.keys().collect();
        text + &format!("{} {pods:?} {config_maps:?}", status.progress)
    }

    fn check_rest(&self) -> Result<(), String> {
        let Some(object) = self.server.object.as_ref() else { return Ok(()) };
        let status = self.status()?;
        let mut valid = validate(&object.spec, &Sources::default()).map_err(|refusal| refusal.message)?;
        let run = status.run.as_ref().ok_or("there is no run")?;
        let is_expected = status.observed_generation == object.metadata.generation
            && status.accepted_generation == object.metadata.generation
            && (run.spec_hash == valid.spec_hash || self.spec["updatePolicy"] == "OnRerun");
        if !is_expected {
            return Err(format!("the last spec is not what the run is of: {run:?}"));
        }
        if let Some(rerun) = &valid.rerun
            && run.rerun_at.as_ref().is_none_or(|at| at.0.as_second() < rerun.at_seconds)
        {
            return Err(format!("the last rerun was not begun: {run:?}"));
        }
        if run.spec_hash != valid.spec_hash {
            let specs = self.specs.values().map(|spec| serde_json::from_value(spec.clone()).unwrap());
            let pinned = specs.filter_map(|spec: ScriptRunnerSpec| {
                let inputs = Inputs::inline(&spec)?;
                Some(Pinned { spec: PinnedSpec::of(&spec, &inputs), inputs })
            });
            let pinned = pinned.into_iter().find(|pinned| pinned.spec.spec_hash() == run.spec_hash);
            valid = valid.pinned_to(&pinned.ok_or("the run is of a spec that never was")?);
        }
        let rest = Rest { world: self, status, valid: &valid, run: run.number };
        rest.check_nodes()?;
        rest.check_conditions()?;
        rest.check_children()
    }
}

/// A world at rest.
struct Rest<'a> {
    world: &'a World,
    status: &'a ScriptRunnerStatus,
    valid: &'a ValidRun,
    run: u64,
}

impl Rest<'_> {
    /// Why nothing more is started, if that is so.
    fn halt(&self) -> Option<&'static str> {
        match self.valid.execution {
            DesiredExecution::Stopped => return Some("Stopped"),
            DesiredExecution::Paused | DesiredExecution::Active => {}
        }
        let of_run = || desired(self.status, self.run);
        let failures = of_run().filter(|entry| entry.run == self.run && is_failure(entry)).count();
        let allowed = self.valid.max_failures.map(|allowed| allowed.nodes(of_run().count()));
        if allowed.is_some_and(|allowed| failures > allowed) {
            return Some("ErrorBudgetExceeded");
        }
        if is_overdue(self.valid, self.status, self.world.server.now) {
            return Some("ActiveDeadlineExceeded");
        }
        (self.valid.execution == DesiredExecution::Paused).then_some("Paused")
    }

    fn check_nodes(&self) -> Result<(), String> {
        for (name, node) in &self.world.server.nodes {
            let uid = node.metadata.uid.as_deref().unwrap();
            let entry = self.status.nodes.get(name).filter(|entry| entry.is_in(self.run));
            let parts = self.world.ledger.of(uid, self.run);
            let last = parts.iter().rev().find(|part| part.is_started && part.is_mentioned);
            if self.world.ledger.blind.contains(&(uid.to_owned(), self.run)) {
                continue;
            }
            if entry.is_some_and(|entry| entry.held_for == self.run && entry.node_id == short_id(uid)) {
                continue;
            }
            // One that vanished before it was seen to start may have been starting at that moment.
            let may_have_started = |part: &&Part| !part.is_started && part.is_hidden && part.is_mentioned;
            let is_cut = entry.is_some_and(|entry| {
                matches!(entry.node_state(), NodeState::Unknown | NodeState::Stopped) || entry.serial > 0
            });
            let last_was_lost = parts.last().copied().as_ref().is_some_and(may_have_started);
            let some_was_lost = last.is_none() && parts.iter().any(may_have_started);
            let was_lost = is_cut && (last_was_lost || some_was_lost);
            let wrong = match last {
                _ if was_lost => None,
                Some(part) => self.wrong_after(part, entry).map(str::to_owned),
                // What another node of this name did is kept where this one is not in the sample or not meant.
                None => self.wrong_unstarted(
                    name,
                    node,
                    entry.filter(|entry| entry.node_id == short_id(uid) || entry.node_id.is_empty()),
                ),
            };
            if let Some(expected) = wrong {
                return Err(format!("{name} should be {expected}, and is {entry:?}, after {parts:?}"));
            }
        }
        for (name, entry) in &self.status.nodes {
            let is_there = self.world.server.nodes.contains_key(name);
            let is_named =
                matches!(&self.valid.targets.matching, Matching::Names(names) if names.contains(name));
            let is_unstarted = entry.attempts == 0;
            if entry.run == self.run && !is_there && is_unstarted && !is_named {
                return Err(format!("{name} is desired, and there is no such node: {entry:?}"));
            }
        }
        Ok(())
    }

    /// What a node should be after its last pod, if it is not that.
    fn wrong_after(&self, part: &Part, entry: Option<&NodeStatus>) -> Option<&'static str> {
        let Some(entry) = entry.filter(|entry| entry.node_id == short_id(&part.node_uid)) else {
            return Some("in the run, because it was started");
        };
        let is_halted = self.halt().is_some();
        let state = entry.node_state();
        if self.valid.pinned.executions().is_none() {
            let is_as_wanted = match self.valid.execution {
                DesiredExecution::Active => {
                    state == NodeState::Running || GIVEN_UP.contains(&entry.reason.as_str())
                }
                // Without a session a pod that repeats does not hear of a pause.
                DesiredExecution::Paused => matches!(state, NodeState::Running | NodeState::Pending),
                DesiredExecution::Stopped => matches!(state, NodeState::Stopped | NodeState::Pending),
            };
            return (!is_as_wanted).then_some("as its endless repetition");
        }
        let is_gone_on = is_halted && state == NodeState::Pending;
        let (expected, is_expected) = match part.end {
            Some(End::Succeeded) if part.is_known() => ("Succeeded", state == NodeState::Succeeded),
            Some(End::Skipped) if part.is_known() => ("Skipped", state == NodeState::Skipped),
            Some(End::Failed | End::Starved) if part.is_known() => {
                let rules = &self.world.ledger.rules[&self.run];
                let has_more = !rules.has_codes
                    && !part.is_given_up
                    && rules.fewest_retries.is_some_and(|retries| u64::from(entry.retries) < retries);
                ("Failed or tried again", state == NodeState::Failed && !has_more || is_gone_on)
            }
            Some(end) => {
                // Whoever saw the end before it was lost may tell it all the same.
                let is_seen = match end {
                    End::Succeeded => state == NodeState::Succeeded,
                    End::Skipped => state == NodeState::Skipped,
                    End::Failed | End::Starved => state == NodeState::Failed,
                    End::HandedOver | End::Stopped | End::Restarted | End::Killed => false,
                };
                // Who was stopped by the user goes on.
                let waits_for_user =
                    part.is_stopped || state == NodeState::Stopped && entry.reason == "Stopped";
                let is_interrupted = matches!(state, NodeState::Unknown | NodeState::Stopped);
                (
                    "Unknown, Stopped or Pending",
                    is_seen
                        || is_gone_on
                        || GIVEN_UP.contains(&entry.reason.as_str())
                        || is_interrupted && (is_halted || !waits_for_user),
                )
            }
            None => ("ended", GIVEN_UP.contains(&entry.reason.as_str())),
        };
        (!is_expected).then_some(expected)
    }

    /// What a node should be that was not started, if it is not that.
    fn wrong_unstarted(&self, name: &str, node: &Node, entry: Option<&NodeStatus>) -> Option<String> {
        let says = |state: NodeState, reason: &str| {
            entry.is_some_and(|entry| {
                entry.node_state() == state && (reason.is_empty() || entry.reason == reason)
            })
        };
        // Its pod was made and did not start.
        let was_given_up = entry
            .is_some_and(|entry| entry.reason == "PodRefused" || GIVEN_UP.contains(&entry.reason.as_str()));
        if was_given_up {
            return None;
        }
        if !self.is_meant(name, node) {
            return entry.map(|_| "out of the run".to_owned());
        }
        let is_out = says(NodeState::Skipped, "OutOfScope");
        if self.valid.targets.sample.is_some() && entry.is_none() {
            return None;
        }
        let is_new = self.world.spec["newNodePolicy"] == "Ignore" && says(NodeState::Skipped, "NewNode");
        if let Some(reason) = self.reason_to_skip(name, node) {
            let is_left_out = is_new || is_out || says(NodeState::Skipped, reason);
            return (!is_left_out).then(|| format!("Skipped for {reason}"));
        }
        let is_held = self.halt().is_some() && says(NodeState::Pending, "");
        (!(is_new || is_out || is_held)).then(|| "started".to_owned())
    }

    fn is_meant(&self, name: &str, node: &Node) -> bool {
        match &self.valid.targets.matching {
            Matching::Names(names) => names.contains(name),
            Matching::Selector(_) => {
                let selector = &self.world.spec["nodeLabelSelector"];
                let zone =
                    node.metadata.labels.as_ref().and_then(|labels| labels.get("zone")).map(String::as_str);
                // The only selectors that users of this world write.
                let is_in_a = selector["matchLabels"].is_null() || zone == Some("a");
                let is_not_in_b = selector["matchExpressions"].is_null() || zone != Some("b");
                is_in_a && is_not_in_b
            }
        }
    }

    fn reason_to_skip(&self, name: &str, node: &Node) -> Option<&'static str> {
        let spec = &self.world.spec;
        let is_listed = spec["excludedNodeNames"]
            .as_array()
            .is_some_and(|names| names.iter().any(|listed| listed == name));
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let is_busy = taints.iter().any(|taint| taint.key == "busy");
        let is_cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
        if is_listed {
            Some("Excluded")
        } else if node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(labels::EXCLUDE)) {
            Some("OptedOut")
        } else if is_cordoned && spec["unschedulableNodePolicy"] == "Skip" {
            Some("Unschedulable")
        } else if is_busy && spec["tolerations"].is_null() {
            Some("Tainted")
        } else {
            None
        }
    }

    fn check_conditions(&self) -> Result<(), String> {
        let status = self.status;
        let of_run: Vec<&NodeStatus> = desired(status, self.run).collect();
        let is = |type_| holds(&status.conditions, type_);
        let reason =
            |type_| find(&status.conditions, type_).map_or("", |condition| condition.reason.as_str());
        let (complete, failed) = (is(ConditionType::Complete), is(ConditionType::Failed));
        let failures = of_run.iter().filter(|entry| is_failure(entry)).count();
        let may_go_on = |entry: &&NodeStatus| {
            !entry.node_state().is_done()
                || entry.node_state() == NodeState::Stopped
                    && entry.reason == "Stopped"
                    && entry.gone_time.is_none()
        };
        let rest = of_run.iter().copied().filter(may_go_on).count();
        let executes = status.active > 0;
        let is_right = match self.halt() {
            _ if of_run.is_empty() => {
                !complete
                    && !failed
                    && reason(ConditionType::Progressing) == self.halt().unwrap_or("NoMatchingNodes")
            }
            _ if rest == 0 => {
                complete == (failures == 0) && failed == (failures > 0) && !is(ConditionType::Progressing)
            }
            _ if executes => !complete && !failed || self.valid.pinned.executions().is_none(),
            // A run that was complete stays so while nodes that came late are held.
            Some(halt @ ("Stopped" | "ErrorBudgetExceeded" | "ActiveDeadlineExceeded")) => {
                failed && reason(ConditionType::Failed) == halt || complete && failures == 0
            }
            Some(_) => !is(ConditionType::Progressing),
            None => false,
        };
        if is_right {
            return Ok(());
        }
        let said: BTreeMap<_, _> = status
            .conditions
            .iter()
            .map(|condition| (&condition.type_, (&condition.status, &condition.reason)))
            .collect();
        Err(format!("the conditions are {said:?}, with {rest} to go of {of_run:#?}"))
    }

    /// Only what is still needed is left.
    fn check_children(&self) -> Result<(), String> {
        let server = &self.world.server;
        for (name, pod) in &server.pods {
            let part = &self.world.ledger.parts[pod.metadata.uid.as_deref().unwrap()];
            let entry = self.status.nodes.get(&part.node);
            let is_of_entry =
                entry.is_some_and(|entry| (entry.run, entry.attempts) == (part.run, part.attempt));
            let is_needed = entry.is_some_and(|entry| {
                let is_kept = match self.valid.cleanup {
                    PodCleanupPolicy::OnSuccess => {
                        matches!(entry.node_state(), NodeState::Failed | NodeState::Pending)
                    }
                    PodCleanupPolicy::Always => false,
                    PodCleanupPolicy::Never => true,
                };
                is_of_entry && (is_kept || entry.node_state() == NodeState::Running)
            });
            if !is_needed {
                return Err(format!("pod {name} is left: {part:?}, {entry:?}"));
            }
        }
        let runs = server.pods.values().map(|pod| pod.metadata.labels.as_ref().unwrap()[labels::RUN].clone());
        let runs: Vec<String> = runs.chain([self.run.to_string()]).collect();
        for (name, config_map) in &server.config_maps {
            let run = &config_map.metadata.labels.as_ref().unwrap()[labels::RUN];
            if !runs.contains(run) {
                return Err(format!("ConfigMap {name} of run {run} is left"));
            }
        }
        Ok(())
    }
}
