//! Which specs the real API server refuses, with which words, and which it accepts: the sentence is all that its user gets.

mod attempts;
mod pods;

use std::{collections::BTreeSet, fs};

use http::Method;
use kube::Client;
use scriptrunner_api::reason::ConditionReason;
use scriptrunner_api::v1alpha1::ScriptRunnerSpec;
use scriptrunner_core::validate::{Source, Sources, validate};
use scriptrunner_operator::manifests::ROOT;
use scriptrunner_testcluster::{Error, namespace::in_namespace};
use serde_json::{Value, json};

use crate::cluster::{admin, definition, refusal, send};

/// A spec that is refused, as YAML, and the words that say why.
const REFUSED: [(&str, &str); 91] = [
    (
        "{script: x, nodeNames: [a], mode: Priviledged}",
        r#"spec.mode: Unsupported value: "Priviledged": supported values: "Normal", "Privileged", "PrivilegedWithHostFS""#,
    ),
    ("{script: x, nodeNames: [a], mode: ''}", "spec.mode: Unsupported value"),
    ("{script: x, nodeNames: [a], mode: privileged}", "spec.mode: Unsupported value"),
    ("{nodeNames: [a]}", "give exactly one of script and scriptFrom"),
    ("{script: '', nodeNames: [a]}", "spec.script in body should be at least 1 chars long"),
    (
        "{script: x, scriptFrom: {configMapKeyRef: {name: a, key: b}}, nodeNames: [a]}",
        "give exactly one of script and scriptFrom",
    ),
    ("{script: x, nodeNames: [a], historylimit: 3}", r#"unknown field "spec.historylimit""#),
    (
        "{script: x, nodeNames: [a], env: [{name: A, valueFrom: {fileKeyRef: {key: a}}}]}",
        r#"unknown field "spec.env[0].valueFrom.fileKeyRef""#,
    ),
    (
        "{script: x}",
        "give exactly one of nodeLabelSelector and nodeNames; nodeLabelSelector: {} means every node",
    ),
    (
        "{script: x, nodeNames: [a], nodeLabelSelector: {}}",
        "give exactly one of nodeLabelSelector and nodeNames",
    ),
    ("{script: x, nodeNames: null}", "give exactly one of nodeLabelSelector and nodeNames"),
    ("{script: x, nodeNames: []}", "spec.nodeNames in body should have at least 1 items"),
    ("{script: x, nodeNames: ['']}", "spec.nodeNames[0] in body should be at least 1 chars long"),
    (r#"{script: x, nodeNames: ["a\u202e"]}"#, "spec.nodeNames[0] in body should match"),
    ("{script: x, nodeNames: [A]}", "spec.nodeNames[0] in body should match"),
    (
        "{script: x, nodeNames: [a], historyLimit: 0}",
        "spec.historyLimit in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], historyLimit: 101}",
        "spec.historyLimit in body should be less than or equal to 100",
    ),
    ("{script: x, nodeNames: [a], historyLimit: 1.5}", "spec.historyLimit in body must be of type integer"),
    (
        "{script: x, nodeNames: [a], repeat: {periodSeconds: 1, count: 0}}",
        "spec.repeat.count in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], repeat: {periodSeconds: 1, count: -1}}",
        "spec.repeat.count in body should be greater than or equal to 1",
    ),
    ("{script: x, nodeNames: [a], repeat: {count: 1}}", "spec.repeat.periodSeconds: Required value"),
    (
        "{script: x, nodeNames: [a], repeat: {count: 1, periodSeconds: 0}}",
        "spec.repeat.periodSeconds in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], repeat: {count: 1, periodSeconds: 1, stopOn: Always}}",
        r#"spec.repeat.stopOn: Unsupported value: "Always""#,
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, parallelism: 0}",
        "spec.parallelism in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, parallelism: -1}",
        "spec.parallelism in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, parallelism: 2147483648}",
        "spec.parallelism in body should be less than or equal to",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, parallelism: '0%'}",
        "spec.parallelism in body should match '^([1-9][0-9]?|100)%$'",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, parallelism: '101%'}",
        "spec.parallelism in body should match",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, parallelism: '5'}",
        "spec.parallelism in body should match",
    ),
    (
        "{script: x, nodeNames: [a], parallelism: 1}",
        "parallelism needs executionDeadlineSeconds, so that a hung node cannot hold its slot for ever",
    ),
    (
        "{script: x, nodeNames: [a], parallelism: 1, executionDeadlineSeconds: 1, repeat: {periodSeconds: 1}}",
        "parallelism cannot be combined with an endless repeat; set repeat.count or remove parallelism",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, maxFailures: -1}",
        "spec.maxFailures in body should be greater than or equal to 0",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, maxFailures: 1000001}",
        "spec.maxFailures in body should be less than or equal to 1000000",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, maxFailures: '0%'}",
        "spec.maxFailures in body should match '^([1-9][0-9]?|100)%$'",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, maxFailures: '0'}",
        "spec.maxFailures in body should match",
    ),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 1, maxFailures: 1.5}",
        "spec.maxFailures in body must be of type integer,string",
    ),
    (
        "{script: x, nodeNames: [a], maxFailures: 0}",
        "maxFailures needs executionDeadlineSeconds, so that a hung node is counted as a failure",
    ),
    (
        "{script: x, nodeNames: [a], maxFailures: 1, executionDeadlineSeconds: 1, repeat: {periodSeconds: 1}}",
        "maxFailures cannot be combined with an endless repeat, whose nodes never end; set repeat.count or remove maxFailures",
    ),
    (
        "{script: x, nodeNames: [a], execution: paused}",
        r#"spec.execution: Unsupported value: "paused": supported values: "Active", "Paused", "Stopped""#,
    ),
    ("{script: x, nodeNames: [a], execution: ''}", "spec.execution: Unsupported value"),
    ("{script: x, nodeNames: [a], execution: false}", "spec.execution in body must be of type string"),
    (
        "{script: x, nodeNames: [a], executionDeadlineSeconds: 0}",
        "spec.executionDeadlineSeconds in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged}",
        "a privileged mode must state parallelism (100% is allowed), unless it repeats endlessly",
    ),
    (
        "{script: x, nodeNames: [a], mode: PrivilegedWithHostFS, repeat: {periodSeconds: 1, count: 2}}",
        "a privileged mode must state parallelism",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, runAs: Root}",
        "runAs is for mode Normal only; remove it: a privileged mode always runs as root",
    ),
    (
        "{script: x, nodeNames: [a], runnerIdleSeconds: 86401}",
        "spec.runnerIdleSeconds in body should be less than or equal to 86400",
    ),
    (
        "{script: x, nodeNames: [a], runnerIdleSeconds: -1}",
        "spec.runnerIdleSeconds in body should be greater than or equal to 0",
    ),
    (
        "{script: x, nodeNames: [a], runnerIdleSeconds: 1.5}",
        "spec.runnerIdleSeconds in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], runnerIdleSeconds: 10m}",
        "spec.runnerIdleSeconds in body must be of type integer",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, runnerIdleSeconds: 1}",
        "runnerIdleSeconds is for mode Normal only; remove it: the pod of a privileged mode ends with its run",
    ),
    ("{script: x, nodeNames: [a], runAs: root}", r#"spec.runAs: Unsupported value: "root""#),
    ("{script: x, nodeNames: [a], hostFileSystem: {}}", "hostFileSystem needs mode: PrivilegedWithHostFS"),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, hostFileSystem: {accessMode: ReadOnly}}",
        "hostFileSystem needs mode: PrivilegedWithHostFS",
    ),
    (
        "{script: x, nodeNames: [a], env: [{name: SCRIPTRUNNER_NODE, value: b}]}",
        "names that start with SCRIPTRUNNER_ are set by the runner; choose another name",
    ),
    ("{script: x, nodeNames: [a], env: [{name: 'A=B', value: b}]}", "spec.env[0].name in body should match"),
    (
        "{script: x, nodeNames: [a], env: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]}",
        "give value or valueFrom, not both",
    ),
    (
        "{script: x, nodeNames: [a], env: [{name: A, valueFrom: {}}]}",
        "give exactly one of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef",
    ),
    (
        "{script: x, nodeNames: [a], env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.hostIP}, secretKeyRef: {name: a, key: b}}}]}",
        "give exactly one of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, env: [{name: A, valueFrom: {configMapKeyRef: {name: a, key: b}}}]}",
        "env from a ConfigMap is for mode Normal only; write the value into the spec, where admission sees it",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {pip: [humanize, '--index-url=http://x']}}",
        "a pip requirement cannot start with '-': options are not requirements; use indexURL, extraIndexURLs and trustedCA",
    ),
    ("{script: x, nodeNames: [a], interpreter: []}", "spec.interpreter in body should have at least 1 items"),
    (
        "{script: x, nodeLabelSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "operators In and NotIn need values, Exists and DoesNotExist take none",
    ),
    (
        "{script: x, nodeLabelSelector: {matchExpressions: [{key: a, operator: DoesNotExist, values: [b]}]}}",
        "operators In and NotIn need values, Exists and DoesNotExist take none",
    ),
    (
        "{script: x, nodeLabelSelector: {matchExpressions: [{key: a, operator: Equals, values: [b]}]}}",
        r#"operator: Unsupported value: "Equals""#,
    ),
    (
        "{script: x, nodeNames: [a], excludedNodeNames: ['']}",
        "spec.excludedNodeNames[0] in body should be at least 1 chars long",
    ),
    (
        "{script: x, nodeNames: [a], excludedNodeNames: b}",
        "spec.excludedNodeNames in body must be of type array",
    ),
    (
        "{script: x, nodeNames: [a], excludedNodeNames: [1]}",
        "spec.excludedNodeNames[0] in body must be of type string",
    ),
    ("{script: x, nodeNames: a}", "spec.nodeNames in body must be of type array"),
    (
        "{script: x, nodeNames: [a], nodeSample: 0}",
        "spec.nodeSample in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], nodeSample: -1}",
        "spec.nodeSample in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], nodeSample: 1000001}",
        "spec.nodeSample in body should be less than or equal to 1000000",
    ),
    (
        "{script: x, nodeNames: [a], nodeSample: '0%'}",
        "spec.nodeSample in body should match '^([1-9][0-9]?|100)%$'",
    ),
    ("{script: x, nodeNames: [a], nodeSample: '101%'}", "spec.nodeSample in body should match"),
    ("{script: x, nodeNames: [a], nodeSample: '2'}", "spec.nodeSample in body should match"),
    (
        "{script: x, nodeNames: [a], nodeSample: 1.5}",
        "spec.nodeSample in body must be of type integer,string",
    ),
    ("{script: x, nodeNames: [a], tolerations: gpu}", "spec.tolerations in body must be of type array"),
    ("{script: x, nodeNames: [a], tolerations: [gpu]}", "spec.tolerations[0] in body must be of type object"),
    (
        "{script: x, nodeNames: [a], tolerations: [{}]}",
        "a toleration without a key is for every taint and needs operator: Exists; name the key or set the operator",
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{operator: Equal, value: b}]}",
        "a toleration without a key is for every taint",
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: '', operator: Exists}]}",
        "spec.tolerations[0].key in body should be at least 1 chars long",
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: 'a b', operator: Exists}]}",
        "spec.tolerations[0].key in body should match",
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: a, value: 'b c'}]}",
        "spec.tolerations[0].value in body should match",
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: a, operator: Exists, value: b}]}",
        "a toleration with operator Exists takes no value; remove the value or set operator: Equal",
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: a, operator: exists}]}",
        r#"spec.tolerations[0].operator: Unsupported value: "exists""#,
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: a, effect: NoRun}]}",
        r#"spec.tolerations[0].effect: Unsupported value: "NoRun""#,
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: a, effect: NoSchedule, tolerationSeconds: 5}]}",
        "tolerationSeconds is for effect NoExecute only; set the effect or remove tolerationSeconds",
    ),
    (
        "{script: x, nodeNames: [a], tolerations: [{key: a, effect: NoExecute, tolerationSeconds: -1}]}",
        "spec.tolerations[0].tolerationSeconds in body should be greater than or equal to 0",
    ),
    (
        "{script: x, nodeNames: [a], unschedulableNodePolicy: Skip, tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]}",
        "unschedulableNodePolicy: Skip leaves out the cordoned nodes that tolerations lets in; remove the toleration of node.kubernetes.io/unschedulable or set unschedulableNodePolicy: Run",
    ),
    (
        "{script: x, nodeNames: [a], unschedulableNodePolicy: Wait}",
        r#"spec.unschedulableNodePolicy: Unsupported value: "Wait""#,
    ),
    (
        "{script: x, nodeNames: [a], notReadyNodePolicy: Run}",
        r#"spec.notReadyNodePolicy: Unsupported value: "Run""#,
    ),
    ("{script: x, nodeNames: [a], newNodePolicy: Skip}", r#"spec.newNodePolicy: Unsupported value: "Skip""#),
];

/// Specs that are accepted; together they use every field.
const ACCEPTED: [&str; 24] = [
    "{script: x, nodeLabelSelector: {}}",
    "{script: x, nodeNames: [a, b]}",
    "{script: x, nodeNames: [a], mode: null, args: null, env: null, runAs: null, historyLimit: null, nodeLabelSelector: null, repeat: null, output: null}",
    "{script: x, nodeNames: [a, b], excludedNodeNames: [b, c], nodeSample: 1000000, unschedulableNodePolicy: Run, notReadyNodePolicy: Wait, newNodePolicy: Run}",
    "{script: x, nodeLabelSelector: {}, excludedNodeNames: [], nodeSample: '100%', tolerations: [], unschedulableNodePolicy: Skip, notReadyNodePolicy: Skip, newNodePolicy: Ignore}",
    "{script: x, nodeLabelSelector: {}, unschedulableNodePolicy: Skip, tolerations: [{operator: Exists}, {key: a}, {key: b.c/D_e, value: F.g, effect: PreferNoSchedule}, {key: a, operator: Exists, value: '', effect: NoExecute, tolerationSeconds: 0}]}",
    "{script: x, nodeNames: [a], runAs: Root, interpreter: [bash, -e], args: ['', '$HOME', a b], historyLimit: 1}",
    "{script: x, nodeNames: [a], runAs: NonRoot, placement: Scheduler, historyLimit: 100, terminationGracePeriodSeconds: 0, podStartDeadlineSeconds: 1}",
    "{script: x, nodeNames: [a], placement: Direct, output: {stdoutLimitBytes: 0, stderrLimitBytes: 65536}}",
    "{script: x, nodeNames: [a], repeat: {periodSeconds: 1, count: 1000000, initialDelaySeconds: 0, stopOn: Failure}}",
    "{script: x, nodeNames: [a], repeat: {periodSeconds: 2678400, stopOn: Success}}",
    "{script: x, nodeNames: [a], runnerIdleSeconds: 86400}",
    "{script: x, nodeNames: [a], mode: Privileged, repeat: {periodSeconds: 1}, runnerIdleSeconds: 0}",
    "{script: x, nodeNames: [a], parallelism: '100%', executionDeadlineSeconds: 31536000}",
    "{script: x, nodeNames: [a], parallelism: 1, executionDeadlineSeconds: 1, repeat: {periodSeconds: 1, count: 2}}",
    "{script: x, nodeNames: [a], maxFailures: 0, executionDeadlineSeconds: 1, execution: Active}",
    "{script: x, nodeNames: [a], execution: Paused, repeat: {periodSeconds: 1}}",
    "{script: x, nodeNames: [a], execution: Stopped, runnerIdleSeconds: 1}",
    "{script: x, nodeNames: [a], parallelism: 1, maxFailures: 100%, executionDeadlineSeconds: 1, repeat: {periodSeconds: 1, count: 2}}",
    "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1%, executionDeadlineSeconds: 1, env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b, optional: true}}}]}",
    "{script: x, nodeNames: [a], mode: PrivilegedWithHostFS, repeat: {periodSeconds: 1, stopOn: Never}, hostFileSystem: {accessMode: ReadOnly}}",
    "{script: x, nodeNames: [a], dependencies: {pip: ['requests==2.32.3', 'a @ https://example.org/a.whl']}}",
    "{script: x, nodeNames: [a], env: [{name: A}, {name: a.b-c, value: '$(A)'}, {name: B, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, {name: C, valueFrom: {resourceFieldRef: {resource: limits.memory}}}, {name: D, valueFrom: {configMapKeyRef: {name: a, key: b, optional: false}}}]}",
    "{script: x, nodeLabelSelector: {matchLabels: {disk: ssd}, matchExpressions: [{key: a, operator: In, values: [b]}, {key: a, operator: NotIn, values: ['']}, {key: a, operator: Exists}, {key: a, operator: DoesNotExist, values: []}]}}",
];

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// Asks the API server to create the object, without doing so.
async fn dry_create(client: &Client, namespace: &str, mut object: Value) -> kube::Result<Value> {
    object["metadata"]["namespace"] = namespace.into();
    let path = format!(
        "/apis/scriptrunner.io/v1alpha1/namespaces/{namespace}/scriptrunners?dryRun=All&fieldValidation=Strict"
    );
    send(client, Method::POST, &path, "application/json", &object).await
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "metadata": {"name": "new"}, "spec": spec})
}

/// Whether the operator takes the spec, as the API server stores it.
fn operator_takes(stored: &Value) -> bool {
    let spec: ScriptRunnerSpec = serde_json::from_value(stored["spec"].clone()).unwrap();
    // Where an input stands in a ConfigMap, the API server does not say more than that.
    let text = Some(Source::Text("x".into()));
    let sources = Sources { script: text.clone(), trusted_ca: text };
    validate(&spec, &sources).map_or_else(|refusal| refusal.reason == ConditionReason::InputChanged, |_| true)
}

#[tokio::test]
async fn each_mistake_is_refused_with_a_sentence() {
    let client = admin().await;
    in_namespace(&client, "refused", &[], async |namespace| {
        let mut wrong = Vec::new();
        for (spec, words) in REFUSED.into_iter().chain(attempts::REFUSED).chain(pods::REFUSED) {
            let answer = dry_create(&client, &namespace, object(&yaml(spec))).await;
            match refusal(&answer) {
                Some((400 | 422, _, message)) if message.contains(words) => {}
                said => wrong.push(format!("{spec}\n  should say {words}\n  said {said:?}")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_script_has_at_most_64_kib_of_utf_8() {
    let client = admin().await;
    in_namespace(&client, "long", &[], async |namespace| {
        let script = |letter: &str, count| object(&json!({"script": letter.repeat(count), "nodeNames": ["a"]}));
        for (letter, most) in [("x", 65_536), ("é", 32_768), ("🦀", 16_384)] {
            let answer = dry_create(&client, &namespace, script(letter, most)).await.unwrap();
            assert!(operator_takes(&answer));
            let answer = dry_create(&client, &namespace, script(letter, most + 1)).await;
            let (code, _, message) = refusal(&answer).unwrap();
            assert_eq!(code, 422);
            assert!(
                message.contains("spec.script: Too long: may not be more than 65536 bytes")
                    || message.ends_with("script is longer than 64 KiB (65536 bytes of UTF-8); put the bulk into the image or a package"),
                "{message}"
            );
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_accepted_is_what_the_operator_takes() {
    let client = admin().await;
    in_namespace(&client, "accepted", &[], async |namespace| {
        let mut wrong = Vec::new();
        for spec in ACCEPTED.into_iter().chain(attempts::ACCEPTED).chain(pods::ACCEPTED) {
            match dry_create(&client, &namespace, object(&yaml(spec))).await {
                Ok(stored) if operator_takes(&stored) => {}
                other => wrong.push(format!("{spec}\n  {other:?}")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn every_sample_is_accepted() {
    let client = admin().await;
    in_namespace(&client, "samples", &[], async |namespace| {
        let mut count = 0;
        let folders =
            ["samples", "samples/migration"].map(|folder| fs::read_dir(format!("{ROOT}/{folder}")).unwrap());
        let paths = folders.into_iter().flatten().map(|file| file.unwrap().path());
        for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
            for document in documents.into_iter().filter(|document| document["kind"] == "ScriptRunner") {
                let stored = dry_create(&client, &namespace, document).await;
                let stored = stored.unwrap_or_else(|error| panic!("{path:?}: {error}"));
                assert!(operator_takes(&stored), "{path:?}");
                count += 1;
            }
        }
        assert!(count >= 39, "{count} samples");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[test]
fn the_accepted_specs_use_every_field() {
    let mut used = BTreeSet::new();
    for spec in ACCEPTED.into_iter().chain(attempts::ACCEPTED).chain(pods::ACCEPTED) {
        fields_of_value("spec", &yaml(spec), &mut used);
    }
    let mut known = BTreeSet::new();
    let schema = &definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    fields_of_schema("spec", schema, &mut known);
    assert_eq!(known.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new());
}

fn fields_of_value(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    for (name, field) in value.as_object().into_iter().flatten().filter(|(_, field)| !field.is_null()) {
        let path = format!("{path}.{name}");
        fields_of_value(&path, field, into);
        into.insert(path);
    }
    for item in value.as_array().into_iter().flatten() {
        fields_of_value(path, item, into);
    }
}

fn fields_of_schema(path: &str, schema: &Value, into: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields_of_schema(&path, field, into);
        fields_of_schema(&path, &field["items"], into);
        into.insert(path);
    }
}
