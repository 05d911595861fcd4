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
/// All pairs have one rank, the smallest with which the logits of `probes` change by at most 1e-4: whoever reads
/// adapters reads this one. A BF16 base cannot tell logits so near to each other; there all singular values are kept
/// that stand out from rounding.
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
    let with = |rank: usize| cut(model, lora, &whole, rank);
    // PEFT knows no pair without a rank.
    let most = whole.iter().map(count).max().unwrap_or(1).max(1);
    if model.base().precision() == Precision::BF16 || probes.is_empty() {
        return Ok(Some(with(most)));
    }
    let expected = logits(model, probes, pad_id);
    let is_near =
        |rank: usize| (logits(&with(rank), probes, pad_id) - &expected).abs().max().double_value(&[]) <= TOLERANCE;
    // The smallest rank that is near lies from `least` to `enough`.
    let (mut least, mut enough) = (1, most);
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

/// How many singular values are more than rounding.
fn count(svd: &Svd) -> usize {
    let values: Vec<f64> = Vec::try_from(&svd.values.to_kind(Kind::Double)).unwrap_or_default();
    let least = values.first().map_or(0.0, |largest| largest * ROUNDING);
    values.iter().filter(|value| **value > least).count()
}

/// The model with the nearest pairs of this rank; a module that has less is filled with zeros.
fn cut(model: &Model, lora: &LoraSettings, whole: &[Svd], rank: usize) -> Model {
    let pairs = whole.iter().map(|svd| {
        let LowRank { up, down } = svd.cut(rank);
        let missing = rank as i64 - down.size()[0];
        let up = (up / lora.scale()).constant_pad_nd([0, missing]);
        LowRank { up, down: down.constant_pad_nd([0, 0, 0, missing]) }.to_f32()
    });
    model.with_pairs(lora, pairs.collect())
}

/// Logits of these texts in one batch.
pub(super) fn logits(model: &Model, probes: &[Example], pad_id: u32) -> Tensor {
    let indices: Vec<usize> = (0..probes.len()).collect();
    tch::no_grad(|| model.forward(&padded(probes, &indices, pad_id, model), None))
}
