//! The client half: local steps, its logits up, the student's logits back into its own model.
//! Must not send a weight.

use super::{
    Kd,
    logits::{Logits, Sheet},
    student::public_logits,
    teacher::Teacher,
};
use crate::{
    evaluate::Evaluation,
    frameworks::{ClientHalf, ClientSeat, Figures, FrameworkError, answer},
    local::train,
    meter::peak_memory_bytes,
    random::Key,
    wire::{Line, Message},
};

pub(super) struct KdClient {
    pub(super) kd: Kd,
    /// Of the round's local steps, kept for the answer that ends the round.
    pub(super) train_loss: f64,
    pub(super) seat: ClientSeat,
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
        let sheet = Sheet::blank(self.kd.layout(model.shape(), recipe, public), self.kd.distillation.temperature);
        let tensors = public_logits(model, public, sheet, recipe, ask.round, worker)?;
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
        let layout = self.kd.layout(model.shape(), recipe, public);
        let logits = worker.encode(|| Logits::read(sent, layout, "the server"))?;
        let teacher = Teacher::alone(logits, self.kd.distillation.temperature, model.device());
        self.kd.distillation.run(model, public, &teacher, recipe, key, worker)
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
