//! Steps of a split run: a server and one client on threads of this process, over loopback.
//! Must not shorten the way: every activation goes through encoder, socket and decoder.

use clap::Args;
use fedtune::{
    data::{Corpus, Record},
    models::{Base, LoadOptions, Precision},
    plan::Plan,
    run::{
        local::{self, Kept},
        materials::Materials,
    },
};
use fedtune_crds::load;
use serde_json::{Value, json};
use tch::Device;

use super::{
    clock::Clock,
    corpus::{LABELS, examples},
    places,
    steps::lora,
};
use crate::{error::BenchError, statistics::Spread};

/// Arguments of `work split-step`.
#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    #[arg(long, default_value_t = 16)]
    batch: usize,
    #[arg(long, default_value_t = 64)]
    seq: usize,
    #[arg(long, default_value_t = 2)]
    cut: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 12)]
    steps: usize,
    #[arg(long, default_value_t = 3)]
    warmup: usize,
}

/// Runs one round of so many steps.
pub(super) fn run(arguments: &SplitArgs) -> Result<Value, BenchError> {
    let plan = plan(arguments)?;
    let materials = materials(arguments)?;
    let clock = Clock::of("silo/0");
    local::run(&plan, &materials, Kept::Nowhere, &clock.events()).map_err(BenchError::trainer)?;
    let seconds = clock.seconds(arguments.warmup);
    Ok(json!({
        "seconds": Spread::of(seconds.iter().copied()).map(|spread| spread.median),
        "cpuSeconds": clock.mean_cpu_seconds(arguments.warmup),
        "each": seconds,
    }))
}

fn plan(arguments: &SplitArgs) -> Result<Plan, BenchError> {
    let SplitArgs { batch, seq, cut, threads, steps, warmup } = arguments;
    let steps = warmup + steps + 1;
    let yaml = format!(
        "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {{name: split}}
spec:
  framework: {{splitFedLLM: {{cutLayer: {cut}, variant: V1, head: Server, activationCodec: F32}}}}
  model: {{source: {{path: minilm}}, precision: F32}}
  tuning: {{lora: {{rank: 8, alpha: '16'}}}}
  data: {{source: {{path: none}}, evaluation: {{examples: 1}}}}
  training:
    {{rounds: 1, localSteps: {steps}, batchSize: {batch}, maxSequenceLength: {seq}, threads: {threads}, device: CPU,
    weightDecay: '0.01', optimizer: {{adamW: {{learningRate: '1e-4'}}}}}}
  clients: {{groups: [{{name: silo, replicas: 1}}]}}
"
    );
    let resource = load(&yaml, &[]).map_err(BenchError::trainer)?;
    Plan::of(&resource).map_err(BenchError::trainer)
}

fn materials(arguments: &SplitArgs) -> Result<Materials, BenchError> {
    let options = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };
    let base = Base::load(&places::models().join("minilm"), options).map_err(BenchError::trainer)?;
    let records: Vec<Record> = examples(50 * arguments.batch, base.shape().vocab, Some(LABELS), |_| arguments.seq)
        .into_iter()
        .map(|example| Record { tokens: example.tokens, label: example.label.map(label), answer: None })
        .collect();
    Ok(Materials {
        lora: lora(base.architecture()),
        base,
        initial: None,
        pad_id: 0,
        corpus: Corpus {
            evaluation: records[..1].to_vec(),
            clients: vec![records],
            public: Vec::new(),
            label_order: (0..LABELS as u32).map(label).collect(),
            data_hash: String::new(),
            partition_hash: String::new(),
        },
        tokenizer_hash: String::new(),
        run_hash: "split".to_owned(),
        model_name: "MiniLM".to_owned(),
        device_words: "CPU (F32)".to_owned(),
    })
}

fn label(index: u32) -> String {
    format!("label-{index:02}")
}
