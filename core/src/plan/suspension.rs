//! What becomes of nodes while the user pauses or stops the run, when it goes on, and when it has taken too long. Pure.
//!
//! **Invariant:** a pod is told to end only once its entry says so in the stored status. So its end is known for a stop by
//! whoever sees it, and its node goes on when the user wants that, also if that was before the pod's end.

use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{DesiredExecution, NodeState, NodeStatus},
};

use super::{
    Action, Draft,
    entry::{self, Stop},
    runners::{Runner, Runners},
};
use crate::{halt::deadline, in_step::InStep, validate::ValidRun};

/// Brings the entries of the run in line with what the user wants.
pub(super) fn apply(draft: &mut Draft<'_>, run: &ValidRun) {
    let number = draft.run_number();
    for node_entry in draft.status.nodes.values_mut().filter(|node_entry| node_entry.run == number) {
        let has_no_pod = node_entry.node_state() == NodeState::Running && node_entry.pod_id.is_none();
        let is_stopped = node_entry.node_state() == NodeState::Stopped;
        let is_endless = run.pinned.executions().is_none();
        match run.execution {
            DesiredExecution::Active if entry::is_suspended(node_entry) || has_no_pod && !is_endless => {
                wait(node_entry, None, "");
            }
            DesiredExecution::Paused if has_no_pod || entry::is_suspended(node_entry) => {
                let message = "execution is Paused; what remains goes on once it is Active";
                wait(node_entry, Some(NodeReason::Paused), message);
            }
            DesiredExecution::Stopped if has_no_pod || entry::is_suspended(node_entry) && !is_stopped => {
                let message = "execution is Stopped; what remains goes on once it is Active";
                wait(node_entry, Some(NodeReason::Stopped), message);
            }
            DesiredExecution::Stopped if node_entry.node_state().is_active() => {
                entry::stop(node_entry, Stop::ByUser);
            }
            DesiredExecution::Active | DesiredExecution::Paused | DesiredExecution::Stopped => {}
        }
    }
}

/// Tells what executes to end once the run has taken too long.
pub(super) fn enforce_deadline(draft: &mut Draft<'_>, run: &ValidRun) {
    let Some(deadline) = deadline(run, &draft.status) else { return };
    if deadline > draft.now {
        return draft.look_again_at(deadline);
    }
    let number = draft.run_number();
    for node_entry in draft.status.nodes.values_mut().filter(|node_entry| node_entry.run == number) {
        if node_entry.node_state().is_active() && !entry::is_to_stop(node_entry) {
            entry::stop(node_entry, Stop::Overdue);
        }
    }
}

fn wait(node_entry: &mut NodeStatus, reason: Option<NodeReason>, message: &str) {
    entry::set(node_entry, NodeState::Pending, reason, message);
}

/// Tells every runner that repeats, and can be reached, to end after its current execution, while the run is paused.
pub(super) fn hand_overs(draft: &Draft<'_>, run: &ValidRun, runners: &Runners<'_>) -> Vec<Action> {
    if run.execution != DesiredExecution::Paused || run.pinned.executions() == Some(1) {
        return Vec::new();
    }
    let number = draft.run_number();
    let mut entries = InStep::new(&draft.status.nodes);
    let is_at_work = |runner: &&Runner<'_>| {
        runner.is_connected()
            && !runner.pod.has_ended()
            && entries.get(&runner.pod.node).is_some_and(|node_entry| {
                node_entry.run == number
                    && runner.part.run == number
                    && node_entry.node_state().is_active()
                    && runner.is_named_by(node_entry)
            })
    };
    let at_work = runners.all().iter().filter(is_at_work);
    at_work
        .map(|runner| Action::HandOver { node: runner.pod.node.clone(), pod_uid: runner.pod.uid.clone() })
        .collect()
}
