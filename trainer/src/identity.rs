//! Who is at the other end: certificates, the names in them, TLS 1.3 between a run's server and its clients.
//! Must not know rounds or messages, and must never do with less than was asked for.
//!
//! | file | one thing |
//! |---|---|
//! | `name.rs` | whom a certificate names: the server of a run, or one of its groups |
//! | `peer.rs` | who an accepted connection is, and for whom it may speak |
//! | `papers.rs` | certificate, key and CA, read from files or a join bundle, and checked |
//! | `bundle.rs` | a join bundle: all that a client of one group needs, in one file |
//! | `tls.rs` | what both ends of a handshake demand of each other |
//! | `trouble.rs` | what a handshake that failed means |
//! | `issue.rs` | makes a CA, certificates and join bundles |

mod bundle;
pub mod issue;
mod name;
mod papers;
mod peer;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod trouble;

pub use bundle::{Bundle, BundleError};
pub use name::{Name, NameError};
pub use papers::{Papers, PapersError, Source};
pub use peer::{Foreign, PeerIdentity};
pub use tls::Identity;
pub(crate) use trouble::{of_handshake, of_tls};
