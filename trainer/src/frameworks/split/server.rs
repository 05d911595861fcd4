//! The server half: hands out what clients hold, keeps a back for each client (V1) or for all (V2), brings all together.
//! Must not run what a client holds, but for evaluation.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tch::Tensor;

use super::{Split, Variant, back::Back, stepper::BackStepper};
use crate::{
    averages::weighted_means,
    frameworks::{
        Figures, Framework, FrameworkError, ServerHalf, ServerSeat, StepSizes, Stepper,
        adapter::{self, Broadcast},
        ask,
    },
    meter::Meter,
    models::{Model, Part},
    pace::Pace,
    rounds::{Client, Exchange},
    wire::Message,
};

pub(super) struct SplitServer {
    split: Split,
    seat: ServerSeat,
    /// One for each client (V1), or one for all (V2).
    backs: Vec<Arc<Mutex<Back>>>,
    /// What clients made of their parts in the open round.
    uploads: BTreeMap<Client, Vec<Tensor>>,
    /// What each client's steps of the round held.
    sizes: BTreeMap<Client, StepSizes>,
    /// What clients hold on the wire, encoded once a round for all that are cut at the same layer.
    broadcasts: BTreeMap<usize, Broadcast>,
    /// Round that the one back of V2 was last reset for.
    reset_for: u32,
}

impl SplitServer {
    pub(super) fn new(split: Split, seat: ServerSeat) -> Self {
        let count = match split.variant {
            Variant::V1 => seat.clients.len(),
            Variant::V2 => 1,
        };
        let back = |client| Back::new(&split, client, (seat.spare.0)(), &seat.recipe, seat.worker.another());
        let backs = (0..count).map(|client| Arc::new(Mutex::new(back(client)))).collect();
        let (uploads, sizes, broadcasts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { split, seat, backs, uploads, sizes, broadcasts, reset_for: 0 }
    }

    fn back(&self, client: Client) -> &Arc<Mutex<Back>> {
        match self.split.variant {
            Variant::V1 => &self.backs[client],
            Variant::V2 => &self.backs[0],
        }
    }

    /// The whole adapter as each of these clients and the server's back for it have made it, with its weight.
    fn wholes(&self, uploads: &BTreeMap<Client, Vec<Tensor>>, answered: &[(Client, u64)]) -> Vec<(f64, Vec<Tensor>)> {
        let whole = |&(client, examples): &(Client, u64)| {
            let (upload, back) = (uploads.get(&client)?, lock(self.back(client)).values());
            let whole = join(&self.seat.model, self.split.client_part(client), upload, &back);
            Some((examples as f64, whole))
        };
        answered.iter().filter_map(whole).collect()
    }
}

/// Values of the whole adapter in its order, from those of `part` and those of all else.
fn join(model: &Model, part: Part, values: &[Tensor], others: &[Tensor]) -> Vec<Tensor> {
    let (mut values, mut others) = (values.iter(), others.iter());
    let parameters = model.adapter().parameters().iter();
    let value = parameters.filter_map(|p| if part.holds(p.block) { values.next() } else { others.next() });
    value.map(Tensor::shallow_clone).collect()
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
            back.reset(&adapter::snapshot(&self.seat.model, self.split.server_part(client)), &self.seat.recipe);
        }
        back.begin_turn(client, exchange.round);
        drop(back);
        self.reset_for = exchange.round;
        let (part, broadcast) =
            (self.split.client_part(client), self.broadcasts.entry(self.split.cut(client)).or_default());
        let ServerSeat { worker, model, .. } = &mut self.seat;
        let tensors = worker.encode(|| broadcast.of(exchange.round, model, part))?;
        Ok(Message { tensors, ..ask(exchange) })
    }

    fn take(
        &mut self,
        client: Client,
        _exchange: Exchange,
        answer: &Message,
        _figures: &Figures,
    ) -> Result<(), FrameworkError> {
        let part = self.split.client_part(client);
        lock(self.back(client)).check_over(client, &self.seat.clients[client])?;
        let ServerSeat { worker, model, clients, .. } = &mut self.seat;
        let upload = worker.encode(|| adapter::read_parameters(model, part, answer, &clients[client]))?;
        self.uploads.insert(client, upload);
        let sizes = lock(self.back(client)).end_turn(client);
        self.sizes.insert(client, sizes);
        Ok(())
    }

    fn abandon(&mut self, client: Client, _exchange: Exchange) {
        self.uploads.remove(&client);
        lock(self.back(client)).undo_turn(client);
    }

    /// Each block becomes the mean over all clients, whichever side held it; the one back of V2 stays as it is.
    fn close(&mut self, _exchange: Exchange, answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        let uploads = std::mem::take(&mut self.uploads);
        let wholes = self.wholes(&uploads, answered);
        let one_back = match self.split.variant {
            Variant::V1 => None,
            Variant::V2 => Some((self.split.server_part(0), lock(&self.backs[0]).values())),
        };
        let ServerSeat { worker, model, .. } = &mut self.seat;
        worker.compute(|| {
            let means = weighted_means(wholes.iter().map(|(weight, values)| (*weight, &values[..])));
            adapter::assign(model, Part::Whole, &means);
            if let Some((part, values)) = one_back {
                adapter::assign(model, part, &values);
            }
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
