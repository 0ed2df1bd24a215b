//! Whether the nodes agree, and which ones do not: the condition `Consistent`. Pure.

use scriptrunner_api::{
    condition::{ConditionType, Verdict},
    reason::ConditionReason,
    text::head,
    v1alpha1::{GroupBy, OutputGroup},
};

use super::{
    fold::fold_names,
    groups::Key,
    size::{head_within, stored_bytes},
};

/// Longest message of the condition, in bytes as stored: the byte budget sets room aside for it.
pub(super) const MAX_STORED_MESSAGE_BYTES: usize = 1024;
/// Percentage of the answers that makes the largest group the majority.
const MAJORITY_PERCENT: usize = 60;
/// Longest names of one group in the message, in bytes.
const MAX_NAMES_BYTES: usize = 200;
/// Longest words of one group in the message, in bytes.
const MAX_WORDS_BYTES: usize = 80;

/// How far the nodes agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consensus {
    /// What counts as the same answer.
    pub by: GroupBy,
    /// Nodes that have answered.
    pub answered: usize,
    /// Nodes that have not, but for those that are left out.
    pub silent: usize,
    /// Their names, folded; empty unless all that answered agree.
    pub silent_nodes: String,
    /// Different answers.
    pub group_count: usize,
    /// The largest groups, in the order in which the status lists them.
    pub voices: Vec<Voice>,
}

/// One group, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// How its nodes' executions ended.
    pub ending: String,
    /// Its nodes.
    pub node_count: usize,
    /// Their names, folded.
    pub nodes: String,
}

impl Voice {
    pub(super) fn of(key: &Key<'_>, names: &[&str]) -> Self {
        let ending = match (key.signal, key.exit_code) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "no exit code".to_owned(),
        };
        Self { ending, node_count: names.len(), nodes: fold_names(names.iter().copied(), MAX_NAMES_BYTES) }
    }
}

impl Consensus {
    /// When nothing is known of any answer.
    pub fn unknown(by: GroupBy) -> Self {
        Self { by, answered: 0, silent: 0, silent_nodes: String::new(), group_count: 0, voices: Vec::new() }
    }

    /// Takes in which nodes have not answered.
    pub(super) fn note_silent(&mut self, names: Vec<&str>) {
        self.silent = names.len();
        if self.group_count == 1 {
            self.silent_nodes = fold_names(names, MAX_NAMES_BYTES);
        }
    }

    /// What the condition is to say, with the groups as they are stored: what was cut from their samples is not said either,
    /// so that the next status, which no longer knows it, says the same.
    pub fn verdict(&self, stored: &[OutputGroup]) -> Verdict {
        let verdict = |holds, reason, message: String| Verdict {
            type_: ConditionType::Consistent,
            holds,
            reason,
            message: head_within(&message, MAX_STORED_MESSAGE_BYTES).to_owned(),
        };
        let Some(largest) = self.voices.first() else {
            let message = "no node has answered".to_owned();
            return verdict(None, ConditionReason::NothingToCompare, message);
        };
        let Self { answered, silent, silent_nodes, group_count, .. } = self;
        let Voice { ending, node_count, nodes } = largest;
        if *group_count == 1 && *silent > 0 {
            // The next to answer may differ: whoever waits for the condition would be told too early.
            let message = format!(
                "{answered} of {} nodes have answered and agree ({ending}); no answer from {silent_nodes}",
                answered + silent
            );
            verdict(None, ConditionReason::NotAllAnswered, message)
        } else if *group_count == 1 {
            let message = match answered {
                1 => format!("the only node answered ({ending})"),
                _ => format!("all {answered} nodes agree ({ending})"),
            };
            verdict(Some(true), ConditionReason::SameAnswer, message)
        } else if node_count * 100 >= answered * MAJORITY_PERCENT {
            let message = format!("{node_count} of {answered} nodes agree ({ending}); differ: ");
            verdict(Some(false), ConditionReason::Outliers, self.with_outliers(message, stored))
        } else {
            let message = format!(
                "there is no majority: {answered} nodes gave {group_count} different answers, the largest group has {node_count} ({} %; {ending}): {nodes}{}",
                node_count * 100 / answered,
                self.advice()
            );
            verdict(Some(false), ConditionReason::NoMajority, message)
        }
    }

    /// Adds the groups but the largest, as many as fit.
    fn with_outliers(&self, mut message: String, stored: &[OutputGroup]) -> String {
        const ROOM_FOR_END: usize = 40;
        let mut named = 0;
        for (index, voice) in self.voices.iter().enumerate().skip(1) {
            let words = stored.get(index).map_or("", |group| words(group, self.by));
            let colon = if words.is_empty() { "" } else { ": " };
            let outlier = format!("{}: {}{colon}{words}", voice.nodes, voice.ending);
            if stored_bytes(&message) + stored_bytes(&outlier) + ROOM_FOR_END > MAX_STORED_MESSAGE_BYTES {
                break;
            }
            if named > 0 {
                message.push_str("; ");
            }
            message.push_str(&outlier);
            named += 1;
        }
        match self.group_count - 1 - named {
            0 => message,
            more => message + &format!("; and {more} more groups"),
        }
    }

    /// What to do where every node says something else.
    fn advice(&self) -> &'static str {
        match self.by {
            GroupBy::Output => {
                "; where times or host names in the outputs make every answer differ, set output.groupBy to ExitCode, or to Result and write what matters to the file that $SCRIPTRUNNER_RESULT_FILE names"
            }
            GroupBy::Result => {
                "; where times or host names in the results make every answer differ, leave them out, or set output.groupBy to ExitCode"
            }
            GroupBy::ExitCode => "",
        }
    }
}

/// What the group said, in a few words: its last line, or its result.
fn words(group: &OutputGroup, by: GroupBy) -> &str {
    if by == GroupBy::Result && group.digest.is_empty() {
        return "no result";
    }
    let line = group.sample.lines().rev().map(str::trim).find(|line| !line.is_empty());
    head(line.unwrap_or_default(), MAX_WORDS_BYTES)
}

#[cfg(test)]
mod tests;
