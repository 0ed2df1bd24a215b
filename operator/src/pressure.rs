//! Widens the pauses between writes while the API server says, or shows, that it is slow.
//!
//! A layer of the client sees what becomes of every write; nothing else has to report. 429, 503, 504, no answer
//! in time and broken connections double the interval at which statuses are written, until it is 32 times as long; answers
//! narrow it step by step. What a write has met that began before the last change is no news.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    task::{self, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, header::RETRY_AFTER};
use kube::client::Body;
use prometheus_client::metrics::gauge::Gauge;
use tower::{BoxError, Layer, Service};

use crate::context::Context;

/// Most often that the interval is doubled: it becomes 32 times as long.
const MOST_STEPS: u32 = 5;
/// Longest time that the server is left alone because it asks for it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// How far the pauses are widened, shared by all objects.
#[derive(Clone, Debug)]
pub struct Pressure {
    throttle: Arc<Mutex<Throttle>>,
    /// Shows the interval, in seconds.
    gauge: Gauge<f64, AtomicU64>,
}

impl Pressure {
    /// No pressure. `interval` is the shortest one between two writes of a status.
    pub fn new(interval: Duration, gauge: Gauge<f64, AtomicU64>) -> Self {
        gauge.set(interval.as_secs_f64());
        Self { throttle: Arc::new(Mutex::new(Throttle::new(interval))), gauge }
    }

    /// The interval between two writes of a status, as wide as it is now.
    pub fn interval(&self) -> Duration {
        self.lock().interval()
    }

    /// For how long the server has asked to be left alone; none if it has not.
    pub fn hold(&self, now: Instant) -> Option<Duration> {
        self.lock().hold(now)
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Throttle)) {
        let mut throttle = self.lock();
        let before = throttle.interval();
        change(&mut throttle);
        let interval = throttle.interval();
        if interval != before {
            tracing::info!(seconds = interval.as_secs_f64(), "the interval between status writes changed");
            self.gauge.set(interval.as_secs_f64());
        }
    }
}

/// The rule, without clock and metrics.
#[derive(Debug)]
struct Throttle {
    shortest: Duration,
    steps: u32,
    changed: Option<Instant>,
    /// Until when the server has asked to be left alone.
    until: Option<Instant>,
}

impl Throttle {
    fn new(shortest: Duration) -> Self {
        Self { shortest, steps: 0, changed: None, until: None }
    }

    fn interval(&self) -> Duration {
        self.shortest * (1 << self.steps)
    }

    fn hold(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// A write that began at `began` met a server that has too much to do.
    fn failed(&mut self, began: Instant, now: Instant, retry_after: Option<Duration>) {
        if let Some(wait) = retry_after {
            self.until = self.until.max(Some(now + wait.min(LONGEST_RETRY_AFTER)));
        }
        if self.changed.is_none_or(|changed| began >= changed) {
            self.steps = (self.steps + 1).min(MOST_STEPS);
            self.changed = Some(now);
        }
    }

    /// A write that began at `began` was answered.
    fn answered(&mut self, began: Instant, now: Instant) {
        // One interval of quiet per step: a few answers among refusals are no sign of rest.
        if self.steps > 0 && self.changed.is_none_or(|changed| began >= changed + self.interval()) {
            self.steps -= 1;
            self.changed = Some(now);
        }
    }
}

impl<S> Layer<S> for Pressure {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, pressure: self.clone() }
    }
}

/// A client service whose writes are watched.
#[derive(Clone)]
pub struct Watched<S> {
    inner: S,
    pressure: Pressure,
}

impl<S, B> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let write = (request.method() != Method::GET).then(|| Write::begin(&self.pressure));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into);
            if let (Some(write), Ok(answer)) = (write, &answer) {
                write.ends(answer.status(), answer.headers());
            }
            answer
        })
    }
}

/// A write under way. One that is dropped without an answer broke, or took too long for whoever waited.
struct Write {
    pressure: Pressure,
    began: Instant,
    is_answered: bool,
}

impl Write {
    fn begin(pressure: &Pressure) -> Self {
        Self { pressure: pressure.clone(), began: Context::instant(), is_answered: false }
    }

    fn ends(mut self, status: StatusCode, headers: &HeaderMap) {
        self.is_answered = true;
        let began = self.began;
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                let wait = retry_after(headers);
                self.pressure.change(|throttle| throttle.failed(began, Context::instant(), wait));
            }
            // Something is wrong, and it is not known that it is the load.
            status if status.is_server_error() => {}
            _ => self.pressure.change(|throttle| throttle.answered(began, Context::instant())),
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.is_answered {
            self.pressure.change(|throttle| throttle.failed(self.began, Context::instant(), None));
        }
    }
}

/// The header in seconds, as API servers write it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
