//! The server's end: listens, takes each client's first message and hands the session over to a model thread.
//! Must not judge who may join: it refuses what breaks the protocol, the caller refuses the rest.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures::Stream;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{
        mpsc::{self, Receiver, Sender},
        oneshot,
    },
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    events::{Event, Events},
    refusal::RefusalReason,
};

use super::{
    FRAME_BYTES, KEEP_ALIVE_EVERY, KEEP_ALIVE_WITHIN, Limits, Link, LinkError, Message, Subject, Terms, WINDOW_BYTES,
    link::{FRAMES_AHEAD, FrameOrEnd},
    pump::{explain_to_server, pump},
    traffic::{CountingStream, Peer},
};
use crate::protocol::{
    Frame,
    federation_server::{Federation, FederationServer},
};

/// How long a client that opened a session may take to say who it is.
const JOIN_WITHIN: Duration = Duration::from_secs(10);

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

/// A client that opened a session and said who it is.
#[derive(Debug)]
pub struct Arrival {
    /// Its first message, of [`Subject::Join`], without tensors.
    pub join: Message,
    /// The session; [`Link::count_into`] makes its bytes count. Until [`Link::limits`] are widened the client may send
    /// fields alone.
    pub link: Link,
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
    pub fn bind(address: SocketAddr, terms: Terms, runtime: &Handle) -> Result<Self, ListenError> {
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(|reason| match reason.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken { address },
            _ => ListenError::Io { address, reason },
        })?;
        let address = listener.local_addr().map_err(|reason| ListenError::Io { address, reason })?;
        let (arrived, arrivals) = mpsc::channel(ARRIVALS_AHEAD);
        let (stop, stopped) = oneshot::channel();
        let events = Arc::default();
        let door = Door { terms, arrived, events: Arc::clone(&events), runtime: runtime.clone() };
        let serving = runtime.spawn(serve(listener, door, stopped));
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

async fn serve(
    listener: TcpListener,
    door: Door,
    stopped: oneshot::Receiver<()>,
) -> Result<(), tonic::transport::Error> {
    let service = FederationServer::new(door).max_decoding_message_size(FRAME_BYTES);
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WITHIN))
        .add_service(service)
        .serve_with_incoming_shutdown(connections(listener), async {
            // A dropped listener stops as well.
            let _ = stopped.await;
        })
        .await
}

/// The accepted connections. TLS goes here: a handshake around each [`CountingStream`], so that what is counted is
/// what the socket carries; its client's counterpart is in [`super::client`].
fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<CountingStream>> {
    TcpListenerStream::new(listener).filter_map(|accepted| {
        // One connection that broke while it was accepted is no reason to stop.
        let stream = accepted.ok()?;
        stream.set_nodelay(true).ok()?;
        let address = stream.peer_addr().ok()?;
        Some(Ok(CountingStream::new(stream, address)))
    })
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
        let (outgoing, to_network) = mpsc::channel(FRAMES_AHEAD);
        let (from_network, incoming) = mpsc::channel(FRAMES_AHEAD);
        // A server's answer is delivered without it, and a client that was refused is not listened to any longer.
        tokio::spawn(pump(request.into_inner(), from_network, Duration::ZERO, explain_to_server));
        let link = Link::new(&self.terms, outgoing.clone(), incoming, self.runtime.clone());
        let link = link.with_traffic(Arc::clone(&peer.traffic));
        let newcomer = Newcomer { link, address: peer.address, events: Arc::clone(&self.events) };
        tokio::spawn(newcomer.introduce(outgoing, self.arrived.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(to_network))))
    }
}

/// A session before its first message.
struct Newcomer {
    link: Link,
    address: SocketAddr,
    events: Arc<OnceLock<Events>>,
}

impl Newcomer {
    fn say_refused(&self, reason: RefusalReason, sentence: String) {
        if let Some(events) = self.events.get() {
            events.tell(Event::UploadRefused { client: self.address.ip().to_string(), reason, sentence });
        }
    }

    /// Waits for the first message and hands the session over, or tells the client why not.
    async fn introduce(mut self, outgoing: Sender<FrameOrEnd>, arrived: Sender<Arrival>) {
        self.link.limits().set(Limits::FIELDS_ONLY);
        let refusal = match timeout(JOIN_WITHIN, self.link.next()).await {
            Ok(Ok(join)) if join.subject == Subject::Join => {
                drop(outgoing);
                // Where nobody accepts any more, the dropped link ends the session.
                let _ = arrived.send(Arrival { join, link: self.link, address: self.address }).await;
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
            Err(_) => Status::deadline_exceeded(format!("no join came within {} s", JOIN_WITHIN.as_secs())),
        };
        let _ = outgoing.send(Err(refusal)).await;
    }
}
