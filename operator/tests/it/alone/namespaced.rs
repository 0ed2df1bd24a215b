//! An operator that is for two namespaces, with the rights of `deploy/namespaced/` and no others: it does all of its work there, and
//! nothing in a third. The rights of its account in the whole cluster are taken back meanwhile.

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, resume_unwind},
    path::Path,
};

use futures::FutureExt;
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_operator::{
    manifests::{NAMESPACE, OPERATOR, files, operator_user},
    proof::RECORD_NAME,
    scope::Scope,
};
use scriptrunner_testcluster::{Error, namespace::in_namespace, wait};
use serde_json::{Value, json};

use super::{LONG, Place, place};
use crate::{
    cluster::{acting_as, acting_as_agent, cluster, refusal, send},
    flow::{await_children, await_object, has_failed, script_runner, start_operator_with},
    turn::policies_are_proven,
};

/// The roles and bindings of a generated file, as they stand there.
fn rights(file: &str) -> Vec<Value> {
    let file = files().into_iter().find(|it| it.path == Path::new(file)).unwrap();
    let documents = file.contents.split("---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    documents.filter(|object| object["kind"] != "ServiceAccount").collect()
}

/// Applies them as `kubectl apply` does, without a namespace of their own in this one.
async fn apply(client: &Client, objects: &[Value], namespace: &str) {
    for object in objects {
        let kind = object["kind"].as_str().unwrap();
        let scope = match object["metadata"]["namespace"].as_str() {
            _ if kind.starts_with("Cluster") => String::new(),
            own => format!("namespaces/{}/", own.unwrap_or(namespace)),
        };
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{scope}{}s/{OPERATOR}", kind.to_lowercase());
        let path = format!("{path}?fieldManager=scriptrunner-it&force=true");
        send(client, Method::PATCH, &path, "application/apply-patch+yaml", object).await.unwrap();
    }
}

/// Waits until the operator may list pods where it should, and only there.
async fn until_rights(places: &[(&str, bool)]) {
    let operator = acting_as(&operator_user(), &[]).await;
    let wish = format!("rights to pods: {places:?}");
    wait::until(&wish, LONG, async |seen| {
        let mut found = Vec::new();
        for (namespace, _) in places {
            let scope = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
            let path = format!("/api/v1/{scope}pods?limit=1");
            let answer = send(&operator, Method::GET, &path, "application/json", &Value::Null).await;
            found.push((*namespace, refusal(&answer).is_none()));
        }
        seen.note(format!("{found:?}"));
        Ok::<_, kube::Error>((found == places).then_some(()))
    })
    .await
    .unwrap();
}

/// Namespaces in which a client asked for something, and what it had no right to.
fn audited(agent: &str) -> (BTreeSet<String>, Vec<String>) {
    let log = fs::read_to_string(cluster().audit_log()).unwrap();
    let (mut namespaces, mut forbidden) = (BTreeSet::new(), Vec::new());
    for line in log.lines().filter(|line| line.contains(agent)) {
        let event: Value = serde_json::from_str(line).unwrap();
        let (object, status) = (&event["objectRef"], &event["responseStatus"]);
        if status["code"] == 403 && status["message"].as_str().unwrap_or_default().contains(" cannot ") {
            forbidden.push(event.to_string());
        }
        let is_of_namespaces = ["scriptrunners", "pods", "configmaps", "events"]
            .contains(&object["resource"].as_str().unwrap_or_default());
        if is_of_namespaces {
            namespaces.insert(object["namespace"].as_str().unwrap_or("all").to_owned());
        }
    }
    (namespaces, forbidden)
}

async fn with_narrow_rights(client: &Client, namespaces: &[&str], body: impl AsyncFnOnce()) {
    for namespace in namespaces {
        apply(client, &rights("deploy/namespaced/each-namespace.yaml"), namespace).await;
    }
    apply(client, &rights("deploy/namespaced/10-rbac.yaml"), NAMESPACE).await;
    let outcome = AssertUnwindSafe(async {
        let known = namespaces.iter().map(|namespace| (*namespace, true));
        until_rights(&known.chain([("", false)]).collect::<Vec<_>>()).await;
        body().await;
    })
    .catch_unwind()
    .await;
    apply(client, &rights("deploy/10-rbac.yaml"), NAMESPACE).await;
    until_rights(&[("", true)]).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

async fn submit(client: &Client, namespace: &str, more: Value) {
    let mut spec = json!({"script": "x", "nodeNames": [cluster().node_names().remove(0)]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let api: Api<ScriptRunner> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &script_runner(&spec)).await.unwrap();
}

async fn await_failure(client: &Client, namespace: &str) {
    let api: Api<ScriptRunner> = Api::namespaced(client.clone(), namespace);
    let node = cluster().node_names().remove(0);
    let what = format!("a run in {namespace:?} that failed, for want of its image");
    await_object(&api, &what, |object| has_failed(object, &node, 1)).await;
}

async fn works_in_two_of_three(client: &Client, [a, b, c]: [&str; 3]) {
    // The one that it is not for comes first, so that it had the time.
    submit(client, c, json!({})).await;
    submit(client, b, json!({})).await;
    // Made anew with these rights.
    let records = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    records.delete(RECORD_NAME, &DeleteParams::default()).await.unwrap();
    policies_are_proven(NAMESPACE).await;
    let agent = format!("scriptrunner-it/{a}");
    let operator = acting_as_agent(&operator_user(), &agent).await;
    let scope = Scope::of([a, b], NAMESPACE).unwrap();
    let (stop, operator) = start_operator_with(operator, |config| config.scope = scope).await;
    // A privileged one, because that needs the policies to be proven with these rights.
    submit(client, a, json!({"mode": "Privileged", "parallelism": 1, "executionDeadlineSeconds": 5})).await;
    await_failure(client, b).await;
    await_failure(client, a).await;
    for namespace in [a, b] {
        let api: Api<ScriptRunner> = Api::namespaced(client.clone(), namespace);
        api.delete("flow", &DeleteParams::default()).await.unwrap();
        await_children(client, namespace, 0, 0).await;
    }
    stop.send_replace(true);
    tokio::time::timeout(LONG, operator).await.unwrap().unwrap();

    let untouched = Api::<ScriptRunner>::namespaced(client.clone(), c).get("flow").await.unwrap();
    assert_eq!(untouched.status, None);
    await_children(client, c, 0, 0).await;
    let (namespaces, forbidden) = audited(&agent);
    assert_eq!(forbidden, Vec::<String>::new());
    // In its own it keeps since when the policies hold, and asks the canary.
    assert_eq!(namespaces, [a, b, NAMESPACE].map(ToOwned::to_owned).into());
}

#[tokio::test]
async fn an_operator_for_two_namespaces_does_its_work_there_and_asks_for_nothing_elsewhere() {
    place("namespaced-a", async |Place { client, namespace }| {
        in_namespace(client, "namespaced-b", &[], async |b| {
            in_namespace(client, "namespaced-c", &[], async |c| {
                with_narrow_rights(client, &[namespace, &b], async || {
                    works_in_two_of_three(client, [namespace, &b, &c]).await;
                })
                .await;
                Ok::<_, Error>(())
            })
            .await
        })
        .await
        .unwrap();
    })
    .await;
}
