//! How a cluster is doing, as text for people.

use std::fmt::Write;

use crate::{
    api,
    cluster::Cluster,
    error::{Error, Result},
};

/// Everything a person wants to know about a cluster.
pub async fn report(cluster: &Cluster) -> Result<String> {
    let mut text = String::new();
    let encode = |_| Error::Encode { what: "the report".into(), reason: "out of memory".into() };
    let mut line = |name: &str, value: String| writeln!(text, "{name:<24} {value}").map_err(encode);
    line("cluster", cluster.name().into())?;
    line("kubeconfig", cluster.kubeconfig().display().to_string())?;
    line("kubectl", cluster.kubectl().display().to_string())?;
    line("api server", cluster.api_url())?;
    line("audit log", cluster.audit_log().display().to_string())?;
    line("logs", cluster.logs().display().to_string())?;
    let client = api::client(&cluster.state().folder().pki().join("admin.kubeconfig")).await;
    let ready = match &client {
        Ok(client) => api::readiness(client).await,
        Err(error) => Err(error.to_string()),
    };
    for (name, log, running) in cluster.components()? {
        let health = match (running, name, &ready) {
            (false, ..) => format!("has ended, see {}", log.display()),
            (true, "kube-apiserver", Err(reason)) => format!("not ready: {reason}"),
            (true, ..) => "running".into(),
        };
        line(name, health)?;
    }
    let known = match (&client, &ready) {
        (Ok(client), Ok(())) => api::node_states(client).await?,
        _ => Vec::new(),
    };
    for node in cluster.node_names() {
        let here = format!("{:?}", cluster.condition(&node)?).to_lowercase();
        let there = known.iter().find(|(name, _)| *name == node).map_or("unknown", |(_, state)| state);
        line(&node, format!("{here}, {there}"))?;
    }
    Ok(text)
}
