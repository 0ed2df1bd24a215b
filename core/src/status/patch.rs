//! Makes the JSON patch that turns the stored status into the new one. Pure.

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use scriptrunner_api::v1alpha1::{NodeStatus, ScriptRunnerStatus};
use serde::Serialize;
use serde_json::{Map, Value};

use super::size::{stored_bytes, without_nodes};
use crate::in_step::InStep;

/// Most operations for single nodes; more are written as one. The API server refuses patches of over 10,000 operations.
const MAX_NODE_OPERATIONS: usize = 9_900;

/// The patch from the `old` status of the object (`None` if it has none) to the `new` one, or `None` if they are equal.
/// It applies only to this object, by `uid`, and only to the version that `old` was read from.
///
/// Changed fields are set whole; of `nodes` only changed entries are, unless that is more than half of them.
pub fn diff(
    old: Option<&ScriptRunnerStatus>,
    new: &ScriptRunnerStatus,
    uid: &str,
    resource_version: &str,
) -> Option<Patch> {
    let changes = match old {
        Some(old) => {
            let mut changes = field_changes(old, new);
            changes.extend(node_changes(old, new));
            changes
        }
        None => vec![add(&["status"], json(new))],
    };
    if changes.is_empty() {
        return None;
    }
    let mut operations = vec![test("uid", uid), test("resourceVersion", resource_version)];
    operations.extend(changes);
    Some(Patch(operations))
}

/// Bytes of the status as stored.
pub fn bytes(status: &ScriptRunnerStatus) -> usize {
    stored_bytes(status)
}

fn field_changes(old: &ScriptRunnerStatus, new: &ScriptRunnerStatus) -> Vec<PatchOperation> {
    let (old, new) = (fields(old), fields(new));
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| remove(&["status", name]));
    let mut changes: Vec<_> = gone.collect();
    // `add` also replaces, and unlike `replace` does not need the field to be there: counters that are zero may be absent
    // from a status that another version wrote.
    let set = new.into_iter().filter(|(name, value)| old.get(name) != Some(value));
    changes.extend(set.map(|(name, value)| add(&["status", &name], value)));
    changes
}

fn node_changes(old: &ScriptRunnerStatus, new: &ScriptRunnerStatus) -> Vec<PatchOperation> {
    if new.nodes.is_empty() {
        return if old.nodes.is_empty() { Vec::new() } else { vec![remove(&["status", "nodes"])] };
    }
    let mut remaining = InStep::new(&new.nodes);
    let gone = old.nodes.keys().filter(|name| remaining.get(name).is_none());
    let gone = gone.map(|name| remove(&["status", "nodes", name]));
    let mut entries = InStep::new(&old.nodes);
    let dirty: Vec<_> = new.nodes.iter().filter(|(name, node)| is_dirty(entries.get(name), node)).collect();
    let mut changes: Vec<_> = gone.collect();
    // From an empty map, which is not stored and to which nothing could be added, every entry is dirty.
    if changes.len() + dirty.len() > (new.nodes.len() / 2).min(MAX_NODE_OPERATIONS) {
        return vec![add(&["status", "nodes"], json(&new.nodes))];
    }
    changes.extend(dirty.into_iter().map(|(name, node)| add(&["status", "nodes", name], json(node))));
    changes
}

/// Whether the node's JSON is another than before. That has times in whole seconds only.
fn is_dirty(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let Some(old) = old else { return true };
    let brief = |node: &NodeStatus| (node.executions, node.seq, node.history.len());
    old != new && (old.state != new.state || brief(old) != brief(new) || json(old) != json(new))
}

fn fields(status: &ScriptRunnerStatus) -> Map<String, Value> {
    match json(&without_nodes(status)) {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("plain data should serialise")
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: pointer(path), value })
}

fn remove(path: &[&str]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: pointer(path) })
}

fn test(field: &str, value: &str) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: pointer(&["metadata", field]), value: value.into() })
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

#[cfg(test)]
mod tests;
