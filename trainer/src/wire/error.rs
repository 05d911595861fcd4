//! What can be wrong with a message, each with its sentence.
//! Must not repeat a peer's text at length: what a sentence quotes is cut.

use super::{DIMENSIONS, Element, FIELDS_BYTES, NAME_BYTES, PROTOCOL_VERSION};
use crate::caught::first_line;

/// A tensor or a frame that is not what it must be. A peer's message that causes one is refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum WireError {
    #[error("the peer speaks version {theirs} of the protocol, this program version {PROTOCOL_VERSION}")]
    Version { theirs: u32 },
    #[error(
        "the message belongs to run {theirs:?}, this is run {ours:?}; spec, model and tokenizer must be the same on both sides"
    )]
    Run { theirs: String, ours: String },
    #[error("the message has the unknown subject {number}")]
    Subject { number: i32 },
    #[error("the fields of the message have {length} bytes, at most {FIELDS_BYTES} are allowed")]
    FieldsTooLong { length: usize },
    #[error("the fields of the message are not JSON: {reason}")]
    FieldsNotJson { reason: String },
    #[error("the message announces {count} tensors, at most {allowed} are allowed here")]
    TooManyTensors { count: usize, allowed: usize },
    #[error("the message announces more than the {allowed} payload bytes that are allowed here")]
    TooManyBytes { allowed: u64 },
    #[error("the header of the message has {length} bytes, at most {allowed} are allowed here")]
    HeaderTooLong { length: usize, allowed: usize },
    #[error("the header of the message cannot be read: {reason}")]
    HeaderUnreadable { reason: String },
    #[error(
        "tensor {name:?} has a name of {length} bytes and {dimensions} dimensions, at most {NAME_BYTES} and {DIMENSIONS} are allowed"
    )]
    TensorHeader { name: String, length: usize, dimensions: usize },
    #[error("tensor {name:?} has the unknown kind {number}")]
    UnknownKind { name: String, number: i32 },
    #[error("tensor {name:?} has the unknown element type {number}")]
    UnknownElement { name: String, number: i32 },
    #[error("tensor {name:?} has the shape {shape:?}, which no tensor can have")]
    Shape { name: String, shape: Vec<i64> },
    #[error("tensor {name:?} of shape {shape:?} and element {element} has {length} bytes, expected {expected}")]
    Length { name: String, shape: Vec<i64>, element: Element, length: u64, expected: u64 },
    #[error("tensor {name:?} has elements of {element}, expected {expected}")]
    WrongElement { name: String, element: Element, expected: Element },
    #[error("a frame cannot be read: {reason}")]
    FrameUnreadable { reason: String },
    #[error("a frame holds neither header nor chunk")]
    EmptyFrame,
    #[error("a chunk of {length} bytes came where a header was expected")]
    ChunkBeforeHeader { length: usize },
    #[error("a new header came while {missing} bytes of the message before were missing")]
    HeaderTooEarly { missing: u64 },
    #[error("a chunk has {length} bytes, expected {expected}: it is too long")]
    ChunkTooLong { length: usize, expected: usize },
    #[error("a chunk has {length} bytes, expected {expected}: it is too short")]
    ChunkTooShort { length: usize, expected: usize },
    #[error("the session ended while {missing} bytes of a message were missing")]
    CutOff { missing: u64 },
    #[error("libtorch refused tensor {name:?}: {reason}")]
    Libtorch { name: String, reason: String },
}

impl WireError {
    pub(crate) fn libtorch(name: &str, reason: &tch::TchError) -> Self {
        Self::Libtorch { name: quote(name), reason: first_line(reason) }
    }

    pub(super) fn shape(name: &str, shape: &[i64]) -> Self {
        Self::Shape { name: quote(name), shape: shape[..shape.len().min(DIMENSIONS)].to_vec() }
    }
}

/// The first 64 characters of a text that a peer chose.
pub(crate) fn quote(text: &str) -> String {
    text.chars().take(64).collect()
}
