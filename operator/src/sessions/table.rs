//! What sessions brought, by pod, and which connection of a pod counts. Pure but for what connections are told.
//!
//! **Invariant:** the newest connection that the API server vouched for speaks for its pod; the one before it is closed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::{
    session::{Ack, SnapshotPart},
    v1alpha1::Execution,
};
use scriptrunner_core::observed::SessionFacts;

use super::{
    brought::{Brought, Refused, Taken},
    line::{End, Line},
    refusal::Refusal,
};

/// Bytes kept of all pods; beyond it nobody may keep more than a fair share.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// The stored status may tell in a moment that the runner is right.
const AHEAD: Duration = Duration::from_secs(1);
/// What waits to be stored is stored in a few seconds.
const FULL: Duration = Duration::from_secs(5);
/// How long what a pod brought is kept after no watch knows the pod any more.
const KEPT: Duration = Duration::from_mins(10);

/// What sessions brought, and the connections.
#[derive(Default)]
pub(super) struct Table {
    pods: HashMap<String, Entry>,
    /// Pods whose outcome is stored.
    stored: HashSet<String>,
    bytes: usize,
    connected: usize,
}

#[derive(Default)]
struct Entry {
    brought: Brought,
    /// The connection that speaks for the pod.
    line: Option<Arc<Line>>,
    /// One that has not said hello yet.
    candidate: Option<Arc<Line>>,
    /// When the last connection that spoke for the pod ended.
    left: Option<Timestamp>,
    /// The newest run that was ordered, and when first.
    ordered: Option<(u64, Timestamp)>,
    missing_since: Option<Instant>,
}

impl Entry {
    fn is_current(&self, line: &Line) -> bool {
        self.line.as_ref().is_some_and(|current| current.id() == line.id())
    }
}

impl Table {
    /// A connection that the API server vouched for. One of its pod that has not said hello yet makes room for it.
    pub(super) fn admit(&mut self, line: Arc<Line>) {
        let entry = self.pods.entry(line.speaker().pod_uid.clone()).or_default();
        if let Some(older) = entry.candidate.replace(line) {
            older.end(End::Replaced);
        }
    }

    /// It said hello: from now on it speaks for its pod. False if a newer one does, or nobody any more.
    pub(super) fn seat(&mut self, line: &Arc<Line>) -> bool {
        if self.stored.contains(&line.speaker().pod_uid) {
            return false;
        }
        let Some(entry) = self.pods.get_mut(&line.speaker().pod_uid) else { return false };
        if entry.candidate.take_if(|candidate| candidate.id() == line.id()).is_none() {
            return false;
        }
        match entry.line.replace(Arc::clone(line)) {
            Some(older) => {
                entry.brought.abandon(older.id());
                older.end(End::Replaced);
            }
            None => self.connected += 1,
        }
        true
    }

    /// It is over. True if it was the one that spoke for its pod.
    pub(super) fn leave(&mut self, line: &Line, now: Timestamp) -> bool {
        let Some(entry) = self.pods.get_mut(&line.speaker().pod_uid) else { return false };
        entry.candidate.take_if(|candidate| candidate.id() == line.id());
        if !entry.is_current(line) {
            return false;
        }
        entry.line = None;
        entry.left = Some(now);
        self.connected -= 1;
        self.change(&line.speaker().pod_uid, |brought| brought.abandon(line.id()));
        true
    }

    /// Takes in a part of a snapshot. True if it says something new.
    pub(super) fn bring(&mut self, line: &Line, part: SnapshotPart) -> Result<bool, Refusal> {
        let pod_uid = &line.speaker().pod_uid;
        let Some(entry) = self.pods.get(pod_uid).filter(|entry| entry.is_current(line)) else {
            // Said before it heard that a newer one speaks.
            return Ok(false);
        };
        let coming: usize = part.history.iter().map(Execution::output_bytes).sum();
        if self.bytes + coming > MOST_BYTES && entry.brought.bytes() + coming > MOST_BYTES / self.pods.len() {
            return Err(Refusal::later("full", FULL, "much waits to be stored"));
        }
        let taken = self.change(pod_uid, |brought| brought.take_in(line.id(), part));
        match taken {
            Some(Ok(Taken::News)) => Ok(true),
            Some(Ok(Taken::Stored(ack))) => {
                line.ack_again(&ack);
                Ok(false)
            }
            Some(Ok(Taken::Nothing) | Err(Refused::Old)) | None => Ok(false),
            Some(Err(Refused::Ahead)) => Err(Refusal::later(
                "ahead",
                AHEAD,
                "the snapshot is further than this operator knows the pod to be",
            )),
        }
    }

    /// What sessions brought for a pod.
    pub(super) fn facts(&self, pod_uid: &str) -> Option<SessionFacts> {
        let entry = self.pods.get(pod_uid)?;
        let facts = SessionFacts {
            connected: entry.line.is_some(),
            left: entry.left,
            ordered: entry.ordered,
            snapshot: entry.brought.snapshot().cloned(),
        };
        (facts != SessionFacts::default()).then_some(facts)
    }

    /// What the stored status says of a pod.
    pub(super) fn know(&mut self, pod_uid: &str, seq: u64, serial: u64) {
        self.stored.remove(pod_uid);
        if let Some(entry) = self.pods.get_mut(pod_uid) {
            entry.brought.know(seq, serial);
        }
    }

    /// The snapshot is stored.
    pub(super) fn ack(&mut self, pod_uid: &str, ack: &Ack) {
        self.change(pod_uid, |brought| brought.ack(ack));
        if let Some(line) = self.line(pod_uid) {
            line.ack(ack);
        }
    }

    /// The outcome of the pod is stored. True if that is new.
    pub(super) fn mark_stored(&mut self, pod_uid: &str) -> bool {
        if self.stored.contains(pod_uid) {
            return false;
        }
        self.stored.insert(pod_uid.to_owned());
        if let Some(line) = self.line(pod_uid) {
            line.end(End::Refused(Refusal::over("stored", "what the pod did is stored")));
        }
        true
    }

    /// Whether the outcome of the pod is stored.
    pub(super) fn is_stored(&self, pod_uid: &str) -> bool {
        self.stored.contains(pod_uid)
    }

    /// The connection that speaks for the pod.
    pub(super) fn line(&self, pod_uid: &str) -> Option<&Arc<Line>> {
        self.pods.get(pod_uid)?.line.as_ref()
    }

    /// The connection that is to hear an order, if there is one.
    pub(super) fn line_to_order(&mut self, pod_uid: &str, run: u64, now: Timestamp) -> Option<&Arc<Line>> {
        let entry = self.pods.get_mut(pod_uid)?;
        let line = entry.line.as_ref()?;
        if entry.ordered.is_none_or(|(ordered, _)| ordered < run) {
            entry.ordered = Some((run, now));
        }
        Some(line)
    }

    /// Every connection, also those that have not said hello.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Arc<Line>> {
        self.pods.values().flat_map(|entry| entry.line.iter().chain(&entry.candidate))
    }

    /// Connections that speak for a pod.
    pub(super) fn connected(&self) -> usize {
        self.connected
    }

    /// Forgets a pod that is gone.
    pub(super) fn forget(&mut self, pod_uid: &str) {
        self.stored.remove(pod_uid);
        if let Some(entry) = self.pods.remove(pod_uid) {
            self.bytes -= entry.brought.bytes();
            self.connected -= usize::from(entry.line.is_some());
            for line in entry.line.iter().chain(&entry.candidate) {
                line.end(End::Refused(Refusal::over("pod_gone", "the pod is gone")));
            }
        }
    }

    /// Forgets pods that no watch has known for a while.
    pub(super) fn forget_missing(&mut self, now: Instant, is_known: impl Fn(&str) -> bool) {
        self.stored.retain(|pod_uid| is_known(pod_uid));
        let mut gone = Vec::new();
        for (pod_uid, entry) in &mut self.pods {
            if is_known(pod_uid) {
                entry.missing_since = None;
            } else if now.duration_since(*entry.missing_since.get_or_insert(now)) >= KEPT {
                gone.push(pod_uid.clone());
            }
        }
        for pod_uid in gone {
            self.forget(&pod_uid);
        }
    }

    /// Changes what a pod brought, and keeps the sum.
    fn change<T>(&mut self, pod_uid: &str, change: impl FnOnce(&mut Brought) -> T) -> Option<T> {
        let brought = &mut self.pods.get_mut(pod_uid)?.brought;
        let before = brought.bytes();
        let result = change(brought);
        self.bytes = self.bytes - before + brought.bytes();
        Some(result)
    }
}

#[cfg(test)]
mod tests;
