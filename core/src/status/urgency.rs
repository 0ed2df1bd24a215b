//! How soon a changed status should be written. Pure.

use scriptrunner_api::v1alpha1::{Execution, NodeStatus, ScriptRunnerStatus};

use crate::in_step::InStep;

/// How soon a changed status should be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It has a result, names a pod for the first time, or changes what is said of the run or the spec.
    Result,
    /// Only states moved on, for example from Starting to Running, or executions began.
    State,
}

/// How soon `new` should be written over `old`.
pub fn urgency(old: Option<&ScriptRunnerStatus>, new: &ScriptRunnerStatus) -> Urgency {
    let Some(old) = old else { return Urgency::Result };
    let conditions = |status: &ScriptRunnerStatus| {
        status
            .conditions
            .iter()
            .map(|condition| (condition.type_.clone(), condition.status.clone(), condition.reason.clone()))
            .collect::<Vec<_>>()
    };
    let run_moved = old.run != new.run
        || old.failing != new.failing
        || old.observed_generation != new.observed_generation
        || conditions(old) != conditions(new);
    let mut remaining = InStep::new(&new.nodes);
    let left = old.nodes.keys().any(|name| remaining.get(name).is_none());
    let mut entries = InStep::new(&old.nodes);
    if run_moved || left || new.nodes.iter().any(|(name, entry)| is_news(entries.get(name), entry)) {
        Urgency::Result
    } else {
        Urgency::State
    }
}

/// Whether the entry has something that only a pod could tell, or that the next process must know: a pod that exists and
/// is not named yet could be taken for one that was never made.
fn is_news(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let Some(old) = old else { return true };
    let newest = |entry: &NodeStatus| entry.history.last().map(Execution::key);
    old.pod_id != new.pod_id
        || old.run != new.run
        || newest(old) != newest(new)
        || old.history.len() < new.history.len()
        || old.node_state().is_done() != new.node_state().is_done()
}

#[cfg(test)]
mod tests;
