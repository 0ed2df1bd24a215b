//! What is left when a run is over, and for how long.

use std::collections::BTreeSet;

use kube::ResourceExt;
use scriptrunner_api::{condition::ConditionType, labels};
use scriptrunner_testcluster::wait;
use serde_json::json;

use crate::{
    answer::{says, state, status},
    stage::{PATIENCE, Stage, beside_others},
};

#[tokio::test]
async fn an_object_that_is_over_is_deleted_when_its_time_has_come() {
    beside_others("cleanup::ttl", &[], async |stage| {
        let node = stage.some_node();
        let spec = |script: &str, seconds: u32| {
            json!({"nodeNames": [node], "interpreter": ["bash"], "script": script,
                "ttlSecondsAfterFinished": seconds})
        };
        // One that was stopped may go on, so it is not over.
        let stopped = stage.submit("stopped", spec("exec sleep 1000", 1)).await;
        let is_active = |object: &_| state(object, &node).0 == "Running";
        stopped.until("at work", is_active).await;
        stopped.edit(json!({"spec": {"execution": "Stopped"}})).await;
        let object = stopped.until_failed().await;
        assert!(says(&object, ConditionType::Failed, "True", "Stopped"));

        let good = stage.submit("good", spec("exit 0", 5)).await;
        let bad = stage.submit("bad", spec("exit 1", 5)).await;
        let at_once = stage.submit("at-once", spec("exit 0", 0)).await;
        good.until_complete().await;
        bad.until_failed().await;
        for subject in [&at_once, &good, &bad] {
            subject.until_gone().await;
        }
        stage.until_pods(0).await;
        // Of the one that was stopped.
        stage.until_config_maps(1).await;
        let object = stopped.get().await;
        assert!(says(&object, ConditionType::Failed, "True", "Stopped"), "it waits to go on");
        stopped.delete().await;
        stage.until_config_maps(0).await;
    })
    .await;
}

/// Waits until an object's pods are those of exactly these nodes and this run.
async fn until_kept(stage: &Stage, name: &str, nodes: &[&String], run: u64) {
    let expected: BTreeSet<_> = nodes.iter().map(|node| ((*node).clone(), run.to_string())).collect();
    wait::until(&format!("pods of {name:?}: {expected:?}"), PATIENCE, async |seen| {
        let pods = stage.pods_of(name).await?;
        let found: BTreeSet<_> = pods
            .iter()
            .map(|pod| (pod.annotations()[labels::NODE].clone(), pod.labels()[labels::RUN].clone()))
            .collect();
        seen.note(format!("{found:?}"));
        Ok::<_, kube::Error>((found == expected).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn ended_pods_are_kept_as_the_policy_says() {
    beside_others("cleanup::pods", &[], async |stage| {
        let (good, bad) = (stage.node(1), stage.node(2));
        let mut subjects = Vec::new();
        for (name, policy) in [("on-success", "OnSuccess"), ("always", "Always"), ("never", "Never")] {
            let script = format!("[ \"$SCRIPTRUNNER_NODE\" = {good} ]");
            let spec = json!({"nodeNames": [good, bad], "interpreter": ["bash"], "script": script,
                "podCleanupPolicy": policy});
            subjects.push((name, stage.submit(name, spec).await));
        }
        for (_, subject) in &subjects {
            let object = subject.until_failed().await;
            assert_eq!((status(&object).succeeded, status(&object).failed), (1, 1));
        }
        until_kept(&stage, "on-success", &[&bad], 1).await;
        until_kept(&stage, "always", &[], 1).await;
        until_kept(&stage, "never", &[&good, &bad], 1).await;
        // A newer run takes along what an older one left.
        for (_, subject) in &subjects {
            subject.edit(json!({"spec": {"script": "true"}})).await;
            subject.until_complete().await;
        }
        until_kept(&stage, "on-success", &[], 2).await;
        until_kept(&stage, "always", &[], 2).await;
        until_kept(&stage, "never", &[&good, &bad], 2).await;
        for (_, subject) in &subjects {
            subject.delete().await;
        }
        stage.until_pods(0).await;
        stage.until_config_maps(0).await;
    })
    .await;
}
