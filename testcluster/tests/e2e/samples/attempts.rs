//! Samples of what is tried again, what ends a run, and what is left of it.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use scriptrunner_api::{condition::ConditionType, labels, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::wait;
use serde_json::json;

use super::apply;
use crate::{
    answer::{entry, newest, run_number, says, state, status, summary},
    stage::{PATIENCE, Stage, in_given_namespace},
};

/// Waits until a sample has no pods in this namespace, which others use too.
async fn until_no_pods(stage: &Stage, name: &str) {
    wait::until(&format!("no pods of {name:?}"), PATIENCE, async |seen| {
        let pods = stage.pods_of(name).await?;
        seen.note(format!("{} pods", pods.len()));
        Ok::<_, kube::Error>(pods.is_empty().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn retry_succeeds_at_the_third_attempt() {
    in_given_namespace("default", async |stage| {
        let retry = apply(&stage.client, "retry.yaml", |_| {}).await;
        let object = retry.until_complete().await;
        assert_eq!((status(&object).succeeded, status(&object).output_group_count), (3, 1));
        for node in stage.cluster.node_names() {
            let known = entry(&object, &node);
            assert_eq!((known.attempts, known.retries, known.failures, known.exit_code), (3, 2, 2, Some(2)));
            let said: Vec<_> = known.history.iter().map(|it| (it.exit_code, it.stdout.as_str())).collect();
            let busy = ["attempt 1: the lock is taken\n", "attempt 2: the lock is taken\n"];
            let expected =
                [(Some(75), busy[0]), (Some(75), busy[1]), (Some(2), "attempt 3: nothing to do\n")];
            assert_eq!(said, expected, "{node}");
        }
        retry.delete().await;
    })
    .await;
}

#[tokio::test]
async fn skip_leaves_out_nodes_that_it_is_not_for() {
    in_given_namespace("default", async |stage| {
        let skip = apply(&stage.client, "skip.yaml", |_| {}).await;
        let object = skip.until_complete().await;
        // The nodes have the machine's devices.
        let cards = Path::new("/sys/class/infiniband").read_dir().map_or(0, Iterator::count);
        for node in stage.cluster.node_names() {
            let (expected, answer) = match cards {
                0 => (("Skipped", "ExitCodeSkips"), "no InfiniBand card here\n"),
                _ => (("Succeeded", ""), "cards: "),
            };
            assert_eq!(state(&object, &node), expected);
            assert!(newest(&object, &node).stdout.starts_with(answer), "{:?}", newest(&object, &node));
        }
        let told = status(&object);
        assert_eq!((told.skipped + told.succeeded, told.failed, told.progress.as_str()), (3, 0, "3/3"));
        skip.delete().await;
    })
    .await;
}

#[tokio::test]
async fn interruptions_are_run_once_more() {
    in_given_namespace("default", async |stage| {
        let interruptions = apply(&stage.client, "interruptions.yaml", |_| {}).await;
        let names = stage.cluster.node_names();
        // That a script runs is told later than it begins.
        let pods = stage.until_running("interruptions", names.len()).await;
        let (pod, node) = (&pods[0], pods[0].annotations()[labels::NODE].clone());
        stage.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        let object = interruptions.until_complete().await;
        for name in &names {
            let (known, again) = (entry(&object, name), u32::from(*name == node));
            assert_eq!(
                (known.attempts, known.interruptions),
                (1 + again, again),
                "{name}: {}",
                summary(&object)
            );
            assert!(newest(&object, name).stdout.ends_with("part 10 of 10\n"), "{:?}", newest(&object, name));
        }
        interruptions.delete().await;
    })
    .await;
}

#[tokio::test]
async fn deadline_ends_the_run_and_a_longer_one_goes_on() {
    in_given_namespace("default", async |stage| {
        let deadline = apply(&stage.client, "deadline.yaml", |_| {}).await;
        let object = deadline.until_failed().await;
        assert!(says(&object, ConditionType::Failed, "True", "ActiveDeadlineExceeded"));
        let told = status(&object);
        // How far it comes in half a minute is the machine's business.
        assert_eq!(told.succeeded + told.failed + told.pending, 3, "{}", summary(&object));
        assert!(told.failed <= 1 && told.pending >= 1, "{}", summary(&object));
        for known in told.nodes.values().filter(|known| known.state == "Stopped") {
            assert_eq!(known.reason, "ActiveDeadlineExceeded");
        }
        deadline.edit(json!({"spec": {"activeDeadlineSeconds": 600}})).await;
        let goes_on = |object: &ScriptRunner| {
            status(object).active == 1 && says(object, ConditionType::Failed, "False", "RunNotEnded")
        };
        let object = deadline.until("the next node at work", goes_on).await;
        assert_eq!(run_number(&object), 1);
        deadline.delete().await;
    })
    .await;
}

#[tokio::test]
async fn rerun_runs_an_edit_when_it_is_asked_for() {
    in_given_namespace("default", async |stage| {
        let rerun = apply(&stage.client, "rerun.yaml", |_| {}).await;
        let object = rerun.until_complete().await;
        super::assert_whole(&stage, &object);
        rerun.edit(json!({"spec": {"args": ["edited"]}})).await;
        assert_eq!(run_number(&rerun.until_complete().await), 1, "it waits");
        rerun.edit(json!({"spec": {"rerun": {"at": "2026-01-01T00:00:01Z", "scope": "All"}}})).await;
        let object = rerun.until_complete().await;
        assert_eq!((run_number(&object), status(&object).succeeded), (2, 3));
        for node in stage.cluster.node_names() {
            assert_eq!(newest(&object, &node).stdout, "run 2\n");
        }
        rerun.delete().await;
    })
    .await;
}

#[tokio::test]
async fn cleanup_leaves_nothing() {
    in_given_namespace("default", async |stage| {
        let cleanup = apply(&stage.client, "cleanup.yaml", |_| {}).await;
        let object = cleanup.until_failed().await;
        assert_eq!((status(&object).failed, status(&object).desired), (3, 3));
        assert_eq!(newest(&object, &stage.node(1)).stderr, "this fails, and yet leaves no pod\n");
        until_no_pods(&stage, "cleanup").await;
        cleanup.until_gone().await;
    })
    .await;
}
