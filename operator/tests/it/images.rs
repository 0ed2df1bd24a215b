//! An operator that allows some images, on the real API server.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use scriptrunner_api::{
    condition::{ConditionType, find},
    labels,
    v1alpha1::ScriptRunner,
};
use scriptrunner_core::validate::AllowedImages;
use scriptrunner_operator::{
    manifests::{NAMESPACE, operator_user},
    scope::Scope,
};
use scriptrunner_testcluster::{Error, namespace::in_namespace};
use serde_json::json;

use crate::{
    cluster::{acting_as_agent, admin, cluster},
    flow::{LONG, await_children, await_object, script_runner, start_operator_with},
    turn::{only_operator, policies_are_proven},
};

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// What is said of an object that is not accepted for its image.
fn refusal(object: &ScriptRunner) -> Option<&str> {
    let conditions = &object.status.as_ref()?.conditions;
    let accepted = find(conditions, ConditionType::Accepted)?;
    (accepted.status == "False" && accepted.reason == "ImageNotAllowed").then_some(&accepted.message)
}

#[tokio::test]
async fn images_outside_the_list_are_named_and_make_no_pod() {
    let client = admin().await;
    let _alone = only_operator(&client).await;
    policies_are_proven(NAMESPACE).await;
    let node = cluster().node_names().remove(0);
    in_namespace(&client, "images", &[], async |namespace| {
        let label = Patch::Merge(json!({"metadata": {"labels": {
            labels::PRIVILEGED: labels::PRIVILEGED_ALLOWED, "pod-security.kubernetes.io/enforce": "privileged"}}}));
        Api::<Namespace>::all(client.clone()).patch(&namespace, &PatchParams::default(), &label).await.unwrap();
        let agent = format!("scriptrunner-it/{namespace}");
        let operator = acting_as_agent(&operator_user(), &agent).await;
        let (stop, operator) = start_operator_with(operator, |config| {
            config.scope = Scope::of([namespace.as_str()], "own").unwrap();
            config.pods.allowed_images = AllowedImages::of(["allowed.invalid/team/"]).unwrap();
        })
        .await;
        let api: Api<ScriptRunner> = Api::namespaced(client.clone(), &namespace);
        let image = format!("allowed.invalid/other/x@{DIGEST}");
        let spec = json!({"script": "x", "nodeNames": [node], "image": image});
        api.create(&PostParams::default(), &script_runner(&spec)).await.unwrap();
        for mode in ["Normal", "Privileged", "PrivilegedWithHostFS"] {
            let edit = json!({"spec": {"mode": mode, "parallelism": 1, "executionDeadlineSeconds": 5}});
            let edited = api.patch("flow", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
            let object = await_object(&api, "an image that is not allowed", |object| {
                let seen = object.status.as_ref().and_then(|status| status.observed_generation);
                seen == edited.metadata.generation && refusal(object).is_some()
            })
            .await;
            let message = refusal(&object).unwrap();
            assert!(message.contains(&image) && message.contains("allowed.invalid/team/*"), "{message}");
            await_children(&client, &namespace, 0, 0).await;
        }
        let allowed = format!("allowed.invalid/team/x@{DIGEST}");
        let edit = Patch::Merge(json!({"spec": {"mode": "Normal", "image": allowed}}));
        api.patch("flow", &PatchParams::default(), &edit).await.unwrap();
        let pod = await_children(&client, &namespace, 1, 1).await.remove(0).spec.unwrap();
        assert_eq!(pod.containers[0].image.as_ref(), Some(&allowed));
        assert_eq!(pod.init_containers.unwrap()[0].image.as_deref(), Some("none.invalid/runner:1"));
        stop.send_replace(true);
        tokio::time::timeout(LONG, operator).await.unwrap().unwrap();
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
