//! Samples about results, the host, and what pods are made of.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use scriptrunner_api::condition::ConditionType;
use serde_json::json;

use super::{apply, assert_whole};
use crate::{
    answer::{newest, says, status},
    python_index::PythonIndex,
    stage::in_given_namespace,
};

#[tokio::test]
async fn result_is_a_value_that_nodes_agree_on_whatever_they_print() {
    in_given_namespace("default", async |stage| {
        let result = apply(&stage.client, "result.yaml", |_| {}).await;
        let object = result.until_complete().await;
        assert_whole(&stage, &object);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let expected = json!({"kernel": kernel.trim(), "machine": "x86_64"});
        for node in stage.cluster.node_names() {
            assert_eq!(newest(&object, &node).result.as_ref(), Some(&expected));
            assert!(newest(&object, &node).stdout.starts_with("asked at "));
        }
        let groups = &status(&object).output_groups;
        assert_eq!((groups.len(), groups[0].node_count), (1, 3));
        assert_eq!(groups[0].sample, expected.to_string());
        assert!(says(&object, ConditionType::Consistent, "True", "SameAnswer"));
        result.delete().await;
    })
    .await;
}

#[tokio::test]
async fn digest_only_keeps_no_output() {
    in_given_namespace("default", async |stage| {
        let digest = apply(&stage.client, "digest-only.yaml", |_| {}).await;
        let object = digest.until_complete().await;
        assert_whole(&stage, &object);
        for node in stage.cluster.node_names() {
            let answer = newest(&object, &node);
            assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("", ""));
            assert!(answer.stdout_bytes.is_some_and(|bytes| bytes > 20) && answer.digest.len() == 16);
        }
        assert_eq!(status(&object).output_group_count, 1);
        digest.delete().await;
    })
    .await;
}

#[tokio::test]
async fn group_by_exit_code_takes_nodes_for_the_same_whatever_they_print() {
    in_given_namespace("default", async |stage| {
        let group = apply(&stage.client, "group-by-exit-code.yaml", |_| {}).await;
        let object = group.until_complete().await;
        assert_whole(&stage, &object);
        let nodes = stage.cluster.node_names();
        let said: BTreeSet<_> = nodes.iter().map(|node| newest(&object, node).stdout.as_str()).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        let groups = &status(&object).output_groups;
        assert_eq!((groups.len(), groups[0].node_count, groups[0].exit_code), (1, 3, Some(0)));
        assert!(says(&object, ConditionType::Consistent, "True", "SameAnswer"));
        group.delete().await;
    })
    .await;
}

#[tokio::test]
async fn inline_metadata_is_installed_before_the_script_runs() {
    in_given_namespace("default", async |stage| {
        let module = "def naturalsize(size):\n    return f'{size} bytes'\n";
        let index = PythonIndex::start(&stage.cluster, "humanize", module).await;
        let inline = apply(&stage.client, "inline-metadata.yaml", |object| {
            object["spec"]["env"] = index.environment();
        })
        .await;
        let object = inline.until_complete().await;
        assert_whole(&stage, &object);
        assert_eq!(newest(&object, &stage.node(1)).stdout, "1000000000 bytes\n");
        inline.delete().await;
    })
    .await;
}

#[tokio::test]
async fn nsenter_acts_in_the_node() {
    in_given_namespace("scriptrunner-samples", async |stage| {
        let nsenter = apply(&stage.client, "nsenter.yaml", |_| {}).await;
        let object = nsenter.until_complete().await;
        assert_whole(&stage, &object);
        for node in stage.cluster.node_names() {
            assert_eq!(newest(&object, &node).stdout, format!("{node}\n"));
        }
        nsenter.delete().await;
    })
    .await;
}

#[tokio::test]
async fn host_read_only_is_that_of_the_node_and_read_only() {
    in_given_namespace("scriptrunner-samples", async |stage| {
        let host = apply(&stage.client, "host-read-only.yaml", |_| {}).await;
        let object = host.until_complete().await;
        assert_whole(&stage, &object);
        for node in stage.cluster.node_names() {
            assert_eq!(newest(&object, &node).stdout, format!("{node}\nread-only\n"));
        }
        host.delete().await;
    })
    .await;
}

#[tokio::test]
async fn host_network_is_that_of_the_node() {
    in_given_namespace("scriptrunner-samples", async |stage| {
        let host = apply(&stage.client, "host-network.yaml", |_| {}).await;
        let object = host.until_complete().await;
        assert_whole(&stage, &object);
        let said = &newest(&object, &stage.node(1)).stdout;
        assert!(said.split_whitespace().count() > 2, "a pod has two interfaces: {said:?}");
        host.delete().await;
    })
    .await;
}

#[tokio::test]
async fn volumes_and_resources_are_those_that_were_asked_for() {
    in_given_namespace("default", async |stage| {
        let volumes = apply(&stage.client, "volumes.yaml", |object| {
            object["spec"]["podCleanupPolicy"] = "Never".into();
        })
        .await;
        let object = volumes.until_complete().await;
        assert_whole(&stage, &object);
        assert_eq!(newest(&object, &stage.node(1)).stdout, "8388608 bytes in /scratch/file\n");
        let pods =
            stage.api::<Pod>().list(&ListParams::default().labels("team=storage")).await.unwrap().items;
        assert_eq!(pods.len(), 3, "{:?}", pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
        for pod in pods {
            let resources = pod.spec.unwrap().containers[0].resources.clone().unwrap();
            let (requests, limits) = (resources.requests.unwrap(), resources.limits.unwrap());
            assert_eq!((requests["cpu"].0.as_str(), limits["memory"].0.as_str()), ("10m", "384Mi"));
        }
        volumes.delete().await;
    })
    .await;
}
