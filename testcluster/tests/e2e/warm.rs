//! Runs that go on in the pods of the run before.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use serde_json::{Value, json};

use crate::{
    answer::{entry, newest, run_number, state, status},
    operator,
    stage::{Stage, alone, beside_others},
    submitted::Submitted,
};

fn spec(lines: &str) -> Value {
    json!({"nodeLabelSelector": {}, "runnerIdleSeconds": 600, "interpreter": ["bash"],
        "script": format!("{lines}echo \"$SCRIPTRUNNER_RUN of $1\""), "args": ["one"]})
}

/// Waits until runners on every node find the operator, which may have begun a moment ago: one that does not leaves its
/// answer to its pod's end, and does not stay.
async fn until_reachable(stage: &Stage) {
    let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": "true", "repeat": {"periodSeconds": 60}});
    let probe = stage.submit("probe", spec).await;
    probe
        .until("three runners connected", |object| {
            object.status.as_ref().is_some_and(|status| status.connected == 3)
        })
        .await;
    probe.delete().await;
    stage.until_pods(0).await;
}

/// UIDs of the pods that are there and not about to go, by node.
async fn pods(stage: &Stage) -> BTreeMap<String, String> {
    let pods = stage.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let living = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    living.map(|pod| (pod.annotations()[labels::NODE].clone(), pod.uid().unwrap())).collect()
}

/// The object when run `number` is over; panics unless every node answered it.
async fn answered(subject: &Submitted, number: u64, answer: &str) -> ScriptRunner {
    let object = subject.until_complete().await;
    assert_eq!(run_number(&object), number);
    for name in status(&object).nodes.keys() {
        let known = entry(&object, name);
        assert_eq!(
            (known.state.as_str(), known.run, known.executions),
            ("Succeeded", number, number),
            "{known:?}"
        );
        assert_eq!(newest(&object, name).stdout, format!("{number} of {answer}\n"));
    }
    object
}

#[tokio::test]
async fn edited_script_and_args_run_in_the_same_pods_within_seconds() {
    beside_others("warm::edit", &[], async |stage| {
        until_reachable(&stage).await;
        let subject = stage.submit("subject", spec("")).await;
        answered(&subject, 1, "one").await;
        let before = pods(&stage).await;
        assert_eq!(before.len(), 3);
        let mut times = Vec::new();
        for run in 2..=8 {
            let patch = match run % 2 {
                0 => json!({"spec": {"args": [format!("run {run}")]}}),
                _ => json!({"spec": {"script": format!("echo \"$SCRIPTRUNNER_RUN of $1\"  # {run}")}}),
            };
            let edited = Instant::now();
            subject.edit(patch).await;
            let object = answered(&subject, run, &format!("run {}", run - run % 2)).await;
            times.push(edited.elapsed());
            assert!(status(&object).nodes.values().all(|known| known.attempts == 1));
        }
        assert_eq!(pods(&stage).await, before, "the same pods");
        times.sort();
        let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
        eprintln!("from edit to last result in the status: median {middle:?}, at most {longest:?}");
        // A new pod alone takes longer; two cores carry three nodes and other tests.
        assert!(middle < Duration::from_secs(5), "{times:?}");
    })
    .await;
}

#[tokio::test]
async fn another_environment_needs_other_pods() {
    beside_others("warm::shape", &[], async |stage| {
        until_reachable(&stage).await;
        let journal = stage.journal().await;
        let subject = stage.submit("subject", spec("")).await;
        answered(&subject, 1, "one").await;
        let before = pods(&stage).await;
        subject.edit(json!({"spec": {"env": [{"name": "A", "value": "b"}]}})).await;
        answered(&subject, 2, "one").await;
        let after = pods(&stage).await;
        assert!(
            before.iter().all(|(node, uid)| after.get(node).is_some_and(|newer| newer != uid)),
            "{after:?}"
        );
        assert_eq!(journal.shared_nodes(), Vec::<String>::new());
        subject.edit(json!({"spec": {"args": ["two"]}})).await;
        answered(&subject, 3, "two").await;
        assert_eq!(pods(&stage).await, after);
        subject.delete().await;
        stage.until_pods(0).await;
    })
    .await;
}

#[tokio::test]
async fn failed_run_goes_on_in_the_same_pods_too() {
    beside_others("warm::failed", &[], async |stage| {
        until_reachable(&stage).await;
        let node = stage.some_node();
        let spec = json!({"nodeNames": [node], "runnerIdleSeconds": 600, "script": "raise SystemExit(3)"});
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_failed().await;
        assert_eq!((state(&object, &node), entry(&object, &node).failures), (("Failed", "ScriptFailed"), 1));
        let before = pods(&stage).await;
        subject.edit(json!({"spec": {"script": "print('mended')"}})).await;
        let object = subject.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "mended\n");
        let known = entry(&object, &node);
        assert_eq!((known.executions, known.failures, known.exit_code), (2, 1, Some(0)));
        assert_eq!(pods(&stage).await, before);
    })
    .await;
}

#[tokio::test]
async fn idle_pod_that_is_deleted_is_replaced_in_the_next_run_only() {
    beside_others("warm::deleted", &[], async |stage| {
        until_reachable(&stage).await;
        let subject = stage.submit("subject", spec("")).await;
        answered(&subject, 1, "one").await;
        let before = pods(&stage).await;
        let node = stage.some_node();
        let api = stage.api::<Pod>();
        for pod in api.list(&ListParams::default()).await.unwrap().items {
            if pod.annotations()[labels::NODE] == node {
                api.delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
            }
        }
        stage.until_pods(2).await;
        answered(&subject, 1, "one").await;
        subject.edit(json!({"spec": {"args": ["two"]}})).await;
        answered(&subject, 2, "two").await;
        let mut after = pods(&stage).await;
        let made = after.remove(&node).unwrap();
        assert!(!before.values().any(|uid| *uid == made));
        assert!(after.iter().all(|(node, uid)| before[node] == *uid), "{before:?} {after:?}");
    })
    .await;
}

#[tokio::test]
async fn idle_time_that_is_over_ends_the_pods() {
    beside_others("warm::over", &[], async |stage| {
        until_reachable(&stage).await;
        let mut spec = spec("");
        spec["runnerIdleSeconds"] = 5.into();
        let subject = stage.submit("subject", spec).await;
        answered(&subject, 1, "one").await;
        assert_eq!(pods(&stage).await.len(), 3);
        stage.until_pods(0).await;
        let object = answered(&subject, 1, "one").await;
        assert!(status(&object).nodes.values().all(|known| known.attempts == 1));
        subject.edit(json!({"spec": {"args": ["two"]}})).await;
        answered(&subject, 2, "two").await;
    })
    .await;
}

#[tokio::test]
async fn idle_runners_outlive_the_operator() {
    alone("warm::operator", &[], async |stage| {
        until_reachable(&stage).await;
        // Whatever dies, each run executes once on each node: the folder is the pod's own, and the pod stays.
        let ledger = "[ -e run-$SCRIPTRUNNER_RUN ] && exit 7\n> run-$SCRIPTRUNNER_RUN\n";
        let subject = stage.submit("subject", spec(ledger)).await;
        answered(&subject, 1, "one").await;
        let before = pods(&stage).await;
        // Between two runs.
        operator::delete_pods(&stage.client).await;
        operator::leader(&stage.client).await;
        subject.edit(json!({"spec": {"args": ["two"]}})).await;
        answered(&subject, 2, "two").await;
        assert_eq!(pods(&stage).await, before);
        // Edited while nobody looks.
        operator::delete_pods(&stage.client).await;
        subject.edit(json!({"spec": {"args": ["three"]}})).await;
        operator::leader(&stage.client).await;
        answered(&subject, 3, "three").await;
        // In the middle of a run.
        for run in 4..=6 {
            subject.edit(json!({"spec": {"args": [format!("run {run}")]}})).await;
            if run > 4 {
                let began = |object: &ScriptRunner| run_number(object) == run;
                subject.until("the next run to begin", began).await;
            }
            operator::delete_pods(&stage.client).await;
            answered(&subject, run, &format!("run {run}")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn only_as_many_idle_runners_go_on_as_may_be_busy() {
    beside_others("warm::parallelism", &[], async |stage| {
        until_reachable(&stage).await;
        let mut spec = spec("");
        spec["parallelism"] = 1.into();
        spec["executionDeadlineSeconds"] = 60.into();
        let subject = stage.submit("subject", spec).await;
        answered(&subject, 1, "one").await;
        let before = pods(&stage).await;
        subject.edit(json!({"spec": {"script": "date +%s%N; sleep 1; date +%s%N"}})).await;
        let object = subject.until_complete().await;
        assert_eq!((run_number(&object), pods(&stage).await), (2, before));
        let spans = status(&object).nodes.keys().map(|node| {
            let answer = &newest(&object, node).stdout;
            answer.lines().map(|line| line.parse::<u64>().unwrap()).collect::<Vec<_>>()
        });
        let mut spans: Vec<_> = spans.collect();
        spans.sort();
        assert!(spans.windows(2).all(|pair| pair[0][1] <= pair[1][0]), "two at once: {spans:?}");
    })
    .await;
}
