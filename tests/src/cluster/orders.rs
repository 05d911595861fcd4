//! What a harness asks of the process that keeps its cluster, one line of JSON each, and what it is told.
//! Must not act: the harness sends, the keeper does.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A program of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// What it is called: the name of its log, too.
    pub(super) name: String,
    /// Where it lies.
    pub(super) program: PathBuf,
    /// What it is told.
    pub(super) arguments: Vec<String>,
    /// Environment variables beside those of the test.
    pub(super) environment: BTreeMap<String, String>,
}

impl Part {
    /// `program` under its own name, with these arguments.
    pub(super) fn new<A: Into<String>>(name: &str, program: PathBuf, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { name: name.to_owned(), program, arguments, environment: BTreeMap::new() }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Start a part; its output goes to `log/<name>.log`, after what an earlier one of the name wrote.
    Start(Part),
    /// Start a part that has ended once more, as before.
    Again(String),
    /// Send a part a signal, as in `TERM`, `STOP` or `CONT`.
    Signal(String, String),
    /// Wait until a part has ended.
    Await(String),
    /// Say how a part that has ended did so.
    Ask(String),
    /// Run a program to its end.
    Run(PathBuf, Vec<String>),
    /// Go on without the harness, until SIGTERM.
    Detach,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The parts will have an enclosure of this number.
    Enclosed(u8),
    /// It was done, or the part runs.
    Done,
    /// The part has ended so.
    Ended(String),
    /// Why it cannot be done.
    Refused(String),
}
