//! Scripts in ConfigMaps on the real API server: what a change, a loss and a fault of one lead to. Pods cannot start: nothing
//! has the image.

use std::time::{Duration, Instant};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{condition, digest::sha256_hex, labels, v1alpha1::ScriptRunner};
use scriptrunner_operator::manifests::{NAMESPACE, operator_user};
use scriptrunner_testcluster::{Error, namespace::in_namespace, wait};
use serde_json::{Value, json};

use crate::{
    cluster::{acting_as_agent, admin, cluster},
    flow::{LONG, start_operator},
    turn::{only_operator, policies_are_proven},
};

/// What a change may take until it is a run.
const PROMPT: Duration = Duration::from_secs(5);

/// A namespace, as its user sees it.
struct Place {
    client: Client,
    namespace: String,
}

impl Place {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates or replaces a ConfigMap.
    async fn put(&self, name: &str, is_labelled: bool, data: &Value) {
        let labels = if is_labelled { json!({labels::SOURCE: labels::SOURCE_TRUE}) } else { json!({}) };
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data});
        let params = PatchParams::apply("it").force();
        self.api::<ConfigMap>().patch(name, &params, &Patch::Apply(&object)).await.unwrap();
    }

    async fn submit(&self, name: &str, spec: &Value) {
        let mut spec = spec.clone();
        spec["nodeNames"] = json!([cluster().node_names().remove(0)]);
        let object = json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner", "metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).unwrap();
        self.api::<ScriptRunner>().create(&PostParams::default(), &object).await.unwrap();
    }

    async fn until(
        &self,
        name: &str,
        what: &str,
        limit: Duration,
        wish: impl Fn(&ScriptRunner) -> bool,
    ) -> ScriptRunner {
        let api = self.api::<ScriptRunner>();
        wait::until(&format!("{name}: {what}"), limit, async |seen| {
            let object = api.get(name).await?;
            seen.note(format!("{:?}", object.status));
            Ok::<_, kube::Error>(wish(&object).then_some(object))
        })
        .await
        .unwrap()
    }

    /// Waits until the condition Accepted has this reason; gives its message.
    async fn until_accepted_is(&self, name: &str, reason: &str) -> String {
        let is_so = |object: &ScriptRunner| verdict(object).is_some_and(|(is, _)| is == reason);
        let object = self.until(name, reason, LONG, is_so).await;
        verdict(&object).unwrap().1
    }

    /// Waits until a run of the object is pinned to this script.
    async fn until_script(&self, name: &str, script: &str, limit: Duration) {
        let marked = ListParams::default().labels(labels::UID);
        let api = self.api::<ConfigMap>();
        wait::until(&format!("{name}: a run with {script:?}"), limit, async |seen| {
            let found = api.list(&marked).await?.items.into_iter();
            let scripts: Vec<_> = found
                .filter(|it| it.annotations().get(labels::NAME).is_some_and(|of| of == name))
                .filter_map(|it| it.data?.remove(labels::SCRIPT_FILE))
                .collect();
            seen.note(format!("{scripts:?}"));
            Ok::<_, kube::Error>(scripts.iter().any(|it| it == script).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until there is one pod, and it is of this run.
    async fn until_pod_of_run(&self, run: u64) {
        let api = self.api::<Pod>();
        wait::until(&format!("a pod of run {run}"), LONG, async |seen| {
            let pods = api.list(&ListParams::default().labels(labels::UID)).await?.items;
            let runs: Vec<_> = pods.iter().map(|pod| pod.labels()[labels::RUN].clone()).collect();
            seen.note(format!("{runs:?}"));
            Ok::<_, kube::Error>((runs == [run.to_string()]).then_some(()))
        })
        .await
        .unwrap();
    }

    async fn children(&self) -> (usize, usize) {
        let ours = ListParams::default().labels(labels::UID);
        let pods = self.api::<Pod>().list(&ours).await.unwrap().items.len();
        (pods, self.api::<ConfigMap>().list(&ours).await.unwrap().items.len())
    }
}

fn from(name: &str, key: &str) -> Value {
    json!({"scriptFrom": {"configMapKeyRef": {"name": name, "key": key}}})
}

/// Reason and message of the condition Accepted.
fn verdict(object: &ScriptRunner) -> Option<(String, String)> {
    let conditions = &object.status.as_ref()?.conditions;
    let accepted = condition::find(conditions, condition::ConditionType::Accepted)?;
    Some((accepted.reason.clone(), accepted.message.clone()))
}

fn run_number(object: &ScriptRunner) -> u64 {
    object.status.as_ref().and_then(|status| status.run.as_ref()).map_or(0, |run| run.number)
}

/// Runs a test beside an operator of its own, in a namespace and beside a neighbouring one.
async fn with_operator(name: &str, labels: &[(&str, &str)], body: impl AsyncFnOnce(Place, Place)) {
    let client = admin().await;
    let _alone = only_operator(&client).await;
    policies_are_proven(NAMESPACE).await;
    in_namespace(&client, name, labels, async |namespace| {
        in_namespace(&client, name, &[], async |other| {
            let agent = format!("scriptrunner-it/{namespace}");
            let (stop, operator) = start_operator(acting_as_agent(&operator_user(), &agent).await).await;
            let place = |namespace: &str| Place { client: client.clone(), namespace: namespace.to_owned() };
            body(place(&namespace), place(&other)).await;
            stop.send_replace(true);
            tokio::time::timeout(LONG, operator).await.unwrap().unwrap();
            Ok::<_, Error>(())
        })
        .await
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_change_of_a_config_map_is_a_run_of_those_that_name_it() {
    with_operator("sources-change", &[], async |place, other| {
        place.put("scripts", true, &json!({"a": "one"})).await;
        place.submit("subject", &from("scripts", "a")).await;
        place.until_script("subject", "one", LONG).await;

        // Another key, and a ConfigMap of the same name elsewhere: nothing.
        place.put("scripts", true, &json!({"a": "one", "b": "x"})).await;
        other.put("scripts", true, &json!({"a": "other"})).await;
        let begin = Instant::now();
        place.put("scripts", true, &json!({"a": "two"})).await;
        place.until_script("subject", "two", PROMPT).await;
        let object = place.until("subject", "a second run", PROMPT, |object| run_number(object) == 2).await;
        assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
        let run = object.status.unwrap().run.unwrap();
        assert_eq!((run.trigger.as_str(), run.script_digest), ("SpecChanged", sha256_hex(b"two")));
        assert_eq!(object.metadata.generation, Some(1));

        // Gone while its pod is there: the run stays what it is, and what comes back decides.
        place.api::<ConfigMap>().delete("scripts", &DeleteParams::default()).await.unwrap();
        let message = place.until_accepted_is("subject", "InputMissing").await;
        assert!(message.contains("no ConfigMap \"scripts\""), "{message}");
        // Its pod is made although the ConfigMap is gone, once that of the run before is.
        place.until_pod_of_run(2).await;
        place.put("scripts", true, &json!({"a": "two"})).await;
        place.until_accepted_is("subject", "SpecAccepted").await;
        assert_eq!(run_number(&place.api::<ScriptRunner>().get("subject").await.unwrap()), 2);
        place.put("scripts", true, &json!({"a": "three"})).await;
        place.until_script("subject", "three", PROMPT).await;
        assert_eq!(other.children().await, (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_config_map_that_cannot_be_used_starts_nothing_until_it_can() {
    with_operator("sources-faults", &[], async |place, other| {
        other.put("elsewhere", true, &json!({"a": "x"})).await;
        place.put("unlabelled", false, &json!({"a": "x"})).await;
        place.put("keyless", true, &json!({"b": "x"})).await;
        place.put("large", true, &json!({"a": "x".repeat(1_000_000)})).await;
        place.put("long", true, &json!({"a": "x".repeat(65_537)})).await;
        place.put("empty", true, &json!({"a": ""})).await;
        let binary = ConfigMap {
            binary_data: Some([("a".to_owned(), ByteString(vec![0, 255]))].into()),
            ..serde_json::from_value(
                json!({"metadata": {"name": "binary", "labels": {labels::SOURCE: labels::SOURCE_TRUE}}}),
            )
            .unwrap()
        };
        place.api::<ConfigMap>().create(&PostParams::default(), &binary).await.unwrap();
        let faults = [
            ("missing", "InputMissing", "no ConfigMap \"missing\""),
            ("elsewhere", "InputMissing", "no ConfigMap \"elsewhere\""),
            ("unlabelled", "InputMissing", "or label it"),
            ("keyless", "InputMissing", "has no key \"a\""),
            ("large", "InputInvalid", "has 1000000 bytes"),
            ("long", "InputInvalid", "has 65537 bytes"),
            ("empty", "InputInvalid", "is empty"),
            ("binary", "InputInvalid", "is binary data"),
        ];
        for (name, ..) in faults {
            place.submit(name, &from(name, "a")).await;
        }
        for (name, reason, words) in faults {
            let message = place.until_accepted_is(name, reason).await;
            assert!(message.contains(words), "{name}: {message}");
        }
        assert_eq!(place.children().await, (0, 0));
        for name in ["missing", "unlabelled", "keyless", "large"] {
            place.put(name, true, &json!({"a": name})).await;
            place.until_script(name, name, PROMPT).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_privileged_mode_runs_only_the_text_of_the_digest() {
    let privileged = [(labels::PRIVILEGED, labels::PRIVILEGED_ALLOWED)];
    with_operator("sources-digest", &privileged, async |place, _| {
        place.put("scripts", true, &json!({"a": "evil"})).await;
        let mut spec = from("scripts", "a");
        for (field, value) in
            [("mode", json!("Privileged")), ("parallelism", json!(1)), ("executionDeadlineSeconds", json!(9))]
        {
            spec[field] = value;
        }
        spec["scriptFrom"]["sha256"] = sha256_hex(b"good").into();
        place.submit("subject", &spec).await;
        let message = place.until_accepted_is("subject", "InputChanged").await;
        assert!(
            message.contains(&sha256_hex(b"evil")) && message.contains(&sha256_hex(b"good")),
            "{message}"
        );
        assert_eq!(place.children().await, (0, 0));
        place.put("scripts", true, &json!({"a": "good"})).await;
        place.until_script("subject", "good", PROMPT).await;
        place.until_pod_of_run(1).await;
        place.put("scripts", true, &json!({"a": "evil"})).await;
        place.until_accepted_is("subject", "InputChanged").await;
        assert_eq!(run_number(&place.api::<ScriptRunner>().get("subject").await.unwrap()), 1);
    })
    .await;
}
