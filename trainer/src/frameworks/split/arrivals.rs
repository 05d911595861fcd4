//! What a client's messages within a round hold, checked: the first half of a step, and the gradient that ends it.
//! Must not compute: it reads what the stepper then works with.

use fedtune_crds::report::PayloadKind;
use tch::Tensor;

use super::{HeadSide, UNSAID, codec::Place, stepper::BackStepper};
use crate::{
    flops::BatchSize,
    frameworks::{FrameworkError, adapter},
    models::{Head, Model, Tokens},
    random::Key,
    wire::{Message, WireTensor},
};

/// What a step brings, checked.
pub(super) struct Input {
    /// `[batch, seq, hidden]` in the base's precision; a leaf that wants a gradient.
    pub(super) hidden: Tensor,
    /// `[batch, seq]`, true where there is a token.
    pub(super) mask: Tensor,
    /// What the head should say; none where the head, and so the labels, are the client's.
    pub(super) wanted: Option<Wanted>,
}

/// What the head should say, and where.
pub(super) struct Wanted {
    /// Which tokens a language model reads, [`Tokens::places`]; none for a classifier.
    pub(super) places: Option<Tensor>,
    /// `[reads]`, i64.
    pub(super) targets: Tensor,
}

impl Input {
    pub(super) fn size(&self) -> BatchSize {
        let [rows, seq] = [0, 1].map(|dimension| self.mask.size()[dimension] as usize);
        let reads = self.wanted.as_ref().map_or(0, |wanted| wanted.targets.size()[0] as usize);
        BatchSize { rows, seq, reads }
    }
}

impl BackStepper {
    /// The tensors of a step, in this order:
    ///
    /// - hidden states, `[batch, seq, hidden]` as the codec writes them;
    /// - lengths, `[batch]`, i32: tokens of each row; the rest is padding;
    /// - labels, where the head is the server's, i32: `[batch]`, or `[batch, seq]` of a language model: the token that
    ///   is to be said after each, else [`UNSAID`].
    pub(super) fn read_step(&self, message: &Message, model: &Model, key: Key) -> Result<Input, FrameworkError> {
        let labels = match self.split.head {
            HeadSide::Server => 1,
            HeadSide::Client => 0,
        };
        self.check_count(message, self.split.codec.tensors() + 1 + labels)?;
        let (activation, rest) = message.tensors.split_at(self.split.codec.tensors());
        let [rows, seq] = self.check_shape(&activation[0], model.shape().hidden)?;
        let lengths = self.read_numbers(&rest[0], PayloadKind::Length, rows, 1, seq as i32)?;
        let wanted = rest.get(1).map(|labels| self.read_labels(labels, rows, seq, model)).transpose()?;
        let hidden = self.read_hidden(activation, PayloadKind::Activation, &activation[0].shape, model, key)?;
        let mask = Tokens::mask_from_lengths(&lengths, seq, model.device());
        Ok(Input { hidden: hidden.set_requires_grad(true), mask, wanted })
    }

    /// The gradient of what the server's blocks made in this step, `[batch, seq, hidden]` like it.
    pub(super) fn read_gradient(
        &self,
        message: &Message,
        made: &Tensor,
        model: &Model,
        key: Key,
    ) -> Result<Tensor, FrameworkError> {
        self.check_count(message, self.split.codec.tensors())?;
        self.read_hidden(&message.tensors, PayloadKind::ActivationGradient, &made.size(), model, key)
    }

    fn read_hidden(
        &self,
        tensors: &[WireTensor],
        kind: PayloadKind,
        shape: &[i64],
        model: &Model,
        key: Key,
    ) -> Result<Tensor, FrameworkError> {
        let options = (model.base().precision().kind(), model.device());
        self.split.codec.read(tensors, kind, shape, options, Place { who: &self.client, key })
    }

    fn check_count(&self, message: &Message, expected: usize) -> Result<(), FrameworkError> {
        match message.tensors.len() {
            got if got == expected => Ok(()),
            got => Err(FrameworkError::Count { who: self.client.clone(), subject: message.subject, got, expected }),
        }
    }

    /// Which tokens are read, and what the head should say there.
    fn read_labels(
        &self,
        labels: &WireTensor,
        rows: usize,
        seq: usize,
        model: &Model,
    ) -> Result<Wanted, FrameworkError> {
        let most = model.head().classes(model.shape()) as i32 - 1;
        let numbers = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(model.device());
        match model.head() {
            Head::Classifier(_) => {
                let labels = self.read_numbers(labels, PayloadKind::Label, rows, 0, most)?;
                let targets = numbers(&labels.into_iter().map(i64::from).collect::<Vec<_>>());
                Ok(Wanted { places: None, targets })
            }
            Head::Language => {
                let labels = self.read_numbers(labels, PayloadKind::Label, rows * seq, UNSAID, most)?;
                let said = labels.iter().enumerate().filter(|(_, label)| **label >= 0);
                let (places, next): (Vec<i64>, Vec<i64>) =
                    said.map(|(place, &label)| (place as i64, i64::from(label))).unzip();
                Ok(Wanted { places: Some(numbers(&places)), targets: numbers(&next) })
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
        let element = self.split.codec.element();
        match shape {
            Some([rows, seq, _]) if (activation.kind, activation.element) == (PayloadKind::Activation, element) => {
                Ok([rows as usize, seq as usize])
            }
            Some(_) | None => Err(FrameworkError::Tensor {
                who: self.client.clone(),
                got: adapter::describe(&activation.name, activation.kind, activation.element, &activation.shape),
                expected: format!("activation, {element:?}, shape [1 to {most_rows}, 1 to {most_seq}, {hidden}]"),
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
