//! Why a source cannot be brought, in sentences: what is wrong, where, and what would be right.
//! Must not hold a secret: addresses come here without what is behind their path.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a source cannot be brought. `what` names the file or the source.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the variants' sentences name their fields")]
pub enum SourceError {
    /// There is nowhere to keep it.
    #[error("{what} is not on this machine, and there is no folder to keep it in; set --cache to one")]
    NoCache { what: String },
    /// The program was built without it.
    #[error("{what} cannot be brought by this build: build with `--features {feature}`, or give a path")]
    NoFeature { what: String, feature: &'static str },
    /// Who asks may not.
    #[error("{what} may not be read: {help}")]
    Denied { what: String, help: String },
    /// It is not there.
    #[error("{what} is not there: {help}")]
    Missing { what: String, help: String },
    /// The server wants to be left alone for longer than one waits.
    #[error("{what}: the server has had too many requests and says to wait {wait}; try again later{help}")]
    Busy { what: String, wait: String, help: &'static str },
    /// Nobody answers, or nobody answers well.
    #[error("{what} cannot be reached: {why}; check the address and the network, and try again")]
    Away { what: String, why: String },
    /// Less came than there is, also when it was tried again.
    #[error("{what} breaks off after {at} of {of} bytes; what came is kept, try again")]
    BrokeOff { what: String, at: u64, of: String },
    /// Another content than a moment ago.
    #[error("{what} changed while it was read; run again once nobody writes to it")]
    Changed { what: String },
    /// Another content than it should have.
    #[error("{what} is not what it should be: {found}, expected {wanted}")]
    Wrong { what: String, found: String, wanted: String },
    /// TLS.
    #[error(
        "{what}: the server cannot be trusted: {why}; if its certificate is of a CA of your own, name that CA's file in SSL_CERT_FILE"
    )]
    Untrusted { what: String, why: String },
    /// An answer that is none.
    #[error("{what}: the server answers what it should not: {why}")]
    Odd { what: String, why: String },
    /// A listing from which nothing can be chosen.
    #[error("{what} {problem}")]
    Choice { what: String, problem: String },
    /// A variable of the environment.
    #[error("{name} cannot be used: {problem}")]
    Setting { name: &'static str, problem: String },
    /// This machine's disk.
    #[error("{} cannot be written: {error}; {}", path.display(), room(error))]
    Disk { path: PathBuf, error: io::Error },
    /// This machine's network.
    #[error("the network cannot be used: {0}")]
    Network(String),
}

impl SourceError {
    /// Whether the same may work later, or works without the network where everything is in the cache already.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Away { .. } | Self::BrokeOff { .. } | Self::Changed { .. } => true,
            Self::NoCache { .. }
            | Self::NoFeature { .. }
            | Self::Denied { .. }
            | Self::Missing { .. }
            | Self::Wrong { .. }
            | Self::Untrusted { .. }
            | Self::Odd { .. }
            | Self::Choice { .. }
            | Self::Setting { .. }
            | Self::Disk { .. }
            | Self::Network(_) => false,
        }
    }
}

fn room(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, or set --cache to a folder with more of it"
        }
        _ => "set --cache to a folder that this user may write to",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(kind: io::ErrorKind) -> String {
        SourceError::Disk { path: "/cache/model".into(), error: kind.into() }.to_string()
    }

    #[test]
    fn a_full_disk_and_a_forbidden_one_ask_for_different_things() {
        assert_eq!(
            disk(io::ErrorKind::StorageFull),
            "/cache/model cannot be written: no storage space; make room there, or set --cache to a folder with more of it"
        );
        assert!(disk(io::ErrorKind::PermissionDenied).ends_with("set --cache to a folder that this user may write to"));
    }
}
