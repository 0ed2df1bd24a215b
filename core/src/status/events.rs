//! What a new status says for the first time, for people who watch Events. Pure.

use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    text::harmless_head,
    v1alpha1::{NodeState, NodeStatus, RunStatus, ScriptRunnerStatus},
};

/// Longest note of an Event, in bytes (events.k8s.io/v1).
const MAX_NOTE_BYTES: usize = 1000;

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is a warning.
    pub is_warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// What was done.
    pub action: &'static str,
    /// What happened.
    pub note: String,
    /// The node that it is about; such notices are limited per run.
    pub node: Option<String>,
}

/// What `new` says that `old` did not. Only transitions: the same status twice says nothing.
pub fn notices(old: Option<&ScriptRunnerStatus>, new: &ScriptRunnerStatus) -> Vec<Notice> {
    let empty = ScriptRunnerStatus::default();
    let old = old.unwrap_or(&empty);
    let mut notices = Vec::new();
    notices.extend(refused(old, new));
    notices.extend(started(old, new));
    for (name, entry) in &new.nodes {
        notices.extend(node(name, old.nodes.get(name), entry));
    }
    notices.extend(turned(old, new, ConditionType::Complete, "RunCompleted", false));
    notices.extend(turned(old, new, ConditionType::Failed, "RunFailed", true));
    notices
}

/// The note of any Event, at most 1000 bytes and harmless, whoever had a say in it.
pub fn harmless_note(note: &str) -> String {
    harmless_head(note, MAX_NOTE_BYTES)
}

fn notice(is_warning: bool, reason: &'static str, action: &'static str, note: &str) -> Notice {
    Notice { is_warning, reason, action, note: harmless_note(note), node: None }
}

fn refused(old: &ScriptRunnerStatus, new: &ScriptRunnerStatus) -> Option<Notice> {
    let accepted = find(&new.conditions, ConditionType::Accepted)?;
    let before = find(&old.conditions, ConditionType::Accepted);
    let is_new =
        before.is_none_or(|before| (&before.status, &before.reason) != (&accepted.status, &accepted.reason));
    (accepted.status == "False" && is_new).then(|| notice(true, "NotAccepted", "Validate", &accepted.message))
}

fn started(old: &ScriptRunnerStatus, new: &ScriptRunnerStatus) -> Option<Notice> {
    let run = new.run.as_ref()?;
    let is_new = old.run.as_ref().is_none_or(|old| old.number != run.number);
    is_new.then(|| {
        // The digest first: a note is cut at its end.
        let RunStatus { number, trigger, script_digest, .. } = run;
        let asked =
            run.requested_by.as_ref().map_or_else(String::new, |who| format!(", requested by {who:?}"));
        let note = format!(
            "run {number} ({trigger}) is for {} nodes: script sha256:{script_digest}{asked}",
            new.desired
        );
        notice(false, "RunStarted", "Start", &note)
    })
}

fn turned(
    old: &ScriptRunnerStatus,
    new: &ScriptRunnerStatus,
    type_: ConditionType,
    reason: &'static str,
    is_warning: bool,
) -> Option<Notice> {
    let same_run = old.run.as_ref().map(|run| run.number) == new.run.as_ref().map(|run| run.number);
    let is_new = holds(&new.conditions, type_) && !(same_run && holds(&old.conditions, type_));
    let message = find(&new.conditions, type_).map(|condition| condition.message.clone()).unwrap_or_default();
    let number = new.run.as_ref().map_or(0, |run| run.number);
    is_new.then(|| notice(is_warning, reason, "Finish", &format!("run {number}: {message}")))
}

fn node(name: &str, old: Option<&NodeStatus>, new: &NodeStatus) -> Option<Notice> {
    let state = new.node_state();
    let before = old.map(|old| (old.node_state(), old.run, old.attempts));
    let is_new = before != Some((state, new.run, new.attempts));
    let bad = matches!(state, NodeState::Failed | NodeState::Unknown | NodeState::Stopped);
    if !bad || !is_new {
        return None;
    }
    let ending = match (new.exit_code, new.signal) {
        (_, Some(signal)) => format!(", signal {signal}"),
        (Some(code), None) => format!(", exit code {code}"),
        (None, None) => String::new(),
    };
    let last_line =
        new.history.last().and_then(|execution| execution.stderr.lines().last()).unwrap_or_default();
    let said = if new.message.is_empty() { last_line } else { &new.message };
    let note = format!("node {name}: {} {}{ending}: {said}", state.as_str(), new.reason);
    Some(Notice {
        node: Some(name.to_owned()),
        ..notice(
            true,
            if state == NodeState::Failed { "NodeFailed" } else { "NodeNotDone" },
            "Run",
            note.trim_end_matches(": "),
        )
    })
}
