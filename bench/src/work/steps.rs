//! Local training steps of one model: what a client does between two exchanges.
//! Must not leave anything of a step out: batches, optimizer and counters are the trainer's own.

use std::{fmt, path::PathBuf};

use clap::{Args, ValueEnum};
use fedtune::{
    data::{Example, LocalWork},
    local::{self, Recipe},
    meter::{Slots, Worker, peak_memory_bytes},
    models::{Architecture, Base, Head, LoadOptions, LoraSettings, Model, Part, Precision},
    optimizer::{OptimizerSettings, Rule},
    random::Key,
    schedule::Schedule,
};
use serde_json::{Value, json};
use tch::Device;

use super::{
    clock::Clock,
    corpus::{LABELS, banking77, examples},
    gpt2, places,
};
use crate::{error::BenchError, statistics::Spread};

/// Whom the clock listens to.
const WORKER: &str = "bench";

/// The models that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelName {
    /// BERT of 6 blocks, 22.7 M parameters.
    Minilm,
    /// 124 M parameters, random weights.
    Gpt2,
    /// Llama of 30 blocks, 135 M parameters.
    Smollm2,
}

impl ModelName {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Minilm, Self::Gpt2, Self::Smollm2];

    /// Rows and tokens of a batch.
    pub(crate) fn batch(self) -> (usize, usize) {
        match self {
            Self::Minilm | Self::Gpt2 => (16, 64),
            Self::Smollm2 => (4, 128),
        }
    }

    /// Steps that are timed, and those before that are not.
    pub(crate) fn steps(self) -> (usize, usize) {
        match self {
            Self::Minilm => (12, 3),
            Self::Gpt2 | Self::Smollm2 => (5, 2),
        }
    }

    /// As the table calls it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Minilm => "MiniLM, 77 classes",
            Self::Gpt2 => "GPT-2 small (random weights), 77 classes",
            Self::Smollm2 => "SmolLM2-135M, causal LM",
        }
    }

    fn path(self) -> PathBuf {
        match self {
            Self::Minilm => places::models().join("minilm"),
            Self::Gpt2 => places::scratch().join(gpt2::FOLDER),
            Self::Smollm2 => places::models().join("smollm2"),
        }
    }

    fn head(self) -> Head {
        match self {
            Self::Minilm | Self::Gpt2 => Head::Classifier(LABELS),
            Self::Smollm2 => Head::Language,
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Minilm => "minilm",
            Self::Gpt2 => "gpt2",
            Self::Smollm2 => "smollm2",
        })
    }
}

/// Element type of base and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Elements {
    #[value(name = "F32")]
    F32,
    #[value(name = "BF16")]
    BF16,
}

/// How long rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lengths {
    /// All as long as `--seq`.
    Full,
    /// As Banking77 has them.
    Banking77,
}

/// Arguments of `work step`.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    #[arg(long, value_enum, default_value_t = ModelName::Minilm)]
    model: ModelName,
    #[arg(long, value_enum, default_value_t = Elements::F32)]
    precision: Elements,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 16)]
    batch: usize,
    #[arg(long, default_value_t = 64)]
    seq: usize,
    #[arg(long, default_value_t = 12)]
    steps: usize,
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    #[arg(long, value_enum, default_value_t = Lengths::Full)]
    lengths: Lengths,
}

/// Trains for some steps.
pub(super) fn run(arguments: &StepArgs) -> Result<Value, BenchError> {
    let StepArgs { model, batch, steps, warmup, threads, .. } = *arguments;
    let base = load(&model.path(), arguments.precision, model.head())?;
    let lora = lora(base.architecture());
    let model = Model::new(base, &lora, arguments.model.head(), 0).map_err(BenchError::trainer)?;
    let examples = make_examples(arguments, &model);
    // Each interval ends where a step does, so one more step than intervals.
    let recipe = recipe(lora, &model, warmup + steps + 1, batch, arguments.seq);
    let clock = Clock::of(WORKER);
    let mut worker = Worker::new(WORKER, Slots::new(1, threads), clock.events());
    let loss = local::train(&model, &examples, &recipe, Key { round: 1, ..Key::default() }, &mut worker)
        .map_err(BenchError::trainer)?;
    let seconds = clock.seconds(warmup);
    let total: f64 = seconds.iter().sum();
    Ok(json!({
        "seconds": Spread::of(seconds.iter().copied()).map(|spread| spread.median),
        "cpuSeconds": clock.mean_cpu_seconds(warmup),
        "examplesPerSecond": (seconds.len() * batch) as f64 / total,
        "peakBytes": peak_memory_bytes(),
        "trained": model.adapter().tensors(Part::Whole).iter().map(|tensor| tensor.numel()).sum::<usize>(),
        "loss": loss,
        "each": seconds,
    }))
}

fn load(path: &std::path::Path, elements: Elements, head: Head) -> Result<Base, BenchError> {
    let precision = match elements {
        Elements::F32 => Precision::F32,
        Elements::BF16 => Precision::BF16,
    };
    let options = LoadOptions { precision, device: Device::Cpu, language_head: head == Head::Language };
    Base::load(path, options).map_err(BenchError::trainer)
}

/// Rank 8, alpha 16, no dropout, on the layers that adapters of this architecture usually take.
pub(super) fn lora(architecture: Architecture) -> LoraSettings {
    let target_modules = architecture.default_targets().iter().map(ToString::to_string).collect();
    LoraSettings { rank: 8, alpha: 16.0, dropout: 0.0, rs_lora: false, target_modules }
}

fn make_examples(arguments: &StepArgs, model: &Model) -> Vec<Example> {
    let (vocab, seq) = (model.shape().vocab, arguments.seq);
    let labels = match model.head() {
        Head::Classifier(labels) => Some(labels),
        Head::Language => None,
    };
    // As many as a client's epoch of fifty batches: what is sorted by length together.
    let count = 50 * arguments.batch;
    match arguments.lengths {
        Lengths::Full => examples(count, vocab, labels, |_| seq),
        Lengths::Banking77 => examples(count, vocab, labels, |stream| banking77(stream, seq)),
    }
}

/// How to train: AdamW at 1e-4, as the peers do.
pub(super) fn recipe(lora: LoraSettings, model: &Model, steps: usize, batch: usize, seq: usize) -> Recipe {
    Recipe {
        work: LocalWork::Steps(steps),
        rounds: 1,
        batch_size: batch,
        accumulation: 1,
        optimizer: OptimizerSettings {
            rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
            learning_rate: 1e-4,
            schedule: Schedule::Constant { warmup: 0 },
            weight_decay: 0.01,
            gradient_clipping: 0.0,
        },
        lora,
        head: model.head(),
        labels: LABELS,
        max_length: seq,
        seed: 0,
        pad_id: 0,
        proximal_mu: 0.0,
        gradient_checkpointing: false,
        rank_beside: 0,
    }
}
