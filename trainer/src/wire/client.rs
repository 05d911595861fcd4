//! The client's end: one attempt at a session with a server.
//! Must not try again: whether another attempt is worth it, and when, is for the caller to decide.

use std::{error::Error as _, future, io, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{
    FRAME_BYTES, KeepAlive, Link, Terms, WINDOW_BYTES,
    dial::{NoConnection, dial},
    link::FRAMES_AHEAD,
    pump::{explain, pump},
};
use crate::{identity::Identity, protocol::federation_client::FederationClient};

/// How long one attempt may take.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(10);

/// How long a session that this side has ended may take to deliver what was sent.
const LINGER: Duration = Duration::from_secs(5);

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum ConnectError {
    #[error("{url:?} is not the address of a server, expected {scheme}://HOST:PORT")]
    Address { url: String, scheme: &'static str },
    #[error("{url} is reached by TLS, for which this client needs a certificate, its key and the CA")]
    NoPapers { url: String },
    #[error("{url} would be plain text, and this client has a certificate: its server's address begins with https://")]
    PlainText { url: String },
    #[error("no server answers at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("no session with {url}: {reason}")]
    Distrusted { url: String, reason: String },
    #[error("the server at {url} refused the session: {reason}")]
    Refused { url: String, reason: String },
}

impl ConnectError {
    /// Whether another attempt may go better. A server that is not trusted is no reason to give up: another run's may
    /// have had the address a moment ago, and certificates are renewed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Distrusted { .. } => true,
            Self::Address { .. } | Self::NoPapers { .. } | Self::PlainText { .. } | Self::Refused { .. } => false,
        }
    }
}

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// What both sides must agree on, and what the server may send.
    pub terms: Terms,
    /// This client's certificates; none: plain text.
    pub identity: Option<Identity>,
    /// How a quiet connection is kept.
    pub keep_alive: KeepAlive,
    /// Where the network is done.
    pub runtime: Handle,
}

impl ConnectOptions {
    /// Plain text, kept as connections usually are.
    pub fn plain(terms: Terms, runtime: &Handle) -> Self {
        Self { terms, identity: None, keep_alive: KeepAlive::default(), runtime: runtime.clone() }
    }
}

/// Opens a session with the server at `url`, as in `https://127.0.0.1:7443` with an identity and `http://` without,
/// or says why not; the name is looked up and the certificates are read each time. The first message must be a join.
pub fn connect(url: &str, options: &ConnectOptions) -> Result<Link, ConnectError> {
    let ConnectOptions { identity, keep_alive, runtime, .. } = options;
    let endpoint = endpoint(url, identity.is_some())?
        .http2_keep_alive_interval(keep_alive.every)
        .keep_alive_timeout(keep_alive.within)
        .keep_alive_while_idle(true);
    let url = url.to_owned();
    runtime.block_on(open(&endpoint, options)).map_err(|error| match error {
        NoSession::Absent(reason) => ConnectError::Unreachable { url, reason },
        NoSession::Distrusted(reason) => ConnectError::Distrusted { url, reason },
        NoSession::Refused(reason) => ConnectError::Refused { url, reason },
    })
}

/// Whether `url` is a server's address as [`connect`] will want it, with or without TLS.
pub fn check_url(url: &str, by_tls: bool) -> Result<(), ConnectError> {
    endpoint(url, by_tls).map(drop)
}

/// The server's address and how to speak to it.
fn endpoint(url: &str, by_tls: bool) -> Result<Endpoint, ConnectError> {
    let scheme = if by_tls { "https" } else { "http" };
    let wrong = || ConnectError::Address { url: url.to_owned(), scheme };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
    if endpoint.uri().port().is_none() {
        return Err(wrong());
    }
    match (endpoint.uri().scheme_str(), by_tls) {
        (Some("https"), true) | (Some("http"), false) => {}
        (Some("https"), false) => return Err(ConnectError::NoPapers { url: url.to_owned() }),
        (Some("http"), true) => return Err(ConnectError::PlainText { url: url.to_owned() }),
        (Some(_) | None, _) => return Err(wrong()),
    }
    Ok(endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES))
}

/// Why an attempt failed.
enum NoSession {
    /// Nobody there, or not yet.
    Absent(String),
    /// Somebody there, but no trust between the two.
    Distrusted(String),
    /// Somebody there who does not want to.
    Refused(String),
}

impl From<NoConnection> for NoSession {
    fn from(reason: NoConnection) -> Self {
        match reason {
            NoConnection::Absent(reason) => Self::Absent(reason),
            NoConnection::Distrusted(reason) => Self::Distrusted(reason),
        }
    }
}

/// The attempt.
async fn open(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Link, NoSession> {
    let uri = endpoint.uri();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or_default();
    let dialled = timeout(ATTEMPT_WITHIN, dial(host, port, options.identity.as_ref())).await;
    let late = |_| NoSession::Absent(format!("no answer within {} s", ATTEMPT_WITHIN.as_secs()));
    let (stream, verdict) = dialled.map_err(late)??;
    let mut stream = Some(TokioIo::new(stream));
    // A channel connects anew when its connection is lost; here a lost connection is the end of its session.
    let once = service_fn(move |_| future::ready(stream.take().ok_or(io::Error::from(io::ErrorKind::NotConnected))));
    let opened = async {
        let channel = endpoint.connect_with_connector(once).await;
        let channel = channel.map_err(|error| NoSession::Absent(deepest(&error)))?;
        open_session(channel, options).await.map_err(|status| match (status.code(), status.source()) {
            (Code::Unavailable, _) | (_, Some(_)) => NoSession::Absent(explain(&status).message().to_owned()),
            // The server's own word, not the network's.
            (_, None) => NoSession::Refused(status.message().to_owned()),
        })
    };
    // What TLS says of a connection that broke, says more.
    opened.await.map_err(|error| verdict.get().map_or(error, |reason| NoSession::Distrusted(reason.clone())))
}

async fn open_session(channel: Channel, options: &ConnectOptions) -> Result<Link, Status> {
    let (outgoing, to_network) = mpsc::channel(FRAMES_AHEAD);
    let (from_network, incoming) = mpsc::channel(FRAMES_AHEAD);
    // A client cannot end a session with a status: where its link refuses the server, its frames just end.
    let frames = ReceiverStream::new(to_network).map_while(Result::ok);
    let mut client = FederationClient::new(channel).max_decoding_message_size(FRAME_BYTES);
    let session = client.session(frames).await?.into_inner();
    tokio::spawn(pump(session, from_network, LINGER, explain));
    Ok(Link::new(&options.terms, outgoing, incoming, options.runtime.clone()))
}

/// The innermost cause: `Connection refused (os error 111)` says more than `transport error`.
fn deepest(error: &tonic::transport::Error) -> String {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}
