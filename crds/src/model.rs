//! `spec.model`: the base model, what it is trained to do and in which precision it is held.
//! Must not say how it is tuned: that is `tuning`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source::Source;

/// The base model. Its weights stay frozen; what is trained is `tuning`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// A folder or repository with `config.json`, `*.safetensors` and `tokenizer.json`, or a GGUF file.
    pub source: Source,
    /// What is learned. `SequenceClassification`: one label a text. `CausalLM`: the next token.
    #[serde(default)]
    pub task: Task,
    /// Element type of base weights and activations. Adapters, head and averages are F32 in either. `BF16` halves
    /// memory.
    #[serde(default)]
    pub precision: Precision,
}

/// What is learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Task {
    /// One label a text.
    #[default]
    SequenceClassification,
    /// The next token.
    #[serde(rename = "CausalLM")]
    CausalLm,
}

/// Element type of base weights and activations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Precision {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes.
    BF16,
}
