//! What a model is distilled from: the mean of the clients' logits, or the student's, some read states at a time.
//! Must not hold more than a chunk of it: nothing of the mean is kept.
//!
//! The mean is of logits z; of top-k it is of log-probabilities, which are z / T up to a constant of each client, and a
//! constant changes no softmax. Weights are the same for every read state, or a client's confidence there:
//! `1 - H(p) / ln C` of p = softmax(z / T) over C classes, H in nats: 1 where it is sure, 0 where every class is as likely.

use tch::{Device, Kind, Tensor};

use super::logits::{CHUNK, Logits, soften};
use crate::{
    averages::{Mean, RowMean},
    wire::WireError,
};

/// How much a client's logits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighting {
    /// As much as anyone's.
    Uniform,
    /// By its training examples.
    Examples,
    /// By its confidence, at each read state.
    Confidence,
}

/// Gives the teacher's log-probabilities.
pub(super) struct Teacher {
    weighting: Weighting,
    /// In client order, with their training examples; at least one.
    shared: Vec<(u64, Logits)>,
    temperature: f64,
    device: Device,
}

impl Teacher {
    /// The mean of `shared`, logits with their clients' examples, in client order; nothing where there are none.
    pub(super) fn mean(
        shared: Vec<(u64, Logits)>,
        weighting: Weighting,
        temperature: f64,
        device: Device,
    ) -> Option<Self> {
        let temperature = shared.first()?.1.temperature(temperature);
        Some(Self { weighting, shared, temperature, device })
    }

    /// One model's logits.
    pub(super) fn alone(logits: Logits, temperature: f64, device: Device) -> Self {
        let temperature = logits.temperature(temperature);
        Self { weighting: Weighting::Uniform, shared: vec![(1, logits)], temperature, device }
    }

    /// ln of softmax(z / T) at these read states, `[reads, classes]`, F32.
    pub(super) fn log_p(&self, reads: &[usize]) -> Result<Tensor, WireError> {
        let _no_graph = tch::no_grad_guard();
        let chunk = |reads: &[usize]| Ok(soften(&self.logits(reads)?, self.temperature));
        let chunks = reads.chunks(CHUNK).map(chunk).collect::<Result<Vec<_>, WireError>>()?;
        Ok(Tensor::cat(&chunks, 0))
    }

    /// The mean at these read states, `[reads, classes]`, F32.
    fn logits(&self, reads: &[usize]) -> Result<Tensor, WireError> {
        let mean = match self.weighting {
            Weighting::Uniform => self.weighted(reads, |_| 1.0)?,
            Weighting::Examples => self.weighted(reads, |examples| examples as f64)?,
            Weighting::Confidence => self.by_confidence(reads)?,
        };
        Ok(mean.expect("there is a client's share, or there were no teacher"))
    }

    fn weighted(&self, reads: &[usize], weight: impl Fn(u64) -> f64) -> Result<Option<Tensor>, WireError> {
        let mut mean = Mean::default();
        for (examples, logits) in &self.shared {
            mean.add(&logits.rows(reads, self.device)?, weight(*examples));
        }
        Ok(mean.finish())
    }

    fn by_confidence(&self, reads: &[usize]) -> Result<Option<Tensor>, WireError> {
        let rows = |logits: &Logits| logits.rows(reads, self.device);
        let weights = self.shared.iter().map(|(_, logits)| Ok(confidence(&soften(&rows(logits)?, self.temperature))));
        let weights = or_even(weights.collect::<Result<_, WireError>>()?);
        let mut mean = RowMean::default();
        for ((_, logits), weights) in self.shared.iter().zip(&weights) {
            mean.add(&rows(logits)?, weights);
        }
        Ok(mean.finish())
    }
}

/// `1 - H(p) / ln C` of log-probabilities `[reads, classes]`: `[reads, 1]`, F64. A single class is always sure.
fn confidence(log_p: &Tensor) -> Tensor {
    let log_p = log_p.to_kind(Kind::Double);
    let classes = log_p.size()[1].max(2) as f64;
    let negative_entropy = (log_p.exp() * &log_p).sum_dim_intlist([-1i64].as_slice(), true, Kind::Double);
    (negative_entropy / classes.ln() + 1.0).clamp(0.0, 1.0)
}

/// Each client's weights `[reads, 1]`; ones where nobody has any.
fn or_even(weights: Vec<Tensor>) -> Vec<Tensor> {
    let nobody = weights.iter().fold(Tensor::from(0.0), |sum, weights| sum + weights).le(0.0).to_kind(Kind::Double);
    weights.into_iter().map(|weights| weights + &nobody).collect()
}

#[cfg(test)]
mod tests;
