//! A language model on held-out texts: loss and likeliest token at each place, and the likeliest of several answers.
//! Must not generate: a greedy answer is the right one exactly where each of its tokens is the likeliest after those
//! before it, which one forward pass shows.

use tch::{Kind, Tensor};

use super::{Evaluation, LabelCounts, TextCounts, batches};
use crate::{
    data::{Answer, Example},
    local::{Batch, Recipe},
    models::Model,
};

/// States that the head reads at a time: a vocabulary is wide, and nothing is kept of its logits.
const READS: i64 = 256;

/// What a model makes of one example.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    /// Sum of ln p of the tokens to be said.
    log_likelihood: f64,
    tokens: u64,
    /// How many of them were the likeliest.
    right: u64,
}

pub(super) fn evaluate(model: &Model, examples: &[Example], recipe: &Recipe) -> Evaluation {
    let readings = read(model, examples, recipe);
    let (owners, others) = alternatives(examples);
    let mut text = TextCounts::default();
    for reading in readings.iter().filter(|reading| reading.tokens > 0) {
        text.examples += 1;
        text.exact += u64::from(reading.right == reading.tokens);
        text.tokens += reading.tokens;
        text.right += reading.right;
    }
    let mut labels = vec![LabelCounts::default(); recipe.labels];
    let others = read(model, &others, recipe);
    for (index, chosen) in choose(examples, &readings, &owners, &others) {
        let right = examples[index].answer.as_ref().map_or(0, |answer| answer.right);
        text.choices += 1;
        text.chosen += u64::from(chosen == right);
        count_label(&mut labels, &examples[index], chosen, right);
    }
    let loss_sum = readings.iter().map(|reading| -reading.log_likelihood).sum();
    Evaluation { loss_sum, labels, text: Some(text) }
}

/// Every example with each of its wrong answers in the place of the right one, and whose and which answer each is.
pub(super) fn alternatives(examples: &[Example]) -> (Vec<(usize, usize)>, Vec<Example>) {
    let mut owners = Vec::new();
    let mut others = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        let Some(answer) = &example.answer else { continue };
        for (choice, tokens) in answer.choices.iter().enumerate().filter(|(choice, _)| *choice != answer.right) {
            owners.push((index, choice));
            others.push(with_answer(example, answer, tokens));
        }
    }
    (owners, others)
}

fn with_answer(example: &Example, answer: &Answer, tokens: &[u32]) -> Example {
    let start = answer.said.iter().position(|said| *said).unwrap_or(answer.said.len());
    let said = (0..start + tokens.len()).map(|place| place >= start).collect();
    Example {
        tokens: [&example.tokens[..start], tokens].concat(),
        label: example.label,
        answer: Some(Answer { said, ..Answer::default() }),
    }
}

/// For each example with answers to choose from, the likeliest of them; of equal ones the first.
fn choose(
    examples: &[Example],
    readings: &[Reading],
    owners: &[(usize, usize)],
    others: &[Reading],
) -> Vec<(usize, usize)> {
    let mut chosen = Vec::new();
    let mut others = owners.iter().zip(others).peekable();
    for (index, example) in examples.iter().enumerate() {
        let Some(answer) = example.answer.as_ref().filter(|answer| !answer.choices.is_empty()) else { continue };
        let mut likelihoods = vec![f64::NEG_INFINITY; answer.choices.len()];
        likelihoods[answer.right] = readings[index].log_likelihood;
        while let Some(((_, choice), reading)) = others.next_if(|((owner, _), _)| *owner == index) {
            likelihoods[*choice] = reading.log_likelihood;
        }
        let best = likelihoods.iter().enumerate().fold(
            0,
            |best, (choice, likelihood)| {
                if *likelihood > likelihoods[best] { choice } else { best }
            },
        );
        chosen.push((index, best));
    }
    chosen
}

/// Where the answers to choose from are the labels of the run, in their order.
fn count_label(labels: &mut [LabelCounts], example: &Example, chosen: usize, right: usize) {
    let answers = example.answer.as_ref().map_or(0, |answer| answer.choices.len());
    if example.label != Some(right as u32) || answers != labels.len() {
        return;
    }
    labels[right].have += 1;
    labels[chosen].given += 1;
    labels[right].right += u64::from(chosen == right);
}

/// Reads every example, in batches of like length; the readings are in the examples' order.
fn read(model: &Model, examples: &[Example], recipe: &Recipe) -> Vec<Reading> {
    let _no_graph = tch::no_grad_guard();
    let mut readings = vec![Reading::default(); examples.len()];
    for indices in batches(examples, recipe.batch_size) {
        let batch = Batch::of(examples, &indices, recipe.pad_id, model);
        let (log_likelihoods, right) = read_batch(model, &batch);
        let mut of_batch = log_likelihoods.into_iter().zip(right);
        for &index in &indices {
            for (log_likelihood, right) in of_batch.by_ref().take(examples[index].reads()) {
                let reading = &mut readings[index];
                reading.log_likelihood += log_likelihood;
                reading.tokens += 1;
                reading.right += u64::from(right);
            }
        }
    }
    readings
}

/// ln p of each token that is to be said, and whether it was the likeliest, in the batch's order.
fn read_batch(model: &Model, batch: &Batch) -> (Vec<f64>, Vec<bool>) {
    let hidden = model.front(model.shape().blocks, &batch.tokens, None);
    let places = batch.tokens.places.as_ref().map_or_else(Vec::new, |places| places.split(READS, 0));
    let (mut log_likelihoods, mut right) = (Vec::new(), Vec::new());
    for (places, targets) in places.iter().zip(batch.targets.split(READS, 0)) {
        let logits = model.read(&hidden, &batch.tokens.mask, Some(places), None); // [reads, vocab]
        let chosen = logits.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false).squeeze_dim(1);
        log_likelihoods.extend(vector::<f64>(&chosen.to_kind(Kind::Double)));
        right.extend(vector::<bool>(&logits.argmax(-1, false).eq_tensor(&targets)));
    }
    (log_likelihoods, right)
}

fn vector<T: tch::kind::Element + Copy>(tensor: &Tensor) -> Vec<T>
where
    Vec<T>: for<'a> TryFrom<&'a Tensor>,
{
    Vec::try_from(tensor).unwrap_or_default()
}

#[cfg(test)]
mod tests;
