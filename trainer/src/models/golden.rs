//! Reads the golden vectors of `tests/golden` for tests.
//! Must not compute an expected number: those come from transformers and PEFT, see `make_golden.py`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use tch::{Device, Kind, Tensor, no_grad};

use super::{Base, Head, LoadOptions, LoraSettings, Model, Precision, Tokens};

/// One entry of `cases.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) model: String,
    rank: usize,
    alpha: f64,
    rs_lora: bool,
    targets: Vec<String>,
    /// Whether it ends in the vocabulary; the others tell three labels apart.
    #[serde(default)]
    language: bool,
    /// Names of trained tensors as PEFT lists them.
    pub(crate) order: Vec<String>,
}

/// A file of `tests/golden`.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// A JSON file of `tests/golden`.
pub(crate) fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(file(name)).unwrap()).unwrap()
}

/// Every case with a tiny random model.
pub(crate) fn cases() -> Vec<Case> {
    json("cases.json")
}

/// Tensors of `tests/golden/<name>.safetensors`.
pub(crate) fn tensors(name: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(file(&format!("{name}.safetensors"))).unwrap().into_iter().collect()
}

/// Where a real model lies; fails where it was not brought yet.
pub(crate) fn real_model(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/models").join(name);
    assert!(path.is_dir(), "the model {name} is not here yet: run make setup");
    path
}

/// Loads a model in F32 on the CPU.
pub(crate) fn load(path: &Path) -> Base {
    load_as(path, Precision::F32, Device::Cpu)
}

/// Loads a model.
pub(crate) fn load_as(path: &Path, precision: Precision, device: Device) -> Base {
    Base::load(path, LoadOptions { precision, device, language_head: true }).unwrap()
}

/// LoRA of rank 8 on what makes queries and values.
pub(crate) fn query_value(base: &Base) -> LoraSettings {
    let target_modules = base.architecture().default_targets().iter().map(ToString::to_string).collect();
    LoraSettings { rank: 8, alpha: 16.0, dropout: 0.0, rs_lora: false, target_modules }
}

/// The batch of a case.
pub(crate) fn batch(tensors: &HashMap<String, Tensor>) -> Tokens {
    let places = tensors.get("places").map(Tensor::shallow_clone);
    Tokens { ids: tensors["ids"].shallow_clone(), mask: tensors["mask"].to_kind(Kind::Bool), places }
}

/// Sets trained tensors of `model` to those of `values` whose names start with `prefix`.
pub(crate) fn set(model: &Model, values: &HashMap<String, Tensor>, prefix: &str) {
    for parameter in model.adapter().parameters() {
        if let Some(value) = values.get(&format!("{prefix}{}", parameter.name)) {
            no_grad(|| parameter.tensor.shallow_clone().copy_(value));
        }
    }
}

impl Case {
    pub(crate) fn lora(&self) -> LoraSettings {
        LoraSettings {
            rank: self.rank,
            alpha: self.alpha,
            dropout: 0.0,
            rs_lora: self.rs_lora,
            target_modules: self.targets.clone(),
        }
    }

    pub(crate) fn head(&self) -> Head {
        if self.language { Head::Language } else { Head::Classifier(3) }
    }

    /// The case's model with the case's adapter.
    pub(crate) fn model(&self, tensors: &HashMap<String, Tensor>) -> Model {
        let model = Model::new(load(&file(&self.model)), &self.lora(), self.head(), 0).unwrap();
        set(&model, tensors, "value.");
        model
    }
}

/// The largest difference between two tensors of one shape.
pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
