//! Follows a watch line by line, so that the size of what was written is known as it stands.

use std::time::Instant;

use anyhow::{Context, ensure};
use futures::{AsyncBufReadExt, TryStreamExt};
use kube::Client;
use serde::Deserialize;

/// What is around an object in a line of a watch.
const ENVELOPE: &str = r#"{"type":"","object":}"#;

/// A line of a watch.
#[derive(Deserialize, Debug)]
pub(crate) struct Event<T> {
    /// ADDED, MODIFIED or DELETED.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// As much of the object as is needed.
    pub(crate) object: T,
}

#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "type")]
    kind: String,
    object: OutlineObject,
}

#[derive(Deserialize)]
struct OutlineObject {
    #[serde(default)]
    metadata: Metadata,
    /// Of an error.
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct List {
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    resource_version: String,
}

/// Follows everything that happens at `path` (with its query, such as `/api/v1/pods?labelSelector=x`) from now on.
/// The first return is the beginning: what happens after it is seen. The second runs until something cannot be seen any
/// more, which is an error; a watch that only ends is taken up again where it ended.
pub(crate) async fn follow<T, F>(
    client: Client,
    path: &str,
    mut see: F,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<T, F>>
where
    T: for<'de> Deserialize<'de>,
    F: FnMut(Instant, usize, Event<T>) + Send,
{
    let joint = if path.contains('?') { '&' } else { '?' };
    let list: List = client
        .request(get(&format!("{path}{joint}limit=1"))?)
        .await
        .with_context(|| format!("list {path}"))?;
    let watch = format!("{path}{joint}watch=true&allowWatchBookmarks=true&resourceVersion=");
    let mut version = list.metadata.resource_version;
    let mut stream =
        client.request_stream(get(&format!("{watch}{version}"))?).await.context(watch.clone())?;
    Ok(async move {
        loop {
            let mut lines = Box::pin(stream.lines());
            while let Some(line) = lines.try_next().await.with_context(|| watch.clone())? {
                let now = Instant::now();
                let outline: Outline = serde_json::from_str(&line).with_context(|| watch.clone())?;
                let Outline { kind, object } = outline;
                ensure!(kind != "ERROR", "{watch} failed: {}", object.message);
                version = object.metadata.resource_version;
                if kind != "BOOKMARK" {
                    let bytes = line.len().saturating_sub(ENVELOPE.len() + kind.len());
                    see(now, bytes, serde_json::from_str(&line).with_context(|| watch.clone())?);
                }
            }
            drop(lines);
            stream =
                client.request_stream(get(&format!("{watch}{version}"))?).await.context(watch.clone())?;
        }
    })
}

fn get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).with_context(|| format!("make a request for {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_that_of_the_object_alone() {
        let object = r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#;
        let line = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
        let outline: Outline = serde_json::from_str(&line).unwrap();
        assert_eq!(line.len() - ENVELOPE.len() - outline.kind.len(), object.len());
        assert_eq!(outline.object.metadata.resource_version, "7");
    }

    #[test]
    fn an_error_is_told_by_its_message() {
        let line =
            r#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"message":"too old","code":410}}"#;
        let outline: Outline = serde_json::from_str(line).unwrap();
        assert_eq!((outline.kind.as_str(), outline.object.message.as_str()), ("ERROR", "too old"));
    }
}
