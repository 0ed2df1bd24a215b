//! Groups nodes by their newest answer, so that the one that differs is seen among thousands. Pure.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use scriptrunner_api::{
    text::tail,
    v1alpha1::{Execution, GroupBy, NodeState, NodeStatus, OutputGroup},
};

use super::{
    consensus::{Consensus, Voice},
    fold::{MAX_FOLDED_BYTES, fold_names},
};
use crate::in_step::InStep;

/// Most groups that a status lists.
pub const MAX_GROUPS: usize = 20;
/// Longest sample of a group, in bytes.
pub const MAX_SAMPLE_BYTES: usize = 1024;

/// What a node answered last: enough to group it in every way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Digest of the whole answer.
    pub digest: String,
    /// Digest of the result; empty if there was none.
    pub result_digest: String,
}

/// What nodes answered last, by node name: kept in memory over writes where the byte budget cut the answer from what is stored.
pub type Answers = BTreeMap<String, Answer>;

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

/// What the newest answers come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouped {
    /// The largest groups, at most [`MAX_GROUPS`]. Equal ones stand by digest and exit code.
    pub groups: Vec<OutputGroup>,
    /// How many there are in all, and how much of all answers they have.
    pub consensus: Consensus,
}

/// The groups of the given nodes (those desired); none if that cannot be said.
///
/// A node counts with its newest execution in its entry's run; one that has none, or none with a digest, is in no group.
/// The sample is what the first node by name that has output printed to stdout, or if nothing to stderr; of results it is
/// the result.
///
/// What the byte budget cut must not look like another answer. A digest that is no longer in the history is taken from
/// `known`, an exit code or signal from the entry, and in place of a result its digest is stored. If the answer is in none of
/// these (the operator was restarted), nothing can be said about the groups.
///
/// A sample that was longer in `previous` is kept: the digest says that it is the same answer. Samples of another grouping
/// are of other digests, or of an empty one, for which only the same text cut shorter counts.
pub fn output_groups<'a>(
    nodes: impl IntoIterator<Item = (&'a str, &'a NodeStatus)>,
    by: GroupBy,
    known: &Answers,
    previous: &[OutputGroup],
) -> Option<Grouped> {
    let mut groups: HashMap<Key<'_>, Members<'_>> = HashMap::new();
    let mut silent = Vec::new();
    for (name, node) in nodes {
        let newest = newest_answer(node);
        let key = match newest {
            Some(newest) => Some(Key::of(newest, by)),
            None if was_cut(node) => Some(Key::of_cut(name, node, by, known)?),
            None => None,
        };
        if let Some(key) = key {
            groups.entry(key).or_default().add(name, newest, by);
        } else if is_silent(node) {
            silent.push(name);
        }
    }
    let group_count = groups.len();
    let answered = groups.values().map(|members| members.names.len()).sum();
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(left_key, left), (right_key, right)| {
        (Reverse(left.names.len()), left_key).cmp(&(Reverse(right.names.len()), right_key))
    });
    groups.truncate(MAX_GROUPS);
    let samples: HashMap<(&str, Option<i32>), &str> = previous
        .iter()
        .map(|group| ((group.digest.as_str(), group.exit_code), group.sample.as_str()))
        .collect();
    let mut consensus = Consensus { answered, group_count, ..Consensus::unknown(by) };
    consensus.note_silent(silent);
    let groups = groups.into_iter().map(|(key, members)| {
        let stored = samples.get(&(&*key.digest, key.exit_code)).copied().unwrap_or_default();
        consensus.voices.push(Voice::of(&key, &members.names));
        members.into_group(key, by, stored)
    });
    let groups = groups.collect();
    Some(Grouped { groups, consensus })
}

/// What nodes of one group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key<'a> {
    pub(super) digest: Cow<'a, str>,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
}

impl<'a> Key<'a> {
    fn of(newest: &'a Execution, by: GroupBy) -> Self {
        let digest = match by {
            GroupBy::Output => Cow::Borrowed(newest.digest.as_str()),
            GroupBy::ExitCode => Cow::Borrowed(""),
            GroupBy::Result => Cow::Owned(newest.digest_of_result()),
        };
        Self { digest, exit_code: newest.exit_code, signal: newest.signal }
    }

    /// That of a node whose answer was cut; none if it is not known any more.
    fn of_cut(name: &str, node: &NodeStatus, by: GroupBy, known: &'a Answers) -> Option<Self> {
        let remembered = || known.get(name).filter(|answer| is_of(answer, node));
        let digest = match by {
            GroupBy::Output => remembered()?.digest.as_str(),
            GroupBy::ExitCode => "",
            GroupBy::Result => remembered()?.result_digest.as_str(),
        };
        Some(Self { digest: Cow::Borrowed(digest), exit_code: node.exit_code, signal: node.signal })
    }
}

#[derive(Default)]
struct Members<'a> {
    names: Vec<&'a str>,
    /// The first node by name that has something to show, and that.
    sample: Option<(&'a str, &'a Execution)>,
    /// Whether any may have printed something, as far as that is known.
    may_have_printed: bool,
}

impl<'a> Members<'a> {
    fn add(&mut self, name: &'a str, newest: Option<&'a Execution>, by: GroupBy) {
        self.names.push(name);
        let printed = |newest: &Execution| (newest.stdout_bytes, newest.stderr_bytes) != (Some(0), Some(0));
        self.may_have_printed |= newest.is_none_or(printed);
        let shows = |newest: &&Execution| match by {
            GroupBy::Output | GroupBy::ExitCode => newest.output_bytes() > 0,
            GroupBy::Result => newest.result.is_some(),
        };
        if let Some(newest) = newest.filter(shows)
            && self.sample.is_none_or(|(first, _)| name < first)
        {
            self.sample = Some((name, newest));
        }
    }

    fn into_group(self, Key { digest, exit_code, .. }: Key<'_>, by: GroupBy, stored: &str) -> OutputGroup {
        let seen = self.sample.map_or_else(String::new, |(_, newest)| match by {
            GroupBy::Output | GroupBy::ExitCode => {
                let output = if newest.stdout.is_empty() { &newest.stderr } else { &newest.stdout };
                tail(output, MAX_SAMPLE_BYTES).to_owned()
            }
            GroupBy::Result => newest.result.as_ref().map(ToString::to_string).unwrap_or_default(),
        });
        let keeps_stored = match by {
            GroupBy::Output => stored.len() >= seen.len(),
            // Without an exit code, groups of two signals look the same. The same text cut shorter may be none.
            GroupBy::ExitCode => exit_code.is_some() && self.may_have_printed && stored.ends_with(&seen),
            GroupBy::Result => !digest.is_empty() && stored.len() >= seen.len(),
        };
        OutputGroup {
            exit_code,
            digest: digest.into_owned(),
            node_count: u32::try_from(self.names.len()).unwrap_or(u32::MAX),
            nodes: fold_names(self.names, MAX_FOLDED_BYTES),
            sample: if keeps_stored { stored.to_owned() } else { seen },
        }
    }
}

/// The newest execution of the entry's run, if it has an answer.
fn newest_answer(node: &NodeStatus) -> Option<&Execution> {
    node.history.last().filter(|newest| newest.run == node.run && !newest.digest.is_empty())
}

/// The newest answer of a node whose history is about to be cut.
pub(super) fn answer_to_keep(node: &NodeStatus) -> Option<Answer> {
    newest_answer(node).map(|newest| Answer {
        exit_code: newest.exit_code,
        digest: newest.digest.clone(),
        result_digest: newest.digest_of_result(),
    })
}

/// Whether what is remembered is still the node's newest answer, cut from its history.
fn is_of(answer: &Answer, node: &NodeStatus) -> bool {
    was_cut(node) && answer.exit_code == node.exit_code
}

/// Whether a node that is not left out has not answered in its entry's run.
pub(super) fn is_silent(node: &NodeStatus) -> bool {
    node.node_state() != NodeState::Skipped && newest_answer(node).is_none() && !was_cut(node)
}

/// Whether the run's executions are known to have ended in an answer, but none of them is in the history. Only the budget
/// does that: an execution that was lost leaves neither exit code nor signal.
fn was_cut(node: &NodeStatus) -> bool {
    let ended = node.exit_code.is_some() || node.signal.is_some();
    node.serial > 0 && ended && node.history.last().is_none_or(|newest| newest.run != node.run)
}

#[cfg(test)]
mod tests;
