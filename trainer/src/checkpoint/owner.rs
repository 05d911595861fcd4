//! Whose checkpoints a folder holds, and how often it was opened: `owner.json`.
//! Must not let a folder of anything else be written to.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{CheckpointError, file::FORMAT, lock::LOCK};
use crate::durable;

const OWNER: &str = "owner.json";

/// Whose checkpoints a folder holds; each is a SHA-256 in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Over spec, base model and tokenizer.
    pub run_hash: String,
    /// Over the spec alone.
    pub spec_hash: String,
    /// Over the base model alone.
    pub base_hash: String,
}

/// What [`OWNER`] holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    format: u64,
    epoch: u64,
    #[serde(flatten)]
    owner: Owner,
}

/// The part of a [`Mark`] that every version has.
#[derive(Deserialize)]
struct Version {
    format: u64,
}

/// Refuses a folder that is not `owner`'s, and changes nothing. Else how often it was opened so far.
pub(super) fn check(folder: &Path, owner: &Owner) -> Result<u64, CheckpointError> {
    let Some(mark) = read(folder)? else { return check_unused(folder).map(|()| 0) };
    let folder = folder.to_owned();
    if mark.owner.spec_hash != owner.spec_hash {
        return Err(CheckpointError::OtherSpec { folder });
    }
    if mark.owner.base_hash != owner.base_hash {
        return Err(CheckpointError::OtherBase { folder });
    }
    if mark.owner.run_hash != owner.run_hash {
        return Err(CheckpointError::OtherRun { folder });
    }
    Ok(mark.epoch)
}

/// Says that `folder` is `owner`'s and was opened `epoch` times, durably.
pub(super) fn write(folder: &Path, owner: &Owner, epoch: u64) -> Result<(), CheckpointError> {
    let path = folder.join(OWNER);
    let mark = Mark { format: FORMAT, epoch, owner: owner.clone() };
    let text = serde_json::to_vec_pretty(&mark).expect("a mark has text keys only");
    durable::write_whole(&path, &text).map_err(|error| CheckpointError::Write { path, error })
}

fn read(folder: &Path) -> Result<Option<Mark>, CheckpointError> {
    let path = folder.join(OWNER);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::Read { path, error }),
    };
    let unreadable = |error: serde_json::Error| {
        let (path, reason) = (path.clone(), error.to_string());
        CheckpointError::OwnerUnreadable { path, reason }
    };
    // The version first: a newer shape need not fit ours, and then that is what should be said.
    let Version { format: found } = serde_json::from_slice(&text).map_err(unreadable)?;
    if found > FORMAT {
        return Err(CheckpointError::NewerFolder { folder: folder.to_owned(), found });
    }
    serde_json::from_slice(&text).map(Some).map_err(unreadable)
}

/// A folder without an owner may hold only what an opening that was cut off leaves, or a new disk has.
fn check_unused(folder: &Path) -> Result<(), CheckpointError> {
    let is_ours = |name: &str| name == LOCK || name == "lost+found" || name.starts_with(durable::PARTIAL);
    let names = names(folder).map_err(|error| CheckpointError::Read { path: folder.to_owned(), error })?;
    if names.iter().all(|name| is_ours(name)) {
        Ok(())
    } else {
        Err(CheckpointError::NotAStore { folder: PathBuf::from(folder) })
    }
}

/// Names of all that is in `folder`.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
