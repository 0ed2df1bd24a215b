//! Leader election on a Lease, as in client-go: optimistic replacement, expiry by the local clock of the observer. And the
//! gate that refuses every write of a process whose Lease may be over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
    client::Body,
};
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

/// Name of the Lease.
pub const LEASE_NAME: &str = "scriptrunner-operator";

/// Until when this process may write, by its own monotonic clock.
#[derive(Clone, Default, Debug)]
pub struct Validity(Arc<Mutex<Option<Instant>>>);

impl Validity {
    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether a write that begins now ends while the Lease is held.
    pub fn permits(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}

/// Takes part in the election until the process ends.
pub struct Elector {
    /// The Leases of the operator's namespace, through a client without the gate.
    pub leases: Api<Lease>,
    /// This process.
    pub identity: String,
    /// How long the Lease is valid after its last renewal.
    pub duration: Duration,
    /// Longest time of one API request.
    pub request_timeout: Duration,
    /// Until when this process may write.
    pub validity: Validity,
}

/// What a candidate knows of the Lease.
#[derive(Default)]
struct Known {
    /// As this process last wrote it, if that is the last thing that it knows.
    own: Option<Lease>,
    others: Option<Seen>,
}

/// What another process last wrote, and when this one saw it.
struct Seen {
    holder: Option<String>,
    renewed: Option<MicroTime>,
    at: Instant,
}

impl Elector {
    /// Sends true once this process leads and false once it may not any more; then returns.
    pub async fn run(self, leading: watch::Sender<bool>) {
        let retry = self.duration / 10;
        let mut known = Known::default();
        let mut renewed: Option<Instant> = None;
        loop {
            let started = Instant::now();
            match tokio::time::timeout(self.request_timeout, self.attempt(&mut known)).await {
                Ok(Ok(true)) => {
                    renewed = Some(started);
                    // A write that begins before this moment has ended when the Lease does.
                    self.validity.set(Some(started + self.duration.saturating_sub(self.request_timeout)));
                    leading.send_if_modified(|leads| !std::mem::replace(leads, true));
                }
                Ok(Ok(false)) if renewed.is_some() => {
                    tracing::error!("another process holds the lease");
                    self.validity.set(None);
                    leading.send_replace(false);
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "lease request failed"),
                Err(_) => tracing::warn!("lease request took too long"),
            }
            if renewed.is_some() && !self.validity.permits(Instant::now()) {
                tracing::error!("the lease could not be renewed in time");
                leading.send_replace(false);
                return;
            }
            tokio::time::sleep(retry).await;
        }
    }

    /// Gives the Lease up, so that the next process need not wait for its end.
    pub async fn release(leases: &Api<Lease>, identity: &str) -> kube::Result<()> {
        let Some(mut lease) = leases.get_opt(LEASE_NAME).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(identity))
        else {
            return Ok(());
        };
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        leases.replace(LEASE_NAME, &PostParams::default(), &lease).await.map(drop)
    }

    async fn attempt(&self, known: &mut Known) -> kube::Result<bool> {
        if let Some(own) = known.own.take() {
            match self.claim(own, false).await {
                Ok(written) => {
                    known.own = Some(written);
                    return Ok(true);
                }
                // Somebody wrote it since, who may have taken it or not.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let written = match self.leases.get_opt(LEASE_NAME).await? {
            None => {
                let metadata = ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() };
                let spec = Some(self.renewal(0, None));
                self.leases.create(&PostParams::default(), &Lease { metadata, spec }).await
            }
            Some(lease) => {
                let spec = lease.spec.clone().unwrap_or_default();
                let mine = spec.holder_identity.as_deref() == Some(self.identity.as_str());
                if !mine && !is_free(&spec, &mut known.others) {
                    return Ok(false);
                }
                self.claim(lease, !mine).await
            }
        };
        match written {
            Ok(written) => {
                known.own = Some(written);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes that this process holds the Lease from now on. It carries the resourceVersion: whoever lost the race gets a
    /// conflict.
    async fn claim(&self, mut lease: Lease, is_new: bool) -> kube::Result<Lease> {
        let spec = lease.spec.take().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(is_new);
        lease.spec = Some(self.renewal(transitions, spec.acquire_time.filter(|_| !is_new)));
        self.leases.replace(LEASE_NAME, &PostParams::default(), &lease).await
    }

    fn renewal(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: acquired.or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Whether nobody holds the Lease: it names nobody, or its holder has not renewed it for its duration since this process
/// first saw it so. Clocks of other machines are not compared.
fn is_free(spec: &LeaseSpec, seen: &mut Option<Seen>) -> bool {
    if spec.holder_identity.as_deref().is_none_or(str::is_empty) {
        return true;
    }
    let unchanged = seen
        .as_ref()
        .is_some_and(|seen| seen.holder == spec.holder_identity && seen.renewed == spec.renew_time);
    if !unchanged {
        *seen = Some(Seen {
            holder: spec.holder_identity.clone(),
            renewed: spec.renew_time.clone(),
            at: Instant::now(),
        });
    }
    let duration = Duration::from_secs(
        spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(15),
    );
    seen.as_ref().is_some_and(|seen| seen.at.elapsed() >= duration)
}

/// Refuses every request but reads while the process may not write.
#[derive(Clone)]
pub struct WriteGate {
    /// Until when this process may write.
    pub validity: Validity,
}

impl<S> Layer<S> for WriteGate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, validity: self.validity.clone() }
    }
}

/// A client service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    validity: Validity,
}

/// A write was refused because the Lease may be over.
#[derive(Debug, thiserror::Error)]
#[error("this process does not hold the lease, nothing is written")]
pub struct LeaseOver;

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() != Method::GET && !self.validity.permits(Instant::now()) {
            return Box::pin(std::future::ready(Err(LeaseOver.into())));
        }
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests;
