//! The operator: watches ScriptRunners, Nodes and its own pods, and turns the plans of `core` into API calls.

pub mod apply;
pub mod args;
pub mod bucket;
pub mod coalesce;
pub mod concurrently;
pub mod context;
pub mod controller;
pub mod error;
pub mod guarded;
pub mod health;
#[cfg(test)]
mod junk;
pub mod leader;
pub mod manifests;
pub mod metrics;
pub mod observe;
pub mod policies;
pub mod pressure;
pub mod proof;
pub mod rbac;
pub mod reconcile;
pub mod report;
pub mod roles;
pub mod run;
pub mod scope;
#[cfg(test)]
mod scripted;
pub mod sessions;
pub mod telemetry;
pub mod watches;
pub mod world;
