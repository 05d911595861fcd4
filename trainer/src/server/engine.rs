//! The engine: what clients say becomes events of the round machine, its actions become work and messages.
//! Must not wait on one client: messages go through the door's outboxes, answers come through one inbox.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{
    Account, Announcement, Inbox, Outcome, ServerError, ServerSetup,
    account::RoundClose,
    sessions::{Door, panic_sentence, refusal},
};
use crate::{
    data::{Labels, encode},
    events::Event as Progress,
    frameworks::{Figures, FrameworkError, ServerHalf, ServerSeat, Spare, exchange_of},
    local::{Recipe, check_evaluation},
    meter::Worker,
    models::{LoraSettings, Model},
    rounds::{Action, Client, Event, Exchange, Rounds},
    wire::{Ledger, Message, Subject},
};

/// How long a tick waits where the machine sets no deadline.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Engine<'a> {
    setup: ServerSetup<'a>,
    door: &'a Door,
    ledger: Ledger,
    machine: Rounds,
    started: Instant,
    announced: BTreeMap<Client, Announcement>,
    running: Option<Running>,
    account: Account,
}

/// What exists once the labels are frozen.
struct Running {
    half: Box<dyn ServerHalf>,
    labels: Labels,
    recipe: Recipe,
    public: usize,
}

/// Whether the run goes on.
enum Flow {
    On(Vec<Event>),
    Finished,
}

impl<'a> Engine<'a> {
    pub(super) fn new(setup: ServerSetup<'a>, door: &'a Door, ledger: Ledger) -> Self {
        let machine = Rounds::new(setup.plan.rules.clone(), Duration::ZERO);
        let account = Account::new(setup.plan);
        let (announced, started) = (BTreeMap::new(), Instant::now());
        Self { setup, door, ledger, machine, started, announced, running: None, account }
    }

    /// Drives the machine until it finishes or fails; clients are told either way.
    pub(super) fn run(mut self, inbox: &Receiver<Inbox>) -> Result<Outcome, ServerError> {
        let driven = catch_unwind(AssertUnwindSafe(|| self.drive(inbox)));
        let result = driven.unwrap_or_else(|panic| Err(ServerError::Panic(panic_sentence(panic.as_ref()))));
        let farewell = match &result {
            Ok(()) => Message::new(Subject::Finish, self.setup.plan.rules.rounds),
            Err(error) => refusal(&format!("the run failed: {error}")),
        };
        (0..self.setup.plan.clients.len()).for_each(|client| self.door.send(client, farewell.clone()));
        result?;
        let Self { account, running, ledger, .. } = self;
        let Running { half, labels, .. } = running.expect("the last round closed, so the first one began");
        Ok(Outcome { account, labels: labels.as_slice().to_vec(), half, ledger })
    }

    fn drive(&mut self, inbox: &Receiver<Inbox>) -> Result<(), ServerError> {
        let mut events = Vec::new();
        loop {
            let actions = self.machine.tick(self.started.elapsed(), &events);
            match self.perform_all(actions)? {
                Flow::Finished => return Ok(()),
                Flow::On(next) if next.is_empty() => events = self.wait(inbox)?,
                Flow::On(next) => events = next,
            }
        }
    }

    /// Waits for something to happen, or for the machine's deadline.
    fn wait(&mut self, inbox: &Receiver<Inbox>) -> Result<Vec<Event>, ServerError> {
        let now = self.started.elapsed();
        let patience = self.machine.deadline().map_or(IDLE, |deadline| deadline.saturating_sub(now));
        match inbox.recv_timeout(patience) {
            Ok(message) => self.take(message),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(Vec::new()),
        }
    }

    fn take(&mut self, inbox: Inbox) -> Result<Vec<Event>, ServerError> {
        match inbox {
            Inbox::Joined(client, announcement) => Ok(self.take_join(client, announcement)),
            Inbox::Message(client, message) => self.take_message(client, &message),
            Inbox::Left(client) => {
                self.setup.events.tell(Progress::ClientLeft { client: self.id(client) });
                Ok(vec![Event::Left(client)])
            }
            Inbox::StepFailed(client, error) => self.refuse(client, error),
            Inbox::Stop(error) => Err(error),
        }
    }

    fn take_join(&mut self, client: Client, announcement: Announcement) -> Vec<Event> {
        let id = announcement.client.clone();
        self.account.joined(client, announcement.clone());
        self.announced.insert(client, announcement);
        let (joined, of) = (self.announced.len() as u32, self.setup.plan.rules.clients as u32);
        self.setup.events.tell(Progress::ClientJoined { client: id, joined, of });
        self.welcome(client);
        vec![Event::Joined(client)]
    }

    fn take_message(&mut self, client: Client, message: &Message) -> Result<Vec<Event>, ServerError> {
        match message.subject {
            Subject::Upload | Subject::ExchangeReply => match self.take_answer(client, message) {
                Ok(exchange) => Ok(vec![Event::Answered(client, exchange)]),
                Err(error) => self.refuse(client, error),
            },
            Subject::Refuse => {
                let reason = message.fields["reason"].as_str().unwrap_or("gave up without a reason").to_owned();
                let client = self.id(client);
                self.setup.events.tell(Progress::ClientFailed { client: client.clone(), reason: reason.clone() });
                Err(ServerError::Client { client, reason })
            }
            got @ (Subject::Join
            | Subject::Welcome
            | Subject::Begin
            | Subject::Step
            | Subject::StepReply
            | Subject::Exchange
            | Subject::Finish) => {
                let error = FrameworkError::Unexpected { who: self.id(client), got, expected: Subject::Upload };
                self.refuse(client, error)
            }
        }
    }

    /// Reads an answer that counts; others are left to the machine, which leaves them out.
    fn take_answer(&mut self, client: Client, answer: &Message) -> Result<Exchange, FrameworkError> {
        let exchange = exchange_of(answer);
        if let Some(running) = &mut self.running
            && self.machine.waits_for(client, exchange)
        {
            let figures = Figures::of(answer)?;
            running.half.take(client, exchange, answer)?;
            self.setup.events.tell(Progress::ClientFigures {
                client: self.setup.plan.clients[client].to_string(),
                meter: figures.meter,
                peak_memory_bytes: figures.peak_memory_bytes,
            });
            self.account.take_figures(client, figures);
        }
        Ok(exchange)
    }

    /// A loss that is no number ends the run; anything else only this client's part in it.
    fn refuse(&mut self, client: Client, error: FrameworkError) -> Result<Vec<Event>, ServerError> {
        if matches!(error, FrameworkError::Train(_)) {
            return Err(error.into());
        }
        let (id, reason, sentence) = (self.id(client), (&error).into(), error.to_string());
        self.setup.events.tell(Progress::UploadRefused { client: id, reason, sentence });
        self.account.refused(client, &error);
        self.door.send(client, refusal(&error.to_string()));
        Ok(Vec::new())
    }

    fn perform_all(&mut self, actions: Vec<Action>) -> Result<Flow, ServerError> {
        let mut events = Vec::new();
        for action in actions {
            match action {
                Action::Freeze => self.freeze()?,
                Action::Ask(client, exchange) => self.ask(client, exchange)?,
                Action::Abandon(client, exchange) => {
                    self.account.abandoned(client);
                    self.running_half()?.abandon(client, exchange);
                }
                Action::LeaveOut(client, Exchange { round, .. }) => {
                    let client = self.id(client);
                    tracing::warn!(client, round, "an answer came too late and is left out; the next round asks again");
                }
                Action::Close { exchange, answered, absent } => {
                    self.close(&RoundClose { exchange, answered, absent })?;
                    events.push(Event::Closed);
                }
                Action::Finish => return Ok(Flow::Finished),
                Action::Fail(failure) => return Err(failure.into()),
            }
        }
        Ok(Flow::On(events))
    }

    /// Freezes the labels and makes the global model; from now on clients can be welcomed.
    fn freeze(&mut self) -> Result<(), ServerError> {
        let labels = self.frozen_labels();
        let setup = &mut self.setup;
        let recipe = setup.plan.recipe(labels.len(), setup.pad_id, setup.lora.clone());
        let model = Model::new(setup.base.share(), &setup.lora, labels.len(), setup.plan.seed)?;
        let public = encode(&setup.public, &labels)?;
        let public_count = public.len();
        let all_data: Vec<_> = setup.all_data.drain(..).flatten().collect();
        let seat = ServerSeat {
            recipe: recipe.clone(),
            model,
            spare: spare(setup, labels.len()),
            clients: setup.plan.clients.iter().map(ToString::to_string).collect(),
            all_data: encode(&all_data, &labels)?,
            public,
            evaluation: encode(&setup.evaluation, &labels)?,
            worker: Worker::new("server", setup.slots.clone(), setup.events.clone()),
        };
        self.account.freeze(&labels);
        let half = setup.plan.framework.server_half(seat);
        self.running = Some(Running { half, labels, recipe, public: public_count });
        let present: Vec<Client> = self.announced.keys().copied().collect();
        for client in present {
            self.welcome(client);
        }
        Ok(())
    }

    /// The plan's labels, else the sorted union of what clients announced, else what the server's own data has.
    fn frozen_labels(&self) -> Labels {
        let setup = &self.setup;
        if !setup.plan.data.labels.is_empty() || self.announced.is_empty() {
            return Labels::new(setup.labels.clone());
        }
        let announced: BTreeSet<&String> = self.announced.values().flat_map(|a| a.labels.keys()).collect();
        Labels::new(announced.into_iter().cloned().collect())
    }

    /// Tells a client the labels, once they are frozen.
    fn welcome(&self, client: Client) {
        if let Some(running) = &self.running {
            self.door.set_stepper(client, running.half.stepper(client));
            let fields = serde_json::json!({ "labels": running.labels.as_slice() });
            self.door.send(client, Message { fields, ..Message::new(Subject::Welcome, 0) });
        }
    }

    fn ask(&mut self, client: Client, exchange: Exchange) -> Result<(), ServerError> {
        self.begin_round(exchange);
        let message = self.running_half()?.ask(client, exchange)?;
        self.door.send(client, message);
        Ok(())
    }

    fn begin_round(&mut self, exchange: Exchange) {
        if self.account.begin_round(exchange.round) {
            let steps = self.account.steps_of_a_round(self.setup.plan);
            self.setup.events.tell(Progress::RoundStarted { round: exchange.round, steps });
        }
    }

    fn close(&mut self, close: &RoundClose) -> Result<(), ServerError> {
        self.begin_round(close.exchange);
        let last = close.exchange.index + 1 == self.setup.plan.rules.exchanges;
        let Some(running) = &mut self.running else { return Ok(()) };
        running.half.close(close.exchange, &self.account.weights(&close.answered))?;
        self.account.take_absent(close, &self.setup.events);
        if last {
            let evaluation = running.half.evaluate();
            if let Some(evaluation) = &evaluation {
                check_evaluation(evaluation, "the global model", close.exchange.round).map_err(FrameworkError::from)?;
            }
            let (base, recipe, public) = (self.setup.base.shape(), &running.recipe, running.public);
            let bytes = self.ledger.round(close.exchange.round);
            self.account.check_payload(self.setup.plan, base, recipe, public, close, &bytes)?;
            self.account.end_round(close, evaluation, bytes, &self.setup.events);
        }
        Ok(())
    }

    fn running_half(&mut self) -> Result<&mut Box<dyn ServerHalf>, ServerError> {
        let early = || ServerError::Panic("the machine asked a client before the labels were frozen".to_owned());
        self.running.as_mut().map(|running| &mut running.half).ok_or_else(early)
    }

    fn id(&self, client: Client) -> String {
        self.setup.plan.clients[client].to_string()
    }
}

/// Makes further models like the first; the arguments have made one already.
fn spare(setup: &ServerSetup<'_>, labels: usize) -> Spare {
    let (base, lora, seed): (_, LoraSettings, _) = (setup.base.share(), setup.lora.clone(), setup.plan.seed);
    Spare(Box::new(move || {
        Model::new(base.share(), &lora, labels, seed).expect("the same arguments have made a model already")
    }))
}
