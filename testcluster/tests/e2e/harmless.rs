//! What is printed, written and asked for to harm whoever reads it: in status, Events, log and metrics it does nothing.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use scriptrunner_api::{
    hostile::{CORPUS, texts},
    text::{is_harmful, make_harmless},
    v1alpha1::ScriptRunner,
};
use scriptrunner_testcluster::wait;
use serde_json::json;

use crate::{
    answer::{newest, state},
    operator,
    stage::{PATIENCE, Stage, beside_others},
};

/// Prints the corpus and makes it the result; fails where it is told to.
const SCRIPT: &str = r"
import json, os, sys
corpus = [bytes(text) for text in CORPUS]
for to in (1, 2):
    os.write(to, b'\n'.join(corpus))
text = corpus[0].decode() + '\u202e\u200b\U000e0041\x85'
with open(os.environ['SCRIPTRUNNER_RESULT_FILE'], 'w') as file:
    json.dump({text: [text]}, file)
os._exit(3 if os.environ['SCRIPTRUNNER_NODE'] == sys.argv[1] else 0)
";

#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    for line in text.lines() {
        assert!(!line.chars().any(is_harmful), "{what}: {line:?}");
    }
}

async fn events(stage: &Stage) -> Vec<Event> {
    stage.api::<Event>().list(&ListParams::default()).await.unwrap().items
}

/// Everything that people and their tools read of the namespace's ScriptRunners and the operator.
async fn assert_all_harmless(stage: &Stage) {
    let objects = stage.api::<ScriptRunner>().list(&ListParams::default()).await.unwrap().items;
    for object in objects {
        // The spec is its user's.
        assert_harmless("status", &serde_json::to_string(&object.status).unwrap());
    }
    for event in events(stage).await.iter().filter(|event| {
        event.reporting_controller.as_deref().is_some_and(|name| name.starts_with("scriptrunner"))
    }) {
        assert_harmless("event", event.note.as_deref().unwrap_or_default());
    }
    assert_harmless("log", &operator::log(&stage.client).await);
    assert_harmless("metrics", &operator::metrics(&stage.client).await);
}

#[tokio::test]
async fn what_scripts_print_and_leave_does_nothing_to_readers() {
    beside_others("harmless::scripts", &[], async |stage| {
        let failing = stage.node(1);
        let corpus: Vec<&[u8]> = CORPUS.iter().map(|(_, bytes)| *bytes).collect();
        let script = SCRIPT.replace("CORPUS", &format!("{corpus:?}"));
        let spec = json!({"nodeLabelSelector": {}, "script": script, "args": [failing]});
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(state(&object, &failing), ("Failed", "ScriptFailed"));
        let printed = corpus.join(&b'\n');
        for node in [failing, stage.node(2)] {
            let answer = newest(&object, &node);
            assert_eq!(answer.stdout_bytes, Some(printed.len() as u64));
            // Without a session there is room for the end only.
            let clean = make_harmless(&printed);
            assert!(answer.stdout.len() > 100 && clean.ends_with(&answer.stdout), "{:?}", answer.stdout);
            let result = answer.result.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(result.contains(r"\\u{202e}\\u{200b}\\u{e0041}\\u{85}"), "{result}");
        }
        wait::until("the Event of the failed node", PATIENCE, async |seen| {
            let notes: Vec<_> = events(&stage).await.into_iter().filter_map(|event| event.note).collect();
            seen.note(format!("{notes:?}"));
            Ok::<_, kube::Error>(notes.iter().any(|note| note.contains("exit code 3")).then_some(()))
        })
        .await
        .unwrap();
        assert_all_harmless(&stage).await;
    })
    .await;
}

#[tokio::test]
async fn what_users_ask_for_does_nothing_to_readers() {
    beside_others("harmless::users", &[], async |stage| {
        let node = stage.some_node();
        // No program can be given a NUL: the runtime says so, quoting the value, and the kubelet says what it said.
        let value = format!("\0{}", texts().collect::<String>());
        let spec = json!({"nodeNames": [node], "script": "1", "podStartDeadlineSeconds": 30,
            "env": [{"name": "SAID", "value": value}]});
        let object = stage.submit("environment", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "ContainerNotStarted"));
        let interpreter: String = format!("/none/{value}").replace('\0', "").chars().take(1000).collect();
        let spec = json!({"nodeNames": [node], "script": "1", "interpreter": [interpreter]});
        let object = stage.submit("interpreter", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "InterpreterNotStarted"));
        assert_all_harmless(&stage).await;
    })
    .await;
}
