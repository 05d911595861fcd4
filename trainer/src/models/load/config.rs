//! What a file says a model is: one of the configurations that are supported.
//! Must not read weights; it says which of them a body is made of.

use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

use super::{
    super::{
        base::{Body, LoadOptions},
        bert::{self, Bert},
        gpt2::{self, Gpt2},
        llama::{self, Llama},
        shape::{Architecture, ModelShape},
    },
    LoadError,
    checkpoint::Checkpoint,
    parse,
};

/// A configuration of one family.
#[derive(Debug)]
pub(super) enum Config {
    Bert(bert::Config),
    Gpt2(gpt2::Config),
    /// Also its near relatives; the second says which.
    Llama(llama::Config, Architecture),
}

/// As it is read.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bert(config) => config.serialize(serializer),
            Self::Gpt2(config) => config.serialize(serializer),
            Self::Llama(config, _) => config.serialize(serializer),
        }
    }
}

impl Config {
    /// Reads a `config.json`.
    pub(super) fn parse(path: &Path, json: &[u8], architecture: Architecture) -> Result<Self, LoadError> {
        Ok(match architecture {
            Architecture::Bert => Self::Bert(parse(path, json)?),
            Architecture::Gpt2 => Self::Gpt2(parse(path, json)?),
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => {
                Self::Llama(parse(path, json)?, architecture)
            }
        })
    }

    /// The model's shape, or what in the configuration is not supported.
    pub(super) fn shape(&self) -> Result<ModelShape, String> {
        match self {
            Self::Bert(config) => config.shape(),
            Self::Gpt2(config) => config.shape(),
            Self::Llama(config, architecture) => config.shape(*architecture),
        }
    }

    /// The frozen weights.
    pub(super) fn body(
        &self,
        checkpoint: &Checkpoint,
        shape: &ModelShape,
        options: LoadOptions,
    ) -> Result<Box<dyn Body>, LoadError> {
        Ok(match self {
            Self::Bert(config) => Box::new(Bert::load(checkpoint, config, shape)?),
            Self::Gpt2(config) => Box::new(Gpt2::load(checkpoint, config, shape, options)?),
            Self::Llama(config, _) => Box::new(Llama::load(checkpoint, config, shape, options)?),
        })
    }
}

/// The part of every `config.json` that says what it is a configuration of.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    pad_token_id: Option<i64>,
    #[serde(default)]
    eos_token_id: Option<serde_json::Value>,
}

impl Header {
    /// `pad_token_id`, else the first `eos_token_id`, else 0.
    pub(super) fn pad_token_id(&self) -> u32 {
        let end = self.eos_token_id.as_ref().and_then(|id| id.as_i64().or_else(|| id.get(0)?.as_i64()));
        self.pad_token_id.or(end).and_then(|id| u32::try_from(id).ok()).unwrap_or(0)
    }

    /// The family that is asked for, or what the file calls it where it is not supported.
    pub(super) fn architecture(&self) -> Result<Architecture, String> {
        let class = self.architectures.first().map_or("(none)", String::as_str);
        let Some(model_type) = self.model_type.as_deref() else {
            return of_class(class).ok_or_else(|| class.to_owned());
        };
        match model_type {
            "bert" => Ok(Architecture::Bert),
            "gpt2" => Ok(Architecture::Gpt2),
            "llama" => Ok(Architecture::Llama),
            "mistral" => Ok(Architecture::Mistral),
            "qwen2" => Ok(Architecture::Qwen2),
            other => Err(other.to_owned()),
        }
    }
}

/// `GPT2LMHeadModel` and the like to the family.
fn of_class(class: &str) -> Option<Architecture> {
    let families = [
        ("Bert", Architecture::Bert),
        ("GPT2", Architecture::Gpt2),
        ("Llama", Architecture::Llama),
        ("Mistral", Architecture::Mistral),
        ("Qwen2", Architecture::Qwen2),
    ];
    let is_head = |rest: &str| ["Model", "For", "LMHead"].iter().any(|head| rest.starts_with(head));
    families.into_iter().find(|(name, _)| class.strip_prefix(name).is_some_and(is_head)).map(|(_, family)| family)
}
