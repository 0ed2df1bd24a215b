//! What really happened, written down where it happens: the oracle of every check.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use scriptrunner_api::{
    labels,
    v1alpha1::{ScriptRunner, ScriptRunnerStatus},
};
use scriptrunner_core::names::short_id;
use serde_json::Value;

use crate::{
    api_server::uid_of,
    check::{GIVEN_UP, number},
    runner::{End, Runner},
};

/// The work of one pod.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an event that has or has not happened")]
pub(crate) struct Part {
    pub(crate) node: String,
    pub(crate) node_uid: String,
    pub(crate) run: u64,
    pub(crate) attempt: u32,
    /// Whether its container started.
    pub(crate) is_started: bool,
    /// Serials of its executions.
    pub(crate) began: Vec<u64>,
    /// Of these, failed and ended.
    pub(crate) failures: u64,
    /// How its runner ended.
    pub(crate) end: Option<End>,
    /// Whether the API server was told of the end, with the message.
    pub(crate) is_told: bool,
    /// Whether its object went before any status said what became of it: nobody needs to have seen it.
    pub(crate) is_hidden: bool,
    /// Whether its object is gone.
    pub(crate) is_removed: bool,
    /// Whether a status said that there is such a pod.
    pub(crate) is_mentioned: bool,
    /// Whether a status said that it is to end because the user stops the run.
    pub(crate) is_stopped: bool,
    /// Whether a status said that it is not waited for any more.
    pub(crate) is_given_up: bool,
}

impl Part {
    /// Whether the end of its runner is known to whoever looks.
    pub(crate) fn is_known(&self) -> bool {
        self.is_told && !self.is_hidden
    }

    /// Whether the status says what became of it.
    pub(crate) fn is_stored(&self, pod_uid: &str, status: &ScriptRunnerStatus) -> bool {
        let Some(entry) =
            status.nodes.get(&self.node).filter(|entry| entry.node_id == short_id(&self.node_uid))
        else {
            return false;
        };
        let is_named = entry.pod_id.as_ref() == Some(&short_id(pod_uid));
        !is_named
            && (entry.run > self.run
                || entry.run == self.run
                    && (entry.attempts > self.attempt
                        || entry.attempts == self.attempt && entry.pod_id.is_none()))
    }
}

/// The most that the specs allowed during one run.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is something that some spec allowed or not")]
pub(crate) struct Rules {
    /// Whether it was stopped, or had a deadline, so that nodes may have been stopped.
    pub(crate) may_stop: bool,
    pub(crate) retries: u64,
    /// The smallest `backoffLimit`, and whether any exit codes were told apart.
    pub(crate) fewest_retries: Option<u64>,
    pub(crate) has_codes: bool,
    /// Whether interrupted nodes are tried again.
    pub(crate) goes_on: bool,
    pub(crate) repeats: bool,
    pub(crate) is_endless: bool,
    /// The largest `maxFailures` and `parallelism`; none is all.
    pub(crate) failures: Bound,
    pub(crate) parallelism: Bound,
}

/// The largest of some numbers, of which any may be without limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bound {
    pub(crate) most: usize,
    pub(crate) is_open: bool,
}

impl Bound {
    fn admit(&mut self, value: &Value) {
        match value.as_u64() {
            Some(number) => self.most = self.most.max(usize::try_from(number).unwrap()),
            // Percentages of a number that changes are checked where it is known.
            None => self.is_open = true,
        }
    }
}

impl Rules {
    /// That this spec was there during the run, which may be pinned to another one.
    pub(crate) fn admit(&mut self, spec: &Value, is_pinned: bool) {
        self.may_stop |= spec["execution"] == "Stopped";
        let retries = spec["backoffLimit"].as_u64().unwrap_or(0);
        self.retries = self.retries.max(retries);
        self.fewest_retries = Some(self.fewest_retries.map_or(retries, |fewest| fewest.min(retries)));
        self.has_codes |= !spec["exitCodes"].is_null();
        let repeats = is_pinned && !spec["repeat"].is_null();
        self.repeats |= repeats;
        self.is_endless |= repeats && spec["repeat"]["count"].is_null();
        self.goes_on |= spec["interruptionPolicy"] == "Retry"
            || spec["interruptionPolicy"].is_null() && !spec["repeat"].is_null();
        self.failures.admit(&spec["maxFailures"]);
        self.parallelism.admit(&spec["parallelism"]);
    }
}

/// The ledger.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    /// By UID of the pod.
    pub(crate) parts: BTreeMap<String, Part>,
    /// The newest execution, by UID of the node.
    newest: BTreeMap<String, (u64, u32, u64)>,
    /// By number of the run.
    pub(crate) rules: BTreeMap<u64, Rules>,
    /// Nodes, by UID, and runs of which a pod was lost that nobody is left to know of.
    pub(crate) blind: BTreeSet<(String, u64)>,
    /// What was wrong when a container started.
    pub(crate) wrong: Option<String>,
}

impl Ledger {
    /// A pod was created. What is wrong with it.
    pub(crate) fn create(&mut self, pod: &Pod) -> Result<(), String> {
        let labels = pod.metadata.labels.as_ref().unwrap();
        let part = Part {
            node: pod.metadata.annotations.as_ref().unwrap()[labels::NODE].clone(),
            node_uid: labels[labels::NODE_UID].clone(),
            run: number(&labels[labels::RUN]),
            attempt: number(&labels[labels::ATTEMPT]),
            is_started: false,
            began: Vec::new(),
            failures: 0,
            end: None,
            is_told: false,
            is_hidden: false,
            is_removed: false,
            is_mentioned: false,
            is_stopped: false,
            is_given_up: false,
        };
        let same = self.parts.values().find(|other| {
            other.is_started
                && (&other.node_uid, other.run, other.attempt) == (&part.node_uid, part.run, part.attempt)
        });
        let is_blind = self.blind.contains(&(part.node_uid.clone(), part.run));
        if let Some(same) = same.filter(|_| !is_blind) {
            return Err(format!("the triple is used twice: pod {:?} after {same:?}", pod.metadata.name));
        }
        self.parts.insert(uid_of(pod).to_owned(), part);
        Ok(())
    }

    /// A container starts.
    pub(crate) fn start(&mut self, pod: &Pod, runner: &Runner) {
        let uid = uid_of(pod);
        let Some(part) = self.parts.get(uid).cloned() else { return };
        let beside = self.parts.iter().find(|(other_uid, other)| {
            *other_uid != uid && other.node == part.node && other.is_started && other.end.is_none()
        });
        if let Some((_, other)) = beside {
            self.wrong = Some(format!("two pods execute on a node: {part:?} beside {other:?}"));
        }
        if (runner.record.run, runner.record.attempt) != (part.run, part.attempt) {
            self.wrong = Some(format!("a pod is told another part than its labels say: {part:?}"));
        }
        self.parts.get_mut(uid).unwrap().is_started = true;
    }

    /// An execution begins. What is wrong with that.
    pub(crate) fn begin(&mut self, uid: &str, serial: u64) -> Result<(), String> {
        let part = self.parts[uid].clone();
        let key = (part.run, part.attempt, serial);
        let is_blind = self.blind.contains(&(part.node_uid.clone(), part.run));
        if let Some(newest) = self.newest.get(&part.node_uid).filter(|newest| **newest >= key && !is_blind) {
            return Err(format!("the triple goes back: {key:?} after {newest:?} on {}", part.node));
        }
        if !is_blind && part.began.is_empty() {
            self.check_again(&part)?;
        }
        self.newest.insert(part.node_uid.clone(), key);
        self.parts.get_mut(uid).unwrap().began.push(serial);
        Ok(())
    }

    /// Whether the node may execute once more in the run, after what its earlier pods did.
    fn check_again(&self, part: &Part) -> Result<(), String> {
        let rules = self.rules.get(&part.run).cloned().unwrap_or_default();
        let earlier = self.parts.values().filter(|other| {
            (&other.node_uid, other.run) == (&part.node_uid, part.run)
                && other.attempt < part.attempt
                && !other.began.is_empty()
        });
        let (mut failures, mut cuts, mut either) = (0, 0, 0);
        for other in earlier {
            match other.end {
                Some(End::Succeeded | End::Skipped) if other.is_known() && !rules.is_endless => {
                    return Err(format!("a node is done twice in a run: {part:?} after {other:?}"));
                }
                Some(End::Failed | End::Starved) if other.is_known() => failures += 1,
                Some(End::Failed | End::Starved) => either += 1,
                Some(End::HandedOver) => {}
                Some(_) => cuts += 1,
                None => return Err(format!("two pods execute on a node: {part:?} beside {other:?}")),
            }
        }
        if rules.is_endless || rules.may_stop {
            return Ok(());
        }
        if failures > rules.retries {
            return Err(format!("a node that failed is done again: {part:?} after {failures} failures"));
        }
        let allowed = match (rules.goes_on, rules.repeats) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => u64::MAX,
        };
        if cuts > allowed || (failures + cuts + either) > rules.retries.saturating_add(allowed) {
            return Err(format!(
                "a node that was interrupted is done again: {part:?} after {cuts} interruptions, {failures} failures and {either} of either"
            ));
        }
        Ok(())
    }

    /// The runner of a pod has ended.
    pub(crate) fn end(&mut self, uid: &str, runner: &Runner) {
        if let Some(part) = self.parts.get_mut(uid) {
            part.failures = runner.record.failures;
            part.end = part.end.or(runner.end);
        }
    }

    /// The API server is told of the end.
    pub(crate) fn tell(&mut self, uid: &str) {
        if let Some(part) = self.parts.get_mut(uid) {
            part.is_told = true;
        }
    }

    /// What the pod did cannot be read.
    pub(crate) fn hide(&mut self, uid: &str) {
        if let Some(part) = self.parts.get_mut(uid) {
            part.is_hidden = true;
        }
    }

    /// The pod's object goes.
    pub(crate) fn remove(&mut self, pod: &Pod, object: Option<&ScriptRunner>) {
        let uid = uid_of(pod);
        let Some(part) = self.parts.get_mut(uid) else { return };
        let status = object.and_then(|object| object.status.as_ref());
        // Of one that was given up the answer may come when nobody waits for it.
        part.is_hidden |= part.is_given_up || !status.is_some_and(|status| part.is_stored(uid, status));
        part.is_removed = true;
    }

    /// A status was stored.
    pub(crate) fn store(&mut self, status: &ScriptRunnerStatus) {
        for (uid, part) in &mut self.parts {
            let entry =
                status.nodes.get(&part.node).filter(|entry| entry.node_id == short_id(&part.node_uid));
            let Some(entry) = entry else { continue };
            part.is_stopped |= entry.pod_id.as_ref() == Some(&short_id(uid))
                && entry.run == part.run
                && entry.reason == "Stopped";
            part.is_mentioned |= entry.pod_id.as_ref() == Some(&short_id(uid))
                || entry.run == part.run && entry.attempts >= part.attempt;
            part.is_given_up |= (entry.run, entry.attempts) == (part.run, part.attempt)
                && GIVEN_UP.contains(&entry.reason.as_str());
        }
    }

    /// Forgets what nobody is left to know of: pods that went before a status spoke of them, and that the process does not
    /// know.
    pub(crate) fn forget_unknown(&mut self, is_known: impl Fn(&str) -> bool) {
        for (uid, part) in &self.parts {
            if part.is_started && part.is_removed && !part.is_mentioned && !is_known(uid) {
                self.blind.insert((part.node_uid.clone(), part.run));
            }
        }
    }

    /// The pods of a node in a run, by attempt.
    pub(crate) fn of(&self, node_uid: &str, run: u64) -> Vec<&Part> {
        let mut parts: Vec<&Part> =
            self.parts.values().filter(|part| part.node_uid == node_uid && part.run == run).collect();
        parts.sort_by_key(|part| part.attempt);
        parts
    }
}
