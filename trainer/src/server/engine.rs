//! The engine: what clients say becomes events of the round machine, its actions become work and messages.
//! Must not do I/O of its own or read a clock: it is told the time, and talks through a [`Door`] and a [`Keep`].
//!
//! | file | one thing |
//! |---|---|
//! | `arrivals.rs` | what reaches it: checked, kept or refused |
//! | `conduct.rs` | what it does when the machine says so |

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::{
    Account, Door, Farewell, Inbox, Outcome, Refusal, ServerError, ServerSetup, account::RoundClose, archive::Archive,
    panic_sentence, refusal_message, saved::Saved,
};
use crate::{
    checkpoint::{Keep, Snapshot},
    data::Labels,
    events::Event as Progress,
    frameworks::ServerHalf,
    local::Recipe,
    refusal::RefusalReason,
    rounds::{Action, Client, Event, Exchange, Rounds},
    wire::{Message, Subject},
};

mod arrivals;
mod conduct;

/// How long a tick waits where the machine sets no deadline.
const IDLE: Duration = Duration::from_secs(3600);

/// The time since any fixed moment.
pub(crate) type Clock<'c> = &'c dyn Fn() -> Duration;

/// The engine of one run.
pub(crate) struct Engine<'a> {
    setup: ServerSetup<'a>,
    keep: Box<dyn Keep>,
    machine: Rounds,
    /// The exchange that each client was asked in last, and how often.
    attempts: BTreeMap<Client, (Exchange, u32)>,
    running: Option<Running>,
    account: Account,
}

/// What exists once the labels are frozen.
struct Running {
    half: Box<dyn ServerHalf>,
    labels: Labels,
    recipe: Recipe,
    public_reads: usize,
}

/// What follows from the machine's actions.
enum Flow {
    On(Vec<Event>),
    Finished,
}

/// Whether the run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It does.
    On,
    /// The last round is over.
    Finished,
}

impl<'a> Engine<'a> {
    /// An engine that goes on from the newest checkpoint of `keep`, or begins.
    pub(crate) fn new(setup: ServerSetup<'a>, keep: Box<dyn Keep>, now: Duration) -> Result<Self, ServerError> {
        let machine = Rounds::new(setup.plan.rules.clone(), now);
        let account = Account::new(setup.plan);
        let (attempts, newest) = (BTreeMap::new(), keep.newest()?);
        let mut engine = Self { setup, keep, machine, attempts, running: None, account };
        if let Some((round, snapshot)) = newest {
            engine.resume(round, snapshot, now)?;
        }
        Ok(engine)
    }

    fn resume(&mut self, round: u32, snapshot: Snapshot, now: Duration) -> Result<(), ServerError> {
        let (saved, of_half) = Saved::of(round, snapshot)?;
        let plan = self.setup.plan;
        self.setup.uid = saved.uid;
        self.setup.ledger.resume(saved.carried);
        self.account = Account::resume(plan, saved.book);
        let mut running = self.make_running(Labels::new(self.account.labels().to_vec()))?;
        running.half.restore(&of_half)?;
        running.half.seat_mut().worker.meter = saved.meter;
        self.running = Some(running);
        // A run that a rule has stopped stays stopped: what is left of its rounds counts as closed.
        let closed = if self.stop().is_some() { plan.rules.rounds } else { round };
        self.machine = Rounds::resume(plan.rules.clone(), closed, now);
        if round > 0 {
            let text = format!("{} goes on after round {round}", plan.name);
            self.setup.events.tell(Progress::Note { text });
        }
        Ok(())
    }

    /// Drives the run until it finishes or fails; in the latter case clients are told.
    pub(super) fn run(mut self, door: &dyn Door, inbox: &Receiver<Inbox>) -> Result<(Outcome, Farewell), ServerError> {
        let driven = catch_unwind(AssertUnwindSafe(|| self.drive(door, inbox)));
        let driven = driven.unwrap_or_else(|panic| Err(ServerError::Panic(panic_sentence(panic.as_ref()))));
        match driven {
            Ok(()) => self.end(),
            Err(error) => {
                self.tell_failure(&error, door);
                Err(error)
            }
        }
    }

    fn drive(&mut self, door: &dyn Door, inbox: &Receiver<Inbox>) -> Result<(), ServerError> {
        let started = Instant::now();
        let mut arrived = None;
        while self.turn(&|| started.elapsed(), arrived, door)? == Turn::On {
            let patience = self.deadline().map_or(IDLE, |deadline| deadline.saturating_sub(started.elapsed()));
            // Time that is up is told by the machine's next turn.
            arrived = inbox.recv_timeout(patience.min(IDLE)).ok();
        }
        Ok(())
    }

    /// Takes in what arrived and does all that follows from it and from the time.
    ///
    /// The work of a turn may take long: the clock is asked again after it, so that nobody is blamed for that time.
    pub(crate) fn turn(
        &mut self,
        clock: Clock<'_>,
        arrived: Option<Inbox>,
        door: &dyn Door,
    ) -> Result<Turn, ServerError> {
        let mut events = match arrived {
            Some(message) => self.take(message, door)?,
            None => Vec::new(),
        };
        loop {
            let actions = self.machine.tick(clock(), &events);
            match self.perform_all(actions, clock, door)? {
                Flow::Finished => return Ok(Turn::Finished),
                Flow::On(next) if next.is_empty() => {
                    self.say_waiting_for();
                    return Ok(Turn::On);
                }
                Flow::On(next) => events = next,
            }
        }
    }

    /// When to take a turn if nothing arrives before.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.machine.deadline()
    }

    /// What the run left behind, and whom to tell.
    pub(crate) fn end(mut self) -> Result<(Outcome, Farewell), ServerError> {
        let early = || ServerError::Panic("the run ended before the labels were frozen".to_owned());
        let (welcome, members) = (self.welcome_message(), self.account.members().map(|(client, _)| client).collect());
        let last = self.account.rounds().last().map_or(0, |round| round.round);
        let finish = self.address(Message::new(Subject::Finish, last));
        let Running { half, labels, .. } = self.running.take().ok_or_else(early)?;
        let completed = self.account.completed().clone();
        let (account, ledger, uid) = (self.account, self.setup.ledger, self.setup.uid);
        let outcome = Outcome { account, labels: labels.as_slice().to_vec(), half, ledger, uid };
        let archive = Archive::new(completed, self.keep);
        Ok((outcome, Farewell::new(welcome, finish, archive, members)))
    }

    /// A stop may be followed by a start, after which clients come back; any other end is final.
    fn tell_failure(&self, error: &ServerError, door: &dyn Door) {
        let last = !matches!(error, ServerError::Stopped(_));
        let refusal = Refusal { reason: RefusalReason::Other, sentence: format!("the run failed: {error}") };
        let clients = 0..self.setup.plan.clients.len();
        clients.for_each(|client| door.send(client, refusal_message(&refusal, last)));
    }

    fn say_waiting_for(&self) {
        let clients = self.machine.waiting_for().into_iter().map(|client| self.id(client)).collect();
        self.setup.events.tell(Progress::WaitingFor { clients });
    }

    fn perform_all(&mut self, actions: Vec<Action>, clock: Clock<'_>, door: &dyn Door) -> Result<Flow, ServerError> {
        let mut events = Vec::new();
        for action in actions {
            match action {
                Action::Freeze => {
                    self.freeze(door)?;
                    self.machine.frozen(clock());
                }
                Action::Ask(client, exchange) => self.ask(client, exchange, clock(), door)?,
                Action::Abandon(client, exchange) => {
                    door.set_steps(client, None);
                    self.running()?.half.abandon(client, exchange);
                }
                Action::LeaveOut(client, Exchange { round, .. }) => {
                    let client = self.id(client);
                    tracing::warn!(client, round, "an answer came too late and is left out; the next round asks again");
                }
                Action::Close { exchange, answered, absent } => {
                    self.close(&RoundClose { exchange, answered, absent }, clock)?;
                    events.push(self.after_close(exchange));
                }
                Action::Finish => return Ok(Flow::Finished),
                Action::Fail(failure) => return Err(failure.into()),
            }
        }
        Ok(Flow::On(events))
    }

    /// The message as one of this start of the server.
    fn address(&self, message: Message) -> Message {
        Message { epoch: self.keep.epoch(), ..message }
    }

    fn running(&mut self) -> Result<&mut Running, ServerError> {
        self.running.as_mut().ok_or_else(too_early)
    }

    fn id(&self, client: Client) -> String {
        self.setup.plan.clients[client].to_string()
    }
}

/// The cause that a client names when its loss is no number any more: that ends the run.
pub(crate) const NON_FINITE_LOSS: &str = "NonFiniteLoss";

fn too_early() -> ServerError {
    ServerError::Panic("the machine asked a client before the labels were frozen".to_owned())
}
