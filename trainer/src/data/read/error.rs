//! Why a source cannot be read, in sentences: what is wrong, where, what would be right.
//! Must not be raised for what a partition or a tokenizer refuses; those have sentences of their own.

use std::io;

use super::Place;

impl ReadError {
    /// Whether the source is just not there, rather than wrong.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder is missing, or may not be read.
    #[error("cannot read {path}: {source}")]
    Open {
        /// Which.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing of the format is in a folder.
    #[error("the folder {path} holds no .{ending} file")]
    NoFile {
        /// The folder.
        path: String,
        /// What its files' names should end with.
        ending: &'static str,
    },
    /// A pre-split source lacks the part of a client.
    #[error("client {client} has no data: there is neither a folder {path} nor a file {path}.{ending}")]
    NoPart {
        /// The client's id.
        client: String,
        /// Where its data would be.
        path: String,
        /// The format's ending.
        ending: &'static str,
    },
    /// A source holds no row at all.
    #[error("{path} holds no example")]
    Empty {
        /// The source.
        path: String,
    },
    /// A column that the spec names is not there.
    #[error("{place} has no column `{column}`; the columns there are {there}")]
    MissingColumn {
        /// Where it was looked for.
        place: String,
        /// The column.
        column: String,
        /// The columns there.
        there: String,
    },
    /// A row is not what its format asks for.
    #[error("{place}: {problem}")]
    Malformed {
        /// The row.
        place: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A folder of texts has no label.
    #[error("the folder `{folder}` in {path} has no label; the label map names {known}")]
    FolderWithoutLabel {
        /// The folder.
        folder: String,
        /// Where it is.
        path: String,
        /// The folders with a label.
        known: String,
    },
    /// A label is not among the plan's.
    #[error("{place}: the label `{label}` is not one of `data.labels`: {labels}")]
    UnknownLabel {
        /// The row.
        place: String,
        /// Its label.
        label: String,
        /// The labels of the plan.
        labels: String,
    },
    /// The program was built without Parquet.
    #[error("{path} is Parquet, which this build cannot read: build with `--features parquet`, or give CSV or JSONL")]
    NoParquet {
        /// The source.
        path: String,
    },
}

impl ReadError {
    pub(super) fn malformed(place: &Place, problem: impl Into<String>) -> Self {
        Self::Malformed { place: place.to_string(), problem: problem.into() }
    }
}
