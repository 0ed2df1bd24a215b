//! The whole operator but for its election, under its own account, against a real API server and kubelets that cannot pull
//! its image: from a spec to pods, a status and Events, and back to nothing. The audit log tells what it asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use http::Method;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Pod},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{condition, digest::sha256_hex, labels, v1alpha1::ScriptRunner};
use scriptrunner_operator::{
    args::{Args, Command, Config, Timers},
    context::Context,
    controller,
    manifests::{NAMESPACE, operator_user},
    metrics::Metrics,
    rbac::CLUSTER,
    watches::{self, Sink},
    world::World,
};
use scriptrunner_testcluster::{Error, namespace::in_namespace, wait};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::{
    cluster::{acting_as_agent, admin, cluster, send},
    turn::{only_operator, policies_are_proven},
};

pub(crate) const LONG: Duration = Duration::from_mins(1);

/// Rights that only a crash, a stranger or a repeated Event makes use of; the tests of `apply` and `report` do. The
/// definition is read before everything that is tried here, and there are no sessions.
const UNUSED: [&str; 6] = [
    "get scriptrunners",
    "get pods",
    "get configmaps",
    "patch events",
    "get customresourcedefinitions",
    "create tokenreviews",
];

fn context(client: Client, change: impl FnOnce(&mut Config)) -> Context {
    let flags = ["operator", "run", "--runner-image=none.invalid/runner:1", "--pod-name=it"];
    let Command::Run(flags) = Args::parse_from(flags).command;
    let mut config = flags.resolve().unwrap();
    config.pods.default_memory = None;
    config.pods.default_ephemeral_storage = None;
    config.status_bytes_per_second = 1_000_000;
    config.timers = Timers {
        status_interval: Duration::from_millis(200),
        state_interval: Duration::from_millis(500),
        refusal_retry: Duration::from_secs(1),
        longest_backoff: Duration::from_secs(5),
        policy_proof: Duration::from_secs(1),
    };
    change(&mut config);
    Context::new(client, Arc::new(World::default()), config, Arc::new(Metrics::new()))
}

/// Runs an operator until the returned sender is dropped.
pub(crate) async fn start_operator(client: Client) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    start_operator_with(client, |_| {}).await
}

/// Runs one with other flags.
pub(crate) async fn start_operator_with(
    client: Client,
    change: impl FnOnce(&mut Config),
) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let context = context(client, change);
    let (triggers, receiver) = mpsc::unbounded_channel();
    let sink = Sink { world: context.world.clone(), triggers, metrics: context.metrics.clone() };
    for (kind, mut synced) in watches::start(&context.client, &context.config.scope, &sink) {
        let listed = tokio::time::timeout(LONG, synced.wait_for(|synced| *synced)).await;
        listed.unwrap_or_else(|_| panic!("no list of {kind}")).unwrap();
    }
    let (stop, stopped) = watch::channel(false);
    (stop, tokio::spawn(controller::run(Arc::new(context), receiver, stopped)))
}

pub(crate) fn script_runner(spec: &Value) -> ScriptRunner {
    let mut spec = spec.clone();
    spec["podStartDeadlineSeconds"] = 4.into();
    serde_json::from_value(json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
        "metadata": {"name": "flow"}, "spec": spec}))
    .unwrap()
}

/// Waits until the object is as `wish` says.
pub(crate) async fn await_object(
    api: &Api<ScriptRunner>,
    what: &str,
    wish: impl Fn(&ScriptRunner) -> bool,
) -> ScriptRunner {
    wait::until(what, LONG, async |seen| {
        let object = api.get("flow").await?;
        seen.note(format!("{:?}", object.status));
        Ok::<_, kube::Error>(wish(&object).then_some(object))
    })
    .await
    .unwrap()
}

/// Waits until there are as many pods and ConfigMaps of ours as wished.
pub(crate) async fn await_children(
    client: &Client,
    namespace: &str,
    pods: usize,
    config_maps: usize,
) -> Vec<Pod> {
    let ours = ListParams::default().labels("scriptrunner.io/uid");
    let what = format!("{pods} pods and {config_maps} ConfigMaps");
    wait::until(&what, LONG, async |seen| {
        let found = Api::<Pod>::namespaced(client.clone(), namespace).list(&ours).await?.items;
        let inputs = Api::<ConfigMap>::namespaced(client.clone(), namespace).list(&ours).await?.items;
        seen.note(format!("{} and {}", found.len(), inputs.len()));
        Ok::<_, kube::Error>((found.len() == pods && inputs.len() == config_maps).then_some(found))
    })
    .await
    .unwrap()
}

fn holds(object: &ScriptRunner, type_: condition::ConditionType) -> bool {
    object.status.as_ref().is_some_and(|status| condition::holds(&status.conditions, type_))
}

/// Whether run `number` has failed because its image could not be pulled.
pub(crate) fn has_failed(object: &ScriptRunner, node: &str, number: u64) -> bool {
    let Some(status) = &object.status else { return false };
    holds(object, condition::ConditionType::Failed)
        && status.run.as_ref().is_some_and(|run| run.number == number)
        && status
            .nodes
            .get(node)
            .is_some_and(|entry| (entry.run, entry.reason.as_str()) == (number, "ImagePullFailed"))
}

/// What a client asked for, as `verb resource`, and how often; and what it had no right to.
fn audited(agent: &str) -> (BTreeMap<String, u32>, Vec<String>) {
    let log = fs::read_to_string(cluster().audit_log()).unwrap();
    let (mut used, mut forbidden) = (BTreeMap::new(), Vec::new());
    for line in log.lines().filter(|line| line.contains(agent)) {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (object, verb) = (&event["objectRef"], text(&event["verb"]));
        let subresource = object["subresource"].as_str().map_or_else(String::new, |it| format!("/{it}"));
        let what = format!("{verb} {}{subresource}", text(&object["resource"]));
        let answer = text(&event["responseStatus"]["message"]);
        // What a namespace that ends refuses is no lack of a right.
        if event["responseStatus"]["code"] == 403 && answer.contains(" cannot ") {
            forbidden.push(format!("{what}: {answer}"));
        }
        // A watch is told of twice, when it begins and when it ends; a list is one, however many pages it has.
        let is_further_page = text(&event["requestURI"]).contains("continue=");
        let ended = u32::from(event["stage"] == "ResponseComplete" && !is_further_page);
        *used.entry(what).or_default() += ended;
    }
    (used, forbidden)
}

/// A run that fails, an edit, an end that was not to last.
async fn walk_through_runs(client: &Client, namespace: &str, node: &str) {
    let api: Api<ScriptRunner> = Api::namespaced(client.clone(), namespace);
    let spec = json!({"script": "print(1)", "nodeNames": [node]});
    let me = user(client).await;
    let mut object = script_runner(&spec);
    // As admission does where it can.
    object.annotations_mut().insert(labels::REQUESTED_BY.to_owned(), me.clone());
    let made = api.create(&PostParams::default(), &object).await.unwrap();
    let pod = await_children(client, namespace, 1, 1).await.remove(0);
    let owner = &pod.owner_references()[0];
    assert_eq!((owner.uid.as_str(), owner.controller), (made.uid().unwrap().as_str(), Some(true)));
    assert!(pod.name_any().starts_with("srn-"));
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some(node));
    let object = await_object(&api, "a first run that failed", |object| has_failed(object, node, 1)).await;
    leads_to_who_asked(client, &object, &me).await;
    await_children(client, namespace, 0, 1).await;

    let edit = Patch::Merge(json!({"spec": {"script": "print(2)"}}));
    api.patch("flow", &PatchParams::default(), &edit).await.unwrap();
    let object = await_object(&api, "a second run that failed", |object| has_failed(object, node, 2)).await;
    assert_eq!(object.status.unwrap().recent_runs.len(), 1);
    await_children(client, namespace, 0, 1).await;
    let events =
        Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await.unwrap();
    let reasons: BTreeSet<_> = events.items.iter().filter_map(|event| event.reason.as_deref()).collect();
    assert!(["RunStarted", "NodeFailed", "RunFailed"].iter().all(|it| reasons.contains(it)), "{reasons:?}");

    // What has ended goes by itself.
    let edit = Patch::Merge(json!({"spec": {"ttlSecondsAfterFinished": 0}}));
    api.patch("flow", &PatchParams::default(), &edit).await.unwrap();
    wait::until("the object to be gone", LONG, async |_| {
        Ok::<_, kube::Error>(api.get_opt("flow").await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    await_children(client, namespace, 0, 0).await;
}

/// Who the client is.
async fn user(client: &Client) -> String {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = send(client, Method::POST, path, "application/json", &review).await.unwrap();
    answer["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
}

/// From a run, in the status and by its Event, to its script, to a person, and to what that person asked for.
async fn leads_to_who_asked(client: &Client, object: &ScriptRunner, who: &str) {
    let (namespace, run) = (object.namespace().unwrap(), object.status.clone().unwrap().run.unwrap());
    let digest = sha256_hex(object.spec.script.clone().unwrap().as_bytes());
    assert_eq!((run.requested_by.as_deref(), &run.script_digest), (Some(who), &digest));
    let events = Api::<Event>::namespaced(client.clone(), &namespace);
    let found = events.list(&ListParams::default()).await.unwrap().items;
    let began = found.into_iter().find(|event| event.reason.as_deref() == Some("RunStarted")).unwrap();
    let note = began.note.unwrap();
    assert!(note.contains(&format!("sha256:{digest}")) && note.contains(&format!("{who:?}")), "{note}");
    let log = fs::read_to_string(cluster().audit_log()).unwrap();
    let is_request = |event: &Value| {
        let asked = &event["objectRef"];
        asked["resource"] == "scriptrunners"
            && asked["namespace"] == namespace.as_str()
            && event["verb"] == "create"
            && event["user"]["username"] == who
    };
    let lines = log.lines().filter(|line| line.contains(&namespace));
    assert!(lines.map(|line| serde_json::from_str(line).unwrap()).any(|event| is_request(&event)), "{who}");
}

/// A privileged run, before and after its namespace admits it; deleted while its pod is there.
async fn walk_through_privileges(client: &Client, namespace: &str, node: &str) {
    let api: Api<ScriptRunner> = Api::namespaced(client.clone(), namespace);
    let spec = json!({"script": "x", "nodeNames": [node], "mode": "Privileged", "parallelism": 1, "executionDeadlineSeconds": 5});
    api.create(&PostParams::default(), &script_runner(&spec)).await.unwrap();
    await_object(&api, "a run that is not admitted", |object| {
        let conditions =
            object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        condition::find(conditions, condition::ConditionType::Accepted)
            .is_some_and(|it| (it.status.as_str(), it.reason.as_str()) == ("False", "NamespaceNotPrivileged"))
    })
    .await;
    await_children(client, namespace, 0, 0).await;
    let label = Patch::Merge(json!({"metadata": {"labels": {"scriptrunner.io/privileged": "allowed"}}}));
    Api::<Namespace>::all(client.clone()).patch(namespace, &PatchParams::default(), &label).await.unwrap();
    let pod = await_children(client, namespace, 1, 1).await.remove(0);
    assert!(pod.name_any().starts_with("srp-"));
    api.delete("flow", &DeleteParams::default()).await.unwrap();
    await_children(client, namespace, 0, 0).await;
}

#[tokio::test]
async fn an_operator_with_the_listed_rights_goes_the_whole_way() {
    let client = admin().await;
    let _alone = only_operator(&client).await;
    policies_are_proven(NAMESPACE).await;
    let node = cluster().node_names().remove(0);
    in_namespace(&client, "flow", &[], async |namespace| {
        let agent = format!("scriptrunner-it/{namespace}");
        let (stop, operator) = start_operator(acting_as_agent(&operator_user(), &agent).await).await;
        walk_through_runs(&client, &namespace, &node).await;
        walk_through_privileges(&client, &namespace, &node).await;
        stop.send_replace(true);
        tokio::time::timeout(LONG, operator).await.unwrap().unwrap();

        let (used, forbidden) = audited(&agent);
        assert_eq!(forbidden, Vec::<String>::new());
        let listed: BTreeSet<String> = CLUSTER
            .iter()
            .flat_map(|rule| rule.verbs.iter().map(move |verb| format!("{verb} {}", rule.resource)))
            .filter(|right| !UNUSED.contains(&right.as_str()))
            .collect();
        let idle: Vec<_> = listed.iter().filter(|right| !used.contains_key(*right)).collect();
        assert_eq!(idle, Vec::<&String>::new(), "a right that nobody uses is one too many");
        // ConfigMaps twice: our own, and those of users that are labelled.
        let is_again = |right: &str, count: u32| count != 1 + u32::from(right == "list configmaps");
        let again: Vec<_> = used
            .iter()
            .filter(|(right, count)| right.starts_with("list ") && is_again(right, **count))
            .collect();
        assert_eq!(again, [], "everything is listed once, at the start");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
