//! Messages between server and clients: cut into gRPC frames, put together again, counted.
//! Must not know frameworks or rounds' rules: it carries tensors and small fields, and says which bytes they cost.
//!
//! Model threads block on a [`Link`]; all that is async stays below it, on the runtime of [`runtime`].
//!
//! ```text
//! Message --encode--> Frame, Frame, ... --gRPC over HTTP/2--> Frame, Frame, ... --Decoder--> Message
//!    Link (model thread)         server::Listener <=> client::connect           Link (model thread)
//! ```

mod accept;
pub mod client;
mod connection;
mod decode;
mod dial;
mod encode;
mod error;
mod guard;
mod ledger;
mod link;
mod message;
mod pump;
pub mod server;
mod tensor;
#[cfg(test)]
mod tests;
mod traffic;
mod words;

use std::{io, time::Duration};

pub use decode::{Decoder, Limits, SharedLimits};
pub use encode::encode;
pub use error::WireError;
pub(crate) use error::quote;
pub use ledger::{Carried, Ledger};
pub use link::{HangUp, Line, Link, LinkError, LinkReceiver, LinkSender, Terms};
pub use message::{Message, Subject};
pub(crate) use tensor::write_rows;
pub use tensor::{Element, WireTensor};

/// Version of `federation.proto` that this program speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Bytes of a chunk frame; only the last of a message may have fewer.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of a message's fields as JSON, at most.
pub const FIELDS_BYTES: usize = 64 << 10;

/// Bytes of a tensor's name, at most: what a sentence may quote of it.
const NAME_BYTES: usize = 256;

/// Dimensions of a tensor, at most: no model has more.
const DIMENSIONS: usize = 8;

/// Bytes of one frame with its framing, at most: nothing longer is read from a socket.
const FRAME_BYTES: usize = CHUNK_BYTES + 1024;

/// What HTTP/2 lets a peer send ahead: enough to fill a fast link over a distance, and the bound on unread bytes.
const WINDOW_BYTES: u32 = 4 << 20;

/// How each side of a quiet connection finds out whether the other is still there. The network's own threads ask and
/// answer, so an hour of local training does not look like a dead peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// How often a quiet connection is probed.
    pub every: Duration,
    /// How long a probe may stay unanswered; then the connection is lost.
    pub within: Duration,
}

impl Default for KeepAlive {
    /// Often enough for whatever forgets quiet connections on the way, and with patience, because training may hold
    /// every core of a small machine.
    fn default() -> Self {
        Self { every: Duration::from_secs(30), within: Duration::from_secs(60) }
    }
}

/// The runtime that does the network of a process; keep it alive as long as its listener and links.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("wire").enable_all().build()
}
