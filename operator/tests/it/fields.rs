//! Every text of a spec tries to name another namespace: whatever the operator makes of it, it asks for nothing there.

use std::{collections::BTreeSet, fs};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
};
use scriptrunner_api::{digest::sha256_hex, labels, v1alpha1::ScriptRunner};
use scriptrunner_operator::manifests::{NAMESPACE, operator_user};
use scriptrunner_testcluster::{Error, namespace::in_namespace, wait};
use serde_json::{Value, json};

use crate::{
    cluster::{acting_as_agent, admin, cluster},
    crd::{schema, walk},
    flow::{LONG, start_operator},
    turn::{only_operator, policies_are_proven},
};

/// Specs in which every field that is a text stands once, but for those that are words of a closed list.
fn specs() -> [Value; 2] {
    let key = json!({"name": "bait", "key": "bait"});
    let digest = sha256_hex(b"true");
    let env = json!([{"name": "A", "value": "v"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "D", "valueFrom": {"configMapKeyRef": key}},
        {"name": "E", "valueFrom": {"secretKeyRef": key}}]);
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "resources": {"requests": {"storage": "1Gi"}, "limits": {"storage": "1Gi"}}});
    let items = json!([{"key": "bait", "path": "p"}]);
    let volumes = json!([{"name": "a", "configMap": {"name": "bait", "items": items}},
        {"name": "b", "secret": {"secretName": "bait", "items": items}},
        {"name": "c", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "bait"}},
        {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}]);
    let template = json!({"labels": {"a": "b"}, "annotations": {"a": "b"}, "priorityClassName": "system-node-critical",
        "runtimeClassName": "bait", "volumes": volumes,
        "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "p"}]});
    let first = json!({"scriptFrom": {"configMapKeyRef": key, "sha256": digest}, "nodeNames": [cluster().node_names().remove(0)], "runAs": "Root",
        "excludedNodeNames": ["somebody"], "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}],
        "nodeSample": "50%", "maxFailures": "10%", "parallelism": "50%", "executionDeadlineSeconds": 9,
        "image": "none.invalid/none:1", "imagePullSecrets": [{"name": "bait"}], "interpreter": ["sh"], "args": ["a"],
        "env": env, "envFrom": [{"prefix": "P_", "configMapRef": {"name": "bait"}}, {"secretRef": {"name": "bait"}}],
        "resources": {"requests": {"cpu": "100"}, "limits": {"cpu": "100"}}, "podTemplate": template,
        "dependencies": {"pip": ["six"], "packages": ["p"], "indexURL": "http://none.invalid/", "extraIndexURLs": ["http://none.invalid/a"],
            "trustedCA": {"configMapKeyRef": key, "sha256": digest}}});
    let terms = json!([{"key": "a", "operator": "NotIn", "values": ["b"]}]);
    let second = json!({"script": "true", "nodeLabelSelector": {"matchLabels": {"kubernetes.io/os": "linux"}, "matchExpressions": terms},
        "placement": "Scheduler", "resources": {"requests": {"cpu": "100"}}, "rerun": {"at": "2026-01-01T00:00:00Z", "nodeNames": ["nobody"]}});
    [first, second]
}

/// JSON pointers of the texts in a value.
fn texts(at: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| texts(&format!("{at}/{index}"), item, found));
        }
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, field)| texts(&format!("{at}/{}", name.replace('/', "~1")), field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Paths of the texts in a value, as [`walk`] writes them.
fn paths(path: &str, value: &Value, schema: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(_) => drop(found.insert(path.to_owned())),
        Value::Array(items) => {
            for item in items {
                paths(&format!("{path}[]"), item, &schema["items"], found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let of_map = &schema["additionalProperties"];
                if of_map.is_object() {
                    paths(&format!("{path}{{}}"), field, of_map, found);
                } else {
                    paths(&format!("{path}.{name}"), field, &schema["properties"][name], found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn every_text_of_a_spec_is_tried() {
    let of_spec = schema()["properties"]["spec"].clone();
    let mut tried = BTreeSet::new();
    for spec in &specs() {
        paths("spec", spec, &of_spec, &mut tried);
    }
    let mut missed = Vec::new();
    walk("spec", &of_spec, &mut |path, field| {
        let is_text = field["type"] == "string" || field["x-kubernetes-int-or-string"] == true;
        if is_text && field["enum"].is_null() && !tried.contains(path) {
            missed.push(path.to_owned());
        }
    });
    assert_eq!(missed, Vec::<String>::new());
}

/// As text, because not every spec that is sent here is one.
async fn create(api: &Api<DynamicObject>, name: &str, spec: &Value) -> kube::Result<()> {
    let object = json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
        "metadata": {"name": name}, "spec": spec});
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.map(drop)
}

/// Every spec that the API server takes with one of its texts turned into one of these.
async fn submit_all(api: &Api<DynamicObject>, values: &[String]) -> usize {
    let mut taken = 0;
    for (number, spec) in specs().iter().enumerate() {
        // As it stands it is good.
        create(api, &format!("f-{number}"), spec).await.unwrap();
        let mut pointers = Vec::new();
        texts("", spec, &mut pointers);
        for (place, pointer) in pointers.iter().enumerate() {
            for (which, value) in values.iter().enumerate() {
                let mut spec = spec.clone();
                *spec.pointer_mut(pointer).unwrap() = value.as_str().into();
                let name = format!("f-{number}-{place}-{which}");
                match create(api, &name, &spec).await {
                    Ok(()) => taken += 1,
                    Err(kube::Error::Api(refused)) => {
                        assert!([400, 403, 422].contains(&refused.code), "{pointer}: {refused:?}");
                    }
                    Err(error) => panic!("{pointer}: {error}"),
                }
            }
        }
    }
    taken
}

/// A ConfigMap that may be a script and certificates.
async fn put_bait(client: &Client, namespace: &str) {
    let metadata = json!({"name": "bait", "labels": {labels::SOURCE: labels::SOURCE_TRUE}});
    let bait = json!({"metadata": metadata, "data": {"bait": "true"}});
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(bait).unwrap()).await.unwrap();
}

/// Requests of the operator in a namespace, by the audit log.
fn asked_in(namespace: &str, agent: &str) -> Vec<String> {
    let log = fs::read_to_string(cluster().audit_log()).unwrap();
    let events = log.lines().filter(|line| line.contains(agent)).map(serde_json::from_str::<Value>);
    let events = events.map(Result::unwrap).filter(|event| event["objectRef"]["namespace"] == namespace);
    events.map(|event| format!("{} {}", event["verb"], event["requestURI"])).collect()
}

#[tokio::test]
async fn no_text_of_a_spec_reaches_another_namespace() {
    let client = admin().await;
    let _alone = only_operator(&client).await;
    policies_are_proven(NAMESPACE).await;
    in_namespace(&client, "fields-bait", &[], async |other| {
        // There is something to be found.
        put_bait(&client, &other).await;
        let bait = json!({"metadata": {"name": "bait"}, "stringData": {"bait": "secret-word"}});
        let api: Api<Secret> = Api::namespaced(client.clone(), &other);
        api.create(&PostParams::default(), &serde_json::from_value(bait).unwrap()).await.unwrap();
        in_namespace(&client, "fields", &[], async |namespace| {
            put_bait(&client, &namespace).await;
            let agent = format!("scriptrunner-it/{namespace}");
            let (stop, operator) = start_operator(acting_as_agent(&operator_user(), &agent).await).await;
            let api: Api<ScriptRunner> = Api::namespaced(client.clone(), &namespace);
            let resource = ApiResource::erase::<ScriptRunner>(&());
            let untyped = Api::namespaced_with(client.clone(), &namespace, &resource);
            let values = [other.clone(), format!("{other}/bait"), format!("../{other}/configmaps/bait")];
            let taken = submit_all(&untyped, &values).await;
            assert!(taken > 100, "{taken} specs were taken");
            wait::until("every object to be looked at", LONG, async |seen| {
                let objects = api.list(&ListParams::default()).await?.items;
                let silent = objects.iter().filter(|object| object.status.is_none()).count();
                seen.note(format!("{silent} of {} have no status", objects.len()));
                Ok::<_, kube::Error>((silent == 0).then_some(()))
            })
            .await
            .unwrap();
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            wait::until("pods of them", LONG, async |seen| {
                let made = pods.list(&ListParams::default()).await?.items.len();
                seen.note(format!("{made} of {taken}"));
                Ok::<_, kube::Error>((made > 20).then_some(()))
            })
            .await
            .unwrap();
            stop.send_replace(true);
            tokio::time::timeout(LONG, operator).await.unwrap().unwrap();

            let asked = asked_in(&namespace, &agent);
            assert!(asked.len() > taken, "the log has what was asked in the objects' own namespace");
            assert_eq!(asked_in(&other, &agent), Vec::<String>::new());
            let pods: Api<Pod> = Api::namespaced(client.clone(), &other);
            assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
            let objects = api.list(&ListParams::default()).await.unwrap().items;
            let found: Vec<_> = objects
                .iter()
                .filter(|object| format!("{:?}", object.status).contains("secret-word"))
                .map(ResourceExt::name_any)
                .collect();
            assert_eq!(found, Vec::<String>::new());
            Ok::<_, Error>(())
        })
        .await
    })
    .await
    .unwrap();
}
