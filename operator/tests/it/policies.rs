//! The table of who may write what, asked of the real API server: each line of it once stood open.

use std::time::Duration;

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_operator::{
    manifests::{NAMESPACE, operator_user},
    policies,
};
use scriptrunner_testcluster::{Error, namespace::in_namespace, wait};
use serde_json::{Value, json};

use crate::cluster::{acting_as, admin, grant};

/// What the API server should say.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Yes,
    /// Forbidden, with this text.
    No(&'static str),
}
use Answer::{No, Yes};

/// Asks until the answer is the expected one: rights and policies take a moment to be known. Only dry runs, so that no
/// wrong answer leaves anything behind.
async fn ask(what: &str, expected: Answer, request: impl AsyncFn() -> kube::Result<()>) {
    let wish = format!("{what}: {expected:?}");
    let met = wait::until(&wish, Duration::from_secs(15), async |seen| {
        let answer = request().await;
        seen.note(format!("{answer:?}"));
        let met = match (&answer, expected) {
            (Ok(()), Yes) => true,
            (Err(kube::Error::Api(status)), No(text)) => status.code == 403 && status.message.contains(text),
            (Ok(()) | Err(_), Yes | No(_)) => false,
        };
        Ok::<_, kube::Error>(met.then_some(()))
    });
    met.await.unwrap_or_else(|error| panic!("{error}"));
}

fn dry_create() -> PostParams {
    PostParams { dry_run: true, ..Default::default() }
}

fn dry_patch() -> PatchParams {
    PatchParams { dry_run: true, ..Default::default() }
}

fn script_runner(name: &str, mode: &str, env: &Value) -> ScriptRunner {
    let mut spec = json!({"script": "true", "nodeNames": ["nobody"], "mode": mode, "env": env});
    if mode != "Normal" {
        spec["parallelism"] = 1.into();
        spec["executionDeadlineSeconds"] = 5.into();
    }
    let metadata = json!({"name": name});
    serde_json::from_value(
        json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "metadata": metadata, "spec": spec}),
    )
    .unwrap()
}

/// People of one namespace: `author` may write ScriptRunners, `owner` may do everything in it, `holder` is an author who may
/// use mode Privileged everywhere, `neighbour` one who may use PrivilegedWithHostFS in this namespace.
async fn people(client: &Client, namespace: &str) {
    let user = |name: &str| json!({"kind": "User", "name": format!("{name}@{namespace}")});
    let role =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let modes = |name: &str, mode: &str| {
        json!({"kind": "ClusterRole", "metadata": {"name": format!("{name}-{namespace}")},
            "rules": [{"apiGroups": ["access.scriptrunner.io"], "resources": ["executionmodes"], "resourceNames": [mode], "verbs": ["use"]}]})
    };
    let bound = |name: &str| {
        let name_here = format!("{name}-{namespace}");
        json!({"kind": "ClusterRoleBinding", "metadata": {"name": name_here}, "roleRef": role("ClusterRole", &name_here), "subjects": [user(name)]})
    };
    let in_here = |name: &str| json!({"name": name, "namespace": namespace});
    let objects = vec![
        json!({"kind": "Role", "metadata": in_here("author"),
            "rules": [{"apiGroups": ["scriptrunner.io"], "resources": ["scriptrunners"], "verbs": ["*"]}]}),
        json!({"kind": "RoleBinding", "metadata": in_here("author"), "roleRef": role("Role", "author"),
            "subjects": [user("author"), user("holder"), user("neighbour")]}),
        json!({"kind": "RoleBinding", "metadata": in_here("owner"), "roleRef": role("ClusterRole", "cluster-admin"),
            "subjects": [user("owner"), {"kind": "User", "name": operator_user()}]}),
        modes("holder", "privileged"),
        bound("holder"),
        modes("neighbour", &format!("{namespace}:privilegedwithhostfs")),
        bound("neighbour"),
    ];
    grant(client, namespace, objects).await;
}

async fn may_create(who: &str, namespace: &str, mode: &str, env: Value, expected: Answer) {
    let user = if who.contains(':') { who.to_owned() } else { format!("{who}@{namespace}") };
    let api: Api<ScriptRunner> = Api::namespaced(acting_as(&user, &[]).await, namespace);
    let object = script_runner("new", mode, &env);
    ask(&format!("{who} creates {mode} {env}"), expected, async || {
        api.create(&dry_create(), &object).await.map(drop)
    })
    .await;
}

async fn may_patch(who: &str, namespace: &str, name: &str, patch: Value, expected: Answer) {
    let api: Api<ScriptRunner> =
        Api::namespaced(acting_as(&format!("{who}@{namespace}"), &[]).await, namespace);
    ask(&format!("{who} patches {name} with {patch}"), expected, async || {
        api.patch(name, &dry_patch(), &Patch::Merge(&patch)).await.map(drop)
    })
    .await;
}

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
async fn a_privileged_mode_needs_the_right_to_it() {
    let client = admin().await;
    in_namespace(&client, "privileged-mode", &[], async |namespace| {
        people(&client, &namespace).await;
        let none = json!([]);
        let privileged = No("scriptrunner-spec: mode Privileged needs verb use on executionmodes");
        let host = No("scriptrunner-spec: mode PrivilegedWithHostFS needs verb use on executionmodes");
        for (who, mode, expected) in [
            ("author", "Normal", Yes),
            ("author", "Privileged", privileged),
            ("author", "PrivilegedWithHostFS", host),
            ("owner", "Normal", Yes),
            ("owner", "Privileged", privileged),
            ("holder", "Privileged", Yes),
            ("holder", "PrivilegedWithHostFS", host),
            ("neighbour", "PrivilegedWithHostFS", Yes),
            ("neighbour", "Privileged", privileged),
        ] {
            may_create(who, &namespace, mode, none.clone(), expected).await;
        }
        let api: Api<ScriptRunner> = Api::namespaced(client.clone(), &namespace);
        api.create(&PostParams::default(), &script_runner("normal", "Normal", &none)).await.unwrap();
        api.create(&PostParams::default(), &script_runner("privileged", "Privileged", &none)).await.unwrap();
        let leaving = No("scriptrunner-spec: leaving mode Privileged needs verb use on executionmodes");
        let to_privileged =
            json!({"spec": {"mode": "Privileged", "parallelism": 1, "executionDeadlineSeconds": 5}});
        for (who, name, patch, expected) in [
            ("author", "normal", to_privileged.clone(), privileged),
            ("holder", "normal", to_privileged, Yes),
            ("author", "privileged", json!({"spec": {"script": "false"}}), privileged),
            ("author", "privileged", json!({"spec": {"mode": "Normal"}}), leaving),
            ("author", "privileged", json!({"spec": {"mode": null}}), leaving),
            ("neighbour", "privileged", json!({"spec": {"mode": "PrivilegedWithHostFS"}}), leaving),
            ("author", "privileged", json!({"metadata": {"labels": {"x": "y"}}}), Yes),
            ("holder", "privileged", json!({"spec": {"mode": "Normal"}}), Yes),
        ] {
            may_patch(who, &namespace, name, patch, expected).await;
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
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

#[tokio::test]
async fn only_the_operator_makes_pods_where_privileged_ones_are_admitted() {
    let client = admin().await;
    let labels = [("scriptrunner.io/privileged", "allowed")];
    in_namespace(&client, "privileged-pods", &labels, async |namespace| {
        people(&client, &namespace).await;
        let refused = No("scriptrunner-privileged-namespace: in a namespace labelled");
        let owner = format!("owner@{namespace}");
        let pod: Pod = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"schedulingGates": [{"name": "testcluster/never"}], "containers": [{"name": "c", "image": "none.invalid/x"}]}}))
        .unwrap();
        let operator = operator_user();
        for (who, expected) in [
            (owner.as_str(), refused),
            ("system:serviceaccount:kube-system:job-controller", refused),
            (operator.as_str(), Yes),
        ] {
            let api: Api<Pod> = Api::namespaced(acting_as(who, &[]).await, &namespace);
            ask(&format!("{who} creates a pod"), expected, async || api.create(&dry_create(), &pod).await.map(drop)).await;
        }
        let made: Api<Pod> = Api::namespaced(acting_as(&operator, &[]).await, &namespace);
        made.create(&PostParams::default(), &pod).await.unwrap();
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
