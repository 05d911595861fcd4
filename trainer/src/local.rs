//! Local training: the steps of one round on one model, the same for a client, the server's baseline and a test.
//! Must not send anything, and must not keep optimizer state from one round to the next.

use tch::Tensor;
use thiserror::Error;

use crate::{
    averages::Mean,
    data::{
        Example,
        batches::{LocalWork, local_batches},
    },
    evaluate::{Evaluation, padded},
    flops::{self, BatchSize},
    meter::Worker,
    models::{Head, LoraSettings, Model, ModelShape, Objective, Part, Tokens},
    optimizer::{Optimizer, OptimizerSettings},
    pace::Pace,
    random::{Key, Site},
};

/// How everyone trains, parsed from the spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Steps or epochs of a round.
    pub work: LocalWork,
    /// Rounds of the run, over all of which the learning rate's schedule goes.
    pub rounds: u32,
    /// Examples of a batch.
    pub batch_size: usize,
    /// Batches whose gradients are averaged before one optimizer step, at least 1.
    pub accumulation: usize,
    /// How parameters move.
    pub optimizer: OptimizerSettings,
    /// The adapter.
    pub lora: LoraSettings,
    /// What the model ends in.
    pub head: Head,
    /// Labels there are: those that a classifier tells apart, or the answers that a language model may choose from.
    pub labels: usize,
    /// Tokens of an example, at most.
    pub max_length: usize,
    /// `spec.seed`.
    pub seed: u64,
    /// What fills a batch; masked, so that it decides nothing.
    pub pad_id: u32,
    /// The mu of `FedProx` (Li et al., arXiv 1812.06127): the loss of a round's steps has `mu / 2` times the squared
    /// distance to where the round began beside it. Zero for none.
    pub proximal_mu: f64,
    /// Whether blocks run again in backward, so that their activations need not be kept.
    pub gradient_checkpointing: bool,
    /// Rank of what earlier rounds have left beside each target, where a model is not there to be asked.
    pub rank_beside: usize,
}

impl Recipe {
    /// FLOPs of a training step of `part` on a batch of this size.
    pub fn step_flops(&self, shape: &ModelShape, part: Part, size: BatchSize) -> f64 {
        let flops = flops::train(shape, part, &self.lora, self.head, size, self.rank_beside);
        if !self.gradient_checkpointing {
            return flops;
        }
        flops + flops::recompute(shape, part, &self.lora, size, self.rank_beside)
    }

    /// [`Recipe::step_flops`] of this very model, with what is beside its base.
    pub fn step_flops_of(&self, model: &Model, part: Part, size: BatchSize) -> f64 {
        let flops = flops::train_of(model, part, &self.lora, size);
        if self.gradient_checkpointing { flops + flops::recompute_of(model, part, &self.lora, size) } else { flops }
    }

    /// `work` in batches: each step of it takes as many as accumulate.
    pub fn batches(&self, work: LocalWork) -> LocalWork {
        match work {
            LocalWork::Steps(steps) => LocalWork::Steps(steps.saturating_mul(self.accumulation)),
            LocalWork::Epochs(epochs) => LocalWork::Epochs(epochs),
        }
    }
}

/// What training can end with.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The loss is no number any more.
    #[error(
        "NonFiniteLoss: the loss of {worker} became {loss} in round {round}, step {step}; a lower training.optimizer learning rate, \
         gradientClipping or F32 precision may help"
    )]
    NonFiniteLoss {
        /// Who trained.
        worker: String,
        /// Round, from 1.
        round: u32,
        /// Step, from 1.
        step: u32,
        /// What the loss became.
        loss: f64,
    },
    /// A trained model gives no numbers on the public examples.
    #[error(
        "the logits of {worker} on the public set are no numbers in round {round}; a lower training.optimizer learning \
         rate, gradientClipping or F32 precision may help"
    )]
    NonFiniteLogits {
        /// Whose model.
        worker: String,
        /// Round, from 1.
        round: u32,
    },
    /// A trained model gives no numbers on the held-out examples.
    #[error(
        "the held-out loss of {who} is no number after round {round}; a lower training.optimizer learning rate, \
         gradientClipping or F32 precision may help"
    )]
    NonFiniteEvaluation {
        /// Whose model.
        who: String,
        /// Round, from 1.
        round: u32,
    },
}

/// A batch ready for the model.
#[derive(Debug)]
pub struct Batch {
    /// Its tokens, `[batch, seq]`, and which of them a language model reads.
    pub tokens: Tokens,
    /// What the logits should say, i64: a label of each row, `[batch]`, or the token after each that is read, `[reads]`.
    pub targets: Tensor,
    /// Tokens of the text, padding apart.
    pub real: usize,
}

impl Batch {
    /// The examples at `indices`, padded on the right to the longest of them.
    pub fn of(examples: &[Example], indices: &[usize], pad_id: u32, model: &Model) -> Self {
        let mut tokens = padded(examples, indices, pad_id, model);
        let numbers = |numbers: Vec<i64>| Tensor::from_slice(&numbers).to_device(model.device());
        let targets = match model.head() {
            Head::Classifier(_) => indices.iter().map(|&i| examples[i].label.map_or(0, i64::from)).collect(),
            Head::Language => {
                let (places, next) = next_tokens(examples, indices, tokens.seq());
                tokens.places = Some(numbers(places));
                next
            }
        };
        let real = indices.iter().map(|&i| examples[i].tokens.len()).sum();
        Self { tokens, targets: numbers(targets), real }
    }

    /// How large it is.
    pub fn size(&self) -> BatchSize {
        let reads = self.targets.size()[0] as usize;
        BatchSize { rows: self.tokens.batch(), seq: self.tokens.seq(), reads }
    }
}

/// Where the tokens that are to be said follow, as indices into `[batch * seq]` of rows padded on the right, and which
/// they are.
pub fn next_tokens(examples: &[Example], indices: &[usize], seq: usize) -> (Vec<i64>, Vec<i64>) {
    let rows = indices.iter().enumerate();
    let places = |(row, &index): (usize, &usize)| {
        examples[index].next_tokens().map(move |(place, next)| ((row * seq + place) as i64, i64::from(next)))
    };
    rows.flat_map(places).unzip()
}

/// The batches of one client in one round, as positions in its examples.
pub fn plan(examples: &[Example], recipe: &Recipe, key: Key) -> Vec<Vec<usize>> {
    let lengths: Vec<usize> = examples.iter().map(Example::batch_length).collect();
    local_batches(&lengths, recipe.batch_size, recipe.batches(recipe.work), key, Site::Batches)
}

/// Trains `model` in place for one round, with a new optimizer; returns the mean loss of its batches.
pub fn train(
    model: &Model,
    examples: &[Example],
    recipe: &Recipe,
    key: Key,
    worker: &mut Worker,
) -> Result<f64, TrainError> {
    let parameters = tensors(model, Part::Whole);
    let mut optimizer = Optimizer::new(&recipe.optimizer, &parameters);
    let pull = Pull::to_here(recipe.proximal_mu, &parameters);
    let batches = plan(examples, recipe, key);
    let mut pace = Pace::new(recipe, key.round, batches.len());
    let mut losses = 0.0;
    for (step, indices) in batches.iter().enumerate() {
        let key = Key { step: step as u32, ..key };
        let (loss, mut gradients) = gradients(model, examples, indices, recipe, key, worker)?;
        let stepped = worker.compute(|| {
            pull.add_to(&mut gradients, &parameters);
            pace.take(&mut optimizer, &parameters, &gradients)
        });
        worker.meter.steps += u64::from(stepped);
        losses += loss;
    }
    Ok(losses / batches.len().max(1) as f64)
}

/// The pull of `FedProx` back to where a round began.
struct Pull {
    mu: f64,
    start: Vec<Tensor>,
}

impl Pull {
    fn to_here(mu: f64, parameters: &[&Tensor]) -> Self {
        // With a mu of zero nothing is added at all: it may decide no bit.
        let start = if mu > 0.0 { parameters.iter().map(|p| p.detach().copy()).collect() } else { Vec::new() };
        Self { mu, start }
    }

    /// Adds the gradient of `mu / 2 |theta - theta_start|^2`. The loss that is reported goes without this term.
    fn add_to(&self, gradients: &mut [Tensor], parameters: &[&Tensor]) {
        let _no_graph = tch::no_grad_guard();
        for ((gradient, parameter), start) in gradients.iter_mut().zip(parameters).zip(&self.start) {
            *gradient = &*gradient + (*parameter - start) * self.mu;
        }
    }
}

/// The mean of a round's gradients, all taken where `model` stands now, and the mean loss.
pub fn mean_gradients(
    model: &Model,
    examples: &[Example],
    recipe: &Recipe,
    key: Key,
    worker: &mut Worker,
) -> Result<(f64, Vec<Tensor>), TrainError> {
    let batches = plan(examples, recipe, key);
    let mut means: Vec<Mean> = tensors(model, Part::Whole).iter().map(|_| Mean::default()).collect();
    let mut losses = 0.0;
    for (step, indices) in batches.iter().enumerate() {
        let key = Key { step: step as u32, ..key };
        let (loss, gradients) = gradients(model, examples, indices, recipe, key, worker)?;
        means.iter_mut().zip(&gradients).for_each(|(mean, gradient)| mean.add(gradient, 1.0));
        losses += loss;
    }
    worker.meter.steps += batches.len().div_ceil(recipe.accumulation) as u64;
    Ok((losses / batches.len().max(1) as f64, means.into_iter().filter_map(Mean::finish).collect()))
}

/// Loss and gradients of one batch, in the order of the adapter's parameters.
fn gradients(
    model: &Model,
    examples: &[Example],
    indices: &[usize],
    recipe: &Recipe,
    key: Key,
    worker: &mut Worker,
) -> Result<(f64, Vec<Tensor>), TrainError> {
    let batch = Batch::of(examples, indices, recipe.pad_id, model);
    let (loss, gradients) = worker.compute(|| {
        let objective = Objective::CrossEntropy(&batch.targets);
        model.loss_and_gradients(&batch.tokens, Some(key), recipe.gradient_checkpointing, objective)
    });
    check_loss(loss, key, &worker.name)?;
    count_batch(&batch, model, Part::Whole, recipe, worker);
    Ok((loss, gradients))
}

/// Refuses a loss that is no number.
pub fn check_loss(loss: f64, key: Key, worker: &str) -> Result<(), TrainError> {
    if loss.is_finite() {
        return Ok(());
    }
    Err(TrainError::NonFiniteLoss { worker: worker.to_owned(), round: key.round, step: key.step + 1, loss })
}

/// Refuses held-out figures that are no numbers: they would be written and could not be read again.
pub fn check_evaluation(evaluation: &Evaluation, who: &str, round: u32) -> Result<(), TrainError> {
    if evaluation.loss_sum.is_finite() {
        return Ok(());
    }
    Err(TrainError::NonFiniteEvaluation { who: who.to_owned(), round })
}

/// Counts the forward and backward pass of `part` over this batch.
pub fn count_batch(batch: &Batch, model: &Model, part: Part, recipe: &Recipe, worker: &mut Worker) {
    let size = batch.size();
    worker.meter.flops.train += recipe.step_flops_of(model, part, size);
    worker.count_batch(batch.real, size.tokens());
}

/// The trainable tensors of a part, in the adapter's order.
pub fn tensors(model: &Model, part: Part) -> Vec<&Tensor> {
    model.adapter().tensors(part)
}
