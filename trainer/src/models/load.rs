//! Reads a model from disk: a Hugging Face folder, or a GGUF file, into frozen base weights.
//! Must not trust a file: every length, offset, type and shape is checked, and what is wrong becomes a sentence.

mod chat;
mod checkpoint;
mod config;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gguf;
mod quantised;
mod safetensors;
mod tokenizer;
mod weights;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use fedtune_crds::hex;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tch::TchError;
use thiserror::Error;

pub(super) use self::checkpoint::Checkpoint;
pub use self::{
    chat::ChatTemplate,
    tokenizer::{LoadedTokenizer, load_tokenizer},
    weights::{StoredTensor, Weights},
};
use super::{
    base::{Base, Body, LoadOptions},
    shape::ModelShape,
};
use crate::caught::first_line;
use config::{Config, Header};
use files::ModelFiles;

/// Why a model or its tokenizer cannot be loaded.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum LoadError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} holds no model; expected config.json with model.safetensors (or model.safetensors.index.json), or one .gguf file",
        path.display()
    )]
    NoModel { path: PathBuf },
    #[error("{} holds {count} .gguf files; name the one that is meant", path.display())]
    ManyGguf { path: PathBuf, count: usize },
    #[error("{} is not what it should be: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{} describes a model of architecture {found}; supported are BERT, GPT-2, Llama (also SmolLM2 and TinyLlama), Mistral and Qwen2", path.display())]
    Architecture { path: PathBuf, found: String },
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("{} is truncated or corrupt: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{} holds no tensor {name}, which its configuration asks for", path.display())]
    Missing { path: PathBuf, name: String },
    #[error("tensor {name} in {} has shape {found:?}; the configuration asks for {wanted:?}", path.display())]
    Shape { path: PathBuf, name: String, found: Vec<usize>, wanted: Vec<usize> },
    #[error("tensor {name} in {} has elements of type {found}; supported are {supported}", path.display())]
    Encoding { path: PathBuf, name: String, found: String, supported: &'static str },
    #[error("tensor {name} in {} cannot be placed: {}", path.display(), first_line(source))]
    Tensor { path: PathBuf, name: String, source: TchError },
    #[error("{} is no tokenizer: {reason}", path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error(
        "tokenizer and model disagree: the tokenizer's largest token id is {largest_id}, the model's embedding has {vocab} rows"
    )]
    TokenizerMismatch { largest_id: u32, vocab: usize },
}

impl Base {
    /// Loads frozen weights from a Hugging Face folder, a GGUF file, or a folder that holds exactly one GGUF file.
    ///
    /// Where the file's element type is the wanted one and the device is the CPU, weights are memory-mapped: nothing
    /// is copied, and the file must stay as it is while the model is used.
    ///
    /// # Errors
    /// A sentence naming the file, and the tensor where there is one.
    pub fn load(path: &Path, options: LoadOptions) -> Result<Self, LoadError> {
        match ModelFiles::find(path)? {
            ModelFiles::HuggingFace { config, weights } => load_folder(path, &config, &weights, options),
            ModelFiles::Gguf(file) => load_gguf(&file, options),
        }
    }
}

fn load_folder(
    folder: &Path,
    config_file: &Path,
    weights: &[PathBuf],
    options: LoadOptions,
) -> Result<Base, LoadError> {
    let json = read(config_file)?;
    let header: Header = parse(config_file, &json)?;
    let unsupported = |found| LoadError::Architecture { path: config_file.into(), found };
    let unusable = |reason| LoadError::Unusable { path: config_file.into(), reason };
    let config = Config::parse(config_file, &json, header.architecture().map_err(unsupported)?)?;
    let shape = config.shape().map_err(unusable)?;
    let checkpoint = safetensors::open(folder, weights, options)?;
    let body = config.body(&checkpoint, &shape, options)?;
    let files: Vec<&Path> = [config_file].into_iter().chain(weights.iter().map(PathBuf::as_path)).collect();
    build(config_file, shape, body, options, header.pad_token_id(), &files)
}

fn load_gguf(file: &Path, options: LoadOptions) -> Result<Base, LoadError> {
    let gguf = gguf::open(file, options)?;
    let body = gguf.config.body(&gguf.checkpoint, &gguf.shape, options)?;
    build(file, gguf.shape, body, options, gguf.pad_token_id, &[file])
}

fn build(
    config_file: &Path,
    shape: ModelShape,
    body: Box<dyn Body>,
    options: LoadOptions,
    pad_token_id: u32,
    files: &[&Path],
) -> Result<Base, LoadError> {
    if pad_token_id as usize >= shape.vocab {
        let reason = format!("its padding token {pad_token_id} has no row in the embedding of {}", shape.vocab);
        return Err(LoadError::Unusable { path: config_file.into(), reason });
    }
    let hash = hash_files(files)?.into();
    Ok(Base { body, shape: Arc::new(shape), options, pad_token_id, hash })
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    fs::read(path).map_err(|source| LoadError::Read { path: path.into(), source })
}

fn parse<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(json).map_err(|source| LoadError::Json { path: path.into(), source })
}

/// SHA-256 over the length and the bytes of each file, in hexadecimal.
fn hash_files(paths: &[&Path]) -> Result<String, LoadError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        let failed = |source| LoadError::Read { path: path.to_path_buf(), source };
        let mut file = fs::File::open(path).map_err(failed)?;
        hash.update(file.metadata().map_err(failed)?.len().to_le_bytes());
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests;
