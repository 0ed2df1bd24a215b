//! Whether a run goes on: what a user may set to hold it or to stop it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the run goes on. `Active` (the default): it does. `Paused`: nothing new is started. Pods that repeat end after
/// their current execution and wait as `Pending` with reason `Paused`; where a runner has no session with the operator,
/// an endless repetition ends when it next hands over to another pod, a counted one at its end. A script that does not
/// repeat goes on to its end. `Stopped`: as `Paused`, and what executes is told to end now, with SIGTERM and, after
/// `terminationGracePeriodSeconds`, SIGKILL; these nodes are `Stopped` with reason `Stopped`, and once no pod is left the
/// run has `Failed` with reason `Stopped`. Nodes that never started stay `Pending`. Back at `Active` the same run goes on
/// with what remains: nodes that were paused or stopped in another pod, with the next serial and the count that is left
/// (an execution that was stopped counts, but at least one is made); nodes that are done are not run again. The
/// condition `Suspended` tells. A change applies at once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DesiredExecution {
    /// It goes on with what remains.
    #[default]
    Active,
    /// Nothing new is started; repeating pods end after their current execution.
    Paused,
    /// Nothing new is started; what executes is told to end now.
    Stopped,
}
