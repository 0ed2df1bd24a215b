//! That pods are created while a status is on its way, against a scripted API server.

use std::sync::Mutex;

use http::Method;
use k8s_openapi::api::core::v1::Node;
use scriptrunner_core::observed::NodeFacts;
use serde_json::{Value, json};

use super::*;
use crate::scripted::{Answer, Asked, Record, client, context};

/// How long the API server takes for a status, and for anything else.
const STATUS: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_millis(100);

fn object() -> Value {
    json!({
        "apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
        "metadata": {"name": "sr", "namespace": "ns", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"script": "true", "nodeLabelSelector": {}, "mode": "Normal"},
    })
}

/// Stores what it is given, and takes its time for statuses.
fn slow_server() -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    let stored = Mutex::new((object(), 1_u64));
    move |asked| {
        let mut stored = stored.lock().unwrap();
        let (object, version) = &mut *stored;
        *version += 1;
        if asked.path.ends_with("/status") {
            let patch: json_patch::Patch = serde_json::from_value(asked.body.clone()).unwrap();
            json_patch::patch(object, &patch).unwrap();
            object["metadata"]["resourceVersion"] = version.to_string().into();
            return Answer::Late(STATUS, 200, object.clone());
        }
        let mut made = asked.body.clone();
        made["metadata"]["uid"] = format!("uid-{version}").into();
        made["metadata"]["resourceVersion"] = version.to_string().into();
        made["metadata"]["creationTimestamp"] = Context::now().to_string().into();
        Answer::Late(CALL, 201, made)
    }
}

fn with_nodes(context: &Context, count: usize) {
    for number in 0..count {
        let name = format!("node-{number}");
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"kubernetes.io/os": "linux"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        let facts = NodeFacts::of(&node).unwrap();
        Arc::make_mut(&mut context.world.nodes()).insert(name, facts);
    }
}

fn creations(record: &Record) -> usize {
    let all = record.all();
    all.iter().filter(|asked| asked.method == Method::POST && asked.path.ends_with("/pods")).count()
}

#[tokio::test(start_paused = true)]
async fn a_long_plan_goes_on_while_a_status_is_on_its_way() {
    let (client, record) = client(slow_server());
    let mut context = context(client);
    context.config.request_timeout = Duration::from_secs(10);
    with_nodes(&context, 1_000);
    let object: Arc<ScriptRunner> = Arc::new(serde_json::from_value(object()).unwrap());
    let begin = tokio::time::Instant::now();
    while creations(&record) < 1_000 {
        rounds(&object, &context).await.unwrap();
        // Between the parts of a plan others have their turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(begin.elapsed() < Duration::from_mins(1), "{} were created", creations(&record));
    }
    // The status that begins the run is waited for. After it, 191 pods fit into a second and 320 into each that follows.
    let seconds = begin.elapsed().as_secs_f64();
    assert!((8.0..13.0).contains(&seconds), "{seconds}");
}
