//! What can be wrong with a folder of checkpoints or with one of its files, each with its sentence.
//! Must not leave the reader guessing: every sentence names the file or folder, and what would be right.

use std::{io, path::PathBuf};

use safetensors::{Dtype, SafeTensorError};

use super::file::FORMAT;
use crate::wire::WireError;

/// Why a checkpoint cannot be read or written. Nothing that was there before is changed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum CheckpointError {
    #[error("{} is in use by another process, and only one may write checkpoints there; stop the other or choose another folder", folder.display())]
    Locked { folder: PathBuf },
    #[error("{} is there already and is no folder of checkpoints; choose another", folder.display())]
    NotAStore { folder: PathBuf },
    #[error("{} does not say whose checkpoints these are: {reason}; choose another folder", path.display())]
    OwnerUnreadable { path: PathBuf, reason: String },
    #[error("{} holds checkpoints of another spec; choose another folder, or run that spec", folder.display())]
    OtherSpec { folder: PathBuf },
    #[error("{} holds checkpoints of another base model; choose another folder, or use that model", folder.display())]
    OtherBase { folder: PathBuf },
    #[error("{} holds checkpoints of a run with another tokenizer; choose another folder, or use that tokenizer", folder.display())]
    OtherRun { folder: PathBuf },
    #[error("{} holds checkpoints in format {found}, this program knows up to format {FORMAT}; go on with a newer fedtune", folder.display())]
    NewerFolder { folder: PathBuf, found: u64 },
    #[error("{} is a checkpoint of another run; move it out of this folder", path.display())]
    FileOfOtherRun { path: PathBuf },
    #[error("{} is no whole checkpoint: {error}", path.display())]
    File { path: PathBuf, error: FileError },
    #[error("{} is in the wrong place: it is the {holds} of round {round}", path.display())]
    Misplaced { path: PathBuf, holds: &'static str, round: u32 },
    #[error("no checkpoint in {} is whole, so the run cannot go on from there; the newest: {newest}", folder.display())]
    AllDamaged { folder: PathBuf, newest: Box<CheckpointError> },
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot write {}: {error}; the checkpoints before it are untouched", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("round {round} cannot be kept as a checkpoint: {error}")]
    Tensor { round: u32, error: WireError },
    #[error("round {round} cannot be kept as a checkpoint: {error}")]
    Format { round: u32, error: SafeTensorError },
}

impl CheckpointError {
    /// Whether what lies there is at fault, and not the disk.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Locked { .. }
            | Self::NotAStore { .. }
            | Self::OwnerUnreadable { .. }
            | Self::OtherSpec { .. }
            | Self::OtherBase { .. }
            | Self::OtherRun { .. }
            | Self::NewerFolder { .. }
            | Self::FileOfOtherRun { .. }
            | Self::File { .. }
            | Self::Misplaced { .. }
            | Self::AllDamaged { .. } => true,
            Self::Read { .. } | Self::Write { .. } | Self::Tensor { .. } | Self::Format { .. } => false,
        }
    }

    /// Whether one file is damaged or unreadable, so that the one before it may serve.
    /// A whole file that only is not ours is none of that: to go on beside it would be to lose work.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::File { error, .. } => !matches!(error, FileError::Newer { .. }),
            Self::Misplaced { .. } | Self::Read { .. } => true,
            Self::Locked { .. }
            | Self::NotAStore { .. }
            | Self::OwnerUnreadable { .. }
            | Self::OtherSpec { .. }
            | Self::OtherBase { .. }
            | Self::OtherRun { .. }
            | Self::NewerFolder { .. }
            | Self::FileOfOtherRun { .. }
            | Self::AllDamaged { .. }
            | Self::Write { .. }
            | Self::Tensor { .. }
            | Self::Format { .. } => false,
        }
    }
}

/// Why bytes are not a checkpoint.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum FileError {
    #[error("it has {length} bytes, fewer than every checkpoint: it is cut short")]
    CutShort { length: usize },
    #[error("it does not begin as a checkpoint does")]
    NotACheckpoint,
    #[error("its bytes do not have the SHA-256 that stands in it: it is cut short or damaged")]
    Damaged,
    #[error("it is in format {found}, this program reads up to format {FORMAT}; go on with a newer fedtune")]
    Newer { found: u64 },
    #[error("its header of {length} bytes does not fit into it")]
    HeaderLength { length: u64 },
    #[error("its header cannot be read: {0}")]
    Header(#[from] serde_json::Error),
    #[error("its header does not say what it holds")]
    NoDescription,
    #[error("its tensors have {length} bytes, expected {expected}")]
    Length { length: usize, expected: usize },
    #[error("it has {found} tensors, expected {expected}")]
    Count { found: usize, expected: usize },
    #[error("its tensor {name:?} is missing")]
    Missing { name: String },
    #[error("its tensor {name:?} has elements of {dtype}, which are never kept")]
    Element { name: String, dtype: Dtype },
    #[error("its tensor {name:?} has a dimension that no tensor can have")]
    Shape { name: String },
}
