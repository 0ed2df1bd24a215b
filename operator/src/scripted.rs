//! A scripted API server for tests: answers each request by a function, and remembers what it was asked.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use prometheus_client::metrics::gauge::Gauge;
use scriptrunner_core::observed::PodFacts;
use serde_json::{Value, json};
use tower::{Layer as _, util::BoxCloneService};

use crate::{
    args::{Args, Command},
    context::Context,
    pressure::Pressure,
};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// What is answered.
pub(crate) enum Answer {
    /// The status code and the body.
    Says(u16, Value),
    /// The same, after this time.
    Late(Duration, u16, Value),
    /// The status code, and after how many seconds to try again; in plain text, as the API server does when it sheds load.
    RetryAfter(u16, u64),
    /// Nothing, ever.
    Hangs,
}

/// What a scripted API server was asked so far.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<Asked>>>);

impl Record {
    /// All requests in their order.
    pub(crate) fn all(&self) -> Vec<Asked> {
        self.0.lock().unwrap().clone()
    }

    /// All requests as `METHOD last-part-of-the-path`.
    pub(crate) fn brief(&self) -> Vec<String> {
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        self.all().iter().map(|asked| format!("{} {}", asked.method, last(&asked.path))).collect()
    }
}

/// A client whose requests `answer` answers.
pub(crate) fn client(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Client, Record) {
    let (service, record) = service(answer);
    (Client::new(service, "default"), record)
}

/// What reconciles share, with a client whose requests `answer` answers, and that feels their pressure.
pub(crate) fn pressed(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Context, Record) {
    let (service, record) = service(answer);
    let pressure = Pressure::new(Duration::from_secs(1), Gauge::default());
    let context = context(Client::new(pressure.layer(service), "default"));
    (Context { pressure, ..context }, record)
}

type Served = BoxCloneService<Request<Body>, Response<Body>, Infallible>;

fn service(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Served, Record) {
    let record = Record::default();
    let (kept, answer) = (record.clone(), Arc::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (kept, answer) = (kept.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let content_type = head.headers.get("content-type").map(|value| value.to_str().unwrap());
            let asked = Asked {
                method: head.method,
                path: head.uri.path().to_owned(),
                content_type: content_type.unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            };
            let answered = answer(&asked);
            kept.0.lock().unwrap().push(asked);
            let says = |code: u16, body: Value| {
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            };
            match answered {
                Answer::Says(code, body) => says(code, body),
                Answer::Late(pause, code, body) => {
                    tokio::time::sleep(pause).await;
                    says(code, body)
                }
                Answer::RetryAfter(code, seconds) => {
                    let text = Body::from(b"Too many requests, please try again later.".to_vec());
                    Ok(Response::builder().status(code).header("retry-after", seconds).body(text).unwrap())
                }
                Answer::Hangs => std::future::pending().await,
            }
        }
    });
    (BoxCloneService::new(service), record)
}

/// A refusal, as the API server words it.
pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": message});
    Answer::Says(code, status)
}

/// What reconciles share, with a client of the test's own. API calls may take a second.
pub(crate) fn context(client: Client) -> Context {
    let flags = ["operator", "run", "--runner-image=runner", "--pod-name=me", "--request-timeout-seconds=1"];
    let Command::Run(flags) = Args::parse_from(flags).command;
    let mut config = flags.resolve().unwrap();
    config.pods.default_memory = None;
    config.pods.default_ephemeral_storage = None;
    Context::new(client, Arc::default(), config, Arc::default())
}

/// A pod of the object, as a watch shows it.
pub(crate) fn pod_facts(object: &str, name: &str, is_bound: bool) -> PodFacts {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "ns", "name": name, "uid": format!("uid-of-{name}"),
            "resourceVersion": if is_bound { "2" } else { "1" },
            "labels": {"scriptrunner.io/uid": object, "scriptrunner.io/node-uid": "n",
                "scriptrunner.io/run": "1", "scriptrunner.io/attempt": "1"},
            "annotations": {"scriptrunner.io/name": object, "scriptrunner.io/node": "n"},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
                "name": object, "uid": object, "controller": true}]},
        "spec": {"containers": [], "nodeName": is_bound.then_some("n")}});
    PodFacts::of(&serde_json::from_value(pod).unwrap()).unwrap()
}
