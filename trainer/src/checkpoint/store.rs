//! A folder of checkpoints: one file for each of the two last rounds, and one for what was sent in each.
//! Must not overwrite what is not this run's, nor remove a checkpoint before a newer one is durable.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tracing::warn;

use super::{
    CheckpointError, Content, Header, Keep, Owner, Snapshot,
    file::{decode, encode, prefix},
    lock, owner, superseded,
};
use crate::durable;

/// A folder of checkpoints, locked for this process as long as this lives.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    run_hash: String,
    epoch: u64,
    // Held, not used: closing it gives the lock back.
    _lock: File,
}

impl Store {
    /// Makes the folder if need be, takes its lock, checks that it is `owner`'s, removes what cut-off writes left, and
    /// raises the epoch. A folder that is refused is left as it was.
    pub fn open(folder: &Path, owner: &Owner) -> Result<Self, CheckpointError> {
        let create = durable::create_folder(folder);
        create.map_err(|error| CheckpointError::Write { path: folder.to_owned(), error })?;
        owner::check(folder, owner)?;
        let lock = lock::take(folder)?;
        // Again, for until now another may have opened it.
        let opened = owner::check(folder, owner)?;
        remove_leftovers(folder)?;
        let epoch = opened.saturating_add(1);
        owner::write(folder, owner, epoch)?;
        Ok(Self { folder: folder.to_owned(), run_hash: owner.run_hash.clone(), epoch, _lock: lock })
    }

    /// Takes the lock of a folder that is to be removed, if it is there; held as long as the file is open.
    pub fn claim(folder: &Path) -> Result<Option<File>, CheckpointError> {
        if folder.is_dir() { lock::take(folder).map(Some) } else { Ok(None) }
    }

    fn path(&self, round: u32, content: Content) -> PathBuf {
        self.folder.join(name(round, content))
    }

    fn put(&self, round: u32, content: Content, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        let path = self.path(round, content);
        let body = encode(Header { run_hash: self.run_hash.clone(), round, content }, snapshot)?;
        let prefix = prefix(&body);
        let written = durable::write_parts(&path, &[&prefix, &body]);
        written.map_err(|error| CheckpointError::Write { path, error })?;
        Ok((prefix.len() + body.len()) as u64)
    }

    fn get(&self, round: u32, content: Content) -> Result<Option<Snapshot>, CheckpointError> {
        let path = self.path(round, content);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CheckpointError::Read { path, error }),
        };
        match decode(&bytes) {
            Err(error) => Err(CheckpointError::File { path, error }),
            Ok((header, _)) if header.run_hash != self.run_hash => Err(CheckpointError::FileOfOtherRun { path }),
            Ok((header, _)) if (header.round, header.content) != (round, content) => {
                Err(CheckpointError::Misplaced { path, holds: header.content.as_str(), round: header.round })
            }
            Ok((_, snapshot)) => Ok(Some(snapshot)),
        }
    }

    /// Rounds that have a file, whole or not, ascending.
    fn listed(&self) -> Result<Vec<u32>, CheckpointError> {
        let names = owner::names(&self.folder);
        let names = names.map_err(|error| CheckpointError::Read { path: self.folder.clone(), error })?;
        let mut rounds: Vec<u32> = names.iter().filter_map(|name| round_of(name)).collect();
        rounds.sort_unstable();
        Ok(rounds)
    }

    /// What cannot be removed only takes up room: the checkpoint is written, and the next one tries again.
    fn remove_superseded(&self, written: u32) {
        let rounds = self.listed().unwrap_or_default();
        for round in superseded(&rounds, written) {
            let path = self.path(round, Content::State);
            if let Err(error) = fs::remove_file(&path) {
                warn!("cannot remove {}, which is no longer needed: {error}", path.display());
            }
        }
    }
}

impl Keep for Store {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn newest(&self) -> Result<Option<(u32, Snapshot)>, CheckpointError> {
        let mut newest = None;
        for round in self.listed()?.into_iter().rev() {
            match self.read(round) {
                Ok(Some(snapshot)) => return Ok(Some((round, snapshot))),
                Ok(None) => {}
                Err(error) if error.is_damage() => {
                    warn!("{error}; it is passed over");
                    newest.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match newest {
            None => Ok(None),
            Some(newest) => Err(CheckpointError::AllDamaged { folder: self.folder.clone(), newest: Box::new(newest) }),
        }
    }

    fn read(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError> {
        self.get(round, Content::State)
    }

    fn rounds(&self) -> Vec<u32> {
        let is_whole = |round: &u32| match self.read(*round) {
            Ok(snapshot) => snapshot.is_some(),
            Err(error) => {
                warn!("{error}; it is passed over");
                false
            }
        };
        self.listed().unwrap_or_default().into_iter().filter(is_whole).collect()
    }

    fn write(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        let bytes = self.put(round, Content::State, snapshot)?;
        self.remove_superseded(round);
        Ok(bytes)
    }

    fn write_broadcast(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        self.put(round, Content::Broadcast, snapshot)
    }

    fn broadcast(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError> {
        self.get(round, Content::Broadcast)
    }
}

fn name(round: u32, content: Content) -> String {
    format!("round-{round:05}.{}", content.as_str())
}

/// The round of a state's file name; no other name for it counts.
fn round_of(file: &str) -> Option<u32> {
    let (digits, _) = file.strip_prefix("round-")?.split_once('.')?;
    digits.parse().ok().filter(|round| name(*round, Content::State) == file)
}

fn remove_leftovers(folder: &Path) -> Result<(), CheckpointError> {
    let names = owner::names(folder).map_err(|error| CheckpointError::Read { path: folder.to_owned(), error })?;
    for name in names.iter().filter(|name| name.starts_with(durable::PARTIAL)) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|error| CheckpointError::Write { path, error })?;
    }
    Ok(())
}
