//! What a ScriptRunner's status says, in the words of tests. Pure.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use scriptrunner_api::{
    condition::{self, ConditionType},
    v1alpha1::{Execution, NodeStatus, ScriptRunner, ScriptRunnerStatus},
};

/// The status; panics where there is none yet.
pub(crate) fn status(object: &ScriptRunner) -> &ScriptRunnerStatus {
    object.status.as_ref().expect("a status should be there")
}

/// A condition, if it is set.
pub(crate) fn verdict(object: &ScriptRunner, type_: ConditionType) -> Option<&Condition> {
    condition::find(&object.status.as_ref()?.conditions, type_)
}

/// Whether a condition holds and was decided upon the spec as it is now.
pub(crate) fn holds_now(object: &ScriptRunner, type_: ConditionType) -> bool {
    let observed = object.status.as_ref().and_then(|status| status.observed_generation);
    observed == object.metadata.generation
        && verdict(object, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether a condition has the status and reason.
pub(crate) fn says(object: &ScriptRunner, type_: ConditionType, status: &str, reason: &str) -> bool {
    verdict(object, type_).is_some_and(|condition| condition.status == status && condition.reason == reason)
}

/// The message of a condition; empty if it is not set.
pub(crate) fn message(object: &ScriptRunner, type_: ConditionType) -> &str {
    verdict(object, type_).map_or("", |condition| condition.message.as_str())
}

/// The entry of a node; panics where there is none.
pub(crate) fn entry<'a>(object: &'a ScriptRunner, node: &str) -> &'a NodeStatus {
    status(object).nodes.get(node).unwrap_or_else(|| panic!("no entry of {node:?}: {}", summary(object)))
}

/// State and reason of a node; empty where it has no entry.
pub(crate) fn state<'a>(object: &'a ScriptRunner, node: &str) -> (&'a str, &'a str) {
    let found = object.status.as_ref().and_then(|status| status.nodes.get(node));
    found.map_or(("", ""), |entry| (entry.state.as_str(), entry.reason.as_str()))
}

/// A node's newest execution; panics where there is none.
pub(crate) fn newest<'a>(object: &'a ScriptRunner, node: &str) -> &'a Execution {
    let newest = entry(object, node).history.last();
    newest.unwrap_or_else(|| panic!("{node:?} has no execution: {}", summary(object)))
}

/// The number of the current run; 0 before the first.
pub(crate) fn run_number(object: &ScriptRunner) -> u64 {
    object.status.as_ref().and_then(|status| status.run.as_ref()).map_or(0, |run| run.number)
}

/// One line about conditions, counts and nodes.
pub(crate) fn summary(object: &ScriptRunner) -> String {
    let Some(status) = &object.status else { return "no status".to_owned() };
    let mut text = format!(
        "generation {:?}, observed {:?}, run {}, {} of {} desired;",
        object.metadata.generation,
        status.observed_generation,
        run_number(object),
        status.progress,
        status.desired
    );
    for condition in &status.conditions {
        let Condition { type_, status, reason, message, .. } = condition;
        let _ = write!(text, " {type_}={status}/{reason} ({message});");
    }
    for (name, entry) in &status.nodes {
        let NodeStatus {
            state,
            reason,
            message,
            run,
            held_for,
            attempts,
            retries,
            interruptions,
            executions,
            ..
        } = entry;
        let _ = write!(text, " {name}: {state}/{reason} ({message}) r{run} a{attempts} x{executions}");
        for (mark, number) in [('h', *held_for), ('f', (*retries).into()), ('i', (*interruptions).into())] {
            if number > 0 {
                let _ = write!(text, " {mark}{number}");
            }
        }
        text.push(';');
    }
    text
}
