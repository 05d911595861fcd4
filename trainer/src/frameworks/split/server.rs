//! The server half: hands out fronts, keeps a back for each client (V1) or for all (V2), brings them together.
//! Must not run a front, but for evaluation.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tch::Tensor;

use super::{
    Split, Variant,
    back::{Back, BackStepper},
};
use crate::{
    averages::weighted_means,
    evaluate::Evaluation,
    frameworks::{FrameworkError, ServerHalf, ServerSeat, Stepper, adapter, ask, fedllm::evaluate_global},
    meter::Meter,
    models::{Model, Part},
    rounds::{Client, Exchange},
    wire::Message,
};

pub(super) struct SplitServer {
    split: Split,
    seat: ServerSeat,
    /// One for each client (V1), or one for all (V2).
    backs: Vec<Arc<Mutex<Back>>>,
    /// Fronts of the open round.
    uploads: BTreeMap<Client, Vec<Tensor>>,
    /// Round that the one back of V2 was last reset for.
    reset_for: u32,
}

impl SplitServer {
    pub(super) fn new(split: Split, seat: ServerSeat) -> Self {
        let count = match split.variant {
            Variant::V1 => seat.clients.len(),
            Variant::V2 => 1,
        };
        let back = || Back::new(&split, (seat.spare.0)(), &seat.recipe, seat.worker.another());
        let backs = (0..count).map(|_| Arc::new(Mutex::new(back()))).collect();
        Self { split, seat, backs, uploads: BTreeMap::new(), reset_for: 0 }
    }

    fn front(&self) -> Part {
        Part::Front(self.split.cut_layer)
    }

    fn back_part(&self) -> Part {
        Part::Back(self.split.cut_layer)
    }

    fn back(&self, client: Client) -> &Arc<Mutex<Back>> {
        match self.split.variant {
            Variant::V1 => &self.backs[client],
            Variant::V2 => &self.backs[0],
        }
    }

    /// The back's parameters after the round: the mean of the clients' copies (V1), or what the turns made of it (V2).
    fn combine_backs(&self, answered: &[Client]) -> Vec<Tensor> {
        match self.split.variant {
            Variant::V1 => {
                let values: Vec<_> = answered.iter().map(|&client| lock(&self.backs[client]).values()).collect();
                let weights = answered.iter().map(|&client| self.seat.examples[client] as f64);
                weighted_means(weights.zip(values.iter().map(Vec::as_slice)))
            }
            Variant::V2 => lock(&self.backs[0]).values(),
        }
    }
}

impl ServerHalf for SplitServer {
    fn ask(&mut self, client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        let mut back = lock(self.back(client));
        match self.split.variant {
            Variant::V1 => back.reset(&adapter::snapshot(&self.seat.model, self.back_part()), &self.seat.recipe),
            Variant::V2 => {
                if self.reset_for != exchange.round {
                    back.reset(&adapter::snapshot(&self.seat.model, self.back_part()), &self.seat.recipe);
                }
                back.begin_turn();
            }
        }
        drop(back);
        self.reset_for = exchange.round;
        let front = self.front();
        let ServerSeat { worker, model, .. } = &mut self.seat;
        let tensors = worker.encode(|| adapter::write(model, front))?;
        Ok(Message { tensors, ..ask(exchange) })
    }

    fn take(&mut self, client: Client, _exchange: Exchange, answer: &Message) -> Result<(), FrameworkError> {
        let front = self.front();
        let ServerSeat { worker, model, clients, .. } = &mut self.seat;
        let upload = worker.encode(|| adapter::read_parameters(model, front, answer, &clients[client]))?;
        self.uploads.insert(client, upload);
        Ok(())
    }

    fn abandon(&mut self, client: Client, _exchange: Exchange) {
        self.uploads.remove(&client);
        lock(self.back(client)).undo_turn();
    }

    fn close(&mut self, _exchange: Exchange, answered: &[Client]) -> Result<(), FrameworkError> {
        let uploads = std::mem::take(&mut self.uploads);
        let backs = self.combine_backs(answered);
        let (front, back) = (self.front(), self.back_part());
        let ServerSeat { worker, model, examples, .. } = &mut self.seat;
        worker.compute(|| {
            let counted = answered.iter().filter_map(|k| Some((examples[*k] as f64, &uploads.get(k)?[..])));
            adapter::assign(model, front, &weighted_means(counted));
            adapter::assign(model, back, &backs);
        });
        Ok(())
    }

    fn stepper(&self, client: Client) -> Option<Box<dyn Stepper>> {
        Some(Box::new(BackStepper {
            split: self.split.clone(),
            recipe: self.seat.recipe.clone(),
            ordinal: client,
            client: self.seat.clients[client].clone(),
            back: Arc::clone(self.back(client)),
        }))
    }

    fn evaluate(&mut self) -> Option<Evaluation> {
        Some(evaluate_global(&mut self.seat))
    }

    fn model(&self) -> Option<&Model> {
        Some(&self.seat.model)
    }

    fn meter(&self) -> Meter {
        let backs = self.backs.iter().map(|back| lock(back).worker.meter);
        backs.fold(self.seat.worker.meter, Meter::plus)
    }
}

/// A panic in a step ends the run with its own sentence; the back's state is not used after it.
fn lock(back: &Mutex<Back>) -> MutexGuard<'_, Back> {
    back.lock().unwrap_or_else(PoisonError::into_inner)
}
