//! Which nodes a rerun is for. Pure.
//!
//! **Invariant:** the scope is judged once, by the write that begins the run; what it leaves out is marked in the entries, so that nothing
//! which happens later brings a node in.

use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus, RerunScope},
};

use super::{Draft, entry};
use crate::validate::ValidRerun;

/// Marks every node that was desired in the run before: those in scope begin anew, the others stand as they are.
pub(super) fn begin(draft: &mut Draft<'_>, rerun: &ValidRerun, before: u64, number: u64) {
    if rerun.scope == RerunScope::All && rerun.node_names.is_none() {
        return;
    }
    for (name, node_entry) in &mut draft.status.nodes {
        if !node_entry.is_in(before) {
            continue;
        }
        let is_named = rerun.node_names.as_ref().is_none_or(|names| names.contains(name));
        let is_done = node_entry.node_state().is_done();
        if is_named && is_in_scope(rerun.scope, node_entry) {
            entry::reset_for_run(node_entry, number);
        } else if is_done {
            node_entry.held_for = number;
        } else {
            // Stays until the node is judged: its pod may still have to end.
            entry::reset_for_run(node_entry, number);
            entry::set(node_entry, NodeState::Pending, Some(NodeReason::OutOfScope), "");
        }
    }
}

/// Whether a node that ended so, or has not ended, is run again.
fn is_in_scope(scope: RerunScope, node_entry: &NodeStatus) -> bool {
    match node_entry.node_state() {
        NodeState::Pending | NodeState::Starting | NodeState::Running => true,
        NodeState::Succeeded => scope == RerunScope::All,
        NodeState::Failed | NodeState::Stopped => matches!(scope, RerunScope::All | RerunScope::Failed),
        NodeState::Skipped => matches!(scope, RerunScope::All | RerunScope::Skipped),
        NodeState::Unknown => matches!(scope, RerunScope::All | RerunScope::Unknown),
    }
}
