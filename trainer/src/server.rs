//! The server of a run: lets clients in, drives the round machine, combines, evaluates, keeps the account.
//! Must not know which framework it runs: the halves do the work, the machine decides what comes next.
//!
//! | file | one thing |
//! |---|---|
//! | `sessions.rs` | clients in and out: threads that carry messages between links and the engine |
//! | `admission.rs` | who may join |
//! | `steps.rs` | steps within a round, in order |
//! | `engine.rs` | events to the machine, its actions to the half and the clients |
//! | `saved.rs` | what of a run a checkpoint keeps |
//! | `farewell.rs` | after the last round: everyone is told |
//! | `archive.rs` | what clients that lost their state were sent |
//! | `account.rs` | rounds and clients as the report will have them; payload against its formula |

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use fedtune_crds::report::{Direction, PayloadKind};
use thiserror::Error;

use crate::{
    adapter_files::{AdapterError, AdapterFiles},
    checkpoint::{CheckpointError, Keep},
    data::{DataError, Record},
    events::Events,
    frameworks::{FrameworkError, ServerHalf, Unfit},
    meter::Slots,
    models::{Base, LoraSettings},
    plan::Plan,
    refusal::RefusalReason,
    rounds::{self, Client},
    wire::{Ledger, Limits, Message, Subject, server::Listener},
};

mod account;
mod admission;
mod archive;
mod engine;
mod farewell;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod quiet;
mod saved;
mod sessions;
#[cfg(test)]
mod simulation;
mod steps;

pub use account::Account;
pub use admission::{Admission, Announcement, JoinError};
#[cfg(test)]
pub(crate) use engine::Turn;
pub(crate) use engine::{Engine, NON_FINITE_LOSS};
pub(crate) use farewell::Farewell;
pub use saved::saved_uid;
pub(crate) use sessions::panic_sentence;
pub(crate) use steps::Steps;

/// How long clients may take to end their sessions after the run.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long what a server says when it is stopped may take to reach its clients.
const STOPPING: Duration = Duration::from_secs(1);

/// Letters of a sentence that a peer may have a part in, at most.
const SENTENCE: usize = 1000;

/// What reaches the engine.
#[derive(Debug)]
pub enum Inbox {
    /// A client of this run opened a session.
    Joined(Client, Announcement),
    /// A client's message, but for steps, which its session answers itself.
    Message(Client, Message, Permit),
    /// A client's session ended.
    Left(Client),
    /// A client's step was refused.
    StepRefused(Client, FrameworkError, Permit),
    /// A client broke the protocol, and its session is lost.
    Refused(Client, FrameworkError),
    /// The run must end.
    Stop(ServerError),
}

/// Dropped when a message is done with, so that its client's next one is read.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "its drop is what is told")] Option<mpsc::Sender<()>>);

impl Permit {
    /// A permit, and what ends when it is dropped.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel();
        (Self(Some(sender)), receiver)
    }

    /// A permit that nobody waits for.
    pub fn of_nobody() -> Self {
        Self(None)
    }
}

/// The way from the engine to the clients.
pub(crate) trait Door {
    /// Sends a message to a client, if it is connected; never waits.
    fn send(&self, client: Client, message: Message);

    /// Lets a client send messages within these limits.
    fn widen(&self, client: Client, limits: Limits);

    /// Lets `steps` answer what the client sends within its exchange. A step that runs is waited for.
    fn set_steps(&self, client: Client, steps: Option<Steps>);

    /// Ends a client's session.
    fn end(&self, client: Client);
}

/// What a peer is told that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: RefusalReason,
    pub(crate) sentence: String,
}

impl Refusal {
    fn of(error: &FrameworkError) -> Self {
        Self { reason: error.into(), sentence: short(&error.to_string()) }
    }

    fn of_join(error: &JoinError) -> Self {
        Self { reason: error.into(), sentence: short(&error.to_string()) }
    }
}

/// A sentence that a peer may have a part in, fit to be sent, logged and reported: on one line, and not long.
fn short(sentence: &str) -> String {
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut short: String = sentence.chars().take(SENTENCE).map(shown).collect();
    if sentence.chars().nth(SENTENCE).is_some() {
        short.push('…');
    }
    short
}

/// Tells a client that what it sent is not accepted; `last` says that it need not try again.
pub(crate) fn refusal_message(refusal: &Refusal, last: bool) -> Message {
    let fields = serde_json::json!({ "reason": refusal.sentence, "final": last });
    Message { fields, ..Message::new(Subject::Refuse, 0) }
}

/// What the server of a run works with.
#[derive(Debug)]
pub struct ServerSetup<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The frozen base.
    pub base: Base,
    /// The adapter, its targets resolved.
    pub lora: LoraSettings,
    /// The adapter to start from; none for a fresh one.
    pub initial: Option<Arc<AdapterFiles>>,
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
    /// A name for this one run, where no checkpoint has one.
    pub uid: String,
    /// How long clients that are away may come back after the end, to be told of it.
    pub farewell: Duration,
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
    /// The run's own name.
    pub uid: String,
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
    Adapter(#[from] AdapterError),
    /// Labels.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The cut is not inside the model.
    #[error(
        "clients of group {group} are to hold {cut} blocks, and the model has {blocks}; the group's cutLayer, or \
         framework.splitFedLLM.cutLayer where it has none, must be from 1 to {}", blocks.saturating_sub(1)
    )]
    CutLayer {
        /// Whose clients.
        group: String,
        /// Blocks asked of the client.
        cut: usize,
        /// Blocks there are.
        blocks: usize,
    },
    /// A setting that does not fit what is known now.
    #[error(transparent)]
    Unfit(#[from] Unfit),
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
    /// The disk.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What a checkpoint holds cannot be used.
    #[error("the checkpoint of round {round} cannot be used: {reason}; --fresh starts the run anew")]
    Saved {
        /// Its round.
        round: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// Someone wants the program to end.
    #[error("stopped by {0}; the same command goes on from the last finished round")]
    Stopped(&'static str),
    /// libtorch gave up on the server's thread.
    #[error("the model thread stopped: {0}")]
    Panic(String),
}

/// A run whose last round is over: its results, and the clients that wait to be told.
pub struct Served {
    /// What it left behind.
    pub outcome: Outcome,
    /// To be ended once the results are written down.
    pub parting: Parting,
}

/// Runs the server until the last round is done or nothing can go on; clients come through `listener`. A run that
/// `keep` knows goes on from its last finished round.
pub fn serve(
    setup: ServerSetup<'_>,
    keep: Box<dyn Keep>,
    listener: Listener,
    inbox: (mpsc::Sender<Inbox>, mpsc::Receiver<Inbox>),
) -> Result<Served, ServerError> {
    check_cut(setup.plan, &setup.base)?;
    let (sender, receiver) = inbox;
    let (ledger, events, patience) = (setup.ledger.clone(), setup.events.clone(), setup.farewell);
    let admission = Admission::of(setup.plan, keep.epoch());
    let sluice = sessions::Sluice::open(listener, admission, &ledger, sender, events);
    match Engine::new(setup, keep, Duration::ZERO).and_then(|engine| engine.run(&sluice, &receiver)) {
        Ok((outcome, farewell)) => {
            let parting = Parting { sluice, receiver, farewell, patience };
            Ok(Served { outcome, parting })
        }
        Err(error) => {
            drop(receiver);
            // Who stops a server starts another, to which its clients come anyway: they need not end before this one.
            let stopped = matches!(error, ServerError::Stopped(_));
            sluice.close(if stopped { STOPPING } else { FAREWELL });
            Err(error)
        }
    }
}

/// The end of a run, in which every client is told that it is over, also one that comes back late.
pub struct Parting {
    sluice: sessions::Sluice,
    receiver: mpsc::Receiver<Inbox>,
    farewell: Farewell,
    patience: Duration,
}

impl Parting {
    /// Tells every client, waits for those that are away, and closes the door.
    pub fn tell(mut self) {
        tracing::debug!(phase = "farewell");
        let began = Instant::now();
        self.farewell.begin(&self.sluice);
        while !self.farewell.is_over() {
            let left = self.patience.saturating_sub(began.elapsed());
            match self.receiver.recv_timeout(left) {
                Ok(message) => self.farewell.take(message, &self.sluice),
                Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        // Nobody takes in what still comes: whoever waits for that is let go.
        drop(self.receiver);
        self.sluice.close(FAREWELL);
    }

    /// Tells those that are connected that the results could not be written.
    pub fn tell_failure(self, sentence: &str) {
        self.farewell.tell_failure(sentence, &self.sluice);
        drop(self.receiver);
        self.sluice.close(FAREWELL);
    }
}

/// Refuses a cut that is not inside the model.
pub fn check_cut(plan: &Plan, base: &Base) -> Result<(), ServerError> {
    let blocks = base.shape().blocks;
    for (client, id) in plan.clients.iter().enumerate() {
        let cut = plan.framework.client_part(client).cut_layer();
        if let Some(cut) = cut.filter(|cut| !(1..blocks).contains(cut)) {
            return Err(ServerError::CutLayer { group: id.group.clone(), cut, blocks });
        }
    }
    Ok(())
}
