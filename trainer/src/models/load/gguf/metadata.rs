//! A GGUF header's metadata, asked for by key, and the model's configuration out of it.
//! Must not guess: a setting that the architecture does not have is refused by name.

use std::path::Path;

use super::{
    super::{
        super::{gpt2, llama, rope::RopeParameters, shape::Architecture},
        LoadError,
        config::Config,
    },
    header::{Header, Value},
};

/// The metadata of one file.
pub(super) struct Metadata<'a> {
    pub(super) path: &'a Path,
    pub(super) header: &'a Header,
}

impl Metadata<'_> {
    /// The family that is asked for; Mistral's files call themselves llama.
    pub(super) fn architecture(&self) -> Result<Architecture, LoadError> {
        match self.text("general.architecture").unwrap_or("(none)") {
            "gpt2" => Ok(Architecture::Gpt2),
            "llama" => Ok(Architecture::Llama),
            "qwen2" => Ok(Architecture::Qwen2),
            found => Err(LoadError::Architecture { path: self.path.into(), found: found.to_owned() }),
        }
    }

    pub(super) fn config(&self, architecture: Architecture) -> Result<Config, LoadError> {
        match architecture {
            Architecture::Gpt2 => self.gpt2().map(Config::Gpt2),
            Architecture::Llama | Architecture::Qwen2 | Architecture::Mistral | Architecture::Bert => {
                Ok(Config::Llama(self.llama(architecture.model_type())?, architecture))
            }
        }
    }

    fn gpt2(&self) -> Result<gpt2::Config, LoadError> {
        Ok(gpt2::Config {
            vocab_size: self.vocabulary(),
            n_positions: self.count("gpt2.context_length")?,
            n_embd: self.count("gpt2.embedding_length")?,
            n_layer: self.count("gpt2.block_count")?,
            n_head: self.count("gpt2.attention.head_count")?,
            n_inner: Some(self.count("gpt2.feed_forward_length")?),
            activation_function: gpt2::default_activation(),
            layer_norm_epsilon: self.float("gpt2.attention.layer_norm_epsilon").unwrap_or_else(gpt2::default_epsilon),
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            add_cross_attention: false,
            tie_word_embeddings: self.is_tied(),
        })
    }

    fn llama(&self, prefix: &str) -> Result<llama::Config, LoadError> {
        let count = |key: &str| self.count(&format!("{prefix}.{key}"));
        let float = |key: &str| self.float(&format!("{prefix}.{key}"));
        let config = llama::Config {
            vocab_size: self.vocabulary(),
            hidden_size: count("embedding_length")?,
            intermediate_size: count("feed_forward_length")?,
            num_hidden_layers: count("block_count")?,
            num_attention_heads: count("attention.head_count")?,
            num_key_value_heads: count("attention.head_count_kv").ok(),
            head_dim: count("attention.key_length").ok(),
            max_position_embeddings: count("context_length")?,
            rms_norm_eps: float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            rope_theta: float("rope.freq_base"),
            rope_parameters: self.rope_scaling(prefix),
            rope_scaling: None,
            hidden_act: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: self.is_tied(),
            sliding_window: None,
            use_sliding_window: false,
        };
        self.check_rotary_width(prefix, &config)?;
        Ok(config)
    }

    /// Rows of the embedding table; 0 where there is none.
    fn vocabulary(&self) -> usize {
        let embedding = self.header.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        embedding.and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0)
    }

    fn is_tied(&self) -> bool {
        !self.header.tensors.iter().any(|tensor| tensor.name == "output.weight")
    }

    fn rope_scaling(&self, prefix: &str) -> Option<RopeParameters> {
        let kind = self.text(&format!("{prefix}.rope.scaling.type")).filter(|kind| *kind != "none")?;
        let factor = self.float(&format!("{prefix}.rope.scaling.factor"));
        Some(RopeParameters { rope_type: Some(kind.to_owned()), factor, ..RopeParameters::default() })
    }

    /// Whole heads are rotated; a file that rotates less of them is another model.
    fn check_rotary_width(&self, prefix: &str, config: &llama::Config) -> Result<(), LoadError> {
        let Ok(rotated) = self.count(&format!("{prefix}.rope.dimension_count")) else { return Ok(()) };
        let head_dim = config.head_dim.or_else(|| config.hidden_size.checked_div(config.num_attention_heads));
        if head_dim.is_none_or(|head_dim| head_dim == rotated) {
            return Ok(());
        }
        Err(self.unusable(format!("it rotates {rotated} dimensions of heads that are {head_dim:?} wide")))
    }

    pub(super) fn pad_token_id(&self) -> u32 {
        ["tokenizer.ggml.padding_token_id", "tokenizer.ggml.eos_token_id"]
            .into_iter()
            .find_map(|key| self.token_id(key))
            .unwrap_or(0)
    }

    pub(super) fn token_id(&self, key: &str) -> Option<u32> {
        u32::try_from(self.integer(key)?).ok()
    }

    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        if let Some(Value::Integer(value)) = self.header.metadata.get(key) { Some(*value) } else { None }
    }

    fn float(&self, key: &str) -> Option<f64> {
        if let Some(Value::Float(value)) = self.header.metadata.get(key) { Some(*value) } else { None }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        if let Some(Value::Text(value)) = self.header.metadata.get(key) { Some(value) } else { None }
    }

    pub(super) fn bool(&self, key: &str) -> Option<bool> {
        if let Some(Value::Bool(value)) = self.header.metadata.get(key) { Some(*value) } else { None }
    }

    pub(super) fn texts(&self, key: &str) -> Result<&[String], LoadError> {
        let Some(Value::Texts(values)) = self.header.metadata.get(key) else {
            return Err(self.unusable(format!("it lacks the list of texts {key}")));
        };
        Ok(values)
    }

    pub(super) fn integers(&self, key: &str) -> Result<&[i64], LoadError> {
        let Some(Value::Integers(values)) = self.header.metadata.get(key) else {
            return Err(self.unusable(format!("it lacks the list of numbers {key}")));
        };
        Ok(values)
    }

    fn count(&self, key: &str) -> Result<usize, LoadError> {
        let value = self.integer(key).and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0);
        value.ok_or_else(|| self.unusable(format!("it lacks a positive number {key}")))
    }

    pub(super) fn unusable(&self, reason: String) -> LoadError {
        LoadError::Unusable { path: self.path.into(), reason }
    }
}
