//! GGUF files of Llama, Qwen2 and GPT-2: metadata to a configuration, tensors under their Hugging Face names.
//! Must not guess: a tensor or a setting that the architecture does not have is refused by name.

mod header;
mod metadata;
mod names;
mod tokenizer;

use std::{collections::HashMap, fs::File, io::BufReader, path::Path, sync::Arc};

use tch::Tensor;

pub(super) use self::tokenizer::load_tokenizer;
use self::{
    header::{Header, TensorInfo, read_header},
    metadata::Metadata,
    names::{hugging_face_name, layout},
};
use super::{
    super::{base::LoadOptions, shape::ModelShape},
    LoadError,
    checkpoint::{Checkpoint, Layout, Stored, map},
    config::Config,
    quantised::Encoding,
};

const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K";

/// What a GGUF file says of its model.
pub(super) struct Gguf {
    pub(super) config: Config,
    pub(super) shape: ModelShape,
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
        config["model_type"] = serde_json::json!(self.shape.architecture.model_type());
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
    let config = metadata.config(metadata.architecture()?)?;
    let shape = config.shape().map_err(|reason| metadata.unusable(reason))?;
    Ok(Gguf {
        checkpoint: Checkpoint::new(path, list_tensors(path, &header, &shape)?, options),
        pad_token_id: metadata.pad_token_id(),
        bos_token_id: metadata.integer("tokenizer.ggml.bos_token_id"),
        eos_token_id: metadata.integer("tokenizer.ggml.eos_token_id"),
        config,
        shape,
    })
}

fn open_header(path: &Path) -> Result<Header, LoadError> {
    let failed = |source| LoadError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    read_header(BufReader::new(file), length).map_err(|reason| LoadError::Corrupt { path: path.into(), reason })
}

fn list_tensors(path: &Path, header: &Header, shape: &ModelShape) -> Result<HashMap<String, Stored>, LoadError> {
    let file = map(path)?;
    let shared: Arc<Path> = path.into();
    let mut tensors = HashMap::new();
    let mut left = file.numel() as u64;
    for info in &header.tensors {
        let architecture = shape.architecture;
        let name = hugging_face_name(&info.name, architecture).ok_or_else(|| LoadError::Unusable {
            path: path.into(),
            reason: format!("its tensor {} is not part of a {architecture} model as it is supported here", info.name),
        })?;
        let stored = locate(&shared, &file, header.data_start, info, layout(&name, shape))?;
        // A small file whose tensors all name the same bytes would make a large model.
        left = left.checked_sub(stored.bytes.numel() as u64).ok_or_else(|| LoadError::Corrupt {
            path: path.into(),
            reason: format!("its tensors overlap: up to {} they are longer than the file", info.name),
        })?;
        tensors.insert(name, stored);
    }
    Ok(tensors)
}

fn locate(
    path: &Arc<Path>,
    file: &Tensor,
    data_start: u64,
    info: &TensorInfo,
    layout: Layout,
) -> Result<Stored, LoadError> {
    let corrupt = |reason| LoadError::Corrupt { path: path.to_path_buf(), reason };
    let encoding = Encoding::of_ggml(info.type_id).ok_or_else(|| LoadError::Encoding {
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
    let shape = layout.hugging_face_shape(&info.shape);
    Ok(Stored { path: Arc::clone(path), bytes, encoding: Ok(encoding), shape, layout })
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
