//! Gives up runners that should have ended long ago, so that a hung node holds no slot for ever. Pure.
//!
//! A runner ends each execution at its deadline. One that has not ended when all its executions must be over is not at work
//! any more: its node's kernel, disk or kubelet hangs, whatever the Node's condition says.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{NodeState, NodeStatus},
};

use super::{
    Draft, entry,
    runners::{Runner, Runners},
};
use crate::{
    observed::Observed,
    pod::{PodSettings, longest_seconds},
    validate::ValidRun,
};

/// Gives up every node of the run whose runner should have ended. Its pod is deleted once that is stored.
pub(super) fn give_up(
    draft: &mut Draft<'_>,
    run: &ValidRun,
    observed: &Observed,
    runners: &Runners<'_>,
    settings: &PodSettings,
) {
    let (number, now) = (draft.run_number(), draft.now);
    let rules = Rules { run, since: observed.since, margin: settings.times.hung_after_seconds };
    let mut looks = Vec::new();
    let mut walk = runners.walk();
    let entries = draft.status.nodes.iter_mut().filter(|(_, node_entry)| node_entry.run == number);
    for (name, node_entry) in entries.filter(|(_, node_entry)| is_at_work(node_entry)) {
        let named = walk.on(name).iter().find(|runner| runner.is_named_by(node_entry));
        let Some(end) = named.and_then(|runner| rules.latest_end(runner)) else { continue };
        if end > now {
            looks.push(end);
            continue;
        }
        let message = "the runner should have ended by its deadlines long ago and did not; look at the node. Its slot is free and its pod is deleted";
        entry::set(node_entry, NodeState::Unknown, Some(NodeReason::Hung), message);
    }
    for look in looks {
        draft.look_again_at(look);
    }
}

fn is_at_work(node_entry: &NodeStatus) -> bool {
    node_entry.node_state() == NodeState::Running && node_entry.pod_id.is_some()
}

struct Rules<'a> {
    run: &'a ValidRun,
    /// Since when this process looks.
    since: Timestamp,
    /// Seconds between the latest possible end and the giving up.
    margin: u32,
}

impl Rules<'_> {
    /// When the runner is given up; none if it may go on for ever.
    fn latest_end(&self, runner: &Runner<'_>) -> Option<Timestamp> {
        let to_start = SignedDuration::from_secs(i64::from(self.run.limits.start_deadline_seconds));
        let (start, longest) = match runner.ordered() {
            None => {
                let created = runner.pod.created?;
                // A start before the creation is of a node whose clock is wrong.
                let started = runner.pod.started.filter(|started| *started >= created);
                (started.unwrap_or_else(|| later(created, to_start)), runner.pod.longest_seconds?)
            }
            // When it heard of its order is not known, but that it would have been given up if not by then.
            Some(part) => {
                let told = runner.ordered_at(part.run).unwrap_or(self.since);
                (later(told, to_start), longest_seconds(self.run, 1, self.run.pinned.executions())?)
            }
        };
        let longest = i64::try_from(longest).unwrap_or(i64::MAX).saturating_add(i64::from(self.margin));
        Some(later(start, SignedDuration::from_secs(longest)))
    }
}

fn later(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}
