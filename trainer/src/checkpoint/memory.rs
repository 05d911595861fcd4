//! Checkpoints in memory, for simulations in which a process 'restarts' and finds what it wrote.
//! Must not differ from the folder in what stays and what goes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{CheckpointError, Keep, Snapshot, superseded};

/// A handle on checkpoints in memory; clones see the same ones.
#[derive(Debug, Clone)]
pub struct InMemory {
    kept: Arc<Mutex<Kept>>,
    epoch: u64,
}

#[derive(Debug)]
struct Kept {
    epoch: u64,
    states: BTreeMap<u32, Snapshot>,
    broadcasts: BTreeMap<u32, Snapshot>,
}

impl InMemory {
    /// As a folder that is opened for the first time.
    pub fn new() -> Self {
        let kept = Kept { epoch: 1, states: BTreeMap::new(), broadcasts: BTreeMap::new() };
        Self { kept: Arc::new(Mutex::new(kept)), epoch: 1 }
    }

    /// As the same folder opened again by a new process. The old handle, whose process is dead, can write no more.
    #[must_use]
    pub fn restart(&self) -> Self {
        let mut kept = self.kept();
        kept.epoch += 1;
        Self { kept: Arc::clone(&self.kept), epoch: kept.epoch }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no thread panics while it holds the lock")
    }

    fn kept_for_writing(&self) -> Result<MutexGuard<'_, Kept>, CheckpointError> {
        let kept = self.kept();
        if kept.epoch == self.epoch {
            Ok(kept)
        } else {
            Err(CheckpointError::Locked { folder: PathBuf::from("memory") })
        }
    }
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl Keep for InMemory {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn newest(&self) -> Result<Option<(u32, Snapshot)>, CheckpointError> {
        Ok(self.kept().states.last_key_value().map(|(round, snapshot)| (*round, snapshot.clone())))
    }

    fn read(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError> {
        Ok(self.kept().states.get(&round).cloned())
    }

    fn rounds(&self) -> Vec<u32> {
        self.kept().states.keys().copied().collect()
    }

    fn write(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        let mut kept = self.kept_for_writing()?;
        kept.states.insert(round, snapshot.clone());
        for gone in superseded(&kept.states.keys().copied().collect::<Vec<_>>(), round) {
            kept.states.remove(&gone);
        }
        Ok(payload_bytes(snapshot))
    }

    fn write_broadcast(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        self.kept_for_writing()?.broadcasts.insert(round, snapshot.clone());
        Ok(payload_bytes(snapshot))
    }

    fn broadcast(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError> {
        Ok(self.kept().broadcasts.get(&round).cloned())
    }
}

fn payload_bytes(snapshot: &Snapshot) -> u64 {
    snapshot.tensors.iter().map(crate::wire::WireTensor::payload_bytes).sum()
}
