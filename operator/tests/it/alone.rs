//! Policies that are broken on purpose: no privileged pod, and a word about it. Every other test needs them whole, so these
//! run apart from the others and one at a time: `cargo test -p scriptrunner-operator --test it alone::`.

mod namespaced;

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{
    condition::{ConditionType, find},
    labels,
    v1alpha1::ScriptRunner,
};
use scriptrunner_operator::{
    manifests::{NAMESPACE, operator_user},
    policies,
    proof::RECORD_NAME,
};
use scriptrunner_testcluster::{Error, namespace::in_namespace, wait};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    cluster::{acting_as, admin, cluster},
    flow::start_operator,
    people::{
        Answer::{self, No, Yes},
        ask, dry_create, script_runner,
    },
    turn::{only_operator, policies_are_proven},
};

const LONG: Duration = Duration::from_mins(1);

/// A namespace for privileged runs, and policies that are whole before and after.
struct Place {
    client: Client,
    namespace: String,
}

/// Runs a test on policies that it may break.
async fn place(test: &str, body: impl AsyncFnOnce(&Place)) {
    let client = admin().await;
    let _turn = only_operator(&client).await;
    policies_are_proven(NAMESPACE).await;
    let labels = [
        (labels::PRIVILEGED, labels::PRIVILEGED_ALLOWED),
        ("pod-security.kubernetes.io/enforce", "privileged"),
    ];
    in_namespace(&client, test, &labels, async |namespace| {
        let place = Place { client: client.clone(), namespace };
        let outcome = AssertUnwindSafe(body(&place)).catch_unwind().await;
        restore(&client).await;
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

/// Makes everything that is not as deployed anew, and waits until it is enforced.
async fn restore(client: &Client) {
    for expected in policies::policies() {
        let is_whole = |found: &ValidatingAdmissionPolicy| found.spec == expected.spec;
        make_whole(client, &expected, is_whole).await;
    }
    for expected in policies::bindings() {
        let is_whole = |found: &ValidatingAdmissionPolicyBinding| found.spec == expected.spec;
        make_whole(client, &expected, is_whole).await;
    }
    await_canary(client, No("scriptrunner-spec: ")).await;
}

async fn make_whole<K>(client: &Client, expected: &K, is_whole: impl Fn(&K) -> bool)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let name = expected.meta().name.clone().unwrap();
    match api.get_opt(&name).await.unwrap() {
        Some(found) if is_whole(&found) => return,
        Some(_) => drop(api.delete(&name, &DeleteParams::default()).await.unwrap()),
        None => {}
    }
    api.create(&PostParams::default(), expected).await.unwrap();
}

/// Waits until a privileged ScriptRunner of the operator is refused, or not.
async fn await_canary(client: &Client, expected: Answer) {
    let namespace = "default";
    let metadata = json!({"name": "canary", "namespace": namespace});
    let owner = json!({"kind": "User", "name": operator_user(), "apiGroup": "rbac.authorization.k8s.io"});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "subjects": [owner], "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(client.clone(), namespace);
    let role = serde_json::from_value(role).unwrap();
    bindings.create(&PostParams::default(), &role).await.unwrap();
    let api: Api<ScriptRunner> = Api::namespaced(acting_as(&operator_user(), &[]).await, namespace);
    let object = script_runner("canary", "Privileged", &json!([]));
    let asking = ask("the operator makes a privileged object", expected, async || {
        api.create(&dry_create(), &object).await.map(drop)
    });
    let outcome = AssertUnwindSafe(asking).catch_unwind().await;
    // Nobody keeps these rights, also when the test fails.
    bindings.delete("canary", &DeleteParams::default()).await.unwrap();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl Place {
    fn objects(&self) -> Api<ScriptRunner> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes a privileged object for one node.
    async fn submit(&self, name: &str) {
        let node = cluster().node_names().remove(0);
        let spec = json!({"script": "x", "nodeNames": [node], "mode": "Privileged", "parallelism": 1,
            "executionDeadlineSeconds": 5});
        let object = json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
            "metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).unwrap();
        self.objects().create(&PostParams::default(), &object).await.unwrap();
    }

    async fn edit(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.objects().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until the object is accepted or not for this reason; the words.
    async fn until_reason(&self, name: &str, reason: &str) -> String {
        wait::until(&format!("{name:?} with reason {reason}"), LONG, async |seen| {
            let object = self.objects().get(name).await?;
            seen.note(format!("{:?}", object.status));
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            let accepted = find(&conditions, ConditionType::Accepted);
            Ok::<_, kube::Error>(accepted.filter(|it| it.reason == reason).map(|it| it.message.clone()))
        })
        .await
        .unwrap()
    }

    /// How many pods an object has.
    async fn pods(&self, name: &str) -> usize {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods = api.list(&ListParams::default().labels(labels::UID)).await.unwrap().items;
        let is_its =
            |pod: &&Pod| pod.metadata.annotations.as_ref().is_some_and(|it| it[labels::NAME] == name);
        pods.iter().filter(is_its).count()
    }

    async fn until_pods(&self, name: &str, count: usize) {
        wait::until(&format!("{count} pods of {name:?}"), LONG, async |seen| {
            let pods = self.pods(name).await;
            seen.note(format!("{pods} and {:?}", self.objects().get(name).await?.status));
            Ok::<_, kube::Error>((pods == count).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Since when the policies are recorded to hold.
    async fn recorded_since(&self) -> Value {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        let record = api.get(RECORD_NAME).await.unwrap();
        serde_json::from_str::<Value>(&record.data.unwrap()["proof.json"]).unwrap()["since"].clone()
    }

    async fn delete_binding(&self) {
        let api: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        api.delete(policies::SPEC, &DeleteParams::default()).await.unwrap();
    }

    async fn patch_binding(&self, spec: Value) {
        let api: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": spec}));
        api.patch(policies::SPEC, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Runs an operator meanwhile.
    async fn with_operator(&self, body: impl AsyncFnOnce()) {
        let (stop, operator) = start_operator(acting_as(&operator_user(), &[]).await).await;
        body().await;
        stop.send_replace(true);
        tokio::time::timeout(LONG, operator).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_binding_that_is_deleted_stops_privileged_pods_at_once_and_what_was_written_then_is_written_again()
{
    place("alone-deleted", async |place| {
        place.with_operator(async || {
            place.submit("before").await;
            place.until_pods("before", 1).await;
            place.delete_binding().await;
            place.submit("meanwhile").await;
            let why = place.until_reason("meanwhile", "PolicyNotProven").await;
            assert!(why.contains("ValidatingAdmissionPolicyBinding \"scriptrunner-spec\" does not exist; apply deploy/ again"), "{why}");
            // What is accepted goes on, and says why nothing more is started.
            place.until_reason("before", "PolicyNotProven").await;
            assert_eq!((place.pods("meanwhile").await, place.pods("before").await), (0, 1));
            restore(&place.client).await;
            place.until_reason("before", "SpecAccepted").await;
            let why = place.until_reason("meanwhile", "NotAdmitted").await;
            assert!(why.contains("set rerun.at to the present time"), "{why}");
            assert_eq!(place.pods("meanwhile").await, 0);
            place.edit("meanwhile", json!({"rerun": {"at": "2026-01-01T00:00:00Z"}})).await;
            place.until_pods("meanwhile", 1).await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_binding_or_policy_that_is_made_harmless_stops_privileged_pods() {
    place("alone-changed", async |place| {
        place
            .with_operator(async || {
                let selector = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}});
                for (name, change, field) in [
                    ("narrowed", json!({"matchResources": selector}), "spec.matchResources"),
                    ("warning", json!({"validationActions": ["Warn"]}), "spec.validationActions"),
                ] {
                    place.patch_binding(change).await;
                    place.submit(name).await;
                    let why = place.until_reason(name, "PolicyNotProven").await;
                    assert!(why.contains(field), "{why}");
                    assert_eq!(place.pods(name).await, 0);
                    restore(&place.client).await;
                    place.until_reason(name, "NotAdmitted").await;
                }
                let api: Api<ValidatingAdmissionPolicy> = Api::all(place.client.clone());
                let ignore = Patch::Merge(json!({"spec": {"failurePolicy": "Ignore"}}));
                api.patch(policies::SPEC, &PatchParams::default(), &ignore).await.unwrap();
                place.submit("ignoring").await;
                let why = place.until_reason("ignoring", "PolicyNotProven").await;
                assert!(why.contains("spec.failurePolicy"), "{why}");
                assert_eq!(place.pods("ignoring").await, 0);
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn what_was_written_while_policy_and_operator_were_away_is_written_again_and_the_record_survives() {
    place("alone-away", async |place| {
        place
            .with_operator(async || {
                place.submit("before").await;
                place.until_pods("before", 1).await;
            })
            .await;
        let since = place.recorded_since().await;
        assert!(since.is_string());
        // Nothing changed, so an object that was made while nobody was there is run.
        place.submit("away").await;
        place
            .with_operator(async || {
                place.until_pods("away", 1).await;
                assert_eq!(place.recorded_since().await, since);
            })
            .await;
        place.delete_binding().await;
        await_canary(&place.client, Yes).await;
        place.submit("unjudged").await;
        restore(&place.client).await;
        place
            .with_operator(async || {
                place.until_reason("unjudged", "NotAdmitted").await;
                assert_eq!(place.pods("unjudged").await, 0);
                assert_ne!(place.recorded_since().await, since);
                place.until_reason("before", "SpecAccepted").await;
                place.edit("unjudged", json!({"rerun": {"at": "2026-01-01T00:00:00Z"}})).await;
                place.until_pods("unjudged", 1).await;
            })
            .await;
    })
    .await;
}
