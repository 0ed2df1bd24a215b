//! The operator: watches ScriptRunners, Nodes and its own pods, and turns the plans of `core` into API calls.

pub mod manifests;
pub mod policies;
pub mod rbac;
