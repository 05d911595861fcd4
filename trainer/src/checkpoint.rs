//! Keeps what a run has reached, so that any process may be killed at any moment and goes on from the last whole round.
//! Must not know frameworks, rounds' rules or the network: it keeps small JSON and tensors under a round's number.
//!
//! ```text
//! <folder>/lock                     held by the one process that may write here
//!         /owner.json               whose checkpoints these are; how often the folder was opened
//!         /round-00007.state        the two last rounds
//!         /round-00007.broadcast    what was sent to all, of every round
//! ```
//!
//! Every file is written beside its place, synced and renamed: after a crash there is the old one or the new one.

mod error;
mod file;
mod lock;
mod memory;
mod owner;
mod store;

use std::fmt;

pub use error::{CheckpointError, FileError};
pub use file::{Content, FORMAT, Header, parse, seal};
pub use memory::InMemory;
pub use owner::Owner;
pub use store::Store;

use crate::wire::WireTensor;

/// What is kept: small JSON beside tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Counts, names, figures. JSON knows no NaN: a figure that may be one is kept as null or as text.
    pub fields: serde_json::Value,
    /// Tensors, in an order that the reader knows.
    pub tensors: Vec<WireTensor>,
}

/// Where checkpoints are kept: in a folder ([`Store`]), or for a simulation in memory ([`InMemory`]).
pub trait Keep: fmt::Debug + Send {
    /// How often this was opened, this time included: the `epoch` of every message.
    fn epoch(&self) -> u64;

    /// The newest whole checkpoint and its round; a damaged one is passed over for the one before, with a warning.
    /// If there are some and all are damaged, that is an error: nothing is begun anew over them.
    fn newest(&self) -> Result<Option<(u32, Snapshot)>, CheckpointError>;

    /// The checkpoint of `round`, where it is (still) there.
    fn read(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError>;

    /// Rounds there are whole checkpoints of, ascending.
    fn rounds(&self) -> Vec<u32>;

    /// Keeps the checkpoint of `round`, durable when it returns its size in bytes. Then only it and the one before stay;
    /// what there was of later rounds goes too, for the run has gone back behind it.
    fn write(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError>;

    /// Keeps what was sent to all in `round`, for the whole run, so that a client that lost its state can replay it.
    fn write_broadcast(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError>;

    /// What was sent to all in `round`, if it was kept.
    fn broadcast(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError>;
}

/// Which of the kept `rounds`, ascending, go once `written` is durable: all but it and the one before.
fn superseded(rounds: &[u32], written: u32) -> Vec<u32> {
    let before = rounds.iter().copied().filter(|round| *round < written).max();
    rounds.iter().copied().filter(|round| *round != written && Some(*round) != before).collect()
}

#[cfg(test)]
mod tests;
