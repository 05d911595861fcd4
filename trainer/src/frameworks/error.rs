//! What a half of a framework can end with, as sentences that name who sent what.
//! Must not decide what becomes of it: the engine does (`server/engine/arrivals.rs`).

use tch::TchError;
use thiserror::Error;

use crate::{
    local::TrainError,
    wire::{LinkError, Subject, WireError},
};

/// A setting that does not fit the model, its classes or the public set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} is {value}; {right}")]
pub struct Unfit {
    /// Path of the field.
    pub field: &'static str,
    /// What it is.
    pub value: String,
    /// What would be right, and why.
    pub right: String,
}

/// What a half can end with.
#[derive(Debug, Error)]
pub enum FrameworkError {
    /// Training went wrong.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The other side is gone.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A tensor could not be written or read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// The wrong number of tensors.
    #[error("{who} sent {got} tensors in its {subject}, expected {expected}")]
    Count {
        /// Who sent it.
        who: String,
        /// In which message.
        subject: Subject,
        /// How many came.
        got: usize,
        /// How many belong there.
        expected: usize,
    },
    /// A tensor of another name, kind or shape.
    #[error("{who} sent {got}, expected {expected}")]
    Tensor {
        /// Who sent it.
        who: String,
        /// What came.
        got: String,
        /// What belongs there.
        expected: String,
    },
    /// A value that is no number.
    #[error("{who} sent {name} with a value that is not finite")]
    NotFinite {
        /// Who sent it.
        who: String,
        /// Which tensor.
        name: String,
    },
    /// Logits that cannot be.
    #[error("{who} sent logits whose read state {read} {wrong}")]
    Logits {
        /// Who sent it.
        who: String,
        /// Number of the read state, from 0.
        read: usize,
        /// What is wrong with it.
        wrong: super::kd::RowError,
    },
    /// What INT8 cannot carry.
    #[error(
        "{name} of {who} in round {round}, step {step} holds what INT8 cannot carry: finite numbers, and for each token a \
         scale from 0 up; F32, BF16 or F16 as activationCodec, or a lower learning rate, may help"
    )]
    Int8 {
        /// Whose it is.
        who: String,
        /// Which tensor.
        name: String,
        /// Round, from 1.
        round: u32,
        /// Step, from 1.
        step: u32,
    },
    /// A label or length out of range.
    #[error("{who} sent a {what} of {got}; it must be {expected}")]
    Range {
        /// Who sent it.
        who: String,
        /// Label or length.
        what: &'static str,
        /// The value.
        got: i32,
        /// What is allowed.
        expected: String,
    },
    /// Fields that cannot be read.
    #[error("the fields of a {subject} cannot be read: {error}")]
    Fields {
        /// In which message.
        subject: Subject,
        /// What is wrong.
        error: String,
    },
    /// A step or an answer of a round, turn or attempt that is over, or never was.
    #[error("{who} sent a {subject} of round {round}, attempt {attempt}, which is not open for it{}", open_now(*.open))]
    NotOpen {
        /// Who sent it.
        who: String,
        /// What it sent.
        subject: Subject,
        /// Its round.
        round: u32,
        /// Its attempt.
        attempt: u32,
        /// The round and attempt that are open, if any are.
        open: Option<(u32, u32)>,
    },
    /// A message of a step that was sent twice, or before its time.
    #[error("{who} sent {} {} where {} {} belongs", got.0, got.1, expected.0, expected.1)]
    OutOfOrder {
        /// Who sent it.
        who: String,
        /// What it is about, and the number of its step.
        got: (Subject, u32),
        /// The one that belongs there.
        expected: (Subject, u32),
        /// Whether it has been taken before.
        again: bool,
    },
    /// More steps than the client's work of a round has.
    #[error("{who} sent another step after the {most} that its examples and the spec give it in a round")]
    TooManySteps {
        /// Who sent it.
        who: String,
        /// How many there are.
        most: u64,
    },
    /// A message to a server that is no more.
    #[error("{who} sent a message of epoch {got}, and this server's is {expected}")]
    StaleEpoch {
        /// Who sent it.
        who: String,
        /// Its epoch.
        got: u64,
        /// The server's.
        expected: u64,
    },
    /// The other side will not go on.
    #[error("{who} refused: {reason}")]
    Refused {
        /// Who.
        who: String,
        /// Its sentence.
        reason: String,
    },
    /// What does not fit into memory could not be kept on disk.
    #[error(
        "the uploads of a round cannot be kept in a file of {folder}: {error}; make room there, or name another folder in TMPDIR"
    )]
    Spill {
        /// Where temporary files lie.
        folder: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A message that has no place here.
    #[error("{who} sent a {got} where a {expected} belongs")]
    Unexpected {
        /// Who sent it.
        who: String,
        /// What came.
        got: Subject,
        /// What belongs there.
        expected: Subject,
    },
}

fn open_now(open: Option<(u32, u32)>) -> String {
    open.map_or_else(String::new, |(round, attempt)| format!("; round {round}, attempt {attempt} is"))
}
