//! KD-FedLLM: clients share logits on a public set; knowledge is distilled into the server's student and back.
//! Must not send a weight in either direction.
//!
//! Round: local steps, the clients' logits up, their plain mean is the teacher of the server's student, the student's
//! logits down, they are the teacher of every client. Models persist over rounds. Loss (Hinton et al., arXiv
//! 1503.02531): `(1 - lambda) CE + lambda T^2 KL(softmax(z_teacher / T) || softmax(z / T))`, mean over rows.

use std::collections::BTreeMap;

use fedtune_crds::report::{Direction, FrameworkName, PayloadKind};
use tch::{Kind, Reduction, Tensor};

use super::{
    ClientHalf, ClientSeat, Figures, Framework, FrameworkError, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat,
    adapter::{describe, finite},
    answer, ask, refuse_tensors,
};
use crate::{
    averages::weighted_means,
    checkpoint::Snapshot,
    data::{
        Example,
        batches::{LocalWork, local_batches},
    },
    evaluate::{self, Evaluation},
    local::{Batch, Recipe, TrainError, check_loss, tensors, train},
    meter::{Worker, peak_memory_bytes},
    models::{Model, Part},
    optimizer::Optimizer,
    random::{Key, Site},
    rounds::{Client, Exchange},
    wire::{Element, Line, Message, WireTensor},
};

/// KD-FedLLM with its options.
#[derive(Debug, Clone)]
pub struct Kd {
    /// Softens both distributions; above zero.
    pub temperature: f64,
    /// Weight of the teacher, 0 to 1; 1 wherever the public examples have no labels.
    pub lambda: f64,
    /// Optimizer steps of each distillation.
    pub steps: usize,
}

impl Framework for Kd {
    fn name(&self) -> FrameworkName {
        FrameworkName::KdFedLlm
    }

    fn needs(&self) -> Needs {
        Needs {
            clients: true,
            exchanges: 2,
            turns: false,
            public: true,
            client_evaluates: true,
            all_data: false,
            clients_keep_models: false,
            clients_keep_state: true,
        }
    }

    fn client_half(&self, seat: ClientSeat) -> Box<dyn ClientHalf> {
        Box::new(KdClient { kd: self.clone(), train_loss: 0.0, seat })
    }

    fn server_half(&self, seat: ServerSeat) -> Box<dyn ServerHalf> {
        Box::new(KdServer { kd: self.clone(), uploads: BTreeMap::new(), broadcast: None, seat })
    }

    /// Every client distils once, and so does the server.
    fn units(&self, clients: u64, local: u64) -> u64 {
        local + (clients + 1) * self.steps as u64
    }

    /// P C e each way, e = 4.
    fn payload(&self, facts: &PayloadFacts<'_>) -> Payload {
        let classes = facts.recipe.head.classes(facts.shape);
        let bytes = (facts.public_reads * classes * Element::F32.size()) as u64;
        let both = [Direction::Up, Direction::Down];
        both.into_iter().map(|direction| ((direction, PayloadKind::Logits), bytes)).collect()
    }
}

/// The distillation loss of logits `z` against `teacher`, both `[batch, classes]`, F32; `labels` `[batch]` where the
/// public examples have them.
pub fn distillation_loss(
    z: &Tensor,
    teacher: &Tensor,
    labels: Option<&Tensor>,
    temperature: f64,
    lambda: f64,
) -> Tensor {
    let Some(labels) = labels else { return divergence(z, teacher, temperature) };
    // With a weight of zero a term is left out rather than multiplied: it may decide no bit.
    if lambda <= 0.0 {
        return z.cross_entropy_for_logits(labels);
    }
    if lambda >= 1.0 {
        return divergence(z, teacher, temperature);
    }
    z.cross_entropy_for_logits(labels) * (1.0 - lambda) + divergence(z, teacher, temperature) * lambda
}

/// `T^2 KL(softmax(teacher / T) || softmax(z / T))`, mean over rows.
fn divergence(z: &Tensor, teacher: &Tensor, temperature: f64) -> Tensor {
    let z = (z / temperature).log_softmax(-1, Kind::Float);
    let teacher = (teacher / temperature).log_softmax(-1, Kind::Float);
    z.kl_div(&teacher, Reduction::Sum, true) * (temperature * temperature / z.size()[0] as f64)
}

struct KdClient {
    kd: Kd,
    /// Of the round's local steps, kept for the answer that ends the round.
    train_loss: f64,
    seat: ClientSeat,
}

impl ClientHalf for KdClient {
    fn seat(&self) -> &ClientSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ClientSeat {
        &mut self.seat
    }

    fn answer(&mut self, ask: &Message, _line: &mut dyn Line) -> Result<Message, FrameworkError> {
        match ask.step {
            0 => self.train_and_share(ask),
            _ => self.distil_back(ask),
        }
    }

    /// The local steps of the round, whose logits the server has already.
    fn catch_up(&mut self, ask: &Message) -> Result<(), FrameworkError> {
        self.train(ask.round)
    }

    fn replay(&mut self, sent: &Message) -> Result<(), FrameworkError> {
        self.train(sent.round)?;
        self.distil(sent)
    }
}

impl KdClient {
    fn key(&self, round: u32) -> Key {
        Key { seed: self.seat.recipe.seed, client: self.seat.ordinal as u32, round, step: 0 }
    }

    fn train_and_share(&mut self, ask: &Message) -> Result<Message, FrameworkError> {
        self.train(ask.round)?;
        let ClientSeat { recipe, model, public, worker, .. } = &mut self.seat;
        let logits = public_logits(model, public, recipe, worker);
        let tensors = vec![worker.encode(|| write(&logits))?];
        Ok(Message { tensors, fields: self.figures(None), ..answer(ask) })
    }

    fn train(&mut self, round: u32) -> Result<(), FrameworkError> {
        let key = self.key(round);
        let ClientSeat { recipe, model, train: examples, worker, .. } = &mut self.seat;
        self.train_loss = train(model, examples, recipe, key, worker)?;
        Ok(())
    }

    /// Distils the student's logits, which the server sent.
    fn distil(&mut self, sent: &Message) -> Result<(), FrameworkError> {
        let key = self.key(sent.round);
        let ClientSeat { recipe, model, public, worker, .. } = &mut self.seat;
        let teacher = worker.encode(|| read(sent, public.len(), recipe, model, "the server"))?;
        Ok(self.kd.distil(model, public, &teacher, recipe, key, worker)?)
    }

    fn distil_back(&mut self, ask: &Message) -> Result<Message, FrameworkError> {
        self.distil(ask)?;
        let evaluation = self.seat.evaluate(ask.round)?;
        Ok(Message { fields: self.figures(Some(evaluation)), ..answer(ask) })
    }

    fn figures(&self, evaluation: Option<Evaluation>) -> serde_json::Value {
        let (train_loss, meter) = (self.train_loss, self.seat.worker.meter);
        let peak_memory_bytes = peak_memory_bytes();
        Figures { train_loss, meter, evaluation, peak_memory_bytes }.fields()
    }
}

struct KdServer {
    kd: Kd,
    /// The clients' logits of the open exchange.
    uploads: BTreeMap<Client, [Tensor; 1]>,
    /// The student's logits of this round.
    broadcast: Option<Tensor>,
    seat: ServerSeat,
}

impl ServerHalf for KdServer {
    fn seat(&self) -> &ServerSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ServerSeat {
        &mut self.seat
    }

    fn ask(&mut self, _client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        let tensors = match &self.broadcast {
            Some(logits) if exchange.index > 0 => vec![self.seat.worker.encode(|| write(logits))?],
            Some(_) | None => Vec::new(),
        };
        Ok(Message { tensors, ..ask(exchange) })
    }

    fn take(
        &mut self,
        client: Client,
        exchange: Exchange,
        answer: &Message,
        _figures: &Figures,
    ) -> Result<(), FrameworkError> {
        if exchange.index > 0 {
            // Its figures are all it carries, and they have been read.
            return refuse_tensors(answer, &self.seat.clients[client]);
        }
        let ServerSeat { recipe, model, public, worker, clients, .. } = &mut self.seat;
        let who = &clients[client];
        let logits = worker.encode(|| read(answer, public.len(), recipe, model, who))?;
        self.uploads.insert(client, [logits]);
        Ok(())
    }

    fn abandon(&mut self, client: Client, exchange: Exchange) {
        if exchange.index == 0 {
            self.uploads.remove(&client);
        }
    }

    fn close(&mut self, exchange: Exchange, answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        if exchange.index > 0 {
            return Ok(());
        }
        let uploads = std::mem::take(&mut self.uploads);
        let ServerSeat { recipe, model, public, worker, .. } = &mut self.seat;
        // The plain mean: every client's logits count the same, whatever it trained on.
        let shared = answered.iter().filter_map(|(client, _)| Some((1.0, &uploads.get(client)?[..])));
        let Some(teacher) = worker.compute(|| weighted_means(shared)).pop() else { return Ok(()) };
        let key = Key { seed: recipe.seed, client: 0, round: exchange.round, step: 0 };
        self.kd.distil(model, public, &teacher, recipe, key, worker)?;
        self.broadcast = Some(public_logits(model, public, recipe, worker));
        Ok(())
    }

    fn broadcast(&self) -> Result<Option<Snapshot>, FrameworkError> {
        let tensors = self.broadcast.iter().map(write).collect::<Result<_, _>>()?;
        Ok(Some(Snapshot { tensors, ..Snapshot::default() }))
    }
}

impl Kd {
    /// Distils `teacher` `[public, classes]` into `model`, with a new optimizer.
    fn distil(
        &self,
        model: &Model,
        public: &[Example],
        teacher: &Tensor,
        recipe: &Recipe,
        key: Key,
        worker: &mut Worker,
    ) -> Result<(), TrainError> {
        let parameters = tensors(model, Part::Whole);
        let mut optimizer = Optimizer::new(&recipe.optimizer, &parameters);
        let lengths: Vec<usize> = public.iter().map(|example| example.tokens.len()).collect();
        let labelled = public.iter().all(|example| example.label.is_some());
        let work = LocalWork::Steps(self.steps);
        for (step, indices) in
            local_batches(&lengths, recipe.batch_size, work, key, Site::Distillation).iter().enumerate()
        {
            let key = Key { step: step as u32, ..key };
            let batch = Batch::of(public, indices, recipe.pad_id, model);
            let rows: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
            let rows = Tensor::from_slice(&rows).to_device(model.device());
            let loss = worker.compute(|| {
                let labels = labelled.then_some(&batch.targets);
                let teacher = teacher.index_select(0, &rows);
                let loss = |z: &Tensor| distillation_loss(z, &teacher, labels, self.temperature, self.lambda);
                let (tokens, again) = (&batch.tokens, recipe.gradient_checkpointing);
                let (loss, gradients) = model.loss_and_gradients(tokens, Some(key), again, loss);
                optimizer.step(&parameters, &gradients);
                loss
            });
            check_loss(loss, key, &worker.name)?;
            worker.meter.flops.distill += recipe.step_flops(model, Part::Whole, batch.size());
            worker.say_step();
        }
        Ok(())
    }
}

/// A model's logits on the public set, `[public, classes]`, counted.
fn public_logits(model: &Model, public: &[Example], recipe: &Recipe, worker: &mut Worker) -> Tensor {
    worker.meter.flops.public_forward += evaluate::flops(model, public, recipe);
    worker.compute(|| evaluate::logits(model, public, recipe.pad_id, recipe.batch_size))
}

fn write(logits: &Tensor) -> Result<WireTensor, FrameworkError> {
    Ok(WireTensor::from_tensor("logits", PayloadKind::Logits, logits, Element::F32)?)
}

/// The one tensor of a message: finite logits `[public, classes]`.
fn read(message: &Message, public: usize, recipe: &Recipe, model: &Model, who: &str) -> Result<Tensor, FrameworkError> {
    let [logits] = &message.tensors[..] else {
        let (got, expected) = (message.tensors.len(), 1);
        return Err(FrameworkError::Count { who: who.into(), subject: message.subject, got, expected });
    };
    let shape = [public as i64, recipe.labels as i64];
    if (logits.kind, logits.element, &logits.shape[..]) != (PayloadKind::Logits, Element::F32, &shape[..]) {
        return Err(FrameworkError::Tensor {
            who: who.into(),
            got: describe("logits", logits.kind, logits.element, &logits.shape),
            expected: describe("logits", PayloadKind::Logits, Element::F32, &shape),
        });
    }
    finite(logits.to_tensor(model.device())?, who, "logits")
}
