//! Waits for a state of the world, and says what was seen instead when it does not come.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// Time between the first two looks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Longest time between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The state at the latest look, for the error text when time runs out.
#[derive(Debug, Default)]
pub struct Seen(String);

impl Seen {
    /// Notes the present state.
    pub fn note(&mut self, state: impl Into<String>) {
        self.0 = state.into();
    }
}

/// Looks again and again until `look` gives a value.
///
/// `look` notes what it sees; an error is noted too and does not end the waiting, since connections break when nodes
/// are killed. When `deadline` has passed, the error carries what was seen last. A single look never outlasts it.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(pods: kube::Api<k8s_openapi::api::core::v1::Pod>) -> scriptrunner_testcluster::Result<()> {
/// use scriptrunner_testcluster::wait::until;
/// let address = until("pod \"web\" to have an address", Duration::from_secs(30), async |seen| {
///     let pod = pods.get("web").await?;
///     seen.note(format!("{:?}", pod.status));
///     Ok::<_, kube::Error>(pod.status.and_then(|status| status.pod_ip))
/// })
/// .await?;
/// # Ok(()) }
/// ```
pub async fn until<T, E, F>(what: &str, deadline: Duration, mut look: F) -> Result<T>
where
    E: Display,
    F: AsyncFnMut(&mut Seen) -> Result<Option<T>, E>,
{
    let end = Instant::now() + deadline;
    let mut seen = Seen("nothing yet".into());
    let mut pause = FIRST_PAUSE;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        let mut latest = Seen::default();
        match tokio::time::timeout(rest, look(&mut latest)).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => latest.0 = format!("{} (error: {error})", latest.0).trim().to_owned(),
            Err(_) => latest.0 = format!("{} (the latest look took too long)", seen.0),
        }
        if !latest.0.is_empty() {
            seen = latest;
        }
        if Instant::now() + pause > end {
            return Err(Error::Wait { what: what.into(), deadline, seen: seen.0 });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn the_value_is_given_as_soon_as_it_is_there() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(5), async |_| {
            looks += 1;
            Ok::<_, Infallible>((looks == 3).then_some(looks))
        })
        .await;
        assert_eq!(value.unwrap(), 3);
    }

    #[tokio::test]
    async fn the_error_says_what_was_seen_last() {
        let result = until("a phase", Duration::from_millis(50), async |seen| {
            seen.note("phase Pending");
            Ok::<Option<()>, Infallible>(None)
        })
        .await;
        let text = result.unwrap_err().to_string();
        assert_eq!(text, "a phase: not within 50ms; last seen: phase Pending");
    }

    #[tokio::test]
    async fn an_error_is_seen_and_a_hanging_look_ends() {
        let result = until("an answer", Duration::from_millis(80), async |seen| {
            seen.note("asked");
            Err::<Option<()>, _>("connection refused")
        })
        .await;
        assert!(result.unwrap_err().to_string().ends_with("asked (error: connection refused)"));
        let result = until("an answer", Duration::from_millis(30), async |_| {
            std::future::pending::<Result<Option<()>, Infallible>>().await
        })
        .await;
        assert!(result.unwrap_err().to_string().contains("took too long"));
    }
}
