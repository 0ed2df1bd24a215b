//! Where attacks are tried: a namespace with people in it, and the right to leave rules out of it.

use http::Method;
use kube::Client;
use scriptrunner_operator::policies::{
    CONFIG_MAPS, EXEC, NAMESPACE_LABEL, OPERATOR_REQUESTS, POD_BINDING, POD_OUTCOME, PODS,
    PRIVILEGED_NAMESPACE, SPEC, STATUS, TOKENS,
    requested_by::{REQUESTED_BY, REQUESTED_BY_NEEDED},
};
use scriptrunner_testcluster::{
    Error,
    bindings::{self, Binding, Narrowing},
    namespace::in_namespace,
    wait,
};
use serde_json::Value;

use crate::{
    children::{self, Owner},
    cluster::{acting_as, acting_as_operator, admin, send},
    people::{
        Answer::{self, No, Yes},
        PATIENCE, ask, people,
    },
};

/// How each rule refuses.
const REFUSALS: [(&str, &str); 13] = [
    (SPEC, "denied request: scriptrunner-spec: "),
    (STATUS, "denied request: scriptrunner-status: "),
    (PODS, "denied request: scriptrunner-pods: "),
    (EXEC, "denied request: scriptrunner-exec: "),
    (POD_BINDING, "denied request: scriptrunner-pod-binding: "),
    (POD_OUTCOME, "denied request: scriptrunner-pod-outcome: "),
    (TOKENS, "denied request: scriptrunner-tokens: "),
    (CONFIG_MAPS, "denied request: scriptrunner-configmaps: "),
    (OPERATOR_REQUESTS, "denied request: scriptrunner-operator: "),
    (PRIVILEGED_NAMESPACE, "denied request: scriptrunner-privileged-namespace: "),
    (NAMESPACE_LABEL, "denied request: scriptrunner-namespace-label: "),
    (REQUESTED_BY, "denied request: scriptrunner-requested-by: "),
    (REQUESTED_BY_NEEDED, "denied request: scriptrunner-requested-by-needed: "),
];

pub(crate) fn refused_by(rule: &str) -> Answer {
    No(REFUSALS.iter().find(|(name, _)| *name == rule).unwrap().1)
}

/// One request of somebody.
pub(crate) struct Attempt {
    who: &'static str,
    what: &'static str,
    method: Method,
    content_type: &'static str,
    path: String,
    body: Value,
}

impl Attempt {
    /// Makes something, as a dry run.
    pub(crate) fn create(who: &'static str, what: &'static str, path: &str, body: Value) -> Self {
        let (method, path) = (Method::POST, format!("{path}?dryRun=All"));
        Self { who, what, method, content_type: "application/json", path, body }
    }

    /// Changes something by a merge patch, as a dry run.
    pub(crate) fn edit(who: &'static str, what: &'static str, path: &str, body: Value) -> Self {
        let (method, path) = (Method::PATCH, format!("{path}?dryRun=All"));
        Self { who, what, method, content_type: "application/merge-patch+json", path, body }
    }

    /// The same with lists that are merged.
    pub(crate) fn merge_lists(self) -> Self {
        Self { content_type: "application/strategic-merge-patch+json", ..self }
    }

    /// Enters a pod.
    pub(crate) fn enter(who: &'static str, what: &'static str, path: String) -> Self {
        let (method, content_type) = (Method::POST, "application/json");
        Self { who, what, method, content_type, path, body: Value::Null }
    }

    /// Deletes something, as a dry run.
    pub(crate) fn delete(who: &'static str, what: &'static str, path: &str) -> Self {
        let (method, path) = (Method::DELETE, format!("{path}?dryRun=All"));
        Self { who, what, method, content_type: "application/json", path, body: Value::Null }
    }
}

/// A namespace with people in it, and the right to narrow bindings.
pub(crate) struct Place {
    pub(crate) client: Client,
    operator: Client,
    pub(crate) namespace: String,
    /// A ScriptRunner that does nothing.
    pub(crate) owner: Owner,
    pub(crate) rules: Narrowing,
}

pub(crate) async fn place(test: &str, labels: &[(&str, &str)], body: impl AsyncFnOnce(&Place)) {
    let rules = bindings::narrowing().await;
    let client = admin().await;
    in_namespace(&client.clone(), test, labels, async |namespace| {
        people(&client, &namespace).await;
        let owner = children::owner(&client, &namespace, "owner").await;
        let operator = acting_as_operator().await;
        body(&Place { client, operator, namespace, owner, rules }).await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

impl Place {
    pub(crate) fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    pub(crate) fn objects(&self, rest: &str) -> String {
        format!("/apis/scriptrunner.io/v1alpha1/namespaces/{}/scriptrunners{rest}", self.namespace)
    }

    /// Makes something as the operator.
    pub(crate) async fn make(&self, path: &str, body: &Value) -> Value {
        let made = wait::until("the operator to make its child", PATIENCE, async |seen| {
            let answer = send(&self.operator, Method::POST, &self.core(path), "application/json", body).await;
            seen.note(format!("{:?}", answer.as_ref().err()));
            Ok::<_, kube::Error>(answer.ok())
        });
        made.await.unwrap()
    }

    async fn send(&self, attempt: &Attempt) -> kube::Result<()> {
        let client = match attempt.who {
            "admin" => self.client.clone(),
            "operator" => self.operator.clone(),
            name => acting_as(&format!("{name}@{}", self.namespace), &[]).await,
        };
        let Attempt { method, content_type, path, body, .. } = attempt;
        match send(&client, method.clone(), path, content_type, body).await {
            // Admitted: the pods of these tests are on no node, so nobody can be led in.
            Err(kube::Error::Api(status)) if body.is_null() && status.code == 400 => {
                let told = ["does not have a host assigned", "address not allowed"];
                assert!(told.iter().any(|text| status.message.contains(text)), "{status:?}");
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    pub(crate) async fn expect(&self, attempts: &[Attempt], when: &str, expected: Answer) {
        for attempt in attempts {
            let what = format!("{} {} {when}", attempt.who, attempt.what);
            ask(&what, expected, async || self.send(attempt).await).await;
        }
    }

    /// Each attempt works without the rules, and each rule alone refuses each of them.
    pub(crate) async fn is_stopped_by(&self, rules: &[&str], attempts: &[Attempt]) {
        self.is_stopped_in(&self.namespace, rules, attempts).await;
    }

    pub(crate) async fn is_stopped_in(&self, namespace: &str, rules: &[&str], attempts: &[Attempt]) {
        let all: Vec<_> = rules.iter().copied().map(Binding::Validating).collect();
        let open = self.rules.without(&self.client, &all, namespace, async || {
            self.expect(attempts, "without the rule", Yes).await;
        });
        open.await.unwrap();
        for rule in rules {
            let others: Vec<_> =
                all.iter().copied().filter(|other| *other != Binding::Validating(rule)).collect();
            let alone = self.rules.without(&self.client, &others, namespace, async || {
                self.expect(attempts, "with the rule", refused_by(rule)).await;
            });
            alone.await.unwrap();
        }
    }
}
