//! Which nodes are meant, and which of them are left out, from the spec. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use scriptrunner_api::v1alpha1::{
    LabelOperator, LabelSelector, NewNodePolicy, NotReadyNodePolicy, ScriptRunnerSpec, TaintEffect,
    Toleration, TolerationOperator, UnschedulableNodePolicy,
};

use super::{Refusal, invalid};

/// Taint of a cordoned node.
pub(crate) const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Which nodes the run is for. None of this is pinned: a change never runs a finished node again.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    /// Which nodes are meant.
    pub matching: Matching,
    /// Names of nodes that are left out.
    pub excluded: BTreeSet<String>,
    /// How many of the nodes that are meant are run; none is all.
    pub sample: Option<NodeCount>,
    /// Taints that keep no node out.
    pub tolerations: Vec<Toleration>,
    /// What becomes of cordoned nodes.
    pub unschedulable: UnschedulableNodePolicy,
    /// What becomes of nodes that are not Ready.
    pub not_ready: NotReadyNodePolicy,
    /// What becomes of nodes that come after the run began.
    pub new_nodes: NewNodePolicy,
}

/// Which nodes are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Matching {
    /// Nodes with labels.
    Selector(LabelSelector),
    /// Nodes with names.
    Names(BTreeSet<String>),
}

/// A number of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCount {
    /// So many.
    Nodes(u32),
    /// So many percent.
    Percent(u32),
}

impl NodeCount {
    /// The number of nodes, of so many: percentages round up, and are never under one.
    pub fn nodes(self, all: usize) -> usize {
        match self {
            Self::Nodes(nodes) => nodes as usize,
            Self::Percent(percent) => (all * percent as usize).div_ceil(100).max(1),
        }
    }

    /// Reads a number from `least` to 1000000 or a percentage from 1% to 100%; `field` is for the refusal.
    pub(super) fn of(field: &str, value: Option<&IntOrString>, least: u32) -> Result<Option<Self>, Refusal> {
        let wrong = |given: String| {
            invalid(format!(
                "{field} is {given}, it must be from {least} to 1000000 or a percentage from 1% to 100%"
            ))
        };
        match value {
            None => Ok(None),
            Some(IntOrString::Int(number)) => match u32::try_from(*number) {
                Ok(nodes) if (least..=1_000_000).contains(&nodes) => Ok(Some(Self::Nodes(nodes))),
                Ok(_) | Err(_) => wrong(number.to_string()),
            },
            Some(IntOrString::String(text)) => {
                match text.strip_suffix('%').and_then(|number| number.parse::<u32>().ok()) {
                    Some(percent @ 1..=100) => Ok(Some(Self::Percent(percent))),
                    Some(_) | None => wrong(format!("{text:?}")),
                }
            }
        }
    }
}

impl Targets {
    pub(super) fn of(spec: &ScriptRunnerSpec) -> Result<Self, Refusal> {
        let matching = matching(spec)?;
        for toleration in &spec.tolerations {
            check_toleration(toleration)?;
        }
        let unschedulable = spec.unschedulable_node_policy.unwrap_or_default();
        let lets_cordoned_in =
            spec.tolerations.iter().any(|toleration| toleration.key.as_deref() == Some(UNSCHEDULABLE_TAINT));
        if unschedulable == UnschedulableNodePolicy::Skip && lets_cordoned_in {
            return invalid(format!(
                "unschedulableNodePolicy: Skip leaves out the cordoned nodes that tolerations lets in; remove the toleration of {UNSCHEDULABLE_TAINT} or set unschedulableNodePolicy: Run"
            ));
        }
        Ok(Self {
            matching,
            excluded: spec.excluded_node_names.iter().cloned().collect(),
            sample: NodeCount::of("nodeSample", spec.node_sample.as_ref(), 1)?,
            tolerations: spec.tolerations.clone(),
            unschedulable,
            not_ready: spec.not_ready_node_policy.unwrap_or_default(),
            new_nodes: spec.new_node_policy.unwrap_or_default(),
        })
    }
}

fn matching(spec: &ScriptRunnerSpec) -> Result<Matching, Refusal> {
    match (&spec.node_label_selector, &spec.node_names) {
        (Some(selector), None) => {
            let odd = selector.match_expressions.iter().find(|requirement| match requirement.operator {
                LabelOperator::In | LabelOperator::NotIn => requirement.values.is_empty(),
                LabelOperator::Exists | LabelOperator::DoesNotExist => !requirement.values.is_empty(),
            });
            match odd {
                Some(requirement) => invalid(format!(
                    "nodeLabelSelector: key {:?}: In and NotIn need values, Exists and DoesNotExist take none",
                    requirement.key
                )),
                None => Ok(Matching::Selector(selector.clone())),
            }
        }
        (None, Some(names)) if !names.is_empty() => {
            // A name becomes a key of the status whether there is such a Node or not.
            match names.iter().find(|name| !is_node_name(name)) {
                Some(name) => invalid(format!(
                    "nodeNames: {name:?} is no name of a Node; write lower-case letters, digits, - and ."
                )),
                None => Ok(Matching::Names(names.iter().cloned().collect())),
            }
        }
        (None, Some(_)) => {
            invalid("nodeNames is empty; name at least one node, or use nodeLabelSelector: {} for every node")
        }
        (Some(_), Some(_)) | (None, None) => invalid("give exactly one of nodeLabelSelector and nodeNames"),
    }
}

fn is_node_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_edge = |byte: Option<u8>| byte.is_some_and(is_inner);
    text.len() <= 253
        && is_edge(text.bytes().next())
        && is_edge(text.bytes().last())
        && text.bytes().all(|byte| is_inner(byte) || byte == b'-' || byte == b'.')
}

/// What the API server would refuse in every pod of the run.
fn check_toleration(toleration: &Toleration) -> Result<(), Refusal> {
    let operator = toleration.operator.unwrap_or_default();
    if operator == TolerationOperator::Equal && toleration.key.as_deref().is_none_or(str::is_empty) {
        return invalid(
            "a toleration without a key is for every taint and needs operator: Exists; name the key or set the operator",
        );
    }
    if operator == TolerationOperator::Exists
        && toleration.value.as_deref().is_some_and(|value| !value.is_empty())
    {
        return invalid(
            "a toleration with operator Exists takes no value; remove the value or set operator: Equal",
        );
    }
    if toleration.toleration_seconds.is_some() && toleration.effect != Some(TaintEffect::NoExecute) {
        return invalid(
            "tolerationSeconds is for effect NoExecute only; set the effect or remove tolerationSeconds",
        );
    }
    Ok(())
}
