//! The client's end: finds the server, and waits for one that has not started yet.
//! Must not give up before its deadline on anything that a starting server would mend.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::mpsc, time::sleep};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    FRAME_BYTES, KEEP_ALIVE_EVERY, KEEP_ALIVE_WITHIN, Link, Terms, WINDOW_BYTES,
    link::FRAMES_AHEAD,
    pump::{explain, pump},
};
use crate::protocol::federation_client::FederationClient;

/// First pause between two attempts; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long one attempt may take.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(10);

/// How long a session that this side has ended may take to deliver what was sent.
const LINGER: Duration = Duration::from_secs(5);

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum ConnectError {
    #[error("{url:?} is not the address of a server, expected http://HOST:PORT")]
    Address { url: String },
    #[error("no server answered at {url} within {} s: {reason}", patience.as_secs())]
    Unreachable { url: String, patience: Duration, reason: String },
    #[error("the server at {url} refused the session: {reason}")]
    Refused { url: String, reason: String },
}

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// What both sides must agree on, and what the server may send.
    pub terms: Terms,
    /// How long to wait for a server that does not answer yet.
    pub patience: Duration,
    /// Where the network is done.
    pub runtime: Handle,
}

/// Opens a session with the server at `url`, as in `http://127.0.0.1:7443`; the first message must be a join.
pub fn connect(url: &str, options: &ConnectOptions) -> Result<Link, ConnectError> {
    let endpoint = endpoint(url)?;
    options.runtime.block_on(knock(url, &endpoint, options))
}

/// The server's address and how to speak to it. TLS goes here, as `tls_config`: it is read for each connection.
fn endpoint(url: &str) -> Result<Endpoint, ConnectError> {
    let wrong = || ConnectError::Address { url: url.to_owned() };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
    if endpoint.uri().scheme_str() != Some("http") || endpoint.uri().port().is_none() {
        return Err(wrong());
    }
    Ok(endpoint
        .connect_timeout(ATTEMPT_WITHIN)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN)
        .keep_alive_while_idle(true))
}

/// Tries until a server answers, with growing pauses; each attempt looks the name up again.
async fn knock(url: &str, endpoint: &Endpoint, options: &ConnectOptions) -> Result<Link, ConnectError> {
    let url = url.to_owned();
    let deadline = Instant::now() + options.patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match open(endpoint, options).await {
            Ok(link) => return Ok(link),
            Err(NoSession::Refused(reason)) => return Err(ConnectError::Refused { url, reason }),
            Err(NoSession::Absent(reason)) => reason,
        };
        if Instant::now() + pause > deadline {
            return Err(ConnectError::Unreachable { url, patience: options.patience, reason });
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why one attempt failed.
enum NoSession {
    /// Nobody there, or not yet: worth another attempt.
    Absent(String),
    /// Somebody there who does not want to.
    Refused(String),
}

async fn open(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Link, NoSession> {
    let channel = endpoint.connect().await.map_err(|error| NoSession::Absent(deepest(&error)))?;
    open_session(channel, options).await.map_err(|status| match (status.code(), status.source()) {
        (Code::Unavailable, _) | (_, Some(_)) => NoSession::Absent(explain(&status).message().to_owned()),
        // The server's own word, not the network's.
        (_, None) => NoSession::Refused(status.message().to_owned()),
    })
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
