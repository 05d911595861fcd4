//! A model that learns from a teacher, and what it then says of the public set.
//! Must not know who the teacher is.

use tch::{Reduction, Tensor};

use super::{
    logits::{CHUNK, Sheet, soften},
    public::PublicSet,
    teacher::Teacher,
};
use crate::{
    data::{
        Example,
        batches::{LocalWork, local_batches},
    },
    flops,
    frameworks::{FrameworkError, adapter::is_finite},
    local::{Recipe, TrainError, check_loss, tensors},
    meter::Worker,
    models::{Model, Objective, Part},
    optimizer::Optimizer,
    pace::Pace,
    random::{Key, Site},
    wire::WireTensor,
};

/// How much of the loss is the teacher's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// Softens both distributions; above zero.
    pub temperature: f64,
    /// Weight of the teacher, 0 to 1; 1 wherever the public examples do not say what is right.
    pub lambda: f64,
    /// Optimizer steps.
    pub steps: usize,
}

/// The distillation loss of logits `z` `[reads, classes]`, F32, against the teacher's `log_p` of the same shape, which is
/// `ln softmax(z_teacher / T)`; `targets` `[reads]` where the public examples say what is right.
pub fn distillation_loss(
    z: &Tensor,
    log_p: &Tensor,
    targets: Option<&Tensor>,
    temperature: f64,
    lambda: f64,
) -> Tensor {
    let Some(targets) = targets else { return divergence(z, log_p, temperature) };
    // With a weight of zero a term is left out rather than multiplied: it may decide no bit.
    if lambda <= 0.0 {
        return z.cross_entropy_for_logits(targets);
    }
    if lambda >= 1.0 {
        return divergence(z, log_p, temperature);
    }
    z.cross_entropy_for_logits(targets) * (1.0 - lambda) + divergence(z, log_p, temperature) * lambda
}

/// `T^2 KL(p || softmax(z / T))`, mean over rows.
fn divergence(z: &Tensor, log_p: &Tensor, temperature: f64) -> Tensor {
    let kl = soften(z, temperature).kl_div(log_p, Reduction::Sum, true);
    kl * (temperature * temperature / z.size()[0] as f64)
}

impl Distillation {
    /// The batches of a distillation, as positions in the public set.
    pub(super) fn batches(&self, public: &PublicSet<'_>, key: Key) -> Vec<Vec<usize>> {
        let work = public.recipe.batches(LocalWork::Steps(self.steps));
        local_batches(&public.lengths(), public.recipe.batch_size, work, key, Site::Distillation)
    }

    /// Distils `teacher` into `model`, with a new optimizer. The learning rate's schedule goes over the distillation's own
    /// steps: as many in each round.
    pub(super) fn run(
        &self,
        model: &Model,
        public: &[Example],
        teacher: &Teacher,
        recipe: &Recipe,
        key: Key,
        worker: &mut Worker,
    ) -> Result<(), FrameworkError> {
        let parameters = tensors(model, Part::Whole);
        let mut optimizer = Optimizer::new(&recipe.optimizer, &parameters);
        let public = PublicSet::of(public, recipe);
        let batches = self.batches(&public, key);
        let mut pace = Pace::new(recipe, key.round, batches.len());
        for (step, indices) in batches.iter().enumerate() {
            let key = Key { step: step as u32, ..key };
            let batch = public.batch(indices, model);
            let log_p = worker.compute(|| teacher.log_p(&batch.reads))?;
            let loss = worker.compute(|| {
                let targets = batch.targets.as_ref();
                let loss = |z: &Tensor| distillation_loss(z, &log_p, targets, self.temperature, self.lambda);
                let objective = Objective::of(loss);
                let again = recipe.gradient_checkpointing;
                let (loss, gradients) = model.loss_and_gradients(&batch.tokens, Some(key), again, objective);
                pace.take(&mut optimizer, &parameters, &gradients);
                loss
            });
            check_loss(loss, key, &worker.name)?;
            worker.meter.flops.distill += recipe.step_flops(model.shape(), Part::Whole, batch.size());
            worker.say_step();
        }
        Ok(())
    }
}

/// A model's logits on the public set as they travel, counted.
pub(super) fn public_logits(
    model: &Model,
    public: &[Example],
    mut sheet: Sheet,
    recipe: &Recipe,
    round: u32,
    worker: &mut Worker,
) -> Result<Vec<WireTensor>, FrameworkError> {
    let _no_graph = tch::no_grad_guard();
    let public = PublicSet::of(public, recipe);
    for indices in public.once() {
        let batch = public.batch(&indices, model);
        let hidden = worker.compute(|| model.front(model.shape().blocks, &batch.tokens, None));
        for (reads, places) in chunks(&batch.reads, batch.tokens.places.as_ref()) {
            // [reads, classes]
            let z = worker.compute(|| model.read(&hidden, &batch.tokens.mask, places.as_ref(), None));
            if !is_finite(&z) {
                return Err(TrainError::NonFiniteLogits { worker: worker.name.clone(), round }.into());
            }
            worker.encode(|| sheet.write(reads, &z))?;
        }
        worker.meter.flops.public_forward +=
            flops::forward(model.shape(), Part::Whole, &recipe.lora, recipe.head, batch.size());
    }
    Ok(worker.encode(|| sheet.finish()))
}

/// Read states a chunk at a time, with where they are; a classifier reads its batch at once.
fn chunks<'a>(reads: &'a [usize], places: Option<&Tensor>) -> Vec<(&'a [usize], Option<Tensor>)> {
    match places {
        None => vec![(reads, None)],
        Some(places) => {
            let places = places.split(CHUNK as i64, 0).into_iter().map(Some);
            reads.chunks(CHUNK).zip(places).collect()
        }
    }
}
