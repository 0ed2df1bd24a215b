//! What is asked of a scripted API server, and what is made of each kind of answer.

use std::time::Duration;

use http::Method;
use scriptrunner_core::observed::Presence;
use serde_json::{Value, json};

use super::*;
use crate::metrics::Outcome;
use crate::scripted::{Answer, Asked, Record, client, context, failure, pressed};

const OWNER: Owner<'_> = Owner { namespace: "ns", name: "sr", uid: "owner" };

fn pod_json(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("srn-{node}"), "namespace": "ns",
            "labels": {"scriptrunner.io/uid": "owner", "scriptrunner.io/mode": "Normal", "scriptrunner.io/node-uid": format!("uid-{node}"),
                "scriptrunner.io/run": "1", "scriptrunner.io/attempt": "1"},
            "annotations": {"scriptrunner.io/name": "sr", "scriptrunner.io/node": node},
            "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "name": "sr",
                "uid": "owner", "controller": true}]},
        "spec": {"nodeName": node, "containers": [{"name": "runner", "image": "runner"}]},
    })
}

/// The pod as the API server shows it.
fn stored(mut pod: Value) -> Value {
    pod["metadata"]["uid"] = format!("uid-of-{}", pod["metadata"]["name"].as_str().unwrap()).into();
    pod["metadata"]["resourceVersion"] = "5".into();
    pod
}

fn creations(nodes: &[&str]) -> Vec<Action> {
    let creation = |node: &&str| Action::CreatePod {
        node: (*node).to_owned(),
        pod: Box::new(serde_json::from_value(pod_json(node)).unwrap()),
    };
    nodes.iter().map(creation).collect()
}

fn numbered(count: usize) -> Vec<Action> {
    let nodes: Vec<_> = (0..count).map(|number| format!("n{number}")).collect();
    creations(&nodes.iter().map(String::as_str).collect::<Vec<_>>())
}

fn config_map(script: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": "srs-1", "namespace": "ns", "uid": "uid-of-srs-1",
        "labels": {"scriptrunner.io/uid": "owner", "scriptrunner.io/run": "1"},
        "ownerReferences": [{"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "name": "sr", "uid": "owner", "controller": true}]},
        "data": {"script": script}, "immutable": true}))
    .unwrap()
}

/// Performs actions that no proof stands against.
async fn apply(context: &Context, object: Owner<'_>, actions: Vec<Action>) -> Result<Progress, Error> {
    super::apply(context, object, actions, &PolicyProof::Awaited).await
}

/// A context whose API server answers with `answer`, and what it is asked.
fn served(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Context, Record) {
    let (client, record) = client(answer);
    (context(client), record)
}

/// Stores whatever is created.
fn takes(asked: &Asked) -> Answer {
    Answer::Says(201, stored(asked.body.clone()))
}

fn name_taken() -> Answer {
    failure(409, "AlreadyExists", "pods \"srn-a\" already exists")
}

fn refusal(context: &Context) -> Option<String> {
    context.world.remember("owner", |memory| memory.refusal.clone())
}

fn pods_known(context: &Context) -> Vec<String> {
    context.world.pods().of("owner").into_iter().map(|pod| pod.node.clone()).collect()
}

#[tokio::test]
async fn pods_are_created_and_known_at_once() {
    let (context, record) = served(takes);
    assert_eq!(apply(&context, OWNER, numbered(40)).await.unwrap(), Progress::Done);
    assert_eq!(record.all().len(), 40);
    assert!(
        record.all().iter().all(|it| it.method == Method::POST && it.path == "/api/v1/namespaces/ns/pods")
    );
    assert_eq!((pods_known(&context).len(), refusal(&context)), (40, None));
}

#[tokio::test(start_paused = true)]
async fn ever_more_pods_are_created_at_the_same_time_and_none_waits_for_a_slow_one() {
    let (context, record) = served(|asked| {
        let seconds = if asked.body["metadata"]["name"] == "srn-n40" { 900 } else { 100 };
        Answer::Late(Duration::from_millis(seconds), 201, stored(asked.body.clone()))
    });
    let begin = tokio::time::Instant::now();
    // One, two, four, eight, sixteen, and four times 32: nothing but the end waits for the one that is slow.
    assert_eq!(apply(&context, OWNER, numbered(160)).await.unwrap(), Progress::Done);
    assert_eq!(record.all().len(), 160);
    let seconds = begin.elapsed().as_secs_f64();
    assert!((1.3..1.5).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_long_plan_is_performed_in_parts_and_goes_on_as_fast_as_it_was() {
    let (context, record) =
        served(|asked| Answer::Late(Duration::from_millis(100), 201, stored(asked.body.clone())));
    let begin = tokio::time::Instant::now();
    let mut counts = Vec::new();
    loop {
        let made: std::collections::HashSet<_> = pods_known(&context).into_iter().collect();
        let left = numbered(1_000)
            .into_iter()
            .filter(|action| matches!(action, Action::CreatePod { node, .. } if !made.contains(node)));
        let progress = apply(&context, OWNER, left.collect()).await.unwrap();
        counts.push(record.all().len());
        if progress == Progress::Done {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(counts, [191, 511, 831, 1_000], "a second each, and 32 at a time from the second part on");
    context.world.remember("owner", |memory| assert_eq!(memory.room, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_or_a_failure_it_begins_with_one_again() {
    for code in [403, 500] {
        let (context, record) = served(move |_| failure(code, "Reason", "no"));
        context.world.remember("owner", |memory| memory.room = 32);
        for asked in [32, 33] {
            let _ = apply(&context, OWNER, numbered(100)).await;
            assert_eq!(record.all().len(), asked, "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_is_not_asked_for_pods() {
    let refused = std::sync::atomic::AtomicBool::new(false);
    let (context, record) = pressed(move |asked| {
        let again = refused.swap(true, std::sync::atomic::Ordering::SeqCst);
        if again { takes(asked) } else { Answer::RetryAfter(429, 60) }
    });
    assert_eq!(apply(&context, OWNER, numbered(10)).await.unwrap(), Progress::Done);
    let words = refusal(&context).unwrap();
    assert!(words.contains("Too many requests"), "{words}");
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(apply(&context, OWNER, numbered(10)).await.unwrap(), Progress::Done);
    assert_eq!((record.all().len(), refusal(&context)), (1, Some(words)), "it is still a refusal");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(apply(&context, OWNER, numbered(10)).await.unwrap(), Progress::Done);
    assert_eq!((record.all().len(), refusal(&context)), (11, None));
}

/// The same pods, but the scheduler is to place them.
fn unbound(mut actions: Vec<Action>) -> Vec<Action> {
    for action in &mut actions {
        if let Action::CreatePod { pod, .. } = action {
            pod.spec.as_mut().unwrap().node_name = None;
        }
    }
    actions
}

#[tokio::test]
async fn no_more_pods_wait_for_the_scheduler_than_there_is_room_for() {
    let (mut context, record) = served(takes);
    context.config.most_unbound_pods = 5;
    assert_eq!(apply(&context, OWNER, unbound(numbered(9))).await.unwrap(), Progress::Unhurried);
    assert_eq!(record.all().len(), 5, "what another object left room for when this was planned");
    assert_eq!(apply(&context, OWNER, numbered(20)).await.unwrap(), Progress::Done);
    assert_eq!(record.all().len(), 25, "pods that name their node take none");
}

#[tokio::test]
async fn pods_that_the_api_server_did_not_make_take_no_room() {
    let (mut context, record) = served(|_| failure(403, "Forbidden", "exceeded quota"));
    context.config.most_unbound_pods = 1;
    for asked in 1..4 {
        assert_eq!(apply(&context, OWNER, unbound(numbered(3))).await.unwrap(), Progress::Done);
        assert_eq!(record.all().len(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_may_have_been_made_takes_room_until_that_is_known() {
    let (mut context, record) = served(|_| Answer::Hangs);
    context.config.most_unbound_pods = 1;
    apply(&context, OWNER, unbound(numbered(1))).await.unwrap_err();
    let other = Owner { uid: "other", ..OWNER };
    let apply = async |owner, actions| apply(&context, owner, unbound(actions)).await;
    assert_eq!(apply(other, creations(&["b"])).await.unwrap(), Progress::Unhurried);
    apply(OWNER, numbered(1)).await.unwrap_err();
    assert_eq!(record.brief(), ["POST pods", "POST pods"], "the same one is asked for again");
}

#[tokio::test]
async fn a_pod_that_a_former_process_made_is_adopted() {
    let (context, record) = served(|asked| match asked.method {
        Method::POST => name_taken(),
        _ => Answer::Says(200, stored(pod_json("a"))),
    });
    assert_eq!(apply(&context, OWNER, creations(&["a"])).await.unwrap(), Progress::Done);
    assert_eq!(record.brief(), ["POST pods", "GET srn-a"]);
    assert_eq!(pods_known(&context), ["a"]);
    context.world.remember("owner", |memory| assert!(memory.pod_conflicts.is_empty()));
}

#[tokio::test]
async fn a_strangers_pod_holds_up_its_node_only() {
    let (context, record) = served(|asked| match asked.method {
        Method::POST if asked.body["metadata"]["name"] == "srn-a" => name_taken(),
        Method::POST => takes(asked),
        _ => {
            let mut strangers = stored(pod_json("a"));
            strangers["spec"]["containers"][0]["image"] = "evil".into();
            Answer::Says(200, strangers)
        }
    });
    assert_eq!(apply(&context, OWNER, creations(&["a", "b", "c"])).await.unwrap(), Progress::Done);
    assert_eq!(record.all().len(), 4);
    assert_eq!((pods_known(&context), refusal(&context)), (vec!["b".to_owned(), "c".to_owned()], None));
    let first = context.world.remember("owner", |memory| memory.pod_conflicts["a"].clone());
    assert_eq!(
        first.message,
        "pod \"srn-a\" is not ours (spec.containers[0].image differs); delete it, the operator makes it again"
    );
    assert_eq!(apply(&context, OWNER, creations(&["a"])).await.unwrap(), Progress::Done);
    let again = context.world.remember("owner", |memory| memory.pod_conflicts["a"].clone());
    assert_eq!(again, first, "the time of the first conflict counts");
}

#[tokio::test]
async fn a_conflict_is_over_when_the_pod_can_be_made() {
    let (context, _) = served(takes);
    let conflict =
        PodConflict { pod: "srn-a".to_owned(), message: "taken".to_owned(), since: Context::now() };
    context.world.remember("owner", |memory| memory.pod_conflicts.insert("a".to_owned(), conflict));
    assert_eq!(apply(&context, OWNER, creations(&["a"])).await.unwrap(), Progress::Done);
    context.world.remember("owner", |memory| assert!(memory.pod_conflicts.is_empty()));
}

#[tokio::test]
async fn a_refusal_is_met_by_one_request_and_remembered() {
    for (code, reason) in [
        (400, "BadRequest"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (413, "RequestEntityTooLarge"),
        (422, "Invalid"),
        (429, "TooManyRequests"),
    ] {
        let (context, record) = served(move |_| failure(code, reason, "exceeded quota: pods=10"));
        assert_eq!(apply(&context, OWNER, numbered(10)).await.unwrap(), Progress::Done);
        assert_eq!(record.all().len(), 1, "{code}");
        assert_eq!(refusal(&context).as_deref(), Some("exceeded quota: pods=10"), "{code}");
    }
}

#[tokio::test]
async fn a_refusal_in_the_middle_ends_with_its_batch() {
    let (context, record) = served(|asked| match asked.body["metadata"]["name"].as_str() {
        Some("srn-n1") => failure(403, "Forbidden", "exceeded quota"),
        _ => takes(asked),
    });
    assert_eq!(apply(&context, OWNER, numbered(10)).await.unwrap(), Progress::Done);
    assert_eq!(record.all().len(), 3, "batches of one and of two");
    assert_eq!((pods_known(&context).len(), refusal(&context).as_deref()), (2, Some("exceeded quota")));
    let (context, _) = served(takes);
    context.world.remember("owner", |memory| memory.refusal = Some("exceeded quota".to_owned()));
    assert_eq!(apply(&context, OWNER, numbered(1)).await.unwrap(), Progress::Done);
    assert_eq!(refusal(&context), None, "forgotten with the first pod that is accepted");
}

#[tokio::test]
async fn a_refusal_is_forgotten_when_nothing_is_to_be_made() {
    let (context, record) = served(takes);
    context.world.remember("owner", |memory| {
        (memory.refusal, memory.config_map_conflict) = (Some("no".to_owned()), Some("no".to_owned()));
    });
    assert_eq!(apply(&context, OWNER, Vec::new()).await.unwrap(), Progress::Done);
    assert_eq!((refusal(&context), record.all().len()), (None, 0));
    context.world.remember("owner", |memory| assert_eq!(memory.config_map_conflict, None));
}

#[tokio::test]
async fn a_failing_server_is_an_error_and_no_refusal() {
    for (code, reason) in
        [(500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout"), (401, "Unauthorized")]
    {
        let (context, record) = served(move |_| failure(code, reason, "etcd is away"));
        let error = apply(&context, OWNER, numbered(10)).await.unwrap_err();
        assert!(matches!(error, Error::Call { doing: "create a pod", .. }), "{error}");
        assert_eq!((record.all().len(), refusal(&context)), (1, None), "{code}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_error() {
    let (context, _) = served(|_| Answer::Hangs);
    let error = apply(&context, OWNER, numbered(1)).await.unwrap_err();
    assert!(matches!(error, Error::AwaitAnswer { doing: "create a pod", .. }), "{error}");
}

fn delete(is_over: bool) -> Vec<Action> {
    vec![Action::DeletePod {
        name: "srn-a".to_owned(),
        uid: "uid-of-srn-a".to_owned(),
        why: "surplus",
        is_over,
    }]
}

fn deletion() -> Vec<Action> {
    delete(false)
}

/// A context that knows of the pod of node `a`.
fn knowing(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Context, Record) {
    let (context, record) = served(answer);
    learn_pod(&context, &serde_json::from_value(stored(pod_json("a"))).unwrap());
    (context, record)
}

#[tokio::test]
async fn a_deletion_is_for_one_uid_only() {
    let (context, record) = knowing(|_| Answer::Says(200, stored(pod_json("a"))));
    assert_eq!(apply(&context, OWNER, deletion()).await.unwrap(), Progress::Done);
    assert_eq!(record.brief(), ["DELETE srn-a"]);
    assert_eq!(record.all()[0].body["preconditions"], json!({"uid": "uid-of-srn-a"}));
    let pod = context.world.pods().of("owner").remove(0);
    assert_eq!((pod.deleting, pod.presence), (true, Presence::Present), "it ends in its own time");
}

#[tokio::test]
async fn what_is_not_there_any_more_is_deleted() {
    for (code, reason) in [(404, "NotFound"), (409, "Conflict")] {
        let (context, _) = knowing(move |_| failure(code, reason, "the UID in the precondition"));
        assert_eq!(apply(&context, OWNER, deletion()).await.unwrap(), Progress::Done);
        assert_eq!(context.world.pods().of("owner")[0].presence, Presence::Gone, "{code}");
    }
}

#[tokio::test]
async fn a_deletion_that_fails_is_an_error_and_nothing_is_made() {
    let (context, record) = knowing(|_| failure(500, "InternalError", "etcd is away"));
    let actions = creations(&["b"]).into_iter().chain(deletion()).collect();
    apply(&context, OWNER, actions).await.unwrap_err();
    assert_eq!(record.brief(), ["DELETE srn-a"], "deletions come first: they make room");
    let pod = context.world.pods().of("owner").remove(0);
    assert_eq!((pod.deleting, pod.presence), (false, Presence::Present));
}

#[tokio::test]
async fn what_is_over_is_cleaned_up_after_everything_that_somebody_waits_for() {
    for (is_over, expected) in [(false, ["DELETE srn-a", "POST pods"]), (true, ["POST pods", "DELETE srn-a"])]
    {
        let (context, record) = knowing(|asked| match asked.method {
            Method::POST => takes(asked),
            _ => Answer::Says(200, stored(pod_json("a"))),
        });
        let actions = delete(is_over).into_iter().chain(creations(&["b"])).collect();
        assert_eq!(apply(&context, OWNER, actions).await.unwrap(), Progress::Done);
        assert_eq!(record.brief(), expected);
    }
}

#[tokio::test]
async fn what_is_over_waits_while_another_object_cleans_up() {
    let (context, record) = knowing(|_| Answer::Says(200, stored(pod_json("a"))));
    let other = context.turns.clean_up();
    assert_eq!(apply(&context, OWNER, delete(true)).await.unwrap(), Progress::Unhurried);
    assert_eq!(apply(&context, OWNER, delete(false)).await.unwrap(), Progress::Done);
    drop(other);
    assert_eq!(apply(&context, OWNER, delete(true)).await.unwrap(), Progress::Done);
    assert_eq!(record.brief(), ["DELETE srn-a", "DELETE srn-a"]);
}

#[tokio::test]
async fn a_quota_that_is_used_up_does_not_keep_what_is_over() {
    let (context, record) = knowing(|asked| match asked.method {
        Method::POST => failure(403, "Forbidden", "exceeded quota"),
        _ => Answer::Says(200, stored(pod_json("a"))),
    });
    let actions = delete(true).into_iter().chain(creations(&["b"])).collect();
    assert_eq!(apply(&context, OWNER, actions).await.unwrap(), Progress::Done);
    assert_eq!(record.brief(), ["POST pods", "DELETE srn-a"]);
}

#[tokio::test]
async fn a_plan_as_long_as_plans_are_may_have_been_cut() {
    let (context, _) = served(takes);
    let apply = async |count| apply(&context, OWNER, numbered(count)).await.unwrap();
    assert_eq!(apply(MOST_CREATIONS - 1).await, Progress::Done);
    assert_eq!(apply(MOST_CREATIONS).await, Progress::Unfinished);
    let (context, _) = served(|_| failure(403, "Forbidden", "exceeded quota"));
    let refused =
        super::apply(&context, OWNER, numbered(MOST_CREATIONS), &PolicyProof::Awaited).await.unwrap();
    assert_eq!(refused, Progress::Done, "what is refused is not tried again at once");
    let (context, _) = served(|asked| match asked.method {
        Method::POST => name_taken(),
        _ => Answer::Says(200, stored(pod_json("another"))),
    });
    let taken = super::apply(&context, OWNER, numbered(MOST_CREATIONS), &PolicyProof::Awaited).await.unwrap();
    assert_eq!(taken, Progress::Done, "neither is a name that is taken");
}

/// As many pods as there are turns are being created for another object, which takes a minute.
async fn busy(context: &Context) -> Vec<crate::concurrently::Turn<'_>> {
    let mut turns = Vec::new();
    for _ in 0..MOST_AT_ONCE {
        turns.extend(context.turns.take(None).await);
    }
    turns
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_no_turn_goes_on_with_the_rest_and_comes_again() {
    let (context, record) = knowing(takes);
    let turns = busy(&context).await;
    for actions in [numbered(40), deletion(), delete(true)] {
        let begin = tokio::time::Instant::now();
        assert_eq!(apply(&context, OWNER, actions).await.unwrap(), Progress::Unfinished);
        assert_eq!(begin.elapsed().as_secs(), 1, "a status is not kept waiting by another object's pods");
    }
    assert_eq!(record.all().len(), 0);
    drop(turns);
    assert_eq!(apply(&context, OWNER, numbered(40)).await.unwrap(), Progress::Done);
    assert_eq!(record.all().len(), 40);
}

#[tokio::test]
async fn a_config_map_is_made_or_adopted_or_in_the_way() {
    let create = || vec![Action::CreateConfigMap(Box::new(config_map("a")))];
    let conflict =
        |context: &Context| context.world.remember("owner", |memory| memory.config_map_conflict.clone());
    let (context, record) = served(|asked| Answer::Says(201, asked.body.clone()));
    assert_eq!(apply(&context, OWNER, create()).await.unwrap(), Progress::Done);
    assert_eq!(record.brief(), ["POST configmaps"]);
    assert!(context.world.config_maps()["owner"].contains_key("srs-1"));

    for (script, known) in [("a", true), ("b", false)] {
        let (context, record) = served(move |asked| match asked.method {
            Method::POST => failure(409, "AlreadyExists", "exists"),
            _ => Answer::Says(200, serde_json::to_value(config_map(script)).unwrap()),
        });
        assert_eq!(apply(&context, OWNER, create()).await.unwrap(), Progress::Done);
        assert_eq!(record.brief(), ["POST configmaps", "GET srs-1"]);
        assert_eq!(context.world.config_maps().contains_key("owner"), known);
        let message = "ConfigMap \"srs-1\" is not what the run needs (data differs); delete it, the operator makes it again";
        assert_eq!(conflict(&context), (!known).then(|| message.to_owned()));
    }

    let (context, _) = served(|_| failure(403, "Forbidden", "exceeded quota"));
    assert_eq!(apply(&context, OWNER, create()).await.unwrap(), Progress::Done);
    assert_eq!((refusal(&context).as_deref(), conflict(&context)), (Some("exceeded quota"), None));
}

#[tokio::test]
async fn a_config_map_is_deleted_by_its_uid_and_forgotten() {
    for answer in [200, 404, 409] {
        let (context, record) = served(move |_| match answer {
            200 => Answer::Says(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
            404 => failure(404, "NotFound", "gone"),
            _ => failure(409, "Conflict", "another UID"),
        });
        learn_config_map(&context, &config_map("a"));
        let delete = Action::DeleteConfigMap { name: "srs-1".to_owned(), uid: "uid-of-srs-1".to_owned() };
        assert_eq!(apply(&context, OWNER, vec![delete]).await.unwrap(), Progress::Done);
        assert_eq!(record.all()[0].body["preconditions"], json!({"uid": "uid-of-srs-1"}));
        assert!(context.world.config_maps()["owner"].is_empty());
    }
}

#[tokio::test]
async fn an_order_that_nobody_hears_is_no_error_and_costs_no_request() {
    let (context, record) = served(takes);
    let order = RunOrder {
        run: 2,
        attempt: 1,
        first_serial: 1,
        remaining: 1,
        spec: "{}".to_owned(),
        script: "true".to_owned(),
        history_limit: 5,
        stdout_limit_bytes: 1,
        stderr_limit_bytes: 1,
        grace_seconds: 1,
        execution_deadline_seconds: None,
    };
    let send =
        Action::SendRun { node: "a".to_owned(), pod_uid: "uid-of-srn-a".to_owned(), order: order.into() };
    let actions = vec![send, creations(&["b"]).remove(0)];
    assert_eq!(apply(&context, OWNER, actions).await.unwrap(), Progress::Done);
    assert_eq!(record.brief(), ["POST pods"], "the rest of the plan is performed");
    let unheard = Outcome { outcome: "not_connected" };
    assert_eq!(context.metrics.run_orders.get_or_create(&unheard).get(), 1);
}
