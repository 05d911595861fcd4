//! Accuracy, F1 and loss on held-out examples: the same code for every framework.
//! Must not train: it reads a model and leaves it as it was.

use fedtune_crds::report::{FinalReport, LabelFigures};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    data::{Example, batches::evaluation_batches},
    flops,
    local::Recipe,
    models::{Model, Part, Tokens},
};

/// Counts over some held-out examples; counts of several models on the same examples add up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Sum of the examples' cross-entropies, in nats.
    pub loss_sum: f64,
    /// One entry a label, in label order.
    pub labels: Vec<LabelCounts>,
}

/// Counts of one label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelCounts {
    /// Examples that have it.
    pub have: u64,
    /// Examples that were given it.
    pub given: u64,
    /// Examples that have it and were given it.
    pub right: u64,
}

impl LabelCounts {
    fn precision(&self) -> f64 {
        ratio(self.right, self.given)
    }

    fn recall(&self) -> f64 {
        ratio(self.right, self.have)
    }

    /// 2 right / (have + given): the harmonic mean of precision and recall.
    fn f1(&self) -> f64 {
        ratio(2 * self.right, self.have + self.given)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Evaluation {
    /// Counts from logits `[examples, classes]` (F32) and the examples' labels.
    pub fn of_logits(logits: &Tensor, labels: &[i64]) -> Self {
        let classes = logits.size()[1] as usize;
        let targets = Tensor::from_slice(labels).to_device(logits.device());
        let losses = logits.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false);
        let given: Vec<i64> = Vec::try_from(logits.argmax(1, false)).expect("argmax of a matrix is a vector of i64");
        let mut counts = vec![LabelCounts::default(); classes];
        for (&have, &given) in labels.iter().zip(&given) {
            counts[have as usize].have += 1;
            counts[given as usize].given += 1;
            counts[have as usize].right += u64::from(have == given);
        }
        Self { loss_sum: -losses.sum(Kind::Double).double_value(&[]), labels: counts }
    }

    /// Adds the counts of another evaluation with the same labels.
    pub fn add(&mut self, other: &Self) {
        self.loss_sum += other.loss_sum;
        self.labels.resize(self.labels.len().max(other.labels.len()), LabelCounts::default());
        for (mine, theirs) in self.labels.iter_mut().zip(&other.labels) {
            mine.have += theirs.have;
            mine.given += theirs.given;
            mine.right += theirs.right;
        }
    }

    /// Whether a peer that says this of a model with so many labels may be right.
    pub fn could_be(&self, labels: usize) -> bool {
        let fits =
            |label: &LabelCounts| label.right <= label.have.min(label.given) && label.have.max(label.given) < 1 << 40;
        self.loss_sum.is_finite() && self.labels.len() == labels && self.labels.iter().all(fits)
    }

    /// Examples counted.
    pub fn examples(&self) -> u64 {
        self.labels.iter().map(|label| label.have).sum()
    }

    /// Share labelled rightly.
    pub fn accuracy(&self) -> f64 {
        ratio(self.labels.iter().map(|label| label.right).sum(), self.examples())
    }

    /// Mean F1 of the labels that occur or were given; others would only dilute it.
    pub fn macro_f1(&self) -> f64 {
        let occurring: Vec<f64> =
            self.labels.iter().filter(|label| label.have + label.given > 0).map(LabelCounts::f1).collect();
        if occurring.is_empty() { 0.0 } else { occurring.iter().sum::<f64>() / occurring.len() as f64 }
    }

    /// Mean cross-entropy, in nats.
    pub fn loss(&self) -> f64 {
        if self.examples() == 0 { 0.0 } else { self.loss_sum / self.examples() as f64 }
    }

    /// The figures under the labels' own names.
    pub fn figures(&self, names: &[String]) -> FinalReport {
        let figures = |(name, counts): (&String, &LabelCounts)| LabelFigures {
            label: name.clone(),
            examples: counts.have,
            precision: counts.precision(),
            recall: counts.recall(),
            f1: counts.f1(),
        };
        FinalReport {
            accuracy: self.accuracy(),
            macro_f1: self.macro_f1(),
            loss: self.loss(),
            per_label: names.iter().zip(&self.labels).map(figures).collect(),
            majority: ratio(self.labels.iter().map(|label| label.have).max().unwrap_or(0), self.examples()),
            ..FinalReport::default()
        }
    }
}

/// Evaluates `model` on `examples`, all of which have a label.
pub fn evaluate(model: &Model, examples: &[Example], pad_id: u32, batch_size: usize) -> Evaluation {
    let labels: Vec<i64> = examples.iter().filter_map(|example| example.label.map(i64::from)).collect();
    Evaluation::of_logits(&logits(model, examples, pad_id, batch_size), &labels)
}

/// Floating point operations of a forward pass over `examples`, batched as [`logits`] does.
pub fn flops(model: &Model, examples: &[Example], recipe: &Recipe) -> f64 {
    let batch_flops = |batch: &Vec<usize>| {
        let seq = batch.iter().map(|&index| examples[index].tokens.len()).max().unwrap_or(0);
        flops::forward(model.shape(), Part::Whole, &recipe.lora, recipe.labels, batch.len(), seq)
    };
    batches(examples, recipe.batch_size).iter().map(batch_flops).sum()
}

/// The model's logits on `examples`, in their order: `[examples, classes]`, F32.
pub fn logits(model: &Model, examples: &[Example], pad_id: u32, batch_size: usize) -> Tensor {
    let _no_graph = tch::no_grad_guard();
    let batches = batches(examples, batch_size);
    let parts: Vec<Tensor> =
        batches.iter().map(|batch| model.forward(&padded(examples, batch, pad_id, model), None)).collect();
    let order: Vec<i64> = batches.iter().flatten().map(|&index| index as i64).collect();
    // Row i of the concatenation is example order[i]; its inverse puts the rows back.
    let back = Tensor::from_slice(&order).argsort(0, false).to_device(model.device());
    Tensor::cat(&parts, 0).index_select(0, &back)
}

/// Batches of examples of like length, as positions.
fn batches(examples: &[Example], batch_size: usize) -> Vec<Vec<usize>> {
    let lengths: Vec<usize> = examples.iter().map(|example| example.tokens.len()).collect();
    evaluation_batches(&lengths, batch_size)
}

/// The batch of these examples, padded on the right to its longest.
pub fn padded(examples: &[Example], batch: &[usize], pad_id: u32, model: &Model) -> Tokens {
    let rows: Vec<&[u32]> = batch.iter().map(|&index| &examples[index].tokens[..]).collect();
    Tokens::right_padded(&rows, pad_id, model.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three of four right; label 1 given twice, had once.
    fn evaluation() -> Evaluation {
        let logits = Tensor::from_slice2(&[[2.0f32, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]]);
        Evaluation::of_logits(&logits, &[0, 1, 0, 0])
    }

    #[test]
    fn accuracy_f1_and_loss_follow_their_definitions() {
        let evaluation = evaluation();
        assert_eq!(evaluation.labels[0], LabelCounts { have: 3, given: 2, right: 2 });
        assert_eq!(evaluation.labels[1], LabelCounts { have: 1, given: 2, right: 1 });
        assert!((evaluation.accuracy() - 0.75).abs() < 1e-12);
        // F1 of label 0: 2 * 2 / (3 + 2); of label 1: 2 * 1 / (1 + 2).
        assert!((evaluation.macro_f1() - f64::midpoint(0.8, 2.0 / 3.0)).abs() < 1e-12);
        // Cross-entropy of a margin m: ln(1 + e^-m) where right, ln(1 + e^m) where wrong.
        let expected = [-2.0f64, -1.0, -1.0, 3.0].iter().map(|m| m.exp().ln_1p()).sum::<f64>() / 4.0;
        assert!((evaluation.loss() - expected).abs() < 1e-6, "{} {expected}", evaluation.loss());
    }

    #[test]
    fn evaluations_add_up() {
        let mut twice = evaluation();
        twice.add(&evaluation());
        assert_eq!(twice.examples(), 8);
        assert!((twice.accuracy() - evaluation().accuracy()).abs() < 1e-12);
        assert!((twice.loss() - evaluation().loss()).abs() < 1e-12);
    }

    #[test]
    fn no_examples_give_zero_and_not_nan() {
        let empty = Evaluation::default();
        assert_eq!((empty.accuracy(), empty.macro_f1(), empty.loss()), (0.0, 0.0, 0.0));
    }
}
