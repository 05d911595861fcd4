//! Prints the logits of a base model with an exported adapter, F32 on the CPU; `scripts/check_adapter.py` compares them.
//! Must not overlook a tensor: every one of the file is the model's, and every one of the model's is in the file.
//!
//! ```text
//! cargo run -p fedtune --example adapter_logits -- BASE ADAPTER ROWS
//! ```
//!
//! BASE is a Hugging Face folder or a GGUF file, ADAPTER a folder that `fedtune run` wrote, ROWS a JSON file of rows of
//! token ids, `[[101, 7592, 102], [101, 102]]`. Printed is one row of logits each, `[[0.5, -0.5], [0.1, 0.2]]`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Parser;
use fedtune::models::{Base, Head, LoadOptions, LoraSettings, Model, Parameter, Precision, Tokens};
use serde::{Deserialize, de::DeserializeOwned};
use tch::{Device, Tensor};

#[derive(Parser)]
struct Arguments {
    base: PathBuf,
    adapter: PathBuf,
    rows: PathBuf,
}

/// `adapter_config.json`, as far as it decides the logits.
#[derive(Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
    use_rslora: bool,
    target_modules: Targets,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Targets {
    Shorthand(String),
    Names(Vec<String>),
}

/// `config.json`, as far as it decides the logits.
#[derive(Deserialize)]
struct ModelConfig {
    /// Absent where the adapter is a language model's.
    id2label: Option<HashMap<u32, String>>,
    pad_token_id: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config: ModelConfig = read_json(&arguments.adapter.join("config.json"))?;
    let rows: Vec<Vec<u32>> = read_json(&arguments.rows)?;
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let head = config.id2label.map_or(Head::Language, |labels| Head::Classifier(labels.len()));
    let model = load(&arguments.base, &arguments.adapter, head)?;
    let mut tokens = Tokens::right_padded(&rows, config.pad_token_id, Device::Cpu);
    let seq = tokens.seq();
    let last: Vec<i64> = rows.iter().enumerate().map(|(row, ids)| (row * seq + ids.len()) as i64 - 1).collect();
    // A language model's head reads the last token of each row; a classifier finds it itself.
    tokens.places = Some(Tensor::from_slice(&last));
    let logits = tch::no_grad(|| model.forward(&tokens, None)); // [rows, labels] or [rows, vocab]
    println!("{}", serde_json::to_string(&Vec::<Vec<f32>>::try_from(&logits)?)?);
    Ok(())
}

fn load(base: &Path, adapter: &Path, head: Head) -> anyhow::Result<Model> {
    let config: AdapterConfig = read_json(&adapter.join("adapter_config.json"))?;
    let lora = LoraSettings {
        rank: config.r,
        alpha: config.lora_alpha,
        dropout: 0.0,
        rs_lora: config.use_rslora,
        target_modules: match config.target_modules {
            Targets::Shorthand(name) => vec![name],
            Targets::Names(names) => names,
        },
    };
    let language_head = head == Head::Language;
    let base = Base::load(base, LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head })?;
    let model = Model::new(base, &lora, head, 0)?;
    let mut values: HashMap<String, Tensor> =
        Tensor::read_safetensors(adapter.join("adapter_model.safetensors"))?.into_iter().collect();
    for parameter in model.adapter().parameters() {
        overwrite(parameter, &mut values)?;
    }
    ensure!(values.is_empty(), "the model has no place for {:?}", values.keys());
    Ok(model)
}

fn overwrite(parameter: &Parameter, values: &mut HashMap<String, Tensor>) -> anyhow::Result<()> {
    let name = format!("base_model.model.{}", parameter.name);
    let value = values.remove(&name).with_context(|| format!("the adapter has no {name}"))?;
    let (found, expected) = (value.size(), parameter.tensor.size());
    ensure!(found == expected, "{name} has shape {found:?}, expected {expected:?}");
    tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&value));
    Ok(())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let file = || path.display().to_string();
    serde_json::from_slice(&fs::read(path).with_context(file)?).with_context(file)
}
