//! BERT: an encoder whose sub-layers are normed after their residual (arXiv 1810.04805), as transformers has it.
//! Must not train anything here: the pooler stays frozen unless a LoRA target names it.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    attention::{attend, padding_bias},
    base::{Body, Context, Purpose},
    cache::KeyValues,
    linear::Linear,
    load::{Checkpoint, LoadError},
    norm::LayerNorm,
    shape::{Architecture, LinearShape, ModelShape},
};
use crate::random::Key;

/// What `config.json` says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_types")]
    type_vocab_size: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "default_activation")]
    hidden_act: String,
    #[serde(default = "default_positions")]
    position_embedding_type: String,
}

fn default_types() -> usize {
    2
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_activation() -> String {
    "gelu".to_owned()
}

fn default_positions() -> String {
    "absolute".to_owned()
}

impl Config {
    /// The model's shape, or what in the configuration is not supported.
    pub(super) fn shape(&self) -> Result<ModelShape, String> {
        if self.hidden_act != "gelu" {
            return Err(format!("hidden_act is {:?}; for BERT only \"gelu\" is supported", self.hidden_act));
        }
        if self.position_embedding_type != "absolute" {
            let found = &self.position_embedding_type;
            return Err(format!("position_embedding_type is {found:?}; only \"absolute\" is supported"));
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}"));
        }
        ModelShape {
            architecture: Architecture::Bert,
            blocks: self.num_hidden_layers,
            hidden,
            heads,
            kv_heads: heads,
            head_dim: hidden / heads,
            intermediate: self.intermediate_size,
            vocab: self.vocab_size,
            max_positions: self.max_position_embeddings,
        }
        .checked()
    }
}

/// The linear layers of one block, in the order in which transformers declares them.
pub(super) fn block_linears(shape: &ModelShape, block: usize) -> Vec<LinearShape> {
    let (hidden, intermediate) = (shape.hidden, shape.intermediate);
    [
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", hidden, intermediate),
        ("output.dense", intermediate, hidden),
    ]
    .map(|(module, inputs, outputs)| LinearShape {
        name: format!("bert.encoder.layer.{block}.{module}"),
        block: Some(block),
        inputs,
        outputs,
    })
    .into()
}

/// The layer between the first token's last hidden state and the head.
pub(super) fn pooler_linear(shape: &ModelShape) -> LinearShape {
    LinearShape { name: "bert.pooler.dense".into(), block: None, inputs: shape.hidden, outputs: shape.hidden }
}

/// The frozen weights.
pub(super) struct Bert {
    words: Tensor,     // [vocab, hidden]
    positions: Tensor, // [max_positions, hidden]
    types: Tensor,     // [types, hidden]
    norm: LayerNorm,
    blocks: Vec<Block>,
    pooler: Linear,
    heads: i64,
}

struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl Bert {
    pub(super) fn load(checkpoint: &Checkpoint, config: &Config, shape: &ModelShape) -> Result<Self, LoadError> {
        let (hidden, epsilon) = (shape.hidden, config.layer_norm_eps);
        let table = |name: &str, rows| checkpoint.tensor(&format!("bert.embeddings.{name}.weight"), &[rows, hidden]);
        if !checkpoint.holds("bert.pooler.dense.weight") {
            return Err(checkpoint.unusable(
                "it holds no pooler, which the classifier reads; use a checkpoint saved with bert.pooler.dense",
            ));
        }
        Ok(Self {
            words: table("word_embeddings", shape.vocab)?,
            positions: table("position_embeddings", shape.max_positions)?,
            types: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::load(checkpoint, "bert.embeddings.LayerNorm", hidden, epsilon)?,
            blocks: (0..shape.blocks)
                .map(|block| Block::load(checkpoint, shape, block, epsilon))
                .collect::<Result<_, _>>()?,
            pooler: Linear::load(checkpoint, pooler_linear(shape), true)?,
            heads: shape.heads as i64,
        })
    }
}

impl Body for Bert {
    fn share(&self) -> Box<dyn Body> {
        Box::new(Self {
            words: self.words.shallow_clone(),
            positions: self.positions.shallow_clone(),
            types: self.types.shallow_clone(),
            norm: self.norm.share(),
            blocks: self.blocks.iter().map(Block::share).collect(),
            pooler: self.pooler.share(),
            heads: self.heads,
        })
    }

    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.blocks.iter_mut().flat_map(Block::linears_mut).chain([&mut self.pooler]).collect()
    }

    fn embed(&self, ids: &Tensor, _mask: &Tensor) -> Tensor {
        let words = Tensor::embedding(&self.words, ids, -1, false, false); // [batch, seq, hidden]
        let positions = self.positions.narrow(0, 0, ids.size()[1]); // [seq, hidden]
        self.norm.forward(&(words + self.types.get(0) + positions))
    }

    fn context(&self, mask: &Tensor, _new: i64, purpose: Purpose) -> Context {
        Context { purpose, bias: padding_bias(mask, self.words.kind()), rotary: None }
    }

    /// Tokens that come later change what the earlier ones are: an encoder has no past to keep.
    fn block(
        &self,
        block: usize,
        hidden: &Tensor,
        context: &Context,
        dropout: Option<Key>,
        _past: Option<&mut KeyValues>,
    ) -> Tensor {
        let attended = self.blocks[block].attend(hidden, self.heads, context, dropout);
        self.blocks[block].feed_forward(&attended, dropout)
    }

    fn pool(&self, hidden: &Tensor, _mask: &Tensor, dropout: Option<Key>) -> Tensor {
        let first = hidden.select(1, 0); // [batch, hidden]
        self.pooler.forward(&first, dropout).tanh()
    }

    /// Blocks end in a norm.
    fn last_norm(&self, hidden: &Tensor) -> Tensor {
        hidden.shallow_clone()
    }

    fn vocabulary(&self) -> Option<&Tensor> {
        None
    }
}

impl Block {
    fn load(checkpoint: &Checkpoint, shape: &ModelShape, block: usize, epsilon: f64) -> Result<Self, LoadError> {
        let mut linears = block_linears(shape, block).into_iter().map(|linear| Linear::load(checkpoint, linear, true));
        let mut next = || linears.next().expect("a block has six linear layers");
        let norm = |module: &str| {
            LayerNorm::load(checkpoint, &format!("bert.encoder.layer.{block}.{module}"), shape.hidden, epsilon)
        };
        Ok(Self {
            query: next()?,
            key: next()?,
            value: next()?,
            attention_output: next()?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: next()?,
            output: next()?,
            output_norm: norm("output.LayerNorm")?,
        })
    }

    fn share(&self) -> Self {
        Self {
            query: self.query.share(),
            key: self.key.share(),
            value: self.value.share(),
            attention_output: self.attention_output.share(),
            attention_norm: self.attention_norm.share(),
            intermediate: self.intermediate.share(),
            output: self.output.share(),
            output_norm: self.output_norm.share(),
        }
    }

    /// In the order of [`block_linears`].
    fn linears_mut(&mut self) -> [&mut Linear; 6] {
        let Self { query, key, value, attention_output, intermediate, output, attention_norm: _, output_norm: _ } =
            self;
        [query, key, value, attention_output, intermediate, output]
    }

    fn attend(&self, hidden: &Tensor, heads: i64, context: &Context, dropout: Option<Key>) -> Tensor {
        let (batch, seq, width) = hidden.size3().expect("a hidden state is [batch, seq, hidden]");
        let split =
            |linear: &Linear| linear.forward(hidden, dropout).view([batch, seq, heads, width / heads]).transpose(1, 2); // [batch, heads, seq, head_dim]
        let attended = attend(&split(&self.query), &split(&self.key), &split(&self.value), context);
        self.attention_norm.forward(&(self.attention_output.forward(&attended, dropout) + hidden))
    }

    fn feed_forward(&self, hidden: &Tensor, dropout: Option<Key>) -> Tensor {
        let inner = self.intermediate.forward(hidden, dropout).gelu("none"); // [batch, seq, intermediate]
        self.output_norm.forward(&(self.output.forward(&inner, dropout) + hidden))
    }
}
