//! Which of the nodes that are meant are left out, and which taints are tolerated: the types of the target fields of a spec.

#![expect(unreachable_pub, reason = "KubeSchema derives through private copies of the structs")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names that a Node can have.
pub(super) const NODE_NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// A taint that does not keep the script away, with the meaning it has in a pod: every part that is given must match.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.key) || (has(self.operator) && self.operator == 'Exists')").message("a toleration without a key is for every taint and needs operator: Exists; name the key or set the operator"),
    validation = Rule::new("!has(self.value) || self.value == '' || !has(self.operator) || self.operator == 'Equal'").message("a toleration with operator Exists takes no value; remove the value or set operator: Equal"),
    validation = Rule::new("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')").message("tolerationSeconds is for effect NoExecute only; set the effect or remove tolerationSeconds")
)]
pub struct Toleration {
    /// Key of the taint, at most 317 characters. Absent, with operator `Exists`: every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 317),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
        )
    )]
    pub key: Option<String>,
    /// How the value is compared. Default `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint, for operator `Equal`, at most 63 characters. Default empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))]
    pub value: Option<String>,
    /// Effect of the taint. Absent: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a pod stays on a node that gets such a taint while it runs, in seconds, 0 to 31536000; then it is evicted.
    /// Only with effect `NoExecute`. Default: without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<u32>,
}

impl Toleration {
    /// Whether a taint is tolerated.
    pub fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        let is_effect = self.effect.is_none_or(|own| own.as_str() == effect);
        let is_key = self.key.as_deref().is_none_or(|own| own == key);
        is_effect
            && is_key
            && match self.operator.unwrap_or_default() {
                TolerationOperator::Exists => true,
                // Without a key only Exists has a meaning.
                TolerationOperator::Equal => {
                    self.key.is_some() && self.value.as_deref().unwrap_or_default() == value
                }
            }
    }
}

/// How the value of a taint is compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// This value.
    #[default]
    Equal,
}

impl TolerationOperator {
    /// The operator as written in a pod.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exists => "Exists",
            Self::Equal => "Equal",
        }
    }
}

/// What a taint does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaintEffect {
    /// No new pod comes to the node.
    NoSchedule,
    /// The scheduler prefers other nodes.
    PreferNoSchedule,
    /// No new pod comes to the node, and those that are there are evicted.
    NoExecute,
}

impl TaintEffect {
    /// The effect as written in a Node.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// What becomes of a cordoned node: `Run` (the default) runs it, `Skip` leaves it out as `Skipped` with reason
/// `Unschedulable` until it is uncordoned. A change applies at once to nodes that have not started.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnschedulableNodePolicy {
    /// It is run.
    #[default]
    Run,
    /// It is left out until it is uncordoned.
    Skip,
}

/// What becomes of a node that is not Ready: `Wait` (the default) waits for it, at most `podStartDeadlineSeconds` from
/// the beginning of the run or from when it ceased to be Ready, and then gives it up as `Unknown` with reason
/// `Unreachable`; `Skip` leaves it out at once as `Skipped` with reason `NodeNotReady`. Both are run when they become
/// Ready. A change applies at once to nodes that have not started.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotReadyNodePolicy {
    /// It is waited for.
    #[default]
    Wait,
    /// It is left out until it is Ready.
    Skip,
}

/// What becomes of a node that begins to match after the run began, because it joins, is made again under its name, or
/// gets a label: `Run` (the default) runs it, `Ignore` lists it as `Skipped` with reason `NewNode` and leaves it to the
/// next run. Nodes that match because the spec was edited are run. A change to `Run` runs the nodes that were ignored.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewNodePolicy {
    /// It is run.
    #[default]
    Run,
    /// It is left out until the next run.
    Ignore,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_matches_as_in_a_pod() {
        for (yaml, matching, other) in [
            (
                "{key: a, value: b}",
                vec![("a", "b", "NoSchedule"), ("a", "b", "NoExecute")],
                vec![("a", "", "NoSchedule"), ("b", "b", "NoSchedule")],
            ),
            ("{key: a}", vec![("a", "", "NoSchedule")], vec![("a", "b", "NoSchedule")]),
            (
                "{key: a, operator: Exists, effect: NoExecute}",
                vec![("a", "x", "NoExecute")],
                vec![("a", "x", "NoSchedule"), ("b", "", "NoExecute")],
            ),
            ("{operator: Exists}", vec![("a", "x", "NoExecute"), ("b", "", "NoSchedule")], vec![]),
            (
                "{operator: Exists, effect: NoSchedule}",
                vec![("a", "x", "NoSchedule")],
                vec![("a", "x", "NoExecute")],
            ),
            ("{}", vec![], vec![("", "", "NoSchedule"), ("a", "", "NoSchedule")]),
        ] {
            let toleration: Toleration = serde_saphyr::from_str(yaml).unwrap();
            for (expected, taints) in [(true, matching), (false, other)] {
                for (key, value, effect) in taints {
                    assert_eq!(
                        toleration.tolerates(key, value, effect),
                        expected,
                        "{yaml} {key}={value}:{effect}"
                    );
                }
            }
        }
    }
}
