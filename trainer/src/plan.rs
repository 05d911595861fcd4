//! The plan of a run: the spec parsed once into types that cannot be wrong, before anything is read or started.
//! Must not touch files, models or the network; what needs those is checked where they are read.

use fedtune_crds::{
    FederatedFineTune,
    model::{Precision as SpecPrecision, Task as SpecTask},
    spec_hash, training as spec,
};
use serde_json::Value;
use thiserror::Error;

use crate::{
    data::{DataPlan, batches::LocalWork},
    frameworks::{self, Refused, SharedFramework},
    local::Recipe,
    models::{Head, LoraSettings, Precision},
    optimizer::{OptimizerSettings, Rule},
    rounds::Rules,
    schedule::Schedule,
    sources::{Origin, Store},
    stop::StopRules,
};

mod data;
mod unsupported;

/// Everything that a run is.
#[derive(Debug)]
pub struct Plan {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`, which a run on a cluster has.
    pub uid: Option<String>,
    /// `resumeFrom.uid`: the earlier run that this one goes on from.
    pub resumes: Option<String>,
    /// `spec.experiment`.
    pub experiment: String,
    /// `spec.attempt`.
    pub attempt: u32,
    /// `spec.seed`.
    pub seed: u64,
    /// The framework with its options.
    pub framework: SharedFramework,
    /// Where the base model comes from.
    pub model: Origin,
    /// What is learned.
    pub task: Task,
    /// Element type of base weights and activations.
    pub precision: Precision,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Threads of each worker.
    pub threads: usize,
    /// What is trained and evaluated on.
    pub data: DataPlan,
    /// The adapter of the server's model.
    pub lora: LoraSettings,
    /// LoRA rank of each client, by ordinal.
    pub ranks: Vec<usize>,
    /// Folder of the adapter to start from; none for a fresh one.
    pub initial_adapter: Option<Origin>,
    /// Steps or epochs of a round.
    pub work: LocalWork,
    /// Examples of a batch.
    pub batch_size: usize,
    /// Batches of an optimizer step.
    pub accumulation: usize,
    /// How parameters move.
    pub optimizer: OptimizerSettings,
    /// Whether blocks run again in backward, so that their activations need not be kept.
    pub gradient_checkpointing: bool,
    /// Rounds and who takes part in them.
    pub rules: Rules,
    /// When the run may end before its last round.
    pub stop: StopRules,
    /// The store that results are taken to, where the spec has one.
    pub output: Option<Box<Store>>,
    /// Ids of all clients, by ordinal.
    pub clients: Vec<ClientId>,
    /// Clients that have series of their own in the metrics.
    pub max_client_series: usize,
    /// The spec with its defaults, for the report.
    pub spec: Value,
    /// SHA-256 of what in the spec decides the result.
    pub spec_hash: String,
}

/// A client's id, `group/index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientId {
    /// Its group, a trust domain.
    pub group: String,
    /// Its index in the group.
    pub index: usize,
}

impl std::fmt::Display for ClientId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.group, self.index)
    }
}

/// `spec.model.task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One label a text.
    Classification,
    /// The next token.
    Language,
}

/// `spec.training.device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where libtorch has it and a GPU is visible, else CPU.
    Auto,
    /// CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

/// Why a valid resource is not a plan for this version.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Fields that no code does yet.
    #[error("{}", join(.0))]
    Refused(Vec<Refused>),
}

fn join(refused: &[Refused]) -> String {
    refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Plan {
    /// Parses a resource whose own rules all hold.
    pub fn of(resource: &FederatedFineTune) -> Result<Self, PlanError> {
        let spec = &resource.spec;
        let mut refused = unsupported::find(spec);
        let framework = frameworks::parse(spec).map_err(|mut more| {
            more.append(&mut refused);
            PlanError::Refused(more)
        })?;
        if !refused.is_empty() {
            return Err(PlanError::Refused(refused));
        }
        let needs = framework.needs();
        Ok(Self {
            name: resource.metadata.name.clone().unwrap_or_default(),
            uid: resource.metadata.uid.clone(),
            resumes: spec.resume_from.as_ref().map(|earlier| earlier.uid.clone()),
            experiment: spec.experiment.clone(),
            attempt: spec.attempt,
            seed: spec.seed,
            model: Origin::of(&spec.model.source),
            task: match spec.model.task {
                SpecTask::SequenceClassification => Task::Classification,
                SpecTask::CausalLm => Task::Language,
            },
            precision: match spec.model.precision {
                SpecPrecision::F32 => Precision::F32,
                SpecPrecision::BF16 => Precision::BF16,
            },
            device: match spec.training.device {
                spec::Device::Auto => DeviceChoice::Auto,
                spec::Device::Cpu => DeviceChoice::Cpu,
                spec::Device::Cuda => DeviceChoice::Cuda,
            },
            threads: spec.training.threads as usize,
            data: data::parse(spec, needs.client_evaluates),
            lora: lora(&spec.tuning.lora, framework.as_ref()),
            ranks: frameworks::ranks(spec),
            initial_adapter: spec.tuning.lora.initial_adapter.as_ref().map(Origin::of),
            work: match spec.training.local_work() {
                spec::LocalWork::Steps(steps) => LocalWork::Steps(steps as usize),
                spec::LocalWork::Epochs(epochs) => LocalWork::Epochs(epochs as usize),
            },
            batch_size: spec.training.batch_size as usize,
            accumulation: spec.training.gradient_accumulation.max(1) as usize,
            optimizer: optimizer(&spec.training),
            gradient_checkpointing: spec.training.gradient_checkpointing,
            rules: rules(spec, needs),
            stop: StopRules::of(&spec.stop),
            output: spec.output.as_ref().and_then(|output| output.s3.as_ref()).map(|s3| Box::new(Store::of(s3))),
            clients: client_ids(spec),
            max_client_series: spec.metrics.max_client_series as usize,
            spec: serde_json::to_value(spec).expect("a spec is made of JSON's own types"),
            spec_hash: spec_hash(spec),
            framework,
        })
    }

    /// What certificates call the run: its uid where it has one, else its name.
    pub fn run(&self) -> &str {
        self.uid.as_deref().unwrap_or(&self.name)
    }

    /// How everyone trains, now that the labels and the tokenizer are known.
    pub fn recipe(&self, labels: usize, pad_id: u32, lora: LoraSettings) -> Recipe {
        Recipe {
            work: self.work,
            rounds: self.rules.rounds,
            batch_size: self.batch_size,
            accumulation: self.accumulation,
            optimizer: self.optimizer.clone(),
            lora,
            head: self.head(labels),
            labels,
            max_length: self.data.max_sequence_length,
            seed: self.seed,
            pad_id,
            proximal_mu: 0.0,
            gradient_checkpointing: self.gradient_checkpointing,
            rank_beside: 0,
        }
    }

    /// What the model ends in, with so many labels.
    pub fn head(&self, labels: usize) -> Head {
        match self.task {
            Task::Classification => Head::Classifier(labels),
            Task::Language => Head::Language,
        }
    }

    /// `lora`, whose targets are resolved, as this client has it.
    pub fn lora_of(&self, ordinal: usize, lora: &LoraSettings) -> LoraSettings {
        LoraSettings { rank: self.ranks[ordinal], ..lora.clone() }
    }

    /// The ordinal of a client id such as `silo-a/0`.
    pub fn ordinal(&self, id: &str) -> Option<usize> {
        self.clients.iter().position(|client| client.to_string() == id)
    }
}

fn lora(spec: &fedtune_crds::tuning::Lora, framework: &dyn frameworks::Framework) -> LoraSettings {
    LoraSettings {
        rank: framework.global_rank(spec.rank as usize),
        alpha: spec.alpha.value(),
        dropout: spec.dropout.value(),
        rs_lora: spec.rs_lora,
        target_modules: spec.target_modules.clone(),
    }
}

fn optimizer(training: &spec::Training) -> OptimizerSettings {
    let (rule, learning_rate) = match &training.optimizer {
        spec::Optimizer { sgd: Some(sgd), .. } => {
            (Rule::Sgd { momentum: sgd.momentum.value() }, sgd.learning_rate.value())
        }
        spec::Optimizer { adam_w, sgd: None } => {
            let adam = adam_w.clone().unwrap_or_default();
            let (beta1, beta2, epsilon) = (adam.beta1.value(), adam.beta2.value(), adam.epsilon.value());
            (Rule::AdamW { beta1, beta2, epsilon }, adam.learning_rate.value())
        }
    };
    OptimizerSettings {
        rule,
        learning_rate,
        schedule: schedule(&training.schedule),
        weight_decay: training.weight_decay.value(),
        gradient_clipping: training.gradient_clipping.value(),
    }
}

fn schedule(spec: &spec::Schedule) -> Schedule {
    if let Some(linear) = spec.linear {
        return Schedule::Linear { warmup: linear.warmup_steps.into() };
    }
    if let Some(cosine) = spec.cosine {
        return Schedule::Cosine { warmup: cosine.warmup_steps.into() };
    }
    Schedule::Constant { warmup: spec.constant.unwrap_or_default().warmup_steps.into() }
}

fn rules(spec: &fedtune_crds::FederatedFineTuneSpec, needs: frameworks::Needs) -> Rules {
    let clients = if needs.clients { spec.clients.count() as usize } else { 0 };
    let participation = &spec.participation;
    Rules {
        clients,
        min_clients: participation.min_clients.map_or(clients, |least| (least as usize).min(clients)),
        fraction: participation.fraction.value(),
        rounds: spec.training.rounds,
        exchanges: needs.exchanges,
        turns: needs.turns,
        round_timeout: participation.round_timeout.duration(),
        quorum_timeout: participation.quorum_timeout.duration(),
        seed: spec.seed,
    }
}

fn client_ids(spec: &fedtune_crds::FederatedFineTuneSpec) -> Vec<ClientId> {
    let groups = spec.clients.groups.iter();
    let members = |group: &fedtune_crds::clients::Group| {
        let name = group.name.clone();
        (0..group.replicas as usize).map(move |index| ClientId { group: name.clone(), index })
    };
    groups.flat_map(members).collect()
}
