//! The server of a run: lets clients in, drives the round machine, combines, evaluates, keeps the account.
//! Must not know which framework it runs: the halves do the work, the machine decides what comes next.
//!
//! | file | one thing |
//! |---|---|
//! | `sessions.rs` | clients in and out: threads that carry messages between links and the engine |
//! | `engine.rs` | events to the machine, its actions to the half and the clients |
//! | `account.rs` | rounds and clients as the report will have them; payload against its formula |

use std::{sync::mpsc, time::Duration};

use fedtune_crds::report::{Direction, PayloadKind};
use thiserror::Error;

use crate::{
    data::{DataError, Record},
    events::Events,
    frameworks::{FrameworkError, ServerHalf},
    meter::Slots,
    models::{Base, LoraSettings, ModelError},
    plan::Plan,
    rounds,
    wire::{Ledger, server::Listener},
};

mod account;
mod engine;
mod sessions;

pub use account::Account;
pub(crate) use sessions::panic_sentence;
pub use sessions::{Announcement, Inbox};

/// How long clients may take to end their sessions after the run.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the server of a run works with.
#[derive(Debug)]
pub struct ServerSetup<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The frozen base.
    pub base: Base,
    /// The adapter, its targets resolved.
    pub lora: LoraSettings,
    /// What fills a batch.
    pub pad_id: u32,
    /// Public records.
    pub public: Vec<Record>,
    /// Held-out records.
    pub evaluation: Vec<Record>,
    /// Every client's records, where a baseline trains on them all; else empty.
    pub all_data: Vec<Vec<Record>>,
    /// The plan's labels, or those of the data in sight where no client announces any.
    pub labels: Vec<String>,
    /// Cores shared with whoever else computes in this process.
    pub slots: Slots,
    /// Who listens.
    pub events: Events,
    /// Where every byte is counted.
    pub ledger: Ledger,
}

/// What is left when a run has ended well.
pub struct Outcome {
    /// Rounds, clients and figures.
    pub account: Account,
    /// Labels in the order of the logits.
    pub labels: Vec<String>,
    /// The server half, which holds the global model.
    pub half: Box<dyn ServerHalf>,
    /// Every byte.
    pub ledger: Ledger,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Quorum.
    #[error(transparent)]
    Rounds(#[from] rounds::Failure),
    /// The framework.
    #[error(transparent)]
    Framework(#[from] FrameworkError),
    /// The adapter.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Labels.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The cut is not inside the model.
    #[error("framework.splitFedLLM.cutLayer is {cut}, and the model has {blocks} blocks; it must be from 1 to {}", blocks - 1)]
    CutLayer {
        /// Blocks asked of the client.
        cut: usize,
        /// Blocks there are.
        blocks: usize,
    },
    /// A bug: what was sent is not what the formula says.
    #[error(
        "PayloadMismatch: in round {round} client {client} exchanged {counted} bytes of {} ({direction:?}), \
         and the formula says {expected}; this is a bug of fedtune", kind.as_str()
    )]
    Payload {
        /// Round.
        round: u32,
        /// Client.
        client: String,
        /// Direction.
        direction: Direction,
        /// Kind.
        kind: PayloadKind,
        /// Bytes counted.
        counted: u64,
        /// Bytes by the formula.
        expected: u64,
    },
    /// A client cannot go on.
    #[error("client {client}: {reason}")]
    Client {
        /// Which.
        client: String,
        /// Its own sentence.
        reason: String,
    },
    /// libtorch gave up on the server's thread.
    #[error("the model thread stopped: {0}")]
    Panic(String),
}

/// Runs the server until the last round is done or nothing can go on; clients come through `listener`.
pub fn serve(
    setup: ServerSetup<'_>,
    listener: Listener,
    inbox: (mpsc::Sender<Inbox>, mpsc::Receiver<Inbox>),
) -> Result<Outcome, ServerError> {
    check_cut(setup.plan, &setup.base)?;
    let (sender, receiver) = inbox;
    let ledger = setup.ledger.clone();
    let door = sessions::Door::open(listener, setup.plan, &ledger, sender);
    let outcome = engine::Engine::new(setup, &door, ledger).run(&receiver);
    door.close(FAREWELL);
    outcome
}

/// Refuses a cut that is not inside the model.
pub fn check_cut(plan: &Plan, base: &Base) -> Result<(), ServerError> {
    let blocks = base.shape().blocks;
    match plan.framework.cut_layer() {
        Some(cut) if !(1..blocks).contains(&cut) => Err(ServerError::CutLayer { cut, blocks }),
        Some(_) | None => Ok(()),
    }
}
