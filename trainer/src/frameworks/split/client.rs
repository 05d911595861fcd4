//! The client half: batches through the front, hidden states up, their gradients back through it.
//! Must not evaluate or hold the back.

use fedtune_crds::report::PayloadKind;
use tch::Tensor;

use super::{Split, UNSAID};
use crate::{
    data::Example,
    frameworks::{ClientHalf, ClientSeat, Figures, FrameworkError, adapter, answer},
    local::{Batch, check_loss, count_batch, next_tokens, plan, tensors},
    meter::peak_memory_bytes,
    models::{Head, Part},
    optimizer::Optimizer,
    pace::Pace,
    random::Key,
    wire::{Line, LinkError, Message, Subject, WireTensor},
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
        let front = Part::Front(self.split.cut_layer);
        let ClientSeat { ordinal, recipe, model, train, worker, .. } = &mut self.seat;
        let values = worker.encode(|| adapter::read_parameters(model, front, ask, "the server"))?;
        adapter::assign(model, front, &values);

        let mut optimizer = Optimizer::new(&recipe.optimizer, &tensors(model, front));
        let key = Key { seed: recipe.seed, client: *ordinal as u32, round: ask.round, step: 0 };
        let batches = plan(train, recipe, key);
        let mut pace = Pace::new(recipe, ask.round, batches.len());
        let mut losses = 0.0;
        for (step, indices) in batches.iter().enumerate() {
            let key = Key { step: step as u32, ..key };
            losses += self.step(ask, indices, key, (&mut optimizer, &mut pace), line)?;
        }

        let ClientSeat { model, worker, .. } = &mut self.seat;
        let tensors = worker.encode(|| adapter::write(model, front))?;
        let train_loss = losses / batches.len().max(1) as f64;
        let peak_memory_bytes = peak_memory_bytes();
        let figures = Figures { train_loss, meter: worker.meter, evaluation: None, peak_memory_bytes };
        Ok(Message { tensors, fields: figures.fields(), ..answer(ask) })
    }
}

impl SplitClient {
    /// One step: forward through the front, the server's part, backward through the front.
    fn step(
        &mut self,
        ask: &Message,
        indices: &[usize],
        key: Key,
        (optimizer, pace): (&mut Optimizer, &mut Pace),
        line: &mut dyn Line,
    ) -> Result<f64, FrameworkError> {
        let (cut, codec) = (self.split.cut_layer, self.split.codec);
        let ClientSeat { recipe, model, train, worker, .. } = &mut self.seat;
        let batch = Batch::of(train, indices, recipe.pad_id, model);
        // [batch, seq, hidden]
        let (hidden, finite) = worker.compute(|| {
            let hidden = model.front(cut, &batch.tokens, Some(key));
            let finite = adapter::is_finite(&hidden.detach());
            (hidden, finite)
        });
        // A front that has diverged makes no loss but NaN; said here, it names its own client and step.
        check_loss(if finite { 0.0 } else { f64::NAN }, key, &worker.name)?;

        let tensors_up = worker.encode(|| {
            Ok::<_, FrameworkError>(vec![
                WireTensor::from_tensor("hidden", PayloadKind::Activation, &hidden.detach(), codec)?,
                WireTensor::from_i32s("lengths", PayloadKind::Length, &batch.tokens.lengths()),
                WireTensor::from_i32s(
                    "labels",
                    PayloadKind::Label,
                    &labels(model.head(), train, indices, batch.tokens.seq()),
                ),
            ])
        })?;
        let step = Message { subject: Subject::Step, step: key.step, ..answer(ask) };
        worker.network(|| line.send(Message { tensors: tensors_up, ..step }))?;
        let reply = worker.wait(|| receive_reply(line, ask, key.step))?;
        let (gradient, loss) = worker.encode(|| self.split.read_reply(&reply, key.step, &hidden))?;
        check_loss(loss, key, &worker.name)?;

        let stepped = worker.compute(|| {
            let parameters = tensors(model, Part::Front(cut));
            if parameters.is_empty() {
                return pace.take(optimizer, &parameters, Vec::new());
            }
            // `backward` takes no outer gradient; the derivative of this sum by `hidden` is `gradient`, exactly.
            let sum = (&hidden * gradient).sum(hidden.kind());
            let gradients = Tensor::run_backward(&[&sum], &parameters, false, false);
            pace.take(optimizer, &parameters, gradients)
        });
        worker.meter.steps += u64::from(stepped);
        count_batch(&batch, model, Part::Front(cut), recipe, worker);
        Ok(loss)
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

/// The next message that is neither the refusal of a single message, which is only said (a server that will not go on
/// ends the session), nor something that came twice: the question itself, or the reply to a step that is over.
fn receive_reply(line: &mut dyn Line, ask: &Message, step: u32) -> Result<Message, LinkError> {
    loop {
        let message = line.receive()?;
        let passing = message.subject == Subject::Refuse && message.fields["final"].as_bool() == Some(false);
        let over = message.subject == Subject::StepReply && (message.attempt, message.step) < (ask.attempt, step);
        let again = message.subject == ask.subject && (message.round, message.attempt) == (ask.round, ask.attempt);
        if !passing && !over && !again {
            return Ok(message);
        }
        if passing {
            let reason = message.fields["reason"].as_str().unwrap_or("it gave no reason");
            tracing::warn!(reason, "the server refused what this client sent, and goes on");
        }
    }
}

impl Split {
    /// The gradient of `hidden` and the batch's loss.
    fn read_reply(&self, reply: &Message, step: u32, hidden: &Tensor) -> Result<(Tensor, f64), FrameworkError> {
        let who = "the server";
        if reply.subject == Subject::Refuse {
            let reason = reply.fields["reason"].as_str().unwrap_or("it gave no reason").to_owned();
            return Err(FrameworkError::Refused { who: who.into(), reason });
        }
        if reply.subject != Subject::StepReply || reply.step != step {
            let (got, expected) = (reply.subject, Subject::StepReply);
            return Err(FrameworkError::Unexpected { who: who.into(), got, expected });
        }
        let [gradient] = &reply.tensors[..] else {
            let (got, expected) = (reply.tensors.len(), 1);
            return Err(FrameworkError::Count { who: who.into(), subject: reply.subject, got, expected });
        };
        let expected = (PayloadKind::ActivationGradient, self.codec, hidden.size());
        if (gradient.kind, gradient.element, gradient.shape.clone()) != expected {
            return Err(FrameworkError::Tensor {
                who: who.into(),
                got: adapter::describe(&gradient.name, gradient.kind, gradient.element, &gradient.shape),
                expected: adapter::describe(&gradient.name, expected.0, expected.1, &expected.2),
            });
        }
        let loss = reply.fields["loss"].as_f64().unwrap_or(f64::NAN);
        Ok((gradient.to_tensor(hidden.device())?.to_kind(hidden.kind()), loss))
    }
}
