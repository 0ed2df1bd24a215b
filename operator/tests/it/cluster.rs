//! The cluster of the tests, and clients of it that act as somebody.

use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use scriptrunner_operator::{
    manifests::{NAMESPACE, files, operator_user},
    rbac::CRD_NAME,
};
use scriptrunner_testcluster::{Cluster, wait};
use serde_json::{Value, json};

/// The cluster of the tests.
pub(crate) fn cluster() -> Cluster {
    let name = std::env::var("SCRIPTRUNNER_TEST_CLUSTER").unwrap_or_else(|_| "test".to_owned());
    Cluster::existing(&name).unwrap_or_else(|error| panic!("{error}; or run ./test.sh it"))
}

/// A client that may do everything.
pub(crate) async fn admin() -> Client {
    cluster().client().await.unwrap()
}

/// A client that acts as `user`, in `groups` besides that of all users.
pub(crate) async fn acting_as(user: &str, groups: &[&str]) -> Client {
    cluster().acting_as(user, groups).await.unwrap()
}

/// A client with the rights of the operator's account.
pub(crate) async fn acting_as_operator() -> Client {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{NAMESPACE}")];
    acting_as(&operator_user(), &groups).await
}

/// A client with the rights of a node's kubelet.
pub(crate) async fn acting_as_kubelet(node: &str) -> Client {
    acting_as(&format!("system:node:{node}"), &["system:nodes"]).await
}

/// A client that acts as `user` and calls itself `agent`, which the audit log repeats.
pub(crate) async fn acting_as_agent(user: &str, agent: &str) -> Client {
    let mut config = config().await;
    config.auth_info.impersonate = Some(user.to_owned());
    config.headers.push((header::USER_AGENT, HeaderValue::from_str(agent).unwrap()));
    Client::try_from(config).unwrap()
}

async fn config() -> Config {
    let kubeconfig = Kubeconfig::read_from(cluster().kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.proxy_url = None;
    config
}

/// Makes cluster-wide or namespaced RBAC objects that go away together with `namespace`.
pub(crate) async fn grant(client: &Client, namespace: &str, objects: Vec<Value>) {
    let owner = Api::<Namespace>::all(client.clone()).get(namespace).await.unwrap();
    for mut object in objects {
        object["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
        object["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": owner.metadata.uid}]);
        let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
        let scope = object["metadata"]["namespace"]
            .as_str()
            .map_or_else(String::new, |it| format!("namespaces/{it}/"));
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{scope}{plural}");
        send(client, Method::POST, &path, "application/json", &object).await.unwrap();
    }
}

/// Sends one request as it stands, and gives the API server's answer.
pub(crate) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: &Value,
) -> kube::Result<Value> {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let request =
        Request::builder().method(method).uri(path).header("content-type", content_type).body(body).unwrap();
    client.request(request).await
}

/// What the API server says in an error answer; none for anything else.
pub(crate) fn refusal<T>(answer: &kube::Result<T>) -> Option<(u16, &str, &str)> {
    match answer {
        Err(kube::Error::Api(status)) => Some((status.code, status.reason.as_str(), status.message.as_str())),
        Ok(_) | Err(_) => None,
    }
}

/// The project's definition under a group of its own, which no operator watches and no policy names: installed anew, so
/// that the API server judges all of it. It goes away together with the namespace `namespace`, which names its group.
pub(crate) async fn install_copy(client: &Client, namespace: &str) -> ApiResource {
    let owner = Api::<Namespace>::all(client.clone()).get(namespace).await.unwrap();
    let mut copy = definition();
    let group = format!("{namespace}.test");
    copy["metadata"]["name"] = format!("scriptrunners.{group}").into();
    copy["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": owner.metadata.uid}]);
    copy["spec"]["group"] = group.clone().into();
    // `kubectl get sr` and `kubectl get all` stay those of the original.
    copy["spec"]["names"]["shortNames"] = json!([]);
    copy["spec"]["names"]["categories"] = json!([]);
    apply(client, &copy).await;
    let resource = ApiResource {
        api_version: format!("{group}/v1alpha1"),
        kind: "ScriptRunner".to_owned(),
        plural: "scriptrunners".to_owned(),
        version: "v1alpha1".to_owned(),
        group,
    };
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    wait::until("the copied definition to be served", Duration::from_secs(30), async |seen| {
        let answer = objects.list(&ListParams::default()).await;
        seen.note(format!("{:?}", refusal(&answer)));
        Ok::<_, kube::Error>(answer.ok().map(drop))
    })
    .await
    .unwrap();
    resource
}

/// The definition as `crds/` has it.
pub(crate) fn definition() -> Value {
    let path = format!("crds/{CRD_NAME}.yaml");
    let file = files().into_iter().find(|file| file.path.ends_with(&path)).unwrap();
    serde_saphyr::from_str(&file.contents).unwrap()
}

/// Applies a definition on the server's side and waits until it is established.
pub(crate) async fn apply(client: &Client, definition: &Value) -> CustomResourceDefinition {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = definition["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("scriptrunner-it").force().validation_strict();
    definitions.patch(name, &params, &Patch::Apply(definition)).await.unwrap();
    wait::until("an established definition", Duration::from_secs(30), async |seen| {
        let found = definitions.get(name).await?;
        let conditions = found.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        seen.note(format!("{conditions:?}"));
        let established =
            conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True");
        Ok::<_, kube::Error>(established.then_some(found))
    })
    .await
    .unwrap()
}
