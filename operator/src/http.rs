//! `/healthz`, `/readyz` and `/metrics` over plain HTTP, for the kubelet and Prometheus.
//! Must not say anything about a run that its owner would not want Prometheus to know.

use std::{future::Future, io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::TEXT_FORMAT;
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// Why the address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("--listen {address} cannot be listened on: {reason}; choose an address of this machine and a free port")]
pub struct ListenError {
    address: SocketAddr,
    reason: io::Error,
}

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Desk {
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the operator does its work or stands by to do it.
    pub ready: watch::Receiver<bool>,
}

/// Listens at `address` (port 0: any free one), logs where, and gives what serves until it is dropped.
///
/// # Errors
/// Where the address cannot be had.
pub async fn serve(address: SocketAddr, desk: Desk) -> Result<impl Future<Output = io::Result<()>>, ListenError> {
    let failed = |reason| ListenError { address, reason };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let chosen = listener.local_addr().map_err(failed)?;
    tracing::info!(address = %chosen, "probes and metrics are served");
    Ok(axum::serve(listener, router(desk)).into_future())
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(desk)
}

async fn ready(State(desk): State<Desk>) -> Response {
    if *desk.ready.borrow() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the API server has not answered yet\n").into_response()
    }
}

async fn metrics(State(desk): State<Desk>) -> Response {
    match desk.metrics.page() {
        Ok(page) => ([(CONTENT_TYPE, TEXT_FORMAT)], page).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")).into_response()
        }
    }
}
