//! Scripts that stand in ConfigMaps: run on every node, run again when they change, kept by the run when they go.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use scriptrunner_api::{condition::ConditionType, labels, v1alpha1::ScriptRunner};
use serde_json::{Value, json};

use crate::{
    answer::{message, newest, run_number, says, state, status, summary},
    node::change,
    stage::{Stage, beside_others},
};

/// What a change may take until it is a run.
const PROMPT: Duration = Duration::from_secs(5);

async fn put(stage: &Stage, script: &str) {
    let object = json!({"metadata": {"name": "scripts", "labels": {labels::SOURCE: labels::SOURCE_TRUE}},
        "data": {"it.sh": script}});
    let api = stage.api::<ConfigMap>();
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

async fn edit(stage: &Stage, script: &str) {
    let patch = json!({"data": {"it.sh": script}});
    stage.api::<ConfigMap>().patch("scripts", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

fn spec(more: &Value) -> Value {
    let mut spec = json!({"scriptFrom": {"configMapKeyRef": {"name": "scripts", "key": "it.sh"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// Whether all three nodes have succeeded in this run. An edit of a ConfigMap changes no generation.
fn is_done(object: &ScriptRunner, run: u64) -> bool {
    run_number(object) == run && object.status.as_ref().is_some_and(|status| status.progress == "3/3")
}

#[tokio::test]
async fn a_script_of_a_config_map_runs_on_each_node_and_its_edit_runs_again() {
    beside_others("source::edit", &[], async |stage| {
        let journal = stage.journal().await;
        put(&stage, "#!/bin/bash\necho first on $SCRIPTRUNNER_NODE\n").await;
        let subject = stage.submit("subject", spec(&json!({"nodeLabelSelector": {}}))).await;
        let object = subject.until_complete().await;
        assert_eq!((status(&object).succeeded, run_number(&object)), (3, 1), "{}", summary(&object));

        let begin = Instant::now();
        edit(&stage, "#!/bin/bash\necho second on $SCRIPTRUNNER_NODE\n").await;
        subject.until("a second run", |object| run_number(object) == 2).await;
        assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
        let object = subject.until("three answers of the second run", |object| is_done(object, 2)).await;
        assert_eq!(status(&object).succeeded, 3, "{}", summary(&object));
        assert_eq!(status(&object).run.as_ref().unwrap().trigger, "SpecChanged");
        for node in stage.cluster.node_names() {
            assert_eq!(newest(&object, &node).stdout, format!("second on {node}\n"));
        }
        assert_eq!((journal.pods(), journal.shared_nodes()), (6, Vec::new()));
        stage.until_config_maps(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_keeps_its_script_when_the_config_map_goes_also_on_late_nodes() {
    beside_others("source::gone", &[], async |stage| {
        let (first, late) = (stage.node(1), stage.node(2));
        let key = format!("e2e/{}", stage.namespace);
        let label = |value: Value| json!({"metadata": {"labels": {key.as_str(): value}}});
        change(&stage, &first, label("yes".into())).await;
        let spec = spec(&json!({"nodeLabelSelector": {"matchLabels": {key.as_str(): "yes"}}}));
        let subject = stage.submit("subject", spec).await;
        let is_missing =
            |object: &ScriptRunner| says(object, ConditionType::Accepted, "False", "InputMissing");
        let object = subject.until("its script is missing", is_missing).await;
        assert!(message(&object, ConditionType::Accepted).contains("no ConfigMap \"scripts\""));
        assert_eq!(run_number(&object), 0);

        put(&stage, "#!/bin/bash\necho kept\n").await;
        subject.until_complete().await;
        stage.api::<ConfigMap>().delete("scripts", &DeleteParams::default()).await.unwrap();
        subject.until("its script is missing again", is_missing).await;
        change(&stage, &late, label("yes".into())).await;
        let is_done = |object: &ScriptRunner| state(object, &late).0 == "Succeeded";
        let object = subject.until("the late node done", is_done).await;
        for node in [&first, &late] {
            change(&stage, node, label(Value::Null)).await;
        }
        assert_eq!((run_number(&object), newest(&object, &late).stdout.as_str()), (1, "kept\n"));
        assert!(is_missing(&object), "{}", summary(&object));
    })
    .await;
}
