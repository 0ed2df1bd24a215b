//! What is asked of a scripted API server when a status is reported, when, and what is made of each answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use http::Method;
use scriptrunner_api::{
    hostile::texts,
    text::is_harmful,
    v1alpha1::{NodeStatus, RunStatus},
};
use scriptrunner_core::observed::{ObjectFacts, Observed, PolicyProof, StoredStatus};
use scriptrunner_core::validate::Sources;
use serde_json::{Value, json};

use super::*;
use crate::{
    bucket::Bucket,
    scripted::{Answer, Asked, Record, client, context, failure, pressed},
};

fn object_json(version: u64, status: &ScriptRunnerStatus) -> Value {
    json!({
        "apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
        "metadata": {"name": "sr", "namespace": "ns", "uid": "u", "resourceVersion": version.to_string(), "generation": 1},
        "spec": {"script": "true", "nodeLabelSelector": {}, "mode": "Normal"}, "status": status,
    })
}

fn status(states: &[(&str, &str)]) -> ScriptRunnerStatus {
    let entry = |state: &str| NodeStatus { state: state.to_owned(), run: 1, ..NodeStatus::default() };
    let nodes = states.iter().map(|(name, state)| ((*name).to_owned(), entry(state))).collect();
    let run = RunStatus {
        number: 1,
        trigger: "Created".to_owned(),
        spec_hash: "1:a".to_owned(),
        requested_by: None,
        script_digest: "b".to_owned(),
        trusted_ca_digest: None,
        start_time: serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap(),
        completion_time: None,
        rerun_at: None,
    };
    ScriptRunnerStatus { run: Some(run), nodes, ..ScriptRunnerStatus::default() }
}

fn starting() -> ScriptRunnerStatus {
    status(&[("a", "Starting"), ("b", "Starting")])
}

/// A change of state without a result.
fn running() -> ScriptRunnerStatus {
    status(&[("a", "Running"), ("b", "Starting")])
}

/// A result.
fn succeeded() -> ScriptRunnerStatus {
    status(&[("a", "Succeeded"), ("b", "Starting")])
}

/// The object at version 7, with `previous` as its status.
fn sight(previous: &ScriptRunnerStatus) -> Sight {
    let object: Arc<ScriptRunner> = Arc::new(serde_json::from_value(object_json(7, previous)).unwrap());
    let facts = ObjectFacts {
        resource_version: "7".to_owned(),
        namespace: "ns".to_owned(),
        name: "sr".to_owned(),
        uid: "u".to_owned(),
        generation: 1,
        created: None,
        seen_since: None,
        requested_by: None,
        deleting: false,
        other_bytes: 500,
        spec: object.spec.clone(),
    };
    let observed = Observed {
        object: facts,
        previous: StoredStatus::of(&object),
        nodes: Arc::default(),
        pods: Vec::new(),
        occupied_nodes: BTreeSet::new(),
        config_maps: Vec::new(),
        namespace_privileged: false,
        known_answers: BTreeMap::new(),
        refusal: None,
        config_map_conflict: None,
        pod_conflicts: BTreeMap::new(),
        sessions: BTreeMap::new(),
        pinned: None,
        since: k8s_openapi::jiff::Timestamp::MIN,
        unbound_room: 0,
        sources: Sources::default(),
        policy_proof: PolicyProof::Awaited,
    };
    Sight { observed, object, status_is_foreign: false }
}

fn served(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Context, Record) {
    let (client, record) = client(answer);
    (context(client), record)
}

/// Takes a status and Events.
fn takes(status: &ScriptRunnerStatus) -> impl Fn(&Asked) -> Answer + use<> {
    let written = object_json(8, status);
    move |asked| {
        if asked.path.ends_with("/status") {
            Answer::Says(200, written.clone())
        } else {
            Answer::Says(201, asked.body.clone())
        }
    }
}

/// Refuses the patch in some way; a read then shows `live`.
fn refuses(code: u16, reason: &'static str, live: Option<Value>) -> impl Fn(&Asked) -> Answer {
    move |asked| match (&asked.method, &live) {
        (&Method::GET, Some(live)) => Answer::Says(200, live.clone()),
        (&Method::GET, None) => failure(404, "NotFound", "gone"),
        _ => failure(code, reason, "the server rejected our request"),
    }
}

/// As if the last write was `seconds` ago.
fn written_ago(context: &Context, seconds: u64) {
    let then = Context::instant().checked_sub(Duration::from_secs(seconds)).unwrap();
    context.world.remember("u", |memory| memory.tried = Some(then));
}

/// How long it is put off, in seconds; none if it is not.
async fn put_off(context: &Context, sight: &Sight, status: &ScriptRunnerStatus) -> Option<f64> {
    match report(context, sight, status).await.unwrap() {
        Reported::Later(wait) => Some(wait.as_secs_f64()),
        Reported::Same | Reported::Written | Reported::Outdated | Reported::Gone => None,
    }
}

#[tokio::test]
async fn a_status_is_written_for_one_version_of_one_object() {
    let (context, record) = served(takes(&succeeded()));
    assert_eq!(report(&context, &sight(&starting()), &succeeded()).await.unwrap(), Reported::Written);
    let asked = &record.all()[0];
    assert_eq!(asked.method, Method::PATCH);
    assert_eq!(asked.path, "/apis/scriptrunner.io/v1alpha1/namespaces/ns/scriptrunners/sr/status");
    assert_eq!(asked.content_type, "application/json-patch+json");
    let operations = asked.body.as_array().unwrap();
    assert_eq!(operations[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
    assert_eq!(operations[1], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
    assert!(
        operations[2..].iter().all(|it| it["path"].as_str().unwrap().starts_with("/status")),
        "{operations:?}"
    );
    context.world.remember("u", |memory| {
        assert_eq!(memory.latest.as_deref().map(version), Some(8));
        assert_eq!(memory.own.as_ref().unwrap().status, Some(succeeded()));
    });
}

#[tokio::test]
async fn the_same_status_is_not_written_again() {
    let (context, record) = served(takes(&starting()));
    assert_eq!(report(&context, &sight(&starting()), &starting()).await.unwrap(), Reported::Same);
    assert_eq!(record.all().len(), 0);
}

#[tokio::test]
async fn a_newer_object_is_looked_at_again() {
    for (code, reason) in [(422, "Invalid"), (409, "Conflict")] {
        let (context, record) = served(refuses(code, reason, Some(object_json(9, &running()))));
        assert_eq!(report(&context, &sight(&starting()), &succeeded()).await.unwrap(), Reported::Outdated);
        assert_eq!(record.brief(), ["PATCH status", "GET sr"]);
        let latest = context.world.remember("u", |memory| memory.latest.clone());
        assert_eq!(latest.as_deref().map(version), Some(9));
    }
}

#[tokio::test]
async fn a_server_that_went_back_in_time_is_believed() {
    let (context, _) = served(refuses(422, "Invalid", Some(object_json(5, &starting()))));
    context.world.remember("u", |memory| {
        let newer = Arc::new(serde_json::from_value(object_json(7, &starting())).unwrap());
        (memory.latest, memory.own) = (Some(Arc::clone(&newer)), Some(newer));
    });
    let reported = report(&context, &sight(&starting()), &succeeded()).await.unwrap();
    assert_eq!(reported, Reported::Later(Duration::from_secs(1)));
    context.world.remember("u", |memory| assert!(memory.latest.is_none() && memory.own.is_none()));
}

#[tokio::test]
async fn an_object_that_is_gone_gets_no_status() {
    let mut namesake = object_json(9, &starting());
    namesake["metadata"]["uid"] = "another".into();
    let (gone, refused) = (refuses(404, "NotFound", None), refuses(422, "Invalid", None));
    let replaced = refuses(422, "Invalid", Some(namesake));
    for (context, _) in [served(gone), served(refused), served(replaced)] {
        assert_eq!(report(&context, &sight(&starting()), &succeeded()).await.unwrap(), Reported::Gone);
    }
}

#[tokio::test]
async fn a_status_that_the_server_finds_invalid_is_an_error_and_no_loop() {
    let (context, record) = served(refuses(422, "Invalid", Some(object_json(7, &starting()))));
    let error = report(&context, &sight(&starting()), &succeeded()).await.unwrap_err();
    assert!(matches!(error, Error::Call { doing: "write the status", .. }), "{error}");
    let asked = record.all().len();
    assert!(put_off(&context, &sight(&starting()), &succeeded()).await.is_some());
    assert_eq!(record.all().len(), asked);
}

#[tokio::test]
async fn a_failing_or_silent_server_is_an_error() {
    for (code, reason) in [(500, "InternalError"), (503, "ServiceUnavailable"), (403, "Forbidden")] {
        let (context, record) = served(refuses(code, reason, None));
        report(&context, &sight(&starting()), &succeeded()).await.unwrap_err();
        assert_eq!(record.all().len(), 1, "{code}");
    }
    let (context, _) = served(|_| Answer::Hangs);
    let error = report(&context, &sight(&starting()), &succeeded()).await.unwrap_err();
    assert!(matches!(error, Error::AwaitAnswer { .. }), "{error}");
}

#[tokio::test]
async fn after_a_write_without_an_answer_what_is_stored_is_believed() {
    let own = sight(&starting()).object;
    let outcome = async |answers: Box<dyn Fn(&Asked) -> Answer + Send + Sync>| {
        let (context, _) = served(answers);
        context.world.remember("u", |memory| memory.own = Some(own.clone()));
        report(&context, &sight(&starting()), &succeeded()).await.unwrap_err();
        context.world.remember("u", |memory| memory.own.is_some())
    };
    for (code, reason, known) in [
        (429, "TooManyRequests", true),
        (403, "Forbidden", true),
        (504, "Timeout", false),
        (500, "InternalError", false),
    ] {
        assert_eq!(outcome(Box::new(refuses(code, reason, None))).await, known, "{code}");
    }
    assert!(!outcome(Box::new(|_| Answer::Hangs)).await);
}

#[tokio::test]
async fn an_object_is_written_at_most_once_per_second() {
    let (context, record) = served(takes(&succeeded()));
    written_ago(&context, 0);
    let wait = put_off(&context, &sight(&starting()), &succeeded()).await.unwrap();
    assert!(wait > 0.5 && wait <= 1.0, "{wait}");
    assert_eq!(record.all().len(), 0);
    written_ago(&context, 1);
    assert_eq!(put_off(&context, &sight(&starting()), &succeeded()).await, None);
    assert!(
        put_off(&context, &sight(&starting()), &succeeded()).await.is_some(),
        "the write just now counts"
    );
}

#[tokio::test]
async fn the_beginning_and_the_end_of_a_run_are_written_at_once() {
    let changed = |change: fn(&mut RunStatus)| {
        let mut status = succeeded();
        change(status.run.as_mut().unwrap());
        status
    };
    let complete = changed(|run| run.completion_time = Some(run.start_time.clone()));
    let next = changed(|run| run.number = 2);
    let written_just_now = |status: &ScriptRunnerStatus| {
        let (context, record) = served(takes(status));
        written_ago(&context, 0);
        (context, record)
    };
    for status in [&complete, &next] {
        let (context, _) = written_just_now(status);
        assert_eq!(put_off(&context, &sight(&starting()), status).await, None);
        // Not on a server that has too much to do, nor again and again.
        let (context, _) = written_just_now(status);
        context.world.remember("u", |memory| memory.failed_writes = 1);
        assert!(put_off(&context, &sight(&starting()), status).await.is_some());
        let mut again = status.clone();
        again.nodes.get_mut("b").unwrap().state = "Succeeded".to_owned();
        let (context, _) = written_just_now(&again);
        assert!(put_off(&context, &sight(status), &again).await.is_some());
    }
    let (context, _) = written_just_now(&succeeded());
    assert!(put_off(&context, &sight(&complete), &succeeded()).await.is_some(), "an end that is taken back");
}

#[tokio::test]
async fn a_change_of_state_waits_ten_seconds_for_company() {
    let (context, record) = served(takes(&running()));
    written_ago(&context, 2);
    let wait = put_off(&context, &sight(&starting()), &running()).await.unwrap();
    assert!(wait > 7.0 && wait <= 8.0, "{wait}");
    let foreign = Sight { status_is_foreign: true, ..sight(&starting()) };
    assert_eq!(
        put_off(&context, &foreign, &running()).await,
        None,
        "what a stranger wrote is put right soon"
    );
    written_ago(&context, 10);
    assert_eq!(put_off(&context, &sight(&starting()), &running()).await, None);
    assert_eq!(record.all().iter().filter(|asked| asked.path.ends_with("/status")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_begins_does_not_write_every_change_of_state_at_once() {
    let (context, record) = served(takes(&running()));
    let wait = put_off(&context, &sight(&starting()), &running()).await.unwrap();
    assert!(wait > 9.9 && wait <= 10.0, "{wait}");
    assert_eq!(record.all().len(), 0);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(put_off(&context, &sight(&starting()), &running()).await, None);
    let (context, _) = served(takes(&succeeded()));
    assert_eq!(
        put_off(&context, &sight(&starting()), &succeeded()).await,
        None,
        "a result is written at once"
    );
}

/// Reports until it is written, as often as a busy object does; when each write was tried.
async fn tries(context: &Context, record: &Record) -> Vec<Duration> {
    let begin = Context::instant();
    let mut tries = Vec::new();
    loop {
        let before = record.all().len();
        let reported = report(context, &sight(&starting()), &succeeded()).await;
        if record.all().len() > before {
            tries.push(Context::instant() - begin);
        }
        if matches!(reported, Ok(Reported::Written)) {
            return tries;
        }
        assert!(tries.len() < 100 && Context::instant() - begin < Duration::from_hours(1));
        tokio::time::advance(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_too_much_to_do_is_asked_ever_less_and_then_more_again() {
    let refusals = Mutex::new(10);
    let written = takes(&succeeded());
    let (context, record) = pressed(move |asked| {
        let mut refusals = refusals.lock().unwrap();
        if *refusals == 0 {
            return written(asked);
        }
        *refusals -= 1;
        Answer::RetryAfter(429, 1)
    });
    let tried = tries(&context, &record).await;
    let gaps: Vec<_> = tried.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs()).collect();
    // The object's own backoff goes on where the interval of all objects ends.
    assert_eq!(gaps, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let mut intervals = Vec::new();
    for _ in 0..6 {
        intervals.push(context.pressure.interval().as_secs());
        tries(&context, &record).await;
    }
    assert_eq!(intervals, [16, 8, 4, 2, 1, 1], "the first write that was taken was the first step");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_gets_it_from_every_object() {
    let refused = std::sync::atomic::AtomicBool::new(false);
    let written = takes(&succeeded());
    let (context, record) = pressed(move |asked| {
        let again = refused.swap(true, std::sync::atomic::Ordering::SeqCst);
        if again { written(asked) } else { Answer::RetryAfter(503, 20) }
    });
    report(&context, &sight(&starting()), &succeeded()).await.unwrap_err();
    // As if another object wanted to write, that had never been refused.
    context.world.remember("u", |memory| (memory.tried, memory.failed_writes) = (None, 0));
    let tried = tries(&context, &record).await;
    assert!(tried.len() == 1 && tried[0].as_secs() == 20, "{tried:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_asked_less() {
    let (context, _) = pressed(|_| Answer::Hangs);
    report(&context, &sight(&starting()), &succeeded()).await.unwrap_err();
    assert_eq!(context.pressure.interval(), Duration::from_secs(2));
}

#[tokio::test]
async fn all_objects_share_the_bytes_of_a_second() {
    let (mut context, record) = served(takes(&succeeded()));
    context.status_bytes = Mutex::new(Bucket::new(100, 100, Context::instant()));
    assert_eq!(put_off(&context, &sight(&starting()), &succeeded()).await, None, "the first overdraws");
    context.world.remember("u", |memory| memory.tried = None);
    let writes = record.all().len();
    let wait = put_off(&context, &sight(&starting()), &succeeded()).await.unwrap();
    // 500 bytes of the object and its status, less 100 that were free, at 100 a second.
    assert!(wait > 4.0 && wait < 60.0, "{wait}");
    assert_eq!(record.all().len(), writes);
}

/// The Events that were written.
fn events(record: &Record) -> Vec<Asked> {
    record.all().into_iter().filter(|asked| asked.path.contains("/events")).collect()
}

#[tokio::test]
async fn each_node_has_its_own_event() {
    let failed = status(&[("a", "Failed"), ("b", "Failed"), ("c", "Succeeded")]);
    let (context, record) = served(takes(&failed));
    let before = status(&[("a", "Running"), ("b", "Running"), ("c", "Running")]);
    assert_eq!(report(&context, &sight(&before), &failed).await.unwrap(), Reported::Written);
    let events = events(&record);
    assert!(events.iter().all(|event| event.method == Method::POST), "{events:?}");
    let notes: Vec<_> = events.iter().map(|event| event.body["note"].as_str().unwrap_or_default()).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("node a: Failed") && notes[1].contains("node b: Failed"), "{notes:?}");
}

#[tokio::test]
async fn many_failed_nodes_make_few_events() {
    let names: Vec<_> = (0..50).map(|number| format!("n{number}")).collect();
    let all = |state| status(&names.iter().map(|name| (name.as_str(), state)).collect::<Vec<_>>());
    let (context, record) = served(takes(&all("Failed")));
    assert_eq!(report(&context, &sight(&all("Running")), &all("Failed")).await.unwrap(), Reported::Written);
    assert_eq!(events(&record).len(), 11, "ten, and one that says that there are more");
}

#[tokio::test]
async fn a_lost_event_is_no_failure() {
    let failed = status(&[("a", "Failed"), ("b", "Starting")]);
    let written = object_json(8, &failed);
    let (context, record) = served(move |asked| {
        if asked.path.ends_with("/status") {
            Answer::Says(200, written.clone())
        } else {
            failure(403, "Forbidden", "no events here")
        }
    });
    assert_eq!(report(&context, &sight(&starting()), &failed).await.unwrap(), Reported::Written);
    assert_eq!(events(&record).len(), 1);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_told_once_per_version() {
    let unreadable = |version: &str| {
        let mut object = object_json(7, &ScriptRunnerStatus::default());
        object["metadata"]["resourceVersion"] = version.into();
        object["spec"]["mode"] = "elevated".into();
        serde_json::from_str::<Guarded>(&object.to_string()).unwrap()
    };
    let (context, record) = served(|asked| Answer::Says(201, asked.body.clone()));
    for version in ["7", "7", "8"] {
        let guarded = unreadable(version);
        let invalid = guarded.0.as_ref().unwrap_err();
        report_unreadable(&context, &guarded, invalid).await;
    }
    let events = events(&record);
    assert_eq!((record.all().len(), events.len()), (2, 2), "nothing else is written");
    let note = events[0].body["note"].as_str().unwrap();
    assert!(note.contains("cannot read the object") && note.contains("elevated"), "{note}");
    assert_eq!(events[0].body["regarding"]["name"], "sr");
}

#[tokio::test]
async fn notes_quote_an_unreadable_object_harmlessly() {
    let (context, record) = served(|asked| Answer::Says(201, asked.body.clone()));
    let texts: Vec<String> = texts().collect();
    for (version, text) in texts.iter().enumerate() {
        let mut object = object_json(7, &ScriptRunnerStatus::default());
        object["metadata"]["resourceVersion"] = version.to_string().into();
        object["spec"]["mode"] = text.as_str().into();
        let guarded = serde_json::from_str::<Guarded>(&object.to_string()).unwrap();
        report_unreadable(&context, &guarded, guarded.0.as_ref().unwrap_err()).await;
    }
    let events = events(&record);
    assert_eq!(events.len(), texts.len());
    for event in &events {
        let note = event.body["note"].as_str().unwrap();
        assert!(note.contains("unknown variant") && !note.chars().any(is_harmful), "{note:?}");
    }
}
