//! GPT-2: a decoder with learned positions, normed before its sub-layers (Radford et al. 2019), as transformers has it.
//! Must not train the layer over the vocabulary: it is the embedding table, and stays frozen.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    attention::{attend, causal_bias, positions, take_rightmost},
    base::{Body, Context, LoadOptions, Purpose},
    cache::KeyValues,
    linear::Linear,
    load::{Checkpoint, LoadError},
    norm::LayerNorm,
    shape::{Architecture, LinearShape, ModelShape},
};
use crate::random::Key;

/// What `config.json` says, or the metadata of a GGUF file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a configuration that others define")]
pub(super) struct Config {
    pub(super) vocab_size: usize,
    pub(super) n_positions: usize,
    pub(super) n_embd: usize,
    pub(super) n_layer: usize,
    pub(super) n_head: usize,
    /// Absent where it is four times the hidden width.
    #[serde(default)]
    pub(super) n_inner: Option<usize>,
    #[serde(default = "default_activation")]
    pub(super) activation_function: String,
    #[serde(default = "default_epsilon")]
    pub(super) layer_norm_epsilon: f64,
    #[serde(default = "yes")]
    pub(super) scale_attn_weights: bool,
    #[serde(default)]
    pub(super) scale_attn_by_inverse_layer_idx: bool,
    #[serde(default)]
    pub(super) add_cross_attention: bool,
    /// Whether the layer over the vocabulary is the embedding table.
    #[serde(default = "yes")]
    pub(super) tie_word_embeddings: bool,
}

pub(super) fn default_activation() -> String {
    "gelu_new".to_owned()
}

pub(super) fn default_epsilon() -> f64 {
    1e-5
}

fn yes() -> bool {
    true
}

impl Config {
    /// The model's shape, or what in the configuration is not supported.
    pub(super) fn shape(&self) -> Result<ModelShape, String> {
        let (hidden, heads) = (self.n_embd, self.n_head);
        if !["gelu_new", "gelu_pytorch_tanh"].contains(&self.activation_function.as_str()) {
            let found = &self.activation_function;
            return Err(format!("activation_function is {found:?}; for GPT-2 only \"gelu_new\" is supported"));
        }
        for (field, value, wanted) in [
            ("scale_attn_weights", self.scale_attn_weights, true),
            ("scale_attn_by_inverse_layer_idx", self.scale_attn_by_inverse_layer_idx, false),
            ("add_cross_attention", self.add_cross_attention, false),
        ] {
            if value != wanted {
                return Err(format!("{field} is {value}; for GPT-2 only {wanted} is supported"));
            }
        }
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(format!("n_embd {hidden} is not a multiple of n_head {heads}"));
        }
        ModelShape {
            architecture: Architecture::Gpt2,
            blocks: self.n_layer,
            hidden,
            heads,
            kv_heads: heads,
            head_dim: hidden / heads,
            intermediate: self.n_inner.unwrap_or(hidden.saturating_mul(4)),
            vocab: self.vocab_size,
            max_positions: self.n_positions,
        }
        .checked()
    }
}

/// The linear layers of one block, in the order in which transformers declares them.
pub(super) fn block_linears(shape: &ModelShape, block: usize) -> Vec<LinearShape> {
    let (hidden, intermediate) = (shape.hidden, shape.intermediate);
    [
        ("attn.c_attn", hidden, 3 * hidden),
        ("attn.c_proj", hidden, hidden),
        ("mlp.c_fc", hidden, intermediate),
        ("mlp.c_proj", intermediate, hidden),
    ]
    .map(|(module, inputs, outputs)| LinearShape {
        name: format!("transformer.h.{block}.{module}"),
        block: Some(block),
        inputs,
        outputs,
    })
    .into()
}

/// The frozen weights.
pub(super) struct Gpt2 {
    words: Tensor,     // [vocab, hidden]
    positions: Tensor, // [max_positions, hidden]
    blocks: Vec<Block>,
    norm: LayerNorm,
    vocabulary: Option<Tensor>, // [vocab, hidden]
    heads: i64,
}

struct Block {
    attention_norm: LayerNorm,
    query_key_value: Linear,
    attention_output: Linear,
    feed_forward_norm: LayerNorm,
    inner: Linear,
    output: Linear,
}

impl Gpt2 {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        config: &Config,
        shape: &ModelShape,
        options: LoadOptions,
    ) -> Result<Self, LoadError> {
        let (hidden, epsilon) = (shape.hidden, config.layer_norm_epsilon);
        let table = |name: &str, rows| checkpoint.tensor(&format!("transformer.{name}.weight"), &[rows, hidden]);
        let words = table("wte", shape.vocab)?;
        let vocabulary = checkpoint.vocabulary(&words, config.tie_word_embeddings, options)?;
        Ok(Self {
            positions: table("wpe", shape.max_positions)?,
            blocks: (0..shape.blocks)
                .map(|block| Block::load(checkpoint, shape, block, epsilon))
                .collect::<Result<_, _>>()?,
            norm: LayerNorm::load(checkpoint, "transformer.ln_f", hidden, epsilon)?,
            vocabulary,
            words,
            heads: shape.heads as i64,
        })
    }
}

impl Body for Gpt2 {
    fn share(&self) -> Box<dyn Body> {
        Box::new(Self {
            words: self.words.shallow_clone(),
            positions: self.positions.shallow_clone(),
            blocks: self.blocks.iter().map(Block::share).collect(),
            norm: self.norm.share(),
            vocabulary: self.vocabulary.as_ref().map(Tensor::shallow_clone),
            heads: self.heads,
        })
    }

    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.blocks.iter_mut().flat_map(Block::linears_mut).collect()
    }

    fn embed(&self, ids: &Tensor, mask: &Tensor) -> Tensor {
        let places = positions(mask, ids.size()[1]); // [batch, new]
        let table = |table: &Tensor, rows: &Tensor| Tensor::embedding(table, rows, -1, false, false);
        table(&self.words, ids) + table(&self.positions, &places) // [batch, new, hidden]
    }

    fn context(&self, mask: &Tensor, new: i64, purpose: Purpose) -> Context {
        Context { purpose, bias: causal_bias(mask, new, None, self.words.kind()), rotary: None }
    }

    fn block(
        &self,
        block: usize,
        hidden: &Tensor,
        context: &Context,
        dropout: Option<Key>,
        past: Option<&mut KeyValues>,
    ) -> Tensor {
        let block = &self.blocks[block];
        let attended = block.attend(hidden, self.heads, context, dropout, past) + hidden;
        block.feed_forward(&attended, dropout) + attended
    }

    fn pool(&self, hidden: &Tensor, mask: &Tensor, _dropout: Option<Key>) -> Tensor {
        self.norm.forward(&take_rightmost(hidden, mask)) // [batch, hidden]
    }

    fn last_norm(&self, hidden: &Tensor) -> Tensor {
        self.norm.forward(hidden)
    }

    fn vocabulary(&self) -> Option<&Tensor> {
        self.vocabulary.as_ref()
    }
}

impl Block {
    fn load(checkpoint: &Checkpoint, shape: &ModelShape, block: usize, epsilon: f64) -> Result<Self, LoadError> {
        let mut linears = block_linears(shape, block).into_iter();
        let mut next = || Linear::load_conv1d(checkpoint, linears.next().expect("a block has four linear layers"));
        let norm = |module: &str| {
            LayerNorm::load(checkpoint, &format!("transformer.h.{block}.{module}"), shape.hidden, epsilon)
        };
        Ok(Self {
            attention_norm: norm("ln_1")?,
            query_key_value: next()?,
            attention_output: next()?,
            feed_forward_norm: norm("ln_2")?,
            inner: next()?,
            output: next()?,
        })
    }

    fn share(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.share(),
            query_key_value: self.query_key_value.share(),
            attention_output: self.attention_output.share(),
            feed_forward_norm: self.feed_forward_norm.share(),
            inner: self.inner.share(),
            output: self.output.share(),
        }
    }

    /// In the order of [`block_linears`].
    fn linears_mut(&mut self) -> [&mut Linear; 4] {
        let Self { query_key_value, attention_output, inner, output, attention_norm: _, feed_forward_norm: _ } = self;
        [query_key_value, attention_output, inner, output]
    }

    fn attend(
        &self,
        hidden: &Tensor,
        heads: i64,
        context: &Context,
        dropout: Option<Key>,
        past: Option<&mut KeyValues>,
    ) -> Tensor {
        let (batch, seq, width) = hidden.size3().expect("a hidden state is [batch, seq, hidden]");
        let all = self.query_key_value.forward(&self.attention_norm.forward(hidden), dropout); // [batch, seq, 3 hidden]
        let split = |part| {
            let part = all.narrow(-1, part * width, width).view([batch, seq, heads, width / heads]);
            part.transpose(1, 2) // [batch, heads, seq, head_dim]
        };
        let (q, k, v) = (split(0), split(1), split(2));
        let (k, v) = if let Some(past) = past { past.extend(k, v) } else { (k, v) };
        self.attention_output.forward(&attend(&q, &k, &v, context), dropout)
    }

    fn feed_forward(&self, hidden: &Tensor, dropout: Option<Key>) -> Tensor {
        // The tanh form is what GPT-2 calls gelu_new (arXiv 1606.08415).
        let inner = self.inner.forward(&self.feed_forward_norm.forward(hidden), dropout).gelu("tanh");
        self.output.forward(&inner, dropout) // [batch, seq, hidden]
    }
}
