//! Groups nodes by their newest answer, so that the one that differs is seen among thousands. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use scriptrunner_api::{
    text::tail,
    v1alpha1::{Execution, NodeStatus, OutputGroup},
};

use super::fold::{MAX_FOLDED_BYTES, fold_names};
use crate::in_step::InStep;

/// Most groups that a status lists.
pub const MAX_GROUPS: usize = 20;
/// Longest sample of a group, in bytes.
pub const MAX_SAMPLE_BYTES: usize = 1024;

/// What nodes answered last, exit code and digest by node name: kept in memory over writes where the byte budget cut the
/// digest from what is stored.
pub type Answers = BTreeMap<String, (Option<i32>, String)>;

/// The memory for the next status: what this cut cost, and of what was known all that is still the newest answer of its
/// node and not in its history. To be made on every change of a status: a node that answers in two runs without being seen
/// in between would keep the first answer.
pub fn remember(known: &Answers, cut: Answers, nodes: &BTreeMap<String, NodeStatus>) -> Answers {
    let mut entries = InStep::new(nodes);
    let mut answers: Answers = known
        .iter()
        .filter(|(name, answer)| entries.get(name).is_some_and(|node| is_of(answer, node)))
        .map(|(name, answer)| (name.clone(), answer.clone()))
        .collect();
    answers.extend(cut);
    answers
}

/// The groups of the given nodes (those desired), at most [`MAX_GROUPS`], and how many there are in all. The largest come
/// first, equal ones by digest and exit code.
///
/// A node counts with its newest execution in its entry's run; one that has none, or none with a digest, is in no group.
/// The sample is what the first node by name that has output printed to stdout, or if nothing to stderr.
///
/// What the byte budget cut must not look like another answer. A digest that is no longer in the history is taken from
/// `known`; if it is not there either (the operator was restarted), nothing can be said about the groups, and `previous`
/// and `previous_count` come back unchanged. A sample that was longer in `previous` is kept: the digest says that it is
/// the same answer.
pub fn output_groups<'a>(
    nodes: impl IntoIterator<Item = (&'a str, &'a NodeStatus)>,
    known: &Answers,
    previous: &[OutputGroup],
    previous_count: u32,
) -> (Vec<OutputGroup>, u32) {
    let mut groups: HashMap<Answer<'_>, Members<'_>> = HashMap::new();
    for (name, node) in nodes {
        let newest = newest_answer(node);
        let remembered = || {
            let (exit_code, digest) = known.get(name).filter(|answer| is_of(answer, node))?;
            Some((digest.as_str(), *exit_code))
        };
        match newest.map(answer).or_else(remembered) {
            Some(answer) => groups.entry(answer).or_default().add(name, newest),
            None if was_cut(node) => return (previous.to_vec(), previous_count),
            None => {}
        }
    }
    let count = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(answer, members)| (Reverse(members.names.len()), *answer));
    groups.truncate(MAX_GROUPS);
    let samples: HashMap<Answer<'_>, &str> = previous
        .iter()
        .map(|group| ((group.digest.as_str(), group.exit_code), group.sample.as_str()))
        .collect();
    let groups = groups.into_iter().map(|(answer, members)| {
        let stored = samples.get(&answer).copied().unwrap_or_default();
        members.into_group(answer, stored)
    });
    (groups.collect(), count)
}

/// Digest and exit code.
type Answer<'a> = (&'a str, Option<i32>);

#[derive(Default)]
struct Members<'a> {
    names: Vec<&'a str>,
    /// The first node by name that has output, and the output.
    sample: Option<(&'a str, &'a str)>,
}

impl<'a> Members<'a> {
    fn add(&mut self, name: &'a str, newest: Option<&'a Execution>) {
        self.names.push(name);
        let output = newest
            .map_or("", |newest| if newest.stdout.is_empty() { &newest.stderr } else { &newest.stdout });
        if !output.is_empty() && self.sample.is_none_or(|(first, _)| name < first) {
            self.sample = Some((name, output));
        }
    }

    fn into_group(self, (digest, exit_code): Answer<'_>, stored: &str) -> OutputGroup {
        let seen = tail(self.sample.map_or("", |(_, output)| output), MAX_SAMPLE_BYTES);
        OutputGroup {
            exit_code,
            digest: digest.to_owned(),
            node_count: u32::try_from(self.names.len()).unwrap_or(u32::MAX),
            nodes: fold_names(self.names, MAX_FOLDED_BYTES),
            sample: if stored.len() >= seen.len() { stored } else { seen }.to_owned(),
        }
    }
}

/// The newest execution of the entry's run, if it has an answer.
fn newest_answer(node: &NodeStatus) -> Option<&Execution> {
    node.history.last().filter(|newest| newest.run == node.run && !newest.digest.is_empty())
}

fn answer(newest: &Execution) -> Answer<'_> {
    (&newest.digest, newest.exit_code)
}

/// The newest answer of a node whose history is about to be cut.
pub(super) fn answer_to_keep(node: &NodeStatus) -> Option<(Option<i32>, String)> {
    newest_answer(node).map(|newest| (newest.exit_code, newest.digest.clone()))
}

/// Whether what is remembered is still the node's newest answer, cut from its history.
fn is_of((exit_code, _): &(Option<i32>, String), node: &NodeStatus) -> bool {
    was_cut(node) && *exit_code == node.exit_code
}

/// Whether the run's executions are known to have ended in an answer, but none of them is in the history. Only the budget
/// does that: an execution that was lost leaves neither exit code nor signal.
fn was_cut(node: &NodeStatus) -> bool {
    let ended = node.exit_code.is_some() || node.signal.is_some();
    node.serial > 0 && ended && node.history.last().is_none_or(|newest| newest.run != node.run)
}

#[cfg(test)]
mod tests;
