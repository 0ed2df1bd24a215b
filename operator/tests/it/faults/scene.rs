//! Where a test of faults plays: a namespace for the operator and its objects, the proxies, and what is told when it fails.

use std::{
    fs,
    net::SocketAddr,
    panic::{AssertUnwindSafe, resume_unwind},
    path::PathBuf,
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
};
use scriptrunner_api::labels;
use scriptrunner_operator::{manifests::operator_user, rbac::OWN_NAMESPACE, sessions::SECRET_NAME};
use scriptrunner_testcluster::{
    Cluster, Error,
    namespace::in_namespace,
    proxy::{ApiProxy, Call, Identity, SessionProxy},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Flags, OWN_ADDRESS, Operator, free_address};
use crate::{
    cluster::{admin, cluster, grant},
    turn::{only_operator, policies_are_proven},
};

/// How long a test waits for anything: two cores carry three nodes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Where a test plays.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    /// A client that no fault befalls.
    pub(crate) client: Client,
    /// Namespace of the operator and of its objects.
    pub(crate) namespace: String,
    /// Between the operator and the API server.
    pub(crate) api: ApiProxy,
    /// Between runners and the operator.
    pub(crate) sessions: SessionProxy,
    door: SocketAddr,
    folder: TempDir,
}

/// Runs a test in a namespace of its own, while no other test of faults runs.
pub(crate) async fn scene(test: &str, body: impl AsyncFnOnce(&Scene)) {
    let client = admin().await;
    let _turn = only_operator(&client).await;
    let labels = [
        (labels::PRIVILEGED, labels::PRIVILEGED_ALLOWED),
        ("pod-security.kubernetes.io/enforce", "privileged"),
    ];
    in_namespace(&client, test, &labels, async |namespace| {
        let scene = Scene::set(client.clone(), namespace).await;
        if let Err(panic) = AssertUnwindSafe(body(&scene)).catch_unwind().await {
            scene.tell();
            resume_unwind(panic);
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

impl Scene {
    async fn set(client: Client, namespace: String) -> Self {
        let cluster = cluster();
        give_rights(&client, &namespace).await;
        policies_are_proven(&namespace).await;
        let door = free_address(OWN_ADDRESS);
        let api = ApiProxy::start(as_operator(&cluster).await).await.unwrap();
        let sessions = SessionProxy::start(cluster.gateway().into(), door).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kubeconfig"), api.kubeconfig()).unwrap();
        Self { cluster, client, namespace, api, sessions, door, folder }
    }

    /// Objects of a kind in the namespace, seen without faults.
    pub(crate) fn objects<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What the operator of these tests is started with.
    pub(crate) fn flags(&self) -> Flags {
        let flags = Flags {
            name: "first".to_owned(),
            session_address: self.sessions.address(),
            session_listen: self.door,
            namespace: self.namespace.clone(),
            more: Vec::new(),
        };
        // The shortest of everything that a fault is waited out with.
        flags
            .with("lease-seconds", 15)
            .with("request-timeout-seconds", 5)
            .with("state-interval-seconds", 2)
            .with("refusal-retry-seconds", 2)
            .with("longest-backoff-seconds", 4)
    }

    /// Starts the operator with the usual flags, and waits until it is ready.
    pub(crate) async fn start(&self) -> Operator {
        self.start_with(&self.flags()).await
    }

    /// Starts an operator, and waits until it is ready.
    pub(crate) async fn start_with(&self, flags: &Flags) -> Operator {
        let mut operator = self.launch(flags, &self.kubeconfig());
        operator.until_ready().await;
        operator
    }

    /// Starts an operator that need not become ready.
    pub(crate) fn launch(&self, flags: &Flags, kubeconfig: &std::path::Path) -> Operator {
        Operator::start(flags, kubeconfig, &self.log(&flags.name))
    }

    /// The kubeconfig of the first proxy.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Another proxy before the API server, for another operator, and its kubeconfig.
    pub(crate) async fn second_proxy(&self) -> (ApiProxy, PathBuf) {
        let proxy = ApiProxy::start(as_operator(&self.cluster).await).await.unwrap();
        let path = self.folder.path().join("second-kubeconfig");
        fs::write(&path, proxy.kubeconfig()).unwrap();
        (proxy, path)
    }

    /// Gives the session proxy the operator's certificate: it sees frames of the connections from now on. The operator has
    /// started once.
    pub(crate) async fn see_frames(&self) {
        let material = self.session_material().await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let identity = Identity {
            certificate: text(&material["leaf"]["certificate"]),
            key: text(&material["leaf"]["key"]),
            authorities: text(&material["authority"]["certified"]["certificate"]),
        };
        self.sessions.impersonate(&identity).unwrap();
    }

    /// What the operator identifies itself with to runners, as its Secret has it.
    pub(crate) async fn session_material(&self) -> Value {
        let secret = self.objects::<Secret>().get(SECRET_NAME).await.unwrap();
        serde_json::from_slice(&secret.data.unwrap()["material.json"].0).unwrap()
    }

    /// Tells requests about objects of this test from those that never end, and from other namespaces'.
    pub(crate) fn writes(&self) -> impl Fn(&Call) -> bool + Send + use<> {
        let namespace = self.namespace.clone();
        move |call| {
            let is_ours = call.namespace.as_deref().is_none_or(|it| it == namespace);
            call.is_write() && is_ours && call.resource != "leases"
        }
    }

    fn log(&self, operator: &str) -> PathBuf {
        self.folder.path().join(format!("{operator}.log"))
    }

    /// Writes the logs of the operators, and what the proxy saw, to standard error.
    fn tell(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "log") {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                eprintln!("--- operator {}", entry.file_name().display());
                lines[lines.len().saturating_sub(150)..].iter().for_each(|line| eprintln!("  | {line}"));
            }
        }
        let is_ours = self.writes();
        eprintln!("--- writes that the proxy saw");
        for record in self.api.records().iter().filter(|record| is_ours(&record.call)) {
            eprintln!("  | {:.1?} ago: {} -> {:?}", record.at.elapsed(), record.call, record.answer);
        }
    }
}

/// A client with the rights of the operator's account, which repeats nothing by itself.
async fn as_operator(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.proxy_url = None;
    config.default_retry = false;
    config.auth_info.impersonate = Some(operator_user());
    Client::try_from(config).unwrap()
}

/// Gives the operator's account, in this namespace, what it has in its own.
async fn give_rights(client: &Client, namespace: &str) {
    let rules: Vec<_> = OWN_NAMESPACE.iter().map(scriptrunner_operator::rbac::Rule::policy_rule).collect();
    let metadata = json!({"name": "operator", "namespace": namespace});
    let user = json!({"kind": "User", "name": operator_user(), "apiGroup": "rbac.authorization.k8s.io"});
    let role = json!({"kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({"kind": "RoleBinding", "metadata": metadata, "subjects": [user],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}});
    grant(client, namespace, vec![role, binding]).await;
}
