//! What the ScriptRunners' status says, revision by revision, and how many bytes that cost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use kube::Client;
use scriptrunner_api::v1alpha1::NodeState;
use serde::Deserialize;
use tokio::sync::watch;

use crate::{
    follow::{Event, follow},
    ledger::Ledger,
};

/// As much of a ScriptRunner as is measured.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

/// As much of a status as is measured.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) run: Run,
    pub(crate) desired: u32,
    pub(crate) pending: u32,
    pub(crate) active: u32,
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
    pub(crate) unknown: u32,
    pub(crate) truncation: Option<Truncation>,
    nodes: HashMap<String, Entry>,
}

/// The current run.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub(crate) struct Run {
    pub(crate) number: u64,
}

/// What the size limit cost.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub(crate) struct Truncation {
    pub(crate) nodes: u32,
}

/// What became of a node.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub(crate) struct Entry {
    pub(crate) state: String,
    pub(crate) run: u64,
    pub(crate) attempts: u32,
    pub(crate) seq: Option<u64>,
}

impl Entry {
    /// Whether the node's part of the run is over.
    pub(crate) fn is_done(&self) -> bool {
        NodeState::parse(&self.state).is_done()
    }
}

impl Status {
    /// Whether run `number` was for so many nodes, and all of them succeeded.
    pub(crate) fn is_complete(&self, number: u64, nodes: u32) -> bool {
        self.run.number == number && self.desired == nodes && self.succeeded == nodes
    }

    /// The state in one line.
    pub(crate) fn line(&self) -> String {
        let Self { run, desired, pending, active, succeeded, failed, skipped, unknown, .. } = self;
        format!(
            "run {}: {desired} desired, {pending} pending, {active} active, {succeeded} succeeded, {failed} failed, {skipped} skipped, {unknown} unknown",
            run.number
        )
    }
}

/// One write of one object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revision {
    pub(crate) at: Instant,
    pub(crate) bytes: usize,
}

#[derive(Default)]
struct Seen {
    revisions: Vec<Revision>,
    /// The newest status of each object, its nodes left out.
    newest: HashMap<String, Status>,
    /// Some nodes that are not done, for who asks why.
    undone: HashMap<String, Vec<String>>,
}

/// Everything that was seen of the ScriptRunners of a namespace.
pub(crate) struct Objects {
    seen: Arc<Mutex<Seen>>,
    changes: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Objects {
    /// Begins to watch.
    pub(crate) async fn watch(client: Client, namespace: &str, ledger: Arc<Ledger>) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (change, changes) = watch::channel(0);
        let path = format!("/apis/scriptrunner.io/v1alpha1/namespaces/{namespace}/scriptrunners");
        let books = seen.clone();
        let watching = follow(client, &path, move |at, bytes, event: Event<Object>| {
            lock(&books).take(Revision { at, bytes }, event, &ledger);
            change.send_modify(|count| *count += 1);
        })
        .await?;
        Ok(Self { seen, changes, task: tokio::spawn(watching) })
    }

    /// Waits until `enough` says so of the newest statuses, by UID of their objects; gives the time it was seen.
    pub(crate) async fn until(
        &mut self,
        enough: impl Fn(&HashMap<String, Status>) -> bool,
    ) -> anyhow::Result<Instant> {
        loop {
            self.changes.mark_unchanged();
            {
                let seen = lock(&self.seen);
                if enough(&seen.newest) {
                    return Ok(seen.revisions.last().map_or_else(Instant::now, |revision| revision.at));
                }
            }
            tokio::select! {
                changed = self.changes.changed() => changed?,
                ended = &mut self.task => return Err(match ended? {
                    Ok(()) => anyhow::anyhow!("the watch of the ScriptRunners ended"),
                    Err(error) => error,
                }),
            }
        }
    }

    /// Every revision so far.
    pub(crate) fn revisions(&self) -> Vec<Revision> {
        lock(&self.seen).revisions.clone()
    }

    /// The newest status of each object.
    pub(crate) fn newest(&self) -> Vec<Status> {
        lock(&self.seen).newest.values().cloned().collect()
    }

    /// What is missing, for people: the state of up to three objects that are not done, and some of their nodes.
    pub(crate) fn missing(&self) -> String {
        let seen = lock(&self.seen);
        let mut lines: Vec<String> = seen
            .newest
            .iter()
            .filter(|(_, status)| status.desired == 0 || status.pending + status.active > 0)
            .map(|(uid, status)| {
                let nodes = seen.undone.get(uid).map(|nodes| nodes.join(", ")).unwrap_or_default();
                format!("{} ({nodes})", status.line())
            })
            .collect();
        let count = lines.len();
        lines.truncate(3);
        format!("{count} objects are not done: {}", lines.join("; "))
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn take(&mut self, revision: Revision, event: Event<Object>, ledger: &Ledger) {
        let Event { kind, object: Object { metadata: Metadata { uid }, mut status } } = event;
        if kind == "DELETED" {
            self.newest.remove(&uid);
            return;
        }
        let nodes = std::mem::take(&mut status.nodes);
        for (name, entry) in &nodes {
            ledger.seen(&uid, name, entry, revision.at);
        }
        let undone = nodes.iter().filter(|(_, entry)| !entry.is_done());
        let undone = undone.map(|(name, entry)| format!("{name} {}", entry.state)).take(5).collect();
        self.undone.insert(uid.clone(), undone);
        self.newest.insert(uid, status);
        self.revisions.push(revision);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::ledger::Ended;

    fn event(kind: &str, status: &Value) -> Event<Object> {
        let line = json!({"type": kind, "object": {"metadata": {"uid": "u"}, "status": status}});
        serde_json::from_value(line).unwrap()
    }

    #[test]
    fn a_revision_tells_the_ledger_what_is_stored() {
        let (ledger, mut seen, now) = (Ledger::default(), Seen::default(), Instant::now());
        ledger.ended("u", "n1", Ended { run: 1, attempt: 1, seq: 2, at: now });
        let status = json!({"run": {"number": 1}, "desired": 2, "active": 1, "succeeded": 1, "nodes": {
            "n1": {"state": "Succeeded", "run": 1, "attempts": 1},
            "n2": {"state": "Running", "run": 1, "attempts": 1, "seq": 1},
        }});
        let at = now + Duration::from_secs(1);
        seen.take(Revision { at, bytes: 10 }, event("MODIFIED", &status), &ledger);
        assert_eq!(ledger.take_stored(), [Duration::from_secs(1)]);
        assert_eq!(seen.undone["u"], ["n2 Running"]);
        assert!(!seen.newest["u"].is_complete(1, 2));
        assert!(seen.newest["u"].nodes.is_empty(), "nodes are not kept");
    }

    #[test]
    fn an_object_without_a_status_is_seen_too() {
        let (ledger, mut seen) = (Ledger::default(), Seen::default());
        let line = json!({"type": "ADDED", "object": {"metadata": {"uid": "u"}}});
        let revision = Revision { at: Instant::now(), bytes: 10 };
        seen.take(revision, serde_json::from_value(line).unwrap(), &ledger);
        assert_eq!(seen.newest["u"], Status::default());
        seen.take(revision, event("DELETED", &json!({})), &ledger);
        assert!(seen.newest.is_empty());
    }
}
