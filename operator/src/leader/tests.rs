//! The election against a scripted Lease, with durations of a second or two; and the gate.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::StatusCode;
use kube::Client;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::scripted::{Answer, Asked, client, failure};

/// Longest time that anything here may take.
const LONG: Duration = Duration::from_secs(20);
/// How long the candidates' Lease is valid; they look ten times as often.
const DURATION: Duration = Duration::from_secs(2);

/// The one Lease of a scripted API server.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<Value>>,
    /// Whether every request fails from now on.
    fails: AtomicBool,
    /// Whether no request is answered from now on.
    hangs: AtomicBool,
    /// Whether its holder renews the Lease before each read.
    renews: AtomicBool,
    failures: AtomicUsize,
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Server {
    fn holding(holder: &str, seconds: i64) -> Arc<Self> {
        let server = Self::default();
        // A clock that is wrong by years: it does not matter.
        *server.lease.lock().unwrap() = Some(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": "ns", "resourceVersion": "1"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 4,
                "acquireTime": "2040-01-01T00:00:00.000000Z", "renewTime": "2040-01-01T00:00:00.000000Z"}}));
        Arc::new(server)
    }

    fn client(self: &Arc<Self>) -> Client {
        let server = self.clone();
        client(move |asked| server.answer(asked)).0
    }

    fn answer(&self, asked: &Asked) -> Answer {
        if self.hangs.load(Ordering::SeqCst) {
            return Answer::Hangs;
        }
        if self.fails.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return failure(500, "InternalError", "etcd is away");
        }
        let mut lease = self.lease.lock().unwrap();
        if asked.method == Method::GET {
            let reads = self.reads.fetch_add(1, Ordering::SeqCst);
            let Some(found) = lease.as_mut() else { return failure(404, "NotFound", "no lease") };
            if self.renews.load(Ordering::SeqCst) {
                found["spec"]["renewTime"] = format!("2040-01-01T00:00:00.{reads:06}Z").into();
            }
            return Answer::Says(200, found.clone());
        }
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        match &*lease {
            None if asked.method == Method::PUT => return failure(404, "NotFound", "no lease"),
            Some(_) if asked.method == Method::POST => {
                return failure(409, "AlreadyExists", "a lease exists");
            }
            Some(found) if version(found) != version(&asked.body) => {
                return failure(409, "Conflict", "the object has been modified");
            }
            Some(_) | None => {}
        }
        let mut stored = asked.body.clone();
        let writes = self.writes.fetch_add(1, Ordering::SeqCst);
        stored["metadata"]["resourceVersion"] = (writes + 2).to_string().into();
        *lease = Some(stored.clone());
        Answer::Says(200, stored)
    }

    fn spec(&self) -> Value {
        self.lease.lock().unwrap().as_ref().unwrap()["spec"].clone()
    }
}

/// A process that takes part in the election.
struct Candidate {
    leads: watch::Receiver<bool>,
    validity: Validity,
    election: tokio::task::JoinHandle<()>,
}

impl Candidate {
    fn of(server: &Arc<Server>, identity: &str) -> Self {
        let validity = Validity::default();
        let elector = Elector {
            leases: Api::namespaced(server.client(), "ns"),
            identity: identity.to_owned(),
            duration: DURATION,
            request_timeout: Duration::from_millis(500),
            validity: validity.clone(),
        };
        let (sender, leads) = watch::channel(false);
        Self { leads, validity, election: tokio::spawn(elector.run(sender)) }
    }

    fn may_write(&self) -> bool {
        self.validity.permits(Instant::now())
    }

    /// Waits until it leads or does not any more.
    async fn await_leading(&mut self, leading: bool) {
        tokio::time::timeout(LONG, self.leads.wait_for(|leads| *leads == leading)).await.unwrap().unwrap();
    }

    /// Waits until its part in the election is over.
    async fn await_end(&mut self) {
        tokio::time::timeout(LONG, &mut self.election).await.unwrap().unwrap();
    }
}

/// Waits until the server has answered so many more requests.
async fn await_requests(server: &Server, count: usize) {
    let answered = || server.reads.load(Ordering::SeqCst) + server.writes.load(Ordering::SeqCst);
    let enough = answered() + count;
    let reached = async {
        while answered() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, reached).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_not_there_is_made() {
    let server = Arc::new(Server::default());
    let mut me = Candidate::of(&server, "me");
    assert!(!me.may_write());
    me.await_leading(true).await;
    assert!(me.may_write());
    let spec = server.spec();
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"]), (&json!("me"), &json!(2)));
    assert_eq!(spec["leaseTransitions"], 0);
}

#[tokio::test]
async fn a_leader_renews_and_stays_the_same_leader() {
    let server = Arc::new(Server::default());
    let mut me = Candidate::of(&server, "me");
    me.await_leading(true).await;
    let first = server.spec();
    await_requests(&server, 12).await;
    let later = server.spec();
    assert_eq!(server.reads.load(Ordering::SeqCst), 1, "what it wrote itself it need not read");
    assert!(me.may_write() && *me.leads.borrow());
    assert_ne!(later["renewTime"], first["renewTime"]);
    assert_eq!((&later["acquireTime"], &later["leaseTransitions"]), (&first["acquireTime"], &json!(0)));
}

#[tokio::test]
async fn a_lease_that_somebody_touched_and_did_not_take_is_kept() {
    let server = Arc::new(Server::default());
    let mut me = Candidate::of(&server, "me");
    me.await_leading(true).await;
    for version in ["98", "99"] {
        if let Some(lease) = server.lease.lock().unwrap().as_mut() {
            lease["metadata"]["annotations"] = json!({"note": version});
            lease["metadata"]["resourceVersion"] = version.into();
        }
        await_requests(&server, 4).await;
        assert!(me.may_write() && *me.leads.borrow());
    }
    let lease = server.lease.lock().unwrap().clone().unwrap();
    assert_eq!(lease["metadata"]["annotations"], json!({"note": "99"}), "and what they wrote stays");
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&json!("me"), &json!(0))
    );
}

#[tokio::test]
async fn a_lease_that_was_deleted_is_made_again() {
    let server = Arc::new(Server::default());
    let mut me = Candidate::of(&server, "me");
    me.await_leading(true).await;
    *server.lease.lock().unwrap() = None;
    await_requests(&server, 4).await;
    assert!(me.may_write() && *me.leads.borrow());
    assert_eq!(server.spec()["holderIdentity"], "me");
}

#[tokio::test]
async fn a_silent_holder_is_waited_for_as_long_as_its_lease_by_the_observers_clock() {
    let server = Server::holding("another", 1);
    let begin = Instant::now();
    let mut me = Candidate::of(&server, "me");
    me.await_leading(true).await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!((server.spec()["leaseTransitions"].clone(), me.may_write()), (json!(5), true));
    assert_eq!(server.writes.load(Ordering::SeqCst), 1, "nothing was written before");
}

#[tokio::test]
async fn a_holder_that_renews_keeps_the_lease() {
    let server = Server::holding("another", 1);
    server.renews.store(true, Ordering::SeqCst);
    let me = Candidate::of(&server, "me");
    // Five of them are its duration.
    await_requests(&server, 8).await;
    assert!(!*me.leads.borrow() && !me.may_write());
    assert_eq!(server.writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn of_two_candidates_one_leads() {
    let server = Arc::new(Server::default());
    let (one, two) = (Candidate::of(&server, "one"), Candidate::of(&server, "two"));
    await_requests(&server, 12).await;
    assert_ne!(*one.leads.borrow(), *two.leads.borrow());
    assert!(!(one.may_write() && two.may_write()));
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_writing_before_its_lease_is_over() {
    for hangs in [false, true] {
        let server = Arc::new(Server::default());
        let mut me = Candidate::of(&server, "me");
        me.await_leading(true).await;
        let begin = Instant::now();
        if hangs { &server.hangs } else { &server.fails }.store(true, Ordering::SeqCst);
        let stopped_writing = async {
            while me.may_write() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, stopped_writing).await.unwrap();
        assert!(begin.elapsed() < DURATION, "hangs: {hangs}, {:?}", begin.elapsed());
        me.await_leading(false).await;
        me.await_end().await;
        // What the next one would have seen since then is a Lease that still held when the writes ended.
        server.hangs.store(false, Ordering::SeqCst);
        server.fails.store(false, Ordering::SeqCst);
        assert_eq!(server.spec()["holderIdentity"], "me");
    }
}

#[tokio::test]
async fn a_failure_that_passes_in_time_costs_nothing() {
    let server = Arc::new(Server::default());
    let mut me = Candidate::of(&server, "me");
    me.await_leading(true).await;
    server.fails.store(true, Ordering::SeqCst);
    let writes = server.writes.load(Ordering::SeqCst);
    let failed = async {
        while server.failures.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, failed).await.unwrap();
    server.fails.store(false, Ordering::SeqCst);
    await_requests(&server, 2).await;
    assert!(me.may_write() && server.writes.load(Ordering::SeqCst) > writes);
}

#[tokio::test]
async fn a_leader_whose_lease_is_taken_ends_at_once() {
    let server = Arc::new(Server::default());
    let mut me = Candidate::of(&server, "me");
    me.await_leading(true).await;
    if let Some(lease) = server.lease.lock().unwrap().as_mut() {
        lease["spec"]["holderIdentity"] = "another".into();
        lease["metadata"]["resourceVersion"] = "99".into();
    }
    me.await_leading(false).await;
    assert!(!me.may_write());
    me.await_end().await;
    assert_eq!(server.spec()["holderIdentity"], "another");
}

#[tokio::test]
async fn a_lease_that_was_given_up_is_taken_at_once() {
    let server = Server::holding("before", 3600);
    let leases = Api::namespaced(server.client(), "ns");
    Elector::release(&leases, "stranger").await.unwrap();
    assert_eq!(server.spec()["holderIdentity"], "before", "only the holder gives it up");
    Elector::release(&leases, "before").await.unwrap();
    assert!(server.spec()["holderIdentity"].is_null());
    let mut me = Candidate::of(&server, "me");
    // Less than an hour.
    me.await_leading(true).await;
    let nothing = Api::namespaced(Arc::new(Server::default()).client(), "ns");
    Elector::release(&nothing, "me").await.unwrap();
}

/// What the gate makes of a request, and whether the request went through it.
async fn through(gate: &WriteGate, method: Method) -> (Result<StatusCode, String>, bool) {
    let reached = Arc::new(AtomicBool::new(false));
    let inside = reached.clone();
    let inner = tower::service_fn(move |_: Request<Body>| {
        inside.store(true, Ordering::SeqCst);
        std::future::ready(Ok::<_, BoxError>(Response::new(Body::empty())))
    });
    let request = Request::builder().method(method).body(Body::empty()).unwrap();
    let answer = gate.layer(inner).oneshot(request).await;
    let answer = answer.map(|answer| answer.status()).map_err(|error| error.to_string());
    (answer, reached.load(Ordering::SeqCst))
}

#[tokio::test]
async fn the_gate_lets_writes_through_only_while_the_lease_is_valid() {
    let gate = WriteGate { validity: Validity::default() };
    let closed = (Err("this process does not hold the lease, nothing is written".to_owned()), false);
    let open = (Ok(StatusCode::OK), true);
    let writes = || [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let ways = [(None, false), (Some(Instant::now() + LONG), true), (Some(Instant::now()), false)];
    for (until, is_open) in ways {
        gate.validity.set(until);
        for method in writes() {
            let expected = if is_open { &open } else { &closed };
            assert_eq!(through(&gate, method).await, *expected);
        }
        assert_eq!(through(&gate, Method::GET).await, open);
    }
}
