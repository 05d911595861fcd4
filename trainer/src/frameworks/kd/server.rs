//! The server half: the clients' logits into its student, the student's logits to all.
//! Must not train on anything but the public set.

use std::collections::BTreeMap;

use super::{
    Kd,
    logits::{Logits, Sheet},
    student::public_logits,
    teacher::Teacher,
};
use crate::{
    checkpoint::Snapshot,
    frameworks::{Figures, FrameworkError, ServerHalf, ServerSeat, ask, refuse_tensors},
    random::Key,
    rounds::{Client, Exchange},
    wire::{Message, WireTensor},
};

pub(super) struct KdServer {
    pub(super) kd: Kd,
    /// The clients' logits of the open exchange.
    pub(super) uploads: BTreeMap<Client, Logits>,
    /// The student's logits of this round, as they travel.
    pub(super) broadcast: Option<Vec<WireTensor>>,
    pub(super) seat: ServerSeat,
}

impl ServerHalf for KdServer {
    fn seat(&self) -> &ServerSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ServerSeat {
        &mut self.seat
    }

    fn ask(&mut self, _client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        let tensors = if exchange.index > 0 { self.broadcast.clone().unwrap_or_default() } else { Vec::new() };
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
        let layout = self.kd.layout(model.shape(), recipe, public);
        let logits = worker.encode(|| Logits::read(answer, layout, &clients[client]))?;
        self.uploads.insert(client, logits);
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
        let mut uploads = std::mem::take(&mut self.uploads);
        let shared = answered.iter().filter_map(|&(client, examples)| Some((examples, uploads.remove(&client)?)));
        let ServerSeat { recipe, model, public, worker, .. } = &mut self.seat;
        let Kd { distillation, weighting, .. } = &self.kd;
        let teacher = Teacher::mean(shared.collect(), *weighting, distillation.temperature, model.device());
        let Some(teacher) = teacher else { return Ok(()) };
        let key = Key { seed: recipe.seed, client: 0, round: exchange.round, step: 0 };
        distillation.run(model, public, &teacher, recipe, key, worker)?;
        drop(teacher);
        let sheet = Sheet::blank(self.kd.layout(model.shape(), recipe, public), distillation.temperature);
        self.broadcast = Some(public_logits(model, public, sheet, recipe, exchange.round, worker)?);
        Ok(())
    }

    fn broadcast(&self) -> Result<Option<Snapshot>, FrameworkError> {
        let tensors = self.broadcast.clone().unwrap_or_default();
        Ok(Some(Snapshot { tensors, ..Snapshot::default() }))
    }
}
