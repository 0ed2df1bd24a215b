//! Whether a node that has not started is run, waited for or left out, and why. Taints are judged as for a DaemonSet
//! (Kubernetes 1.33, pkg/controller/daemon/daemon_controller.go, `NodeShouldRunDaemonPod`). Pure.

use scriptrunner_api::{
    labels,
    reason::NodeReason,
    v1alpha1::{NewNodePolicy, NotReadyNodePolicy, UnschedulableNodePolicy},
};

use crate::{
    observed::{NodeFacts, TaintFacts},
    validate::{Targets, targets::UNSCHEDULABLE_TAINT},
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
    UNSCHEDULABLE_TAINT,
];

/// What to do with a node that has not started in the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Run,
    Wait(String),
    Skip(NodeReason, String),
}

/// Nobody has the name.
pub(super) fn not_found(targets: &Targets) -> Judgement {
    let then = match targets.new_nodes {
        NewNodePolicy::Run => "it is run when one appears",
        NewNodePolicy::Ignore => "one that appears is left to the next run, because newNodePolicy is Ignore",
    };
    Judgement::Skip(NodeReason::NodeNotFound, format!("no Node has this name; {then}"))
}

/// The node came after the run began.
pub(super) fn new_node(run: u64) -> Judgement {
    let message = format!(
        "the node began to match after run {run} had begun; it is left to the next run, because newNodePolicy is Ignore"
    );
    Judgement::Skip(NodeReason::NewNode, message)
}

/// A rerun does not name the node, which had no answer in the run before.
pub(super) fn out_of_scope() -> Judgement {
    let message = "rerun.nodeNames does not have this node; it had not ended when the rerun began";
    Judgement::Skip(NodeReason::OutOfScope, message.to_owned())
}

/// Whether a node is left out because somebody said so, whatever its condition.
pub(super) fn exclusion(targets: &Targets, node: &NodeFacts) -> Option<Judgement> {
    if targets.excluded.contains(&node.name) {
        let message = "excludedNodeNames has this node".to_owned();
        return Some(Judgement::Skip(NodeReason::Excluded, message));
    }
    let label = node.labels.get(labels::EXCLUDE).filter(|value| *value != labels::EXCLUDE_NOT)?;
    let message = format!("the node has label {}={label}; it is run when the label goes", labels::EXCLUDE);
    Some(Judgement::Skip(NodeReason::OptedOut, message))
}

/// Judges a node that has not started.
pub(super) fn judge_node(targets: &Targets, node: &NodeFacts) -> Judgement {
    if let Some(excluded) = exclusion(targets, node) {
        return excluded;
    }
    if !node.os.is_empty() && node.os != "linux" {
        return Judgement::Skip(
            NodeReason::UnsupportedOS,
            format!("the node runs {:?}; scripts run on linux only", node.os),
        );
    }
    if targets.unschedulable == UnschedulableNodePolicy::Skip && is_cordoned(node) {
        return Judgement::Skip(
            NodeReason::Unschedulable,
            "the node is cordoned, and unschedulableNodePolicy is Skip".to_owned(),
        );
    }
    let repelling = || node.taints.iter().filter(|taint| repels(taint) && !is_tolerated(targets, taint));
    let untolerated: Vec<String> = repelling().filter(|taint| !is_passing(taint)).map(written).collect();
    if !untolerated.is_empty() {
        let message = match &untolerated[..] {
            [taint] => format!("taint {taint} is not tolerated"),
            taints => format!("taints {} are not tolerated", taints.join(", ")),
        };
        return Judgement::Skip(NodeReason::Tainted, message);
    }
    let unready = if node.ready {
        repelling()
            .next()
            .map(|taint| format!("node {:?} is not ready: it has taint {}", node.name, written(taint)))
    } else {
        Some(format!("node {:?} is not Ready", node.name))
    };
    match (unready, targets.not_ready) {
        (None, NotReadyNodePolicy::Wait | NotReadyNodePolicy::Skip) => Judgement::Run,
        (Some(message), NotReadyNodePolicy::Wait) => Judgement::Wait(message),
        (Some(message), NotReadyNodePolicy::Skip) => {
            Judgement::Skip(NodeReason::NodeNotReady, format!("{message}, and notReadyNodePolicy is Skip"))
        }
    }
}

/// Whether the node is cordoned.
pub(crate) fn is_cordoned(node: &NodeFacts) -> bool {
    // The taint follows the field, and may also be set by itself.
    node.unschedulable || node.taints.iter().any(|taint| taint.key == UNSCHEDULABLE_TAINT && repels(taint))
}

fn is_tolerated(targets: &Targets, taint: &TaintFacts) -> bool {
    let TaintFacts { key, value, effect } = taint;
    TOLERATED_TAINTS.contains(&key.as_str())
        || targets.tolerations.iter().any(|toleration| toleration.tolerates(key, value, effect))
}

fn repels(taint: &TaintFacts) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

fn is_passing(taint: &TaintFacts) -> bool {
    NOT_READY_TAINTS.contains(&taint.key.as_str())
}

/// As kubectl writes it.
fn written(taint: &TaintFacts) -> String {
    let TaintFacts { key, value, effect } = taint;
    if value.is_empty() { format!("{key}:{effect}") } else { format!("{key}={value}:{effect}") }
}
