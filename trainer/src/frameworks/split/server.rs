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
    frameworks::{
        Figures, FrameworkError, ServerHalf, ServerSeat, StepSizes, Stepper,
        adapter::{self, Broadcast},
        ask,
    },
    meter::Meter,
    models::Part,
    pace::Pace,
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
    /// What each client's steps of the round held.
    sizes: BTreeMap<Client, StepSizes>,
    /// The front on the wire, encoded once a round for all clients.
    broadcast: Broadcast,
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
        let (uploads, sizes, broadcast) = (BTreeMap::new(), BTreeMap::new(), Broadcast::default());
        Self { split, seat, backs, uploads, sizes, broadcast, reset_for: 0 }
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

    /// Weight and parameters of each back that counts: the copies of those who answered (V1), or the one (V2).
    fn back_values(&self, answered: &[(Client, u64)]) -> Vec<(f64, Vec<Tensor>)> {
        match self.split.variant {
            Variant::V1 => {
                let values =
                    |&(client, examples): &(Client, u64)| (examples as f64, lock(&self.backs[client]).values());
                answered.iter().map(values).collect()
            }
            Variant::V2 => vec![(1.0, lock(&self.backs[0]).values())],
        }
    }
}

impl ServerHalf for SplitServer {
    fn seat(&self) -> &ServerSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ServerSeat {
        &mut self.seat
    }

    fn ask(&mut self, client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        let round_is_new = match self.split.variant {
            Variant::V1 => true,
            Variant::V2 => self.reset_for != exchange.round,
        };
        let mut back = lock(self.back(client));
        if round_is_new {
            back.reset(&adapter::snapshot(&self.seat.model, self.back_part()), &self.seat.recipe);
        }
        back.begin_turn(client, exchange.round);
        drop(back);
        self.reset_for = exchange.round;
        let front = self.front();
        let ServerSeat { worker, model, .. } = &mut self.seat;
        let tensors = worker.encode(|| self.broadcast.of(exchange.round, model, front))?;
        Ok(Message { tensors, ..ask(exchange) })
    }

    fn take(
        &mut self,
        client: Client,
        _exchange: Exchange,
        answer: &Message,
        _figures: &Figures,
    ) -> Result<(), FrameworkError> {
        let front = self.front();
        let ServerSeat { worker, model, clients, .. } = &mut self.seat;
        let upload = worker.encode(|| adapter::read_parameters(model, front, answer, &clients[client]))?;
        self.uploads.insert(client, upload);
        let sizes = lock(self.back(client)).end_turn(client);
        self.sizes.insert(client, sizes);
        Ok(())
    }

    fn abandon(&mut self, client: Client, _exchange: Exchange) {
        self.uploads.remove(&client);
        lock(self.back(client)).undo_turn(client);
    }

    fn close(&mut self, _exchange: Exchange, answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        let uploads = std::mem::take(&mut self.uploads);
        let backs = self.back_values(answered);
        let (front, back, variant) = (self.front(), self.back_part(), self.split.variant);
        let ServerSeat { worker, model, .. } = &mut self.seat;
        worker.compute(|| {
            let fronts = answered.iter().filter_map(|(k, examples)| Some((*examples as f64, &uploads.get(k)?[..])));
            adapter::assign(model, front, &weighted_means(fronts));
            let backs = match variant {
                Variant::V1 => weighted_means(backs.iter().map(|(weight, values)| (*weight, &values[..]))),
                Variant::V2 => backs.into_iter().flat_map(|(_, values)| values).collect(),
            };
            adapter::assign(model, back, &backs);
        });
        Ok(())
    }

    fn stepper(&self, client: Client, round: u32, batches: u64) -> Option<Box<dyn Stepper>> {
        Some(Box::new(BackStepper {
            split: self.split.clone(),
            recipe: self.seat.recipe.clone(),
            ordinal: client,
            client: self.seat.clients[client].clone(),
            pace: Pace::new(&self.seat.recipe, round, batches as usize),
            back: Arc::clone(self.back(client)),
        }))
    }

    fn step_sizes(&self, client: Client) -> StepSizes {
        self.sizes.get(&client).copied().unwrap_or_default()
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
