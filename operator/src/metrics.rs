//! What the operator counts.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Label of a counter by outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// What came of it.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// Every metric of the operator. Low cardinality: none names an object or a node.
#[derive(Default)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles by outcome.
    pub reconciles: Family<Outcome, Counter>,
    /// Status writes by outcome.
    pub status_writes: Family<Outcome, Counter>,
    /// Bytes of the objects written.
    pub status_bytes: Counter,
    /// Shortest time between two writes of a status, in seconds: longer while the API server is slow.
    pub status_interval: Gauge<f64, AtomicU64>,
    /// Pod creations by outcome.
    pub pod_creations: Family<Outcome, Counter>,
    /// Pod deletions by outcome.
    pub pod_deletions: Family<Outcome, Counter>,
    /// Objects that could not be read.
    pub unreadable_objects: Counter,
    /// Statuses that somebody else wrote.
    pub foreign_status_writes: Counter,
    /// Watches that had to start again.
    pub watch_errors: Counter,
    /// Sessions that speak for a pod.
    pub sessions: Gauge<i64, AtomicI64>,
    /// Connections that came to no session, by the reason.
    pub session_refusals: Family<Outcome, Counter>,
    /// Sessions that ended, by the reason.
    pub session_ends: Family<Outcome, Counter>,
    /// Messages of runners by what they were.
    pub session_messages: Family<Outcome, Counter>,
    /// Runs that idle runners were told to go on with, by outcome; one that was not heard is told again.
    pub run_orders: Family<Outcome, Counter>,
    /// Questions to the API server whose a token is, by outcome.
    pub token_reviews: Family<Outcome, Counter>,
    /// Whether the admission policies are proven to hold.
    pub policies_proven: Gauge<i64, AtomicI64>,
    /// Whether this process holds the Lease.
    pub leader: Gauge<i64, AtomicI64>,
    /// Time of one reconcile.
    pub reconcile_duration: Option<Histogram>,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let mut metrics = Self { registry: Registry::with_prefix("scriptrunner"), ..Self::default() };
        let registry = &mut metrics.registry;
        registry.register("reconciles", "Reconciles by outcome", metrics.reconciles.clone());
        registry.register("status_writes", "Status writes by outcome", metrics.status_writes.clone());
        registry.register("status_bytes", "Bytes of the objects written", metrics.status_bytes.clone());
        registry.register_with_unit(
            "status_interval",
            "Shortest time between two writes of a status; longer while the API server is slow",
            Unit::Seconds,
            metrics.status_interval.clone(),
        );
        registry.register("pod_creations", "Pod creations by outcome", metrics.pod_creations.clone());
        registry.register("pod_deletions", "Pod deletions by outcome", metrics.pod_deletions.clone());
        registry.register(
            "unreadable_objects",
            "Objects that could not be read",
            metrics.unreadable_objects.clone(),
        );
        registry.register(
            "foreign_status_writes",
            "Statuses that somebody else wrote",
            metrics.foreign_status_writes.clone(),
        );
        registry.register("watch_errors", "Watches that had to start again", metrics.watch_errors.clone());
        registry.register("sessions", "Sessions that speak for a pod", metrics.sessions.clone());
        registry.register(
            "session_refusals",
            "Connections that came to no session, by the reason",
            metrics.session_refusals.clone(),
        );
        registry.register("session_ends", "Sessions that ended, by the reason", metrics.session_ends.clone());
        registry.register(
            "session_messages",
            "Messages of runners by what they were",
            metrics.session_messages.clone(),
        );
        registry.register(
            "run_orders",
            "Runs that idle runners were told to go on with, by outcome; one that was not heard is told again",
            metrics.run_orders.clone(),
        );
        registry.register(
            "token_reviews",
            "Questions to the API server whose a token is, by outcome",
            metrics.token_reviews.clone(),
        );
        registry.register(
            "policies_proven",
            "1 while the admission policies are proven to hold; 0 while nothing privileged is started",
            metrics.policies_proven.clone(),
        );
        registry.register("leader", "1 while this process holds the Lease", metrics.leader.clone());
        let duration = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one reconcile",
            Unit::Seconds,
            duration.clone(),
        );
        metrics.reconcile_duration = Some(duration);
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Version of the operator", build);
        metrics
    }

    /// Counts one of a family.
    pub fn count(family: &Family<Outcome, Counter>, outcome: &'static str) {
        family.get_or_create(&Outcome { outcome }).inc();
    }

    /// The metrics as OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
