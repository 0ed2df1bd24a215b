//! The people of the policies' tests, with their rights, and how the API server is asked what they may do.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use scriptrunner_operator::manifests::operator_user;
use scriptrunner_testcluster::wait;
use serde_json::{Value, json};

use crate::cluster::{acting_as, grant};

/// How long rights and policies may take to be known.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// What the API server should say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Yes,
    /// Forbidden, with this text.
    No(&'static str),
}

impl Answer {
    /// Whether it is what the API server says.
    pub(crate) fn is<T>(self, answer: &kube::Result<T>) -> bool {
        match (answer, self) {
            (Ok(_), Self::Yes) => true,
            (Err(kube::Error::Api(status)), Self::No(text)) => {
                status.code == 403 && status.reason == "Forbidden" && status.message.contains(text)
            }
            (Ok(_) | Err(_), Self::Yes | Self::No(_)) => false,
        }
    }
}

/// Asks until the answer is the expected one: rights and policies take a moment to be known. Only dry runs, so that no
/// wrong answer leaves anything behind.
pub(crate) async fn ask(what: &str, expected: Answer, request: impl AsyncFn() -> kube::Result<()>) {
    let wish = format!("{what}: {expected:?}");
    let met = wait::until(&wish, PATIENCE, async |seen| {
        let answer = request().await;
        seen.note(format!("{answer:?}"));
        Ok::<_, kube::Error>(expected.is(&answer).then_some(()))
    });
    met.await.unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) fn dry_create() -> PostParams {
    PostParams { dry_run: true, ..Default::default() }
}

pub(crate) fn dry_patch() -> PatchParams {
    PatchParams { dry_run: true, ..Default::default() }
}

pub(crate) fn script_runner(name: &str, mode: &str, env: &Value) -> ScriptRunner {
    let spec = json!({"script": "true", "nodeNames": ["nobody"], "mode": mode, "env": env,
        "parallelism": 1, "executionDeadlineSeconds": 5});
    let metadata = json!({"name": name});
    serde_json::from_value(
        json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "metadata": metadata, "spec": spec}),
    )
    .unwrap()
}

/// People of one namespace: `author` may write ScriptRunners, `clerk` has the stock role `edit`, `editor` both, `owner` may
/// do everything in it, `holder` is an author who may use mode Privileged everywhere, `neighbour` one who may use
/// PrivilegedWithHostFS in this namespace, `keeper` an owner who may use Privileged in it, `pilot` an author who may use
/// control-plane nodes. `founder` makes namespaces.
pub(crate) async fn people(client: &Client, namespace: &str) {
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
            "subjects": [user("author"), user("editor"), user("holder"), user("neighbour"), user("pilot")]}),
        json!({"kind": "RoleBinding", "metadata": in_here("editor"), "roleRef": role("ClusterRole", "edit"),
            "subjects": [user("clerk"), user("editor")]}),
        json!({"kind": "RoleBinding", "metadata": in_here("owner"), "roleRef": role("ClusterRole", "cluster-admin"),
            "subjects": [user("owner"), user("keeper"), {"kind": "User", "name": operator_user()}]}),
        modes("holder", "privileged"),
        bound("holder"),
        modes("neighbour", &format!("{namespace}:privilegedwithhostfs")),
        bound("neighbour"),
        modes("keeper", &format!("{namespace}:privileged")),
        bound("keeper"),
        json!({"kind": "ClusterRole", "metadata": {"name": format!("pilot-{namespace}")},
            "rules": [{"apiGroups": ["access.scriptrunner.io"], "resources": ["nodeclasses"], "resourceNames": ["control-plane"], "verbs": ["use"]}]}),
        bound("pilot"),
        json!({"kind": "ClusterRole", "metadata": {"name": format!("founder-{namespace}")},
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"]}]}),
        bound("founder"),
    ];
    grant(client, namespace, objects).await;
}

pub(crate) async fn may_create(who: &str, namespace: &str, mode: &str, env: Value, expected: Answer) {
    let user = if who.contains(':') { who.to_owned() } else { format!("{who}@{namespace}") };
    let api: Api<ScriptRunner> = Api::namespaced(acting_as(&user, &[]).await, namespace);
    let object = script_runner("new", mode, &env);
    ask(&format!("{who} creates {mode} {env}"), expected, async || {
        api.create(&dry_create(), &object).await.map(drop)
    })
    .await;
}

pub(crate) async fn may_patch(who: &str, namespace: &str, name: &str, patch: Value, expected: Answer) {
    let api: Api<ScriptRunner> =
        Api::namespaced(acting_as(&format!("{who}@{namespace}"), &[]).await, namespace);
    ask(&format!("{who} patches {name} with {patch}"), expected, async || {
        api.patch(name, &dry_patch(), &Patch::Merge(&patch)).await.map(drop)
    })
    .await;
}
