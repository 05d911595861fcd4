//! What is beside the base and the pair, as one pair a module: of the smallest rank that leaves the logits as they are.
//! Must not change the model: it makes another one.

use tch::{Kind, TchError, Tensor};

use crate::{
    data::Example,
    evaluate::padded,
    low_rank::{LowRank, Svd},
    models::{LoraSettings, Model, Precision, Residual},
};

/// How much a logit may change.
const TOLERANCE: f64 = 1e-4;

/// Singular values below this share of a module's largest are what is left of rounding in F32.
const ROUNDING: f64 = 1e-6;

/// Held-out texts that logits are compared on, at most.
pub const PROBES: usize = 4;

/// The model with one pair a module in the place of what is beside the base and its own pairs, at the scale of `lora`;
/// none where there is nothing beside the base, for then its own pairs are all.
///
/// Modules share a threshold: of the singular values of all modules as many are kept, the largest first, as it takes
/// until the logits of `probes` change by at most 1e-4. A BF16 base cannot tell logits so near to each other; there all
/// values are kept that stand out from rounding.
///
/// # Errors
/// Where libtorch does not converge.
pub fn condense(
    model: &Model,
    lora: &LoraSettings,
    probes: &[Example],
    pad_id: u32,
) -> Result<Option<Model>, TchError> {
    if model.residuals().iter().all(Option::is_none) {
        return Ok(None);
    }
    let _no_graph = tch::no_grad_guard();
    let whole = decompose(model, lora)?;
    let values = sorted(&whole);
    let with = |kept: usize| cut(model, lora, &whole, &values[..kept]);
    if model.base().precision() == Precision::BF16 || probes.is_empty() {
        return Ok(Some(with(values.len())));
    }
    let expected = logits(model, probes, pad_id);
    let is_near =
        |kept: usize| (logits(&with(kept), probes, pad_id) - &expected).abs().max().double_value(&[]) <= TOLERANCE;
    // The smallest count that is near lies from `least` to `enough`.
    let (mut least, mut enough) = (0, values.len());
    while least < enough {
        let middle = usize::midpoint(least, enough);
        if is_near(middle) {
            enough = middle;
        } else {
            least = middle + 1;
        }
    }
    Ok(Some(with(enough)))
}

/// Singular values and vectors of everything beside each weight, in the adapter's order.
fn decompose(model: &Model, lora: &LoraSettings) -> Result<Vec<Svd>, TchError> {
    let modules = model.adapter().pairs().zip(model.residuals());
    let decomposed = modules.map(|([a, b], residual)| {
        let pair = LowRank { up: &b.tensor * lora.scale(), down: a.tensor.shallow_clone() };
        let beside = residual.as_ref().map(Residual::factors);
        LowRank::sum(&beside.into_iter().chain([pair]).collect::<Vec<_>>()).svd()
    });
    decomposed.collect()
}

/// Modules of all singular values that are more than rounding, the largest value first.
fn sorted(whole: &[Svd]) -> Vec<usize> {
    let values = whole.iter().enumerate().flat_map(|(module, svd)| {
        let values: Vec<f64> = Vec::try_from(&svd.values.to_kind(Kind::Double)).unwrap_or_default();
        let least = values.first().map_or(0.0, |largest| largest * ROUNDING);
        values.into_iter().filter(move |value| *value > least).map(move |value| (value, module)).collect::<Vec<_>>()
    });
    let mut values: Vec<(f64, usize)> = values.collect();
    values.sort_by(|a, b| b.0.total_cmp(&a.0));
    values.into_iter().map(|(_, module)| module).collect()
}

/// The model with as many values of each module as `kept` names it.
fn cut(model: &Model, lora: &LoraSettings, whole: &[Svd], kept: &[usize]) -> Model {
    let pairs = whole.iter().enumerate().map(|(module, svd)| {
        // PEFT knows no pair without a rank.
        let rank = kept.iter().filter(|other| **other == module).count().max(1);
        let LowRank { up, down } = svd.cut(rank);
        LowRank { up: up / lora.scale(), down }.to_f32()
    });
    model.with_pairs(lora, pairs.collect())
}

/// Logits of these texts in one batch.
pub(super) fn logits(model: &Model, probes: &[Example], pad_id: u32) -> Tensor {
    let indices: Vec<usize> = (0..probes.len()).collect();
    tch::no_grad(|| model.forward(&padded(probes, &indices, pad_id, model), None))
}
