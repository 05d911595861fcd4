//! Accuracy, F1, loss and what a language model says on held-out examples: the same code for every framework.
//! Must not train: it reads a model and leaves it as it was.

use fedtune_crds::report::{FinalReport, LabelFigures};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    data::{Example, batches::evaluation_batches},
    flops::{self, BatchSize},
    local::Recipe,
    models::{Head, Model, ModelShape, Part, Tokens},
};

mod text;

/// Counts over some held-out examples; counts of several models on the same examples add up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Sum of cross-entropies, in nats: of the examples for a classifier, of the tokens to be said for a language model.
    pub loss_sum: f64,
    /// One entry a label, in label order; a language model's answers count where they are labels.
    pub labels: Vec<LabelCounts>,
    /// What a language model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextCounts>,
}

/// Counts of what a language model says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextCounts {
    /// Examples in which something is to be said.
    pub examples: u64,
    /// Examples whose greedy answer is the right one, token by token.
    pub exact: u64,
    /// Tokens to be said.
    pub tokens: u64,
    /// Tokens that were the likeliest after those before them.
    pub right: u64,
    /// Examples with answers to choose from.
    pub choices: u64,
    /// Examples whose right answer was the likeliest of them.
    pub chosen: u64,
}

impl TextCounts {
    fn add(&mut self, other: &Self) {
        let Self { examples, exact, tokens, right, choices, chosen } = other;
        self.examples += examples;
        self.exact += exact;
        self.tokens += tokens;
        self.right += right;
        self.choices += choices;
        self.chosen += chosen;
    }

    fn could_be(&self) -> bool {
        let Self { examples, exact, tokens, right, choices, chosen } = *self;
        let parts = [(exact, examples), (right, tokens), (choices, examples), (chosen, choices), (examples, tokens)];
        tokens < 1 << 40 && parts.iter().all(|(part, whole)| part <= whole)
    }
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
        Self { loss_sum: -losses.sum(Kind::Double).double_value(&[]), labels: counts, text: None }
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
        if let Some(theirs) = &other.text {
            self.text.get_or_insert_default().add(theirs);
        }
    }

    /// Whether a peer that says this of a model may be right.
    pub fn could_be(&self, recipe: &Recipe) -> bool {
        let fits =
            |label: &LabelCounts| label.right <= label.have.min(label.given) && label.have.max(label.given) < 1 << 40;
        let text = match recipe.head {
            Head::Classifier(_) => self.text.is_none(),
            Head::Language => self.text.is_some_and(|text| text.could_be()),
        };
        self.loss_sum.is_finite() && self.labels.len() == recipe.labels && self.labels.iter().all(fits) && text
    }

    /// Examples counted.
    pub fn examples(&self) -> u64 {
        self.text.map_or_else(|| self.labelled(), |text| text.examples)
    }

    fn labelled(&self) -> u64 {
        self.labels.iter().map(|label| label.have).sum()
    }

    /// Share labelled rightly. Of a language model: of right choices where there are any, else of right tokens.
    pub fn accuracy(&self) -> f64 {
        match self.text {
            None => ratio(self.labels.iter().map(|label| label.right).sum(), self.labelled()),
            Some(text) => self.choices_accuracy().unwrap_or_else(|| ratio(text.right, text.tokens)),
        }
    }

    /// Share of a language model's tokens that were the likeliest after those before them.
    pub fn token_accuracy(&self) -> Option<f64> {
        self.text.map(|text| ratio(text.right, text.tokens))
    }

    /// Share of a language model's greedy answers that are the right ones, token by token.
    pub fn exact_match(&self) -> Option<f64> {
        self.text.map(|text| ratio(text.exact, text.examples))
    }

    /// Share of the examples with answers to choose from whose right one was the likeliest.
    pub fn choices_accuracy(&self) -> Option<f64> {
        self.text.filter(|text| text.choices > 0).map(|text| ratio(text.chosen, text.choices))
    }

    /// exp of a language model's mean loss a token.
    pub fn perplexity(&self) -> Option<f64> {
        self.text.map(|_| self.loss().exp())
    }

    /// Mean F1 of the labels that occur or were given; others would only dilute it.
    pub fn macro_f1(&self) -> f64 {
        let occurring: Vec<f64> =
            self.labels.iter().filter(|label| label.have + label.given > 0).map(LabelCounts::f1).collect();
        if occurring.is_empty() { 0.0 } else { occurring.iter().sum::<f64>() / occurring.len() as f64 }
    }

    /// Mean cross-entropy in nats, of the examples, or of the tokens that a language model is to say.
    pub fn loss(&self) -> f64 {
        let count = self.text.map_or_else(|| self.labelled(), |text| text.tokens);
        if count == 0 { 0.0 } else { self.loss_sum / count as f64 }
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
            majority: ratio(self.labels.iter().map(|label| label.have).max().unwrap_or(0), self.labelled()),
            perplexity: self.perplexity(),
            token_accuracy: self.token_accuracy(),
            exact_match: self.exact_match(),
            choices_accuracy: self.choices_accuracy(),
            ..FinalReport::default()
        }
    }
}

/// Evaluates `model` on `examples`: a classifier by their labels, which all of them have, a language model by what it is
/// to say in them.
pub fn evaluate(model: &Model, examples: &[Example], recipe: &Recipe) -> Evaluation {
    match recipe.head {
        Head::Classifier(_) => {
            let labels: Vec<i64> = examples.iter().filter_map(|example| example.label.map(i64::from)).collect();
            Evaluation::of_logits(&logits(model, examples, recipe.pad_id, recipe.batch_size), &labels)
        }
        Head::Language => text::evaluate(model, examples, recipe),
    }
}

/// Floating point operations of [`evaluate`].
pub fn flops(model: &Model, examples: &[Example], recipe: &Recipe) -> f64 {
    match recipe.head {
        Head::Classifier(_) => forward_flops_of(model, examples, recipe),
        Head::Language => {
            let others = text::alternatives(examples).1;
            forward_flops_of(model, examples, recipe) + forward_flops_of(model, &others, recipe)
        }
    }
}

/// Floating point operations of a forward pass over `examples`, batched as [`logits`] does.
pub fn forward_flops(shape: &ModelShape, examples: &[Example], recipe: &Recipe) -> f64 {
    sum_of_batches(examples, recipe, |size| flops::forward(shape, Part::Whole, &recipe.lora, recipe.head, size))
}

/// [`forward_flops`] of this very model, with what is beside its base.
fn forward_flops_of(model: &Model, examples: &[Example], recipe: &Recipe) -> f64 {
    sum_of_batches(examples, recipe, |size| flops::forward_of(model, Part::Whole, &recipe.lora, size))
}

fn sum_of_batches(examples: &[Example], recipe: &Recipe, flops: impl Fn(BatchSize) -> f64) -> f64 {
    let batch_flops = |batch: &Vec<usize>| {
        let seq = batch.iter().map(|&index| examples[index].tokens.len()).max().unwrap_or(0);
        let reads = batch.iter().map(|&index| examples[index].reads()).sum();
        let size = BatchSize { rows: batch.len(), seq, reads };
        flops(size)
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
