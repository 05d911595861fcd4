//! `spec.training`: how each client steps, and for how many rounds; and `spec.stop`: when the run may end earlier.
//! Must not say what is trained: that is `tuning`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    quantities::{ByteSize, Decimal},
    rules::{above_zero, at_most_one, below_one, between, exactly_one, share},
};

/// Optimizer steps of a client and round where neither `localSteps` nor `localEpochs` is set.
pub const DEFAULT_LOCAL_STEPS: u32 = 10;

/// How clients train.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = at_most_one(&["localSteps", "localEpochs"]))]
pub struct Training {
    /// Rounds: each is one exchange between clients and server.
    #[serde(default = "rounds")]
    #[x_kube(validation = between(1, 100_000, "a number of rounds"))]
    pub rounds: u32,
    /// Optimizer steps of each client a round (tau). Set it or `localEpochs`; with neither it is 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 1_000_000, "a number of local steps"))]
    pub local_steps: Option<u32>,
    /// Passes of each client over its own examples a round, instead of `localSteps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 1000, "a number of local epochs"))]
    pub local_epochs: Option<u32>,
    /// Examples of one forward and backward pass.
    #[serde(default = "batch_size")]
    #[x_kube(validation = between(1, 65_536, "a batch size"))]
    pub batch_size: u32,
    /// Batches whose gradients are averaged before one optimizer step. Local steps stay optimizer steps: with 2 each of
    /// them takes two batches.
    #[serde(default = "gradient_accumulation")]
    #[x_kube(validation = between(1, 4096, "gradientAccumulation"))]
    pub gradient_accumulation: u32,
    /// Tokens after which a text is cut. Cost grows with it, and batches are padded only to their longest text.
    #[serde(default = "max_sequence_length")]
    #[x_kube(validation = between(1, 131_072, "a sequence length"))]
    pub max_sequence_length: u32,
    /// What turns gradients into steps. A client's optimizer state starts anew each round.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// How the learning rate changes over the run: each client counts its own optimizer steps of all rounds together, a
    /// distillation its own, and the server, where it has an optimizer, its rounds.
    #[serde(default)]
    pub schedule: Schedule,
    /// Decoupled weight decay, per step, times the learning rate.
    #[serde(default = "zero")]
    pub weight_decay: Decimal,
    /// Largest global norm of a step's gradients; 0 clips nothing. Split-FedLLM clips each half by itself.
    #[serde(default = "zero")]
    pub gradient_clipping: Decimal,
    /// Compute activations again in the backward pass instead of keeping them: less memory, about a third more work.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Threads of each client's arithmetic. Never taken from the machine: another number gives other last bits.
    #[serde(default = "threads")]
    #[x_kube(validation = between(1, 256, "a number of threads"))]
    pub threads: u32,
    /// Where the model runs. `Auto`: on CUDA if libtorch has it and a GPU is visible, else on the CPU.
    #[serde(default)]
    pub device: Device,
}

/// How much a client trains in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalWork {
    /// Optimizer steps.
    Steps(u32),
    /// Passes over the client's examples.
    Epochs(u32),
}

impl Training {
    /// How much a client trains in a round.
    pub fn local_work(&self) -> LocalWork {
        match (self.local_steps, self.local_epochs) {
            (None, Some(epochs)) => LocalWork::Epochs(epochs),
            (steps, _) => LocalWork::Steps(steps.unwrap_or(DEFAULT_LOCAL_STEPS)),
        }
    }
}

impl Default for Training {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

/// What turns gradients into steps: exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["adamW", "sgd"]))]
pub struct Optimizer {
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adam_w: Option<AdamW>,
    /// Stochastic gradient descent, with momentum if asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sgd: Option<Sgd>,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self { adam_w: Some(AdamW::default()), sgd: None }
    }
}

/// Adam with decoupled weight decay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdamW {
    /// Step size.
    #[serde(default = "adam_rate")]
    #[x_kube(validation = above_zero("a learning rate"))]
    pub learning_rate: Decimal,
    /// Decay of the mean of gradients.
    #[serde(default = "beta1")]
    #[x_kube(validation = below_one("beta1"))]
    pub beta1: Decimal,
    /// Decay of the mean of squared gradients.
    #[serde(default = "beta2")]
    #[x_kube(validation = below_one("beta2"))]
    pub beta2: Decimal,
    /// What keeps the division finite.
    #[serde(default = "epsilon")]
    #[x_kube(validation = above_zero("epsilon"))]
    pub epsilon: Decimal,
}

impl Default for AdamW {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

/// Stochastic gradient descent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sgd {
    /// Step size.
    #[serde(default = "sgd_rate")]
    #[x_kube(validation = above_zero("a learning rate"))]
    pub learning_rate: Decimal,
    /// Share of the last step that the next one keeps; 0 for none.
    #[serde(default = "zero")]
    #[x_kube(validation = below_one("a momentum"))]
    pub momentum: Decimal,
}

/// How the learning rate changes: exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["constant", "linear", "cosine"]))]
pub struct Schedule {
    /// Up in a line over the warm-up, where there is any, then it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<Constant>,
    /// Up in a line over the warm-up, then down in a line to 0 at the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear: Option<Decay>,
    /// Up in a line over the warm-up, then down along half a cosine to 0 at the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<Decay>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { constant: Some(Constant::default()), linear: None, cosine: None }
    }
}

/// A learning rate that rises, then stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Constant {
    /// Optimizer steps over which it rises in a line from 0.
    #[serde(default)]
    #[x_kube(validation = between(0, 1_000_000_000, "a number of warm-up steps"))]
    pub warmup_steps: u32,
}

/// A learning rate that rises, then falls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decay {
    /// Optimizer steps over which it rises in a line from 0.
    #[serde(default)]
    #[x_kube(validation = between(0, 1_000_000_000, "a number of warm-up steps"))]
    pub warmup_steps: u32,
}

/// Where the model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Device {
    /// CUDA if there is any, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    #[serde(rename = "CPU")]
    Cpu,
    /// A CUDA GPU; without one the run is refused.
    #[serde(rename = "CUDA")]
    Cuda,
}

/// When a run may end before its last round; the first rule met ends it, as a success.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Accuracy on the held-out examples that is good enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = share("an accuracy"))]
    pub target_accuracy: Option<Decimal>,
    /// Payload bytes of all clients, both directions, after which no further round begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
    /// Floating point operations of all clients after which no further round begins, as in `1e15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = above_zero("a number of operations"))]
    pub max_client_flops: Option<Decimal>,
    /// Rounds without a lower evaluation loss after which the run ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 100_000, "patience"))]
    pub patience: Option<u32>,
}

fn rounds() -> u32 {
    3
}

fn batch_size() -> u32 {
    16
}

fn gradient_accumulation() -> u32 {
    1
}

fn max_sequence_length() -> u32 {
    128
}

fn threads() -> u32 {
    1
}

fn zero() -> Decimal {
    Decimal::literal("0")
}

fn adam_rate() -> Decimal {
    Decimal::literal("5e-4")
}

fn sgd_rate() -> Decimal {
    Decimal::literal("1e-2")
}

fn beta1() -> Decimal {
    Decimal::literal("0.9")
}

fn beta2() -> Decimal {
    Decimal::literal("0.999")
}

fn epsilon() -> Decimal {
    Decimal::literal("1e-8")
}
