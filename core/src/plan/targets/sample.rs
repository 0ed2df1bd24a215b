//! Which of the nodes that are meant a sample consists of. Pure.
//!
//! **Invariant:** within a run no more nodes are started than the sample has, and one that has started stays in it.

use std::{cmp::Reverse, collections::BTreeMap};

use scriptrunner_api::v1alpha1::NodeStatus;
use sha2::{Digest, Sha256};

use super::{
    Rules, is_unstarted,
    judgement::{Judgement, exclusion, judge_node},
};
use crate::{
    in_step::InStep,
    observed::{NodeFacts, Observed},
    validate::{NodeCount, Targets},
};

/// What a node is to the sample.
enum Part<'a> {
    /// It is listed, in the sample or not: it has no Node, or somebody excluded it.
    Listed,
    /// It has started in the run.
    Started,
    /// Another node had its name and has started: what became of that one is kept.
    Replacement,
    /// It may be drawn.
    Candidate(&'a NodeFacts),
}

/// The names that are desired, sorted: those that started, those that are drawn, and those that are listed anyway.
pub(super) fn draw<'a>(
    count: NodeCount,
    names: Vec<&'a str>,
    rules: &Rules<'_>,
    observed: &'a Observed,
    entries: &BTreeMap<String, NodeStatus>,
) -> Vec<&'a str> {
    let (mut nodes, mut known) = (InStep::new(&observed.nodes), InStep::new(entries));
    let (mut desired, mut candidates, mut all) = (Vec::new(), Vec::new(), 0);
    for name in names {
        let own = known.get(name).filter(|entry| entry.is_in(rules.run));
        let part = part(rules.targets, nodes.get(name), own.filter(|entry| !may_be_put_out(rules, entry)));
        all += usize::from(!matches!(part, Part::Listed));
        match part {
            Part::Listed | Part::Started => desired.push(name),
            // A sample that ignores new nodes is drawn once.
            Part::Candidate(node) if own.is_some() || !rules.ignores_new => {
                candidates.push((name, node, own.is_some() && rules.is_rerun));
            }
            Part::Replacement | Part::Candidate(_) => {}
        }
    }
    // Also those that match no more or are gone: they were run.
    let started =
        entries.values().filter(|entry| entry.is_in(rules.run) && !may_be_put_out(rules, entry)).count();
    let free = count.nodes(all).saturating_sub(started);
    if free < candidates.len() {
        // Nodes that cannot be run now come last, so that a small sample does not consist of them.
        candidates.sort_by_cached_key(|(_, node, is_own)| {
            let is_left_out = matches!(judge_node(rules.targets, node), Judgement::Skip(..));
            // A rerun of some nodes is of those nodes, whatever the draw.
            (!is_own, is_left_out, rank(rules.run, &node.uid))
        });
        candidates.truncate(free);
    }
    desired.extend(candidates.into_iter().map(|(name, ..)| name));
    desired.sort_unstable();
    desired
}

/// Whether the entry of the run may leave the sample: it has not started, and stands for nothing older.
fn may_be_put_out(rules: &Rules<'_>, entry: &NodeStatus) -> bool {
    entry.run == rules.run && is_unstarted(entry)
}

/// What a node is; `started` is its entry if it has started in the run, or need not.
fn part<'a>(targets: &Targets, node: Option<&'a NodeFacts>, started: Option<&NodeStatus>) -> Part<'a> {
    let Some(node) = node else { return Part::Listed };
    if let Some(entry) = started {
        if entry.node_id == node.id { Part::Started } else { Part::Replacement }
    } else if exclusion(targets, node).is_some() {
        Part::Listed
    } else {
        Part::Candidate(node)
    }
}

/// Where a node stands in the draw of a run.
fn rank(run: u64, node_uid: &str) -> [u8; 32] {
    Sha256::digest(format!("{run}\0{node_uid}").as_bytes()).into()
}

/// The longest names that a sample can have, and those that are listed anyway.
pub(super) fn longest<'a>(
    count: NodeCount,
    names: Vec<&'a str>,
    targets: &Targets,
    observed: &Observed,
) -> Vec<&'a str> {
    let mut nodes = InStep::new(&observed.nodes);
    let (mut drawn, mut listed) = (Vec::new(), Vec::new());
    for name in names {
        match part(targets, nodes.get(name), None) {
            Part::Listed => listed.push(name),
            Part::Started | Part::Replacement | Part::Candidate(_) => drawn.push(name),
        }
    }
    let size = count.nodes(drawn.len());
    drawn.sort_by_key(|name| Reverse(name.len()));
    drawn.truncate(size);
    drawn.extend(listed);
    drawn
}
