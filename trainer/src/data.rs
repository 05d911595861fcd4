//! Private data: read, held out, partitioned, tokenised, batched.
//! Must not know models or frameworks: texts in, token batches out.
//!
//! | file | one thing |
//! |---|---|
//! | `plan.rs` | what is asked for, as types that cannot be wrong |
//! | `load.rs` | the whole way, from plan to corpus |
//! | `gather.rs` | who holds which row, as far as a scope may see |
//! | `read.rs` | CSV, JSONL, Parquet and folders of text files into rows |
//! | `hold_out.rs` | which rows no client may have |
//! | `partition.rs` | which client has which row |
//! | `tokenise.rs` | texts into tokens, kept in a cache |
//! | `labels.rs` | label texts into numbers, once the labels are frozen |
//! | `batches.rs` | examples into batches of like length |

pub mod batches;
mod cache;
pub mod chat;
mod gather;
mod hold_out;
pub mod labels;
mod language;
mod load;
mod partition;
pub mod plan;
mod read;
#[cfg(test)]
mod testing;
mod tokenise;

pub use batches::{LocalWork, evaluation_batches, local_batches};
pub use hold_out::HoldOutError;
pub use labels::{Answer, Example, LabelError, Labels, encode};
pub use language::{LanguageError, LanguagePlan, prompt_tokens};
pub use load::load;
pub use partition::PartitionError;
pub use plan::{Columns, DataPlan, Format, GroupPlan, HeldOut, LongResponse, Partition, Scope, Source};
pub use read::ReadError;
pub use tokenise::TokeniseError;
pub(crate) use tokenise::{Texts, tokenise};

use crate::sources::SourceError;

/// A text as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Token ids, special tokens among them; at least one, at most `max_sequence_length`.
    pub tokens: Vec<u32>,
    /// Its label's text, where the source has labels.
    pub label: Option<String>,
    /// What of it a language model is to say; none for a classifier.
    pub answer: Option<Answer>,
}

/// All records that a scope covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// Training records of each client, by ordinal; empty where out of scope.
    pub clients: Vec<Vec<Record>>,
    /// Records that every participant may have and no client trains on as its own.
    pub public: Vec<Record>,
    /// Records that nobody trains on; empty where out of scope.
    pub evaluation: Vec<Record>,
    /// The plan's labels, else the sorted labels of the clients in scope: what a client announces when it joins.
    pub label_order: Vec<String>,
    /// SHA-256 over all sources read and how they are read, in hexadecimal.
    pub data_hash: String,
    /// SHA-256 over who holds which text with which label, in hexadecimal.
    pub partition_hash: String,
}

/// Why there is no data to train on.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A source cannot be brought.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The held-out sets cannot be made.
    #[error(transparent)]
    HoldOut(#[from] HoldOutError),
    /// The clients cannot be given their examples.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A text cannot become tokens.
    #[error(transparent)]
    Tokenise(#[from] TokeniseError),
    /// A row cannot become what a language model reads.
    #[error(transparent)]
    Language(#[from] LanguageError),
    /// A label cannot become a number.
    #[error(transparent)]
    Label(#[from] LabelError),
}
