//! Against a scripted API server: what it says of a token, and how often it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Pod;
use scriptrunner_api::session::ToRunner;
use serde_json::{Value, json};

use super::*;
use crate::{
    scripted::{Answer, Record, client, failure},
    sessions::claims::tests::token,
};

const POD: &str = "pod-uid-1";

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "ns", "name": "srn-1", "uid": POD, "resourceVersion": "1",
            "labels": {"scriptrunner.io/uid": "owner-uid", "scriptrunner.io/node-uid": "node-uid",
                "scriptrunner.io/run": "3", "scriptrunner.io/attempt": "2"},
            "annotations": {"scriptrunner.io/name": "sr", "scriptrunner.io/node": "worker-1"},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
                "name": "sr", "uid": "owner-uid", "controller": true}]},
        "spec": {"nodeName": "worker-1", "containers": [{"name": "runner"}]}, "status": {"phase": "Running"}})
}

fn facts(change: impl FnOnce(&mut Value)) -> PodFacts {
    let mut pod = pod();
    change(&mut pod);
    PodFacts::of(&serde_json::from_value::<Pod>(pod).unwrap()).unwrap()
}

/// What the API server says of the pod's own token.
fn review() -> Value {
    json!({"status": {"authenticated": true, "audiences": ["scriptrunner.io"],
        "user": {"username": "system:serviceaccount:ns:default", "uid": "u", "groups": ["system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/pod-uid": [POD],
                "authentication.kubernetes.io/pod-name": ["srn-1"],
                "authentication.kubernetes.io/node-name": ["worker-1"]}}}})
}

fn claims(pod_uid: &str) -> Value {
    json!({"aud": "scriptrunner.io", "exp": Context::now().as_second() + 1000,
        "kubernetes.io": {"pod": {"uid": pod_uid}}})
}

fn identity(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Identity, Record) {
    let (client, record) = client(move |_| answer());
    let world = Arc::new(World::default());
    world.pods().put(facts(|_| {}));
    let identity = Identity::new(client, world, Arc::default(), 1000, Duration::from_millis(100));
    (identity, record)
}

fn says(review: Value) -> (Identity, Record) {
    identity(move || Answer::Says(201, review.clone()))
}

async fn identify(identity: &Identity, claims: &Value) -> Result<Arc<Speaker>, Refusal> {
    identity.identify(&token(claims), |_| false).await
}

async fn word(identity: &Identity, claims: &Value) -> (&'static str, u16) {
    let refusal = identify(identity, claims).await.unwrap_err();
    (refusal.word, refusal.code.as_u16())
}

#[tokio::test]
async fn speaker_is_the_pod_of_the_token() {
    let (identity, record) = says(review());
    let speaker = identify(&identity, &claims(POD)).await.unwrap();
    assert_eq!((speaker.pod_uid.as_str(), speaker.node.as_str()), (POD, "worker-1"));
    assert_eq!((speaker.namespace.as_str(), speaker.owner.as_str()), ("ns", "sr"));
    assert_eq!((speaker.run, speaker.attempt), (3, 2));
    let asked = &record.all()[0];
    assert_eq!(asked.path, "/apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(asked.body["spec"]["audiences"], json!(["scriptrunner.io"]));
    assert_eq!(asked.body["spec"]["token"], token(&claims(POD)));
}

#[tokio::test]
async fn verdict_is_remembered_for_this_token_and_until_its_pod_is_gone() {
    let (identity, record) = says(review());
    let same = claims(POD);
    for _ in 0..3 {
        identify(&identity, &same).await.unwrap();
    }
    assert_eq!(record.all().len(), 1);
    let mut renewed = same.clone();
    renewed["jti"] = "another".into();
    identify(&identity, &renewed).await.unwrap();
    assert_eq!(record.all().len(), 2, "another token is another question");
    identity.retain(Context::now(), |_| true);
    identify(&identity, &renewed).await.unwrap();
    assert_eq!(record.all().len(), 2);
    identity.retain(Context::now(), |_| false);
    assert!(identity.verdicts().is_empty());
    identify(&identity, &renewed).await.unwrap();
    identity.retain(Context::now() + Duration::from_secs(2000), |_| true);
    assert!(identity.verdicts().is_empty(), "nor longer than the token");
}

#[tokio::test]
async fn refusal_is_not_remembered_as_a_verdict() {
    let answers = Arc::new(AtomicUsize::new(0));
    let (identity, _) = identity(move || match answers.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::Says(201, json!({"status": {"authenticated": false}})),
        _ => Answer::Says(201, review()),
    });
    assert_eq!(word(&identity, &claims(POD)).await, ("token_unknown", 401));
    identify(&identity, &claims(POD)).await.unwrap();
}

#[tokio::test]
async fn junk_costs_no_question() {
    let (identity, record) = says(review());
    for (change, expected) in [
        (json!({"aud": "https://kubernetes.default.svc"}), ("token_audience", 401)),
        (json!({"kubernetes.io": {"namespace": "ns"}}), ("token_unbound", 401)),
        (json!({"exp": Context::now().as_second() - 1}), ("token_expired", 401)),
        (json!({"exp": "tomorrow"}), ("token_unreadable", 401)),
        (json!({"kubernetes.io": {"pod": {"uid": "nobody"}}}), ("pod_unknown", 503)),
    ] {
        let mut claims = claims(POD);
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        assert_eq!(word(&identity, &claims).await, expected);
    }
    let refusal = identity.identify("junk", |_| false).await.unwrap_err();
    assert_eq!(refusal.word, "token_unreadable");
    assert_eq!(record.all().len(), 0);
}

#[tokio::test]
async fn pod_that_can_have_no_session_costs_no_question() {
    let (identity, record) = says(review());
    let refusal = identity.identify(&token(&claims(POD)), |uid| uid == POD).await.unwrap_err();
    assert_eq!((refusal.word, refusal.code.as_u16()), ("stored", 410));
    assert!(matches!(refusal.frame, ToRunner::Refused { .. }));
    let ended = json!([{"name": "runner", "state": {"terminated": {"exitCode": 0}},
        "image": "", "imageID": "", "ready": false, "restartCount": 0}]);
    for (change, presence, expected) in [
        (json!({}), Presence::Gone, ("pod_gone", 410)),
        (json!({}), Presence::Unconfirmed, ("pod_unknown", 503)),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            Presence::Present,
            ("pod_deleting", 410),
        ),
        (json!({"status": {"phase": "Failed"}}), Presence::Present, ("pod_ended", 410)),
        (json!({"status": {"containerStatuses": ended}}), Presence::Present, ("pod_ended", 410)),
    ] {
        let mut facts = facts(|pod| json_patch::merge(pod, &change));
        facts.presence = presence;
        assert_eq!(
            live(Some(facts.into())).map_err(|refusal| (refusal.word, refusal.code.as_u16())),
            Err(expected)
        );
    }
    assert_eq!(record.all().len(), 0);
}

#[test]
fn whatever_differs_from_the_pods_own_token_is_refused() {
    let extra = |key: &str, value: Value| json!({"status": {"user": {"extra": {(format!("authentication.kubernetes.io/{key}")): value}}}});
    let user = |name: &str| json!({"status": {"user": {"username": name}}});
    for (change, expected) in [
        (json!({"status": {"authenticated": false}}), Mismatch::Unauthenticated),
        (json!({"status": {"authenticated": null}}), Mismatch::Unauthenticated),
        (json!({"status": {"audiences": ["other"]}}), Mismatch::Audience),
        (json!({"status": {"audiences": null}}), Mismatch::Audience),
        (
            user("system:serviceaccount:other:default"),
            Mismatch::User("system:serviceaccount:other:default".into()),
        ),
        (user("system:serviceaccount:ns:builder"), Mismatch::User("system:serviceaccount:ns:builder".into())),
        (json!({"status": {"user": null}}), Mismatch::User(String::new())),
        (extra("pod-uid", json!(["pod-uid-2"])), Mismatch::Bound("pod-uid")),
        (extra("pod-uid", json!([POD, "pod-uid-2"])), Mismatch::Bound("pod-uid")),
        (extra("pod-uid", Value::Null), Mismatch::Bound("pod-uid")),
        (extra("pod-name", json!(["srn-2"])), Mismatch::Bound("pod-name")),
        (extra("pod-name", json!([])), Mismatch::Bound("pod-name")),
        (extra("node-name", json!(["worker-2"])), Mismatch::Bound("node-name")),
        (extra("node-name", Value::Null), Mismatch::Bound("node-name")),
        (json!({"status": {"user": {"extra": null}}}), Mismatch::Bound("pod-uid")),
    ] {
        let mut review = review();
        json_patch::merge(&mut review, &change);
        let status: TokenReviewStatus = serde_json::from_value(review["status"].clone()).unwrap();
        let claims = Claims { pod_uid: POD.to_owned(), issued: None, expires: Timestamp::MAX };
        assert_eq!(accept(&status, &claims, &facts(|_| {})).unwrap_err(), expected, "{change}");
    }
}

#[test]
fn token_of_one_pod_that_names_another_is_refused() {
    let status: TokenReviewStatus = serde_json::from_value(review()["status"].clone()).unwrap();
    let claims = Claims { pod_uid: "pod-uid-2".to_owned(), issued: None, expires: Timestamp::MAX };
    let other = facts(|pod| pod["metadata"]["uid"] = "pod-uid-2".into());
    assert_eq!(accept(&status, &claims, &other), Err(Mismatch::Bound("pod-uid")));
    let namesake = facts(|pod| pod["metadata"]["namespace"] = "elsewhere".into());
    let claims = Claims { pod_uid: POD.to_owned(), issued: None, expires: Timestamp::MAX };
    assert!(matches!(accept(&status, &claims, &namesake), Err(Mismatch::User(_))));
}

#[tokio::test]
async fn failing_api_server_means_come_again() {
    for answer in [
        || failure(500, "InternalError", "no"),
        || failure(429, "TooManyRequests", "no"),
        || Answer::Says(201, json!({})),
        || Answer::Hangs,
    ] {
        let (identity, _) = identity(answer);
        let refusal = identify(&identity, &claims(POD)).await.unwrap_err();
        assert_eq!((refusal.word, refusal.code.as_u16()), ("api", 503));
        assert!(matches!(refusal.frame, ToRunner::RetryAfter { millis: 2000, .. }));
        let text = identity.metrics.token_reviews.clone();
        assert_eq!(text.get_or_create(&crate::metrics::Outcome { outcome: "failed" }).get(), 1);
    }
}

#[tokio::test]
async fn second_connection_of_a_pod_waits_for_the_first() {
    let (identity, record) = identity(|| Answer::Hangs);
    let identity = Arc::new(identity);
    let first = tokio::spawn({
        let identity = Arc::clone(&identity);
        async move { identify(&identity, &claims(POD)).await.unwrap_err().word }
    });
    while identity.reviews.is_idle() {
        tokio::task::yield_now().await;
    }
    assert_eq!(word(&identity, &claims(POD)).await, ("pod_busy", 503));
    assert_eq!(first.await.unwrap(), "api");
    assert!(record.all().len() <= 1);
    assert!(identity.reviews.is_idle());
}

#[test]
fn runner_speaks_of_its_run_or_of_a_newer_one() {
    let claims = Claims { pod_uid: POD.to_owned(), issued: None, expires: Timestamp::MAX };
    let speaker = Speaker::of(&facts(|_| {}), &claims);
    assert!(speaker.may_speak_of(3, 2));
    assert!(speaker.may_speak_of(4, 1), "one that waited");
    for (run, attempt) in [(3, 1), (3, 3), (2, 2), (2, 9), (0, 0)] {
        assert!(!speaker.may_speak_of(run, attempt), "{run}, {attempt}");
    }
}
