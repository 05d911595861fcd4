//! `spec.framework`: which way of federated fine-tuning runs, and its own settings.
//! Must not hold what every framework has: that is `tuning`, `training` and `participation`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    quantities::{ByteSize, Decimal},
    report::FrameworkName,
    rules::{above_zero, at_most_one, below_one, between, exactly_one, zero_to_one},
    training::{AdamW, Sgd},
};

/// How the clients learn together: exactly one of the three frameworks, or of the two baselines they are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["fedLLM", "kdFedLLM", "splitFedLLM", "central", "localOnly"]))]
pub struct Framework {
    /// Clients fine-tune the whole model and upload adapters or gradients; the server averages them. Weights leave a
    /// client.
    #[serde(rename = "fedLLM", default, skip_serializing_if = "Option::is_none")]
    pub fed_llm: Option<FedLlm>,
    /// Clients upload their logits on a public set; the server distils them into its own model and distils back. Only
    /// logits leave a client. Needs `data.public`.
    #[serde(rename = "kdFedLLM", default, skip_serializing_if = "Option::is_none")]
    pub kd_fed_llm: Option<KdFedLlm>,
    /// The model is cut: a client runs the first blocks, the server the rest. Activations leave a client, at every
    /// step.
    #[serde(rename = "splitFedLLM", default, skip_serializing_if = "Option::is_none")]
    pub split_fed_llm: Option<SplitFedLlm>,
    /// Baseline: the server trains on the data of all clients in one place. What federation costs is measured against
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub central: Option<Central>,
    /// Baseline: each client trains alone and nothing is exchanged. What federation gains is measured against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_only: Option<LocalOnly>,
}

impl Framework {
    /// The framework as it is named in reports and metrics; `None` where the exactly-one rule was not applied.
    pub fn name(&self) -> Option<FrameworkName> {
        match self {
            Self { fed_llm: Some(_), .. } => Some(FrameworkName::FedLlm),
            Self { kd_fed_llm: Some(_), .. } => Some(FrameworkName::KdFedLlm),
            Self { split_fed_llm: Some(_), .. } => Some(FrameworkName::SplitFedLlm),
            Self { central: Some(_), .. } => Some(FrameworkName::Central),
            Self { local_only: Some(_), .. } => Some(FrameworkName::LocalOnly),
            Self { fed_llm: None, kd_fed_llm: None, split_fed_llm: None, central: None, local_only: None } => None,
        }
    }
}

/// Settings of FedLLM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(self.upload == 'Gradients' && self.aggregation != 'FedAvg')",
    "gradients are averaged by FedAvg; the other aggregations combine parameters, so set upload: Parameters"))]
#[x_kube(validation = ("!(self.upload == 'Gradients' && has(self.proximalMu))",
    "proximalMu restrains local steps and upload: Gradients takes none; leave it out or set upload: Parameters"))]
#[x_kube(validation = ("!has(self.serverOptimizer) || self.upload == 'Gradients' || !(has(self.serverOptimizer.adamW) || has(self.serverOptimizer.sgd))",
    "adamW and sgd step along gradients; with upload: Parameters set serverOptimizer to fedAvgM, fedAdam or fedYogi"))]
#[x_kube(validation = ("!has(self.serverOptimizer) || self.upload == 'Parameters' || !(has(self.serverOptimizer.fedAvgM) || has(self.serverOptimizer.fedAdam) || has(self.serverOptimizer.fedYogi))",
    "fedAvgM, fedAdam and fedYogi step along the mean of parameters; with upload: Gradients set serverOptimizer to adamW or sgd"))]
#[x_kube(validation = ("!has(self.serverOptimizer) || self.aggregation in ['FedAvg', 'FFALoRA']",
    "a server optimizer steps along the mean of the matrices, which FedAvg and FFALoRA take; leave it out with the other aggregations"))]
pub struct FedLlm {
    /// What a client uploads. `Parameters`: its adapter after the local steps. `Gradients`: the mean gradient of its
    /// batches at the round's starting adapter, without local steps; the server's optimizer applies it.
    #[serde(default)]
    pub upload: Upload,
    /// How the server combines adapters. `FedAvg`: the mean of A and B weighted by examples. `FFALoRA`: A is frozen and
    /// only B travels. `FLoRA`: adapters are stacked, exact and for unequal ranks. `FedExLoRA`: the mean plus the exact
    /// residual. `FlexLoRA`: the mean product cut to each client's rank by singular values, for unequal ranks.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// Optimizer that the server applies to the mean update. Left out, `Parameters` takes the mean as it is and
    /// `Gradients` uses `training.optimizer`. Its state lives on over the rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_optimizer: Option<ServerOptimizer>,
    /// The mu of `FedProx`: weight of the squared distance to the round's starting adapter in the clients' loss. Left
    /// out, no such term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = above_zero("FedProx's mu"))]
    pub proximal_mu: Option<Decimal>,
}

/// What the server does with the mean of what clients upload: exactly one.
///
/// `fedAvgM`, `fedAdam` and `fedYogi` (Reddi et al., arXiv 2003.00295) take the mean of the clients' parameters less
/// the round's own for a gradient; `adamW` and `sgd` take the mean of gradients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["fedAvgM", "fedAdam", "fedYogi", "adamW", "sgd"]))]
pub struct ServerOptimizer {
    /// The mean update with momentum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed_avg_m: Option<FedAvgM>,
    /// Adam on mean updates, without bias correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed_adam: Option<Adaptive>,
    /// As `fedAdam`, with a second moment that changes by at most its own share: steadier where updates are sparse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed_yogi: Option<Adaptive>,
    /// `AdamW` along the mean gradient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adam_w: Option<AdamW>,
    /// Gradient descent along the mean gradient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sgd: Option<Sgd>,
}

/// Server momentum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FedAvgM {
    /// Step size; with 1 and no momentum the server takes the mean as it is.
    #[serde(default = "whole_step")]
    #[x_kube(validation = above_zero("a learning rate"))]
    pub learning_rate: Decimal,
    /// Share of the last step that the next one keeps; 0 for none.
    #[serde(default = "nine_tenths")]
    #[x_kube(validation = below_one("a momentum"))]
    pub momentum: Decimal,
}

/// An adaptive server optimizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adaptive {
    /// Step size.
    #[serde(default = "adaptive_rate")]
    #[x_kube(validation = above_zero("a learning rate"))]
    pub learning_rate: Decimal,
    /// Decay of the mean of updates.
    #[serde(default = "nine_tenths")]
    #[x_kube(validation = below_one("beta1"))]
    pub beta1: Decimal,
    /// Decay of the mean of squared updates.
    #[serde(default = "adaptive_beta2")]
    #[x_kube(validation = below_one("beta2"))]
    pub beta2: Decimal,
    /// How adaptive it is: the smaller, the more each number's step is its own. Also what the second moment starts
    /// from, squared.
    #[serde(default = "tau")]
    #[x_kube(validation = above_zero("tau"))]
    pub tau: Decimal,
}

/// What a `FedLLM` client uploads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Upload {
    /// Its adapter after the local steps.
    #[default]
    Parameters,
    /// The mean of its gradients at the round's starting adapter.
    Gradients,
}

/// How a `FedLLM` server combines adapters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Aggregation {
    /// Mean of A and of B, weighted by examples.
    #[default]
    FedAvg,
    /// A frozen, mean of B.
    #[serde(rename = "FFALoRA")]
    FfaLora,
    /// Adapters stacked.
    #[serde(rename = "FLoRA")]
    Flora,
    /// Mean of A and of B, and the residual to the mean product.
    #[serde(rename = "FedExLoRA")]
    FedExLora,
    /// Mean product, cut by singular values.
    #[serde(rename = "FlexLoRA")]
    FlexLora,
}

/// Settings of KD-FedLLM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KdFedLlm {
    /// T, by which logits are divided before softmax, in teacher and student; the loss is scaled by T squared.
    #[serde(default = "temperature")]
    #[x_kube(validation = above_zero("a temperature"))]
    pub temperature: Decimal,
    /// Weight of the distillation term; 1 - lambda is the weight of cross-entropy where the public set has labels.
    #[serde(default = "lambda")]
    #[x_kube(validation = zero_to_one("lambda"))]
    pub lambda: Decimal,
    /// Optimizer steps of each distillation, the server's and then each client's, a round.
    #[serde(default = "distillation_steps")]
    #[x_kube(validation = between(1, 100_000, "a number of distillation steps"))]
    pub distillation_steps: u32,
    /// How the server averages the clients' logits. `Uniform`: plain mean. `Examples`: weighted by their training
    /// examples. `Confidence`: at each read state by 1 - H(p) / ln C, where p is the client's softmax(z / T) over the C
    /// classes and H its entropy in nats, so that a client that is sure counts more than one that is not; where all
    /// weights are zero, plain mean.
    #[serde(default)]
    pub weighting: Weighting,
    /// Which logits travel, both ways. Left out, all of them, as 32-bit floats. With `topK` or `byteBudget` the k largest
    /// of log softmax(z / T) at each read state, as 16-bit floats, with their classes in the smallest integer that holds
    /// all classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits: Option<Logits>,
}

/// How logits are averaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Weighting {
    /// Plain mean.
    #[default]
    Uniform,
    /// By training examples.
    Examples,
    /// By how sure each client is, at each read state.
    Confidence,
}

/// Which logits travel: the largest k of each row, k given or derived from a budget.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = at_most_one(&["topK", "byteBudget"]))]
pub struct Logits {
    /// Send the k largest log-probabilities of each row; the rest of the mass is spread evenly over the other classes.
    /// At most as many as there are classes; a language model's classes are its vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 1_000_000, "k"))]
    pub top_k: Option<u32>,
    /// Send as many of the largest as fit into so many bytes a client, round and direction: a read state takes
    /// k (2 + the bytes of a class) of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_budget: Option<ByteSize>,
}

/// Settings of Split-FedLLM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitFedLlm {
    /// How many blocks run on the client, from the embedding on; a group may override it. More blocks hide more and
    /// cost the client more.
    #[serde(default = "cut_layer")]
    #[x_kube(validation = between(1, 999, "a cut layer"))]
    pub cut_layer: u32,
    /// `V1`: the server holds a copy of its half for each client and averages them each round. `V2`: it holds one half
    /// and the clients take turns.
    #[serde(default)]
    pub variant: Variant,
    /// Who holds the head and so the labels. `Server`: labels travel with the activations. `Client`: they stay, and
    /// hidden states come back once more.
    #[serde(default)]
    pub head: Head,
    /// Element type of the hidden states and gradients that travel; where it is left out, that of `model.precision`,
    /// which loses nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_codec: Option<ActivationCodec>,
}

/// How many server halves there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Variant {
    /// One for each client, averaged.
    #[default]
    V1,
    /// One, in turns.
    V2,
}

/// Who holds the head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Head {
    /// The server, which then sees labels.
    #[default]
    Server,
    /// The client, so labels stay.
    Client,
}

/// Element type at the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActivationCodec {
    /// 4 bytes an element.
    F32,
    /// 2 bytes, the exponent of F32.
    BF16,
    /// 2 bytes, the precision of half floats.
    F16,
    /// 1 byte, and an F32 scale per token.
    INT8,
}

/// The central baseline has no settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Central {}

/// The local baseline has no settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalOnly {}

fn whole_step() -> Decimal {
    Decimal::literal("1")
}

fn nine_tenths() -> Decimal {
    Decimal::literal("0.9")
}

fn adaptive_rate() -> Decimal {
    Decimal::literal("1e-2")
}

fn adaptive_beta2() -> Decimal {
    Decimal::literal("0.99")
}

fn tau() -> Decimal {
    Decimal::literal("1e-3")
}

fn temperature() -> Decimal {
    Decimal::literal("2.0")
}

fn lambda() -> Decimal {
    Decimal::literal("1.0")
}

fn distillation_steps() -> u32 {
    20
}

fn cut_layer() -> u32 {
    2
}
