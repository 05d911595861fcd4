//! `spec.tuning`: what is trained, LoRA adapters today.
//! Must not say how long or how fast: that is `training`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    quantities::Decimal,
    rules::{above_zero, below_one, between},
    source::Source,
};

/// What is trained on top of the frozen base.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tuning {
    /// Low-rank adapters: W' = W + (alpha / rank) B A on the chosen linear layers (Hu et al., arXiv 2106.09685).
    #[serde(default)]
    pub lora: Lora,
}

/// Low-rank adapters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lora {
    /// Rows of A and columns of B; a group may override it. Bytes and trained parameters grow with it.
    #[serde(default = "rank")]
    #[x_kube(validation = between(1, 1024, "a LoRA rank"))]
    pub rank: u32,
    /// Scale of the adapter: its output is multiplied by alpha / rank.
    #[serde(default = "alpha")]
    #[x_kube(validation = above_zero("alpha"))]
    pub alpha: Decimal,
    /// Share of the adapter's inputs that is dropped in training.
    #[serde(default = "dropout")]
    #[x_kube(validation = below_one("a dropout"))]
    pub dropout: Decimal,
    /// Linear layers that get an adapter, by the last part of their Hugging Face module name, as in `q_proj`. Left out,
    /// the query and value projections of the model's architecture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = ("self.all(name, name.matches('^[A-Za-z0-9_.-]+$'))",
        "a module's name has letters, digits, _, - and ., as in q_proj, attention.self.query or all-linear"))]
    #[x_kube(validation = ("self.all(name, self.exists_one(other, other == name))", "each module is named once"))]
    pub target_modules: Vec<String>,
    /// Rank-stabilised scale: alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski, arXiv 2312.03732).
    #[serde(default)]
    pub rs_lora: bool,
    /// An adapter in PEFT's format to start from. Left out, A is random and B zero, the same in every client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_adapter: Option<Source>,
}

impl Default for Lora {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

fn rank() -> u32 {
    8
}

fn alpha() -> Decimal {
    Decimal::literal("16")
}

fn dropout() -> Decimal {
    Decimal::literal("0")
}
