//! The conditions of a ScriptRunner and the one way to set them. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{reason::ConditionReason, text::harmless_head};

/// Longest message of a condition, in bytes; the API allows 32768, a status has better uses for them.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// The type of a condition. There are only these seven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// The spec can be run.
    Accepted,
    /// Nodes are still to be done.
    Progressing,
    /// Every desired node is done, and none failed or is unknown.
    Complete,
    /// The run is over and some node failed or is unknown, or it ended early.
    Failed,
    /// The user paused or stopped the run.
    Suspended,
    /// The nodes that answered gave the same answer.
    Consistent,
    /// The size limit of the status cost results.
    ResultsTruncated,
}

impl ConditionType {
    /// The type as written in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Progressing => "Progressing",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
            Self::Suspended => "Suspended",
            Self::Consistent => "Consistent",
            Self::ResultsTruncated => "ResultsTruncated",
        }
    }
}

/// What a condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The type.
    pub type_: ConditionType,
    /// Whether it holds; none if that cannot be said.
    pub holds: Option<bool>,
    /// Why, in one word.
    pub reason: ConditionReason,
    /// Why, in a sentence that says what to do, at most [`MAX_MESSAGE_BYTES`].
    pub message: String,
}

/// Sets the condition, keeping the list's order. Its message is made harmless, whoever had a say in it. `lastTransitionTime`
/// changes only when the status flips (Kubernetes API conventions, "Typical status properties").
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    verdict: &Verdict,
    generation: Option<i64>,
    now: &Time,
) {
    let status = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let mut condition = Condition {
        type_: verdict.type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        message: harmless_head(&verdict.message, MAX_MESSAGE_BYTES),
        observed_generation: generation,
        last_transition_time: now.clone(),
    };
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

/// The condition of a type, if it is set.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

/// Whether the condition is set and holds.
pub fn holds(conditions: &[Condition], type_: ConditionType) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    fn verdict(holds: bool, reason: ConditionReason) -> Verdict {
        Verdict { type_: ConditionType::Complete, holds: Some(holds), reason, message: "x".repeat(2000) }
    }

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let mut list = Vec::new();
        set_condition(&mut list, &verdict(false, ConditionReason::NodesPending), Some(1), &at(1));
        set_condition(&mut list, &verdict(false, ConditionReason::NodesFailed), Some(2), &at(2));
        assert_eq!(list[0].last_transition_time, at(1));
        assert_eq!((list[0].reason.as_str(), list[0].observed_generation), ("NodesFailed", Some(2)));
        set_condition(&mut list, &verdict(true, ConditionReason::AllNodesDone), Some(2), &at(3));
        assert_eq!((list.len(), list[0].last_transition_time.clone()), (1, at(3)));
        assert_eq!(list[0].message.len(), MAX_MESSAGE_BYTES);
        let unknown = Verdict { holds: None, ..verdict(true, ConditionReason::NothingToCompare) };
        set_condition(&mut list, &unknown, Some(2), &at(4));
        assert_eq!((list[0].status.as_str(), list[0].last_transition_time.clone()), ("Unknown", at(4)));
        assert!(!holds(&list, ConditionType::Complete));
    }
}
