//! The frameworks of Yan et al. (arXiv 2501.04436) and two baselines, each as a client half and a server half.
//! Must not know sockets, clocks or files: seats and messages in, messages and figures out.
//!
//! | | `fedllm` | `kd` | `split` | `central` | `local_only` |
//! |---|---|---|---|---|---|
//! | server sends | adapter, or what to add beside the base | its student's logits on the public set | adapter of the front | nothing | nothing |
//! | during the round | nothing | nothing | activations up, their gradients down; twice with the head at the client | nothing | nothing |
//! | client uploads | adapter, or its gradient | its logits on the public set | adapter of what it holds | | figures |
//! | server does | mean, weighted by examples | mean of logits, distils into its student | runs the back, averages fronts | trains on all data | nothing |
//! | leaves the client | weights | logits | activations, weights of what it holds, labels unless the head is its own | everything | nothing |
//!
//! Each file holds both halves of one framework, so that its protocol reads top to bottom. The rest of the trainer
//! sees the three traits below and never a framework's name; [`parse`] is the only place that chooses one.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use fedtune_crds::report::{Direction, Flops, FrameworkName, PayloadKind};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Snapshot,
    data::Example,
    evaluate::{self, Evaluation},
    flops::BatchSize,
    local::{Recipe, check_evaluation},
    meter::{Meter, Worker},
    models::{LoraSettings, Model, ModelShape, Part},
    random::Key,
    rounds::{Client, Exchange},
    wire::{Line, Message, Subject},
};

mod adapter;
pub mod central;
mod error;
pub mod fedllm;
pub mod kd;
pub mod local_only;
mod settings;
pub mod split;

pub(crate) use adapter::payload_kind;
pub use error::{FrameworkError, Unfit};
pub use kd::public_reads;
pub(crate) use settings::ranks;
pub use settings::{Refused, parse};

/// A framework: what its rounds look like, and how to make its halves.
pub trait Framework: Debug + Send + Sync {
    /// Its name in reports and metrics.
    fn name(&self) -> FrameworkName;

    /// What a round asks of the clients.
    fn needs(&self) -> Needs;

    /// The client half, which owns the client's model.
    fn client_half(&self, seat: ClientSeat) -> Box<dyn ClientHalf>;

    /// The server half, which owns the global model.
    fn server_half(&self, seat: ServerSeat) -> Box<dyn ServerHalf>;

    /// Payload of one client in one round by TRAINER's formulas, from shapes alone.
    fn payload(&self, facts: &PayloadFacts<'_>) -> Payload;

    /// Floating point operations of one client in one round, from shapes alone: the same sums that its meter makes. Where
    /// a framework does not say otherwise, a client trains what it holds, and that is all.
    fn client_flops(&self, facts: &WorkFacts<'_>) -> Flops {
        Flops { train: facts.train(self.client_part(facts.key.client as usize)), ..Flops::default() }
    }

    /// Units of work in a round, for progress: `local` batches of all `clients` together, and what comes on top in steps
    /// of so many batches each.
    fn units(&self, _clients: u64, local: u64, _batches_a_step: u64) -> u64 {
        local
    }

    /// Whether what clients keep from round to round is the same for all: then a client goes on from the newest also
    /// where it did not take part in it.
    fn shares_state(&self) -> bool {
        false
    }

    /// Rank of what has gathered beside each target of the base once these have answered, round by round.
    fn rank_beside(&self, _answered: &[Vec<Client>], _lora: &LoraSettings) -> usize {
        0
    }

    /// Rank of the server's own adapter, where the clients' ranks rather than `rank` decide it.
    fn global_rank(&self, rank: usize) -> usize {
        rank
    }

    /// Refuses settings that do not fit the model, its classes or the public set: asked once these are known, before the
    /// first round. `public_reads` as in [`PayloadFacts`].
    fn check(&self, _shape: &ModelShape, _recipe: &Recipe, _public_reads: usize) -> Result<(), Unfit> {
        Ok(())
    }

    /// What of the model this client holds and trains; in most frameworks all of it.
    fn client_part(&self, _client: Client) -> Part {
        Part::Whole
    }

    /// Whether clients keep to themselves how many examples of each label they hold.
    fn labels_stay(&self) -> bool {
        false
    }
}

/// What a framework's rounds look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own, and no two exclude each other")]
pub struct Needs {
    /// Whether clients take part at all.
    pub clients: bool,
    /// Exchanges of a round.
    pub exchanges: u32,
    /// Whether clients take turns.
    pub turns: bool,
    /// Whether a public set is needed.
    pub public: bool,
    /// Whether clients evaluate themselves, and so hold the held-out examples.
    pub client_evaluates: bool,
    /// Whether the server holds every client's examples.
    pub all_data: bool,
    /// Whether the clients' own models are the result.
    pub clients_keep_models: bool,
    /// Whether a client's model goes on from round to round, so that it must outlive the client's process.
    pub clients_keep_state: bool,
}

/// Payload bytes by direction and kind.
pub type Payload = BTreeMap<(Direction, PayloadKind), u64>;

/// What the payload formulas read.
#[derive(Debug)]
pub struct PayloadFacts<'a> {
    /// Whose bytes.
    pub client: Client,
    /// The model.
    pub shape: &'a ModelShape,
    /// The server's adapter, and the head.
    pub recipe: &'a Recipe,
    /// Who answered in the round before; nobody in the first.
    pub before: &'a [Client],
    /// States that a head reads on all public examples, as [`public_reads`] counts them.
    pub public_reads: usize,
    /// The client's steps of the round.
    pub steps: StepSizes,
}

/// What a client works on in a round.
#[derive(Debug)]
pub struct WorkFacts<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// Adapter and head.
    pub recipe: &'a Recipe,
    /// The batches of its local steps.
    pub batches: &'a [BatchSize],
    /// The public examples.
    pub public: &'a [Example],
    /// Who, and which round.
    pub key: Key,
}

impl WorkFacts<'_> {
    /// Operations of the local steps, by one who holds `part`.
    fn train(&self, part: Part) -> f64 {
        let Self { shape, recipe, .. } = self;
        self.batches.iter().map(|batch| recipe.step_flops(shape, part, *batch)).sum()
    }
}

/// How much went through a client's model in a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepSizes {
    /// Rows of all steps.
    pub rows: u64,
    /// Tokens of all steps, padding included.
    pub tokens: u64,
}

/// A client's place in a run: its data, its model, its share of the cores.
#[derive(Debug)]
pub struct ClientSeat {
    /// Ordinal among all clients.
    pub ordinal: Client,
    /// How to train.
    pub recipe: Recipe,
    /// Its model, freshly initialised, equal for all clients.
    pub model: Model,
    /// Its private examples.
    pub train: Vec<Example>,
    /// The public examples.
    pub public: Vec<Example>,
    /// The held-out examples, where clients evaluate themselves; else empty.
    pub evaluation: Vec<Example>,
    /// Who computes.
    pub worker: Worker,
}

/// The server's place in a run.
#[derive(Debug)]
pub struct ServerSeat {
    /// How to train.
    pub recipe: Recipe,
    /// The global model, initialised like the clients'.
    pub model: Model,
    /// The base model without an adapter, for further models over the same weights.
    pub spare: Spare,
    /// The clients' ids, in ordinal order.
    pub clients: Vec<String>,
    /// The union of the clients' examples, where a baseline trains on it; else empty.
    pub all_data: Vec<Example>,
    /// The public examples.
    pub public: Vec<Example>,
    /// The held-out examples.
    pub evaluation: Vec<Example>,
    /// Who computes.
    pub worker: Worker,
}

impl ClientSeat {
    /// Evaluates the client's own model on the held-out examples, and counts it.
    fn evaluate(&mut self, round: u32) -> Result<Evaluation, FrameworkError> {
        let Self { worker, model, evaluation, recipe, .. } = self;
        worker.meter.flops.evaluate += evaluate::flops(model, evaluation, recipe);
        let counts = worker.compute(|| evaluate::evaluate(model, evaluation, recipe));
        check_evaluation(&counts, &worker.name, round)?;
        Ok(counts)
    }
}

impl ServerSeat {
    /// Evaluates the global model on the held-out examples, and counts it.
    fn evaluate(&mut self) -> Evaluation {
        let Self { worker, model, evaluation, recipe, .. } = self;
        worker.meter.flops.evaluate += evaluate::flops(model, evaluation, recipe);
        worker.compute(|| evaluate::evaluate(model, evaluation, recipe))
    }
}

/// Makes further models over the same frozen weights, initialised like the first.
pub struct Spare(pub Box<dyn Fn() -> Model + Send>);

impl Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spare")
    }
}

/// The client half of a framework, on the thread that owns the client's model.
pub trait ClientHalf: Send {
    /// Its place in the run.
    fn seat(&self) -> &ClientSeat;

    /// Its place in the run, to work in.
    fn seat_mut(&mut self) -> &mut ClientSeat;

    /// Does what `ask` says, talking over `line` where the framework talks within a round, and answers.
    fn answer(&mut self, ask: &Message, line: &mut dyn Line) -> Result<Message, FrameworkError>;

    /// Does again what the exchanges of `ask`'s round before it asked for, and sends nothing; the model stands where
    /// the round began. Only for frameworks with several exchanges.
    fn catch_up(&mut self, _ask: &Message) -> Result<(), FrameworkError> {
        Ok(())
    }

    /// Does a whole earlier round again from what all clients were sent in it, and sends nothing. Only for frameworks
    /// whose clients keep state.
    fn replay(&mut self, _sent: &Message) -> Result<(), FrameworkError> {
        Ok(())
    }

    /// What of the client outlives its process between rounds.
    fn save(&self) -> Result<Snapshot, FrameworkError> {
        Ok(Snapshot { tensors: adapter::write(&self.seat().model, Part::Whole)?, ..Snapshot::default() })
    }

    /// Goes on from what was saved.
    fn restore(&mut self, saved: &Snapshot) -> Result<(), FrameworkError> {
        let model = &self.seat().model;
        adapter::assign(model, Part::Whole, &adapter::read_saved(model, &saved.tensors)?);
        Ok(())
    }
}

/// The server half of a framework, on the thread that owns the global model.
pub trait ServerHalf: Send {
    /// Its place in the run.
    fn seat(&self) -> &ServerSeat;

    /// Its place in the run, to work in.
    fn seat_mut(&mut self) -> &mut ServerSeat;

    /// What to send to this client in this exchange.
    fn ask(&mut self, client: Client, exchange: Exchange) -> Result<Message, FrameworkError>;

    /// Checks and keeps a client's answer, whose figures have been read already.
    fn take(
        &mut self,
        client: Client,
        exchange: Exchange,
        answer: &Message,
        figures: &Figures,
    ) -> Result<(), FrameworkError>;

    /// Forgets what the client did in its unfinished exchange.
    fn abandon(&mut self, _client: Client, _exchange: Exchange) {}

    /// Combines the answers of these clients, given in client order with their examples.
    fn close(&mut self, exchange: Exchange, answered: &[(Client, u64)]) -> Result<(), FrameworkError>;

    /// What answers this client's messages within the round that it is asked in, one for each of its `batches`, on the
    /// thread of its session.
    fn stepper(&self, _client: Client, _round: u32, _batches: u64) -> Option<Box<dyn Stepper>> {
        None
    }

    /// What went through the model in the client's steps of the round, as the server saw them.
    fn step_sizes(&self, _client: Client) -> StepSizes {
        StepSizes::default()
    }

    /// Evaluates the global model; nothing where there is none.
    fn evaluate(&mut self) -> Option<Evaluation> {
        Some(self.seat_mut().evaluate())
    }

    /// The global model, to be exported; nothing where there is none.
    fn model(&self) -> Option<&Model> {
        Some(&self.seat().model)
    }

    /// What the server computed so far, steppers included.
    fn meter(&self) -> Meter {
        self.seat().worker.meter
    }

    /// What of the server outlives its process, at the close of a round.
    fn save(&self) -> Result<Snapshot, FrameworkError> {
        Ok(Snapshot { tensors: adapter::write(&self.seat().model, Part::Whole)?, ..Snapshot::default() })
    }

    /// Goes on from what was saved.
    fn restore(&mut self, saved: &Snapshot) -> Result<(), FrameworkError> {
        let model = &self.seat().model;
        adapter::assign(model, Part::Whole, &adapter::read_saved(model, &saved.tensors)?);
        Ok(())
    }

    /// What all clients were sent in the round that is closing, as far as one that lost its state needs it to do the
    /// round again; nothing where clients keep no state.
    fn broadcast(&self) -> Result<Option<Snapshot>, FrameworkError> {
        Ok(None)
    }
}

/// Answers one client's messages within a round.
pub trait Stepper: Send {
    /// What the messages of one step are about, in their order.
    fn subjects(&self) -> &'static [Subject] {
        &[Subject::Step]
    }

    /// The reply to one message.
    fn step(&mut self, message: &Message) -> Result<Message, FrameworkError>;
}

/// What a client says of itself beside the payload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Mean loss of the round's steps.
    pub train_loss: f64,
    /// All it did since the start of the run.
    pub meter: Meter,
    /// Its own model on the held-out examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// Peak resident size of its process.
    #[serde(default)]
    pub peak_memory_bytes: u64,
}

impl Figures {
    /// The figures as message fields.
    pub fn fields(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("figures are plain numbers and lists, which JSON holds")
    }

    /// The figures in an answer's fields. They are the client's word; what cannot be true is refused.
    pub fn of(answer: &Message, recipe: &Recipe) -> Result<Self, FrameworkError> {
        let wrong = |error: String| FrameworkError::Fields { subject: answer.subject, error };
        let figures: Self = serde_json::from_value(answer.fields.clone()).map_err(|error| wrong(error.to_string()))?;
        if !(-MOST_LOSS..MOST_LOSS).contains(&figures.train_loss) {
            return Err(wrong("trainLoss is not the loss of any step".to_owned()));
        }
        if !figures.meter.could_be() {
            return Err(wrong("meter holds a figure that no machine reaches".to_owned()));
        }
        if figures.evaluation.as_ref().is_some_and(|evaluation| !evaluation.could_be(recipe)) {
            return Err(wrong(format!("evaluation cannot be one of {} labels", recipe.labels)));
        }
        Ok(figures)
    }
}

/// No mean of losses comes near it; a larger word would overflow the mean over clients.
const MOST_LOSS: f64 = 1e30;

/// Refuses tensors in an answer that has none.
fn refuse_tensors(answer: &Message, who: &str) -> Result<(), FrameworkError> {
    match answer.tensors.len() {
        0 => Ok(()),
        got => Err(FrameworkError::Count { who: who.to_owned(), subject: answer.subject, got, expected: 0 }),
    }
}

/// The question of an exchange, empty.
pub fn ask(exchange: Exchange) -> Message {
    let subject = if exchange.index == 0 { Subject::Begin } else { Subject::Exchange };
    Message { step: exchange.index, ..Message::new(subject, exchange.round) }
}

/// The answer to a question, empty.
pub fn answer(ask: &Message) -> Message {
    let subject = if ask.step == 0 { Subject::Upload } else { Subject::ExchangeReply };
    Message { step: ask.step, epoch: ask.epoch, attempt: ask.attempt, ..Message::new(subject, ask.round) }
}

/// Which exchange a question or an answer belongs to.
pub fn exchange_of(message: &Message) -> Exchange {
    Exchange { round: message.round, index: message.step }
}

/// Shared by everyone who needs the framework of a run.
pub type SharedFramework = Arc<dyn Framework>;

#[cfg(test)]
mod tests;
