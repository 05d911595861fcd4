//! A FedLLM client: takes in the round's adapter, trains, uploads.
//! Must not keep anything from round to round but what is beside the base, which the server can send again.

use tch::Tensor;

use super::{Aggregation, Upload, products};
use crate::{
    checkpoint::Snapshot,
    frameworks::{
        ClientHalf, ClientSeat, Figures, FrameworkError,
        adapter::{self, Origin},
        answer,
    },
    local,
    low_rank::LowRank,
    meter::peak_memory_bytes,
    models::{Model, Part},
    random::Key,
    wire::{Line, Message},
};

pub(super) struct FedLlmClient {
    pub(super) upload: Upload,
    /// The run's first adapter, with which `FLoRA`'s first round begins, however often it is asked for; else nothing.
    pub(super) first: Vec<Tensor>,
    pub(super) seat: ClientSeat,
}

const SERVER: &str = "the server";

impl ClientHalf for FedLlmClient {
    fn seat(&self) -> &ClientSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ClientSeat {
        &mut self.seat
    }

    fn answer(&mut self, ask: &Message, _line: &mut dyn Line) -> Result<Message, FrameworkError> {
        self.take_in(ask)?;
        let ClientSeat { ordinal, recipe, model, train, worker, .. } = &mut self.seat;
        let key = Key { seed: recipe.seed, client: *ordinal as u32, round: ask.round, step: 0 };
        let (train_loss, tensors) = match &self.upload {
            Upload::Parameters(_) => {
                let loss = local::train(model, train, recipe, key, worker)?;
                (loss, worker.encode(|| adapter::write(model, Part::Whole))?)
            }
            Upload::Gradients(_) => {
                let (loss, gradients) = local::mean_gradients(model, train, recipe, key, worker)?;
                (loss, worker.encode(|| adapter::write_gradients(model, &gradients))?)
            }
        };
        let peak_memory_bytes = peak_memory_bytes();
        let figures = Figures { train_loss, meter: worker.meter, peak_memory_bytes, ..Figures::default() };
        Ok(Message { tensors, fields: figures.fields(), ..answer(ask) })
    }

    /// What was sent in a round that this client did not take part in, or has forgotten.
    fn replay(&mut self, sent: &Message) -> Result<(), FrameworkError> {
        let ClientSeat { model, worker, .. } = &mut self.seat;
        worker.encode(|| products::read(model, &sent.tensors, SERVER).map(|more| fold(model, &more)))
    }

    fn save(&self) -> Result<Snapshot, FrameworkError> {
        products::save(&self.seat.model)
    }

    fn restore(&mut self, saved: &Snapshot) -> Result<(), FrameworkError> {
        let residuals = products::restore(&self.seat.model, saved)?;
        self.seat.model.set_residuals(residuals);
        Ok(())
    }
}

impl FedLlmClient {
    pub(super) fn new(upload: Upload, seat: ClientSeat) -> Self {
        let stacks = matches!(upload, Upload::Parameters(Aggregation::Flora));
        let first = if stacks { adapter::snapshot(&seat.model, Part::Whole) } else { Vec::new() };
        Self { upload, first, seat }
    }

    /// Brings the model to where the round begins.
    pub(super) fn take_in(&mut self, ask: &Message) -> Result<(), FrameworkError> {
        let ClientSeat { recipe, model, worker, .. } = &mut self.seat;
        worker.encode(|| match &self.upload {
            Upload::Parameters(Aggregation::Flora) => take_stack(model, ask, recipe.seed, &self.first),
            Upload::Parameters(Aggregation::FedExLora) => take_means_and_residual(model, ask),
            Upload::Parameters(Aggregation::FedAvg(_) | Aggregation::FfaLora(_) | Aggregation::FlexLora)
            | Upload::Gradients(_) => take_parameters(model, ask),
        })
    }
}

fn take_parameters(model: &Model, ask: &Message) -> Result<(), FrameworkError> {
    let values = adapter::read_parameters(model, Part::Whole, ask, SERVER)?;
    adapter::assign(model, Part::Whole, &values);
    Ok(())
}

/// The stack, where a round was before, then the head; a new pair from the streams that everyone has.
fn take_stack(model: &mut Model, ask: &Message, seed: u64, first: &[Tensor]) -> Result<(), FrameworkError> {
    let heads = model.adapter().head_parameters().len();
    let (stack, head) = ask.tensors.split_at(ask.tensors.len().saturating_sub(heads));
    let head = adapter::read_head(model, head, Origin::of(ask, SERVER))?;
    let stack = products::read(model, stack, SERVER)?;
    fold(model, &stack);
    if ask.round > 1 {
        model.renew(new_pair(seed, ask.round));
    } else {
        adapter::assign(model, Part::Whole, first);
    }
    adapter::assign_head(model, &head);
    Ok(())
}

/// The means as `FedAvg` sends them, then what they lacked.
fn take_means_and_residual(model: &mut Model, ask: &Message) -> Result<(), FrameworkError> {
    let count = model.adapter().part(Part::Whole).len();
    let (means, residual) = ask.tensors.split_at(count.min(ask.tensors.len()));
    let means = adapter::read_these(model, means, Origin::of(ask, SERVER))?;
    let residual = products::read(model, residual, SERVER)?;
    fold(model, &residual);
    adapter::assign(model, Part::Whole, &means);
    Ok(())
}

/// Before the first round, and after one with a single client in `FedExLoRA`, there is nothing to add.
fn fold(model: &mut Model, products: &[LowRank]) {
    if !products.is_empty() {
        model.fold(products);
    }
}

/// Which streams the pair of a round of `FLoRA` is drawn from; the first round's is every run's first adapter.
pub(super) fn new_pair(seed: u64, round: u32) -> Key {
    Key { seed, round: round.saturating_sub(1), ..Key::default() }
}
