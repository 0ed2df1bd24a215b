//! A proxy between the operator and the API server, which sees every request and can do to it what a network or an API
//! server in trouble does.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, client};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{
    call::Call,
    rules::{Injection, Moment, Order, Rules, Stop, Turn, stop_here},
    streams::{HeldWatches, Streams},
};
use crate::error::{Error, Result};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is done to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on after this time, even if whoever sent it has given up or is dead by then.
    Delay(Duration),
    /// It is not passed on; this is the answer.
    Refuse(Refusal),
    /// It is passed on, and whatever the API server says, this is the answer.
    Answer(Refusal),
    /// It is not passed on; the connection breaks.
    Break,
    /// It is passed on; the connection breaks instead of the answer.
    Lose,
}

/// An answer that says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code.
    pub code: u16,
    /// Reason, as Kubernetes names it.
    pub reason: &'static str,
    /// After how long to come again.
    pub retry_after_seconds: Option<u32>,
}

/// A request that came by.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it asked for.
    pub call: Call,
    /// When it arrived here.
    pub at: Instant,
    /// What the API server answered; none while it has not, or where it never saw the request.
    pub answer: Option<u16>,
}

/// The connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("the connection is broken on purpose")]
struct Broken;

/// The proxy. It listens until it is dropped.
pub struct ApiProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<Infallible>,
}

struct Shared {
    upstream: Client,
    rules: Arc<Rules<Call, Fault>>,
    streams: Streams,
    records: Mutex<Vec<Record>>,
}

impl ApiProxy {
    /// Listens on this machine for whoever uses [`Self::kubeconfig`], and speaks to the API server as `upstream` does.
    ///
    /// `upstream` should not repeat requests by itself and should have no time limit for reads, since watches pass through it.
    pub async fn start(upstream: Client) -> Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).await.map_err(Error::call("listen for the API proxy"))?;
        let address = listener.local_addr().map_err(Error::call("ask for the API proxy's address"))?;
        let shared = Arc::new(Shared {
            upstream,
            rules: Arc::default(),
            streams: Streams::default(),
            records: Mutex::default(),
        });
        Ok(Self { address, task: tokio::spawn(listen(listener, shared.clone())), shared })
    }

    /// A kubeconfig of this proxy. It needs no credentials: the proxy has its own.
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "users": [{"name": "proxy", "user": {}}],
        })
        .to_string()
    }

    /// Does `fault` to those requests that are wanted, in their turn.
    pub fn inject(
        &self,
        wanted: impl Fn(&Call) -> bool + Send + 'static,
        turn: Turn,
        fault: Fault,
    ) -> Injection {
        self.shared.rules.inject(wanted, turn, fault)
    }

    /// Stops those requests that are wanted, in their turn.
    pub fn stop(
        &self,
        wanted: impl Fn(&Call) -> bool + Send + 'static,
        turn: Turn,
        moment: Moment,
    ) -> Stop<Call> {
        self.shared.rules.stop(wanted, turn, moment)
    }

    /// Holds back what the watches of a resource bring.
    pub fn hold_watches(&self, resource: &str) -> HeldWatches {
        self.shared.streams.hold(resource)
    }

    /// Breaks the connections of all watches of a resource, and says how many there were.
    pub fn cut_watches(&self, resource: &str) -> usize {
        self.shared.streams.cut(resource)
    }

    /// Every request so far, in the order in which they arrived.
    pub fn records(&self) -> Vec<Record> {
        self.shared.records().clone()
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connections end with this task.
async fn listen(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, shared.clone()))),
                // Out of file descriptors, say: those who wait see it, and it may pass.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(shared.clone(), request));
    // An end by error is what a broken connection looks like from here.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    // A request that is under way arrives, whatever becomes of who sent it: so it has a task of its own.
    let passing = tokio::spawn(async move { shared.pass(Request::from_parts(head, body)).await });
    passing.await.map_err(|_| Broken)?
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, request: Request<Bytes>) -> Result<Response<Body>, Broken> {
        let call = Call::of(request.method(), request.uri());
        let number = {
            let mut records = self.records();
            records.push(Record { call: call.clone(), at: Instant::now(), answer: None });
            records.len() - 1
        };
        let order = self.rules.order_for(&call);
        match &order {
            Some(Order::Fault(Fault::Delay(time))) => tokio::time::sleep(*time).await,
            Some(Order::Fault(Fault::Refuse(refusal))) => return Ok(refusal.response()),
            Some(Order::Fault(Fault::Break)) => return Err(Broken),
            Some(Order::Stop(Moment::Before, test)) if !stop_here(&call, test).await => return Err(Broken),
            Some(Order::Fault(Fault::Answer(_) | Fault::Lose) | Order::Stop(..)) | None => {}
        }
        let response = self.ask(request, &call).await?;
        self.records()[number].answer = Some(response.status().as_u16());
        match &order {
            Some(Order::Fault(Fault::Answer(refusal))) => Ok(refusal.response()),
            Some(Order::Fault(Fault::Lose)) => Err(Broken),
            Some(Order::Stop(Moment::After, test)) if !stop_here(&call, test).await => Err(Broken),
            Some(Order::Fault(Fault::Delay(_) | Fault::Refuse(_) | Fault::Break) | Order::Stop(..))
            | None => Ok(response),
        }
    }

    /// The API server's answer; whole, but for a watch.
    async fn ask(&self, request: Request<Bytes>, call: &Call) -> Result<Response<Body>, Broken> {
        let (head, body) = request.into_parts();
        let mut onward = Request::new(client::Body::from(body));
        *onward.method_mut() = head.method;
        *onward.uri_mut() = head.uri;
        *onward.headers_mut() = without_connection(head.headers);
        let (head, body) = self.upstream.send(onward).await.map_err(|_| Broken)?.into_parts();
        let body = if call.verb == "watch" && head.status.is_success() {
            StreamBody::new(self.streams.pass_on(&call.resource, body)).boxed_unsync()
        } else {
            let whole = body.collect().await.map_err(|_| Broken)?.to_bytes();
            Full::new(whole).map_err(|never| match never {}).boxed_unsync()
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = without_connection(head.headers);
        Ok(response)
    }
}

/// Headers without those that are about one connection only.
fn without_connection(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}

impl Refusal {
    /// An answer without a time to come again.
    pub fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, retry_after_seconds: None }
    }

    fn response(self) -> Response<Body> {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "refused on purpose by a test", "reason": self.reason, "code": self.code});
        let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {});
        let mut response =
            Response::builder().status(self.code).header(header::CONTENT_TYPE, "application/json");
        if let Some(seconds) = self.retry_after_seconds {
            response = response.header(header::RETRY_AFTER, seconds);
        }
        response.body(body.boxed_unsync()).expect("a status code between 100 and 999 should be an answer")
    }
}

#[cfg(test)]
mod tests;
