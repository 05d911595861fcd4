//! GGUF files of the Llama family: metadata to a configuration, tensors under their Hugging Face names.
//! Must not guess: a tensor or a setting that the architecture does not have is refused by name.

mod header;
mod tokenizer;

use std::{collections::HashMap, fs::File, io::BufReader, path::Path, sync::Arc};

use tch::{Kind, Tensor};

use self::header::{Header, TensorInfo, Value, read_header};
pub(super) use self::tokenizer::load_tokenizer;
use super::{
    super::{base::LoadOptions, llama, rope::RopeParameters},
    LoadError,
    checkpoint::{Checkpoint, Encoding, Stored, map},
};

const SUPPORTED: &str = "F32, F16, BF16, Q8_0 and Q4_1";

/// What a GGUF file says of its model.
pub(super) struct Gguf {
    pub(super) config: llama::Config,
    pub(super) checkpoint: Checkpoint,
    pub(super) pad_token_id: u32,
    /// Tokens that a text begins and ends with, where the file says them.
    bos_token_id: Option<i64>,
    eos_token_id: Option<i64>,
}

impl Gguf {
    /// What `config.json` would say.
    pub(super) fn hugging_face_config(&self) -> serde_json::Value {
        let mut config = serde_json::to_value(&self.config).expect("a configuration is numbers and texts");
        config["model_type"] = serde_json::json!("llama");
        for (name, token) in [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", Some(self.pad_token_id.into())),
        ] {
            config[name] = serde_json::json!(token);
        }
        config
    }
}

/// Reads the header and maps the tensors.
pub(super) fn open(path: &Path, options: LoadOptions) -> Result<Gguf, LoadError> {
    let header = open_header(path)?;
    let metadata = Metadata { path, header: &header };
    let config = metadata.config()?;
    let tensors = list_tensors(path, &header, &config)?;
    Ok(Gguf {
        config,
        checkpoint: Checkpoint::new(path, tensors, options),
        pad_token_id: metadata.pad_token_id(),
        bos_token_id: metadata.integer("tokenizer.ggml.bos_token_id"),
        eos_token_id: metadata.integer("tokenizer.ggml.eos_token_id"),
    })
}

fn open_header(path: &Path) -> Result<Header, LoadError> {
    let failed = |source| LoadError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    read_header(BufReader::new(file), length).map_err(|reason| LoadError::Corrupt { path: path.into(), reason })
}

/// The header's metadata, asked for by key.
struct Metadata<'a> {
    path: &'a Path,
    header: &'a Header,
}

impl Metadata<'_> {
    fn config(&self) -> Result<llama::Config, LoadError> {
        let architecture = self.text("general.architecture").unwrap_or("(none)");
        if architecture != "llama" {
            return Err(LoadError::Architecture { path: self.path.into(), found: architecture.to_owned() });
        }
        let embedding = self.header.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        let config = llama::Config {
            vocab_size: embedding.and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0),
            hidden_size: self.count("llama.embedding_length")?,
            intermediate_size: self.count("llama.feed_forward_length")?,
            num_hidden_layers: self.count("llama.block_count")?,
            num_attention_heads: self.count("llama.attention.head_count")?,
            num_key_value_heads: self.count("llama.attention.head_count_kv").ok(),
            head_dim: self.count("llama.attention.key_length").ok(),
            max_position_embeddings: self.count("llama.context_length")?,
            rms_norm_eps: self.float("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            rope_theta: self.float("llama.rope.freq_base"),
            rope_parameters: self.rope_scaling(),
            rope_scaling: None,
            hidden_act: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: !self.header.tensors.iter().any(|tensor| tensor.name == "output.weight"),
        };
        self.check_rotary_width(&config)?;
        Ok(config)
    }

    fn rope_scaling(&self) -> Option<RopeParameters> {
        let kind = self.text("llama.rope.scaling.type").filter(|kind| *kind != "none")?;
        let factor = self.float("llama.rope.scaling.factor");
        Some(RopeParameters { rope_type: Some(kind.to_owned()), factor, ..RopeParameters::default() })
    }

    /// Whole heads are rotated; a file that rotates less of them is another model.
    fn check_rotary_width(&self, config: &llama::Config) -> Result<(), LoadError> {
        let Ok(rotated) = self.count("llama.rope.dimension_count") else { return Ok(()) };
        let head_dim = config.head_dim.or_else(|| config.hidden_size.checked_div(config.num_attention_heads));
        if head_dim.is_none_or(|head_dim| head_dim == rotated) {
            return Ok(());
        }
        Err(self.unusable(format!("it rotates {rotated} dimensions of heads that are {head_dim:?} wide")))
    }

    fn pad_token_id(&self) -> u32 {
        ["tokenizer.ggml.padding_token_id", "tokenizer.ggml.eos_token_id"]
            .into_iter()
            .find_map(|key| self.token_id(key))
            .unwrap_or(0)
    }

    fn token_id(&self, key: &str) -> Option<u32> {
        u32::try_from(self.integer(key)?).ok()
    }

    fn integer(&self, key: &str) -> Option<i64> {
        if let Some(Value::Integer(value)) = self.header.metadata.get(key) { Some(*value) } else { None }
    }

    fn float(&self, key: &str) -> Option<f64> {
        if let Some(Value::Float(value)) = self.header.metadata.get(key) { Some(*value) } else { None }
    }

    fn text(&self, key: &str) -> Option<&str> {
        if let Some(Value::Text(value)) = self.header.metadata.get(key) { Some(value) } else { None }
    }

    fn bool(&self, key: &str) -> Option<bool> {
        if let Some(Value::Bool(value)) = self.header.metadata.get(key) { Some(*value) } else { None }
    }

    fn texts(&self, key: &str) -> Result<&[String], LoadError> {
        let Some(Value::Texts(values)) = self.header.metadata.get(key) else {
            return Err(self.unusable(format!("it lacks the list of texts {key}")));
        };
        Ok(values)
    }

    fn integers(&self, key: &str) -> Result<&[i64], LoadError> {
        let Some(Value::Integers(values)) = self.header.metadata.get(key) else {
            return Err(self.unusable(format!("it lacks the list of numbers {key}")));
        };
        Ok(values)
    }

    fn count(&self, key: &str) -> Result<usize, LoadError> {
        let value = self.integer(key).and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0);
        value.ok_or_else(|| self.unusable(format!("it lacks a positive number {key}")))
    }

    fn unusable(&self, reason: String) -> LoadError {
        LoadError::Unusable { path: self.path.into(), reason }
    }
}

fn list_tensors(path: &Path, header: &Header, config: &llama::Config) -> Result<HashMap<String, Stored>, LoadError> {
    let file = map(path)?;
    let shared: Arc<Path> = path.into();
    let mut tensors = HashMap::new();
    let mut left = file.numel() as u64;
    for info in &header.tensors {
        let name = hugging_face_name(&info.name).ok_or_else(|| LoadError::Unusable {
            path: path.into(),
            reason: format!("its tensor {} is not part of a Llama model as it is supported here", info.name),
        })?;
        let stored = locate(&shared, &file, header.data_start, info, interleaved_heads(&name, config))?;
        // A small file whose tensors all name the same bytes would make a large model.
        left = left.checked_sub(stored.bytes.numel() as u64).ok_or_else(|| LoadError::Corrupt {
            path: path.into(),
            reason: format!("its tensors overlap: up to {} they are longer than the file", info.name),
        })?;
        tensors.insert(name, stored);
    }
    Ok(tensors)
}

/// `blk.0.attn_q.weight` to `model.layers.0.self_attn.q_proj.weight`.
fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (block, module) = name.strip_prefix("blk.")?.split_once('.')?;
    let block: usize = block.parse().ok()?;
    let module = match module.strip_suffix(".weight")? {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{block}.{module}.weight"))
}

/// GGUF keeps the two halves of each query and key head interleaved, for another way to rotate them.
fn interleaved_heads(name: &str, config: &llama::Config) -> Option<usize> {
    let heads = config.num_attention_heads;
    if name.ends_with("q_proj.weight") {
        Some(heads)
    } else if name.ends_with("k_proj.weight") {
        Some(config.num_key_value_heads.unwrap_or(heads))
    } else {
        None
    }
}

fn locate(
    path: &Arc<Path>,
    file: &Tensor,
    data_start: u64,
    info: &TensorInfo,
    interleaved_heads: Option<usize>,
) -> Result<Stored, LoadError> {
    let corrupt = |reason| LoadError::Corrupt { path: path.to_path_buf(), reason };
    let encoding = encoding(info.type_id).ok_or_else(|| LoadError::Encoding {
        path: path.to_path_buf(),
        name: info.name.clone(),
        found: type_name(info.type_id),
        supported: SUPPORTED,
    })?;
    let length = encoding.bytes(&info.shape).ok_or_else(|| {
        corrupt(format!("tensor {} of shape {:?} is no whole number of blocks", info.name, info.shape))
    })?;
    let start = data_start.checked_add(info.offset).and_then(|start| i64::try_from(start).ok());
    let end = start.and_then(|start| start.checked_add(i64::try_from(length).ok()?));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(corrupt(format!("tensor {} lies beyond any file", info.name)));
    };
    let file_length = file.numel() as i64;
    if end > file_length {
        return Err(corrupt(format!("tensor {} ends at byte {end}, the file has {file_length}", info.name)));
    }
    let bytes = file.f_narrow(0, start, end - start).map_err(|source| LoadError::Tensor {
        path: path.to_path_buf(),
        name: info.name.clone(),
        source,
    })?;
    Ok(Stored { path: Arc::clone(path), bytes, encoding: Ok(encoding), shape: info.shape.clone(), interleaved_heads })
}

fn encoding(type_id: u32) -> Option<Encoding> {
    match type_id {
        0 => Some(Encoding::Plain(Kind::Float)),
        1 => Some(Encoding::Plain(Kind::Half)),
        3 => Some(Encoding::Q4_1),
        8 => Some(Encoding::Q8_0),
        30 => Some(Encoding::Plain(Kind::BFloat16)),
        _ => None,
    }
}

/// ggml's names of the element types that files are made of.
fn type_name(type_id: u32) -> String {
    const NAMES: [&str; 40] = [
        "F32",
        "F16",
        "Q4_0",
        "Q4_1",
        "Q4_2",
        "Q4_3",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q8_1",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "Q8_K",
        "IQ2_XXS",
        "IQ2_XS",
        "IQ3_XXS",
        "IQ1_S",
        "IQ4_NL",
        "IQ3_S",
        "IQ2_S",
        "IQ4_XS",
        "I8",
        "I16",
        "I32",
        "I64",
        "F64",
        "IQ1_M",
        "BF16",
        "Q4_0_4_4",
        "Q4_0_4_8",
        "Q4_0_8_8",
        "TQ1_0",
        "TQ2_0",
        "IQ4_NL_4_4",
        "IQ4_NL_4_8",
        "IQ4_NL_8_8",
        "MXFP4",
    ];
    NAMES.get(type_id as usize).map_or_else(|| format!("number {type_id}"), |name| (*name).to_owned())
}

#[cfg(test)]
pub(super) mod tests;
