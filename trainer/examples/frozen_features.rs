//! Writes what the classification head of a spec's base model sees before any training: features of the clients' examples
//! and of the evaluation set, for `scripts/logistic_regression.py`. Must not train: what fine-tuning adds is the question.
//!
//! ```text
//! cargo run --release -p fedtune --example frozen_features -- SPEC OUT [--set PATH=VALUE]... [--limit N]
//! ```
//!
//! OUT is a safetensors file with `train.features` and `evaluation.features`, `[examples, hidden]` in F32, and
//! `train.labels` and `evaluation.labels`, `[examples]` in I64.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use clap::Parser;
use fedtune::{
    data::{Example, Labels, Record, encode, evaluation_batches},
    events::Events,
    models::{Head, Model, Tokens},
    plan::Plan,
    run::materials::{Materials, Shelf},
    sources::Access,
};
use tch::{Kind, Tensor};

/// Rows of a batch; the features do not depend on it.
const BATCH: usize = 16;

#[derive(Parser)]
struct Arguments {
    /// File of one resource.
    spec: PathBuf,
    /// The safetensors file to write.
    out: PathBuf,
    /// Changes one field, as in `model.precision=F32`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Takes so many training examples, from each client in proportion, spread evenly over what it holds.
    #[arg(long)]
    limit: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let plan = plan(&arguments)?;
    tch::set_num_threads(plan.threads as i32);
    let materials = Shelf::new(None, Access::from_environment(), Events::silent()).take(&plan)?;
    let labels = Labels::new(materials.corpus.label_order.clone());
    let train = encode(&chosen(&materials.corpus.clients, arguments.limit), &labels)?;
    let evaluation = encode(&materials.corpus.evaluation, &labels)?;
    let pad_id = materials.pad_id;
    let model = untrained(materials, labels.len(), plan.seed)?;
    let tensors = [
        ("train.features", features(&model, &train, pad_id, "training")),
        ("train.labels", label_tensor(&train)?),
        ("evaluation.features", features(&model, &evaluation, pad_id, "evaluation")),
        ("evaluation.labels", label_tensor(&evaluation)?),
    ];
    Tensor::write_safetensors(&tensors, &arguments.out).with_context(|| arguments.out.display().to_string())
}

fn plan(arguments: &Arguments) -> anyhow::Result<Plan> {
    let text = fs::read_to_string(&arguments.spec).with_context(|| arguments.spec.display().to_string())?;
    let resources = fedtune_crds::load_all(&text, &arguments.sets)?;
    ensure!(resources.len() == 1, "expected one resource in {}", arguments.spec.display());
    Ok(Plan::of(&resources[0])?)
}

/// The clients' records. They lie in the source's order, label after label, so the first ones would be of one kind.
fn chosen(clients: &[Vec<Record>], limit: Option<usize>) -> Vec<Record> {
    let all: Vec<&Record> = clients.iter().flatten().collect();
    let take = limit.unwrap_or(all.len()).min(all.len());
    (0..take).map(|index| all[index * all.len() / take].clone()).collect()
}

/// A fresh adapter changes nothing: its B is zero.
fn untrained(materials: Materials, labels: usize, seed: u64) -> anyhow::Result<Model> {
    Ok(Model::new(materials.base, &materials.lora, Head::Classifier(labels), seed)?)
}

/// `[examples, hidden]`, F32, in the order of `examples`.
fn features(model: &Model, examples: &[Example], pad_id: u32, name: &str) -> Tensor {
    let lengths: Vec<usize> = examples.iter().map(|example| example.tokens.len()).collect();
    let mut rows: Vec<Option<Tensor>> = examples.iter().map(|_| None).collect();
    let mut done = 0;
    for batch in evaluation_batches(&lengths, BATCH) {
        let tokens: Vec<&[u32]> = batch.iter().map(|&index| &examples[index].tokens[..]).collect();
        let tokens = Tokens::right_padded(&tokens, pad_id, model.device());
        let pooled = tch::no_grad(|| model.pooled(&tokens)).to_kind(Kind::Float); // [batch, hidden]
        for (&index, row) in batch.iter().zip(pooled.unbind(0)) {
            rows[index] = Some(row);
        }
        done += batch.len();
        eprint!("\r{done} of {} {name} examples", examples.len());
    }
    eprintln!();
    Tensor::stack(&rows.into_iter().flatten().collect::<Vec<_>>(), 0)
}

fn label_tensor(examples: &[Example]) -> anyhow::Result<Tensor> {
    let labels: Option<Vec<i64>> = examples.iter().map(|example| example.label.map(i64::from)).collect();
    Ok(Tensor::from_slice(&labels.context("an example has no label")?))
}
