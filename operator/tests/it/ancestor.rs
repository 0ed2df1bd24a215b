//! What went wrong in the operator of 2019 that this one descends from, and which tests keep it from coming back: each at
//! the lowest layer that can see it. The last of them here checks that all of them exist.

use std::fs;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::Api;
use scriptrunner_api::v1alpha1::{
    Execution, Mode, NodeStatus, ScriptRunner, ScriptRunnerSpec, ScriptRunnerStatus,
};
use scriptrunner_operator::manifests::{NAMESPACE, OPERATOR, ROOT, files};
use scriptrunner_testcluster::{Error, namespace::in_namespace};
use serde_json::{Value, json};

use crate::{cluster::admin, people::dry_create};

/// What went wrong, and the tests against it as file and name.
const TABLE: [(&str, &[(&str, &str)]); 12] = [
    (
        "1: results never reached the status: single operations of a JSON patch were sent as merge patches to the object",
        &[
            ("operator/src/report/tests.rs", "a_status_is_written_for_one_version_of_one_object"),
            ("operator/tests/it/status.rs", "the_operators_patch_writes_the_status_and_nothing_else_does"),
        ],
    ),
    (
        "2: everything was written to the namespace `default`",
        &[
            ("operator/src/report/tests.rs", "a_status_is_written_for_one_version_of_one_object"),
            ("operator/src/apply/tests.rs", "pods_are_created_and_known_at_once"),
            ("testcluster/tests/e2e/samples.rs", "hello_is_answered_by_each_node"),
        ],
    ),
    (
        "3: every account of the cluster became cluster-admin",
        &[
            ("operator/tests/it/ancestor.rs", "rights_are_given_to_the_operators_account_only"),
            ("operator/tests/it/rbac.rs", "the_account_has_exactly_the_rights_of_the_list"),
        ],
    ),
    (
        "4: an unknown mode, every typo included, was a privileged one",
        &[
            ("operator/tests/it/ancestor.rs", "an_unknown_mode_is_no_mode"),
            ("operator/tests/it/specs.rs", "each_mistake_is_refused_with_a_sentence"),
        ],
    ),
    (
        "5: -1 repetitions, documented as endless, were none, and 0 were one",
        &[
            ("operator/tests/it/specs.rs", "each_mistake_is_refused_with_a_sentence"),
            ("core/src/validate/tests.rs", "each_contradiction_is_named"),
            ("runner-image/tests/it/repeat.rs", "endless_repetition_is_handed_over_between_executions"),
            ("runner-image/tests/it/repeat.rs", "executions_start_a_period_apart_and_the_newest_are_kept"),
        ],
    ),
    (
        "6: a history of 0 was a crash; histories were out of order and held nulls",
        &[
            ("operator/tests/it/specs.rs", "each_mistake_is_refused_with_a_sentence"),
            ("operator/tests/it/ancestor.rs", "a_status_holds_no_null"),
            ("core/src/status/merge/tests.rs", "newest_are_kept_and_stand_last"),
        ],
    ),
    (
        "7: a script with a quote or a backslash arrived as another one",
        &[
            ("operator/tests/it/ancestor.rs", "the_api_server_keeps_a_script_byte_for_byte"),
            ("core/src/pod/tests.rs", "config_map_holds_the_script_byte_for_byte"),
            ("runner-image/tests/it/environment.rs", "script_is_run_byte_for_byte"),
            ("testcluster/tests/e2e/output.rs", "a_script_arrives_byte_for_byte"),
        ],
    ),
    (
        "8: what could not be started was a success, and standard error was kept of failures only",
        &[
            ("runner-image/tests/it/endings.rs", "missing_interpreter_is_named"),
            ("runner-image/tests/it/endings.rs", "success_keeps_both_streams_and_passes_them_on"),
            ("core/src/results/tests.rs", "the_exit_code_alone_proves_nothing"),
            ("core/src/results/tests.rs", "memory_that_ran_out_is_a_failure_with_and_without_a_record"),
        ],
    ),
    (
        "9: the script ran although its dependencies were missing",
        &[("runner-image/tests/it/install.rs", "failed_install_keeps_the_script_from_running")],
    ),
    (
        "10: nodes that joined, left or changed were not seen, edits did nothing, and an error ended everything",
        &[
            ("core/src/plan/tests.rs", "a_node_that_joins_later_is_run_and_the_verdict_waits_for_it"),
            (
                "core/src/plan/tests.rs",
                "a_node_that_leaves_keeps_its_outcome_and_one_that_never_started_goes",
            ),
            ("core/src/plan/tests.rs", "a_cordoned_node_is_run_and_an_unready_one_is_waited_for"),
            ("core/src/plan/tests.rs", "an_edit_of_the_script_is_a_run_and_waits_for_the_older_pod"),
            ("core/src/plan/tests.rs", "taints_leave_nodes_out_until_they_go"),
        ],
    ),
    (
        "11: in a namespace other than `default` there were no nodes",
        &[("testcluster/tests/e2e/samples.rs", "hello_is_answered_by_each_node")],
    ),
    (
        "12: pods without limits, deadlines and short names; objects without conditions and columns",
        &[
            ("core/src/pod/tests.rs", "normal_pod"),
            ("core/src/plan/tests.rs", "an_image_that_cannot_be_pulled_ends_at_the_start_deadline"),
            ("runner-image/tests/it/deadline.rs", "hanging_script_is_terminated_and_its_output_kept"),
            ("testcluster/tests/e2e/output.rs", "the_longest_name_and_the_longest_script_run"),
            ("operator/tests/it/crd.rs", "kubectl_get_shows_the_columns"),
            ("core/src/plan/tests.rs", "a_failed_node_fails_the_run_and_keeps_its_pod_for_a_look"),
        ],
    ),
];

#[test]
fn every_test_of_the_table_exists() {
    for (what, tests) in TABLE {
        for (file, test) in tests {
            let text = fs::read_to_string(format!("{ROOT}/{file}")).unwrap_or_default();
            assert!(text.contains(&format!("fn {test}(")), "{what}: {file} has no {test}");
        }
    }
}

#[test]
fn rights_are_given_to_the_operators_account_only() {
    let documents = files().into_iter().filter(|file| file.path.starts_with("deploy")).flat_map(|file| {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&file.contents).unwrap();
        documents
    });
    let bindings: Vec<_> = documents
        .filter(|document| document["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")))
        .collect();
    // Two for an operator that is for all namespaces; three for one that is for some.
    assert_eq!(bindings.len(), 5);
    for binding in bindings {
        let account = json!([{"kind": "ServiceAccount", "name": OPERATOR, "namespace": NAMESPACE}]);
        assert_eq!((&binding["subjects"], &binding["roleRef"]["name"]), (&account, &json!(OPERATOR)));
    }
}

#[test]
fn an_unknown_mode_is_no_mode() {
    // The API server refuses it; an object from before that rule is not read at all.
    let read = |mode: Value| {
        let spec = json!({"script": "x", "nodeNames": ["a"], "mode": mode});
        serde_json::from_value::<ScriptRunnerSpec>(spec).map(|spec| spec.mode)
    };
    for mode in
        ["elevated", "elevatedWitFS", "normal", "privileged", "Privileged ", "PrivilegedWithHostFs", ""]
    {
        assert!(read(mode.into()).is_err(), "{mode:?}");
    }
    for mode in Mode::ALL {
        assert_eq!(read(mode.as_str().into()).unwrap(), mode);
    }
    assert_eq!(plain().mode, Mode::Normal, "a mode that is not given is the harmless one");
}

fn plain() -> ScriptRunnerSpec {
    serde_json::from_value(json!({"script": "x", "nodeNames": ["a"]})).unwrap()
}

#[test]
fn a_status_holds_no_null() {
    let entry = NodeStatus { history: vec![Execution::default(); 3], ..NodeStatus::default() };
    let mut status = ScriptRunnerStatus::default();
    status.nodes.insert("a".to_owned(), entry);
    assert!(!serde_json::to_string(&status).unwrap().contains("null"));
    status.last_successful_time = Some(Time(Timestamp::UNIX_EPOCH));
    assert!(!serde_json::to_string(&status).unwrap().contains("null"));
}

#[tokio::test]
async fn the_api_server_keeps_a_script_byte_for_byte() {
    let client = admin().await;
    in_namespace(&client, "bytes", &[], async |namespace| {
        let api: Api<ScriptRunner> = Api::namespaced(client.clone(), &namespace);
        for script in [
            "print(\"it's\", '\\n', \"\\\\\", '$HOME', `x`, \"${A:-b}\")",
            "#!/bin/sh\r\necho 'a\tb'\r\n\r\n",
            "  \n\n# spaces at the ends \u{a0}\n   ",
            "echo '\u{1b}[31m \u{7f} \u{0} \u{202e} é 🦀 \u{feff}'",
        ] {
            let mut object = ScriptRunner::new("new", plain());
            object.spec.script = Some(script.to_owned());
            let stored = api.create(&dry_create(), &object).await.unwrap();
            assert_eq!(stored.spec.script.as_deref(), Some(script));
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
