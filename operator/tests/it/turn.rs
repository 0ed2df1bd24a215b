//! The turn of a test that runs an operator: no other one runs, and the policies are whole and known to be so.

use std::time::Duration;

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap},
    jiff::Timestamp,
};
use kube::{Api, Client};
use scriptrunner_core::observed::PolicyProof;
use scriptrunner_operator::{
    manifests::{NAMESPACE, OPERATOR},
    metrics::Metrics,
    proof::Proofs,
};
use scriptrunner_testcluster::{
    bindings::{self, Narrowing},
    wait,
};
use serde_json::json;

use crate::{
    cluster::{acting_as_operator, admin},
    people::dry_create,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until no other test runs an operator, or has to do with policies: an operator looks at all namespaces, so two would do
/// each other's work, and it removes what looks like a pod of a run and is none.
pub(crate) async fn only_operator(client: &Client) -> Narrowing {
    let deployed = Api::<Deployment>::namespaced(client.clone(), NAMESPACE).get_opt(OPERATOR).await.unwrap();
    assert!(
        deployed.is_none(),
        "an operator runs in this cluster and would do the work: delete its Deployment"
    );
    bindings::narrowing().await
}

/// Has the policies proven as an operator of this namespace does, and waits until its record admits what is written from now
/// on. Without it that would depend on what other tests did to policies since that operator looked at them last.
pub(crate) async fn policies_are_proven(namespace: &str) {
    let proofs = Proofs::new(acting_as_operator().await, namespace.to_owned(), PATIENCE);
    let client = admin().await;
    wait::until("policies that are proven for what is written now", PATIENCE, async |seen| {
        let answer = proofs.ask(&Metrics::new()).await;
        let now = now(&client, namespace).await?;
        seen.note(format!("{answer:?} at {now}"));
        let PolicyProof::Proven { since } = answer.map_err(anyhow::Error::from)? else { return Ok(None) };
        Ok::<_, anyhow::Error>((now > since).then_some(()))
    })
    .await
    .unwrap();
}

/// The whole second in which the API server would say that an object was created.
async fn now(client: &Client, namespace: &str) -> kube::Result<Timestamp> {
    let probe: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "probe"}})).unwrap();
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    Ok(api.create(&dry_create(), &probe).await?.metadata.creation_timestamp.unwrap().0)
}
