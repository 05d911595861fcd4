//! The lock of a folder: held by one process at a time, gone with the process however it ends.
//! Must not be asked of the file's presence: it stays behind, what counts is who holds it.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::CheckpointError;

/// Name of the file that is locked.
pub(super) const LOCK: &str = "lock";

/// Takes the lock of `folder`, or says that another has it; held as long as the file is open.
pub(super) fn take(folder: &Path) -> Result<File, CheckpointError> {
    let path = folder.join(LOCK);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|error| CheckpointError::Write { path: path.clone(), error })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CheckpointError::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(CheckpointError::Write { path, error }),
    }
}
