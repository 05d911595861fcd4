//! Frozen weights of one model on one device in one precision; every user in the process shares one copy.
//! Must not hold anything that is trained: that is the adapter's.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::{
    cache::KeyValues,
    head::Head,
    linear::Linear,
    lora::ModelError,
    shape::{Architecture, ModelShape},
};
use crate::random::Key;

/// Element type of base weights and activations. Adapters, head and logits are always F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// Brain floats: 8 bits of exponent, 8 of mantissa.
    BF16,
}

impl Precision {
    /// libtorch's name for it.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::BF16 => Kind::BFloat16,
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 => 2,
        }
    }
}

/// How base weights are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadOptions {
    /// Element type of weights and activations.
    pub precision: Precision,
    /// Where they live.
    pub device: Device,
    /// Whether the base's own layer over the vocabulary is read too, where it has one: a classifier does without.
    pub language_head: bool,
}

/// What an architecture must offer; [`super::Model`] puts the pieces together.
pub(super) trait Body: Send {
    /// The same weights again, without copying and without adapters.
    fn share(&self) -> Box<dyn Body>;
    /// Every linear layer, in the order of [`ModelShape::linears`].
    fn linears_mut(&mut self) -> Vec<&mut Linear>;
    /// Token ids `[batch, new]`, the last of rows with this mask `[batch, seen]`, to the first hidden state,
    /// `[batch, new, hidden]`. All of a row is new but where earlier tokens are in a cache.
    fn embed(&self, ids: &Tensor, mask: &Tensor) -> Tensor;
    /// What the blocks need to know of the mask `[batch, seen]` for the last `new` tokens.
    fn context(&self, mask: &Tensor, new: i64, purpose: Purpose) -> Context;
    /// One block: `[batch, new, hidden]` to the same. `past` holds what it kept of the tokens before the new ones, and
    /// is given what it keeps of those.
    fn block(
        &self,
        block: usize,
        hidden: &Tensor,
        context: &Context,
        dropout: Option<Key>,
        past: Option<&mut KeyValues>,
    ) -> Tensor;
    /// The last hidden state `[batch, seq, hidden]` to what the head reads, `[batch, hidden]`.
    fn pool(&self, hidden: &Tensor, mask: &Tensor, dropout: Option<Key>) -> Tensor;
    /// What the layer over the vocabulary reads of the last block's states, `[.., hidden]` to the same.
    fn last_norm(&self, hidden: &Tensor) -> Tensor;
    /// The layer over the vocabulary, `[vocab, hidden]`, where there is one.
    fn vocabulary(&self) -> Option<&Tensor>;
}

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A loss and its gradients.
    Training,
    /// Logits and answers.
    Inference,
}

/// What all blocks of one forward pass share.
pub(super) struct Context {
    /// What the pass is for.
    pub(super) purpose: Purpose,
    /// Added to attention scores; broadcasts to `[batch, 1, new, seen]`.
    pub(super) bias: Tensor,
    /// Cosine and sine of rotary positions, each `[batch, new, 1, head_dim]`.
    pub(super) rotary: Option<(Tensor, Tensor)>,
}

/// Frozen weights of one model.
pub struct Base {
    pub(super) body: Box<dyn Body>,
    pub(super) shape: Arc<ModelShape>,
    pub(super) options: LoadOptions,
    pub(super) pad_token_id: u32,
    pub(super) hash: Arc<str>,
}

impl Base {
    /// The same weights again: shallow clones, no copy.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            body: self.body.share(),
            shape: Arc::clone(&self.shape),
            options: self.options,
            pad_token_id: self.pad_token_id,
            hash: Arc::clone(&self.hash),
        }
    }

    /// Refuses a head that the base does not have.
    ///
    /// # Errors
    /// Where a language model is asked of a base without a layer over the vocabulary.
    pub fn check_head(&self, head: Head) -> Result<(), ModelError> {
        if head == Head::Language && self.body.vocabulary().is_none() {
            return Err(ModelError::NoLanguageHead { architecture: self.architecture().to_string() });
        }
        Ok(())
    }

    /// How large the model is.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// Its family.
    pub fn architecture(&self) -> Architecture {
        self.shape.architecture
    }

    /// Element type of weights and activations.
    pub fn precision(&self) -> Precision {
        self.options.precision
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.options.device
    }

    /// The token that fills rows: the configuration's, else its end-of-text token, else 0. Masks decide what is
    /// padding, so any token of the vocabulary will do.
    pub fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }

    /// SHA-256 over configuration and weight files, in hexadecimal.
    pub fn hash(&self) -> String {
        self.hash.to_string()
    }
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("shape", &self.shape).field("options", &self.options).finish_non_exhaustive()
    }
}
