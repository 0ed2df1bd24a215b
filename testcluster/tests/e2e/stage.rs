//! A test's place: the cluster, shared or for itself alone, and a namespace that is shown when the test fails.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::{
    Cluster, Error,
    namespace::{describe, in_namespace},
    wait,
};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::{journal::Journal, operator, submitted::Submitted};

/// How long a test waits for anything: two cores carry three nodes and several tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Labels of a namespace that admits privileged runs.
pub(crate) const PRIVILEGED: &[(&str, &str)] =
    &[(labels::PRIVILEGED, labels::PRIVILEGED_ALLOWED), ("pod-security.kubernetes.io/enforce", "privileged")];

/// Whoever disturbs nodes or the operator holds this for writing.
static CLUSTER_USE: RwLock<()> = RwLock::const_new(());

/// Spreads the tests that need one node only.
static NEXT_NODE: AtomicUsize = AtomicUsize::new(0);

/// Where a test plays.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Runs a test in a namespace of its own, beside other tests.
pub(crate) async fn beside_others(test: &str, labels: &[(&str, &str)], body: impl AsyncFnOnce(Stage)) {
    let _shared = CLUSTER_USE.read().await;
    in_own_namespace(test, labels, body).await;
}

/// Runs a test in a namespace of its own, while no other test runs.
pub(crate) async fn alone(test: &str, labels: &[(&str, &str)], body: impl AsyncFnOnce(Stage)) {
    let _exclusive = CLUSTER_USE.write().await;
    in_own_namespace(test, labels, body).await;
}

/// Runs a test in a namespace that its manifests name, beside other tests.
pub(crate) async fn in_given_namespace(namespace: &str, body: impl AsyncFnOnce(Stage)) {
    let _shared = CLUSTER_USE.read().await;
    let (cluster, client) = open().await;
    let place = Stage { cluster, client: client.clone(), namespace: namespace.to_owned() };
    if let Err(panic) = AssertUnwindSafe(body(place)).catch_unwind().await {
        eprintln!("{}", describe(&client, namespace).await);
        operator::show_log(&client, namespace).await;
        resume_unwind(panic);
    }
}

async fn in_own_namespace(test: &str, labels: &[(&str, &str)], body: impl AsyncFnOnce(Stage)) {
    let (cluster, client) = open().await;
    let outcome = in_namespace(&client, test, labels, async |namespace| {
        let place = Stage { cluster, client: client.clone(), namespace: namespace.clone() };
        if let Err(panic) = AssertUnwindSafe(body(place)).catch_unwind().await {
            operator::show_log(&client, &namespace).await;
            resume_unwind(panic);
        }
        Ok::<_, Error>(())
    });
    outcome.await.unwrap();
}

async fn open() -> (Cluster, Client) {
    let name = std::env::var("SCRIPTRUNNER_TEST_CLUSTER").unwrap_or_else(|_| "test".to_owned());
    let cluster = Cluster::existing(&name).unwrap_or_else(|error| panic!("{error}; or run ./test.sh e2e"));
    let client = cluster.client().await.unwrap();
    (cluster, client)
}

impl Stage {
    /// The name of node `number`, from 1.
    pub(crate) fn node(&self, number: usize) -> String {
        self.cluster.node_names()[number - 1].clone()
    }

    /// Some node, another one each time.
    pub(crate) fn some_node(&self) -> String {
        let names = self.cluster.node_names();
        names[NEXT_NODE.fetch_add(1, Ordering::Relaxed) % names.len()].clone()
    }

    /// Objects of a kind in the test's namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of a kind in the test's namespace, with the rights of the operator's account: for what the policies let nobody
    /// else write.
    pub(crate) async fn operators<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let account = format!("system:serviceaccount:{}:{}", operator::NAMESPACE, operator::DEPLOYMENT);
        Api::namespaced(self.cluster.acting_as(&account, &[]).await.unwrap(), &self.namespace)
    }

    /// Creates a ScriptRunner as a user would.
    pub(crate) async fn submit(&self, name: &str, spec: Value) -> Submitted {
        let object = json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec});
        let api: Api<ScriptRunner> = self.api();
        operator::until_it_admits_as_is(&self.client, &object).await;
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        Submitted::new(api, name)
    }

    /// Creates a ConfigMap in the test's namespace.
    pub(crate) async fn create_config_map(&self, object: Value) {
        let config_map = serde_json::from_value(object).unwrap();
        self.api::<ConfigMap>().create(&PostParams::default(), &config_map).await.unwrap();
    }

    /// Writes a ConfigMap in the test's namespace, whether it is there or not.
    pub(crate) async fn put_config_map(&self, name: &str, data: Value) {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        let params = PatchParams::apply("e2e").force();
        self.api::<ConfigMap>().patch(name, &params, &Patch::Apply(&object)).await.unwrap();
    }

    /// Writes down everything that happens to pods of the namespace from now on.
    pub(crate) async fn journal(&self) -> Journal {
        Journal::start(self.api::<Pod>()).await
    }

    /// Waits until the namespace has `count` pods.
    pub(crate) async fn until_pods(&self, count: usize) -> Vec<Pod> {
        let api = self.api::<Pod>();
        wait::until(&format!("{count} pods"), PATIENCE, async |seen| {
            let pods = api.list(&ListParams::default()).await?.items;
            seen.note(format!("{} pods", pods.len()));
            Ok::<_, kube::Error>((pods.len() == count).then_some(pods))
        })
        .await
        .unwrap()
    }

    /// Waits until the namespace has `count` ConfigMaps of runs.
    pub(crate) async fn until_config_maps(&self, count: usize) {
        let api = self.api::<ConfigMap>();
        wait::until(&format!("{count} ConfigMaps of runs"), PATIENCE, async |seen| {
            let found = api.list(&ListParams::default().labels(labels::UID)).await?.items.len();
            seen.note(found.to_string());
            Ok::<_, kube::Error>((found == count).then_some(()))
        })
        .await
        .unwrap();
    }

    /// The pods of a ScriptRunner, those that are about to go left out.
    pub(crate) async fn pods_of(&self, name: &str) -> kube::Result<Vec<Pod>> {
        let pods = self.api::<Pod>().list(&ListParams::default()).await?.items;
        let is_its = |pod: &Pod| {
            let marks = pod.metadata.annotations.as_ref();
            pod.metadata.deletion_timestamp.is_none()
                && marks.and_then(|marks| marks.get(labels::NAME)).is_some_and(|of| of == name)
        };
        Ok(pods.into_iter().filter(is_its).collect())
    }

    /// Waits until as many pods of a ScriptRunner run as Kubernetes knows.
    pub(crate) async fn until_running(&self, name: &str, count: usize) -> Vec<Pod> {
        wait::until(&format!("{count} running pods of {name:?}"), PATIENCE, async |seen| {
            let mut pods = self.pods_of(name).await?;
            let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
            seen.note(format!("{:?}", pods.iter().map(phase).collect::<Vec<_>>()));
            pods.retain(|pod| phase(pod).as_deref() == Some("Running"));
            Ok::<_, kube::Error>((pods.len() == count).then_some(pods))
        })
        .await
        .unwrap()
    }
}
