//! Who may write which spec, asked of the real API server: each line stood open once. The modes have a table of their own.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{Api, api::PostParams};
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_operator::{
    manifests::{NAMESPACE, operator_user},
    policies,
};
use scriptrunner_testcluster::{Error, namespace::in_namespace};
use serde_json::{Value, json};

use crate::{
    cluster::admin,
    people::{
        Answer::{No, Yes},
        ask, dry_create, may_create, may_patch, people, script_runner,
    },
};

#[tokio::test]
async fn installed_policies_are_the_ones_of_the_code() {
    let client = admin().await;
    for expected in policies::policies() {
        let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let found = api.get(expected.metadata.name.as_deref().unwrap()).await.unwrap();
        assert_eq!(found.spec, expected.spec);
        let warnings =
            found.status.and_then(|status| status.type_checking).and_then(|it| it.expression_warnings);
        assert_eq!(warnings, None);
    }
    for expected in policies::bindings() {
        let api: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        assert_eq!(api.get(expected.metadata.name.as_deref().unwrap()).await.unwrap().spec, expected.spec);
    }
}

#[tokio::test]
async fn secrets_and_config_maps_are_named_only_by_who_may_create_pods() {
    let client = admin().await;
    in_namespace(&client, "borrows", &[], async |namespace| {
        people(&client, &namespace).await;
        let from = |source: Value| json!([{"name": "A", "value": "x"}, {"name": "B", "valueFrom": source}]);
        let secret = from(json!({"secretKeyRef": {"name": "s", "key": "k"}}));
        let config_map = from(json!({"configMapKeyRef": {"name": "c", "key": "k"}}));
        let refused =
            No("scriptrunner-spec: Secrets and ConfigMaps may be named only by who may create pods");
        for (who, env, expected) in [
            ("author", secret.clone(), refused),
            ("author", from(json!({"fieldRef": null, "secretKeyRef": {"name": "s", "key": "k"}})), refused),
            ("holder", secret.clone(), refused),
            ("author", config_map, refused),
            ("author", from(json!({"fieldRef": {"fieldPath": "status.hostIP"}})), Yes),
            ("author", from(json!({"resourceFieldRef": {"resource": "limits.memory"}})), Yes),
            ("owner", secret.clone(), Yes),
        ] {
            may_create(who, &namespace, "Normal", env, expected).await;
        }
        let api: Api<ScriptRunner> = Api::namespaced(client.clone(), &namespace);
        api.create(&PostParams::default(), &script_runner("secret", "Normal", &secret)).await.unwrap();
        may_patch("author", &namespace, "secret", json!({"spec": {"script": "false"}}), refused).await;
        may_patch("author", &namespace, "secret", json!({"metadata": {"labels": {"x": "y"}}}), Yes).await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_operator_writes_no_spec_and_its_namespace_holds_none() {
    let client = admin().await;
    in_namespace(&client, "operator-spec", &[], async |namespace| {
        people(&client, &namespace).await;
        let refused = No("scriptrunner-spec: the operator writes no spec");
        may_create(&operator_user(), &namespace, "Normal", json!([]), refused).await;
        let api: Api<ScriptRunner> = Api::namespaced(client.clone(), NAMESPACE);
        let object = script_runner("new", "Normal", &json!([]));
        ask(
            "an administrator in the operator's namespace",
            No("no ScriptRunner in the operator's own namespace"),
            async || api.create(&dry_create(), &object).await.map(drop),
        )
        .await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
