//! Which nodes the run is for, and what is done with those that have not started in it. Pure.
//!
//! **Invariant:** only an entry that has not started in the run is judged, put out of the run, or taken out of the sample. So
//! whatever befalls a node (labels, taints, cordon, readiness, gone and back), it is not run twice in a run.

mod judgement;
mod sample;

use scriptrunner_api::{
    reason::NodeReason,
    v1alpha1::{LabelOperator, LabelSelector, NewNodePolicy, NodeState, NodeStatus},
};

use self::judgement::{Judgement, judge_node, new_node, not_found, out_of_scope};
pub(crate) use self::judgement::{TOLERATED_TAINTS, is_cordoned};
use super::{Draft, entry, run::TRIGGER_RERUN, runners::Runners};
use crate::{
    in_step::InStep,
    observed::{NodeFacts, Observed, PodFacts},
    results::{Beside, PodState, pod_state},
    validate::{Matching, Targets, ValidRun},
};

/// What is the same for every node.
struct Rules<'a> {
    targets: &'a Targets,
    /// The current run.
    run: u64,
    /// Whether nodes that the run does not know yet are new, and new nodes are ignored.
    ignores_new: bool,
    /// Whether the run is a rerun: the nodes that it was begun with are drawn first.
    is_rerun: bool,
    /// Whether stored entries were lost, so that one that is missing may have been run.
    status_lost: bool,
}

/// Names of all nodes that are meant, those without a Node included, sorted.
fn matching_names<'a>(targets: &'a Targets, observed: &'a Observed) -> Vec<&'a str> {
    match &targets.matching {
        Matching::Names(names) => names.iter().map(String::as_str).collect(),
        Matching::Selector(selector) => {
            let matching = observed.nodes.iter().filter(|(_, node)| matches(selector, node));
            matching.map(|(name, _)| name.as_str()).collect()
        }
    }
}

/// Names that the status of a run would have to hold, the longest possible ones where they are yet to be drawn.
pub(super) fn names_at_most<'a>(targets: &'a Targets, observed: &'a Observed) -> Vec<&'a str> {
    let names = matching_names(targets, observed);
    match targets.sample {
        None => names,
        Some(count) => sample::longest(count, names, targets, observed),
    }
}

/// Brings the set of desired nodes up to date, and judges every node that has not started in the run.
pub(super) fn judge(draft: &mut Draft<'_>, run: &ValidRun, observed: &Observed, runners: &Runners<'_>) {
    let targets = &run.targets;
    let rules = Rules {
        targets,
        run: draft.run_number(),
        ignores_new: targets.new_nodes == NewNodePolicy::Ignore && is_under_way(draft, observed),
        is_rerun: draft.status.run.as_ref().is_some_and(|run| run.trigger == TRIGGER_RERUN),
        status_lost: lost_entries(draft, observed),
    };
    let mut names = matching_names(targets, observed);
    if let Some(count) = targets.sample {
        names = sample::draw(count, names, &rules, observed, &draft.status.nodes);
    }
    let mut nodes = InStep::new(&observed.nodes);
    let mut desired = names.into_iter().peekable();
    let (mut added, mut left) = (Vec::new(), Vec::new());
    for (name, node_entry) in &mut draft.status.nodes {
        while let Some(missing) = desired.next_if(|desired| *desired < name.as_str()) {
            added.push(missing);
        }
        if desired.next_if_eq(&name.as_str()).is_some() {
            rules.desire(node_entry, nodes.get(name));
        } else if node_entry.run == rules.run && is_unstarted(node_entry) {
            left.push(name.clone());
        }
    }
    added.extend(desired);
    for name in added {
        let mut node_entry = NodeStatus::default();
        rules.desire(&mut node_entry, observed.nodes.get(name));
        draft.status.nodes.insert(name.to_owned(), node_entry);
    }
    for name in left {
        if !draft.status.nodes.get_mut(&name).is_some_and(entry::leave) {
            draft.status.nodes.remove(&name);
        }
    }
    go_on_counting(draft, runners);
}

/// The pod of a node that came late is made before the node's entry is stored. If the process dies between the two, or the
/// node ceases to match, the pod is there all the same: its node is part of the run.
pub(super) fn admit_unrecorded(draft: &mut Draft<'_>, observed: &Observed, runners: &Runners<'_>) {
    if lost_entries(draft, observed) {
        return;
    }
    let number = draft.run_number();
    let is_cut = draft.status.truncation.is_some();
    let is_over = draft.status.run.as_ref().is_some_and(|run| run.completion_time.is_some());
    let is_unrecorded = |pod: &PodFacts, entry: Option<&NodeStatus>| {
        let node = observed.nodes.get(&pod.node);
        match entry {
            // The size limit costs entries of gone nodes first, and so does their age: one that is dropped does not come back.
            None => {
                let is_dropped = is_cut || (is_over && pod.has_ended());
                node.is_some_and(|node| node.id == pod.node_id) || !is_dropped
            }
            Some(entry) if entry.node_id == pod.node_id => entry.run < number,
            Some(_) => node.is_some_and(|node| node.id == pod.node_id),
        }
    };
    let mut entries = InStep::new(&draft.status.nodes);
    let unrecorded: Vec<&PodFacts> =
        of_run(runners, number).filter(|pod| is_unrecorded(pod, entries.get(&pod.node))).collect();
    for pod in unrecorded {
        let may_start = (!pod.deleting || pod.container.started())
            && !matches!(pod_state(pod, Beside::default()), PodState::NeverStarted(_));
        if !may_start || !is_unrecorded(pod, draft.status.nodes.get(&pod.node)) {
            continue;
        }
        let node_entry = draft.status.nodes.entry(pod.node.clone()).or_default();
        if node_entry.node_id != pod.node_id {
            *node_entry = NodeStatus { node_id: pod.node_id.clone(), ..NodeStatus::default() };
        }
        if node_entry.run < number {
            entry::reset_for_run(node_entry, number);
        }
        if pod.attempt > node_entry.attempts {
            // What became of it is taken in at the next look.
            entry::reach_attempt(node_entry, pod.attempt);
            entry::begin(node_entry, &pod.id, NodeState::Starting, "");
        }
    }
}

/// A node that left the run and comes back goes on counting its pods: the name of one that never started is still taken.
fn go_on_counting(draft: &mut Draft<'_>, runners: &Runners<'_>) {
    let number = draft.run_number();
    let mut entries = InStep::new(&draft.status.nodes);
    let is_uncounted = |pod: &&PodFacts| {
        entries.get(&pod.node).is_some_and(|entry| {
            (entry.run, &entry.node_id) == (number, &pod.node_id)
                && is_unstarted(entry)
                && entry.attempts < pod.attempt
                // Any other is taken in at the next look.
                && matches!(pod_state(pod, Beside::default()), PodState::NeverStarted(_))
        })
    };
    let uncounted: Vec<&PodFacts> = of_run(runners, number).filter(is_uncounted).collect();
    for pod in uncounted {
        if let Some(node_entry) = draft.status.nodes.get_mut(&pod.node) {
            entry::reach_attempt(node_entry, pod.attempt);
        }
    }
}

fn of_run<'a>(runners: &Runners<'a>, run: u64) -> impl Iterator<Item = &'a PodFacts> {
    runners.all().iter().map(|runner| runner.pod).filter(move |pod| pod.run == run)
}

impl Rules<'_> {
    /// Makes the entry one of the run, and judges its node if it has not started.
    fn desire(&self, node_entry: &mut NodeStatus, node: Option<&NodeFacts>) {
        let is_empty = node_entry.state.is_empty();
        let another_node = node.filter(|node| node_entry.node_id != node.id);
        if let Some(node) = another_node {
            *node_entry = NodeStatus { node_id: node.id.clone(), ..NodeStatus::default() };
        }
        if is_empty || another_node.is_some() || !node_entry.is_in(self.run) {
            entry::reset_for_run(node_entry, self.run);
            if is_empty && self.status_lost {
                entry::set(
                    node_entry,
                    NodeState::Unknown,
                    Some(NodeReason::StatusLost),
                    "the entry was lost from the status; it is not known whether the node was run",
                );
            } else if self.ignores_new && node.is_some() {
                // Stays until the node is judged: a pod of an older run may still have to end.
                entry::set(node_entry, NodeState::Pending, Some(NodeReason::NewNode), "");
            }
        }
        if node_entry.run == self.run && is_unstarted(node_entry) {
            put(node_entry, self.judge(node_entry, node));
        }
    }

    /// Judges a node that has not started.
    fn judge(&self, node_entry: &NodeStatus, node: Option<&NodeFacts>) -> Judgement {
        let ignores_new = self.targets.new_nodes == NewNodePolicy::Ignore;
        match node {
            None if entry::reason(node_entry) == Some(NodeReason::OutOfScope) => out_of_scope(),
            None => not_found(self.targets),
            // Before all other reasons: they may pass, and the node is still new.
            Some(_) if ignores_new && entry::reason(node_entry) == Some(NodeReason::NewNode) => {
                new_node(self.run)
            }
            Some(_) if entry::reason(node_entry) == Some(NodeReason::OutOfScope) => out_of_scope(),
            Some(node) => judge_node(self.targets, node),
        }
    }
}

/// Whether what the run was to begin with is stored: then a node without an entry in it came later. The nodes that an edited
/// spec is the first to mean are not new.
fn is_under_way(draft: &Draft<'_>, observed: &Observed) -> bool {
    let (number, object) = (draft.run_number(), &observed.object);
    observed.previous.as_ref().is_some_and(|previous| {
        previous.run.as_ref().is_some_and(|run| run.number == number)
            && previous.accepted_generation == Some(object.generation)
            && previous.object_uid.as_ref() == Some(&object.uid)
    })
}

/// Whether the stored counters speak of more nodes than the stored entries: then an entry that is missing was not new.
fn lost_entries(draft: &Draft<'_>, observed: &Observed) -> bool {
    let number = draft.run_number();
    observed.previous.as_ref().is_some_and(|previous| {
        let same_run = previous.run.as_ref().is_some_and(|run| run.number == number);
        let entries = previous.nodes.values().filter(|entry| entry.is_in(number)).count();
        same_run && previous.desired as usize > entries
    })
}

/// Whether no pod of this run was made for the node, or none that started.
fn is_unstarted(node_entry: &NodeStatus) -> bool {
    match node_entry.node_state() {
        // A pod of an older run that has not ended keeps its entry until its end is counted.
        NodeState::Pending => node_entry.pod_id.is_none() && !entry::is_between_pods(node_entry),
        // A pod that never started may have been made and replaced before.
        NodeState::Skipped => entry::is_left_out(node_entry),
        NodeState::Unknown => {
            node_entry.attempts == 0 && entry::reason(node_entry) == Some(NodeReason::Unreachable)
        }
        NodeState::Starting
        | NodeState::Running
        | NodeState::Succeeded
        | NodeState::Failed
        | NodeState::Stopped => false,
    }
}

fn put(node_entry: &mut NodeStatus, judgement: Judgement) {
    let state = node_entry.node_state();
    match judgement {
        Judgement::Skip(reason, message) => {
            // A pod that was made and replaced has not run the script, so the node may still be left out.
            entry::set(node_entry, NodeState::Skipped, Some(reason), &message);
        }
        // Once given up, a node stays so until it is Ready again.
        Judgement::Wait(_) if state == NodeState::Unknown => {}
        Judgement::Wait(message) => {
            entry::set(node_entry, NodeState::Pending, Some(NodeReason::NodeNotReady), &message);
        }
        Judgement::Run => {
            let keeps_reason = matches!(
                entry::reason(node_entry),
                Some(NodeReason::PodRefused | NodeReason::Replaced | NodeReason::NameConflict)
            );
            if state != NodeState::Pending || !keeps_reason {
                entry::set(node_entry, NodeState::Pending, None, "");
            }
        }
    }
}

/// Whether a node's labels match, by the rules of a Kubernetes label selector: `NotIn` also matches an absent label.
fn matches(selector: &LabelSelector, node: &NodeFacts) -> bool {
    let equal = selector.match_labels.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().all(|requirement| {
            let value = node.labels.get(&requirement.key);
            match requirement.operator {
                LabelOperator::In => value.is_some_and(|value| requirement.values.contains(value)),
                LabelOperator::NotIn => value.is_none_or(|value| !requirement.values.contains(value)),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        })
}
