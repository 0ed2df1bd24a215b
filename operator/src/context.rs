//! What every reconcile shares: clients, tables, settings. The only reader of the clock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use scriptrunner_core::pod::PodSettings;

use crate::{
    args::Config,
    bucket::Bucket,
    concurrently::Turns,
    error::Error,
    metrics::Metrics,
    pressure::Pressure,
    proof::Proofs,
    sessions::{Door, Sessions},
    world::World,
};

/// Bytes of status writes that pass without a pause.
const STATUS_BURST_BYTES: u32 = 2 * 1024 * 1024;

/// What every reconcile shares.
pub struct Context {
    /// Client whose writes are refused once the Lease may be over.
    pub client: Client,
    /// What the watches have shown.
    pub world: Arc<World>,
    /// What runners' sessions brought.
    pub sessions: Arc<Sessions>,
    /// Where runners find the operator; none in a process without a door.
    pub door: Option<Arc<Door>>,
    /// The resolved flags.
    pub config: Config,
    /// Writes Events.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bytes of status writes that are free, shared by all objects.
    pub status_bytes: Mutex<Bucket>,
    /// Turns of the writes to children, shared by all objects.
    pub turns: Turns,
    /// How far the API server's slowness widens the pauses between writes.
    pub pressure: Pressure,
    /// Whether the admission policies hold.
    pub proofs: Proofs,
    /// Since when this process is ready.
    pub ready: Instant,
    /// The same, by the clock on the wall.
    pub since: Timestamp,
}

impl Context {
    /// What reconciles share in a process that is ready now and has no door.
    pub fn new(client: Client, world: Arc<World>, config: Config, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter {
            controller: "scriptrunner-operator".to_owned(),
            instance: Some(config.identity.clone()),
        };
        let ready = Self::instant();
        let bucket = Bucket::new(STATUS_BURST_BYTES, config.status_bytes_per_second, ready);
        let pressure = Pressure::new(config.timers.status_interval, metrics.status_interval.clone());
        let proofs = Proofs::new(client.clone(), config.namespace.clone(), config.request_timeout);
        Self {
            proofs,
            recorder: Recorder::new(client.clone(), reporter),
            client,
            world,
            sessions: Arc::new(Sessions::new(metrics.clone())),
            door: None,
            config,
            metrics,
            status_bytes: Mutex::new(bucket),
            turns: Turns::default(),
            pressure,
            ready,
            since: Self::now(),
        }
    }

    /// The time, read once per step.
    pub fn now() -> Timestamp {
        Timestamp::now()
    }

    /// The monotonic clock.
    pub fn instant() -> Instant {
        // The runtime's, because tests can hold it.
        tokio::time::Instant::now().into_std()
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

    /// What is said to every pod that is made now.
    pub fn pod_settings(&self) -> PodSettings {
        PodSettings {
            session: self.door.as_ref().and_then(|door| door.settings()),
            ..self.config.pods.clone()
        }
    }

    /// Takes the bytes of one write of an object out of the bucket, or says how long to wait.
    pub fn take_status_bytes(&self, uid: &str, bytes: usize) -> Result<(), Duration> {
        self.status_bytes.lock().unwrap_or_else(PoisonError::into_inner).take(uid, bytes, Self::instant())
    }
}
