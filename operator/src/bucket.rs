//! Shares the bytes of status writes among all objects. Pure: the time is an argument.
//!
//! **Invariant:** one byte bucket for the whole operator, fair over objects. What passes is never more than the burst, the
//! rate times the time, and one object.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long after its time an object that waits keeps its place. One that is gone holds nobody up for longer.
const GRACE: Duration = Duration::from_secs(2);
/// Longest time that an object is told to wait. Those ahead of it may turn out smaller, or gone.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A byte bucket. Writes pass while it is not empty, and may overdraw it by their own size, so that large objects are
/// written too.
///
/// Once it is empty, objects wait in the order of start-time fair queueing: an object's place is after everything that it
/// has had itself, so the one that has had least is next, not the one that asks most often. Someone who was away comes back
/// at the place of those who are served now, and has saved nothing up.
pub struct Bucket {
    level: f64,
    burst: f64,
    per_second: f64,
    filled: Instant,
    /// Place of what passed last. It never goes back.
    served: u64,
    /// Up to where each object has had its share; whoever is behind `served` is left out.
    used: HashMap<String, u64>,
    /// Those who wait, by their place.
    waiting: Vec<Waiter>,
    arrivals: u64,
}

/// An object that was told to wait.
struct Waiter {
    uid: String,
    place: Place,
    bytes: u64,
    /// When it counts as gone.
    expires: Instant,
}

/// Where an object stands: what it has had, and among equals who came first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    start: u64,
    arrival: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            level: f64::from(burst),
            burst: f64::from(burst),
            per_second: f64::from(per_second),
            filled: now,
            served: 0,
            used: HashMap::new(),
            waiting: Vec::new(),
            arrivals: 0,
        }
    }

    /// Takes the bytes of one write of the object with this UID, or says how long it has to wait as things stand. Whoever is
    /// told to wait asks again after that time, with as many bytes as it has by then; asking earlier does no harm and gains
    /// nothing.
    pub fn take(&mut self, uid: &str, bytes: usize, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        let bytes = bytes as u64;
        let place = self.leave_queue(uid, now).unwrap_or_else(|| self.arrive(uid));
        let index = self.waiting.partition_point(|waiter| waiter.place < place);
        let ahead: u64 = self.waiting[..index].iter().map(|waiter| waiter.bytes).sum();
        // What those ahead will take is as good as taken; but nothing is gained by keeping more than the bucket holds.
        let free = self.level - float(ahead);
        if free > 0.0 || self.level >= self.burst {
            self.level -= float(bytes);
            self.served = self.served.max(place.start);
            self.used.insert(uid.to_owned(), place.start + bytes);
            self.used.retain(|_, finish| *finish > self.served);
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - free) / self.per_second).min(LONGEST_WAIT);
        let waiter = Waiter { uid: uid.to_owned(), place, bytes, expires: now + wait + GRACE };
        self.waiting.insert(index, waiter);
        Err(wait)
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + since * self.per_second).min(self.burst);
        self.filled = self.filled.max(now);
    }

    /// Takes the object out of the queue, and everybody whose time is long over. Its place, if it had one.
    fn leave_queue(&mut self, uid: &str, now: Instant) -> Option<Place> {
        let mut place = None;
        self.waiting.retain(|waiter| {
            if waiter.uid == uid {
                place = Some(waiter.place);
            }
            waiter.uid != uid && now < waiter.expires
        });
        place
    }

    fn arrive(&mut self, uid: &str) -> Place {
        self.arrivals += 1;
        let start = self.used.get(uid).copied().unwrap_or(0).max(self.served);
        Place { start, arrival: self.arrivals }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sums of object sizes are far below the 53 bits that stay exact"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests;
