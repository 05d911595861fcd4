//! Accepts connections: a place for each that waits, a TLS handshake where the server has an identity.
//! Must not let one connection hold up another, and must not end because one of them is odd.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, copy, sink},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Sender},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, rustls::server::Acceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    connection::{Connection, GuardedStream, Peer},
    guard::{Gate, LAST_WORD_WITHIN},
    traffic::CountingStream,
};
use crate::identity::{Identity, Name, NameError, PapersError, PeerIdentity};

/// What there is no socket for is tried again after this.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepted connections that nobody serves yet.
const AHEAD: usize = 16;

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
enum NoHandshake {
    #[error("the client hung up")]
    Gone,
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("this server's own papers: {0}")]
    Papers(#[from] PapersError),
    #[error("the client's certificate: {0}")]
    Name(#[from] NameError),
    #[error("the client has no certificate")]
    Anonymous,
}

/// The connections that `listener` accepts, each with its peer.
pub(super) fn connections(
    listener: TcpListener,
    gate: Gate,
    identity: Option<Identity>,
) -> impl Stream<Item = io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(AHEAD);
    tokio::spawn(accept(listener, Arc::new(gate), identity.map(Arc::new), ready));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    gate: Arc<Gate>,
    identity: Option<Arc<Identity>>,
    ready: Sender<io::Result<Connection>>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some(stream) = admit(stream, &gate) {
                    let (gate, identity, ready) = (Arc::clone(&gate), identity.clone(), ready.clone());
                    tokio::spawn(introduce(stream, address, gate, identity, ready));
                }
            }
            // One connection that broke while it was accepted is no reason to stop; no more sockets is one to wait.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Takes the connection in if there is a place, else closes it.
fn admit(stream: TcpStream, gate: &Gate) -> Option<GuardedStream> {
    let guard = gate.enter(Instant::now())?;
    stream.set_nodelay(true).ok()?;
    Some(GuardedStream::new(CountingStream::new(stream), guard))
}

/// Finds out who the peer is, and hands the connection on.
async fn introduce(
    stream: GuardedStream,
    address: SocketAddr,
    gate: Arc<Gate>,
    identity: Option<Arc<Identity>>,
    ready: Sender<io::Result<Connection>>,
) {
    let (traffic, guard) = (Arc::clone(stream.traffic()), Arc::clone(stream.guard()));
    let peer = |identity| Peer { address, identity, traffic, guard };
    let connection = match identity {
        None => Ok(Connection::new(stream, peer(PeerIdentity::Plain))),
        Some(identity) => shake_hands(stream, &identity)
            .await
            .map(|(stream, name)| Connection::new(stream, peer(PeerIdentity::Certified(name)))),
    };
    match connection {
        // Where nobody serves any more, it is closed.
        Ok(connection) => drop(ready.send(Ok(connection)).await),
        Err(NoHandshake::Gone) => {}
        Err(error) => gate.count(&error),
    }
}

/// The server's end of a handshake. Papers are read when the client has begun it: who says nothing costs nothing.
async fn shake_hands(
    stream: GuardedStream,
    identity: &Identity,
) -> Result<(TlsStream<GuardedStream>, Name), NoHandshake> {
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
    let begun = match (&mut hello).await {
        Ok(begun) => begun,
        Err(error) => {
            if let Some(stream) = hello.take_io() {
                hear_out(stream).await;
            }
            return Err(failed(error));
        }
    };
    let config = identity.server_config(SystemTime::now())?;
    match begun.into_stream(Arc::new(config)).into_fallible().await {
        Ok(stream) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let name = Name::in_certificate(certificates.first().ok_or(NoHandshake::Anonymous)?)?;
            Ok((stream, name))
        }
        Err((error, stream)) => {
            hear_out(stream).await;
            Err(failed(error))
        }
    }
}

fn failed(error: io::Error) -> NoHandshake {
    match error.kind() {
        // Cut connections have been counted by their guard.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => NoHandshake::Gone,
        _ => NoHandshake::Tls(error),
    }
}

/// Reads what still comes, for a moment: a socket closed upon unread bytes takes the alert that was sent with it.
async fn hear_out(mut stream: impl AsyncRead + Unpin) {
    // Whether the client hangs up or not, the connection ends here.
    let _ = timeout(LAST_WORD_WITHIN, copy(&mut stream, &mut sink())).await;
}
