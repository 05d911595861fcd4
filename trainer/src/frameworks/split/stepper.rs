//! One message of a step on a back: forward, backward, and the back's own optimizer.
//! Must not see tokens: hidden states, lengths, and labels unless the head is the client's, are all that comes.

use std::sync::{Arc, Mutex, PoisonError};

use fedtune_crds::report::PayloadKind;
use tch::Tensor;

use super::{
    HeadSide, Split,
    arrivals::{Input, Wanted},
    back::{Back, HalfStep},
    codec::Place,
};
use crate::{
    flops::BatchSize,
    frameworks::{FrameworkError, Stepper, adapter},
    local::{Recipe, TrainError, check_loss, tensors},
    models::{Model, Objective},
    optimizer::Optimizer,
    pace::Pace,
    random::Key,
    rounds::Client,
    wire::{Message, Subject, WireTensor},
};

/// Runs one client's steps on a back.
pub(super) struct BackStepper {
    pub(super) split: Split,
    pub(super) recipe: Recipe,
    pub(super) ordinal: Client,
    /// The client's id, for sentences.
    pub(super) client: String,
    /// Of this client's batches: the same as at its side.
    pub(super) pace: Pace,
    pub(super) back: Arc<Mutex<Back>>,
}

impl Stepper for BackStepper {
    fn subjects(&self) -> &'static [Subject] {
        match self.split.head {
            HeadSide::Server => &[Subject::Step],
            HeadSide::Client => &[Subject::Step, Subject::StepGradient],
        }
    }

    fn step(&mut self, message: &Message) -> Result<Message, FrameworkError> {
        let (who, Message { subject, round, step, epoch, attempt, .. }) = (self.client.clone(), message);
        if !self.subjects().contains(subject) {
            return Err(FrameworkError::Unexpected { who, got: *subject, expected: Subject::Step });
        }
        let back = Arc::clone(&self.back);
        let mut back = back.lock().unwrap_or_else(PoisonError::into_inner);
        if !back.is_open_for(self.ordinal, *round) {
            let (subject, round, attempt) = (*subject, *round, *attempt);
            return Err(FrameworkError::NotOpen { who, subject, round, attempt, open: None });
        }
        let key = Key { seed: self.recipe.seed, client: self.ordinal as u32, round: *round, step: *step };
        let (answers_gradient, head) = (*subject == Subject::StepGradient, self.split.head);
        let Reply { tensors, loss } = match (head, answers_gradient) {
            (HeadSide::Server, _) => self.learn(&mut back, message, key)?,
            (HeadSide::Client, false) => self.forward(&mut back, message, key)?,
            (HeadSide::Client, true) => self.backward(&mut back, message, key)?,
        };
        let subject = if answers_gradient { Subject::StepGradientReply } else { Subject::StepReply };
        let fields = loss.map_or(serde_json::Value::Null, |loss| serde_json::json!({ "loss": loss }));
        let reply = Message { step: *step, epoch: *epoch, attempt: *attempt, ..Message::new(subject, *round) };
        Ok(Message { fields, tensors, ..reply })
    }
}

/// What goes back to the client.
struct Reply {
    tensors: Vec<WireTensor>,
    /// Where the head is the server's.
    loss: Option<f64>,
}

/// What a batch did to the back.
struct Moved {
    /// Of the client's hidden states.
    gradient: Tensor,
    /// Whether it completed a step of the optimizer.
    stepped: bool,
}

impl BackStepper {
    /// A whole step with the head on the server: down goes the gradient of the client's hidden states.
    fn learn(&mut self, back: &mut Back, message: &Message, key: Key) -> Result<Reply, FrameworkError> {
        let input = back.worker.encode(|| self.read_step(message, &back.model, key))?;
        let size = input.size();
        let Back { model, worker, optimizer, .. } = back;
        let (moved, loss) = worker.compute(|| self.train(model, optimizer, input, key))?;
        self.count(back, size, moved.stepped);
        let tensors = self.write(back, "gradient", PayloadKind::ActivationGradient, &moved.gradient, key)?;
        Ok(Reply { tensors, loss: Some(loss) })
    }

    /// The first half of a step with the head at the client: down goes what the server's blocks make.
    fn forward(&self, back: &mut Back, message: &Message, key: Key) -> Result<Reply, FrameworkError> {
        let input = back.worker.encode(|| self.read_step(message, &back.model, key))?;
        let size = input.size();
        let Back { model, worker, .. } = back;
        let (cut, again, Input { hidden, mask, .. }) = (self.cut(), self.recipe.gradient_checkpointing, input);
        let ran = worker.compute(|| model.run_middle(cut, &hidden, &mask, Some(key), again));
        self.check_numbers([&ran.hidden().detach()], key)?;
        let tensors = self.write(back, "hidden", PayloadKind::Activation, ran.hidden(), key)?;
        back.begin_step(HalfStep { ran, size });
        Ok(Reply { tensors, loss: None })
    }

    /// The second half: up came the gradient of what the blocks made; down goes that of the client's hidden states.
    fn backward(&mut self, back: &mut Back, message: &Message, key: Key) -> Result<Reply, FrameworkError> {
        let Some(HalfStep { ran, size }) = back.take_half_step() else {
            let (who, got, expected) = (self.client.clone(), message.subject, Subject::Step);
            return Err(FrameworkError::Unexpected { who, got, expected });
        };
        let gradient = back.worker.encode(|| self.read_gradient(message, ran.hidden(), &back.model, key))?;
        let Back { model, worker, optimizer, .. } = back;
        let moved = worker.compute(|| {
            let (gradients, of_hidden) = model.run_backward(&ran, &gradient);
            let of_hidden = of_hidden.expect("the blocks were sent what they ran on");
            self.move_along(&gradients, of_hidden, model, optimizer, key)
        })?;
        self.count(back, size, moved.stepped);
        let tensors = self.write(back, "gradient", PayloadKind::ActivationGradient, &moved.gradient, key)?;
        Ok(Reply { tensors, loss: None })
    }

    /// Forward and backward through the back, and its optimizer's step where the batch completes one; gives the loss too.
    fn train(
        &mut self,
        model: &Model,
        optimizer: &mut Optimizer,
        input: Input,
        key: Key,
    ) -> Result<(Moved, f64), TrainError> {
        let Input { hidden, mask, wanted } = input;
        let Wanted { places, targets } = wanted.expect("a step brings labels where the head is the server's");
        let (cut, again, given) = (self.cut(), self.recipe.gradient_checkpointing, (&mask, places.as_ref()));
        let (value, gradients, of_hidden) =
            model.back_loss_and_gradients(cut, &hidden, given, Some(key), again, Objective::CrossEntropy(&targets));
        check_loss(value, key, &self.client)?;
        Ok((self.move_along(&gradients, of_hidden, model, optimizer, key)?, value))
    }

    /// Moves the back's parameters along these gradients, where the batch completes a step.
    fn move_along(
        &mut self,
        gradients: &[Tensor],
        of_hidden: Tensor,
        model: &Model,
        optimizer: &mut Optimizer,
        key: Key,
    ) -> Result<Moved, TrainError> {
        // A loss may be a number where its gradients are none; such a step would ruin the back for all others.
        self.check_numbers(gradients.iter().chain([&of_hidden]), key)?;
        let parameters = tensors(model, self.split.server_part(self.ordinal));
        Ok(Moved { gradient: of_hidden, stepped: self.pace.take(optimizer, &parameters, gradients) })
    }

    fn cut(&self) -> usize {
        self.split.cut(self.ordinal)
    }

    fn check_numbers<'a>(&self, tensors: impl IntoIterator<Item = &'a Tensor>, key: Key) -> Result<(), TrainError> {
        let finite = tensors.into_iter().all(adapter::is_finite);
        check_loss(if finite { 0.0 } else { f64::NAN }, key, &self.client)
    }

    fn write(
        &self,
        back: &mut Back,
        name: &str,
        kind: PayloadKind,
        tensor: &Tensor,
        key: Key,
    ) -> Result<Vec<WireTensor>, FrameworkError> {
        let codec = self.split.codec;
        back.worker.encode(|| codec.write(name, kind, tensor, Place { who: &self.client, key }))
    }

    /// Counts a batch that is done, and whether it completed a step of the optimizer.
    fn count(&self, back: &mut Back, size: BatchSize, stepped: bool) {
        let (part, shape) = (self.split.server_part(self.ordinal), back.model.shape());
        back.worker.meter.flops.train += self.recipe.step_flops(shape, part, size);
        back.worker.meter.steps += u64::from(stepped);
        back.count_step(size);
    }
}
