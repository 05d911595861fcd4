//! A model's files tensor by tensor, under the names that transformers gives them, for whoever writes the model anew.
//! Must not build a model: nothing is in memory but the tensor that is asked for.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{
    super::{
        base::{LoadOptions, Precision},
        shape::ModelShape,
    },
    Checkpoint, LoadError,
    config::{Config, Header},
    files::ModelFiles,
    gguf, parse, read, safetensors,
};

/// F32 holds what any stored element says, exactly.
const EXACT: LoadOptions = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: true };

/// The files of one model.
pub struct Weights {
    checkpoint: Checkpoint,
    shape: ModelShape,
    config: Value,
    folder: Option<PathBuf>,
}

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// As transformers calls it in a model with a head, `bert.embeddings.word_embeddings.weight`.
    pub name: String,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Type of its elements; none where they are quantised.
    pub kind: Option<Kind>,
    /// Bytes in the file.
    pub bytes: u64,
}

impl Weights {
    /// Opens the model at `path`, as [`super::super::Base::load`] would.
    ///
    /// # Errors
    /// A sentence naming the file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        match ModelFiles::find(path)? {
            ModelFiles::HuggingFace { config, weights } => {
                let checkpoint = safetensors::open(path, &weights, EXACT)?;
                let json = read(&config)?;
                let shape = shape_of(&config, &json)?;
                Ok(Self { checkpoint, shape, config: parse(&config, &json)?, folder: Some(path.to_owned()) })
            }
            ModelFiles::Gguf(file) => {
                let gguf = gguf::open(&file, EXACT)?;
                let config = gguf.hugging_face_config();
                Ok(Self { checkpoint: gguf.checkpoint, shape: gguf.shape, config, folder: None })
            }
        }
    }

    /// How large the model is.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// Its `config.json`, or what would be one for a GGUF file.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The folder that holds the files of its tokenizer too; none of a GGUF file.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Its tensors of numbers, by name; heads that it was trained with before among them.
    pub fn tensors(&self) -> Vec<StoredTensor> {
        let prefix = self.prefix();
        let whole = self.checkpoint.list().any(|(name, ..)| name.starts_with(&prefix));
        let full = |name: &str| {
            let is_head = HEADS.iter().any(|head| name.starts_with(head));
            if whole || is_head { name.to_owned() } else { format!("{prefix}{name}") }
        };
        let stored = self.checkpoint.list();
        let mut tensors: Vec<StoredTensor> = stored
            .map(|(name, shape, kind, bytes)| StoredTensor { name: full(name), shape: shape.to_vec(), kind, bytes })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }

    /// What the names of all but the heads begin with: `bert.`, `model.`
    pub fn prefix(&self) -> String {
        let first = self.shape.linears().swap_remove(0).name;
        first.split_once('.').map_or(String::new(), |(prefix, _)| format!("{prefix}."))
    }

    /// One of [`Weights::tensors`], F32.
    ///
    /// # Errors
    /// Where its bytes cannot be read.
    pub fn read(&self, tensor: &StoredTensor) -> Result<Tensor, LoadError> {
        self.checkpoint.tensor(&tensor.name, &tensor.shape)
    }
}

/// What the names of heads begin with.
const HEADS: [&str; 4] = ["lm_head.", "cls.", "classifier.", "score."];

fn shape_of(config: &Path, json: &[u8]) -> Result<ModelShape, LoadError> {
    let header: Header = parse(config, json)?;
    let unusable = |reason| LoadError::Unusable { path: config.into(), reason };
    let architecture = header.architecture().map_err(|found| LoadError::Architecture { path: config.into(), found })?;
    Config::parse(config, json, architecture)?.shape().map_err(unusable)
}
