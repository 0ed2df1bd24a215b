//! Which nodes are in, out, or waited for, and why. Judged as a DaemonSet's nodes are (Kubernetes 1.33,
//! pkg/controller/daemon/daemon_controller.go, `NodeShouldRunDaemonPod`), before a node has started in the run. Pure.

use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{LabelOperator, LabelSelector, NodeState, NodeStatus},
};

use super::{Draft, entry};
use crate::{
    in_step::InStep,
    observed::{NodeFacts, Observed, TaintFacts},
    validate::{Targets, ValidRun},
};

/// Taints that say that a node is not ready yet: it is waited for, not left out.
const NOT_READY_TAINTS: [&str; 3] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/network-unavailable",
];
/// Taints that runner pods tolerate, as a DaemonSet's do: conditions of the node that do not keep an inspection away.
pub(crate) const TOLERATED_TAINTS: [&str; 4] = [
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
];

/// What to do with a node that has not started in the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Run,
    Wait(String),
    Skip(NodeReason, String),
}

/// Names of all nodes that the run is for, those without a Node included, sorted.
pub(super) fn desired_names<'a>(targets: &'a Targets, observed: &'a Observed) -> Vec<&'a str> {
    match targets {
        Targets::Names(names) => names.iter().map(String::as_str).collect(),
        Targets::Selector(selector) => {
            let matching = observed.nodes.iter().filter(|(_, node)| matches(selector, node));
            matching.map(|(name, _)| name.as_str()).collect()
        }
    }
}

/// Brings the set of desired nodes up to date, and judges every node that has not started in the run.
pub(super) fn judge(draft: &mut Draft<'_>, run: &ValidRun, observed: &Observed) {
    let number = draft.run_number();
    let status_lost = lost_entries(draft, observed);
    let mut nodes = InStep::new(&observed.nodes);
    let mut desired = desired_names(&run.targets, observed).into_iter().peekable();
    let (mut added, mut left) = (Vec::new(), Vec::new());
    for (name, node_entry) in &mut draft.status.nodes {
        while let Some(missing) = desired.next_if(|desired| *desired < name.as_str()) {
            added.push(missing);
        }
        if desired.next_if_eq(&name.as_str()).is_some() {
            desire(node_entry, nodes.get(name), number, status_lost);
        } else if node_entry.run == number && is_unstarted(node_entry) {
            left.push(name.clone());
        }
    }
    added.extend(desired);
    for name in added {
        let mut node_entry = NodeStatus::default();
        desire(&mut node_entry, observed.nodes.get(name), number, status_lost);
        draft.status.nodes.insert(name.to_owned(), node_entry);
    }
    for name in left {
        if !draft.status.nodes.get_mut(&name).is_some_and(entry::leave) {
            draft.status.nodes.remove(&name);
        }
    }
}

/// Makes the entry one of the run, and judges its node if it has not started.
fn desire(node_entry: &mut NodeStatus, node: Option<&NodeFacts>, run: u64, status_lost: bool) {
    let is_new = node_entry.state.is_empty();
    let another_node = node.filter(|node| node_entry.node_id != node.id);
    if let Some(node) = another_node {
        *node_entry = NodeStatus { node_id: node.id.clone(), ..NodeStatus::default() };
    }
    if is_new || another_node.is_some() || node_entry.run < run {
        entry::reset_for_run(node_entry, run);
        if is_new && status_lost {
            entry::set(
                node_entry,
                NodeState::Unknown,
                Some(NodeReason::StatusLost),
                "the entry was lost from the status; it is not known whether the node was run",
            );
        }
    }
    if is_unstarted(node_entry) {
        put(node_entry, node.map_or_else(not_found, judge_node));
    }
}

/// Whether the stored counters speak of more nodes than the stored entries: then an entry that is missing was not new.
fn lost_entries(draft: &Draft<'_>, observed: &Observed) -> bool {
    let number = draft.run_number();
    observed.previous.as_ref().is_some_and(|previous| {
        let same_run = previous.run.as_ref().is_some_and(|run| run.number == number);
        let entries = previous.nodes.values().filter(|entry| entry.run == number).count();
        same_run && previous.desired as usize > entries
    })
}

/// Whether no pod of this run was made for the node, or none that started.
fn is_unstarted(node_entry: &NodeStatus) -> bool {
    match node_entry.node_state() {
        // A pod of an older run that has not ended keeps its entry until its end is counted.
        NodeState::Pending => node_entry.pod_id.is_none(),
        NodeState::Skipped => node_entry.attempts == 0,
        NodeState::Unknown => {
            node_entry.attempts == 0 && entry::reason(node_entry) == Some(NodeReason::Unreachable)
        }
        NodeState::Starting
        | NodeState::Running
        | NodeState::Succeeded
        | NodeState::Failed
        | NodeState::Stopped => false,
    }
}

fn put(node_entry: &mut NodeStatus, judgement: Judgement) {
    let state = node_entry.node_state();
    match judgement {
        Judgement::Skip(reason, message) => {
            // A pod that was made and replaced has not run the script, so the node may still be left out.
            entry::set(node_entry, NodeState::Skipped, Some(reason), &message);
        }
        // Once given up, a node stays so until it is Ready again.
        Judgement::Wait(_) if state == NodeState::Unknown => {}
        Judgement::Wait(message) => {
            entry::set(node_entry, NodeState::Pending, Some(NodeReason::NodeNotReady), &message);
        }
        Judgement::Run => {
            let keeps_reason = matches!(
                entry::reason(node_entry),
                Some(NodeReason::PodRefused | NodeReason::Replaced | NodeReason::NameConflict)
            );
            if state != NodeState::Pending || !keeps_reason {
                entry::set(node_entry, NodeState::Pending, None, "");
            }
        }
    }
}

fn not_found() -> Judgement {
    Judgement::Skip(NodeReason::NodeNotFound, "no Node has this name; it is run when one appears".to_owned())
}

/// Judges a node that has not started.
pub(super) fn judge_node(node: &NodeFacts) -> Judgement {
    if !node.os.is_empty() && node.os != "linux" {
        return Judgement::Skip(
            NodeReason::UnsupportedOS,
            format!("the node runs {:?}; scripts run on linux only", node.os),
        );
    }
    let untolerated = node
        .taints
        .iter()
        .find(|taint| repels(taint) && !is_passing(taint) && !TOLERATED_TAINTS.contains(&taint.key.as_str()));
    if let Some(taint) = untolerated {
        let TaintFacts { key, value, effect } = taint;
        return Judgement::Skip(
            NodeReason::Tainted,
            format!("taint {key}={value}:{effect} is not tolerated"),
        );
    }
    if !node.ready || node.taints.iter().any(|taint| repels(taint) && is_passing(taint)) {
        return Judgement::Wait(format!("node {:?} is not Ready", node.name));
    }
    Judgement::Run
}

fn repels(taint: &TaintFacts) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

fn is_passing(taint: &TaintFacts) -> bool {
    NOT_READY_TAINTS.contains(&taint.key.as_str())
}

/// Whether a node's labels match, by the rules of a Kubernetes label selector: `NotIn` also matches an absent label.
fn matches(selector: &LabelSelector, node: &NodeFacts) -> bool {
    let equal = selector.match_labels.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().all(|requirement| {
            let value = node.labels.get(&requirement.key);
            match requirement.operator {
                LabelOperator::In => value.is_some_and(|value| requirement.values.contains(value)),
                LabelOperator::NotIn => value.is_none_or(|value| !requirement.values.contains(value)),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        })
}
