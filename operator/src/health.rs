//! /healthz, /readyz and /metrics.
//!
//! Health is narrow: the process answers. Ready is the truth: this process leads, its watches have shown everything once,
//! and the installed schema is new enough; the answer names what is missing.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What the operator still waits for; none once it is ready.
#[derive(Debug)]
pub struct Readiness(Mutex<Option<String>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new(Some("starting".to_owned())))
    }
}

impl Readiness {
    /// Says what is being waited for.
    pub fn wait_for(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    }

    /// Says that nothing is being waited for.
    pub fn ready(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What is being waited for.
    pub fn missing(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Shared = State<(Arc<Readiness>, Arc<Metrics>)>;

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(text))
        .with_state((readiness, metrics));
    axum::serve(listener, router).await
}

async fn readyz(State((readiness, _)): Shared) -> (StatusCode, String) {
    match readiness.missing() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
    }
}

async fn text(State((_, metrics)): Shared) -> impl IntoResponse {
    match metrics.text() {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        ),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string())
        }
    }
}
