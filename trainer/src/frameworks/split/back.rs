//! The back of the model on the server: one step of it for one client's hidden states.
//! Must not see tokens: hidden states, lengths and labels are all that comes.

use std::sync::{Arc, Mutex, PoisonError};

use fedtune_crds::report::PayloadKind;
use tch::Tensor;

use super::{Split, StepTensors, UNSAID};
use crate::{
    flops::{self, BatchSize},
    frameworks::{FrameworkError, StepSizes, Stepper, adapter},
    local::{Recipe, TrainError, check_loss, loss, tensors},
    meter::Worker,
    models::{Head, Model, Part, Tokens},
    optimizer::Optimizer,
    pace::Pace,
    random::Key,
    rounds::Client,
    wire::{Message, Subject, WireTensor},
};

/// A back, its optimizer, and what it was before the turn that runs.
pub(super) struct Back {
    pub(super) model: Model,
    pub(super) worker: Worker,
    optimizer: Optimizer,
    part: Part,
    turn: Option<Turn>,
}

/// Whose steps are taken now.
struct Turn {
    client: Client,
    round: u32,
    /// What its steps held so far.
    sizes: StepSizes,
    /// How the back stood before it.
    before: (Vec<Tensor>, Optimizer),
}

impl Back {
    pub(super) fn new(split: &Split, model: Model, recipe: &Recipe, worker: Worker) -> Self {
        let part = Part::Back(split.cut_layer);
        let optimizer = Optimizer::new(&recipe.optimizer, &tensors(&model, part));
        Self { model, worker, optimizer, part, turn: None }
    }

    /// Starts a round from `values`, with a new optimizer.
    pub(super) fn reset(&mut self, values: &[Tensor], recipe: &Recipe) {
        adapter::assign(&self.model, self.part, values);
        self.optimizer = Optimizer::new(&recipe.optimizer, &tensors(&self.model, self.part));
        self.turn = None;
    }

    /// Takes this client's steps from here on, and remembers how it stands, so that they can be rolled back.
    pub(super) fn begin_turn(&mut self, client: Client, round: u32) {
        let before = (self.values(), self.optimizer.copy());
        self.turn = Some(Turn { client, round, sizes: StepSizes::default(), before });
    }

    /// Keeps what this client's turn made; later steps of it are not taken. Gives what its steps held.
    pub(super) fn end_turn(&mut self, client: Client) -> StepSizes {
        self.turn.take_if(|turn| turn.client == client).map_or(StepSizes::default(), |turn| turn.sizes)
    }

    /// Rolls this client's unfinished turn back, if there is one.
    pub(super) fn undo_turn(&mut self, client: Client) {
        if let Some(Turn { before: (values, optimizer), .. }) = self.turn.take_if(|turn| turn.client == client) {
            adapter::assign(&self.model, self.part, &values);
            self.optimizer = optimizer;
        }
    }

    fn is_open_for(&self, client: Client, round: u32) -> bool {
        self.turn.as_ref().is_some_and(|turn| (turn.client, turn.round) == (client, round))
    }

    /// Copies of its parameters.
    pub(super) fn values(&self) -> Vec<Tensor> {
        adapter::snapshot(&self.model, self.part)
    }
}

/// Runs one client's steps on a back.
pub(super) struct BackStepper {
    pub(super) split: Split,
    pub(super) recipe: Recipe,
    pub(super) ordinal: Client,
    /// The client's id, for sentences.
    pub(super) client: String,
    /// Of this client's batches: the same as at its front.
    pub(super) pace: Pace,
    pub(super) back: Arc<Mutex<Back>>,
}

impl Stepper for BackStepper {
    fn step(&mut self, message: &Message) -> Result<Message, FrameworkError> {
        let back = Arc::clone(&self.back);
        let mut back = back.lock().unwrap_or_else(PoisonError::into_inner);
        if !back.is_open_for(self.ordinal, message.round) {
            let (who, Message { subject, round, attempt, .. }) = (self.client.clone(), message);
            return Err(FrameworkError::NotOpen {
                who,
                subject: *subject,
                round: *round,
                attempt: *attempt,
                open: None,
            });
        }
        let Back { model, worker, optimizer, turn, .. } = &mut *back;
        let input = worker.encode(|| self.read(message, model))?;
        let key = Key { seed: self.recipe.seed, client: self.ordinal as u32, round: message.round, step: message.step };
        let Trained { gradient, loss, stepped } = worker.compute(|| self.train(model, optimizer, &input, key))?;
        let (size, part) = (input.size(), Part::Back(self.split.cut_layer));
        worker.meter.flops.train += flops::train(model.shape(), part, &self.recipe.lora, self.recipe.head, size);
        worker.meter.steps += u64::from(stepped);
        if let Some(turn) = turn {
            turn.sizes.rows += size.rows as u64;
            turn.sizes.tokens += size.tokens() as u64;
        }
        let gradient = worker.encode(|| {
            WireTensor::from_tensor("gradient", PayloadKind::ActivationGradient, &gradient, self.split.codec)
        })?;
        let (Message { round, step, epoch, attempt, .. }, tensors) = (message, vec![gradient]);
        let reply =
            Message { step: *step, epoch: *epoch, attempt: *attempt, ..Message::new(Subject::StepReply, *round) };
        Ok(Message { tensors, fields: serde_json::json!({ "loss": loss }), ..reply })
    }
}

/// What a step needs, checked.
struct Input {
    /// `[batch, seq, hidden]` in the base's precision; a leaf that wants a gradient.
    hidden: Tensor,
    /// `[batch, seq]`, true where there is a token.
    mask: Tensor,
    /// Which tokens a language model reads, [`Tokens::places`]; none for a classifier.
    places: Option<Tensor>,
    /// `[reads]`, i64.
    targets: Tensor,
}

impl Input {
    fn size(&self) -> BatchSize {
        let [rows, seq] = [0, 1].map(|dimension| self.mask.size()[dimension] as usize);
        BatchSize { rows, seq, reads: self.targets.size()[0] as usize }
    }
}

/// What a batch gives.
struct Trained {
    /// Of the hidden states.
    gradient: Tensor,
    loss: f64,
    /// Whether it completed a step of the optimizer.
    stepped: bool,
}

impl BackStepper {
    /// Forward and backward through the back, and its optimizer's step where the batch completes one.
    fn train(
        &mut self,
        model: &Model,
        optimizer: &mut Optimizer,
        input: &Input,
        key: Key,
    ) -> Result<Trained, TrainError> {
        let parameters = tensors(model, Part::Back(self.split.cut_layer));
        let Input { hidden, mask, places, targets } = input;
        let logits = model.back(self.split.cut_layer, hidden, mask, places.as_ref(), Some(key));
        let loss = loss(&logits, targets);
        let value = loss.double_value(&[]);
        check_loss(value, key, &self.client)?;
        let wanted: Vec<&Tensor> = parameters.iter().copied().chain([&input.hidden]).collect();
        let mut gradients = Tensor::run_backward(&[&loss], &wanted, false, false);
        // A loss may be a number where its gradients are none; such a step would ruin the back for all others.
        let finite = gradients.iter().all(adapter::is_finite);
        check_loss(if finite { value } else { f64::NAN }, key, &self.client)?;
        let gradient = gradients.pop().expect("one gradient comes back for each tensor asked for, and hidden is one");
        let stepped = self.pace.take(optimizer, &parameters, gradients);
        Ok(Trained { gradient, loss: value, stepped })
    }

    fn read(&self, message: &Message, model: &Model) -> Result<Input, FrameworkError> {
        if message.subject != Subject::Step {
            let (got, expected) = (message.subject, Subject::Step);
            return Err(FrameworkError::Unexpected { who: self.client.clone(), got, expected });
        }
        let Some(StepTensors { activation, lengths, labels }) = StepTensors::of(message) else {
            let (got, expected) = (message.tensors.len(), 3);
            return Err(FrameworkError::Count { who: self.client.clone(), subject: message.subject, got, expected });
        };
        let [rows, seq] = self.check_shape(activation, model.shape().hidden)?;
        let lengths = self.read_numbers(lengths, PayloadKind::Length, rows, 1, seq as i32)?;
        let (places, targets) = self.read_labels(labels, rows, seq, model)?;
        let hidden = activation.to_tensor(model.device())?.to_kind(model.base().precision().kind());
        let hidden = adapter::finite(hidden, &self.client, &activation.name)?.set_requires_grad(true);
        Ok(Input { hidden, mask: Tokens::mask_from_lengths(&lengths, seq, model.device()), places, targets })
    }

    /// Which tokens are read, and what the head should say there.
    fn read_labels(
        &self,
        labels: &WireTensor,
        rows: usize,
        seq: usize,
        model: &Model,
    ) -> Result<(Option<Tensor>, Tensor), FrameworkError> {
        let most = model.head().classes(model.shape()) as i32 - 1;
        let numbers = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(model.device());
        match model.head() {
            Head::Classifier(_) => {
                let labels = self.read_numbers(labels, PayloadKind::Label, rows, 0, most)?;
                Ok((None, numbers(&labels.into_iter().map(i64::from).collect::<Vec<_>>())))
            }
            Head::Language => {
                let labels = self.read_numbers(labels, PayloadKind::Label, rows * seq, UNSAID, most)?;
                let said = labels.iter().enumerate().filter(|(_, label)| **label >= 0);
                let (places, next): (Vec<i64>, Vec<i64>) =
                    said.map(|(place, &label)| (place as i64, i64::from(label))).unzip();
                Ok((Some(numbers(&places)), numbers(&next)))
            }
        }
    }

    /// Rows and padded length of the hidden states, which must be `[batch, seq, hidden]` of the recipe's size at most.
    fn check_shape(&self, activation: &WireTensor, hidden: usize) -> Result<[usize; 2], FrameworkError> {
        let (most_rows, most_seq) = (self.recipe.batch_size, self.recipe.max_length);
        let fits = |&[rows, seq, width]: &[i64; 3]| {
            (1..=most_rows as i64).contains(&rows) && (1..=most_seq as i64).contains(&seq) && width == hidden as i64
        };
        let shape = <[i64; 3]>::try_from(&activation.shape[..]).ok().filter(fits);
        match shape {
            Some([rows, seq, _])
                if (activation.kind, activation.element) == (PayloadKind::Activation, self.split.codec) =>
            {
                Ok([rows as usize, seq as usize])
            }
            Some(_) | None => Err(FrameworkError::Tensor {
                who: self.client.clone(),
                got: adapter::describe(&activation.name, activation.kind, activation.element, &activation.shape),
                expected: format!(
                    "activation, {:?}, shape [1 to {most_rows}, 1 to {most_seq}, {hidden}]",
                    self.split.codec
                ),
            }),
        }
    }

    /// `count` numbers, each from `low` to `high`.
    fn read_numbers(
        &self,
        tensor: &WireTensor,
        kind: PayloadKind,
        count: usize,
        low: i32,
        high: i32,
    ) -> Result<Vec<i32>, FrameworkError> {
        let numbers = tensor.to_i32s()?;
        if tensor.kind != kind || numbers.len() != count {
            return Err(FrameworkError::Tensor {
                who: self.client.clone(),
                got: adapter::describe(&tensor.name, tensor.kind, tensor.element, &tensor.shape),
                expected: format!("{count} numbers of kind {}", kind.as_str()),
            });
        }
        match numbers.iter().find(|number| !(low..=high).contains(*number)) {
            None => Ok(numbers),
            Some(&got) => Err(FrameworkError::Range {
                who: self.client.clone(),
                what: kind.as_str(),
                got,
                expected: format!("from {low} to {high}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        events::Events,
        frameworks::{split::Variant, tests::tiny},
        meter::Slots,
        wire::Element,
    };

    /// A back of a tiny model, and what moves every parameter of it.
    fn back() -> Back {
        let (model, recipe) = tiny();
        let split = Split { cut_layer: 1, variant: Variant::V2, codec: Element::F32 };
        Back::new(&split, model, &recipe, Worker::new("server", Slots::new(1, 1), Events::silent()))
    }

    fn step(back: &Back) {
        let moved: Vec<Tensor> = back.values().iter().map(|value| value + 1.0).collect();
        adapter::assign(&back.model, back.part, &moved);
    }

    fn first_value(back: &Back) -> f64 {
        back.values()[0].double_value(&[0, 0])
    }

    #[test]
    fn a_client_that_dies_in_its_turn_is_rolled_back() {
        let mut back = back();
        let before = first_value(&back);
        back.begin_turn(1, 1);
        step(&back);
        back.undo_turn(1);
        assert!((first_value(&back) - before).abs() < 1e-12);
        assert!(!back.is_open_for(1, 1));
    }

    #[test]
    fn a_turn_that_is_over_is_not_rolled_back_by_the_next_client() {
        let mut back = back();
        let before = first_value(&back);
        back.begin_turn(0, 1);
        step(&back);
        back.end_turn(0);
        back.undo_turn(1);
        assert!((first_value(&back) - before - 1.0).abs() < 1e-6);
    }

    #[test]
    fn steps_are_taken_from_the_client_whose_turn_it_is_and_in_its_round_alone() {
        let mut back = back();
        assert!(!back.is_open_for(0, 1));
        back.begin_turn(0, 1);
        assert!(back.is_open_for(0, 1) && !back.is_open_for(1, 1) && !back.is_open_for(0, 2));
        back.end_turn(0);
        assert!(!back.is_open_for(0, 1));
    }
}
