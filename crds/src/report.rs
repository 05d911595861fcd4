//! The `RunReport`: what one run was, did and cost, written as `results.json` and summarised in `status`.
//! Must not compute anything: the trainer measures, this module only gives the figures their names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of this shape; raised when a field changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// One run, from its spec to its final figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// [`SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// `metadata.name` of the resource.
    pub name: String,
    /// `metadata.uid` on a cluster, else one made for this run.
    pub uid: String,
    /// SHA-256 over what both sides of a session must agree on: spec, base model and tokenizer. (No side sees all data.)
    pub run_hash: String,
    /// `spec.experiment`: runs of one experiment are compared with each other.
    pub experiment: String,
    /// Framework, in the words that the metrics use too.
    pub framework: FrameworkName,
    /// `spec.seed`.
    pub seed: u64,
    /// `spec.attempt`.
    pub attempt: u32,
    /// How it ended.
    pub phase: RunPhase,
    /// Why it ended: `rounds` after the last round, a stop rule's name, or the error sentence.
    pub stop_reason: String,
    /// The spec as it was read, defaults filled in.
    pub spec: serde_json::Value,
    /// SHA-256 of each input.
    pub hashes: Hashes,
    /// What it ran on.
    pub environment: Environment,
    /// One entry a finished round, in order.
    pub rounds: Vec<RoundReport>,
    /// One entry a client, in ordinal order.
    pub clients: Vec<ClientReport>,
    /// What the server computed.
    pub server: ServerReport,
    /// Figures of the final model on the held-out examples.
    #[serde(rename = "final")]
    pub final_figures: FinalReport,
    /// Sums over rounds and clients.
    pub totals: Totals,
}

/// The frameworks and baselines, as reports and metrics spell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrameworkName {
    /// Clients upload parameters or gradients.
    #[serde(rename = "FedLLM")]
    FedLlm,
    /// Clients share logits.
    #[serde(rename = "KD-FedLLM")]
    KdFedLlm,
    /// The model is cut between client and server.
    #[serde(rename = "Split-FedLLM")]
    SplitFedLlm,
    /// Baseline: all data in one place.
    #[serde(rename = "central")]
    Central,
    /// Baseline: no exchange at all.
    #[serde(rename = "localOnly")]
    LocalOnly,
}

impl FrameworkName {
    /// Every name, in the order of the paper, baselines last.
    pub const ALL: [Self; 5] = [Self::FedLlm, Self::KdFedLlm, Self::SplitFedLlm, Self::Central, Self::LocalOnly];

    /// The name as it is written in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FedLlm => "FedLLM",
            Self::KdFedLlm => "KD-FedLLM",
            Self::SplitFedLlm => "Split-FedLLM",
            Self::Central => "central",
            Self::LocalOnly => "localOnly",
        }
    }
}

impl std::fmt::Display for FrameworkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunPhase {
    /// All rounds done, or a stop rule met.
    Succeeded,
    /// Ended by an error; `stopReason` has the sentence.
    Failed,
}

/// SHA-256, in hexadecimal, of each input of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hashes {
    /// Of the spec in canonical JSON.
    pub spec: String,
    /// Of the base model's weight files.
    pub base_model: String,
    /// Of the tokenizer.
    pub tokenizer: String,
    /// Of the tokenised examples.
    pub data: String,
    /// Of who holds which example.
    pub partition: String,
}

/// What a run ran on: bits are equal only where these are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Version of fedtune.
    pub fedtune: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Instruction set that libtorch's kernels chose.
    pub isa: String,
    /// Threads of each client, `spec.training.threads`.
    pub threads: u32,
    /// `CPU` or `CUDA`, with the precision of the base weights, as in `CPU (BF16)`.
    pub device: String,
}

/// One round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoundReport {
    /// Number, from 1.
    pub round: u32,
    /// Wall-clock seconds, evaluation included.
    pub seconds: f64,
    /// Share of held-out examples that the global model labels rightly; of a CausalLM its choices' accuracy where there
    /// are choices, else its tokens'.
    pub accuracy: f64,
    /// Mean of the labels' F1.
    pub macro_f1: f64,
    /// Mean cross-entropy on the held-out examples, in nats; a token, of a CausalLM.
    pub loss: f64,
    /// exp of the mean loss a token (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Share of the tokens to be said that are the likeliest after those before them (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Share of the greedy answers that are right, token by token (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
    /// Share of the examples with choices whose right one is the likeliest (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices_accuracy: Option<f64>,
    /// Mean training loss over the participants' steps, in nats.
    #[serde(default)]
    pub train_loss: f64,
    /// Mean accuracy of the clients' own models, where clients evaluate themselves (KD, localOnly).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mean_accuracy: Option<f64>,
    /// Headline FLOPs of all clients in this round.
    #[serde(default)]
    pub client_flops: f64,
    /// Clients whose upload counted, in ordinal order.
    pub participants: Vec<String>,
    /// Clients that were asked and did not count.
    pub absent: Vec<Absence>,
    /// Bytes by client, direction and kind.
    pub bytes: Vec<ByteCount>,
}

/// A client that was asked and did not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Its id, `group/index`.
    pub client: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// Bytes of one kind between one client and the server in one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteCount {
    /// Its id, `group/index`.
    pub client: String,
    /// `up` is from the client to the server.
    pub direction: Direction,
    /// What the bytes are.
    pub kind: PayloadKind,
    /// Tensor bytes handed to the wire.
    pub payload: u64,
    /// The payload's share of what the socket carried, framing included.
    pub wire: u64,
    /// Bytes sent again after a broken link, in neither of the others.
    pub retransmitted: u64,
}

/// Direction, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
}

impl Direction {
    /// The word as it is written in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What payload bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PayloadKind {
    /// LoRA parameters.
    Adapter,
    /// Parameters of the classifier head.
    Head,
    /// Gradients of LoRA parameters and head.
    Gradient,
    /// Logits on the public set.
    Logits,
    /// Hidden states at the cut.
    Activation,
    /// Gradients of hidden states at the cut.
    ActivationGradient,
    /// Labels of a batch.
    Label,
    /// Lengths of a batch's sequences.
    Length,
}

impl PayloadKind {
    /// The name as it is written in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Head => "head",
            Self::Gradient => "gradient",
            Self::Logits => "logits",
            Self::Activation => "activation",
            Self::ActivationGradient => "activationGradient",
            Self::Label => "label",
            Self::Length => "length",
        }
    }
}

/// One client over the whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientReport {
    /// Its id, `group/index`.
    pub client: String,
    /// Its group, a trust domain.
    pub group: String,
    /// Training examples it holds.
    pub examples: u64,
    /// How many of them have each label, in label order.
    #[serde(default)]
    pub label_counts: Vec<u64>,
    /// Accuracy of its own model on the held-out examples, where clients evaluate themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// LoRA rank.
    pub rank: u32,
    /// Blocks it holds, in Split-FedLLM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_layer: Option<u32>,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens that went through its model in training.
    pub tokens: TokenCount,
    /// Floating point operations.
    pub flops: Flops,
    /// Where its time went.
    pub seconds: Seconds,
    /// Peak resident size of its process; in a local run a modelled figure, see `peak_memory_modelled`.
    pub peak_memory_bytes: u64,
    /// True where `peak_memory_bytes` is computed from shapes because clients share a process.
    #[serde(default)]
    pub peak_memory_modelled: bool,
}

/// Tokens, padding apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCount {
    /// Tokens of the text.
    pub real: u64,
    /// Tokens that only fill the batch.
    pub padding: u64,
}

/// Floating point operations by phase; a multiply and an add are two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flops {
    /// Training on private data.
    pub train: f64,
    /// Forward passes over the public set.
    pub public_forward: f64,
    /// Distillation steps.
    pub distill: f64,
    /// Evaluation; not part of the headline.
    pub evaluate: f64,
}

impl Flops {
    /// The headline: everything but evaluation.
    pub fn headline(&self) -> f64 {
        self.train + self.public_forward + self.distill
    }
}

/// Seconds by activity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Model work.
    pub compute: f64,
    /// Tensors to bytes and back.
    pub encode: f64,
    /// Sending and receiving.
    pub network: f64,
    /// Waiting for the other side or for a free core.
    pub wait: f64,
}

/// What the server computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerReport {
    /// Floating point operations.
    pub flops: Flops,
    /// Where its time went.
    pub seconds: Seconds,
    /// Peak resident size of its process; in a local run of the one process that holds everything.
    pub peak_memory_bytes: u64,
}

/// Figures of the final model on the held-out examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FinalReport {
    /// Share labelled rightly; of a CausalLM its choices' accuracy where there are choices, else its tokens'.
    pub accuracy: f64,
    /// Mean of the labels' F1.
    pub macro_f1: f64,
    /// Mean cross-entropy, in nats; a token, of a CausalLM.
    pub loss: f64,
    /// exp of the mean loss a token (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Share of the tokens to be said that are the likeliest after those before them (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Share of the greedy answers that are right, token by token (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
    /// Share of the examples with choices whose right one is the likeliest (CausalLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices_accuracy: Option<f64>,
    /// One entry a label, in label order.
    pub per_label: Vec<LabelFigures>,
    /// The client whose own model is worst, where clients evaluate themselves (KD, localOnly).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_client: Option<WorstClient>,
    /// Mean accuracy of the clients' own models (KD).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mean_accuracy: Option<f64>,
    /// Share of held-out examples that have the most frequent label: what guessing reaches.
    #[serde(default)]
    pub majority: f64,
}

/// Figures of one label.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelFigures {
    /// The label's own text.
    pub label: String,
    /// Held-out examples that have it.
    pub examples: u64,
    /// Right among those labelled so.
    pub precision: f64,
    /// Found among those that have it.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

/// The client whose own model is worst.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorstClient {
    /// Its id, `group/index`.
    pub client: String,
    /// Its accuracy.
    pub accuracy: f64,
}

/// Sums over rounds and clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Tensor bytes handed to the wire.
    pub payload_bytes: UpDown,
    /// Bytes the sockets carried.
    pub wire_bytes: UpDown,
    /// Headline FLOPs of all clients.
    pub client_flops: f64,
    /// Compute seconds of all clients.
    pub client_seconds: f64,
    /// Wall-clock seconds of the run.
    pub seconds: f64,
}

/// A figure in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpDown {
    /// Client to server.
    pub up: u64,
    /// Server to client.
    pub down: u64,
}

impl UpDown {
    /// Both directions together.
    pub fn sum(&self) -> u64 {
        self.up + self.down
    }
}

/// Payload bytes of a round by kind, both directions together.
pub fn bytes_by_kind(round: &RoundReport) -> BTreeMap<PayloadKind, u64> {
    let mut kinds = BTreeMap::new();
    for count in &round.bytes {
        *kinds.entry(count.kind).or_default() += count.payload;
    }
    kinds
}
