//! A frozen linear layer with, perhaps, a LoRA pair and a residual beside it: y = W x + b + R x + scale * B A dropout(x).
//! Must not draw from libtorch's generator: dropout masks come from the run's own streams.

use tch::{Kind, Tensor};

use super::{
    load::{Checkpoint, LoadError},
    residual::Residual,
    shape::LinearShape,
};
use crate::random::{Key, Site};

/// A linear layer of the base, frozen.
pub(super) struct Linear {
    pub(super) shape: LinearShape,
    weight: Tensor,       // [outputs, inputs]
    bias: Option<Tensor>, // [outputs]
    residual: Option<Residual>,
    lora: Option<LoraPair>,
}

/// The trained low-rank pair beside a frozen weight; the tensors are the adapter's own, shared.
pub(super) struct LoraPair {
    /// Ordinal among the model's LoRA layers, which keys its dropout stream.
    pub(super) ordinal: u32,
    pub(super) a: Tensor, // [rank, inputs]
    pub(super) b: Tensor, // [outputs, rank]
    pub(super) scale: f64,
    pub(super) dropout: f64,
}

impl Linear {
    pub(super) fn load(checkpoint: &Checkpoint, shape: LinearShape, bias: bool) -> Result<Self, LoadError> {
        let weight = checkpoint.tensor(&format!("{}.weight", shape.name), &[shape.outputs, shape.inputs])?;
        let bias = bias.then(|| checkpoint.tensor(&format!("{}.bias", shape.name), &[shape.outputs])).transpose()?;
        Ok(Self { shape, weight, bias, residual: None, lora: None })
    }

    /// A layer that transformers calls `Conv1D`: its weight is stored `[inputs, outputs]`. Nothing is copied.
    pub(super) fn load_conv1d(checkpoint: &Checkpoint, shape: LinearShape) -> Result<Self, LoadError> {
        let weight = checkpoint.tensor(&format!("{}.weight", shape.name), &[shape.inputs, shape.outputs])?;
        let bias = checkpoint.tensor(&format!("{}.bias", shape.name), &[shape.outputs])?;
        Ok(Self { shape, weight: weight.transpose(0, 1), bias: Some(bias), residual: None, lora: None })
    }

    /// The same weights with nothing beside them.
    pub(super) fn share(&self) -> Self {
        Self {
            shape: self.shape.clone(),
            weight: self.weight.shallow_clone(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            residual: None,
            lora: None,
        }
    }

    pub(super) fn adapt(&mut self, pair: LoraPair) {
        self.lora = Some(pair);
    }

    pub(super) fn set_residual(&mut self, residual: Option<Residual>) {
        self.residual = residual;
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub(super) fn forward(&self, x: &Tensor, dropout: Option<Key>) -> Tensor {
        let mut size = x.size();
        let x = x.reshape([-1, self.shape.inputs as i64]); // [rows, inputs]
        let base = x.linear(&self.weight, self.bias.as_ref());
        let base = match &self.residual {
            None => base,
            // Added in F32 and rounded once.
            Some(residual) => (base.to_kind(Kind::Float) + residual.forward(&x)).to_kind(x.kind()),
        };
        let y = match &self.lora {
            None => base,
            Some(pair) => pair.add_to(base, &x, dropout),
        };
        size.pop();
        size.push(self.shape.outputs as i64);
        y.view(size.as_slice())
    }
}

impl LoraPair {
    /// Adds what the pair makes of `x` `[rows, inputs]` to `base` `[rows, outputs]`, in place: nobody else holds it. The
    /// pair is stored in F32 and cast to the activations' type for the product, as PEFT does under autocast.
    fn add_to(&self, mut base: Tensor, x: &Tensor, dropout: Option<Key>) -> Tensor {
        let kind = x.kind();
        let dropped = dropout.filter(|_| self.dropout > 0.0).map(|key| self.drop(x, key));
        let low = dropped.as_ref().unwrap_or(x).linear(&self.a.to_kind(kind), None::<&Tensor>); // [rows, rank]
        base.addmm_(&(low * self.scale), &self.b.to_kind(kind).tr())
    }

    /// Inverted dropout: what stays is scaled up, so that the expectation does not change.
    fn drop(&self, x: &Tensor, key: Key) -> Tensor {
        let mut stream = key.stream(Site::Dropout(self.ordinal));
        let keep = (1.0 / (1.0 - self.dropout)) as f32;
        let mask: Vec<f32> =
            (0..x.numel()).map(|_| if f64::from(stream.unit()) < self.dropout { 0.0 } else { keep }).collect();
        let mask = Tensor::from_slice(&mask).view(x.size().as_slice());
        x * mask.to_device(x.device()).to_kind(x.kind())
    }
}

/// `x W^T + b` in F32 whatever the type of `x`: the classification head.
pub(super) fn head(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    x.to_kind(Kind::Float).linear(weight, bias)
}
