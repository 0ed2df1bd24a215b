//! What the sessions of one pod brought and nobody has stored yet. Pure.
//!
//! **Invariant:** taking in is idempotent: what is repeated, late or doubled changes nothing. An execution leaves only when
//! a status that contains it was stored.

use std::{mem::size_of, sync::Arc};

use scriptrunner_api::{
    session::{Ack, MAX_STEP, SnapshotPart},
    snapshot::{Record, Snapshot},
    v1alpha1::Execution,
};
use scriptrunner_core::status::merge::merge_history;

/// Executions kept, as many as an entry of a status has at most.
const MOST_EXECUTIONS: usize = 100;
/// Bytes kept of one pod; then the oldest outputs go first. More than a status has room for.
pub(super) const MOST_BYTES: usize = 512 * 1024;

/// What the sessions of one pod brought.
#[derive(Default)]
pub(super) struct Brought {
    /// The newest whole snapshot, with every execution that is not known to be stored.
    snapshot: Option<Arc<Snapshot>>,
    /// For each of its executions the number of the snapshot that brought it as it is.
    origins: Vec<u64>,
    /// Parts of a snapshot whose last part has not come.
    begun: Option<Begun>,
    /// Up to which snapshot of the newest start everything is stored.
    stored: Option<Ack>,
    /// What the stored status says.
    floor: Floor,
    bytes: usize,
}

#[derive(Clone, Copy, Default)]
struct Floor {
    seq: u64,
    serial: u64,
}

struct Begun {
    line: u64,
    boot: String,
    seq: u64,
    history: Vec<Execution>,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It says something new.
    News,
    /// It says nothing new, or not all of it is there.
    Nothing,
    /// All of it is stored already: it can be acknowledged at once.
    Stored(Ack),
}

/// A part was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is of an older snapshot than is known. It was overtaken; nothing is lost.
    Old,
    /// It is further ahead of what is known than an honest runner can be.
    Ahead,
}

impl Brought {
    /// The newest snapshot.
    pub(super) fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the stored status says of the pod.
    pub(super) fn know(&mut self, seq: u64, serial: u64) {
        self.floor = Floor { seq: self.floor.seq.max(seq), serial: self.floor.serial.max(serial) };
    }

    /// Takes in a part that came over connection `line`.
    pub(super) fn take_in(&mut self, line: u64, part: SnapshotPart) -> Result<Taken, Refused> {
        let SnapshotPart { record, history, more } = part;
        let (record, history) = plausible(record, history);
        let newest = self.snapshot.as_ref().map(|known| &known.record);
        let same_start = newest.filter(|newest| newest.boot == record.boot);
        if same_start.is_some_and(|newest| record.seq < newest.seq) {
            return Err(Refused::Old);
        }
        let known_seq = same_start.map_or(0, |newest| newest.seq).max(self.floor.seq);
        let known_serial = newest.map_or(0, |newest| newest.serial).max(self.floor.serial);
        if record.seq > known_seq.saturating_add(MAX_STEP)
            || record.serial > known_serial.saturating_add(MAX_STEP)
        {
            return Err(Refused::Ahead);
        }
        if let Some(stored) = self.stored_up_to(&record) {
            return Ok(if more { Taken::Nothing } else { Taken::Stored(stored) });
        }
        let history = self.with_what_began(line, &record, history);
        if more {
            self.begun = Some(Begun { line, boot: record.boot, seq: record.seq, history });
            self.weigh();
            return Ok(Taken::Nothing);
        }
        let is_news = self.replace(record, &history);
        self.weigh();
        Ok(if is_news { Taken::News } else { Taken::Nothing })
    }

    /// Everything up to this snapshot is stored: its executions are forgotten.
    pub(super) fn ack(&mut self, ack: &Ack) {
        let Some(snapshot) = &self.snapshot else { return };
        if snapshot.record.boot != ack.boot {
            return;
        }
        if self.stored.as_ref().is_none_or(|known| known.boot != ack.boot || known.seq < ack.seq) {
            self.stored = Some(ack.clone());
        }
        let (mut history, mut origins) = (Vec::new(), Vec::new());
        for (execution, &by) in snapshot.history.iter().zip(&self.origins) {
            if by > ack.seq {
                history.push(execution.clone());
                origins.push(by);
            }
        }
        if history.len() < snapshot.history.len() {
            self.snapshot = Some(Arc::new(Snapshot { record: snapshot.record.clone(), history }));
            self.origins = origins;
            self.weigh();
        }
    }

    /// The connection is over: the rest of what it began will not come.
    pub(super) fn abandon(&mut self, line: u64) {
        if self.begun.as_ref().is_some_and(|begun| begun.line == line) {
            self.begun = None;
            self.weigh();
        }
    }

    /// The acknowledgement for a snapshot that is stored already: the answer to it was lost, or it is on its way.
    fn stored_up_to(&self, record: &Record) -> Option<Ack> {
        let stored = self.stored.as_ref()?;
        (stored.boot == record.boot && record.seq <= stored.seq).then(|| stored.clone())
    }

    /// The parts that came before this one, and it.
    fn with_what_began(&mut self, line: u64, record: &Record, history: Vec<Execution>) -> Vec<Execution> {
        match self.begun.take() {
            Some(begun) if (begun.line, &begun.boot, begun.seq) == (line, &record.boot, record.seq) => {
                let mut all = merge_history(&begun.history, &history, MOST_EXECUTIONS);
                cut(&mut all, MOST_BYTES);
                all
            }
            Some(_) | None => history,
        }
    }

    /// A whole snapshot takes the place of the one before it. True if that changes anything.
    fn replace(&mut self, record: Record, history: &[Execution]) -> bool {
        if self.snapshot.as_ref().is_some_and(|known| known.record.boot != record.boot) {
            // The numbers of another start mean nothing now; the next acknowledgement covers what it brought as well.
            self.origins.fill(0);
        }
        let known = self.snapshot.as_ref().map_or(&[][..], |known| known.history.as_slice());
        let mut merged = merge_history(known, history, MOST_EXECUTIONS);
        cut(&mut merged, MOST_BYTES);
        let old = |execution: &Execution| {
            let place = known.binary_search_by_key(&execution.key(), Execution::key).ok()?;
            (known[place] == *execution).then(|| self.origins.get(place).copied())?
        };
        let origins = merged.iter().map(|execution| old(execution).unwrap_or(record.seq)).collect();
        let snapshot = Snapshot { record, history: merged };
        let is_news = self.snapshot.as_deref() != Some(&snapshot);
        self.snapshot = Some(Arc::new(snapshot));
        self.origins = origins;
        is_news
    }

    fn weigh(&mut self) {
        let kept = self.snapshot.as_ref().map_or(0, |snapshot| {
            let record = &snapshot.record;
            size_of::<Snapshot>() + record.message.len() + weight(&snapshot.history)
        });
        self.bytes = kept + self.begun.as_ref().map_or(0, |begun| weight(&begun.history));
    }
}

/// What a runner can have meant: each execution makes at least one snapshot, none failed that did not begin, and none is
/// newer than the newest. Numbers that contradict each other must not be added to what is counted.
fn plausible(mut record: Record, mut history: Vec<Execution>) -> (Record, Vec<Execution>) {
    record.executions = record.executions.min(record.seq);
    record.failures = record.failures.min(record.executions);
    history.retain(|execution| execution.serial <= record.serial);
    (record, history)
}

fn weight(history: &[Execution]) -> usize {
    history.iter().map(|execution| size_of::<Execution>() + bytes_of(execution)).sum()
}

/// Bytes of what the script gave.
fn bytes_of(execution: &Execution) -> usize {
    execution.output_bytes() + execution.result.as_ref().map_or(0, |result| result.to_string().len())
}

/// Drops outputs, the oldest first, until the rest fits.
fn cut(history: &mut [Execution], limit: usize) {
    let mut bytes = weight(history);
    for execution in history {
        if bytes <= limit {
            return;
        }
        bytes -= execution.output_bytes();
        execution.stdout = String::new();
        execution.stderr = String::new();
    }
}

#[cfg(test)]
mod tests;
