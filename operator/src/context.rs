//! What every reconcile shares: clients, tables, settings. The only reader of the clock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{Client, runtime::events::Recorder};

use crate::{args::Config, error::Error, metrics::Metrics, world::World};

/// What every reconcile shares.
pub struct Context {
    /// Client whose writes are refused once the Lease may be over.
    pub client: Client,
    /// What the watches have shown.
    pub world: Arc<World>,
    /// The resolved flags.
    pub config: Config,
    /// Writes Events.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bytes of status writes that are free, shared by all objects.
    pub status_bytes: Mutex<Bucket>,
}

impl Context {
    /// The time, read once per step.
    pub fn now() -> Timestamp {
        Timestamp::now()
    }

    /// Waits for an API call, for as long as a call may take.
    pub async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let limit = self.config.request_timeout;
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|source| Error::Call { doing, source: Box::new(source) }),
            Err(_) => Err(Error::AwaitAnswer { doing, seconds: limit.as_secs() }),
        }
    }

    /// Takes bytes out of the bucket, or says how long to wait.
    pub fn take_status_bytes(&self, bytes: usize) -> Result<(), Duration> {
        self.status_bytes.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, Instant::now())
    }
}

/// A byte bucket: writes pass while it is not empty, and may overdraw it by their own size, so that large objects are
/// written too, and small ones soon after them.
pub struct Bucket {
    level: f64,
    burst: f64,
    per_second: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            level: f64::from(burst),
            burst: f64::from(burst),
            per_second: f64::from(per_second),
            filled: now,
        }
    }

    fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Duration> {
        self.level =
            (self.level + now.duration_since(self.filled).as_secs_f64() * self.per_second).min(self.burst);
        self.filled = now;
        if self.level <= 0.0 {
            return Err(Duration::from_secs_f64((1.0 - self.level) / self.per_second));
        }
        #[expect(clippy::cast_precision_loss, reason = "an object has at most a few million bytes")]
        let bytes = bytes as f64;
        self.level -= bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_passes_a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2_000, 1_000, start);
        assert_eq!(bucket.take(1_500, start), Ok(()));
        assert_eq!(bucket.take(1_500, start), Ok(()), "the last write may overdraw");
        let wait = bucket.take(1, start).unwrap_err();
        assert!(wait > Duration::from_secs(1) && wait < Duration::from_millis(1_010), "{wait:?}");
        assert_eq!(bucket.take(1, start + wait), Ok(()));
        assert_eq!(bucket.take(2_000, start + Duration::from_mins(1)), Ok(()), "and fills up again");
    }
}
