//! What `up` asks of the API server: whether it is ready, the objects of the name server, whether the nodes are ready.

use std::{fmt::Debug, path::Path, time::Duration};

use futures::future::try_join_all;
use k8s_openapi::{
    api::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    slot::Slot,
    wait,
};

/// A client for a kubeconfig. A proxy named in the environment is not used: the cluster is on this machine.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    client_with(kubeconfig, |_| {}).await
}

/// The same, with a configuration that `change` has changed.
pub(crate) async fn client_with(kubeconfig: &Path, change: impl FnOnce(&mut Config)) -> Result<Client> {
    let unusable = |reason: String| Error::Kubeconfig { path: kubeconfig.to_owned(), reason };
    let parsed = Kubeconfig::read_from(kubeconfig).map_err(|error| unusable(error.to_string()))?;
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .map_err(|error| unusable(error.to_string()))?;
    config.proxy_url = None;
    config.connect_timeout = Some(Duration::from_secs(5));
    change(&mut config);
    Client::try_from(config).map_err(|error| unusable(error.to_string()))
}

/// Whether the API server says it is ready; its answer otherwise.
pub(crate) async fn readiness(client: &Client) -> Result<(), String> {
    let request = http_get("/readyz").map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(Duration::from_secs(10), client.request_text(request)).await;
    match answer {
        Ok(Ok(text)) if text == "ok" => Ok(()),
        Ok(Ok(text)) => Err(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 10 s".into()),
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| Error::Encode { what: "a request".into(), reason: error.to_string() })
}

/// Makes the objects that lead pods to the name server on the bridge.
pub(crate) async fn apply_dns(client: &Client, slot: Slot) -> Result<()> {
    let metadata = |name: &str| json!({"name": name, "labels": {"k8s-app": "kube-dns"}});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata("system:coredns"),
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "endpoints"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata("system:coredns"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("kube-dns"),
        "spec": {"clusterIP": slot.dns_service(), "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "labels": {
            "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "testcluster",
        }},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [slot.gateway()], "conditions": {"ready": true}}],
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    });
    let system = "kube-system";
    apply(&Api::<ClusterRole>::all(client.clone()), "system:coredns", &role).await?;
    apply(&Api::<ClusterRoleBinding>::all(client.clone()), "system:coredns", &binding).await?;
    apply(&Api::<Service>::namespaced(client.clone(), system), "kube-dns", &service).await?;
    apply(&Api::<EndpointSlice>::namespaced(client.clone(), system), "kube-dns", &slice).await
}

async fn apply<K>(api: &Api<K>, name: &str, object: &Value) -> Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = PatchParams::apply("testcluster").force();
    // The namespace kube-system appears a moment after the server is ready.
    wait::until(&format!("object {name:?} to be applied"), Duration::from_mins(1), async |_| {
        api.patch(name, &params, &Patch::Apply(object)).await.map(Some)
    })
    .await
    .map(drop)
}

/// Waits until all nodes are ready, each by its own word since it was started: (name, start).
///
/// A node that has just been started anew is still called ready, until its kubelet or the grace period says otherwise.
pub(crate) async fn await_nodes(client: &Client, nodes: &[(String, Timestamp)]) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    wait::until("the nodes to be ready", Duration::from_mins(5), async |seen| {
        let found = try_join_all(nodes.iter().map(|(name, _)| api.get_opt(name))).await?;
        let mut states = Vec::new();
        for ((name, start), node) in nodes.iter().zip(&found) {
            let state = match heartbeat(node.as_ref()) {
                Some(time) if time < *start => format!("no news since {time}"),
                _ => node_state(node.as_ref()),
            };
            states.push((name, state));
        }
        seen.note(format!("{states:?}"));
        Ok::<_, kube::Error>(states.iter().all(|(_, state)| state == "ready").then_some(()))
    })
    .await
}

fn heartbeat(node: Option<&Node>) -> Option<Timestamp> {
    let conditions = node?.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(ready.last_heartbeat_time.as_ref()?.0)
}

/// A node as Kubernetes sees it: `ready`, or what keeps it from that.
pub(crate) fn node_state(node: Option<&Node>) -> String {
    let Some(node) = node else { return "not registered".into() };
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    let taints: Vec<&str> = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
        .filter(|taint| taint.key.starts_with("node.kubernetes.io/"))
        .map(|taint| taint.key.as_str())
        .collect();
    match ready {
        Some(condition) if condition.status == "True" && taints.is_empty() => "ready".into(),
        Some(condition) if condition.status == "True" => format!("ready, but tainted {taints:?}"),
        Some(condition) => {
            format!("not ready: {}", condition.message.as_deref().unwrap_or("no reason given"))
        }
        None => "no news yet".into(),
    }
}

/// The nodes as Kubernetes sees them: (name, state).
pub(crate) async fn node_states(client: &Client) -> Result<Vec<(String, String)>> {
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .map_err(Error::api("list the nodes"))?;
    Ok(nodes
        .items
        .iter()
        .map(|node| (node.metadata.name.clone().unwrap_or_default(), node_state(Some(node))))
        .collect())
}

/// Makes Kubernetes forget a node; that it does not know it is fine.
pub(crate) async fn delete_node(client: &Client, name: &str) -> Result<()> {
    match Api::<Node>::all(client.clone()).delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        answer => answer.map(drop).map_err(Error::api(format!("delete node {name:?}"))),
    }
}
