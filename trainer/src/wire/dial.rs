//! Opens a connection to a server: finds the host anew, reads the certificates anew, shakes hands.
//! Must not speak plain text where an identity was given.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::SystemTime,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::connection::Duplex;
use crate::identity::{Identity, of_handshake, of_tls};

/// The first byte of a TLS alert, which is how a TLS server answers plain text.
const TLS_ALERT: u8 = 0x15;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// Nobody there, or not yet.
    Absent(String),
    /// Somebody there who is not trusted, or does not trust this client; or papers that cannot be used now.
    Distrusted(String),
}

/// Why the server broke a connection off, where TLS says so: it may after the handshake, when it has seen the
/// client's certificate.
pub(super) type Verdict = Arc<OnceLock<String>>;

/// A connection to a server.
pub(super) struct Dialled {
    stream: Box<dyn Duplex>,
    plain: bool,
    heard: bool,
    verdict: Verdict,
}

/// Connects to `host` and `port`, by TLS where there is an `identity`.
pub(super) async fn dial(
    host: &str,
    port: u16,
    identity: Option<&Identity>,
) -> Result<(Dialled, Verdict), NoConnection> {
    let stream = TcpStream::connect((host, port)).await.map_err(|error| absent(&error))?;
    stream.set_nodelay(true).map_err(|error| absent(&error))?;
    let verdict = Verdict::default();
    let stream: Box<dyn Duplex> = match identity {
        None => Box::new(stream),
        Some(identity) => Box::new(shake_hands(stream, host, identity).await?),
    };
    let dialled = Dialled { stream, plain: identity.is_none(), heard: false, verdict: Arc::clone(&verdict) };
    Ok((dialled, verdict))
}

async fn shake_hands(stream: TcpStream, host: &str, identity: &Identity) -> Result<impl Duplex + use<>, NoConnection> {
    let config =
        identity.client_config(SystemTime::now()).map_err(|error| NoConnection::Distrusted(error.to_string()))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| NoConnection::Distrusted(format!("{host:?} is no name that a certificate could have")))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| match of_handshake(&error) {
        Some(sentence) => NoConnection::Distrusted(sentence),
        None => absent(&error),
    })
}

fn absent(error: &io::Error) -> NoConnection {
    NoConnection::Absent(error.to_string())
}

impl Dialled {
    /// What the first byte or an error says of the server.
    fn judge(&mut self, read: &io::Result<()>, bytes: &[u8]) -> Option<String> {
        match read {
            Err(error) => of_tls(error),
            Ok(()) if self.plain && !self.heard && bytes.first() == Some(&TLS_ALERT) => Some(
                "the server speaks TLS: its address begins with https://, and this client needs a \
                      certificate, its key and the CA"
                    .to_owned(),
            ),
            Ok(()) => {
                self.heard |= !bytes.is_empty();
                None
            }
        }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let Some(sentence) = self.judge(&read, &buffer.filled()[before..]) else { return Poll::Ready(read) };
        let _ = self.verdict.set(sentence.clone());
        Poll::Ready(Err(io::Error::other(sentence)))
    }
}

impl AsyncWrite for Dialled {
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
