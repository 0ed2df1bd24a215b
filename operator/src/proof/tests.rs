//! The proof against a scripted API server: what breaks it, what does not, and what is stored of it.

use http::Method;
use serde_json::json;

use super::*;
use crate::scripted::{Answer, Asked, client, failure};

const CREATED: &str = "2026-01-01T00:00:00Z";

/// What the API server has installed, and what it says to the canary.
#[derive(Clone)]
struct Installed {
    /// Generation of every object, or none where it is deleted.
    generation: Option<i64>,
    created: String,
    narrowed: bool,
    /// The one that is deleted: a binding or a policy.
    missing: Option<(&'static str, bool)>,
    canary: (u16, &'static str),
    own_canary: (u16, &'static str),
    stored: Option<Value>,
}

const DENIED: (u16, &str) = (
    403,
    "it is forbidden: ValidatingAdmissionPolicy 'scriptrunner-spec' with binding 'scriptrunner-spec' denied request: scriptrunner-spec: no",
);
const OWN_DENIED: (u16, &str) = (
    403,
    "it is forbidden: ValidatingAdmissionPolicy 'scriptrunner-operator' with binding 'scriptrunner-operator' denied request: scriptrunner-operator: no",
);

fn installed() -> Installed {
    Installed {
        generation: Some(1),
        created: CREATED.to_owned(),
        narrowed: false,
        missing: None,
        canary: DENIED,
        own_canary: OWN_DENIED,
        stored: None,
    }
}

fn object(installed: &Installed, name: &str, is_binding: bool) -> Answer {
    let is_missing = installed.missing == Some((name, is_binding));
    let Some(generation) = installed.generation.filter(|_| !is_missing) else {
        return failure(404, "NotFound", "not found");
    };
    let metadata =
        json!({"name": name, "uid": name, "generation": generation, "creationTimestamp": installed.created});
    let named = |it: &ObjectMeta| it.name.as_deref() == Some(name);
    let mut spec = if is_binding {
        let found = policies::bindings().into_iter().find(|it| named(&it.metadata)).unwrap();
        serde_json::to_value(found.spec).unwrap()
    } else {
        let found = policies::policies().into_iter().find(|it| named(&it.metadata)).unwrap();
        serde_json::to_value(found.spec).unwrap()
    };
    if is_binding && installed.narrowed {
        spec["matchResources"] = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}});
    }
    let kind = if is_binding { "ValidatingAdmissionPolicyBinding" } else { "ValidatingAdmissionPolicy" };
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    Answer::Says(200, body)
}

/// A prover before an API server; and what it was asked.
fn proofs(installed: Installed) -> (Proofs, crate::scripted::Record) {
    let (client, record) = client(move |asked: &Asked| {
        let name = asked.path.rsplit('/').next().unwrap();
        if asked.path.contains("/validatingadmissionpolicies/") {
            return object(&installed, name, false);
        }
        if asked.path.contains("/validatingadmissionpolicybindings/") {
            return object(&installed, name, true);
        }
        if asked.path.ends_with("/scriptrunners") {
            let (code, text) = installed.canary;
            return failure(code, "Forbidden", text);
        }
        if asked.body["metadata"]["name"] == CANARY {
            let (code, text) = installed.own_canary;
            return failure(code, "Forbidden", text);
        }
        match (&asked.method, &installed.stored) {
            (&Method::GET, None) => failure(404, "NotFound", "not found"),
            (&Method::GET, Some(stored)) => Answer::Says(
                200,
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RECORD_NAME, "resourceVersion": "5"},
                    "data": {RECORD_KEY: stored.to_string()}}),
            ),
            _ => {
                let mut body = asked.body.clone();
                body["metadata"]["resourceVersion"] = "6".into();
                body["metadata"]["managedFields"] =
                    json!([{"manager": "m", "operation": "Update", "time": "2036-01-01T00:00:00Z"}]);
                Answer::Says(200, body)
            }
        }
    });
    (Proofs::new(client, "system".to_owned(), Duration::from_secs(1)), record)
}

async fn ask(proofs: &Proofs) -> PolicyProof {
    proofs.ask(&Metrics::new()).await.unwrap()
}

fn since(text: &str) -> PolicyProof {
    PolicyProof::Proven { since: text.parse().unwrap() }
}

async fn why(installed: Installed) -> String {
    match ask(&proofs(installed).0).await {
        PolicyProof::NotProven { why } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn policies_that_were_never_edited_hold_since_they_were_created() {
    let (proofs, record) = proofs(installed());
    assert_eq!(proofs.newest(), PolicyProof::Awaited);
    assert_eq!(ask(&proofs).await, since("2026-01-01T00:00:02Z"));
    let writes = |record: &crate::scripted::Record| {
        record
            .all()
            .into_iter()
            .filter(|it| {
                (it.method == Method::POST || it.method == Method::PUT)
                    && it.body["metadata"]["name"] == RECORD_NAME
            })
            .map(|it| it.method)
            .collect::<Vec<_>>()
    };
    assert_eq!(writes(&record), [Method::POST]);
    assert_eq!(ask(&proofs).await, proofs.newest());
    assert_eq!(writes(&record).len(), 1, "what is stored is not written again");
}

#[tokio::test(start_paused = true)]
async fn edited_ones_without_a_record_hold_since_now_by_the_clock_of_the_api_server() {
    let (proofs, record) = proofs(Installed { generation: Some(2), ..installed() });
    let asked = tokio::time::Instant::now();
    assert_eq!(ask(&proofs).await, since("2036-01-01T00:00:00Z"));
    assert!(
        asked.elapsed() >= Duration::from_secs(2),
        "another API server may lag behind the one that was asked"
    );
    assert_eq!(record.all().iter().filter(|it| it.method == Method::PUT).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_proven_before_what_was_just_created_is_enforced() {
    let created = Timestamp::now();
    let (proofs, _) = proofs(Installed { created: created.to_string(), ..installed() });
    let asked = tokio::time::Instant::now();
    let since = created.checked_add(SignedDuration::from_secs(2)).unwrap();
    assert_eq!(ask(&proofs).await, PolicyProof::Proven { since });
    assert!(asked.elapsed() > Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_recorded_is_believed_only_of_the_same_objects() {
    let names = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let marks = |generation: i64| {
        let of = |kind: &str| {
            let mark = |name: &&str| json!({"name": format!("{kind}/{name}"), "uid": name, "generation": generation, "created": CREATED});
            policies::NAMES.iter().map(mark).collect::<Vec<_>>()
        };
        json!({"since": "2026-05-05T05:05:05Z", "objects": names.map(of).concat()})
    };
    let same = Installed { stored: Some(marks(1)), ..installed() };
    assert_eq!(ask(&proofs(same.clone()).0).await, since("2026-05-05T05:05:05Z"));
    let changed = Installed { generation: Some(2), ..same };
    assert_eq!(ask(&proofs(changed).0).await, since("2036-01-01T00:00:00Z"));
    let unreadable = Installed { stored: Some(json!("?")), ..installed() };
    assert_eq!(ask(&proofs(unreadable).0).await, since("2036-01-01T00:00:00Z"));
}

#[tokio::test]
async fn whatever_makes_a_policy_inert_is_told() {
    let gone = why(Installed { generation: None, ..installed() }).await;
    assert!(gone.contains("\"scriptrunner-spec\" does not exist; apply deploy/ again"), "{gone}");
    let narrowed = why(Installed { narrowed: true, ..installed() }).await;
    assert!(
        narrowed.contains("Binding \"scriptrunner-spec\" was changed (spec.matchResources is not"),
        "{narrowed}"
    );
    let other = why(Installed { canary: (403, "cannot create resource"), ..installed() }).await;
    assert!(other.contains("was refused, but not by policy \"scriptrunner-spec\" (cannot"), "{other}");
    let own = why(Installed { own_canary: (403, "cannot create resource"), ..installed() }).await;
    assert!(own.contains("was refused, but not by policy \"scriptrunner-operator\" (cannot"), "{own}");
}

#[tokio::test]
async fn no_policy_but_the_one_that_is_tried_refuses_the_canary() {
    let (proofs, record) = proofs(installed());
    ask(&proofs).await;
    let canary = record.all().into_iter().find(|it| it.path.ends_with("/scriptrunners")).unwrap();
    assert_eq!(canary.body["metadata"]["annotations"], json!({labels::REQUESTED_BY: operator_user()}));
}

#[tokio::test]
async fn each_policy_and_each_binding_counts() {
    for name in policies::NAMES {
        for (is_binding, kind) in [(false, "Policy"), (true, "PolicyBinding")] {
            let why = why(Installed { missing: Some((name, is_binding)), ..installed() }).await;
            assert!(why.starts_with(&format!("ValidatingAdmission{kind} {name:?} does not exist")), "{why}");
        }
    }
}

#[tokio::test]
async fn a_break_takes_the_record_back_and_a_failure_does_not() {
    let stored = Some(json!({"since": "2026-05-05T05:05:05Z", "objects": []}));
    let (broken, record) = proofs(Installed { generation: None, stored: stored.clone(), ..installed() });
    assert!(matches!(ask(&broken).await, PolicyProof::NotProven { .. }));
    let put = record.all().into_iter().find(|it| it.method == Method::PUT).unwrap();
    assert_eq!(put.body["data"][RECORD_KEY], r#"{"since":null,"objects":[]}"#);
    for canary in [(503, "busy"), (401, "Unauthorized")] {
        let (failing, record) = proofs(Installed { canary, stored: stored.clone(), ..installed() });
        assert!(failing.ask(&Metrics::new()).await.is_err());
        assert_eq!(failing.newest(), PolicyProof::Awaited);
        assert!(record.all().iter().all(|it| it.method != Method::PUT));
    }
}
