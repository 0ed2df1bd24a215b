//! Every end of a pod, and the reason that the status gives for it.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    ResourceExt,
    api::{DeleteParams, LogParams, PostParams},
};
use scriptrunner_api::digest::sha256_hex;
use scriptrunner_testcluster::wait;
use serde_json::json;

use crate::{
    answer::{entry, newest, run_number, state},
    processes,
    stage::{PATIENCE, Stage, beside_others},
    submitted::Submitted,
};

/// Prints, then waits for ever; ends at once when told to.
const WAITS: &str = "import time\nprint('half', flush=True)\nwhile True: time.sleep(1)";

/// A script at work on a node.
struct AtWork {
    subject: Submitted,
    pod: Pod,
    /// Pid of its runner on the machine.
    runner: u32,
}

impl AtWork {
    async fn new(stage: &Stage, node: &str) -> Self {
        Self::after(stage, node, "").await
    }

    /// At work after some first lines of its own.
    async fn after(stage: &Stage, node: &str, lines: &str) -> Self {
        // Makes the script, and so its digest among the runner's arguments, this test's own.
        let script = format!("{lines}{WAITS}  # {}", stage.namespace);
        let subject = stage.submit("subject", json!({"nodeNames": [node], "script": script})).await;
        subject.until("Running", |object| state(object, node).0 == "Running").await;
        let runner =
            processes::find_one(&stage.cluster, "scriptrunner-runner", &sha256_hex(script.as_bytes())).await;
        processes::until_child(runner).await;
        let pod = stage.until_pods(1).await.remove(0);
        // What it has printed stands in its log.
        let logs = stage.api::<Pod>();
        wait::until("its first line", PATIENCE, async |_| {
            let log = logs.logs(&pod.name_any(), &LogParams::default()).await?;
            Ok::<_, kube::Error>(log.contains("half").then_some(()))
        })
        .await
        .unwrap();
        Self { subject, pod, runner }
    }
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    beside_others("ends::exit", &[], async |stage| {
        let node = stage.some_node();
        let code = json!({"nodeNames": [node], "interpreter": ["bash"], "script": "echo out; echo err >&2; exit 42"});
        let code = stage.submit("code", code).await;
        let signal = json!({"nodeNames": [node], "interpreter": ["bash"], "script": "echo out; kill -SEGV $$"});
        let signal = stage.submit("signal", signal).await;
        let mixed = json!({"nodeNames": [node], "interpreter": ["bash"], "script": "exit $((SCRIPTRUNNER_SERIAL == 2))",
            "repeat": {"count": 3, "periodSeconds": 1}});
        let mixed = stage.submit("mixed", mixed).await;

        let object = code.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "ScriptFailed"));
        let last = newest(&object, &node);
        assert_eq!((last.exit_code, last.stdout.as_str(), last.stderr.as_str()), (Some(42), "out\n", "err\n"));

        let object = signal.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "ScriptFailed"));
        assert_eq!((entry(&object, &node).signal, entry(&object, &node).exit_code), (Some(11), None));

        // One failure of three is a failure, though the last one succeeded.
        let object = mixed.until_failed().await;
        let mixed = entry(&object, &node);
        assert_eq!((mixed.executions, mixed.failures, mixed.exit_code), (3, 1, Some(0)));
    })
    .await;
}

#[tokio::test]
async fn a_pod_deleted_at_work_leaves_what_it_had() {
    beside_others("ends::deleted", &[], async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let AtWork { subject, pod, .. } = AtWork::new(&stage, &node).await;
        stage.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        let object = subject.until_failed().await;
        assert_eq!(state(&object, &node), ("Stopped", "PodDeleted"));
        assert_eq!(newest(&object, &node).stdout, "half\n");
        assert_eq!(entry(&object, &node).executions, 1);
        stage.until_pods(0).await;
        assert_eq!(journal.pods(), 1, "what was interrupted is not run again");
    })
    .await;
}

#[tokio::test]
async fn a_pod_deleted_by_force_leaves_an_open_question() {
    beside_others("ends::forced", &[], async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let AtWork { subject, pod, .. } = AtWork::new(&stage, &node).await;
        let at_once = DeleteParams::default().grace_period(0);
        stage.api::<Pod>().delete(&pod.name_any(), &at_once).await.unwrap();
        let object = subject.until_failed().await;
        // Nobody waits for its end; if its runner was told of it in time, its last words came over its session.
        let state = state(&object, &node);
        assert!(matches!(state, ("Unknown" | "Stopped", "PodDeleted")), "{state:?}");
        assert_eq!(entry(&object, &node).executions, 1);
        assert_eq!(journal.pods(), 1, "what may have run is not run again");
    })
    .await;
}

#[tokio::test]
async fn a_pod_deleted_after_its_end_changes_nothing() {
    beside_others("ends::deleted_after", &[], async |stage| {
        let node = stage.some_node();
        let journal = stage.journal().await;
        let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": "exit 7"});
        let subject = stage.submit("subject", spec).await;
        let before = subject.until_failed().await;
        // The pod of a failed script is kept for a look.
        let pod = stage.until_pods(1).await.remove(0);
        stage.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        stage.until_pods(0).await;
        // An edit that starts nothing proves that the operator has looked since.
        subject.edit(json!({"spec": {"historyLimit": 6}})).await;
        let object = subject.until_failed().await;
        assert_eq!(entry(&object, &node), entry(&before, &node));
        assert_eq!((run_number(&object), journal.pods()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_killed_runner_is_told_apart() {
    beside_others("ends::runner_killed", &[], async |stage| {
        let node = stage.some_node();
        let AtWork { subject, runner, .. } = AtWork::new(&stage, &node).await;
        processes::kill(runner);
        let object = subject.until_failed().await;
        assert_eq!(state(&object, &node), ("Unknown", "RunnerKilled"));
        assert_eq!((entry(&object, &node).executions, entry(&object, &node).attempts), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_message_that_the_script_scribbled_over_is_not_believed() {
    beside_others("ends::no_message", &[], async |stage| {
        let node = stage.some_node();
        let lines = "open('/dev/termination-log', 'w').write('{\"state\": \"Succeeded\"}')\n";
        let AtWork { subject, runner, .. } = AtWork::after(&stage, &node, lines).await;
        processes::kill(runner);
        let object = subject.until_failed().await;
        assert_eq!(state(&object, &node), ("Unknown", "NoMessage"));
        assert_eq!((entry(&object, &node).executions, entry(&object, &node).attempts), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_container_that_cannot_be_made_is_waited_for_and_then_told() {
    beside_others("ends::not_made", &[], async |stage| {
        let node = stage.some_node();
        let borrowed = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "later", "key": "key"}}}]);
        let spec =
            json!({"nodeNames": [node], "interpreter": ["bash"], "script": "echo $A", "env": borrowed});
        let patient = stage.submit("patient", spec.clone()).await;
        let mut hasty = spec;
        hasty["podStartDeadlineSeconds"] = 10.into();
        let hasty = stage.submit("hasty", hasty).await.until_failed().await;
        assert_eq!(state(&hasty, &node), ("Failed", "ContainerNotStarted"));
        assert!(
            entry(&hasty, &node).message.contains("\"later\" not found"),
            "{}",
            entry(&hasty, &node).message
        );
        assert_eq!(entry(&hasty, &node).executions, 0);

        let secret = json!({"metadata": {"name": "later"}, "stringData": {"key": "came"}});
        let secrets = stage.api::<Secret>();
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        let object = patient.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "came\n");
        assert_eq!(entry(&object, &node).attempts, 1);
    })
    .await;
}
