//! What running servers say of themselves: their `/status` is long-polled, and each change has the run looked at.
//! Must not ask a server that does not run, nor write anything.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{Request, StatusCode, header::HOST};
use fedtune_crds::live::LiveStatus;
use futures::channel::mpsc::UnboundedSender;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use kube::{Client, runtime::reflector::ObjectRef};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{caches::StoredRun, controller::build::names::HTTP_PORT};

/// Longest answer of a server: a status has at most 3 KiB.
const ANSWER_BYTES: usize = 64 << 10;

/// A server answers within 30 seconds, also where nothing changes.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// Between two answers, so that a server with much to say is not asked all the time.
const PACE: Duration = Duration::from_secs(1);

/// Before a server that does not answer is asked again; it grows up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// By which way a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StatusVia {
    /// At its pod's address; for an operator inside of the cluster.
    PodIp,
    /// By the API server's proxy; needs the right to `pods/proxy`.
    ApiProxy,
}

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum LiveError {
    #[error("it cannot be connected to: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answered with status {0}")]
    Refused(StatusCode),
    #[error("its answer cannot be read: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered something else than a status: {0}")]
    NoStatus(#[from] serde_json::Error),
    #[error("the API server's proxy says: {0}")]
    Proxy(#[from] kube::Error),
    #[error("it did not answer within {} seconds", ANSWER_WITHIN.as_secs())]
    TimedOut,
}

/// A server's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
    /// Its address.
    pub ip: String,
}

/// All servers that are followed. Clones share them.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    client: Client,
    via: StatusVia,
    touched: UnboundedSender<ObjectRef<StoredRun>>,
    runs: Mutex<HashMap<String, Followed>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("via", &self.0.via).finish_non_exhaustive()
    }
}

/// A server that is followed until this is dropped.
#[derive(Debug)]
struct Followed {
    target: Target,
    latest: Option<LiveStatus>,
    asking: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

impl Live {
    /// Asks by `via`, and says to `touched` of which runs something new is known.
    pub fn new(client: Client, via: StatusVia, touched: UnboundedSender<ObjectRef<StoredRun>>) -> Self {
        Self(Arc::new(Shared { client, via, touched, runs: Mutex::default() }))
    }

    /// Follows the server of the run with this uid, which now is at `target`; without one, asks nobody and keeps what
    /// was said last.
    pub fn follow(&self, run: &ObjectRef<StoredRun>, uid: &str, target: Option<Target>) {
        let mut runs = self.runs();
        let followed = runs.get_mut(uid);
        match (target, followed) {
            (Some(target), Some(followed)) if followed.target == target => {}
            (Some(target), followed) => {
                let latest = followed.and_then(|followed| followed.latest.take());
                let asking = tokio::spawn(ask(self.clone(), run.clone(), uid.to_owned(), target.clone()));
                runs.insert(uid.to_owned(), Followed { target, latest, asking });
            }
            (None, Some(followed)) => followed.asking.abort(),
            (None, None) => {}
        }
    }

    /// Forgets a run that has ended or is gone.
    pub fn forget(&self, uid: &str) {
        self.runs().remove(uid);
    }

    /// What the server of the run with this uid said last.
    pub fn latest(&self, uid: &str) -> Option<LiveStatus> {
        self.runs().get(uid)?.latest.clone()
    }

    fn heard(&self, uid: &str, target: &Target, status: LiveStatus) {
        if let Some(followed) = self.runs().get_mut(uid).filter(|followed| followed.target == *target) {
            followed.latest = Some(status);
        }
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<String, Followed>> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one server for as long as it is followed.
async fn ask(live: Live, run: ObjectRef<StoredRun>, uid: String, target: Target) {
    let mut after = None;
    let mut retry = RETRY.0;
    loop {
        let answer = timeout(ANSWER_WITHIN, live.0.status(&target, after)).await.unwrap_or(Err(LiveError::TimedOut));
        match answer {
            Ok(status) => {
                let news = after != Some(status.seq);
                after = Some(status.seq);
                retry = RETRY.0;
                if news {
                    live.heard(&uid, &target, status);
                    // Nobody listens any more: the operator is on its way out.
                    let _ = live.0.touched.unbounded_send(run.clone());
                }
                sleep(PACE).await;
            }
            Err(error) => {
                tracing::debug!(%run, pod = target.pod, %error, "a server does not say how it stands");
                after = None;
                sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}

impl Shared {
    /// The server's status; with `after`, once it differs from that one or half a minute has passed.
    async fn status(&self, target: &Target, after: Option<u64>) -> Result<LiveStatus, LiveError> {
        let query = after.map(|seq| format!("?after={seq}")).unwrap_or_default();
        match self.via {
            StatusVia::PodIp => by_address(&target.ip, &format!("/status{query}")).await,
            StatusVia::ApiProxy => self.by_proxy(target, &query).await,
        }
    }

    async fn by_proxy(&self, target: &Target, query: &str) -> Result<LiveStatus, LiveError> {
        let Target { namespace, pod, .. } = target;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{HTTP_PORT}/proxy/status{query}");
        let request = Request::get(path).body(Vec::new()).expect("names of objects make a path");
        Ok(self.client.request(request).await?)
    }
}

async fn by_address(ip: &str, path: &str) -> Result<LiveStatus, LiveError> {
    let host = if ip.contains(':') { format!("[{ip}]:{HTTP_PORT}") } else { format!("{ip}:{HTTP_PORT}") };
    let stream = TcpStream::connect(&host).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new()).expect("an address makes a header");
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.map_err(LiveError::Body);
    connection.abort();
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(&body?.to_bytes())?),
        other => Err(LiveError::Refused(other)),
    }
}
