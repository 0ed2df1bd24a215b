//! The operator's account with nothing but the generated roles, on the real API server: each thing on the list can be done,
//! nothing else can.

use std::collections::BTreeSet;

use futures::future::join_all;
use http::Method;
use kube::Client;
use scriptrunner_api::v1alpha1::Mode;
use scriptrunner_operator::{
    leader::LEASE_NAME,
    manifests::{NAMESPACE, operator_user},
    proof::RECORD_NAME,
    rbac::{CLUSTER, CRD_NAME, OWN_NAMESPACE, Rule},
    sessions::SECRET_NAME,
};
use scriptrunner_testcluster::{Error, bindings, namespace::in_namespace};
use serde_json::{Value, json};

use crate::{
    children::{self, Owner},
    cluster::{acting_as_operator, admin, refusal, send},
};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const CANARY_REFUSED: &str = "ValidatingAdmissionPolicy 'scriptrunner-spec'";

/// An object of a resource, as small as the API server and the policies take it. Pods and ConfigMaps have this owner.
fn object(rule: &Rule, namespace: &str, name: &str, owner: &Owner) -> Value {
    let metadata = json!({"name": name});
    let typed = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": metadata.clone()});
    match rule.resource {
        "scriptrunners" => {
            let mut object = typed("scriptrunner.io/v1alpha1", "ScriptRunner");
            object["spec"] = json!({"script": "true", "nodeNames": ["nobody"]});
            object
        }
        "pods" => children::pod(name, Mode::Normal, owner),
        "configmaps" if rule.names == [RECORD_NAME] => typed("v1", "ConfigMap"),
        "configmaps" => children::config_map(name, Mode::Normal, owner),
        "events" => {
            let mut event = typed("events.k8s.io/v1", "Event");
            for (key, value) in [
                ("reason", "Test"),
                ("action", "Test"),
                ("type", "Normal"),
                ("note", "a test"),
                ("reportingController", "scriptrunner.io/test"),
                ("reportingInstance", "test"),
                ("eventTime", "2026-01-01T00:00:00.000000Z"),
            ] {
                event[key] = value.into();
            }
            event["regarding"] =
                json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": "x"});
            event
        }
        "leases" => typed("coordination.k8s.io/v1", "Lease"),
        "secrets" => typed("v1", "Secret"),
        "services" => {
            let mut service = typed("v1", "Service");
            service["spec"] = json!({"ports": [{"port": 443}]});
            service
        }
        "tokenreviews" => json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": "a.b.c", "audiences": ["scriptrunner.io"]}}),
        other => panic!("no object of {other}"),
    }
}

/// Where a resource is served; an empty namespace means all of them.
fn path(rule: &Rule, namespace: &str) -> String {
    let version = match rule.group {
        "" => "api/v1".to_owned(),
        "scriptrunner.io" => format!("apis/{}/v1alpha1", rule.group),
        group => format!("apis/{group}/v1"),
    };
    let plural = rule.resource.split('/').next().unwrap();
    let namespaced = ![
        "nodes",
        "namespaces",
        "customresourcedefinitions",
        "tokenreviews",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ]
    .contains(&plural);
    let scope =
        if namespaced && !namespace.is_empty() { format!("namespaces/{namespace}/") } else { String::new() };
    format!("/{version}/{scope}{plural}")
}

/// The object that a rule is tried on, named as the policies want it.
fn name(rule: &Rule) -> &'static str {
    match rule.resource {
        "pods" => "srn-it",
        "configmaps" if rule.names.is_empty() => "srs-it",
        "leases" => LEASE_NAME,
        "secrets" => SECRET_NAME,
        _ => rule.names.first().copied().unwrap_or("it"),
    }
}

/// Does one thing of the list, as a dry run where it writes. The object of that name is there.
async fn perform(
    client: &Client,
    rule: &Rule,
    verb: &str,
    namespace: &str,
    owner: &Owner,
) -> kube::Result<()> {
    let name = name(rule);
    let (one, all) = (format!("{}/{name}", path(rule, namespace)), path(rule, ""));
    let subresource = rule.resource.split_once('/').map_or_else(String::new, |(_, sub)| format!("/{sub}"));
    match verb {
        "get" => send(client, Method::GET, &one, JSON, &Value::Null).await.map(drop),
        "list" => send(client, Method::GET, &format!("{all}?limit=1"), JSON, &Value::Null).await.map(drop),
        "watch" => {
            let path = format!("{all}?watch=true&timeoutSeconds=1");
            client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.map(drop)
        }
        "create" => {
            let path = format!("{}?dryRun=All", path(rule, namespace));
            let object = object(rule, namespace, name, owner);
            let answer = send(client, Method::POST, &path, JSON, &object).await;
            match refusal(&answer) {
                // The last thing that is asked is whether it is there already.
                Some((409, "AlreadyExists", _)) => Ok(()),
                // RBAC lets the canary through, and it is there to be refused by its policy.
                Some((403, "Forbidden", message))
                    if rule.resource == "scriptrunners" && message.contains(CANARY_REFUSED) =>
                {
                    Ok(())
                }
                _ => answer.map(drop),
            }
        }
        "update" => {
            let mut found = send(client, Method::GET, &one, JSON, &Value::Null).await?;
            found["metadata"]["labels"] = json!({"a": "b"});
            send(client, Method::PUT, &format!("{one}?dryRun=All"), JSON, &found).await.map(drop)
        }
        "patch" => {
            let patch = json!({"status": {"progress": "0/0"}, "metadata": {"labels": {"a": "b"}}});
            send(client, Method::PATCH, &format!("{one}{subresource}?dryRun=All"), MERGE, &patch)
                .await
                .map(drop)
        }
        "delete" => {
            send(client, Method::DELETE, &format!("{one}?dryRun=All"), JSON, &Value::Null).await.map(drop)
        }
        other => panic!("no request for {other}"),
    }
}

/// Makes the object that the rule is tried on. Gives its path if it was not there.
async fn make(client: &Client, rule: &Rule, namespace: &str, owner: &Owner) -> Option<String> {
    let (path, name) = (path(rule, namespace), name(rule));
    let answer = send(client, Method::POST, &path, JSON, &object(rule, namespace, name, owner)).await;
    match refusal(&answer) {
        None => Some(format!("{path}/{name}")),
        Some((code, _, message)) => {
            assert_eq!(code, 409, "{message}");
            None
        }
    }
}

#[tokio::test]
async fn everything_on_the_list_can_be_done() {
    let _whole = bindings::whole().await;
    let client = admin().await;
    in_namespace(&client, "rbac-can", &[], async |namespace| {
        let operator = acting_as_operator().await;
        let owner = children::owner(&client, &namespace, "it").await;
        for rule in CLUSTER {
            match rule.resource {
                "pods" | "configmaps" => drop(make(&operator, rule, &namespace, &owner).await),
                "events" => drop(make(&client, rule, &namespace, &owner).await),
                _ => {}
            }
        }
        // In a namespace that is not this test's, so what was not there is removed again.
        let mut made = Vec::new();
        for rule in OWN_NAMESPACE.iter().filter(|rule| rule.resource != "scriptrunners") {
            made.extend(make(&client, rule, NAMESPACE, &owner).await);
        }
        let of = |rules: &'static [Rule], namespace: &str| -> Vec<(&Rule, &str, String)> {
            let things = |rule: &'static Rule| rule.verbs.iter().map(move |verb| (rule, *verb));
            rules.iter().flat_map(things).map(|(rule, verb)| (rule, verb, namespace.to_owned())).collect()
        };
        let things = [of(CLUSTER, &namespace), of(OWN_NAMESPACE, NAMESPACE)].concat();
        let answers = join_all(things.iter().map(async |(rule, verb, namespace)| {
            let answer = perform(&operator, rule, verb, namespace, &owner).await;
            answer.err().map(|error| format!("{verb} {}: {error}", rule.resource))
        }));
        let failed: Vec<_> = answers.await.into_iter().flatten().collect();
        for path in made {
            send(&client, Method::DELETE, &path, JSON, &Value::Null).await.unwrap();
        }
        assert_eq!(failed, Vec::<String>::new());
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_not_on_the_list_is_refused() {
    let client = admin().await;
    in_namespace(&client, "rbac-cannot", &[], async |namespace| {
        let operator = acting_as_operator().await;
        let core = format!("/api/v1/namespaces/{namespace}");
        let own = format!("/api/v1/namespaces/{NAMESPACE}");
        let runners = format!("/apis/scriptrunner.io/v1alpha1/namespaces/{namespace}/scriptrunners");
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let admission = "/apis/admissionregistration.k8s.io/v1";
        let definition = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}");
        let (get, post, put, merge, delete) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
        for (method, path) in [
            (&get, format!("{core}/secrets/it")),
            (&get, "/api/v1/secrets".to_owned()),
            (&get, format!("{own}/secrets")),
            (&get, format!("{own}/secrets/it")),
            (&put, format!("{own}/secrets/it")),
            (&merge, format!("{own}/secrets/scriptrunner-operator-session")),
            (&delete, format!("{own}/secrets/scriptrunner-operator-session")),
            (&post, format!("{core}/secrets")),
            (&get, format!("{core}/secrets/scriptrunner-operator-session")),
            (&get, format!("{own}/services")),
            (&get, format!("{own}/services/it")),
            (&get, format!("{core}/services/scriptrunner-operator")),
            (&merge, format!("{own}/services/scriptrunner-operator")),
            (&get, format!("{core}/pods/it/exec?command=id")),
            (&post, format!("{core}/pods/it/exec?command=id")),
            (&get, format!("{core}/pods/it/log")),
            (&post, format!("{core}/pods/it/attach")),
            (&post, format!("{core}/pods/it/portforward")),
            (&post, format!("{core}/pods/it/eviction")),
            (&post, format!("{core}/pods/it/binding")),
            (&merge, format!("{core}/pods/it")),
            (&put, format!("{core}/pods/it")),
            (&merge, format!("{core}/pods/it/status")),
            (&merge, format!("{core}/pods/it/ephemeralcontainers")),
            (&delete, format!("{core}/pods")),
            (&merge, format!("{core}/configmaps/it")),
            (&put, format!("{core}/configmaps/it")),
            (&delete, format!("{core}/configmaps")),
            (&put, format!("{own}/configmaps/it")),
            (&merge, format!("{own}/configmaps/{RECORD_NAME}")),
            (&put, format!("{core}/configmaps/{RECORD_NAME}")),
            (&post, runners.clone()),
            (&merge, format!("{runners}/it")),
            (&put, format!("{runners}/it")),
            (&delete, runners.clone()),
            (&put, format!("{runners}/it/status")),
            (&merge, "/api/v1/nodes/it".to_owned()),
            (&get, "/api/v1/nodes/it/proxy".to_owned()),
            (&merge, format!("/api/v1/namespaces/{namespace}")),
            (&post, "/api/v1/namespaces".to_owned()),
            (&post, format!("{own}/serviceaccounts/scriptrunner-operator/token")),
            (&post, format!("{core}/serviceaccounts/default/token")),
            (&post, format!("/apis/apps/v1/namespaces/{namespace}/daemonsets")),
            (&get, "/apis/events.k8s.io/v1/events".to_owned()),
            (&get, format!("{admission}/validatingadmissionpolicies")),
            (&get, format!("{admission}/validatingadmissionpolicybindings")),
            (&get, format!("{admission}/validatingadmissionpolicies/others")),
            (&get, format!("{admission}/validatingadmissionpolicybindings/others")),
            (&put, format!("{admission}/validatingadmissionpolicies/scriptrunner-spec")),
            (&merge, format!("{admission}/validatingadmissionpolicybindings/scriptrunner-spec")),
            (&delete, format!("{admission}/validatingadmissionpolicies/scriptrunner-spec")),
            (&delete, format!("{admission}/validatingadmissionpolicybindings/scriptrunner-spec")),
            (&post, format!("{admission}/mutatingwebhookconfigurations")),
            (&post, format!("{rbac}/clusterrolebindings")),
            (&post, format!("{rbac}/namespaces/{namespace}/rolebindings")),
            (&merge, format!("{rbac}/clusterroles/scriptrunner-operator")),
            (&merge, definition.clone()),
            (&get, definition.replace(CRD_NAME, "")),
            (&get, definition.replace(CRD_NAME, "others.example.org")),
            (&get, format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/it")),
            (&post, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases".to_owned()),
            (&get, format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/it")),
            (&put, format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/it")),
            (&delete, format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/it")),
        ] {
            let body = if method == get || method == delete { Value::Null } else { json!({}) };
            let content_type = if method == merge { MERGE } else { JSON };
            let path = format!("{path}{}dryRun=All", if path.contains('?') { "&" } else { "?" });
            let answer = send(&operator, method.clone(), &path, content_type, &body).await;
            // Named with the account: a refusal by anything but RBAC would not prove that RBAC refuses.
            let refused = matches!(refusal(&answer), Some((403, "Forbidden", message)) if message.contains(&operator_user()) && message.contains(" cannot "));
            assert!(refused, "{method} {path}: {answer:?}");
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

/// Rights in the form `verb group/resource/name`.
fn rights(rule: &Value) -> BTreeSet<String> {
    let list = |key: &str| -> Vec<String> {
        let list = rule[key].as_array().cloned().unwrap_or_default();
        list.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let mut names = list("resourceNames");
    if names.is_empty() {
        names.push(String::new());
    }
    let mut rights = BTreeSet::new();
    for verb in list("verbs") {
        for group in list("apiGroups") {
            for resource in list("resources") {
                rights.extend(names.iter().map(|name| format!("{verb} {group}/{resource}/{name}")));
            }
        }
    }
    rights
}

#[tokio::test]
async fn the_account_has_exactly_the_rights_of_the_list() {
    let client = admin().await;
    in_namespace(&client, "rbac-exact", &[], async |namespace| {
        let operator = acting_as_operator().await;
        let listed = |rules: &[Rule]| -> BTreeSet<String> {
            rules.iter().flat_map(|rule| rights(&serde_json::to_value(rule.policy_rule()).unwrap())).collect()
        };
        let everywhere = listed(CLUSTER);
        let own = everywhere.union(&listed(OWN_NAMESPACE)).cloned().collect();
        for (namespace, expected) in [(namespace.as_str(), everywhere), (NAMESPACE, own)] {
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}});
            let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
            let answer = send(&operator, Method::POST, path, JSON, &review).await.unwrap();
            let found: BTreeSet<String> = answer["status"]["resourceRules"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(rights)
                // What every user may ask about himself.
                .filter(|right| !right.starts_with("create authorization.k8s.io/selfsubject") && !right.starts_with("create authentication.k8s.io/selfsubject"))
                .collect();
            assert_eq!(found, expected, "in {namespace}");
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
