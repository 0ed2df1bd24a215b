//! What brings a pod to its node and keeps it there. Pure.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Toleration,
};
use scriptrunner_api::v1alpha1;

use crate::plan::TOLERATED_TAINTS;

pub(super) fn affinity_to(node: &str) -> Affinity {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), ..NodeSelectorTerm::default() };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// What a DaemonSet's pods tolerate: a node that becomes unready or unreachable keeps its running pod, without limit. Of two
/// tolerations of a taint the first counts, so what the user tolerates comes after.
pub(super) fn tolerations(wanted: &[v1alpha1::Toleration]) -> Vec<Toleration> {
    let tolerate = |key: &str, effect: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .map(|key| tolerate(key, "NoExecute"))
        .chain(TOLERATED_TAINTS.into_iter().map(|key| tolerate(key, "NoSchedule")))
        .chain(wanted.iter().map(toleration))
        .collect()
}

fn toleration(wanted: &v1alpha1::Toleration) -> Toleration {
    let v1alpha1::Toleration { key, operator, value, effect, toleration_seconds } = wanted;
    Toleration {
        key: key.clone(),
        operator: operator.map(|operator| operator.as_str().to_owned()),
        value: value.clone(),
        effect: effect.map(|effect| effect.as_str().to_owned()),
        toleration_seconds: toleration_seconds.map(i64::from),
    }
}
