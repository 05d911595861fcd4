//! The norms of the architectures: over mean and variance, or over the mean square alone.
//! Must not be trained: their weights are the base's.

use tch::{Kind, Tensor};

use super::load::{Checkpoint, LoadError};

/// Layer normalisation (arXiv 1607.06450).
pub(super) struct LayerNorm {
    weight: Tensor, // [hidden]
    bias: Tensor,   // [hidden]
    epsilon: f64,
}

impl LayerNorm {
    pub(super) fn load(checkpoint: &Checkpoint, name: &str, hidden: usize, epsilon: f64) -> Result<Self, LoadError> {
        let vector = |part: &str| checkpoint.tensor(&format!("{name}.{part}"), &[hidden]);
        Ok(Self { weight: vector("weight")?, bias: vector("bias")?, epsilon })
    }

    pub(super) fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone(), epsilon: self.epsilon }
    }

    /// `[.., hidden]` to the same.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }
}

/// Root-mean-square normalisation (arXiv 1910.07467).
pub(super) struct RmsNorm {
    weight: Tensor, // [hidden]
    epsilon: f64,
}

impl RmsNorm {
    pub(super) fn load(checkpoint: &Checkpoint, name: &str, hidden: usize, epsilon: f64) -> Result<Self, LoadError> {
        Ok(Self { weight: checkpoint.tensor(&format!("{name}.weight"), &[hidden])?, epsilon })
    }

    pub(super) fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), epsilon: self.epsilon }
    }

    /// `[.., hidden]` to the same; in F32 whatever the precision, as transformers does: squares of BF16 numbers lose too
    /// much.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let mean = wide.square().mean_dim(-1, true, None); // [.., 1]
        (wide * (mean + self.epsilon).rsqrt()).to_kind(x.kind()) * &self.weight
    }
}
