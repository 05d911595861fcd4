//! Reads an adapter in PEFT's format: for whoever merges it, asks it, or starts a run from it.
//! Must not trust a file: settings that are not supported, and tensors that have no place or do not fit, are refused.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use fedtune_crds::{hex, report::PayloadKind};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};
use thiserror::Error;

use crate::{
    models::{Base, Head, LoraSettings, Model, ModelError, ModelShape, resolve_targets},
    wire::{Element, WireError, WireTensor},
};

/// What stands before a parameter's name in PEFT's files.
pub const PREFIX: &str = "base_model.model.";

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const MODEL_CONFIG: &str = "config.json";

/// Why an adapter cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the sentences document the fields")]
pub enum AdapterError {
    #[error("{} cannot be read: {source}; an adapter is a folder with {CONFIG} and {WEIGHTS}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not what it should be: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{} is truncated or corrupt: {source}", path.display())]
    Corrupt { path: PathBuf, source: SafeTensorError },
    #[error("the adapter in {} {what}, which is not supported", folder.display())]
    Unsupported { folder: PathBuf, what: String },
    #[error("the adapter in {} does not fit its base: {what}", folder.display())]
    Base { folder: PathBuf, what: String },
    #[error("the adapter in {} does not fit the spec: {what}", folder.display())]
    Spec { folder: PathBuf, what: String },
    #[error(transparent)]
    Tensor(#[from] WireError),
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// What `adapter_config.json` says, as far as it decides what the adapter computes.
#[derive(Debug, Deserialize)]
struct Config {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(default)]
    revision: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    bias: Option<String>,
    target_modules: Value,
    #[serde(default)]
    rank_pattern: BTreeMap<String, Value>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, Value>,
}

/// What the `config.json` beside it says, where there is one.
#[derive(Debug, Default, Deserialize)]
struct ModelConfig {
    #[serde(default)]
    id2label: Option<BTreeMap<usize, String>>,
    #[serde(default)]
    vocab_size: Option<usize>,
    #[serde(default)]
    pad_token_id: Option<u32>,
    #[serde(default)]
    system_prompt: Option<String>,
}

/// The base that the adapter in `folder` names, and its revision where that is the hub's.
///
/// # Errors
/// Where its settings are missing or broken.
pub fn named_base(folder: &Path) -> Result<Option<(String, Option<String>)>, AdapterError> {
    let file = folder.join(CONFIG);
    let config: Config = parse(&file, &read(&file)?)?;
    Ok(config.base_model_name_or_path.filter(|base| !base.is_empty()).map(|base| (base, config.revision)))
}

/// What an adapter was trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterTask {
    /// It has a classifier of its own.
    Classification,
    /// The base's own vocabulary.
    Language,
}

/// An adapter as it lies in a folder, checked as far as that goes without its base.
#[derive(Debug, Clone)]
pub struct AdapterFiles {
    folder: PathBuf,
    /// The base it names.
    pub base: Option<PathBuf>,
    /// Its settings.
    pub lora: LoraSettings,
    /// What it was trained for.
    pub task: AdapterTask,
    /// Labels in the order of the logits, where the folder says them.
    pub labels: Vec<String>,
    /// The token that fills rows, where the folder says it.
    pub pad_id: Option<u32>,
    /// What stood before every prompt of a language model, where the folder says it.
    pub system_prompt: Option<String>,
    /// SHA-256 over settings and weights, in hexadecimal.
    pub hash: String,
    vocab: Option<usize>,
    /// By name, without [`PREFIX`].
    tensors: BTreeMap<String, WireTensor>,
}

impl AdapterFiles {
    /// Reads the adapter in `folder`.
    ///
    /// # Errors
    /// Where a file is missing or broken, or asks for what is not supported.
    pub fn read(folder: &Path) -> Result<Self, AdapterError> {
        let (config_file, weights_file) = (folder.join(CONFIG), folder.join(WEIGHTS));
        let (config_bytes, weights) = (read(&config_file)?, read(&weights_file)?);
        let config: Config = parse(&config_file, &config_bytes)?;
        let unsupported = |what| AdapterError::Unsupported { folder: folder.to_owned(), what };
        let lora = config.lora().map_err(unsupported)?;
        let tensors = parse_weights(&weights_file, &weights)?;
        let task = config.task(&tensors).map_err(unsupported)?;
        let model_file = folder.join(MODEL_CONFIG);
        let about: ModelConfig =
            if model_file.is_file() { parse(&model_file, &read(&model_file)?)? } else { ModelConfig::default() };
        Ok(Self {
            folder: folder.to_owned(),
            base: config.base_model_name_or_path.filter(|base| !base.is_empty()).map(PathBuf::from),
            lora,
            task,
            labels: about.id2label.unwrap_or_default().into_values().collect(),
            pad_id: about.pad_token_id,
            system_prompt: about.system_prompt,
            hash: hex(&Sha256::new().chain_update(&config_bytes).chain_update(&weights).finalize()),
            vocab: about.vocab_size,
            tensors,
        })
    }

    /// What a model with this adapter ends in.
    pub fn head(&self, shape: &ModelShape) -> Result<Head, AdapterError> {
        match self.task {
            AdapterTask::Language => Ok(Head::Language),
            AdapterTask::Classification => {
                let name = format!("{}.weight", shape.head_name());
                let head = self.tensors.get(&name).ok_or_else(|| self.no_base(format!("it has no {name}")))?;
                Ok(Head::Classifier(head.shape.first().map_or(0, |labels| *labels as usize)))
            }
        }
    }

    /// The labels of a classifier with so many; where the folder names none, numbers stand for them.
    pub fn label_names(&self, count: usize) -> Vec<String> {
        if self.labels.len() == count {
            self.labels.clone()
        } else {
            (0..count).map(|id| format!("LABEL_{id}")).collect()
        }
    }

    /// Refuses a base that the adapter was not made for, as far as the files tell.
    pub fn check_base(&self, shape: &ModelShape) -> Result<(), AdapterError> {
        match self.vocab {
            Some(vocab) if vocab != shape.vocab => Err(self.no_base(format!(
                "it was made for a vocabulary of {vocab} tokens, and this base has one of {}",
                shape.vocab
            ))),
            Some(_) | None => Ok(()),
        }?;
        let expected = self.expected(shape)?;
        if let Some(name) = self.tensors.keys().find(|name| !expected.contains_key(*name)) {
            let (architecture, blocks) = (shape.architecture, shape.blocks);
            return Err(self.no_base(format!(
                "its tensor {name} has no place in a {architecture} model of {blocks} blocks with these settings"
            )));
        }
        expected.iter().try_for_each(|(name, size)| self.stored(name, size).map(drop))
    }

    /// Every tensor that belongs to an adapter of these settings on such a base, with its shape.
    fn expected(&self, shape: &ModelShape) -> Result<BTreeMap<String, Vec<i64>>, AdapterError> {
        let (rank, hidden) = (self.lora.rank as i64, shape.hidden as i64);
        let mut expected = BTreeMap::new();
        for linear in resolve_targets(shape, &self.lora)? {
            expected.insert(format!("{}.lora_A.weight", linear.name), vec![rank, linear.inputs as i64]);
            expected.insert(format!("{}.lora_B.weight", linear.name), vec![linear.outputs as i64, rank]);
        }
        if let Head::Classifier(labels) = self.head(shape)? {
            expected.insert(format!("{}.weight", shape.head_name()), vec![labels as i64, hidden]);
            if shape.head_has_bias() {
                expected.insert(format!("{}.bias", shape.head_name()), vec![labels as i64]);
            }
        }
        Ok(expected)
    }

    /// Refuses settings other than a run's.
    ///
    /// # Errors
    /// A sentence with the field of the spec that would have to change.
    pub fn check_settings(&self, shape: &ModelShape, asked: &LoraSettings) -> Result<(), AdapterError> {
        let own = &self.lora;
        if own.rank != asked.rank {
            let (own, asked) = (own.rank, asked.rank);
            return Err(self.no_spec(format!("it has rank {own}, and tuning.lora.rank is {asked}; set it to {own}")));
        }
        if (own.scale() - asked.scale()).abs() > 1e-9 * own.scale().abs() {
            return Err(self.no_spec(format!(
                "its alpha is {} (rsLora {}), and tuning.lora asks for {} (rsLora {}); another scale would be another model",
                own.alpha, own.rs_lora, asked.alpha, asked.rs_lora
            )));
        }
        let names = |lora| -> Result<Vec<String>, ModelError> {
            Ok(resolve_targets(shape, lora)?.into_iter().map(|linear| linear.name).collect())
        };
        if names(own)? != names(asked)? {
            let (own, asked) = (own.target_modules.join(", "), asked.target_modules.join(", "));
            return Err(self.no_spec(format!("it adapts {own}, and tuning.lora.targetModules asks for {asked}")));
        }
        Ok(())
    }

    /// Refuses a head or labels other than a run's.
    ///
    /// # Errors
    /// A sentence with both.
    pub fn check_labels(&self, shape: &ModelShape, head: Head, labels: &[String]) -> Result<(), AdapterError> {
        let own = self.head(shape)?;
        if own != head {
            return Err(self.no_spec(format!("it ends in {}, and the run in {}", words(own), words(head))));
        }
        if head != Head::Language && !self.labels.is_empty() && self.labels != labels {
            let (own, labels) = (self.labels.join(", "), labels.join(", "));
            return Err(self.no_spec(format!(
                "its labels are {own}, and the run's are {labels}; set data.labels to the adapter's, in its order"
            )));
        }
        Ok(())
    }

    /// Gives every trained tensor of `model` the adapter's value.
    ///
    /// # Errors
    /// Where a tensor is missing or does not fit, or one is left over.
    pub fn put_on(&self, model: &Model) -> Result<(), AdapterError> {
        self.check_base(model.shape())?;
        let _no_graph = tch::no_grad_guard();
        for parameter in model.adapter().parameters() {
            let value = self.tensor(&parameter.name, &parameter.tensor.size(), model.device())?;
            parameter.tensor.shallow_clone().copy_(&value);
        }
        Ok(())
    }

    /// The tensor of this name and shape, finite, F32.
    pub fn tensor(&self, name: &str, shape: &[i64], device: Device) -> Result<Tensor, AdapterError> {
        let stored = self.stored(name, shape)?;
        let tensor = stored.to_tensor(device)?.to_kind(Element::F32.kind());
        if tensor.isfinite().all().int64_value(&[]) == 0 {
            return Err(self.no_base(format!("its {name} holds a value that is not finite")));
        }
        Ok(tensor)
    }

    fn stored(&self, name: &str, shape: &[i64]) -> Result<&WireTensor, AdapterError> {
        let stored = self.tensors.get(name).ok_or_else(|| self.no_base(format!("it has no tensor {name}")))?;
        if stored.shape != shape {
            return Err(self.no_base(format!("its {name} has shape {:?}, and {shape:?} is needed", stored.shape)));
        }
        Ok(stored)
    }

    fn no_spec(&self, what: String) -> AdapterError {
        AdapterError::Spec { folder: self.folder.clone(), what }
    }

    fn no_base(&self, what: String) -> AdapterError {
        AdapterError::Base { folder: self.folder.clone(), what }
    }
}

/// A model as every worker of a run starts from it: the same for server, clients and students.
///
/// # Errors
/// Where `lora` or `head` asks for what the base does not have, or `initial` has another head or other labels.
pub fn starting_model(
    base: Base,
    lora: &LoraSettings,
    head: Head,
    seed: u64,
    labels: &[String],
    initial: Option<&AdapterFiles>,
) -> Result<Model, AdapterError> {
    let model = Model::new(base, lora, head, seed)?;
    if let Some(initial) = initial {
        initial.check_labels(model.shape(), head, labels)?;
        initial.put_on(&model)?;
    }
    Ok(model)
}

impl Config {
    fn lora(&self) -> Result<LoraSettings, String> {
        let refusals = [
            (self.peft_type != "LORA", format!("is of PEFT's type {}", self.peft_type)),
            (self.use_dora, "decomposes weights (DoRA)".to_owned()),
            (self.bias.as_ref().is_some_and(|bias| bias != "none"), "trains biases".to_owned()),
            (!self.rank_pattern.is_empty(), "has ranks of their own for some layers (rank_pattern)".to_owned()),
            (!self.alpha_pattern.is_empty(), "has scales of their own for some layers (alpha_pattern)".to_owned()),
            (!self.lora_alpha.is_finite(), format!("has alpha {}", self.lora_alpha)),
        ];
        if let Some((_, what)) = refusals.into_iter().find(|(wrong, _)| *wrong) {
            return Err(what);
        }
        Ok(LoraSettings {
            rank: self.r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            rs_lora: self.use_rslora,
            target_modules: self.targets()?,
        })
    }

    fn targets(&self) -> Result<Vec<String>, String> {
        match &self.target_modules {
            Value::String(all) if all == "all-linear" => Ok(vec![all.clone()]),
            Value::Array(names) => {
                let names: Option<Vec<String>> = names.iter().map(|name| Some(name.as_str()?.to_owned())).collect();
                names.ok_or_else(|| "names target modules that are no text".to_owned())
            }
            other => Err(format!("names its target modules by a pattern, {other}")),
        }
    }

    /// What it says, else what its tensors say.
    fn task(&self, tensors: &BTreeMap<String, WireTensor>) -> Result<AdapterTask, String> {
        let has_head = tensors.keys().any(|name| !name.contains(".lora_"));
        match self.task_type.as_deref() {
            task if task == Some("SEQ_CLS") || (task.is_none() && has_head) => Ok(AdapterTask::Classification),
            Some("CAUSAL_LM") | None => Ok(AdapterTask::Language),
            Some(other) => Err(format!("was trained for the task {other}")),
        }
    }
}

fn words(head: Head) -> String {
    match head {
        Head::Classifier(labels) => format!("a classifier of {labels} labels"),
        Head::Language => "the base's vocabulary".to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AdapterError> {
    fs::read(path).map_err(|source| AdapterError::Read { path: path.to_owned(), source })
}

fn parse<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, AdapterError> {
    serde_json::from_slice(json).map_err(|source| AdapterError::Json { path: path.to_owned(), source })
}

fn parse_weights(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, WireTensor>, AdapterError> {
    let corrupt = |source| AdapterError::Corrupt { path: path.to_owned(), source };
    let file = SafeTensors::deserialize(bytes).map_err(corrupt)?;
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
        let element = match view.dtype() {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            other => {
                let what = format!("holds {name} in elements of type {other:?}");
                let folder = path.parent().unwrap_or(path).to_owned();
                return Err(AdapterError::Unsupported { folder, what });
            }
        };
        let shape = view.shape().iter().map(|&size| size as i64).collect();
        let (kind, bytes) = (PayloadKind::Adapter, view.data().to_vec().into());
        Ok((name.clone(), WireTensor { name, kind, element, shape, bytes }))
    };
    file.tensors().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests;
