//! An accepted connection: cut when its guard says so, plain or TLS, and whose it is.
//! Must not read ahead of a client that has not joined: what a stranger sends stays in its own machine's buffers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tonic::transport::server::Connected;

use super::{
    guard::Guard,
    traffic::{CountingStream, Traffic},
};
use crate::identity::PeerIdentity;

/// What is read of a connection before its client has joined: a handshake and a join, with room to spare.
const BYTES_BEFORE_JOIN: u64 = 256 << 10;

/// The peer of an accepted connection; tonic hands it to the service with each request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) identity: PeerIdentity,
    pub(super) traffic: Arc<Traffic>,
    pub(super) guard: Arc<Guard>,
}

/// A socket that breaks when its guard says so, whichever way it is used.
#[derive(Debug)]
pub(super) struct GuardedStream {
    stream: CountingStream,
    guard: Arc<Guard>,
    alarm: Pin<Box<Sleep>>,
}

impl GuardedStream {
    pub(super) fn new(stream: CountingStream, guard: Arc<Guard>) -> Self {
        let at = guard.cut_at().unwrap_or_else(Instant::now);
        Self { stream, guard, alarm: Box::pin(sleep_until(at)) }
    }

    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        self.stream.traffic()
    }

    pub(super) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Fails when the connection's time is up, and wakes the task when it will be.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.guard.register(cx.waker());
        let Some(at) = self.guard.cut_at() else { return Ok(()) };
        if self.alarm.deadline() != at {
            self.alarm.as_mut().reset(at);
        }
        if self.alarm.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.guard.count_cut(at);
        Err(io::Error::new(io::ErrorKind::TimedOut, "nobody joined in time"))
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let stranger = self.guard.join_by().is_some();
        if stranger && self.traffic().carried().up >= BYTES_BEFORE_JOIN {
            // The guard wakes this task when the client has joined, or its time is up.
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What carries bytes both ways, encrypted or not.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection whose peer is known.
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    peer: Peer,
}

impl Connection {
    pub(super) fn new(stream: impl Duplex + 'static, peer: Peer) -> Self {
        Self { stream: Box::new(stream), peer }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::Ipv4Addr, thread, time::Duration};

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::wire::{guard::Gate, runtime};

    const MUCH: usize = 4 << 20;

    /// What is read of a connection whose client sends [`MUCH`], until it ends or is cut.
    fn read(join_within: Duration, joins: bool) -> (usize, io::Result<()>) {
        let runtime = runtime().unwrap();
        let gate = Gate::new(1, join_within);
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let client = thread::spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                // Where the connection is cut, that is what the test sees at the other end.
                let _ = stream.write_all(&vec![0; MUCH]);
            });
            let guard = gate.enter(Instant::now()).unwrap();
            if joins {
                guard.join();
            }
            let mut stream = GuardedStream::new(CountingStream::new(listener.accept().await.unwrap().0), guard);
            let (mut buffer, mut total) = (vec![0; 8 << 10], 0);
            let end = loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => break Ok(()),
                    Ok(bytes) => total += bytes,
                    Err(error) => break Err(error),
                }
            };
            drop(stream);
            client.join().unwrap();
            (total, end)
        })
    }

    #[test]
    fn a_stranger_is_read_no_further_than_a_join_needs() {
        let (bytes, end) = read(Duration::from_millis(200), false);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((1..BYTES_BEFORE_JOIN as usize + (8 << 10)).contains(&bytes), "{bytes} bytes were read");
        let (bytes, end) = read(Duration::from_secs(30), true);
        assert_eq!((bytes, end.is_ok()), (MUCH, true));
    }
}
