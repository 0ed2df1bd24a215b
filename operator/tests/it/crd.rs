//! The definition on a real API server: that it installs, that every field has its manual and its bound, and what
//! `kubectl get` shows of it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{SCHEMA, labels};
use scriptrunner_operator::rbac::CRD_NAME;
use scriptrunner_testcluster::{Error, namespace::in_namespace};
use serde_json::{Value, json};

use crate::cluster::{admin, apply, definition, install_copy};

/// The columns of `kubectl get scriptrunners`.
const COLUMNS: [(&str, &str); 10] = [
    ("Name", "string"),
    ("Mode", "string"),
    ("Desired", "integer"),
    ("Active", "integer"),
    ("OK", "integer"),
    ("Failed", "integer"),
    ("Skipped", "integer"),
    ("Groups", "integer"),
    ("Progress", "string"),
    ("Age", "date"),
];

#[tokio::test]
async fn the_definition_installs_over_itself() {
    let client = admin().await;
    let installed = apply(&client, &definition()).await;
    let schema =
        installed.metadata.annotations.and_then(|annotations| annotations.get(labels::SCHEMA).cloned());
    assert_eq!(schema, Some(SCHEMA.to_string()));
    let resources = client.list_api_group_resources("scriptrunner.io/v1alpha1").await.unwrap().resources;
    let names: Vec<_> = resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["scriptrunners", "scriptrunners/status"], "status is the only subresource");
    assert_eq!(resources[0].short_names.as_deref(), Some(["sr".to_owned()].as_slice()));
    assert!(resources[0].namespaced);
}

#[tokio::test]
async fn a_server_that_never_saw_it_takes_every_rule() {
    let client = admin().await;
    in_namespace(&client, "new-definition", &[], async |namespace| {
        // Over itself the API server does not weigh the cost of rules again; under a new name it does.
        let copy = install_copy(&client, &namespace).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let installed = definitions.get(&format!("scriptrunners.{}", copy.group)).await.unwrap();
        let conditions = installed.status.unwrap().conditions.unwrap();
        let bad: Vec<_> = conditions
            .iter()
            .filter(|condition| (condition.type_ == "NonStructuralSchema") == (condition.status == "True"))
            .collect();
        assert_eq!(bad, Vec::<&_>::new());
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn kubectl_get_shows_the_columns() {
    let client = admin().await;
    in_namespace(&client, "columns", &[], async |namespace| {
        let copy = install_copy(&client, &namespace).await;
        let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &copy);
        let object = DynamicObject::new("all", &copy)
            .data(json!({"spec": {"script": "true", "nodeLabelSelector": {}}}));
        objects.create(&PostParams::default(), &object).await.unwrap();
        let status = json!({"status": {"desired": 20, "pending": 0, "active": 1, "succeeded": 16, "failed": 2,
            "skipped": 1, "unknown": 0, "failing": 0, "connected": 0, "progress": "19/20", "outputGroupCount": 3}});
        objects.patch_status("all", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let path = format!("/apis/{}/namespaces/{namespace}/scriptrunners/all", copy.api_version);
        let request = http::Request::get(path)
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .unwrap();
        let table: Value = client.request(request).await.unwrap();
        let columns: Vec<_> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| (column["name"].as_str().unwrap(), column["type"].as_str().unwrap()))
            .collect();
        assert_eq!(columns, COLUMNS);
        let mut cells = table["rows"][0]["cells"].as_array().unwrap().clone();
        cells.pop();
        assert_eq!(Value::from(cells), json!(["all", "Normal", 20, 1, 16, 2, 1, 3, "19/20"]));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

/// Calls `look` with the path and schema of every field, item and value below `schema`.
pub(crate) fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, look);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], look);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], look);
    }
}

pub(crate) fn schema() -> Value {
    definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

#[test]
fn every_field_has_its_manual() {
    let mut silent = Vec::new();
    walk("", &schema(), &mut |path, field| {
        let is_field = !path.ends_with("[]") && !path.ends_with("{}");
        let text = field["description"].as_str().unwrap_or_default();
        if is_field && !text.trim_end().ends_with('.') {
            silent.push(path.to_owned());
        }
    });
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn every_field_of_a_spec_is_bounded() {
    let mut boundless = Vec::new();
    walk("spec", &schema()["properties"]["spec"], &mut |path, field| {
        let has = |bounds: &[&str]| bounds.iter().all(|bound| !field[*bound].is_null());
        let bounded = match field["type"].as_str() {
            Some("string") => has(&["enum"]) || has(&["maxLength"]),
            Some("integer") => has(&["minimum", "maximum"]),
            Some("array") => has(&["maxItems"]),
            Some("object") => field["additionalProperties"].is_null() || has(&["maxProperties"]),
            Some("boolean") => true,
            _ if field["x-kubernetes-int-or-string"] == true => has(&["minimum", "maximum", "maxLength"]),
            _ => false,
        };
        if !bounded {
            boundless.push(path.to_owned());
        }
    });
    assert_eq!(boundless, Vec::<String>::new());
}

#[test]
fn an_explicit_null_is_as_good_as_nothing() {
    // Where a field may be null the API server keeps the null, and each reader then judges it in its own way: once a policy
    // took one for a value that was not there. Where it may not, the API server takes the null away before anybody looks.
    let mut nullable = Vec::new();
    walk("spec", &schema()["properties"]["spec"], &mut |path, field| {
        if field["nullable"] == true {
            nullable.push(path.to_owned());
        }
    });
    assert_eq!(nullable, Vec::<String>::new());
}

#[test]
fn the_schema_of_the_status_has_no_bounds() {
    // An older operator has to be able to read what a newer one wrote.
    let mut bounds = Vec::new();
    walk("status", &schema()["properties"]["status"], &mut |path, field| {
        for bound in ["enum", "maxLength", "maxItems", "maxProperties", "maximum", "pattern"] {
            // The conditions are Kubernetes' own type.
            if !field[bound].is_null() && !path.starts_with("status.conditions") {
                bounds.push(format!("{path}: {bound}"));
            }
        }
    });
    assert_eq!(bounds, Vec::<String>::new());
}

#[test]
fn the_installed_definition_is_the_one_that_is_read() {
    assert_eq!(definition()["metadata"]["name"], CRD_NAME);
    assert_eq!(definition()["spec"]["scope"], "Namespaced");
}
