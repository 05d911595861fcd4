//! The client half: batches through the front, hidden states up, their gradients back through it; the head too where
//! it is the client's. Must not evaluate, and must not hold what the server runs.

use fedtune_crds::report::PayloadKind;
use tch::Tensor;

use super::{
    HeadSide, Split, UNSAID,
    codec::Place,
    line::{Asking, SERVER, STEP, STEP_GRADIENT},
};
use crate::{
    data::Example,
    frameworks::{ClientHalf, ClientSeat, Figures, Framework, FrameworkError, adapter, answer},
    local::{Batch, check_loss, count_batch, next_tokens, plan, tensors},
    meter::peak_memory_bytes,
    models::{Head, Objective, Part, Ran, Tokens},
    optimizer::Optimizer,
    pace::Pace,
    random::Key,
    wire::{Line, Message, WireTensor},
};

pub(super) struct SplitClient {
    pub(super) split: Split,
    pub(super) seat: ClientSeat,
}

impl ClientHalf for SplitClient {
    fn seat(&self) -> &ClientSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ClientSeat {
        &mut self.seat
    }

    fn answer(&mut self, ask: &Message, line: &mut dyn Line) -> Result<Message, FrameworkError> {
        let part = self.part();
        let ClientSeat { ordinal, recipe, model, train, worker, .. } = &mut self.seat;
        let values = worker.encode(|| adapter::read_parameters(model, part, ask, SERVER))?;
        adapter::assign(model, part, &values);

        let mut optimizer = Optimizer::new(&recipe.optimizer, &tensors(model, part));
        let key = Key { seed: recipe.seed, client: *ordinal as u32, round: ask.round, step: 0 };
        let batches = plan(train, recipe, key);
        let mut pace = Pace::new(recipe, ask.round, batches.len());
        let mut asking = Asking { ask, line };
        let mut losses = 0.0;
        for (step, indices) in batches.iter().enumerate() {
            let key = Key { step: step as u32, ..key };
            losses += match self.split.head {
                HeadSide::Server => self.step(indices, key, (&mut optimizer, &mut pace), &mut asking)?,
                HeadSide::Client => self.step_with_head(indices, key, (&mut optimizer, &mut pace), &mut asking)?,
            };
        }

        let ClientSeat { model, worker, .. } = &mut self.seat;
        let tensors = worker.encode(|| adapter::write(model, part))?;
        let train_loss = losses / batches.len().max(1) as f64;
        let peak_memory_bytes = peak_memory_bytes();
        let figures = Figures { train_loss, meter: worker.meter, evaluation: None, peak_memory_bytes };
        Ok(Message { tensors, fields: figures.fields(), ..answer(ask) })
    }
}

impl SplitClient {
    fn cut(&self) -> usize {
        self.split.cut(self.seat.ordinal)
    }

    /// What of the model this client holds and trains.
    fn part(&self) -> Part {
        self.split.client_part(self.seat.ordinal)
    }

    /// One step: forward through the front, the server's part, backward through the front. Gives the batch's loss.
    fn step(
        &mut self,
        indices: &[usize],
        key: Key,
        (optimizer, pace): (&mut Optimizer, &mut Pace),
        asking: &mut Asking<'_>,
    ) -> Result<f64, FrameworkError> {
        let (batch, front) = self.forward(indices, key)?;
        let ClientSeat { model, train, .. } = &self.seat;
        let labels = labels(model.head(), train, indices, batch.tokens.seq());
        let mut up = self.write("hidden", PayloadKind::Activation, front.hidden(), key)?;
        up.push(WireTensor::from_i32s("lengths", PayloadKind::Length, &batch.tokens.lengths()));
        up.push(WireTensor::from_i32s("labels", PayloadKind::Label, &labels));
        let reply = asking.exchange(STEP, key, up, &mut self.seat.worker)?;
        let loss = reply.fields["loss"].as_f64().unwrap_or(f64::NAN);
        check_loss(loss, key, &self.seat.worker.name)?;
        let gradient = self.read(&reply, PayloadKind::ActivationGradient, front.hidden(), key)?;

        let part = self.part();
        let ClientSeat { recipe, model, worker, .. } = &mut self.seat;
        let stepped =
            worker.compute(|| pace.take(optimizer, &tensors(model, part), &model.run_backward(&front, &gradient).0));
        worker.meter.steps += u64::from(stepped);
        count_batch(&batch, model, part, recipe, worker);
        Ok(loss)
    }

    /// One step with the head at the client: forward through the front, the server's blocks, forward and backward
    /// through the head, backward through the server's blocks and the front. Gives the batch's loss.
    fn step_with_head(
        &mut self,
        indices: &[usize],
        key: Key,
        (optimizer, pace): (&mut Optimizer, &mut Pace),
        asking: &mut Asking<'_>,
    ) -> Result<f64, FrameworkError> {
        let (batch, front) = self.forward(indices, key)?;
        let mut up = self.write("hidden", PayloadKind::Activation, front.hidden(), key)?;
        up.push(WireTensor::from_i32s("lengths", PayloadKind::Length, &batch.tokens.lengths()));
        let reply = asking.exchange(STEP, key, up, &mut self.seat.worker)?;
        let last = self.read(&reply, PayloadKind::Activation, front.hidden(), key)?;

        let ClientSeat { model, worker, .. } = &mut self.seat;
        let Tokens { mask, places, .. } = &batch.tokens;
        let (loss, of_head, of_last) = worker.compute(|| {
            model.head_gradients(&last, mask, places.as_ref(), Some(key), Objective::CrossEntropy(&batch.targets))
        });
        let finite = adapter::is_finite(&of_last) && of_head.iter().all(adapter::is_finite);
        check_loss(if finite { loss } else { f64::NAN }, key, &worker.name)?;
        let up = self.write("gradient", PayloadKind::ActivationGradient, &of_last, key)?;
        let reply = asking.exchange(STEP_GRADIENT, key, up, &mut self.seat.worker)?;
        let gradient = self.read(&reply, PayloadKind::ActivationGradient, front.hidden(), key)?;

        let part = self.part();
        let ClientSeat { recipe, model, worker, .. } = &mut self.seat;
        let stepped = worker.compute(|| {
            // In the adapter's order: what follows the last block comes last.
            let (mut gradients, _) = model.run_backward(&front, &gradient);
            gradients.extend(of_head);
            pace.take(optimizer, &tensors(model, part), &gradients)
        });
        worker.meter.steps += u64::from(stepped);
        count_batch(&batch, model, part, recipe, worker);
        Ok(loss)
    }

    /// A batch and what the front makes of it.
    fn forward(&mut self, indices: &[usize], key: Key) -> Result<(Batch, Ran), FrameworkError> {
        let cut = self.cut();
        let ClientSeat { recipe, model, train, worker, .. } = &mut self.seat;
        let batch = Batch::of(train, indices, recipe.pad_id, model);
        let (front, finite) = worker.compute(|| {
            let front = model.run_front(cut, &batch.tokens, Some(key), recipe.gradient_checkpointing);
            let finite = adapter::is_finite(&front.hidden().detach());
            (front, finite)
        });
        // A front that has diverged makes no loss but NaN; said here, it names its own client and step.
        check_loss(if finite { 0.0 } else { f64::NAN }, key, &worker.name)?;
        Ok((batch, front))
    }

    fn write(
        &mut self,
        name: &str,
        kind: PayloadKind,
        tensor: &Tensor,
        key: Key,
    ) -> Result<Vec<WireTensor>, FrameworkError> {
        let (codec, who) = (self.split.codec, self.seat.worker.name.clone());
        self.seat.worker.encode(|| codec.write(name, kind, tensor, Place { who: &who, key }))
    }

    /// What the server sent, a tensor like `like`.
    fn read(&mut self, reply: &Message, kind: PayloadKind, like: &Tensor, key: Key) -> Result<Tensor, FrameworkError> {
        let (codec, options, place) = (self.split.codec, (like.kind(), like.device()), Place { who: SERVER, key });
        self.seat.worker.encode(|| codec.read(&reply.tensors, kind, &like.size(), options, place))
    }
}

/// What the head on the server should say: a label of each row, or for each token the next one, if it is to be said.
fn labels(head: Head, examples: &[Example], indices: &[usize], seq: usize) -> Vec<i32> {
    match head {
        Head::Classifier(_) => indices.iter().map(|&i| examples[i].label.unwrap_or(0) as i32).collect(),
        Head::Language => {
            let mut labels = vec![UNSAID; indices.len() * seq];
            let (places, next) = next_tokens(examples, indices, seq);
            places.iter().zip(next).for_each(|(&place, next)| labels[place as usize] = next as i32);
            labels
        }
    }
}
