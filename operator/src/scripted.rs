//! A scripted API server for tests: answers each request by a function, and remembers what it was asked.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{Method, Request, Response};
use kube::{
    Client,
    client::Body,
    runtime::events::{Recorder, Reporter},
};
use scriptrunner_core::pod::PodSettings;
use serde_json::{Value, json};

use crate::{
    args::{Config, LogFormat, Timers},
    context::{Bucket, Context},
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
            match answered {
                Answer::Says(code, body) => {
                    let body = Body::from(body.to_string().into_bytes());
                    Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
                }
                Answer::Hangs => std::future::pending().await,
            }
        }
    });
    (Client::new(service, "default"), record)
}

/// A refusal, as the API server words it.
pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": message});
    Answer::Says(code, status)
}

/// What reconciles share, with a client of the test's own. API calls may take a second.
pub(crate) fn context(client: Client) -> Context {
    let reporter = Reporter { controller: "test".to_owned(), instance: None };
    Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        world: Arc::default(),
        config: Config {
            pods: PodSettings {
                runner_image: "runner".to_owned(),
                default_memory: None,
                default_ephemeral_storage: None,
                handover_seconds: 600,
            },
            namespace: "scriptrunner-system".to_owned(),
            identity: "me".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            status_bytes_per_second: 1_000_000,
            timers: Timers {
                status_interval: Duration::from_secs(1),
                state_interval: Duration::from_secs(10),
                refusal_retry: Duration::from_secs(15),
                longest_backoff: Duration::from_mins(5),
            },
            lease: Duration::from_secs(30),
            request_timeout: Duration::from_secs(1),
            log_format: LogFormat::Text,
        },
        metrics: Arc::default(),
        status_bytes: Mutex::new(Bucket::new(1_000_000, 1_000_000, Instant::now())),
    }
}
