//! A namespace per test: made for it, shown when the test fails, removed after it.

use std::{
    fmt::Write as _,
    io::Write as _,
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::{
    api::core::v1::{Event, Namespace, Pod, ServiceAccount},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, PostParams},
};
use serde_json::json;

use crate::{
    error::{Error, Result},
    wait,
};

/// The label with the name of the test that a namespace was made for.
pub const TEST_LABEL: &str = "testcluster/test";

/// Runs `body` with the name of a fresh namespace, and deletes the namespace afterwards.
///
/// The namespace is called after the test plus a random ending and carries `labels` (for example those of Pod
/// Security). When `body` gives an error or panics, everything in the namespace is first written to standard error:
/// `ScriptRunners`, pods, states of containers, events and logs.
///
/// ```no_run
/// # use scriptrunner_testcluster::{Error, namespace::in_namespace};
/// # async fn example(client: kube::Client) -> Result<(), Error> {
/// in_namespace(&client, "runs-once", &[], async |namespace| {
///     let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client.clone(), &namespace);
///     // ...
///     Ok::<_, Error>(())
/// })
/// .await
/// # }
/// ```
pub async fn in_namespace<T, E, F>(
    client: &Client,
    test: &str,
    labels: &[(&str, &str)],
    body: F,
) -> Result<T, E>
where
    E: From<Error>,
    F: AsyncFnOnce(String) -> Result<T, E>,
{
    let namespace = create(client, test, labels).await?;
    let outcome = AssertUnwindSafe(body(namespace.clone())).catch_unwind().await;
    if !matches!(outcome, Ok(Ok(_))) {
        let description = describe(client, &namespace).await;
        // Nobody to read it is no reason to hide the failure itself.
        let _ = std::io::stderr().lock().write_all(description.as_bytes());
    }
    let deleted = Api::<Namespace>::all(client.clone()).delete(&namespace, &DeleteParams::default()).await;
    match outcome {
        Ok(Ok(value)) => {
            deleted.map_err(Error::api(format!("delete namespace {namespace:?}")))?;
            Ok(value)
        }
        Ok(Err(error)) => Err(error),
        Err(panic) => resume_unwind(panic),
    }
}

async fn create(client: &Client, test: &str, labels: &[(&str, &str)]) -> Result<String> {
    let prefix = prefix(test);
    let mut all = serde_json::Map::new();
    all.insert(TEST_LABEL.into(), prefix.trim_end_matches('-').into());
    all.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())));
    let object = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": prefix, "labels": all},
    }))
    .map_err(|error| Error::Encode { what: "a namespace".into(), reason: error.to_string() })?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let doing = format!("create a namespace for {test:?}");
    let made = namespaces.create(&PostParams::default(), &object).await.map_err(Error::api(doing))?;
    let name = made.name_any();
    // Pods are refused until the namespace has its service account.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
    wait::until(&format!("service account of namespace {name:?}"), Duration::from_secs(20), async |_| {
        accounts.get_opt("default").await
    })
    .await?;
    Ok(name)
}

/// The name of a test as the beginning of a namespace's name.
fn prefix(test: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let name: String = test.rsplit("::").next().unwrap_or(test).chars().map(plain).take(50).collect();
    format!("{}-", name.trim_matches('-'))
}

/// Everything about a namespace that explains why a test failed. What cannot be read is said in its place.
pub async fn describe(client: &Client, namespace: &str) -> String {
    let mut text = format!("\n===== namespace {namespace} =====\n");
    for part in [
        script_runners(client, namespace).await,
        pods(client, namespace).await,
        events(client, namespace).await,
    ] {
        text.push_str(&part.unwrap_or_else(|error| format!("({error})\n")));
    }
    text
}

async fn script_runners(client: &Client, namespace: &str) -> Result<String, kube::Error> {
    let mut text = String::new();
    for group in client.list_api_groups().await?.groups {
        let Some(version) = group.preferred_version else { continue };
        if !group.name.contains("scriptrunner") && !group.name.contains("script-runner") {
            continue;
        }
        for resource in client.list_api_group_resources(&version.group_version).await?.resources {
            if resource.name.contains('/') || !resource.namespaced {
                continue;
            }
            let kind = GroupVersionKind::gvk(&group.name, &version.version, &resource.kind);
            let kind = ApiResource::from_gvk_with_plural(&kind, &resource.name);
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
            for mut object in api.list(&ListParams::default()).await? {
                object.metadata.managed_fields = None;
                let _ = writeln!(text, "--- {} {}", resource.kind, object.name_any());
                text.push_str(&serde_saphyr::to_string(&object).unwrap_or_default());
            }
        }
    }
    Ok(text)
}

async fn pods(client: &Client, namespace: &str) -> Result<String, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut text = String::new();
    for pod in api.list(&ListParams::default()).await? {
        let name = pod.name_any();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
        let status = pod.status.unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let reason = [status.reason, status.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let deleted = pod.metadata.deletion_timestamp.map_or("", |_| ", being deleted");
        let _ = writeln!(text, "--- pod {name} on {node}: {phase}{deleted} {reason}");
        let containers =
            status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
        for container in containers {
            let state = serde_json::to_string(&container.state).unwrap_or_default();
            let last = serde_json::to_string(&container.last_state).unwrap_or_default();
            let _ = writeln!(text, "container {}: {state}, before: {last}", container.name);
            let params =
                LogParams { container: Some(container.name), tail_lines: Some(100), ..LogParams::default() };
            match api.logs(&name, &params).await {
                Ok(log) => log.lines().for_each(|line| text.extend(["  | ", line, "\n"])),
                Err(error) => text.extend(["  (", &error.to_string(), ")\n"]),
            }
        }
    }
    Ok(text)
}

async fn events(client: &Client, namespace: &str) -> Result<String, kube::Error> {
    let mut events =
        Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items;
    events.sort_by_key(event_time);
    let mut text = "--- events\n".to_owned();
    for event in &events {
        let object = &event.involved_object;
        let _ = writeln!(
            text,
            "{} {} {} {}: {}",
            event_time(event).map(|time| time.to_string()).unwrap_or_default(),
            object.kind.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default(),
        );
    }
    Ok(text)
}

fn event_time(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    last.or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_called_after_its_test() {
        assert_eq!(prefix("pacing::three_nodes_run_at_once"), "three-nodes-run-at-once-");
        assert_eq!(prefix(&"x".repeat(80)).len(), 51);
    }
}
