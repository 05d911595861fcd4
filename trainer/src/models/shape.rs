//! How large a model is, and what its linear layers are called: enough to count parameters, bytes and FLOPs.
//! Must not hold a tensor: a shape exists without weights.

use std::fmt;

use super::{bert, gpt2, llama};

/// The families of models that are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// An encoder, normed after each sub-layer.
    Bert,
    /// A decoder with learned positions, normed before each sub-layer.
    Gpt2,
    /// A decoder with rotary positions, normed before each sub-layer.
    Llama,
    /// Llama with a window on attention.
    Mistral,
    /// Llama with biases of queries, keys and values.
    Qwen2,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bert => "BERT",
            Self::Gpt2 => "GPT-2",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
        })
    }
}

/// The numbers that say how large a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// Its family.
    pub architecture: Architecture,
    /// Transformer blocks; a model can be cut after any of them.
    pub blocks: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Attention heads of the queries.
    pub heads: usize,
    /// Attention heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width inside the feed-forward layers.
    pub intermediate: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Longest row that the model can take, in tokens.
    pub max_positions: usize,
}

/// One linear layer, `[outputs, inputs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearShape {
    /// Its Hugging Face module name, `bert.encoder.layer.0.attention.self.query`.
    pub name: String,
    /// The block it is in; none for what follows the last block.
    pub block: Option<usize>,
    /// Columns of its weight.
    pub inputs: usize,
    /// Rows of its weight.
    pub outputs: usize,
}

/// Larger than any model, and small enough that no product of two sizes overflows.
const LARGEST_SIZE: usize = 1 << 31;

impl ModelShape {
    /// Refuses sizes that no model has, so that counts of bytes and FLOPs cannot overflow.
    pub(super) fn checked(self) -> Result<Self, String> {
        let Self { architecture: _, blocks, hidden, heads, kv_heads, head_dim, intermediate, vocab, max_positions } =
            self;
        for (name, size) in [
            ("number of blocks", blocks),
            ("hidden width", hidden),
            ("number of heads", heads),
            ("number of key and value heads", kv_heads),
            ("width of a head", head_dim),
            ("intermediate width", intermediate),
            ("vocabulary", vocab),
            ("number of positions", max_positions),
        ] {
            if size == 0 || size > LARGEST_SIZE {
                return Err(format!("its {name} is {size}; it must lie between 1 and {LARGEST_SIZE}"));
            }
        }
        Ok(self)
    }

    /// The linear layers of one block, in the order in which transformers declares them.
    pub fn block_linears(&self, block: usize) -> Vec<LinearShape> {
        match self.architecture {
            Architecture::Bert => bert::block_linears(self, block),
            Architecture::Gpt2 => gpt2::block_linears(self, block),
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => llama::block_linears(self, block),
        }
    }

    /// How many of a block's first linear layers make queries, keys and values: one for each, or one for all. Next
    /// comes the attention's output, then the layers into the feed-forward width, then the one out of it.
    pub fn attention_inputs(&self) -> usize {
        match self.architecture {
            Architecture::Gpt2 => 1,
            Architecture::Bert | Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => 3,
        }
    }

    /// The linear layers between the last block and the head.
    pub fn tail_linears(&self) -> Vec<LinearShape> {
        match self.architecture {
            Architecture::Bert => vec![bert::pooler_linear(self)],
            Architecture::Gpt2 | Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => Vec::new(),
        }
    }

    /// Every linear layer that LoRA may adapt, in canonical order: blocks ascending, then what follows them.
    pub fn linears(&self) -> Vec<LinearShape> {
        (0..self.blocks).flat_map(|block| self.block_linears(block)).chain(self.tail_linears()).collect()
    }

    /// Module name of the classification head.
    pub fn head_name(&self) -> &'static str {
        match self.architecture {
            Architecture::Bert => "classifier",
            Architecture::Gpt2 | Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => "score",
        }
    }

    /// Whether the classification head has a bias.
    pub fn head_has_bias(&self) -> bool {
        match self.architecture {
            Architecture::Bert => true,
            Architecture::Gpt2 | Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => false,
        }
    }
}
