//! The adapter: low-rank pairs beside frozen weights, and the head; their order, names and initial values.
//! Must not draw from libtorch's generator: every client starts from the same streams (LoRA: arXiv 2106.09685).

use tch::{Device, Tensor};
use thiserror::Error;

use super::{
    cut::Part,
    head::Head,
    linear::{Linear, LoraPair},
    shape::{LinearShape, ModelShape},
};
use crate::{
    low_rank::LowRank,
    random::{Key, Site, Stream},
};

/// What to train beside the frozen weights.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSettings {
    /// Rank of the pairs.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Share of a pair's input that is dropped while training, below 1.
    pub dropout: f64,
    /// Scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732).
    pub rs_lora: bool,
    /// Which linear layers: last parts of Hugging Face module names (`q_proj`, `attention.self.query`), or
    /// `all-linear` alone.
    pub target_modules: Vec<String>,
}

impl LoraSettings {
    /// What `B A x` is multiplied with.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rs_lora { rank.sqrt() } else { rank }
    }

    /// Whether every linear layer but the head gets a pair.
    pub fn targets_all(&self) -> bool {
        self.target_modules.iter().any(|target| target == ALL_LINEAR)
    }

    /// Whether a module of this name gets a pair; matches as PEFT does.
    pub fn targets(&self, module: &str) -> bool {
        self.targets_all() || self.target_modules.iter().any(|target| is_last_part(target, module))
    }
}

/// The target that stands for every linear layer but the head.
const ALL_LINEAR: &str = "all-linear";

fn is_last_part(target: &str, module: &str) -> bool {
    module.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Why a model cannot have the adapter that was asked for.
#[derive(Debug, Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ModelError {
    #[error("LoRA rank is 0; the smallest is 1")]
    RankZero,
    #[error("LoRA dropout is {dropout}; it must be at least 0 and below 1")]
    Dropout { dropout: String },
    #[error("a classifier with {labels} label(s) has nothing to tell apart; at least 2 are needed")]
    Labels { labels: usize },
    #[error(
        "this {architecture} model has no layer over the vocabulary, which task CausalLM reads; use a decoder such as Llama, or task SequenceClassification"
    )]
    NoLanguageHead { architecture: String },
    #[error("LoRA has no target module; this {architecture} model has {existing}")]
    NoTarget { architecture: String, existing: String },
    #[error("LoRA target {target:?} is no linear layer of this {architecture} model; it has {existing}")]
    UnknownTarget { target: String, architecture: String, existing: String },
}

/// What a parameter is part of; also what its bytes are counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A LoRA matrix.
    Adapter,
    /// The classification head.
    Head,
}

/// One trained tensor.
#[derive(Debug)]
pub struct Parameter {
    /// PEFT's name without `base_model.model.`: `bert.encoder.layer.0.attention.self.query.lora_A.weight`.
    pub name: String,
    /// What it is part of.
    pub kind: ParameterKind,
    /// The block it is in; none for what follows the last block.
    pub block: Option<usize>,
    /// F32; the model computes with this very tensor, so change it in place. Requires a gradient unless it is frozen.
    pub tensor: Tensor,
    /// Whether it stays as it was drawn: then it is part of the model, and is neither trained nor sent.
    pub frozen: bool,
}

impl Parameter {
    /// Its shape in an adapter of another rank.
    pub fn shape_at(&self, rank: usize) -> Vec<i64> {
        let mut shape = self.tensor.size();
        match self.kind {
            ParameterKind::Adapter => shape[usize::from(!self.is_a())] = rank as i64,
            ParameterKind::Head => {}
        }
        shape
    }

    fn is_a(&self) -> bool {
        self.kind == ParameterKind::Adapter && self.name.ends_with(".lora_A.weight")
    }
}

/// What one client trains: LoRA pairs and a classifier's head, in canonical order.
///
/// Blocks ascend, modules stand as transformers declares them, A before B, the head last.
#[derive(Debug)]
pub struct Adapter {
    parameters: Vec<Parameter>,
    targets: Vec<String>,
    head_has_bias: bool,
}

impl Adapter {
    pub(super) fn new(
        shape: &ModelShape,
        lora: &LoraSettings,
        head: Head,
        seed: u64,
        device: Device,
    ) -> Result<Self, ModelError> {
        let targets = resolve_targets(shape, lora)?;
        let mut init = Init { key: Key { seed, ..Key::default() }, device, parameters: Vec::new() };
        for linear in &targets {
            init.add_pair(linear, lora.rank);
        }
        match head {
            Head::Classifier(labels @ (0 | 1)) => return Err(ModelError::Labels { labels }),
            Head::Classifier(labels) => init.add_head(shape, labels),
            Head::Language => {}
        }
        Ok(Self {
            parameters: init.parameters,
            targets: targets.into_iter().map(|linear| linear.name).collect(),
            head_has_bias: shape.head_has_bias(),
        })
    }

    /// Every trained tensor, in canonical order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// What is trained of one part, in canonical order; the head is the back's.
    pub fn part(&self, part: Part) -> Vec<&Parameter> {
        self.parameters.iter().filter(|parameter| part.holds(parameter.block) && !parameter.frozen).collect()
    }

    /// The trained tensors of a part, in canonical order.
    pub fn tensors(&self, part: Part) -> Vec<&Tensor> {
        self.part(part).into_iter().map(|parameter| &parameter.tensor).collect()
    }

    /// The pairs, A and B of each, in canonical order.
    pub fn pairs(&self) -> impl Iterator<Item = [&Parameter; 2]> {
        self.parameters[..2 * self.targets.len()].chunks_exact(2).map(|pair| [&pair[0], &pair[1]])
    }

    /// What a classifier ends in; nothing of a language model.
    pub fn head_parameters(&self) -> &[Parameter] {
        &self.parameters[2 * self.targets.len()..]
    }

    /// Freezes every A at what it is (FFA-LoRA, arXiv 2403.12313).
    pub(super) fn freeze_a(&mut self) {
        for parameter in self.parameters.iter_mut().filter(|parameter| parameter.is_a()) {
            parameter.frozen = true;
            let _ = parameter.tensor.set_requires_grad(false);
        }
    }

    /// Draws every A anew from the streams of `key` and sets every B to zero; with the key of no round, as they were.
    pub(super) fn renew(&self, key: Key) {
        let _no_graph = tch::no_grad_guard();
        for (index, [a, b]) in self.pairs().enumerate() {
            let drawn = draw_a(key, 2 * index as u32, &a.tensor.size());
            a.tensor.shallow_clone().copy_(&drawn);
            let _ = b.tensor.shallow_clone().zero_();
        }
    }

    /// Module names that have a pair, in canonical order.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// The same head and targets with other pairs, B as `up` and A as `down`, each of a rank of its own.
    pub(super) fn with_pairs(&self, pairs: Vec<LowRank>) -> Self {
        let old = self.parameters.iter();
        let of_pairs = pairs.into_iter().flat_map(|LowRank { up, down }| [down, up]);
        let of_head = self.head_parameters().iter().map(|parameter| parameter.tensor.detach().copy());
        let parameters = old.zip(of_pairs.chain(of_head)).map(|(old, tensor)| Parameter {
            name: old.name.clone(),
            kind: old.kind,
            block: old.block,
            tensor,
            frozen: old.frozen,
        });
        let (targets, head_has_bias) = (self.targets.clone(), self.head_has_bias);
        Self { parameters: parameters.collect(), targets, head_has_bias }
    }

    /// Weight and bias of a classifier's head.
    pub(super) fn head(&self) -> (&Tensor, Option<&Tensor>) {
        let head = &self.parameters[2 * self.targets.len()..];
        (&head[0].tensor, self.head_has_bias.then(|| &head[1].tensor))
    }

    /// Puts each pair beside its frozen weight; `linears` are all of the model's, in canonical order.
    pub(super) fn attach(&self, linears: &mut [&mut Linear], lora: &LoraSettings) {
        let adapted = linears.iter_mut().filter(|linear| lora.targets(&linear.shape.name));
        for (ordinal, (linear, pair)) in adapted.zip(self.parameters.chunks_exact(2)).enumerate() {
            linear.adapt(LoraPair {
                ordinal: ordinal as u32,
                a: pair[0].tensor.shallow_clone(),
                b: pair[1].tensor.shallow_clone(),
                scale: lora.scale(),
                dropout: lora.dropout,
            });
        }
    }
}

/// Linear layers of `shape` that `lora` names, in canonical order.
///
/// # Errors
/// Where a setting is out of its range or a target names no layer.
pub fn resolve_targets(shape: &ModelShape, lora: &LoraSettings) -> Result<Vec<LinearShape>, ModelError> {
    if lora.rank == 0 {
        return Err(ModelError::RankZero);
    }
    if !(0.0..1.0).contains(&lora.dropout) {
        return Err(ModelError::Dropout { dropout: lora.dropout.to_string() });
    }
    let linears = shape.linears();
    let known = |target: &String| target == ALL_LINEAR || linears.iter().any(|l| is_last_part(target, &l.name));
    let architecture = shape.architecture.to_string();
    if let Some(target) = lora.target_modules.iter().find(|target| !known(target)) {
        let existing = module_names(shape);
        return Err(ModelError::UnknownTarget { target: target.clone(), architecture, existing });
    }
    if lora.target_modules.is_empty() {
        return Err(ModelError::NoTarget { architecture, existing: module_names(shape) });
    }
    Ok(linears.into_iter().filter(|linear| lora.targets(&linear.name)).collect())
}

/// What a person may write as a target: the last parts of the layers' names, each once.
fn module_names(shape: &ModelShape) -> String {
    let mut names: Vec<String> = Vec::new();
    for linear in shape.block_linears(0) {
        let last = linear.name.rsplit('.').next().unwrap_or_default();
        if !names.iter().any(|name| name == last) {
            names.push(last.to_owned());
        }
    }
    names.join(", ")
}

/// A of `[rank, inputs]`, uniform in ±1/sqrt(inputs), of the parameter with this ordinal. Of two ranks the smaller
/// A is the first rows of the larger.
fn draw_a(key: Key, ordinal: u32, size: &[i64]) -> Tensor {
    let bound = 1.0 / (size[1] as f32).sqrt();
    let mut stream = key.stream(Site::Init(ordinal));
    let values: Vec<f32> = (0..size[0] * size[1]).map(|_| (2.0 * stream.unit() - 1.0) * bound).collect();
    Tensor::from_slice(&values).view(size)
}

/// Initial values; each parameter's stream is keyed by its ordinal.
struct Init {
    key: Key,
    device: Device,
    parameters: Vec<Parameter>,
}

impl Init {
    fn add_pair(&mut self, linear: &LinearShape, rank: usize) {
        let name = |matrix: &str| format!("{}.lora_{matrix}.weight", linear.name);
        let a = draw_a(self.key, self.parameters.len() as u32, &[rank as i64, linear.inputs as i64]);
        self.push(name("A"), ParameterKind::Adapter, linear.block, &a);
        self.add(name("B"), ParameterKind::Adapter, linear.block, &[linear.outputs, rank], |_| 0.0);
    }

    fn add_head(&mut self, shape: &ModelShape, labels: usize) {
        let name = shape.head_name();
        self.add(format!("{name}.weight"), ParameterKind::Head, None, &[labels, shape.hidden], |stream| {
            0.02 * stream.normal()
        });
        if shape.head_has_bias() {
            self.add(format!("{name}.bias"), ParameterKind::Head, None, &[labels], |_| 0.0);
        }
    }

    fn add(
        &mut self,
        name: String,
        kind: ParameterKind,
        block: Option<usize>,
        size: &[usize],
        draw: impl Fn(&mut Stream) -> f32,
    ) {
        let ordinal = self.parameters.len() as u32;
        let mut stream = self.key.stream(Site::Init(ordinal));
        let values: Vec<f32> = (0..size.iter().product()).map(|_| draw(&mut stream)).collect();
        let size: Vec<i64> = size.iter().map(|&n| n as i64).collect();
        self.push(name, kind, block, &Tensor::from_slice(&values).view(size.as_slice()));
    }

    fn push(&mut self, name: String, kind: ParameterKind, block: Option<usize>, values: &Tensor) {
        let tensor = values.to_device(self.device).set_requires_grad(true);
        self.parameters.push(Parameter { name, kind, block, tensor, frozen: false });
    }
}

#[cfg(test)]
mod tests;
