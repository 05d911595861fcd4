//! A client of a run: joins, works on its own data when asked, answers, until the server says that it is over.
//! Must not know which framework it runs, and must not send anything but what its half answers.
//!
//! | file | one thing |
//! |---|---|
//! | `dialer.rs` | the way to the server, again and again |
//! | `member.rs` | the client across sessions: its half, what it does with each message |
//! | `states.rs` | the round states of a model that goes on from round to round: kept, gone back to, made again |

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    adapter_files::{AdapterError, AdapterFiles},
    checkpoint::{CheckpointError, Keep},
    data::{DataError, Record},
    events::Events,
    frameworks::{ClientHalf, FrameworkError},
    local::TrainError,
    meter::Slots,
    models::{Base, LoraSettings},
    plan::Plan,
    rounds::Client,
    server::panic_sentence,
    wire::{Line, LinkError, Message, Subject, WireError},
};

pub mod dialer;
mod member;
mod states;

use dialer::DialError;
use member::Member;

/// What a client works with.
#[derive(Debug)]
pub struct ClientSetup<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its ordinal among all clients.
    pub ordinal: Client,
    /// Drawn at the start of its process, to tell it from others that speak for the same client.
    pub incarnation: u64,
    /// The frozen base.
    pub base: Base,
    /// The adapter, its targets resolved.
    pub lora: LoraSettings,
    /// The adapter to start from; none for a fresh one.
    pub initial: Option<Arc<AdapterFiles>>,
    /// What fills a batch.
    pub pad_id: u32,
    /// Its private records.
    pub train: Vec<Record>,
    /// Public records.
    pub public: Vec<Record>,
    /// Held-out records, where clients evaluate themselves; else empty.
    pub evaluation: Vec<Record>,
    /// Where it keeps its round states, in frameworks whose clients have any.
    pub keep: Box<dyn Keep>,
    /// Cores shared with whoever else computes in this process.
    pub slots: Slots,
    /// Who listens.
    pub events: Events,
}

/// How a client reaches its server, again and again.
pub trait Dial {
    /// Opens a session, waiting while nobody answers. After `trouble` with the session before it waits first, longer
    /// each time until one has [`Dial::held`].
    fn open(&mut self, trouble: Option<&str>) -> Result<Box<dyn Line>, DialError>;

    /// The session is a good one: the server has let the client in.
    fn held(&mut self);
}

/// What a client has when the run is over.
pub struct Finished {
    /// The client half, which holds the client's model.
    pub half: Box<dyn ClientHalf>,
    /// Labels in the order of the logits.
    pub labels: Vec<String>,
    epoch: u64,
    line: Box<dyn Line>,
}

impl Finished {
    /// Tells the server that this client needs nothing more.
    pub fn confirm(&mut self) {
        // A server that is gone has stopped waiting for it.
        let _ = self.line.send(Message { epoch: self.epoch, ..Message::new(Subject::Finish, 0) });
    }
}

/// Why a client cannot go on.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] DialError),
    /// The session broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its labels.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Its work.
    #[error(transparent)]
    Framework(#[from] FrameworkError),
    /// Its round states.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The server does not want it.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server does not want it now.
    #[error("the server refused for now: {0}")]
    NotNow(String),
    /// A server that a newer one has replaced.
    #[error("the server has epoch {theirs}, and this client has spoken with epoch {known} already: it is an old one")]
    OldServer {
        /// The server's epoch.
        theirs: u64,
        /// The newest that the client knows.
        known: u64,
    },
    /// The server began another run.
    #[error("the server's labels or run are others than before; start this client anew")]
    OtherRun,
    /// libtorch gave up on the model thread.
    #[error("the model thread stopped: {0}")]
    Panic(String),
    /// A message that has no place here.
    #[error("the server sent a {0} where a welcome, a question or the end of the run belongs")]
    Unexpected(Subject),
}

impl ClientError {
    /// Whether another session may go better.
    fn is_passing(&self) -> bool {
        match self {
            Self::Link(error) | Self::Framework(FrameworkError::Link(error)) => match error {
                LinkError::Closed { .. } | LinkError::Refused(WireError::CutOff { .. }) => true,
                LinkError::Rejected { .. } | LinkError::Refused(_) | LinkError::Unsendable(_) => false,
            },
            Self::NotNow(_) | Self::OldServer { .. } => true,
            Self::Connect(_)
            | Self::Data(_)
            | Self::Adapter(_)
            | Self::Framework(_)
            | Self::Checkpoint(_)
            | Self::Refused(_)
            | Self::OtherRun
            | Self::Panic(_)
            | Self::Unexpected(_) => false,
        }
    }

    /// Whether training itself went wrong, which ends the run for all.
    fn is_training(&self) -> bool {
        let Self::Framework(FrameworkError::Train(error)) = self else { return false };
        match error {
            TrainError::NonFiniteLoss { .. }
            | TrainError::NonFiniteLogits { .. }
            | TrainError::NonFiniteEvaluation { .. } => true,
        }
    }

    /// Whether the server knows already, or cannot be told.
    fn is_the_servers(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::NotNow(_)
            | Self::OldServer { .. }
            | Self::Link(_)
            | Self::Connect(_)
            | Self::Framework(FrameworkError::Refused { .. } | FrameworkError::Link(_)) => true,
            Self::Data(_)
            | Self::Adapter(_)
            | Self::Framework(_)
            | Self::Checkpoint(_)
            | Self::OtherRun
            | Self::Panic(_)
            | Self::Unexpected(_) => false,
        }
    }
}

/// Takes part in the run that `dial` leads to until it is over, over as many sessions as it takes.
pub fn work(setup: ClientSetup<'_>, dial: &mut dyn Dial) -> Result<Finished, ClientError> {
    let mut member = Member::new(setup);
    let panicked = |panic: Box<dyn Any + Send>| Err(ClientError::Panic(panic_sentence(panic.as_ref())));
    catch_unwind(AssertUnwindSafe(|| member.take_part(dial))).unwrap_or_else(panicked)
}
