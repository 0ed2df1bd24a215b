//! What is asked of a scripted API server when watches end in all the ways they can, and what the tables show then.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    sync::{Mutex, PoisonError},
};

use axum::body::Body as AnyBody;
use http::{Request, Response};
use kube::client::Body;
use scriptrunner_core::observed::Presence;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;

/// How a watch ends after its events.
#[derive(Clone, Copy)]
enum End {
    /// As the API server ends it.
    Clean,
    /// The connection breaks.
    Broken,
    /// Nothing is said any more, as when the other side has lost its power.
    Silent,
}

/// What is answered to the next request.
enum Step {
    /// To a list.
    List(&'static str, Vec<Value>),
    /// To a watch.
    Watch(Vec<Value>, End),
    /// To either.
    Fails(u16),
}

/// A scripted API server, and when it was asked for what.
#[derive(Clone, Default)]
struct Server {
    steps: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<Mutex<Vec<(String, Duration)>>>,
}

impl Server {
    fn new(steps: Vec<Step>) -> Self {
        Self { steps: Arc::new(Mutex::new(steps.into())), asked: Arc::default() }
    }

    fn client(&self) -> Client {
        let (server, begin) = (self.clone(), Instant::now());
        let service = tower::service_fn(move |request: Request<Body>| {
            server.asked.lock().unwrap().push((request_of(&request), begin.elapsed()));
            let step = server.steps.lock().unwrap().pop_front();
            std::future::ready(Ok::<_, Infallible>(step.map_or_else(silence, answer)))
        });
        Client::new(service, "default")
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(request, _)| request.clone()).collect()
    }

    /// Waits until nothing of the script is left and everything that it says is taken in.
    async fn finish(&self) {
        tokio::time::timeout(Duration::from_mins(10), async {
            while !self.steps.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(2 * LONGEST_SILENCE).await;
        })
        .await
        .unwrap();
    }
}

/// `list` or `watch`, and from which version.
fn request_of(request: &Request<Body>) -> String {
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    if value("watch").is_some() {
        format!("watch {}", value("resourceVersion").unwrap_or_default())
    } else {
        assert_eq!(value("resourceVersion"), None, "lists are consistent");
        "list".to_owned()
    }
}

fn silence() -> Response<AnyBody> {
    Response::new(AnyBody::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>()))
}

fn answer(step: Step) -> Response<AnyBody> {
    match step {
        Step::List(version, items) => {
            let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version},
                "items": items});
            Response::new(AnyBody::from(list.to_string()))
        }
        Step::Watch(events, end) => {
            let lines = events.into_iter().map(|event| {
                // As Go writes it: the kind of event first.
                let line = format!("{{\"type\":{},\"object\":{}}}\n", event["type"], event["object"]);
                Ok::<_, io::Error>(line.into_bytes())
            });
            let lines = stream::iter(lines);
            Response::new(match end {
                End::Clean => AnyBody::from_stream(lines),
                End::Broken => {
                    AnyBody::from_stream(lines.chain(stream::iter([Err(io::Error::other("reset"))])))
                }
                End::Silent => AnyBody::from_stream(lines.chain(stream::pending())),
            })
        }
        Step::Fails(code) => {
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
            Response::builder().status(code).body(AnyBody::from(body.to_string())).unwrap()
        }
    }
}

fn pod_json(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-of-{name}"), "resourceVersion": version,
            "labels": {"scriptrunner.io/uid": "owner", "scriptrunner.io/node-uid": "uid-of-node",
                "scriptrunner.io/run": "1", "scriptrunner.io/attempt": "1"},
            "annotations": {"scriptrunner.io/name": "sr", "scriptrunner.io/node": "node"},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "name": "sr",
                "uid": "owner", "controller": true}]},
        "spec": {"nodeName": "node", "containers": []},
    })
}

fn made(name: &str, version: &str) -> Value {
    json!({"type": "ADDED", "object": pod_json(name, version)})
}

fn bookmark(version: &str) -> Value {
    json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1",
        "metadata": {"resourceVersion": version}}})
}

fn error(code: u16) -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": "something is wrong", "reason": "Reason"}})
}

/// Watches pods at a server that answers so; what it was asked, and the pods that the table shows.
async fn watched(steps: Vec<Step>) -> (Vec<String>, Vec<(String, Presence)>) {
    let server = Server::new(steps);
    let (triggers, _receiver) = mpsc::unbounded_channel();
    let sink = Sink { world: Arc::default(), triggers, metrics: Arc::default() };
    let pods = watch_all(vec![Api::<Slimmed<Pod>>::all(server.client())], Some(labels::UID), PAGE);
    let synced = spawn(&sink, "pods", pods, PodEvents);
    server.finish().await;
    assert!(*synced.borrow());
    let mut known: Vec<_> =
        sink.world.pods().of("owner").iter().map(|pod| (pod.name.clone(), pod.presence)).collect();
    known.sort_by(|left, right| left.0.cmp(&right.0));
    (server.asked(), known)
}

fn present(names: &[&str]) -> Vec<(String, Presence)> {
    names.iter().map(|name| ((*name).to_owned(), Presence::Present)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_ended() {
    for end in [End::Clean, End::Broken, End::Silent] {
        let (asked, known) = watched(vec![
            Step::List("10", vec![pod_json("a", "5")]),
            Step::Watch(vec![made("b", "11")], end),
            Step::Watch(vec![bookmark("20")], end),
            Step::Watch(vec![made("c", "21")], end),
        ])
        .await;
        assert_eq!(asked[..5], ["list", "watch 10", "watch 11", "watch 20", "watch 21"]);
        assert_eq!(known, present(&["a", "b", "c"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up_after_a_minute() {
    let server = Server::new(vec![
        Step::List("10", Vec::new()),
        Step::Watch(Vec::new(), End::Silent),
        Step::Fails(500),
    ]);
    let mut events = Box::pin(watch_all(vec![Api::<Slimmed<Pod>>::all(server.client())], None, PAGE));
    while !matches!(events.next().await, Some(Err(_))) {}
    let asked = server.asked.lock().unwrap().clone();
    let silence = asked[2].1.saturating_sub(asked[1].1);
    assert!(silence >= Duration::from_mins(1) && silence <= LONGEST_SILENCE, "{silence:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_asked_again_for_the_same_version() {
    let (asked, known) = watched(vec![
        Step::List("10", vec![pod_json("a", "5")]),
        Step::Watch(Vec::new(), End::Broken),
        Step::Fails(503),
        Step::Fails(500),
        Step::Fails(429),
        Step::Watch(vec![made("b", "11")], End::Clean),
    ])
    .await;
    assert_eq!(asked[..6], ["list", "watch 10", "watch 10", "watch 10", "watch 10", "watch 10"]);
    assert_eq!(known, present(&["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn an_error_within_a_watch_is_no_reason_to_list_unless_the_version_is_too_old() {
    let (asked, _) = watched(vec![
        Step::List("10", Vec::new()),
        Step::Watch(vec![made("a", "11"), error(500)], End::Clean),
        Step::Watch(vec![error(410)], End::Clean),
        Step::List("30", Vec::new()),
        Step::Watch(Vec::new(), End::Clean),
    ])
    .await;
    assert_eq!(asked[..5], ["list", "watch 10", "watch 11", "list", "watch 30"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_ends_in_a_list_however_the_server_says_so() {
    for too_old in [|| Step::Fails(410), || Step::Watch(vec![error(410)], End::Clean)] {
        let (asked, known) = watched(vec![
            Step::List("10", vec![pod_json("a", "5"), pod_json("b", "6")]),
            Step::Watch(Vec::new(), End::Clean),
            too_old(),
            Step::List("30", vec![pod_json("b", "6"), pod_json("c", "29")]),
            Step::Watch(vec![made("d", "31")], End::Clean),
        ])
        .await;
        assert_eq!(asked[..5], ["list", "watch 10", "watch 10", "list", "watch 30"]);
        let mut expected = present(&["a", "b", "c", "d"]);
        expected[0].1 = Presence::Unconfirmed;
        assert_eq!(known, expected, "what vanished while nobody watched is asked for by name");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_do_not_make_a_busy_loop() {
    let steps = std::iter::once(Step::List("10", Vec::new())).chain((0..10).map(|_| Step::Fails(410)));
    let server = Server::new(steps.collect());
    let mut events = Box::pin(watch_all(vec![Api::<Slimmed<Pod>>::all(server.client())], None, PAGE));
    let begin = Instant::now();
    for _ in 0..10 {
        events.next().await.unwrap().ok();
    }
    assert!(begin.elapsed() > Duration::from_secs(3), "{:?}", begin.elapsed());
}

fn node_json(name: &str, ready: &str, beat: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("uid-of-{name}"), "resourceVersion": (100 + beat).to_string()},
        "status": {"conditions": [{"type": "Ready", "status": ready,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "lastHeartbeatTime": format!("2026-01-01T00:00:{beat:02}Z")}]}})
}

#[test]
fn a_list_of_nodes_triggers_once_and_heartbeats_trigger_nothing() {
    let (triggers, mut receiver) = mpsc::unbounded_channel();
    let sink = Sink { world: Arc::default(), triggers, metrics: Arc::default() };
    let mut triggered = || std::iter::from_fn(|| receiver.try_recv().ok()).count();
    let mut events = NodeEvents::default();
    let mut take = |event| events.take_in(event, &sink);
    let node = |name: &str, ready: &str, beat| serde_json::from_value(node_json(name, ready, beat)).unwrap();
    for _ in 0..2 {
        take(Event::Init);
        (0..10).for_each(|number| take(Event::InitApply(node(&format!("n{number}"), "True", 1))));
        take(Event::InitDone);
    }
    assert_eq!(triggered(), 1, "the second list shows nothing new");
    (2..50).for_each(|beat| take(Event::Apply(node("n1", "True", beat))));
    assert_eq!(triggered(), 0);
    let seen = sink.world.nodes().clone();
    take(Event::Apply(node("n1", "False", 50)));
    assert_eq!(triggered(), 1);
    assert_eq!((seen["n1"].ready, sink.world.nodes()["n1"].ready), (true, false));
    take(Event::Delete(node("n2", "True", 51)));
    assert_eq!((triggered(), sink.world.nodes().len()), (1, 9));
    take(Event::Init);
    take(Event::InitApply(node("n1", "False", 52)));
    take(Event::InitDone);
    assert_eq!((triggered(), sink.world.nodes().len()), (1, 1), "what vanished while nobody watched");
}
