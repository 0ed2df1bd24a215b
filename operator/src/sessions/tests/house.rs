//! A door that is open, and the scripted API server behind it.

use std::time::Duration;

use http::Method;
use scriptrunner_api::session::AUDIENCE;

use super::{super::*, *};
use crate::{
    context::Context,
    metrics::Outcome,
    scripted::{self, Answer, Asked, Record, failure},
    sessions::{claims::tests::token, credentials::tests::Kept},
};

/// How long anything may take here.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A door that is open.
pub(super) struct House {
    pub(super) door: Arc<Door>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) world: Arc<World>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) address: SocketAddr,
    pub(super) leads: watch::Sender<bool>,
    pub(super) triggers: mpsc::UnboundedReceiver<Trigger>,
    pub(super) record: Record,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What the flags say by default.
pub(super) fn config() -> DoorConfig {
    let hours = |hours| Duration::from_hours(hours);
    DoorConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        address: None,
        token_reviews_per_second: 10_000,
        most_sessions: 1000,
        certificate: hours(90 * 24),
        authority: hours(3650 * 24),
        authority_overlap: hours(24),
    }
}

/// Opens a door for pods with these UIDs.
pub(super) async fn open(config: DoorConfig, pods: &[&str]) -> House {
    let kept = Kept::default();
    let (client, record) = scripted::client(move |asked| answer(&kept, asked));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::new());
    let (world, sessions) = (Arc::new(World::default()), Arc::new(Sessions::new(Arc::clone(&metrics))));
    for uid in pods {
        world.pods().put(pod(uid));
    }
    let (leads, leading) = watch::channel(true);
    let (sender, triggers) = mpsc::unbounded_channel();
    let needs = Needs {
        client,
        config: DoorConfig { address: Some(address), ..config },
        namespace: "ns".to_owned(),
        request_timeout: Duration::from_secs(5),
        leads: leading,
        sessions: Arc::clone(&sessions),
        world: Arc::clone(&world),
        triggers: sender,
        metrics: Arc::clone(&metrics),
    };
    let door = prepare(needs).await.unwrap();
    let serving = tokio::spawn({
        let door = Arc::clone(&door);
        async move { serve(door, listener).await.unwrap() }
    });
    House { door, sessions, world, metrics, address, leads, triggers, record, serving }
}

/// Keeps one Secret, and vouches for every token whose signature is that of the tests.
fn answer(kept: &Kept, asked: &Asked) -> Answer {
    if asked.path.contains("/secrets") {
        return kept.answer(asked);
    }
    if asked.method != Method::POST || !asked.path.ends_with("/tokenreviews") {
        return failure(404, "NotFound", "gone");
    }
    let token = asked.body["spec"]["token"].as_str().unwrap();
    let claimed = super::super::claims::read(token, Timestamp::MIN);
    let (Ok(claims), true) = (claimed, token.rsplit('.').next() == Some("c2ln")) else {
        return Answer::Says(201, json!({"status": {"authenticated": false}}));
    };
    let uid = claims.pod_uid;
    let extra = |key: &str, value: &str| (format!("authentication.kubernetes.io/{key}"), json!([value]));
    let extra: serde_json::Map<String, Value> = [
        extra("pod-uid", &uid),
        extra("pod-name", &format!("srn-{uid}")),
        extra("node-name", &format!("node-{uid}")),
    ]
    .into_iter()
    .collect();
    Answer::Says(
        201,
        json!({"status": {"authenticated": true, "audiences": [AUDIENCE],
            "user": {"username": "system:serviceaccount:ns:default", "extra": extra}}}),
    )
}

/// The token of a pod, valid for so many seconds.
pub(super) fn token_for(uid: &str, seconds: i64) -> String {
    token(&json!({"aud": [AUDIENCE], "exp": Context::now().as_second() + seconds,
        "kubernetes.io": {"namespace": "ns", "pod": {"name": format!("srn-{uid}"), "uid": uid}}}))
}

/// The token of a pod.
pub(super) fn token_of(uid: &str) -> String {
    token_for(uid, 3600)
}

impl House {
    /// How often something was counted.
    pub(super) fn refusals(&self, word: &'static str) -> u64 {
        self.metrics.session_refusals.get_or_create(&Outcome { outcome: word }).get()
    }

    /// How many sessions ended so.
    pub(super) fn ends(&self, word: &'static str) -> u64 {
        self.metrics.session_ends.get_or_create(&Outcome { outcome: word }).get()
    }

    /// How many questions the API server was asked whose a token is.
    pub(super) fn reviews(&self) -> usize {
        self.record.all().iter().filter(|asked| asked.path.ends_with("/tokenreviews")).count()
    }

    /// What is known of a pod.
    pub(super) fn facts(&self, uid: &str) -> Option<SessionFacts> {
        self.sessions.facts(std::iter::once(uid)).remove(uid)
    }

    /// Number of the newest snapshot of a pod.
    pub(super) fn seq(&self, uid: &str) -> Option<u64> {
        Some(self.facts(uid)?.snapshot?.record.seq)
    }

    /// Waits until it is so.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let text = || self.metrics.text().unwrap();
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{what}: not so\n{}", text()));
    }
}
