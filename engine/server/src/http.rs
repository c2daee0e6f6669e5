//! The HTTP endpoint: metrics, health, readiness, status.
//!
//! Read-only and without authentication, so it listens where the configuration says and nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use logweir_core::{Error, Result};
use logweir_runtime::{Shutdown, StreamProgress, StreamState};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tokio::net::TcpListener;

use crate::live;

/// How often histograms are drained when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the endpoint shows.
#[derive(Clone)]
struct Shown {
    metrics: PrometheusHandle,
    streams: Arc<[Arc<StreamProgress>]>,
}

/// Starts to record metrics. Must come before the streams, which register theirs when they start.
pub(crate) fn record_metrics() -> Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| Error::internal("metrics were recorded already").source(error.to_string()))?;
    Ok(handle)
}

/// Listens.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::config("could not listen for HTTP")
            .context("address", address)
            .remedy("choose another `http.listen`, or stop what uses the port")
            .source(error)
    })
}

/// Answers until `end` is requested.
pub(crate) async fn serve(listener: TcpListener, metrics: PrometheusHandle, streams: Vec<Arc<StreamProgress>>, end: Shutdown) {
    let shown = Shown { metrics: metrics.clone(), streams: streams.into() };
    let router = Router::new()
        .route("/metrics", get(render_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/status", get(status))
        .with_state(shown);
    let stop = end.clone();
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            metrics.run_upkeep();
        }
    };
    let serve = axum::serve(listener, router).with_graceful_shutdown(async move { stop.requested().await });
    tokio::select! {
        outcome = serve => if let Err(error) = outcome {
            tracing::error!(%error, "the HTTP endpoint has stopped");
        },
        () = upkeep => {}
    }
}

async fn render_metrics(State(shown): State<Shown>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shown.metrics.render()).into_response()
}

/// Ready when every stream has opened its source and destinations and runs.
async fn readiness(State(shown): State<Shown>) -> Response {
    let states: Vec<_> = shown
        .streams
        .iter()
        .map(|stream| {
            let snapshot = stream.snapshot();
            let mut state = json!({ "stream": snapshot.stream, "state": snapshot.state.as_str() });
            if let Some(error) = snapshot.state.error() {
                state["error"] = error.into();
            }
            let broken = snapshot.consumers.iter().filter(|consumer| consumer.error.is_some());
            let broken: Vec<_> = broken.map(|consumer| json!({ "destination": consumer.destination, "error": consumer.error })).collect();
            if !broken.is_empty() {
                state["destinations"] = broken.into();
            }
            state
        })
        .collect();
    let ready = shown.streams.iter().all(|stream| stream.state() == StreamState::Running);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": ready, "streams": states }))).into_response()
}

async fn status(State(shown): State<Shown>) -> Json<live::Process> {
    Json(live::Process::observe(&shown.streams))
}
