//! The adapter as PEFT writes it, so that `peft.PeftModel.from_pretrained` loads it.
//! Must not leave a half-written folder behind: it is made beside and renamed.

use std::{
    io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, tensor::TensorView};
use serde_json::{Value, json};
use tch::TchError;
use thiserror::Error;

use crate::{
    durable,
    models::{Head, LoraSettings, Model, Parameter},
    wire::{Element, WireError, WireTensor},
};

mod condense;

pub use condense::{PROBES, condense};

/// What the adapter's files say beside its weights.
#[derive(Debug)]
pub struct Export<'a> {
    /// The adapter's settings, targets resolved.
    pub lora: &'a LoraSettings,
    /// The base model, as the spec names it: a path, an address, the hub's `owner/name`.
    pub base: String,
    /// The base model's revision, where it is the hub's.
    pub revision: Option<&'a str>,
    /// Labels in the order of the logits.
    pub labels: &'a [String],
    /// What fills a batch.
    pub pad_id: u32,
    /// What stood before every prompt of a language model.
    pub system_prompt: Option<&'a str>,
}

/// Why an adapter was not written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The disk.
    #[error("the adapter cannot be written to {}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A tensor.
    #[error("the adapter cannot be written: {0}")]
    Tensor(#[from] WireError),
    /// The file format.
    #[error("the adapter cannot be written: {0}")]
    Format(#[from] SafeTensorError),
    /// What is beside the base cannot be decomposed.
    #[error("the adapter cannot be written: its singular values cannot be found: {0}")]
    Singular(#[from] TchError),
}

/// Writes `adapter_model.safetensors`, `adapter_config.json` and `config.json` to `folder`, whole or not at all.
pub fn write_adapter(folder: &Path, model: &Model, export: &Export<'_>) -> Result<(), ExportError> {
    let io = |error| ExportError::Io { path: folder.to_owned(), error };
    let beside = folder.with_extension("partial");
    let weights = weights(model)?;
    let files = [
        ("adapter_model.safetensors", weights),
        ("adapter_config.json", pretty(&adapter_config(model, export))),
        ("config.json", pretty(&model_config(model, export))),
    ];
    durable::remove_folder(&beside).map_err(io)?;
    for (name, bytes) in files {
        durable::write_whole(&beside.join(name), &bytes).map_err(io)?;
    }
    durable::publish_folder(&beside, folder).map_err(io)
}

/// The parameters under PEFT's names, F32.
fn weights(model: &Model) -> Result<Vec<u8>, ExportError> {
    let wire = |p: &Parameter| {
        let name = format!("base_model.model.{}", p.name);
        WireTensor::from_tensor(name, crate::frameworks::payload_kind(p), &p.tensor.detach(), Element::F32)
    };
    let tensors = model.adapter().parameters().iter().map(wire).collect::<Result<Vec<_>, _>>()?;
    let views = tensors.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    Ok(safetensors::serialize(views, None)?)
}

fn view(tensor: &WireTensor) -> Result<(&str, TensorView<'_>), SafeTensorError> {
    let shape = tensor.shape.iter().map(|&size| size as usize).collect();
    Ok((&tensor.name, TensorView::new(Dtype::F32, shape, &tensor.bytes)?))
}

/// `adapter_config.json` as PEFT 0.21 reads it.
fn adapter_config(model: &Model, export: &Export<'_>) -> Value {
    let lora = &at_the_rank_of(model, export.lora);
    json!({
        "peft_type": "LORA",
        "task_type": task_type(model.head()),
        "base_model_name_or_path": export.base,
        "revision": export.revision,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rs_lora,
        "target_modules": target_modules(lora),
        "modules_to_save": modules_to_save(model),
        "bias": "none",
        "fan_in_fan_out": model.base().architecture().stores_inputs_first(),
        "init_lora_weights": true,
        "inference_mode": true,
    })
}

/// The settings with the rank that the model's pairs have, and the alpha that leaves the scale what it is.
fn at_the_rank_of(model: &Model, lora: &LoraSettings) -> LoraSettings {
    let rank = model.adapter().pairs().next().map_or(lora.rank, |[a, _]| a.tensor.size()[0] as usize);
    if rank == lora.rank {
        return lora.clone();
    }
    let of_one = LoraSettings { rank, alpha: 1.0, ..lora.clone() };
    LoraSettings { alpha: lora.scale() / of_one.scale(), ..of_one }
}

/// PEFT's name of the task.
fn task_type(head: Head) -> &'static str {
    match head {
        Head::Classifier(_) => "SEQ_CLS",
        Head::Language => "CAUSAL_LM",
    }
}

/// What is trained whole beside the pairs; a language model's head is the base's own.
fn modules_to_save(model: &Model) -> Value {
    match model.head() {
        Head::Classifier(_) => json!([model.shape().head_name()]),
        Head::Language => Value::Null,
    }
}

/// Ends of module names; what stands for all of them is a text of its own, for in a list PEFT takes it for a name.
fn target_modules(lora: &LoraSettings) -> Value {
    if lora.targets_all() { json!("all-linear") } else { json!(lora.target_modules) }
}

/// What the base's `config.json` does not know: what the model ends in, the labels, and the padding that
/// classification needs.
fn model_config(model: &Model, export: &Export<'_>) -> Value {
    let architecture = model.base().architecture();
    let mut config = json!({
        "architectures": [architecture.class_name(model.head())],
        "model_type": architecture.model_type(),
        "pad_token_id": export.pad_id,
        // Which base it belongs to, as far as a number says it.
        "vocab_size": model.shape().vocab,
    });
    match model.head() {
        Head::Classifier(_) => add_labels(&mut config, export.labels),
        Head::Language => add_system_prompt(&mut config, export.system_prompt),
    }
    config
}

/// Whoever asks the model later must put it before the prompt too; transformers passes the field over.
fn add_system_prompt(config: &mut Value, system_prompt: Option<&str>) {
    if let Some(system_prompt) = system_prompt {
        config["system_prompt"] = json!(system_prompt);
    }
}

fn add_labels(config: &mut Value, labels: &[String]) {
    let numbered = || labels.iter().enumerate();
    let id2label: serde_json::Map<_, _> = numbered().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: serde_json::Map<_, _> = numbered().map(|(id, label)| (label.clone(), json!(id))).collect();
    config["num_labels"] = json!(labels.len());
    config["id2label"] = json!(id2label);
    config["label2id"] = json!(label2id);
}

fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("a JSON value is written without fail")
}

#[cfg(test)]
mod tests;
