//! The FedLLM server: sends the round's adapter, takes uploads, combines them when the round closes.
//! Must not take in an upload before its shapes and values are checked.

use std::collections::BTreeMap;

use fedtune_crds::report::PayloadKind;
use tch::Tensor;

use super::{
    Aggregation, FedLlm, Upload,
    combine::Global,
    optimizer::{ServerOptimizer, ServerRule},
    products,
    uploads::{Counted, Uploads},
};
use crate::{
    checkpoint::Snapshot,
    frameworks::{Figures, FrameworkError, ServerHalf, ServerSeat, adapter, ask},
    local::{Recipe, tensors},
    low_rank::LowRank,
    models::{LoraSettings, Model, Part},
    optimizer::{Optimizer, OptimizerSettings},
    rounds::{Client, Exchange},
    wire::{Element, Message, WireTensor},
};

pub(super) struct FedLlmServer {
    method: FedLlm,
    /// Along mean gradients.
    optimizer: Optimizer,
    /// Along mean parameters.
    means: ServerOptimizer,
    /// What the last round added beside the base, and every client is to add.
    products: Vec<LowRank>,
    sent: Sent,
    uploads: Uploads,
    seat: ServerSeat,
}

/// What goes to the clients of a round, encoded once: further clients share its bytes.
#[derive(Default)]
struct Sent {
    round: u32,
    products: Vec<WireTensor>,
    /// By the rank of whom it is for.
    messages: BTreeMap<usize, Vec<WireTensor>>,
}

impl FedLlmServer {
    pub(super) fn new(method: FedLlm, seat: ServerSeat) -> Self {
        let parameters = tensors(&seat.model, Part::Whole);
        let rule = match &method.upload {
            Upload::Parameters(Aggregation::FedAvg(rule) | Aggregation::FfaLora(rule)) => rule.clone(),
            Upload::Parameters(Aggregation::Flora | Aggregation::FedExLora | Aggregation::FlexLora)
            | Upload::Gradients(_) => ServerRule::Mean,
        };
        let settings = match &method.upload {
            Upload::Gradients(Some((rule, learning_rate))) => {
                OptimizerSettings { rule: rule.clone(), learning_rate: *learning_rate, ..seat.recipe.optimizer.clone() }
            }
            Upload::Gradients(None) | Upload::Parameters(_) => seat.recipe.optimizer.clone(),
        };
        let (optimizer, means) = (Optimizer::new(&settings, &parameters), ServerOptimizer::new(rule, &parameters));
        let (products, sent, uploads) = (Vec::new(), Sent::default(), Uploads::default());
        Self { method, optimizer, means, products, sent, uploads, seat }
    }

    fn rank(&self, client: Client) -> usize {
        self.method.lora(client, &self.seat.recipe.lora).rank
    }
}

impl Sent {
    /// The message of `round` to a client with this adapter.
    fn message(
        &mut self,
        round: u32,
        upload: &Upload,
        of_client: &LoraSettings,
        (model, recipe): (&Model, &Recipe),
        products: &[LowRank],
    ) -> Result<Vec<WireTensor>, FrameworkError> {
        if self.round != round {
            *self = Self { round, products: products::write(model, products)?, messages: BTreeMap::new() };
        }
        if let Some(message) = self.messages.get(&of_client.rank) {
            return Ok(message.clone());
        }
        let products = self.products.iter().cloned();
        let message = match upload {
            Upload::Parameters(Aggregation::Flora) => products.chain(adapter::write_head(model)?).collect(),
            Upload::Parameters(Aggregation::FedExLora) => {
                adapter::write(model, Part::Whole)?.into_iter().chain(products).collect()
            }
            Upload::Parameters(Aggregation::FlexLora) => write_cut(model, &recipe.lora, of_client)?,
            Upload::Parameters(Aggregation::FedAvg(_) | Aggregation::FfaLora(_)) | Upload::Gradients(_) => {
                adapter::write(model, Part::Whole)?
            }
        };
        self.messages.insert(of_client.rank, message.clone());
        Ok(message)
    }
}

/// The first singular values and vectors, as many as the client's rank, at the client's scale.
fn write_cut(
    model: &Model,
    of_server: &LoraSettings,
    of_client: &LoraSettings,
) -> Result<Vec<WireTensor>, FrameworkError> {
    let rank = of_client.rank as i64;
    let scale = of_server.scale() / of_client.scale();
    let mut message = Vec::new();
    for [a, b] in model.adapter().pairs() {
        message.push(adapter::write_as(a, &a.tensor.narrow(0, 0, rank))?);
        message.push(adapter::write_as(b, &(b.tensor.narrow(1, 0, rank) * scale))?);
    }
    message.extend(adapter::write_head(model)?);
    Ok(message)
}

impl ServerHalf for FedLlmServer {
    fn seat(&self) -> &ServerSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ServerSeat {
        &mut self.seat
    }

    fn ask(&mut self, client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        let Self { method, sent, products, seat, .. } = self;
        let ServerSeat { worker, model, recipe, .. } = seat;
        let of_client = method.lora(client, &recipe.lora);
        let tensors =
            worker.encode(|| sent.message(exchange.round, &method.upload, &of_client, (model, recipe), products))?;
        Ok(Message { tensors, ..ask(exchange) })
    }

    fn take(
        &mut self,
        client: Client,
        _exchange: Exchange,
        answer: &Message,
        _figures: &Figures,
    ) -> Result<(), FrameworkError> {
        let rank = self.rank(client);
        let ServerSeat { worker, model, clients, .. } = &mut self.seat;
        let who = &clients[client];
        worker.encode(|| match self.method.upload {
            Upload::Parameters(_) => adapter::check_at_rank(model, rank, answer, who, adapter::payload_kind),
            Upload::Gradients(_) => adapter::check_at_rank(model, rank, answer, who, |_| PayloadKind::Gradient),
        })?;
        worker.encode(|| self.uploads.put(client, &answer.tensors))
    }

    fn abandon(&mut self, client: Client, _exchange: Exchange) {
        self.uploads.remove(client);
    }

    fn close(&mut self, exchange: Exchange, answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        let Self { method, optimizer, means, products, uploads, seat, .. } = self;
        let ServerSeat { worker, model, recipe, .. } = seat;
        let counted = answered.iter().map(|&(client, examples)| {
            let scale = method.lora(client, &recipe.lora).scale();
            Counted { client, examples, scale }
        });
        let answered = uploads.answered(counted, model.device());
        if answered.is_empty() {
            // What an earlier round added is not to be added twice.
            products.clear();
            uploads.clear();
            return Ok(());
        }
        // The server takes one step a round, so the schedule counts rounds.
        let factor = recipe.optimizer.schedule.factor(u64::from(exchange.round - 1), recipe.rounds.into());
        worker.compute(|| match &method.upload {
            Upload::Parameters(aggregation) => {
                Global { model, recipe, means, products }.combine(aggregation, &answered, exchange.round)
            }
            Upload::Gradients(_) => {
                optimizer.step(&tensors(model, Part::Whole), &answered.means(0)?, factor);
                Ok(())
            }
        })?;
        uploads.clear();
        Ok(())
    }

    /// The adapter, behind it the history of the server's optimizer, what the clients are still to add beside the
    /// base, and what is there.
    fn save(&self) -> Result<Snapshot, FrameworkError> {
        let model = &self.seat.model;
        let mut kept = adapter::write(model, Part::Whole)?;
        let (steps, along_gradients) = self.optimizer.history();
        let moments: Vec<&Tensor> = along_gradients.into_iter().chain(self.means.history()).collect();
        for (index, moment) in moments.iter().enumerate() {
            let name = format!("optimizer.{index}");
            kept.push(WireTensor::from_tensor(name, PayloadKind::Gradient, moment, Element::F32)?);
        }
        let products = products::write(model, &self.products)?;
        let count = products.len();
        kept.extend(products);
        let Snapshot { mut fields, tensors } = products::save(model)?;
        kept.extend(tensors);
        fields["optimizerSteps"] = steps.into();
        fields["products"] = count.into();
        Ok(Snapshot { fields, tensors: kept })
    }

    fn restore(&mut self, saved: &Snapshot) -> Result<(), FrameworkError> {
        let Self { optimizer, means, seat, .. } = self;
        let model = &mut seat.model;
        let mut left = &saved.tensors[..];
        let mut next = |count: usize| {
            let (taken, rest) = left.split_at(count.min(left.len()));
            left = rest;
            taken
        };
        let values = adapter::read_saved(model, next(model.adapter().part(Part::Whole).len()))?;
        let (of_gradients, of_means) = (optimizer.history().1.len(), means.history().count());
        let [along_gradients, along_means] = [of_gradients, of_means].map(&mut next).map(|moments| {
            moments.iter().map(|moment| moment.to_tensor(model.device())).collect::<Result<Vec<_>, _>>()
        });
        let (along_gradients, along_means) = (along_gradients?, along_means?);
        let count = saved.fields["products"].as_u64().unwrap_or(0) as usize;
        let products = products::read(model, next(count), "the checkpoint")?;
        let residuals = Snapshot { fields: saved.fields.clone(), tensors: left.to_vec() };
        let residuals = products::restore(model, &residuals)?;
        adapter::assign(model, Part::Whole, &values);
        optimizer.resume(saved.fields["optimizerSteps"].as_i64().unwrap_or(0) as i32, along_gradients);
        means.resume(along_means);
        model.set_residuals(residuals);
        self.products = products;
        Ok(())
    }

    fn broadcast(&self) -> Result<Option<Snapshot>, FrameworkError> {
        if !self.method.has_residual() {
            return Ok(None);
        }
        Ok(Some(Snapshot { tensors: self.sent.products.clone(), ..Snapshot::default() }))
    }
}
