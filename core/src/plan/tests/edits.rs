//! What docs/edits.md says of each field, against the schema, the hash and the plan.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use scriptrunner_api::{all_crds, v1alpha1::ScriptRunnerSpec};
use serde_json::{Value, json};

use super::toy::{Toy, sources_of, succeeded};
use crate::validate::{spec_hash, validate};

const PAGE: &str = include_str!("../../../../docs/edits.md");

/// A row of the table.
struct Row {
    field: &'static str,
    done_nodes: &'static str,
    new_run: &'static str,
}

fn rows() -> Vec<Row> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [field, _, done_nodes, new_run] = cells[..] else { panic!("a row has four cells: {line}") };
        Row { field: field.trim_matches('`'), done_nodes, new_run }
    })
    .collect()
}

/// The properties of the spec by name, from the resource definition as it is installed.
fn properties() -> BTreeMap<String, JSONSchemaProps> {
    let crd = all_crds().into_iter().find(|crd| crd.spec.names.kind == "ScriptRunner").unwrap();
    let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    schema.properties.unwrap().remove("spec").unwrap().properties.unwrap()
}

/// A spec before and after an edit of one field, as changes of `{script: x, nodeLabelSelector: {}}`; null takes a field away.
/// On a finished run no edit of where it runs brings a further node.
const EDITS: [(&str, &str, &str); 63] = [
    ("script", "{}", "{script: y}"),
    (
        "scriptFrom",
        "{script: null, scriptFrom: {configMapKeyRef: {name: a, key: k}}}",
        "{script: null, scriptFrom: {configMapKeyRef: {name: b, key: k}}}",
    ),
    ("interpreter", "{}", "{interpreter: [sh]}"),
    ("args", "{args: [a]}", "{args: [a, b]}"),
    ("env", "{}", "{env: [{name: A, value: b}]}"),
    ("envFrom", "{}", "{envFrom: [{secretRef: {name: a}}]}"),
    ("dependencies.pip", "{}", "{dependencies: {pip: [six]}}"),
    ("dependencies.packages", "{runAs: Root}", "{runAs: Root, dependencies: {packages: [jq]}}"),
    (
        "dependencies.indexURL",
        "{dependencies: {pip: [six]}}",
        "{dependencies: {pip: [six], indexURL: 'https://a'}}",
    ),
    (
        "dependencies.extraIndexURLs",
        "{dependencies: {pip: [six]}}",
        "{dependencies: {pip: [six], extraIndexURLs: ['https://a']}}",
    ),
    (
        "dependencies.trustedCA",
        "{dependencies: {trustedCA: {configMapKeyRef: {name: a, key: k}}}}",
        "{dependencies: {trustedCA: {configMapKeyRef: {name: b, key: k}}}}",
    ),
    ("dependencies.installTimeoutSeconds", "{}", "{dependencies: {installTimeoutSeconds: 60}}"),
    ("nodeLabelSelector", "{}", "{nodeLabelSelector: {matchLabels: {a: b}}}"),
    (
        "nodeNames",
        "{nodeLabelSelector: null, nodeNames: [n1, n2]}",
        "{nodeLabelSelector: null, nodeNames: [n2, n9]}",
    ),
    ("excludedNodeNames", "{}", "{excludedNodeNames: [n1]}"),
    ("nodeSample", "{nodeSample: 2}", "{nodeSample: 1}"),
    ("tolerations", "{}", "{tolerations: [{key: a, operator: Exists}]}"),
    ("unschedulableNodePolicy", "{}", "{unschedulableNodePolicy: Skip}"),
    ("notReadyNodePolicy", "{}", "{notReadyNodePolicy: Skip}"),
    ("newNodePolicy", "{newNodePolicy: Ignore}", "{newNodePolicy: Run}"),
    (
        "mode",
        "{parallelism: 100%, executionDeadlineSeconds: 9}",
        "{parallelism: 100%, executionDeadlineSeconds: 9, mode: Privileged}",
    ),
    ("runAs", "{}", "{runAs: Root}"),
    (
        "hostFileSystem",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: PrivilegedWithHostFS}",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: PrivilegedWithHostFS, hostFileSystem: {accessMode: ReadOnly}}",
    ),
    (
        "hostPID",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: Privileged}",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: Privileged, hostPID: true}",
    ),
    (
        "hostNetwork",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: Privileged}",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: Privileged, hostNetwork: true}",
    ),
    (
        "hostIPC",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: Privileged}",
        "{parallelism: 3, executionDeadlineSeconds: 9, mode: Privileged, hostIPC: true}",
    ),
    ("image", "{}", "{image: 'python:3'}"),
    ("imagePullPolicy", "{}", "{imagePullPolicy: Always}"),
    ("imagePullSecrets", "{}", "{imagePullSecrets: [{name: a}]}"),
    ("resources", "{}", "{resources: {limits: {memory: 1Gi}}}"),
    ("podTemplate.labels", "{}", "{podTemplate: {labels: {a: b}}}"),
    ("podTemplate.annotations", "{}", "{podTemplate: {annotations: {a: b}}}"),
    ("podTemplate.volumes", "{}", "{podTemplate: {volumes: [{name: a, emptyDir: {}}]}}"),
    (
        "podTemplate.volumeMounts",
        "{podTemplate: {volumes: [{name: a, emptyDir: {}}]}}",
        "{podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /data}]}}",
    ),
    ("podTemplate.priorityClassName", "{}", "{podTemplate: {priorityClassName: low}}"),
    ("podTemplate.runtimeClassName", "{}", "{podTemplate: {runtimeClassName: gvisor}}"),
    ("placement", "{}", "{placement: Scheduler}"),
    ("repeat", "{repeat: {count: 1, periodSeconds: 5}}", "{repeat: {count: 1, periodSeconds: 6}}"),
    ("executionDeadlineSeconds", "{}", "{executionDeadlineSeconds: 9}"),
    ("terminationGracePeriodSeconds", "{}", "{terminationGracePeriodSeconds: 0}"),
    ("podStartDeadlineSeconds", "{}", "{podStartDeadlineSeconds: 1}"),
    ("activeDeadlineSeconds", "{}", "{activeDeadlineSeconds: 1}"),
    ("backoffLimit", "{}", "{backoffLimit: 3}"),
    ("exitCodes.success", "{exitCodes: {skipped: [4]}}", "{exitCodes: {skipped: [4], success: [2]}}"),
    ("exitCodes.skipped", "{}", "{exitCodes: {skipped: [4]}}"),
    (
        "exitCodes.retry",
        "{backoffLimit: 1, exitCodes: {retry: [7]}}",
        "{backoffLimit: 1, exitCodes: {retry: [8]}}",
    ),
    ("interruptionPolicy", "{}", "{interruptionPolicy: Retry}"),
    ("parallelism", "{executionDeadlineSeconds: 9}", "{executionDeadlineSeconds: 9, parallelism: 1}"),
    ("maxFailures", "{executionDeadlineSeconds: 9}", "{executionDeadlineSeconds: 9, maxFailures: 0}"),
    ("execution", "{}", "{execution: Stopped}"),
    ("rerun.at", "{rerun: {at: '2026-01-01T00:00:00Z'}}", "{rerun: {at: '2026-01-02T00:00:00Z'}}"),
    (
        "rerun.scope",
        "{rerun: {at: '2026-01-01T00:00:00Z'}}",
        "{rerun: {at: '2026-01-01T00:00:00Z', scope: Failed}}",
    ),
    (
        "rerun.nodeNames",
        "{rerun: {at: '2026-01-01T00:00:00Z'}}",
        "{rerun: {at: '2026-01-01T00:00:00Z', nodeNames: [n1]}}",
    ),
    ("updatePolicy", "{updatePolicy: OnRerun}", "{updatePolicy: Rerun}"),
    ("runnerIdleSeconds", "{}", "{runnerIdleSeconds: 60}"),
    ("historyLimit", "{}", "{historyLimit: 1}"),
    ("output.stdoutLimitBytes", "{}", "{output: {stdoutLimitBytes: 1}}"),
    ("output.stderrLimitBytes", "{}", "{output: {stderrLimitBytes: 1}}"),
    ("output.truncation", "{}", "{output: {truncation: Head}}"),
    ("output.groupBy", "{}", "{output: {groupBy: ExitCode}}"),
    ("output.keep", "{}", "{output: {keep: DigestOnly}}"),
    ("ttlSecondsAfterFinished", "{}", "{ttlSecondsAfterFinished: 3600}"),
    ("podCleanupPolicy", "{}", "{podCleanupPolicy: Always}"),
];

fn changed(changes: &str) -> String {
    let mut spec = json!({"script": "x", "nodeLabelSelector": {}});
    let changes: BTreeMap<String, Value> = serde_saphyr::from_str(changes).unwrap();
    for (field, value) in changes {
        spec[field] = value;
    }
    spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    spec.to_string()
}

fn parsed(spec: &str) -> ScriptRunnerSpec {
    serde_saphyr::from_str(spec).unwrap()
}

/// The spec without a field, and what that field was.
fn taken_apart(spec: &ScriptRunnerSpec, field: &str) -> (Value, Option<Value>) {
    let mut rest = serde_json::to_value(spec).unwrap();
    let (parent, name) = match field.split_once('.') {
        Some((parent, name)) => (rest.get_mut(parent), name),
        None => (Some(&mut rest), field),
    };
    let was = parent.and_then(|parent| parent.as_object_mut()?.remove(name));
    // An object that had nothing else is the same as none.
    rest.as_object_mut().unwrap().retain(|_, value| *value != json!({}));
    (rest, was)
}

/// A run that has finished on every node.
fn finished(spec: &str) -> Toy {
    let mut toy = Toy::new(spec, 3);
    toy.observed.namespace_privileged = true;
    for _ in 0..3 {
        toy.settle();
        toy.end_all(&succeeded("hi"));
    }
    toy.settle();
    let status = toy.status();
    assert!(status.succeeded > 0 && status.succeeded == status.desired, "{spec}: {status:#?}");
    toy
}

fn run_number(toy: &Toy) -> u64 {
    toy.status().run.as_ref().unwrap().number
}

#[test]
fn every_field_has_one_row_and_every_row_a_field() {
    let rows = rows();
    let mut found: Vec<&str> = rows.iter().map(|row| row.field).collect();
    let mut wanted = Vec::new();
    for (name, schema) in properties() {
        // A field is one row, or its parts are.
        let parts = format!("{name}.");
        if rows.iter().any(|row| row.field.starts_with(&parts)) {
            wanted.extend(schema.properties.unwrap().into_keys().map(|part| format!("{parts}{part}")));
        } else {
            wanted.push(name);
        }
    }
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "left: rows of docs/edits.md, right: fields of the spec");
    let edited: Vec<&str> = EDITS.iter().map(|(field, ..)| *field).collect();
    assert_eq!(edited, rows.iter().map(|row| row.field).collect::<Vec<_>>(), "each row is tried below");
}

#[test]
fn a_field_is_said_to_start_a_run_if_the_hash_has_it() {
    for ((field, before, after), row) in EDITS.iter().zip(rows()) {
        let (before, after) = (parsed(&changed(before)), parsed(&changed(after)));
        let ((rest, was), (same_rest, is)) = (taken_apart(&before, field), taken_apart(&after, field));
        assert!(rest == same_rest && was != is, "the edit of {field} is one of {field}");
        for spec in [&before, &after] {
            let valid = validate(spec, &sources_of(spec));
            assert!(valid.is_ok(), "{field}: {valid:?}");
        }
        let is_hashed = spec_hash(&before, &sources_of(&before)) != spec_hash(&after, &sources_of(&after));
        let says = match (*field, is_hashed) {
            ("rerun.at", false) => "by its time",
            (_, true) => "yes",
            (_, false) => "no",
        };
        assert_eq!(row.new_run, says, "{field}");
        assert_eq!(row.done_nodes.starts_with("run again"), is_hashed, "{field}: {}", row.done_nodes);
    }
}

#[test]
fn an_edit_runs_nodes_again_that_are_done_only_if_it_is_said_to() {
    for ((field, before, after), row) in EDITS.iter().zip(rows()) {
        let mut toy = finished(&changed(before));
        let (states, created) = (toy.states(), toy.created);
        toy.edit(&changed(after));
        // Another source is named, so what it holds is looked up anew.
        toy.observed.sources = sources_of(&toy.observed.object.spec);
        toy.settle();
        toy.wait_seconds(60);
        toy.settle();
        match row.new_run {
            "no" => {
                assert_eq!((run_number(&toy), toy.created), (1, created), "{field}");
                assert!(toy.states().starts_with(&states), "{field}: {:?}", toy.states());
            }
            "yes" => assert_eq!((run_number(&toy), toy.created), (2, 2 * created), "{field}"),
            "by its time" => {
                assert_eq!((run_number(&toy), toy.created), (2, 2 * created), "{field}");
                toy.edit(&changed(before));
                toy.settle();
                toy.edit(&changed("{}"));
                toy.settle();
                assert_eq!(run_number(&toy), 2, "an earlier time, and none, ask for nothing");
            }
            other => panic!("{field} has {other:?} in the last column"),
        }
    }
}

#[test]
fn a_lower_history_limit_cuts_what_is_stored_of_done_nodes() {
    let spec = changed("{repeat: {count: 3, periodSeconds: 1}}");
    let mut toy = Toy::new(&spec, 1);
    toy.settle();
    let mut runner = toy.runner("n1");
    (0..3).for_each(|_| runner.execute(0));
    runner.complete();
    toy.terminate("n1", 0, "Completed", &runner.message());
    toy.settle();
    let serials = |toy: &Toy| {
        let history = &toy.status().nodes["n1"].history;
        history.iter().map(|execution| execution.serial).collect::<Vec<_>>()
    };
    assert_eq!(serials(&toy), [1, 2, 3]);
    toy.edit(&changed("{repeat: {count: 3, periodSeconds: 1}, historyLimit: 1}"));
    toy.settle();
    assert_eq!((serials(&toy), toy.created), (vec![3], 1));
}
