//! Namespaces that admit privileged runs: who makes one, and who makes pods in one, asked of the real API server.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{labels, v1alpha1::Mode};
use scriptrunner_operator::manifests::operator_user;
use scriptrunner_testcluster::{Error, namespace::in_namespace};
use serde_json::{Value, json};

use crate::{
    children,
    cluster::{acting_as, acting_as_kubelet, admin},
    people::{
        Answer::{No, Yes},
        ask, dry_create, dry_patch, people,
    },
};

/// Admits privileged pods in a namespace that there is already.
async fn admit(client: &Client, namespace: &str) {
    let label =
        Patch::Merge(json!({"metadata": {"labels": {labels::PRIVILEGED: labels::PRIVILEGED_ALLOWED}}}));
    Api::<Namespace>::all(client.clone()).patch(namespace, &PatchParams::default(), &label).await.unwrap();
}

#[tokio::test]
async fn only_the_operator_makes_pods_where_privileged_ones_are_admitted() {
    let client = admin().await;
    in_namespace(&client, "privileged-pods", &[], async |namespace| {
        people(&client, &namespace).await;
        let subject = children::owner(&client, &namespace, "owner").await;
        let pod: Pod = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"schedulingGates": [{"name": "testcluster/never"}], "containers": [{"name": "c", "image": "none.invalid/x"}]}}))
        .unwrap();
        Api::<Pod>::namespaced(client.clone(), &namespace).create(&PostParams::default(), &pod).await.unwrap();
        admit(&client, &namespace).await;
        let refused = No("denied request: scriptrunner-privileged-namespace: in a namespace labelled");
        let owner = format!("owner@{namespace}");
        let runner: Pod =
            serde_json::from_value(children::pod("srp-1", Mode::Privileged, &subject)).unwrap();
        let mut another = pod.clone();
        another.metadata.name = Some("q".into());
        for (who, pod, expected) in [
            (owner.as_str(), &another, refused),
            ("system:serviceaccount:kube-system:job-controller", &another, refused),
            (operator_user().as_str(), &runner, Yes),
        ] {
            let api: Api<Pod> = Api::namespaced(acting_as(who, &[]).await, &namespace);
            ask(&format!("{who} creates a pod"), expected, async || api.create(&dry_create(), pod).await.map(drop)).await;
        }
        let api: Api<Pod> = Api::namespaced(acting_as(&owner, &[]).await, &namespace);
        let image = Patch::Strategic(json!({"spec": {"containers": [{"name": "c", "image": "other.invalid/x"}]}}));
        ask("the owner sets an image", refused, async || api.patch("p", &dry_patch(), &image).await.map(drop)).await;
        let container = Patch::Strategic(json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "x"}]}}));
        ask("the owner adds an ephemeral container", refused, async || {
            api.patch_subresource("ephemeralcontainers", "p", &dry_patch(), &container).await.map(drop)
        })
        .await;
        let label = Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}));
        ask("the owner labels a pod", Yes, async || api.patch("p", &dry_patch(), &label).await.map(drop)).await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_label_of_a_namespace_is_not_for_its_owner() {
    let client = admin().await;
    in_namespace(&client, "namespace-label", &[], async |namespace| {
        people(&client, &namespace).await;
        let refused = No("scriptrunner-namespace-label: label scriptrunner.io/privileged needs verb use");
        let api: Api<Namespace> = Api::all(acting_as(&format!("owner@{namespace}"), &[]).await);
        let labelled = |key: &str, value: &str| Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        for (key, value, expected) in [
            ("scriptrunner.io/privileged", "allowed", refused),
            ("scriptrunner.io/privileged", "other", refused),
            ("unrelated", "x", Yes),
        ] {
            let patch = labelled(key, value);
            ask(&format!("the owner labels {key}={value}"), expected, async || {
                api.patch(&namespace, &dry_patch(), &patch).await.map(drop)
            })
            .await;
        }
        let patch = labelled("scriptrunner.io/privileged", "allowed");
        ask("the owner labels through the status", refused, async || {
            api.patch_status(&namespace, &dry_patch(), &patch).await.map(drop)
        })
        .await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_label_needs_the_right_to_mode_privileged_there() {
    let client = admin().await;
    let labels = [("scriptrunner.io/privileged", "allowed")];
    in_namespace(&client, "label-holder", &labels, async |namespace| {
        people(&client, &namespace).await;
        let refused = No("scriptrunner-namespace-label: label scriptrunner.io/privileged needs verb use");
        let label = |value: Value| {
            Patch::Merge(json!({"metadata": {"labels": {"scriptrunner.io/privileged": value}}}))
        };
        for (who, value, expected) in [
            ("owner", Value::Null, refused),
            ("owner", json!(""), refused),
            ("owner", json!("allowed"), Yes),
            ("keeper", Value::Null, Yes),
            ("keeper", json!("no"), Yes),
        ] {
            let api: Api<Namespace> = Api::all(acting_as(&format!("{who}@{namespace}"), &[]).await);
            let patch = label(value.clone());
            ask(&format!("{who} sets the label to {value}"), expected, async || {
                api.patch(&namespace, &dry_patch(), &patch).await.map(drop)
            })
            .await;
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_namespace_is_not_born_with_the_label() {
    let client = admin().await;
    in_namespace(&client, "founder", &[], async |namespace| {
        people(&client, &namespace).await;
        let api: Api<Namespace> = Api::all(acting_as(&format!("founder@{namespace}"), &[]).await);
        let refused = No("scriptrunner-namespace-label: label scriptrunner.io/privileged needs verb use");
        for (labels, expected) in [
            (json!({}), Yes),
            (json!({"scriptrunner.io/privileged": ""}), Yes),
            (json!({"scriptrunner.io/privileged": "allowed"}), refused),
        ] {
            let made: Namespace =
                serde_json::from_value(json!({"metadata": {"generateName": "founded-", "labels": labels}}))
                    .unwrap();
            ask(&format!("making a namespace with {labels}"), expected, async || {
                api.create(&dry_create(), &made).await.map(drop)
            })
            .await;
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_editor_runs_no_privileged_pod_where_privileged_ones_are_admitted() {
    let client = admin().await;
    let labels =
        [("scriptrunner.io/privileged", "allowed"), ("pod-security.kubernetes.io/enforce", "privileged")];
    in_namespace(&client, "kubectl-run", &labels, async |namespace| {
        people(&client, &namespace).await;
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"run": "p"}},
            "spec": {"containers": [{"name": "p", "image": "x", "securityContext": {"privileged": true}}]}}))
        .unwrap();
        let refused = No("scriptrunner-privileged-namespace: in a namespace labelled");
        for who in ["editor", "owner", "keeper"] {
            let api: Api<Pod> = Api::namespaced(acting_as(&format!("{who}@{namespace}"), &[]).await, &namespace);
            ask(&format!("{who} runs a privileged pod"), refused, async || {
                api.create(&dry_create(), &pod).await.map(drop)
            })
            .await;
        }
        // A kubelet tells of its static pods by mirror pods.
        let node = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.unwrap().items.remove(0);
        let name = node.name_any();
        let mirror: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("static-{name}"), "annotations": {"kubernetes.io/config.mirror": "0"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid(), "controller": true}]},
            "spec": {"nodeName": name, "containers": [{"name": "p", "image": "x"}]}}))
        .unwrap();
        let kubelet = acting_as_kubelet(&name).await;
        let api: Api<Pod> = Api::namespaced(kubelet, &namespace);
        ask("a kubelet makes a mirror pod", Yes, async || api.create(&dry_create(), &mirror).await.map(drop)).await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
