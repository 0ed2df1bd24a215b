//! Why a connection is not accepted, and how that is said: with a code, one frame, and a word for the metrics. Pure.

use std::time::Duration;

use http::StatusCode;
use scriptrunner_api::session::{SUBPROTOCOL, ToRunner};

/// Why a connection is not accepted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// For the metrics.
    pub(super) word: &'static str,
    /// The code of the answer.
    pub(super) code: StatusCode,
    /// Its body, or the last frame of a session.
    pub(super) frame: ToRunner,
}

impl Refusal {
    /// For now: the runner comes again.
    pub(super) fn later(word: &'static str, wait: Duration, reason: &str) -> Self {
        Self::retry(StatusCode::SERVICE_UNAVAILABLE, word, wait, reason)
    }

    /// For now, because of the token: the runner comes again with a fresh one.
    pub(super) fn other_token(word: &'static str, wait: Duration, reason: &str) -> Self {
        Self::retry(StatusCode::UNAUTHORIZED, word, wait, reason)
    }

    fn retry(code: StatusCode, word: &'static str, wait: Duration, reason: &str) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { word, code, frame: ToRunner::RetryAfter { millis, reason: reason.to_owned() } }
    }

    /// For good.
    pub(super) fn never(code: StatusCode, word: &'static str, reason: &str) -> Self {
        Self { word, code, frame: ToRunner::Refused { reason: reason.to_owned() } }
    }

    /// There will be nothing more to say: the pod ends or has ended, or what it did is stored.
    pub(super) fn over(word: &'static str, reason: &str) -> Self {
        Self::never(StatusCode::GONE, word, reason)
    }

    /// The request is none for a session of this version.
    pub(super) fn protocol() -> Self {
        let reason =
            format!("this operator speaks {SUBPROTOCOL} over WebSocket version 13, and nothing else");
        Self::never(StatusCode::BAD_REQUEST, "protocol", &reason)
    }

    /// This process does not lead.
    pub(super) fn not_leader() -> Self {
        Self { word: "not_leader", code: StatusCode::SERVICE_UNAVAILABLE, frame: ToRunner::NotLeader }
    }
}
