//! What this process remembers of one object between reconciles.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_core::{observed::PodConflict, status::groups::Answers, validate::Pinned};

/// What this process remembers of one object.
#[derive(Default)]
pub struct Memory {
    /// The newest version of the object that an answer of the API server held: newer than the watch until that catches up.
    pub latest: Option<Arc<ScriptRunner>>,
    /// The object as the last status write returned it. Nobody else writes the status: whatever the server shows, this is it.
    pub own: Option<Arc<ScriptRunner>>,
    /// When a write of the status last ended, well or not.
    pub tried: Option<Instant>,
    /// Whether the status is to be written once its time has come.
    pub write_waits: bool,
    /// When the status may next be written, if it is to be, or was just written.
    pub due: Option<Instant>,
    /// Writes of the status that failed since the last one that did not.
    pub failed_writes: u32,
    /// How many pods were being created at the same time when the time for creations was up.
    pub room: usize,
    /// What the API server said when it last refused a child, until one is accepted.
    pub refusal: Option<String>,
    /// What a run is pinned to, and which run, where the spec says something else.
    pub pinned: Option<(u64, Arc<Pinned>)>,
    /// Why the run's ConfigMap cannot be made.
    pub config_map_conflict: Option<String>,
    /// Nodes whose pod's name is taken.
    pub pod_conflicts: BTreeMap<String, PodConflict>,
    /// Newest answers by node, kept beyond what the size limit leaves of them in the status.
    pub known_answers: Answers,
    /// Bytes of the object without its status, and the version that has so many.
    pub other_bytes: Option<(String, usize)>,
    /// Version of the object that could not be read.
    pub unreadable_version: Option<String>,
    /// A generation that the object had after the admission policies began to hold, and that moment.
    pub seen_since: Option<(Timestamp, i64)>,
    /// Failures in a row.
    pub failures: u32,
    /// Events about nodes that were written for the current run, and the run.
    pub node_events: (u64, u32),
}
