//! Telemetry over plain HTTP/1, for the kubelet, the operator and Prometheus.
//! Must not carry data of clients, nor let anyone hold the process up: connections, headers and time are bounded.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use fedtune_crds::live::LiveStatus;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::TEXT_FORMAT;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use super::{Readiness, Role, Telemetry, termination::cut};

/// What a peer may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections that are answered at once; more of them wait.
    pub(super) connections: usize,
    /// How long a peer may take over the head of its request.
    pub(super) head_within: Duration,
    /// How long a connection, which serves one request, may last.
    pub(super) connection_within: Duration,
    /// How long `/status` waits for a change.
    pub(super) longest_wait: Duration,
}

/// A connection has time for its head, the longest wait, and an answer that is read slowly.
const BOUNDS: Bounds = Bounds {
    connections: 64,
    head_within: Duration::from_secs(5),
    connection_within: Duration::from_secs(45),
    longest_wait: Duration::from_secs(30),
};

/// Bytes of the head of a request, at most.
const HEAD_BYTES: usize = 16 << 10;

/// Before the next try where the system gives no connection, as when it is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why telemetry cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be had.
    #[error("--http {address} cannot be listened on: {reason}; choose an address of this machine and a free port")]
    Listen {
        /// As it was given.
        address: SocketAddr,
        /// Why.
        reason: io::Error,
    },
}

/// Telemetry that is being served, until this is dropped.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Http {
    /// Serves `telemetry` at `address` (port 0: any free one), and logs where.
    pub fn bind(address: SocketAddr, telemetry: &Telemetry, runtime: &Handle) -> Result<Self, HttpError> {
        Self::bind_within(BOUNDS, address, telemetry, runtime)
    }

    pub(super) fn bind_within(
        bounds: Bounds,
        address: SocketAddr,
        telemetry: &Telemetry,
        runtime: &Handle,
    ) -> Result<Self, HttpError> {
        let failed = |reason| HttpError::Listen { address, reason };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let chosen = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %chosen, "telemetry is served");
        let serving = runtime.spawn(serve(bounds, listener, router(Desk { bounds, telemetry: telemetry.clone() })));
        Ok(Self { address: chosen, serving })
    }

    /// Where it is served, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(bounds: Bounds, listener: TcpListener, router: Router) {
    let free = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let place = Arc::clone(&free).acquire_owned().await.expect("nobody closes the semaphore");
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(bounds, stream, router.clone(), place));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Answers the one request of a connection.
async fn converse(bounds: Bounds, stream: TcpStream, router: Router, _place: OwnedSemaphorePermit) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_within)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A peer that broke off, spoke no HTTP or took too long is not told.
    let _ = timeout(bounds.connection_within, connection).await;
}

/// What answers are made from.
#[derive(Debug, Clone)]
struct Desk {
    bounds: Bounds,
    telemetry: Telemetry,
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .fallback(not_served)
        .method_not_allowed_fallback(not_served)
        .with_state(desk)
}

async fn healthz() -> &'static str {
    "alive\n"
}

async fn readyz(State(Desk { telemetry, .. }): State<Desk>) -> Response {
    match telemetry.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(reason) => sentence(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {reason}")),
    }
}

async fn status(State(Desk { bounds, telemetry }): State<Desk>, RawQuery(query): RawQuery) -> Response {
    match telemetry.role() {
        Role::Server => {}
        Role::Client(_) => return sentence(StatusCode::NOT_FOUND, "a client has no /status; its server has"),
    }
    match after(query.as_deref().unwrap_or_default()) {
        Ok(None) => json(&telemetry.status()),
        Ok(Some(seq)) => json(&telemetry.status_after(seq, bounds.longest_wait).await),
        Err(reason) => sentence(StatusCode::BAD_REQUEST, &reason),
    }
}

/// The number in `after=N`; none where it is not asked for.
fn after(query: &str) -> Result<Option<u64>, String> {
    let Some(text) = query.split('&').find_map(|pair| pair.strip_prefix("after=").or((pair == "after").then_some("")))
    else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        format!("after must be the seq of an earlier answer, as in /status?after=7, and is {:?}", cut(text, 64))
    })
}

async fn metrics(State(Desk { telemetry, .. }): State<Desk>) -> Response {
    // A volume that hangs holds up this scrape and nothing else.
    match spawn_blocking(move || telemetry.metrics()).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => {
            sentence(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be written: {error}"))
        }
        Err(error) => sentence(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics were not collected: {error}")),
    }
}

async fn not_served() -> Response {
    sentence(StatusCode::NOT_FOUND, "there is GET /healthz, /readyz, /status and /metrics here, and nothing else")
}

fn json(status: &LiveStatus) -> Response {
    let text = serde_json::to_string(status).expect("a status is text and numbers");
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

fn sentence(code: StatusCode, text: &str) -> Response {
    (code, format!("{text}\n")).into_response()
}
