//! Who or what ended a pod that would have gone on, and how people are told. Pure.

use scriptrunner_api::reason::NodeReason;

use crate::observed::{PodFacts, Presence};

/// Who or what ended a pod that would have gone on.
pub(crate) struct Cause {
    pub(super) reason: NodeReason,
    /// In a sentence without a full stop; empty if there is no more to say than what the runner knows.
    pub(super) text: String,
}

impl Cause {
    pub(super) fn new(reason: NodeReason, text: &str) -> Self {
        Self { reason, text: text.to_owned() }
    }

    /// Somebody deleted it, and nothing says why.
    pub(crate) fn deletion() -> Self {
        Self::new(NodeReason::PodDeleted, "the pod was deleted")
    }

    /// What is known of the end of this pod, if anything is.
    pub(super) fn of(pod: &PodFacts) -> Option<Self> {
        let is_deleted = pod.deleting || pod.presence == Presence::Gone;
        Self::of_disruption(pod).or_else(|| is_deleted.then(Self::deletion))
    }

    /// Why its runner was stopped.
    pub(super) fn of_stop(pod: &PodFacts, is_superseded: bool) -> Self {
        if is_superseded {
            return Self::new(NodeReason::Superseded, "");
        }
        Self::of(pod).unwrap_or_else(|| Self::new(NodeReason::Interrupted, ""))
    }

    /// What the pod's own status says of who ended it: the kubelet's reason, or the condition that every part of Kubernetes
    /// sets before it disrupts a pod.
    pub(super) fn of_disruption(pod: &PodFacts) -> Option<Self> {
        let (reason, text) = match (pod.reason.as_str(), pod.disruption.as_str()) {
            // Of the kubelet's own preemption the condition says no more than that it was the kubelet.
            ("Preempting", _) | (_, "PreemptionByScheduler") => {
                (NodeReason::Preempted, "the pod was preempted by a more important pod")
            }
            (_, "EvictionByEvictionAPI") => {
                (NodeReason::Evicted, "the pod was evicted through the eviction API, as a drain does")
            }
            (_, "DeletionByTaintManager") => {
                (NodeReason::Evicted, "the pod was evicted for a taint of its node that it does not tolerate")
            }
            (_, "DeletionByPodGC") => {
                (NodeReason::PodLost, "the pod was removed because its node is gone or out of service")
            }
            // Without the condition if the pod used more than it may.
            ("Evicted", _) => (NodeReason::Evicted, "the kubelet evicted the pod"),
            (_, "TerminationByKubelet") => (NodeReason::Evicted, "the kubelet ended the pod"),
            _ => return None,
        };
        let said = if pod.message.is_empty() { String::new() } else { format!(": {}", pod.message) };
        Some(Self { reason, text: format!("{text}{said}") })
    }

    /// Together with what the runner says of its end.
    pub(super) fn beside(&self, told: &str) -> String {
        match (self.text.as_str(), told) {
            ("", said) | (said, "") => said.to_owned(),
            (text, told) => format!("{text}; {told}"),
        }
    }
}
