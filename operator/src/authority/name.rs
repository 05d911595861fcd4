//! Whom a certificate names, in the words that the trainer reads.
//! Must not be changed here alone: the trainer refuses any other name.

use std::fmt;

/// What a certificate's one URI says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The server of a run.
    Server {
        /// The run's uid.
        run: String,
    },
    /// A group of a run's clients.
    Group {
        /// The run's uid.
        run: String,
        /// The group.
        group: String,
    },
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { run } => write!(f, "spiffe://fedtune.io/run/{run}/server"),
            Self::Group { run, group } => write!(f, "spiffe://fedtune.io/run/{run}/group/{group}"),
        }
    }
}
