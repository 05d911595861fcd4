//! The server's mean of many clients' adapters: taken one by one as they come, combined when the round closes.
//! Must not call the mean itself: adapters go the way of uploads, with all their checks.

use std::time::{Duration, Instant};

use clap::Args;
use fedtune::{
    frameworks::{Figures, ServerHalf, ServerSeat, Spare, answer, ask},
    meter::{Slots, Worker, peak_memory_bytes},
    models::{Base, Head, LoadOptions, LoraSettings, Model, Precision},
    plan::Plan,
    rounds::Exchange,
    wire::Message,
};
use fedtune_crds::load;
use serde_json::{Value, json};
use tch::Device;

use super::{
    corpus::LABELS,
    places,
    steps::{lora, recipe},
};
use crate::error::BenchError;

/// Arguments of `work aggregation`.
#[derive(Debug, Args)]
pub(crate) struct AggregationArgs {
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Of the adapter of MiniLM's queries and values: 8 is 413 kB, 456 is 16.8 MB.
    #[arg(long, default_value_t = 8)]
    rank: usize,
}

const ROUND: Exchange = Exchange { round: 1, index: 0 };

/// Takes one round's uploads and closes it.
pub(super) fn run(arguments: &AggregationArgs) -> Result<Value, BenchError> {
    let AggregationArgs { clients, rank } = *arguments;
    let mut half = server(clients, rank)?;
    let sent = half.ask(0, ROUND).map_err(BenchError::trainer)?;
    let bytes = sent.payload_bytes();
    // A round of two, so that what any round needs is not taken for what the clients need.
    round(half.as_mut(), &sent, 2)?;
    let before = peak_memory_bytes();
    let first = round(half.as_mut(), &sent, clients)?;
    let grown = peak_memory_bytes() - before;
    let taken = round(half.as_mut(), &sent, clients)?;
    Ok(json!({
        "bytesPerSecond": (bytes * clients as u64) as f64 / taken.as_secs_f64(),
        "seconds": taken.as_secs_f64(),
        "firstRoundSeconds": first.as_secs_f64(),
        "adapterBytes": bytes,
        "grownBytes": grown,
        "grownAdapters": grown as f64 / bytes as f64,
    }))
}

/// Time that the server took for it; making the messages is the clients'.
fn round(half: &mut dyn ServerHalf, sent: &Message, clients: usize) -> Result<Duration, BenchError> {
    let mut taken = Duration::ZERO;
    for client in 0..clients {
        let upload = upload(sent);
        let started = Instant::now();
        half.take(client, ROUND, &upload, &Figures::default()).map_err(BenchError::trainer)?;
        drop(upload);
        taken += started.elapsed();
    }
    let answered: Vec<(usize, u64)> = (0..clients).map(|client| (client, 100 + client as u64)).collect();
    let started = Instant::now();
    half.close(ROUND, &answered).map_err(BenchError::trainer)?;
    Ok(taken + started.elapsed())
}

/// An upload in memory of its own, as the network brings it.
fn upload(sent: &Message) -> Message {
    let mut upload = Message { tensors: sent.tensors.clone(), ..answer(&ask(ROUND)) };
    for tensor in &mut upload.tensors {
        tensor.bytes = tensor.bytes.to_vec().into();
    }
    upload
}

fn server(clients: usize, rank: usize) -> Result<Box<dyn ServerHalf>, BenchError> {
    let options = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };
    let base = Base::load(&places::models().join("minilm"), options).map_err(BenchError::trainer)?;
    let lora = LoraSettings { rank, ..lora(base.architecture()) };
    let model = Model::new(base, &lora, Head::Classifier(LABELS), 0).map_err(BenchError::trainer)?;
    let recipe = recipe(lora, &model, 1, 1, 64);
    let plan = plan(clients, rank)?;
    Ok(plan.framework.server_half(ServerSeat {
        recipe,
        model,
        spare: Spare(Box::new(|| unreachable!("FedLLM has one model"))),
        clients: plan.clients.iter().map(ToString::to_string).collect(),
        all_data: Vec::new(),
        public: Vec::new(),
        evaluation: Vec::new(),
        worker: Worker::new("server", Slots::new(1, 1), fedtune::events::Events::silent()),
    }))
}

fn plan(clients: usize, rank: usize) -> Result<Plan, BenchError> {
    let yaml = format!(
        "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {{name: aggregation}}
spec:
  framework: {{fedLLM: {{}}}}
  model: {{source: {{path: minilm}}, precision: F32}}
  tuning: {{lora: {{rank: {rank}, alpha: '16'}}}}
  data: {{source: {{path: none}}, evaluation: {{examples: 1}}}}
  training: {{rounds: 1, localSteps: 1, optimizer: {{adamW: {{learningRate: '1e-4'}}}}}}
  clients: {{groups: [{{name: silo, replicas: {clients}}}]}}
"
    );
    let resource = load(&yaml, &[]).map_err(BenchError::trainer)?;
    Plan::of(&resource).map_err(BenchError::trainer)
}
