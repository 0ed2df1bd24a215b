//! The cluster of the tests, and clients of it that act as somebody.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use scriptrunner_testcluster::Cluster;
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
    let kubeconfig = Kubeconfig::read_from(cluster().kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.proxy_url = None;
    config.auth_info.impersonate = Some(user.to_owned());
    let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
    config.auth_info.impersonate_groups = Some(groups);
    Client::try_from(config).unwrap()
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
        let request = http::Request::post(format!("/apis/rbac.authorization.k8s.io/v1/{scope}{plural}"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&object).unwrap())
            .unwrap();
        client.request::<Value>(request).await.unwrap();
    }
}
