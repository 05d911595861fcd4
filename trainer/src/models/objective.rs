//! What training makes of logits: a loss, and where its backward pass begins.
//! Must not keep logits over a vocabulary: they would outweigh all that a small model keeps for its backward pass.

use tch::{Kind, Tensor};

use super::{Head, Model};
use crate::random::Key;

/// States whose logits over a vocabulary are in memory at once. It decides bits, so it is nobody's setting.
const AT_ONCE: i64 = 128;

/// What training makes of logits `[reads, classes]`.
pub enum Objective<'a> {
    /// Mean cross-entropy in nats against these classes, i64 `[reads]`; zero where nothing is read.
    CrossEntropy(&'a Tensor),
    /// Another loss, a scalar.
    Of(Box<dyn FnOnce(&Tensor) -> Tensor + 'a>),
}

impl<'a> Objective<'a> {
    /// What `loss` makes of the logits, a scalar.
    pub fn of(loss: impl FnOnce(&Tensor) -> Tensor + 'a) -> Self {
        Self::Of(Box::new(loss))
    }
}

/// Mean cross-entropy in nats of logits `[reads, classes]` against `targets` `[reads]`; zero where nothing is read.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    // The mean of nothing would be no number; the sum of nothing is zero, and its gradient too.
    if targets.numel() == 0 { logits.sum(Kind::Float) } else { logits.cross_entropy_for_logits(targets) }
}

/// A loss, both scalars.
pub(super) struct Loss {
    /// What it is.
    pub(super) value: Tensor,
    /// What has the same gradients.
    pub(super) root: Tensor,
}

impl Model {
    /// The loss of what the last block gave, `[batch, seq, hidden]`.
    pub(super) fn lose(
        &self,
        hidden: &Tensor,
        mask: &Tensor,
        places: Option<&Tensor>,
        dropout: Option<Key>,
        objective: Objective<'_>,
    ) -> Loss {
        let logits = || self.read(hidden, mask, places, dropout);
        let loss = match (objective, self.head()) {
            (Objective::CrossEntropy(targets), Head::Language) => {
                let states = self.before_vocabulary(hidden, places);
                let (value, gradient) = tch::no_grad(|| vocabulary_loss(&states, self.vocabulary(), targets));
                return Loss { value, root: seeded(&states, &gradient) };
            }
            (Objective::CrossEntropy(targets), Head::Classifier(_)) => cross_entropy(&logits(), targets),
            (Objective::Of(loss), _) => loss(&logits()),
        };
        Loss { value: loss.detach(), root: loss }
    }
}

/// `backward` takes no incoming gradient; the derivative of this sum by `output` is `gradient`, exactly.
pub(super) fn seeded(output: &Tensor, gradient: &Tensor) -> Tensor {
    (output * gradient).sum(gradient.kind())
}

/// Mean cross-entropy of `states` `[reads, hidden]` under a frozen layer over the vocabulary `[vocab, hidden]` against
/// `targets` `[reads]`, and its gradient by `states`. Of a softmax both are known at once, so logits go piece by piece.
fn vocabulary_loss(states: &Tensor, vocabulary: &Tensor, targets: &Tensor) -> (Tensor, Tensor) {
    let reads = targets.size()[0];
    let mut sum = Tensor::zeros([], (Kind::Double, states.device()));
    let gradient = states.zeros_like();
    for start in (0..reads).step_by(AT_ONCE as usize) {
        let piece = |of: &Tensor| of.narrow(0, start, AT_ONCE.min(reads - start));
        let (states, targets) = (piece(states), piece(targets).unsqueeze(1));
        let mut log_p = states.linear(vocabulary, None::<&Tensor>).log_softmax(-1, Kind::Float); // [piece, vocab]
        sum -= log_p.gather(1, &targets, false).sum(Kind::Double);
        let mut p = log_p.exp_();
        let ones = targets.ones_like().to_kind(Kind::Float);
        let p = p.scatter_add_(1, &targets, &-ones).to_kind(vocabulary.kind());
        piece(&gradient).copy_(&(p.matmul(vocabulary) / reads as f64));
    }
    (sum / reads.max(1) as f64, gradient)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::models::golden::{batch, cases, largest_difference, tensors};

    #[test]
    fn the_loss_over_a_vocabulary_is_that_of_all_its_logits_at_once() {
        let wave = |rows: i64, step: f64| {
            (Tensor::arange(rows * 24, (Kind::Float, Device::Cpu)) * step).sin().view([rows, 24])
        };
        let vocabulary = wave(61, 0.7);
        for reads in [1, AT_ONCE, 2 * AT_ONCE + 5] {
            let states = wave(reads, 1.3).set_requires_grad(true);
            let targets = Tensor::arange(reads, (Kind::Int64, Device::Cpu)).remainder(61);
            let (value, gradient) = tch::no_grad(|| vocabulary_loss(&states, &vocabulary, &targets));
            let loss = cross_entropy(&states.linear(&vocabulary, None::<&Tensor>), &targets);
            let expected = Tensor::run_backward(&[&loss], &[&states], false, false);
            assert!((value.double_value(&[]) - loss.double_value(&[])).abs() < 1e-5, "{reads} reads");
            assert!(largest_difference(&gradient, &expected[0]) < 1e-6, "{reads} reads");
        }
    }

    #[test]
    fn gradients_are_those_of_the_loss_of_the_logits() {
        for case in cases() {
            let golden = tensors(&case.name);
            let (model, tokens, targets) = (case.model(&golden), batch(&golden), &golden["labels"]);
            let (value, gradients) = model.loss_and_gradients(&tokens, None, false, Objective::CrossEntropy(targets));
            let by_logits = Objective::of(|logits| cross_entropy(logits, targets));
            let (expected, expected_gradients) = model.loss_and_gradients(&tokens, None, false, by_logits);
            assert!((value - expected).abs() < 1e-5, "{}", case.name);
            for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
                assert!(largest_difference(gradient, expected) < 1e-5, "{}", case.name);
            }
        }
    }
}
