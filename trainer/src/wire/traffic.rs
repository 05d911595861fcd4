//! A socket that counts what it carries.
//! Must not know what the bytes mean: framing, keep-alives and encryption are all part of the count.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use fedtune_crds::report::UpDown;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that one connection has carried so far, as the server reads and writes them.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
}

impl Traffic {
    /// Read from the client (up) and written to it (down).
    pub(super) fn carried(&self) -> UpDown {
        // Counters only: nothing else is ordered by them.
        UpDown { up: self.read.load(Ordering::Relaxed), down: self.written.load(Ordering::Relaxed) }
    }
}

/// An accepted TCP connection, counted.
#[derive(Debug)]
pub(super) struct CountingStream {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl CountingStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, traffic: Arc::default() }
    }

    /// What it has carried so far, also after it is gone.
    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    fn count_written(&self, written: &io::Result<usize>) {
        if let Ok(bytes) = written {
            self.traffic.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for CountingStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.traffic.read.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.count_written(&written);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, buffers));
        self.count_written(&written);
        Poll::Ready(written)
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
