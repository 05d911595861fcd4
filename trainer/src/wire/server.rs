//! The server's end: listens, takes each client's first message and hands the session over to a model thread.
//! Must not judge who may join: it refuses what breaks the protocol, the caller refuses the rest.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Handle,
    sync::{
        mpsc::{self, Receiver, Sender},
        oneshot,
    },
    task::JoinHandle,
    time::{timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    FRAME_BYTES, KeepAlive, Limits, Link, LinkError, Message, Subject, Terms, WINDOW_BYTES,
    accept::connections,
    connection::{Connection, Peer},
    guard::{Gate, Guard},
    link::{FRAMES_AHEAD, FrameOrEnd},
    pump::{explain_to_server, pump},
};
use crate::{
    events::{Event, Events},
    identity::{Identity, PeerIdentity},
    protocol::{
        Frame,
        federation_server::{Federation, FederationServer},
    },
    refusal::RefusalReason,
};

/// How long a connection may take until its client has said who it is.
const JOIN_WITHIN: Duration = Duration::from_secs(10);

/// Connections held on which nobody has joined yet; more are closed at once.
const STRANGERS: usize = 256;

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;

/// HTTP/2 streams of a connection: its session, and one more to be told that there is only one.
const STREAMS: u32 = 2;

/// Bytes of a request's headers, at most.
const HEADER_BYTES: u32 = 16 << 10;

/// Clients that joined and were not yet handed over; more of them wait.
const ARRIVALS_AHEAD: usize = 16;

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum ListenError {
    #[error("port {} on {} is taken: stop the program that uses it, or choose another port", address.port(), address.ip())]
    Taken { address: SocketAddr },
    #[error("cannot listen on {address}: {reason}")]
    Io { address: SocketAddr, reason: io::Error },
}

/// How a server listens.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// What both sides must agree on, and what a client may send.
    pub terms: Terms,
    /// The server's certificates; none: plain text.
    pub identity: Option<Identity>,
    /// How long a connection may take until its client has said who it is.
    pub join_within: Duration,
    /// Connections held on which nobody has joined yet; more are closed at once.
    pub strangers: usize,
    /// How a quiet connection is kept.
    pub keep_alive: KeepAlive,
}

impl From<Terms> for ListenOptions {
    /// Plain text.
    fn from(terms: Terms) -> Self {
        Self { terms, identity: None, join_within: JOIN_WITHIN, strangers: STRANGERS, keep_alive: KeepAlive::default() }
    }
}

/// A client that opened a session and said who it is.
#[derive(Debug)]
pub struct Arrival {
    /// Its first message, of [`Subject::Join`], without tensors.
    pub join: Message,
    /// The session; [`Link::count_into`] lets the client in and makes its bytes count. Until [`Link::limits`] are
    /// widened the client may send fields alone.
    pub link: Link,
    /// Who it is by its certificate, which decides for whom it may speak.
    pub peer: PeerIdentity,
    /// Where it comes from.
    pub address: SocketAddr,
}

/// A server that accepts sessions, on an async runtime of its own threads.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    arrivals: Receiver<Arrival>,
    events: Arc<OnceLock<Events>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    runtime: Handle,
}

impl Listener {
    /// Listens on `address` (port 0: any free one) for clients of one run.
    pub fn bind(address: SocketAddr, options: impl Into<ListenOptions>, runtime: &Handle) -> Result<Self, ListenError> {
        let ListenOptions { terms, identity, join_within, strangers, keep_alive } = options.into();
        let listener = runtime.block_on(async { listen(address) }).map_err(|reason| match reason.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken { address },
            _ => ListenError::Io { address, reason },
        })?;
        let address = listener.local_addr().map_err(|reason| ListenError::Io { address, reason })?;
        let (arrived, arrivals) = mpsc::channel(ARRIVALS_AHEAD);
        let (stop, stopped) = oneshot::channel();
        let events = Arc::default();
        let door = Door { terms, arrived, events: Arc::clone(&events), runtime: runtime.clone() };
        let connections =
            runtime.block_on(async { connections(listener, Gate::new(strangers, join_within), identity) });
        let serving = runtime.spawn(serve(connections, keep_alive, door, stopped));
        Ok(Self { address, arrivals, events, stop, serving, runtime: runtime.clone() })
    }

    /// Where it listens, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Tells `events` from now on whose first message is refused; of several listeners the first stays.
    pub fn tell_refusals(&self, events: Events) {
        let _ = self.events.set(events);
    }

    /// Waits for the next client.
    pub fn accept(&mut self) -> Option<Arrival> {
        self.arrivals.blocking_recv()
    }

    /// Waits for the next client, but not past `deadline`.
    pub fn accept_until(&mut self, deadline: Instant) -> Option<Arrival> {
        let next = self.arrivals.recv();
        self.runtime.block_on(async { tokio::time::timeout_at(deadline.into(), next).await }).ok().flatten()
    }

    /// Accepts nobody any more, and gives sessions `grace` to end: what was sent on a dropped [`Link`] still arrives.
    pub fn shutdown(self, grace: Duration) {
        let Self { address: _, arrivals, events: _, stop, mut serving, runtime } = self;
        drop(arrivals);
        // Nobody listens where serving ended by itself.
        let _ = stop.send(());
        if runtime.block_on(async { timeout(grace, &mut serving).await }).is_err() {
            serving.abort();
        }
    }
}

/// Listens with room for a crowd: a connection that finds the queue full is only tried again after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As `TcpListener::bind` does: a port that was left a moment ago is free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve(
    connections: impl Stream<Item = io::Result<Connection>>,
    keep_alive: KeepAlive,
    door: Door,
    stopped: oneshot::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    let service = FederationServer::new(door).max_decoding_message_size(FRAME_BYTES);
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(keep_alive.every))
        .http2_keepalive_timeout(Some(keep_alive.within))
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(connections, async {
            // A dropped listener stops as well.
            let _ = stopped.await;
        })
        .await
}

/// Takes each session's first message.
#[derive(Debug)]
struct Door {
    terms: Terms,
    arrived: Sender<Arrival>,
    events: Arc<OnceLock<Events>>,
    runtime: Handle,
}

#[tonic::async_trait]
impl Federation for Door {
    type SessionStream = Pin<Box<dyn Stream<Item = FrameOrEnd> + Send>>;

    async fn session(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection has no peer address"))?;
        if !peer.guard.open_session() {
            return Err(Status::resource_exhausted("this connection has had its session; open another connection"));
        }
        let session = SessionEnd(Arc::clone(&peer.guard));
        let (outgoing, to_network) = mpsc::channel(FRAMES_AHEAD);
        let (from_network, incoming) = mpsc::channel(FRAMES_AHEAD);
        // A server's answer is delivered without it, and a client that was refused is not listened to any longer.
        tokio::spawn(pump(request.into_inner(), from_network, Duration::ZERO, explain_to_server));
        let link = Link::new(&self.terms, outgoing.clone(), incoming, self.runtime.clone());
        let events = Arc::clone(&self.events);
        let newcomer = Newcomer { link: link.with_peer(&peer), peer, events };
        tokio::spawn(newcomer.introduce(outgoing, self.arrived.clone()));
        let frames = ReceiverStream::new(to_network).map(move |frame| {
            let _until_the_stream_ends = &session;
            frame
        });
        Ok(Response::new(Box::pin(frames)))
    }
}

/// Tells the connection's guard when its session is over.
struct SessionEnd(Arc<Guard>);

impl Drop for SessionEnd {
    fn drop(&mut self) {
        self.0.end(tokio::time::Instant::now());
    }
}

/// A session before its first message.
struct Newcomer {
    link: Link,
    peer: Peer,
    events: Arc<OnceLock<Events>>,
}

impl Newcomer {
    fn say_refused(&self, reason: RefusalReason, sentence: String) {
        if let Some(events) = self.events.get() {
            events.tell(Event::UploadRefused { client: self.peer.address.ip().to_string(), reason, sentence });
        }
    }

    /// Waits for the first message and hands the session over, or tells the client why not.
    async fn introduce(mut self, outgoing: Sender<FrameOrEnd>, arrived: Sender<Arrival>) {
        self.link.limits().set(Limits::FIELDS_ONLY);
        let join_by = self.peer.guard.join_by().unwrap_or_else(tokio::time::Instant::now);
        let refusal = match timeout_at(join_by, self.link.next()).await {
            Ok(Ok(join)) if join.subject == Subject::Join => {
                drop(outgoing);
                self.peer.guard.join();
                let Peer { address, identity: peer, .. } = self.peer;
                // Where nobody accepts any more, the dropped link ends the session.
                let _ = arrived.send(Arrival { join, link: self.link, peer, address }).await;
                return;
            }
            Ok(Ok(other)) => {
                let sentence = format!("{} came where join was expected", other.subject);
                self.say_refused(RefusalReason::Phase, sentence.clone());
                Status::failed_precondition(sentence)
            }
            // The link has told the client already.
            Ok(Err(LinkError::Refused(error))) => {
                self.say_refused((&error).into(), error.to_string());
                return;
            }
            // The client is gone.
            Ok(Err(LinkError::Closed { .. } | LinkError::Rejected { .. } | LinkError::Unsendable(_))) => return,
            Err(_) => Status::deadline_exceeded("no join came in time"),
        };
        let _ = outgoing.send(Err(refusal)).await;
    }
}
