//! Why a measurement could not be made.
//! Must not hold what was measured.

use std::{fmt::Display, io};

use thiserror::Error;

/// Why a measurement could not be made.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// A file or a process.
    #[error("{what}: {error}")]
    Io {
        /// What was tried, as a sentence.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// One side of a contest did not end well.
    #[error("{command} ended with {status}:\n{complaint}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines that it wrote to standard error.
        complaint: String,
    },
    /// One side of a contest said nothing that is a figure.
    #[error("{command} printed no line of JSON")]
    Silent {
        /// What was run.
        command: String,
    },
    /// A peer did other work than ours.
    #[error("{side} says {theirs} of {what} where ours says {ours}: that is not the same work")]
    Unlike {
        /// What both sides said.
        what: &'static str,
        /// The peer.
        side: String,
        /// What it said.
        theirs: u64,
        /// What our side said.
        ours: u64,
    },
    /// The trainer refused the work.
    #[error("{0}")]
    Trainer(String),
    /// Some contests have no result.
    #[error("could not be held, for what is said above: {contests}")]
    Unheld {
        /// Their names.
        contests: String,
    },
    /// There are no such rows.
    #[error("no row is called like {pattern:?}; there are {existing}")]
    NoRow {
        /// What was asked for.
        pattern: String,
        /// Names of the contests.
        existing: String,
    },
}

impl BenchError {
    /// What was tried, and what the system said.
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }

    /// What the trainer said.
    pub(crate) fn trainer(error: impl Display) -> Self {
        Self::Trainer(error.to_string())
    }
}
