//! Llama: a decoder with rotary positions, grouped-query attention and gated feed-forward layers (arXiv 2307.09288),
//! as transformers has it; also SmolLM2 and TinyLlama, and its near relatives Mistral (arXiv 2310.06825: a window on
//! attention) and Qwen2 (arXiv 2407.10671: biases of queries, keys and values).
//! Must not train the layer over the vocabulary: it stays frozen.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{
    attention::{attend, causal_bias, positions, take_rightmost},
    base::{Body, Context, LoadOptions, Purpose},
    cache::KeyValues,
    linear::Linear,
    load::{Checkpoint, LoadError},
    norm::RmsNorm,
    rope::{RopeParameters, RopeScaling},
    shape::{Architecture, LinearShape, ModelShape},
};
use crate::random::Key;

/// What `config.json` says, or the metadata of a GGUF file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a configuration that others define")]
pub(super) struct Config {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    /// Absent where keys have as many heads as queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) num_key_value_heads: Option<usize>,
    /// Absent where heads share the hidden width evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head_dim: Option<usize>,
    #[serde(default = "default_positions")]
    pub(super) max_position_embeddings: usize,
    #[serde(default = "default_epsilon")]
    pub(super) rms_norm_eps: f64,
    /// Base of the rotary frequencies where `rope_parameters` does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rope_theta: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rope_parameters: Option<RopeParameters>,
    /// The older name of `rope_parameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rope_scaling: Option<RopeParameters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hidden_act: Option<String>,
    #[serde(default)]
    pub(super) attention_bias: bool,
    #[serde(default)]
    pub(super) mlp_bias: bool,
    /// Whether the layer over the vocabulary is the embedding table.
    #[serde(default)]
    pub(super) tie_word_embeddings: bool,
    /// Mistral: how far back a token sees, itself included; absent where it sees everything.
    #[serde(default)]
    pub(super) sliding_window: Option<usize>,
    /// Qwen2: whether `sliding_window` holds, for some of the blocks.
    #[serde(default)]
    pub(super) use_sliding_window: bool,
}

fn default_positions() -> usize {
    2048
}

fn default_epsilon() -> f64 {
    1e-6
}

impl Config {
    /// The model's shape, or what in the configuration is not supported.
    pub(super) fn shape(&self, architecture: Architecture) -> Result<ModelShape, String> {
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"));
        }
        if self.head_dim.is_none() && !hidden.is_multiple_of(heads) {
            return Err(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}"));
        }
        let head_dim = self.head_dim.unwrap_or(hidden / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!("a head is {head_dim} wide; rotary positions need an even width"));
        }
        if let Some(found) = self.hidden_act.as_ref().filter(|name| *name != "silu") {
            return Err(format!("hidden_act is {found:?}; for {architecture} only \"silu\" is supported"));
        }
        if self.use_sliding_window {
            return Err("use_sliding_window is true; only false is supported".to_owned());
        }
        if self.sliding_window == Some(0) {
            return Err("sliding_window is 0; a token sees itself at least".to_owned());
        }
        self.rope()?;
        ModelShape {
            architecture,
            blocks: self.num_hidden_layers,
            hidden,
            heads,
            kv_heads,
            head_dim,
            intermediate: self.intermediate_size,
            vocab: self.vocab_size,
            max_positions: self.max_position_embeddings,
        }
        .checked()
    }

    /// Whether queries, keys and values have biases, and whether the attention's output has one.
    fn attention_biases(&self, architecture: Architecture) -> [bool; 2] {
        match architecture {
            Architecture::Qwen2 => [true, false],
            Architecture::Mistral => [false, false],
            Architecture::Llama | Architecture::Bert | Architecture::Gpt2 => [self.attention_bias; 2],
        }
    }

    /// How far back a token sees. Qwen2 writes down a window that it does not use.
    fn window(&self, architecture: Architecture) -> Option<i64> {
        let window = self.sliding_window.filter(|_| architecture == Architecture::Mistral)?;
        Some(i64::try_from(window).unwrap_or(i64::MAX))
    }

    /// Base and scaling of the rotary frequencies.
    fn rope(&self) -> Result<(f64, RopeScaling), String> {
        let parameters = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = parameters.and_then(|rope| rope.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let scaling = parameters.map_or(Ok(RopeScaling::None), |rope| rope.scaling(self.max_position_embeddings))?;
        Ok((theta, scaling))
    }
}

/// The linear layers of one block, in the order in which transformers declares them.
pub(super) fn block_linears(shape: &ModelShape, block: usize) -> Vec<LinearShape> {
    let (hidden, intermediate) = (shape.hidden, shape.intermediate);
    let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    [
        ("self_attn.q_proj", hidden, queries),
        ("self_attn.k_proj", hidden, keys),
        ("self_attn.v_proj", hidden, keys),
        ("self_attn.o_proj", queries, hidden),
        ("mlp.gate_proj", hidden, intermediate),
        ("mlp.up_proj", hidden, intermediate),
        ("mlp.down_proj", intermediate, hidden),
    ]
    .map(|(module, inputs, outputs)| LinearShape {
        name: format!("model.layers.{block}.{module}"),
        block: Some(block),
        inputs,
        outputs,
    })
    .into()
}

/// The frozen weights.
pub(super) struct Llama {
    words: Tensor,       // [vocab, hidden]
    frequencies: Tensor, // [head_dim / 2], F32
    blocks: Vec<Block>,
    norm: RmsNorm,
    vocabulary: Option<Tensor>, // [vocab, hidden]
    head_dim: i64,
    window: Option<i64>,
}

struct Block {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    pub(super) fn load(
        checkpoint: &Checkpoint,
        config: &Config,
        shape: &ModelShape,
        options: LoadOptions,
    ) -> Result<Self, LoadError> {
        let (theta, scaling) = config.rope().map_err(|reason| checkpoint.unusable(&reason))?;
        let words = checkpoint.tensor("model.embed_tokens.weight", &[shape.vocab, shape.hidden])?;
        let blocks =
            (0..shape.blocks).map(|block| Block::load(checkpoint, config, shape, block)).collect::<Result<_, _>>()?;
        let norm = RmsNorm::load(checkpoint, "model.norm", shape.hidden, config.rms_norm_eps)?;
        // After the weights, which a head that claims to be too wide does not match: it decides how much this takes.
        let frequencies = Tensor::from_slice(&scaling.frequencies(theta, shape.head_dim)).to_device(options.device);
        let vocabulary = checkpoint.vocabulary(&words, config.tie_word_embeddings, options)?;
        let (head_dim, window) = (shape.head_dim as i64, config.window(shape.architecture));
        Ok(Self { words, frequencies, blocks, norm, vocabulary, head_dim, window })
    }
}

impl Body for Llama {
    fn share(&self) -> Box<dyn Body> {
        Box::new(Self {
            words: self.words.shallow_clone(),
            frequencies: self.frequencies.shallow_clone(),
            blocks: self.blocks.iter().map(Block::share).collect(),
            norm: self.norm.share(),
            vocabulary: self.vocabulary.as_ref().map(Tensor::shallow_clone),
            head_dim: self.head_dim,
            window: self.window,
        })
    }

    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.blocks.iter_mut().flat_map(Block::linears_mut).collect()
    }

    fn embed(&self, ids: &Tensor, _mask: &Tensor) -> Tensor {
        Tensor::embedding(&self.words, ids, -1, false, false) // [batch, new, hidden]
    }

    fn context(&self, mask: &Tensor, new: i64, purpose: Purpose) -> Context {
        let kind = self.words.kind();
        let places = positions(mask, new).unsqueeze(-1).to_kind(Kind::Float); // [batch, new, 1]
        let angles = places * &self.frequencies; // [batch, new, head_dim / 2]
        let (cos, sin) = (angles.cos(), angles.sin());
        // Half-split rotation of (x1, x2) is (x1 cos - x2 sin, x2 cos + x1 sin): the swapped halves meet (-sin, sin).
        let cos = Tensor::cat(&[&cos, &cos], -1).unsqueeze(2).to_kind(kind);
        let sin = Tensor::cat(&[&-&sin, &sin], -1).unsqueeze(2).to_kind(kind);
        Context { purpose, bias: causal_bias(mask, new, self.window, kind), rotary: Some((cos, sin)) }
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
        let attended = block.attend(hidden, self.head_dim, context, dropout, past) + hidden;
        block.feed_forward(&attended, dropout) + attended
    }

    /// The norm of the rightmost real token only: it is computed token by token, and the others are not read.
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
    fn load(checkpoint: &Checkpoint, config: &Config, shape: &ModelShape, block: usize) -> Result<Self, LoadError> {
        let mut linears = block_linears(shape, block).into_iter();
        let mut next = |bias| Linear::load(checkpoint, linears.next().expect("a block has seven linear layers"), bias);
        let norm = |module: &str| {
            let name = format!("model.layers.{block}.{module}");
            RmsNorm::load(checkpoint, &name, shape.hidden, config.rms_norm_eps)
        };
        let [inputs, output] = config.attention_biases(shape.architecture);
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            query: next(inputs)?,
            key: next(inputs)?,
            value: next(inputs)?,
            attention_output: next(output)?,
            feed_forward_norm: norm("post_attention_layernorm")?,
            gate: next(config.mlp_bias)?,
            up: next(config.mlp_bias)?,
            down: next(config.mlp_bias)?,
        })
    }

    fn share(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.share(),
            query: self.query.share(),
            key: self.key.share(),
            value: self.value.share(),
            attention_output: self.attention_output.share(),
            feed_forward_norm: self.feed_forward_norm.share(),
            gate: self.gate.share(),
            up: self.up.share(),
            down: self.down.share(),
        }
    }

    /// In the order of [`block_linears`].
    fn linears_mut(&mut self) -> [&mut Linear; 7] {
        let Self { query, key, value, attention_output, gate, up, down, attention_norm: _, feed_forward_norm: _ } =
            self;
        [query, key, value, attention_output, gate, up, down]
    }

    fn attend(
        &self,
        hidden: &Tensor,
        head_dim: i64,
        context: &Context,
        dropout: Option<Key>,
        past: Option<&mut KeyValues>,
    ) -> Tensor {
        let (batch, seq, _) = hidden.size3().expect("a hidden state is [batch, seq, hidden]");
        let (cos, sin) = context.rotary.as_ref().expect("Llama's context has rotary positions");
        let normed = self.attention_norm.forward(hidden);
        let split = |linear: &Linear| linear.forward(&normed, dropout).view([batch, seq, -1, head_dim]);
        let rotate = |x: Tensor| &x * cos + x.roll(head_dim / 2, -1) * sin; // [batch, seq, heads, head_dim]
        let (q, k, v) = (rotate(split(&self.query)), rotate(split(&self.key)), split(&self.value));
        let (q, k, v) = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)); // [batch, heads, seq, head_dim]
        let (k, v) = if let Some(past) = past { past.extend(k, v) } else { (k, v) };
        let attended = attend(&q, &k, &v, context);
        self.attention_output.forward(&attended, dropout)
    }

    fn feed_forward(&self, hidden: &Tensor, dropout: Option<Key>) -> Tensor {
        let normed = self.feed_forward_norm.forward(hidden);
        let gated = self.gate.forward(&normed, dropout).silu() * self.up.forward(&normed, dropout);
        self.down.forward(&gated, dropout) // [batch, seq, hidden]
    }
}
