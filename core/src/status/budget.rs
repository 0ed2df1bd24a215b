//! Keeps an object within its byte budget, whatever the number of nodes and whatever scripts print. Pure.
//!
//! What may go, goes in the order of [`Step`], a later step only when all earlier ones have given everything. Within a step
//! the largest node gives first, down to a level common to all, so that no node's flood costs another its answer.
//! Never cut: name, state, run, attempts, executions, failures, exit code, signal, nodeID and serial of a node, and podID
//! and seq of an active one.

mod level;
mod step;

use std::collections::BTreeSet;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use scriptrunner_api::v1alpha1::{NodeState, NodeStatus, ScriptRunnerStatus, Truncation};

use self::{
    level::{Item, levels},
    step::{Piece, Step, Target, cut, pieces, shorten_sample},
};
use super::{
    consensus::MAX_STORED_MESSAGE_BYTES,
    groups::{Answers, answer_to_keep},
    size::{stored_bytes, without_nodes},
};

/// Largest ScriptRunner object as stored, in bytes: spec, metadata, managedFields and status. etcd refuses 1.5 MiB.
pub const MAX_OBJECT_BYTES: usize = 1_048_576;
/// Longest time that the entry of a node whose Node object is gone is kept.
pub const MAX_GONE_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Most entries of gone nodes that are kept.
pub const MAX_GONE_NODES: usize = 500;

/// Room for what a write adds to the object besides the status: managedFields (577 bytes measured) and `"status":`.
const WRITE_BYTES: usize = 2048;
/// Room for the verdict: `truncation`, the conditions (besides that of `Consistent` at most two of their messages are long)
/// and the times of completion.
/// It is always set aside, and what it holds is not measured: what is concluded from a cut must not make the next cut.
const VERDICT_BYTES: usize = 6144 + 256 + MAX_STORED_MESSAGE_BYTES;
/// `,"nodes":{}`.
const NODES_FRAME_BYTES: usize = 11;
/// `,"outputGroups":[]`.
const GROUPS_FRAME_BYTES: usize = 18;

/// What became of a status that had to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the counters of the status must be computed again without the dropped nodes"]
pub struct Fitted {
    /// Names of gone nodes whose entries were dropped, sorted.
    pub dropped: Vec<String>,
    /// Newest answers that are not in their histories any more.
    pub answers: Answers,
    /// Whether the object is within the limit. False only if what is never cut does not fit.
    pub fits: bool,
}

/// Cuts the status until the object takes at most [`MAX_OBJECT_BYTES`]; `other_bytes` are those of the object without its
/// status, by [`stored_bytes`]. A status that fits is left as it is.
///
/// `truncation` says what was lost: the bytes that cutting took from the status, and from how many nodes. On entry it has
/// to be the stored one, or `None` in a new run: then it is what this run lost at one time at most, since a status is
/// computed from its own stored form, in which the lost bytes are no longer seen, and from reports, in which they are
/// seen again. Both computed again give the same.
///
/// **Invariant:** the object stays within the limit, and fitting a fitted status changes nothing.
pub fn fit(status: &mut ScriptRunnerStatus, other_bytes: usize) -> Fitted {
    let room = MAX_OBJECT_BYTES.saturating_sub(other_bytes + WRITE_BYTES + VERDICT_BYTES);
    let mut budget = Budget::measure(status, room);
    let before = budget.total();
    for step in Step::ALL {
        if budget.excess() == 0 {
            break;
        }
        budget.take(status, step);
    }
    let bytes = before - budget.total();
    if bytes > 0 {
        let old = status.truncation.take().unwrap_or_default();
        status.truncation = Some(Truncation {
            nodes: old.nodes.max(u32::try_from(budget.cut_nodes()).unwrap_or(u32::MAX)),
            bytes: old.bytes.max(bytes as u64),
        });
    }
    Fitted { fits: budget.excess() == 0, dropped: budget.dropped, answers: budget.answers }
}

/// Removes the entries of gone nodes that are past their time or, the longest gone first, too many. Returns their names,
/// sorted. Must come before the counters are computed.
///
/// Those of a sample's current run stay: they are no more than it has, and another node would be drawn in the place of each.
pub fn expire_gone(status: &mut ScriptRunnerStatus, is_sample: bool, now: &Time) -> Vec<String> {
    let sampled = status.run.as_ref().filter(|_| is_sample).map(|run| run.number);
    let mut gone: Vec<(&Time, &String)> = status
        .nodes
        .iter()
        .filter(|(_, node)| is_droppable(node) && !sampled.is_some_and(|run| node.is_in(run)))
        .filter_map(|(name, node)| Some((node.gone_time.as_ref()?, name)))
        .collect();
    gone.sort();
    let too_many = gone.len().saturating_sub(MAX_GONE_NODES);
    let expired: BTreeSet<String> = gone
        .into_iter()
        .enumerate()
        .filter(|(position, (since, _))| *position < too_many || now.0.duration_since(since.0) > MAX_GONE_AGE)
        .map(|(_, (_, name))| name.clone())
        .collect();
    if !expired.is_empty() {
        status.nodes.retain(|name, _| !expired.contains(name));
    }
    expired.into_iter().collect()
}

/// Whether an object with these desired nodes can be within the limit when everything that may be cut is cut; if not,
/// no pod may be made. `run` is the run's number, `count` how often the script runs on each node (`None` = endlessly).
pub fn floor_fits<'a>(
    names: impl IntoIterator<Item = &'a str>,
    run: u64,
    count: Option<u64>,
    other_bytes: usize,
) -> bool {
    floor_bytes(names, run, count) + other_bytes + WRITE_BYTES + VERDICT_BYTES <= MAX_OBJECT_BYTES
}

/// Bytes of the shortest status with these desired nodes, all of them at once in the state that takes most. Numbers that
/// grow without bound are taken with eight digits: a second's period for three years.
pub fn floor_bytes<'a>(names: impl IntoIterator<Item = &'a str>, run: u64, count: Option<u64>) -> usize {
    /// Ten recent runs, the run and the counters.
    const WITHOUT_NODES_BYTES: usize = 4096;
    const GROWN: u64 = 99_999_999;
    let executions = count.unwrap_or(GROWN);
    let done = NodeStatus {
        state: NodeState::Succeeded.as_str().to_owned(),
        run,
        attempts: 99,
        executions,
        failures: executions,
        exit_code: Some(255),
        node_id: "x".repeat(11),
        serial: executions,
        ..NodeStatus::default()
    };
    let active = NodeStatus {
        state: NodeState::Running.as_str().to_owned(),
        // Of a single execution the exit code is known only when the node is done.
        exit_code: (count != Some(1)).then_some(255),
        pod_id: Some("x".repeat(11)),
        seq: Some(executions.saturating_mul(10).min(GROWN.max(executions))),
        ..done.clone()
    };
    // Waits for the pod of an older run, whose numbers were bounded by that run's own floor.
    let waiting = NodeStatus {
        state: NodeState::Pending.as_str().to_owned(),
        attempts: 0,
        exit_code: None,
        serial: 0,
        pod_serial: executions,
        ..active.clone()
    };
    let node = [done, active, waiting].iter().map(stored_bytes).max().unwrap_or(0);
    let nodes: usize = names.into_iter().map(|name| entry_bytes(name, node)).sum();
    WITHOUT_NODES_BYTES + NODES_FRAME_BYTES + nodes
}

/// Name, colon, value and comma.
fn entry_bytes(name: &str, value: usize) -> usize {
    stored_bytes(name) + value + 2
}

/// Whether the entry may leave: its Node is gone, and no pod is to be found again through it.
fn is_droppable(node: &NodeStatus) -> bool {
    node.gone_time.is_some() && !node.node_state().is_active()
}

struct Weight {
    before: usize,
    now: usize,
}

/// Bytes of a status, part by part. `nodes` stands in the order of the status's own.
struct Budget {
    room: usize,
    without_nodes: usize,
    nodes: Vec<Weight>,
    dropped: Vec<String>,
    answers: Answers,
}

impl Budget {
    fn measure(status: &ScriptRunnerStatus, room: usize) -> Self {
        let mut rest = without_nodes(status);
        (rest.truncation, rest.last_successful_time) = (None, None);
        rest.conditions.clear();
        if let Some(run) = &mut rest.run {
            run.completion_time = None;
        }
        let weigh = |(name, node): (&String, &NodeStatus)| {
            let bytes = entry_bytes(name, stored_bytes(node));
            Weight { before: bytes, now: bytes }
        };
        let nodes = status.nodes.iter().map(weigh).collect();
        let without_nodes = stored_bytes(&rest) + NODES_FRAME_BYTES;
        Self { room, without_nodes, nodes, dropped: Vec::new(), answers: Answers::new() }
    }

    fn total(&self) -> usize {
        self.without_nodes + self.nodes.iter().map(|weight| weight.now).sum::<usize>()
    }

    fn excess(&self) -> usize {
        self.total().saturating_sub(self.room)
    }

    fn cut_nodes(&self) -> usize {
        self.dropped.len() + self.nodes.iter().filter(|weight| weight.now < weight.before).count()
    }

    fn take(&mut self, status: &mut ScriptRunnerStatus, step: Step) {
        match step {
            Step::GoneNodes => self.drop_gone(status),
            Step::Samples => self.cut_samples(status),
            Step::Groups => self.drop_groups(status),
            Step::OldOutputs
            | Step::OldEntries
            | Step::SuccessOutputs
            | Step::FailureOutputs
            | Step::Results
            | Step::Messages
            | Step::Details
            | Step::SuccessHistories
            | Step::FailureHistories
            | Step::Reasons => self.cut_nodes_to_level(status, step),
        }
    }

    fn drop_gone(&mut self, status: &mut ScriptRunnerStatus) {
        let mut gone: Vec<(usize, &String)> = status
            .nodes
            .iter()
            .zip(&self.nodes)
            .filter(|((_, node), _)| is_droppable(node))
            .map(|((name, _), weight)| (weight.now, name))
            .collect();
        gone.sort_unstable();
        let mut excess = self.excess();
        let mut dropped = BTreeSet::new();
        while excess > 0
            && let Some((bytes, name)) = gone.pop()
        {
            excess = excess.saturating_sub(bytes);
            dropped.insert(name.clone());
        }
        let mut kept =
            status.nodes.keys().map(|name| !dropped.contains(name)).collect::<Vec<_>>().into_iter();
        self.nodes.retain(|_| kept.next().unwrap_or(true));
        status.nodes.retain(|name, _| !dropped.contains(name));
        self.dropped.extend(dropped);
    }

    fn cut_nodes_to_level(&mut self, status: &mut ScriptRunnerStatus, step: Step) {
        let items: Vec<Item> = status
            .nodes
            .values()
            .zip(&self.nodes)
            .map(|(node, weight)| Item::new(weight.now, pieces(step, node)))
            .collect();
        let levels = levels(&items, self.excess());
        for ((((name, node), weight), item), level) in
            status.nodes.iter_mut().zip(&mut self.nodes).zip(items).zip(levels)
        {
            let need = weight.now.saturating_sub(level);
            if need > 0 && step.cuts_histories() && !item.pieces.is_empty() {
                self.answers.extend(answer_to_keep(node).map(|answer| (name.clone(), answer)));
            }
            weight.now -= cut(node, &item.pieces, need);
        }
    }

    fn cut_samples(&mut self, status: &mut ScriptRunnerStatus) {
        let items: Vec<Item> = status
            .output_groups
            .iter()
            .map(|group| Piece::of_field(Target::Sample, "sample", &group.sample))
            .map(|piece| Item::new(piece.bytes, vec![piece]))
            .collect();
        let levels = levels(&items, self.excess());
        for ((group, item), level) in status.output_groups.iter_mut().zip(items).zip(levels) {
            self.without_nodes -=
                shorten_sample(&mut group.sample, &item.pieces, item.bytes.saturating_sub(level));
        }
    }

    fn drop_groups(&mut self, status: &mut ScriptRunnerStatus) {
        while self.excess() > 0
            && let Some(group) = status.output_groups.pop()
        {
            // The last one takes the field along, the others a comma.
            let frame = if status.output_groups.is_empty() { GROUPS_FRAME_BYTES } else { 1 };
            self.without_nodes -= stored_bytes(&group) + frame;
        }
    }
}

#[cfg(test)]
mod tests;
