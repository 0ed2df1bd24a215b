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
use scriptrunner_testcluster::{Error, bindings, namespace::in_namespace};
use serde_json::{Value, json};

use crate::{
    cluster::{acting_as, admin},
    people::{
        Answer::{No, Yes},
        ask, dry_create, may_create, may_patch, people, script_runner,
    },
};

#[tokio::test]
async fn installed_policies_are_the_ones_of_the_code() {
    let _whole = bindings::whole().await;
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
            No("scriptrunner-spec: Secrets, ConfigMaps, claims and pull secrets may be named only by who may create pods");
        let undressed = No(
            "scriptrunner-spec: labels, annotations, priorityClassName and runtimeClassName of podTemplate may be set only by who may create pods",
        );
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
        api.create(&PostParams::default(), &script_runner("plain", "Normal", &json!([]))).await.unwrap();
        let volume = |kind: Value| {
            let mut volume = json!({"name": "v"});
            volume.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
            json!({"podTemplate": {"volumes": [volume]}})
        };
        let claim = json!({"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}});
        for (part, author) in [
            (json!({"envFrom": [{"secretRef": {"name": "s"}}]}), refused),
            (json!({"script": null, "scriptFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}), refused),
            (json!({"dependencies": {"trustedCA": {"configMapKeyRef": {"name": "c", "key": "k"}}}}), refused),
            (json!({"imagePullSecrets": [{"name": "s"}]}), refused),
            (volume(json!({"configMap": {"name": "c"}})), refused),
            (volume(json!({"secret": {"secretName": "s"}})), refused),
            (volume(json!({"persistentVolumeClaim": {"claimName": "c"}})), refused),
            (json!({"podTemplate": {"labels": {"app": "other"}}}), undressed),
            (json!({"podTemplate": {"annotations": {"example.org/a": "b"}}}), undressed),
            (json!({"podTemplate": {"priorityClassName": "high"}}), undressed),
            (json!({"podTemplate": {"runtimeClassName": "other"}}), undressed),
            (json!({"podTemplate": {"labels": {}, "annotations": {}}}), Yes),
            (volume(json!({"emptyDir": {}})), Yes),
            (volume(json!({"ephemeral": claim})), Yes),
        ] {
            may_patch("author", &namespace, "plain", json!({"spec": part}), author).await;
            may_patch("owner", &namespace, "plain", json!({"spec": part}), Yes).await;
        }
        api.create(&PostParams::default(), &script_runner("secret", "Normal", &secret)).await.unwrap();
        may_patch("author", &namespace, "secret", json!({"spec": {"script": "false"}}), refused).await;
        may_patch("author", &namespace, "secret", json!({"metadata": {"labels": {"x": "y"}}}), Yes).await;
        // What is there already is edited only by who may write it, and everybody may take it away.
        let mut dressed = script_runner("dressed", "Normal", &json!([]));
        dressed.spec.pod_template =
            serde_json::from_value(json!({"labels": {"app": "other"}, "priorityClassName": "high"})).unwrap();
        api.create(&PostParams::default(), &dressed).await.unwrap();
        may_patch("author", &namespace, "dressed", json!({"spec": {"script": "false"}}), undressed).await;
        let less = json!({"spec": {"podTemplate": {"priorityClassName": null}}});
        may_patch("author", &namespace, "dressed", less, undressed).await;
        may_patch("author", &namespace, "dressed", json!({"spec": {"podTemplate": null}}), Yes).await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn control_plane_nodes_are_tolerated_only_by_who_may_use_them() {
    let client = admin().await;
    in_namespace(&client, "control-plane", &[], async |namespace| {
        people(&client, &namespace).await;
        let refused = No(
            "scriptrunner-spec: a toleration of node-role.kubernetes.io/control-plane, as one without a key is, needs verb use on nodeclasses.access.scriptrunner.io/control-plane",
        );
        let key = "node-role.kubernetes.io/control-plane";
        let tolerating = |toleration: Value| {
            let mut object = script_runner("new", "Normal", &json!([]));
            let other = json!({"key": "gpu", "operator": "Exists"});
            object.spec.tolerations = serde_json::from_value(json!([other, toleration])).unwrap();
            object
        };
        let in_name = |who: &str| format!("{who}@{namespace}");
        // Everything in a namespace, wildcards included, gives no right to a class of nodes.
        for (who, toleration, expected) in [
            ("author", json!({"operator": "Exists"}), refused),
            ("owner", json!({"operator": "Exists", "effect": "NoExecute"}), refused),
            ("owner", json!({"key": key, "operator": "Exists"}), refused),
            ("holder", json!({"key": key, "effect": "NoSchedule"}), refused),
            ("pilot", json!({"key": key, "operator": "Exists"}), Yes),
            ("pilot", json!({"operator": "Exists"}), Yes),
            ("author", json!({"key": "other", "operator": "Exists"}), Yes),
        ] {
            let api: Api<ScriptRunner> =
                Api::namespaced(acting_as(&in_name(who), &[]).await, &namespace);
            let object = tolerating(toleration.clone());
            ask(&format!("{who} tolerates {toleration}"), expected, async || {
                api.create(&dry_create(), &object).await.map(drop)
            })
            .await;
        }
        // What is there already is edited only by who may write it.
        let api: Api<ScriptRunner> = Api::namespaced(client.clone(), &namespace);
        let mut object = tolerating(json!({"operator": "Exists"}));
        object.metadata.name = Some("everywhere".into());
        api.create(&PostParams::default(), &object).await.unwrap();
        may_patch("author", &namespace, "everywhere", json!({"spec": {"script": "false"}}), refused).await;
        may_patch("author", &namespace, "everywhere", json!({"spec": {"tolerations": null}}), Yes).await;
        may_patch("author", &namespace, "everywhere", json!({"metadata": {"labels": {"x": "y"}}}), Yes).await;
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
