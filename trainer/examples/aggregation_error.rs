//! Prints how far each aggregation of FedLLM is from the mean product after the rounds of a spec; for `docs/aggregation.md`.
//! Must not differ from a run: it runs the spec once for each aggregation, in this process.
//!
//! ```text
//! cargo run -p fedtune --example aggregation_error -- SPEC [--set PATH=VALUE]...
//! ```

use std::path::PathBuf;

use clap::Parser;
use fedtune::{
    averages::weighted_means,
    events::Events,
    low_rank::LowRank,
    models::{LoraSettings, Model, Residual},
    plan::Plan,
    run::{
        local::{Ended, Kept, run},
        materials::Shelf,
    },
    sources::Access,
};
use tch::{Kind, Tensor};

const AGGREGATIONS: [&str; 5] = ["FedAvg", "FFALoRA", "FLoRA", "FedExLoRA", "FlexLoRA"];

#[derive(Parser)]
struct Arguments {
    spec: PathBuf,
    #[arg(long = "set")]
    sets: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let yaml = std::fs::read_to_string(&arguments.spec)?;
    let mut shelf = Shelf::new(None, Access::from_environment(), Events::silent());
    println!("| aggregation | mean error | largest error | accuracy | loss | bytes down | bytes up |");
    for aggregation in AGGREGATIONS {
        let mut sets = arguments.sets.clone();
        sets.push(format!("framework={{fedLLM: {{aggregation: {aggregation}}}}}"));
        let plan = Plan::of(&fedtune_crds::load(&yaml, &sets)?)?;
        let materials = shelf.take(&plan)?;
        let ended = run(&plan, &materials, Kept::Nowhere, &Events::silent())?;
        let errors = errors(&plan, &materials.lora, &ended);
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let largest = errors.iter().copied().fold(0.0, f64::max);
        let (last, carried) = (ended.outcome.account.final_figures(), ended.outcome.ledger.total().payload);
        let (accuracy, loss, down, up) = (last.accuracy, last.loss, carried.down, carried.up);
        println!("| {aggregation} | {mean:.1e} | {largest:.1e} | {accuracy:.3} | {loss:.3} | {down} | {up} |");
    }
    Ok(())
}

/// Frobenius distance of each module's global update to the clients' mean, in proportion to this.
fn errors(plan: &Plan, lora: &LoraSettings, ended: &Ended) -> Vec<f64> {
    let examples = ended.outcome.account.clients(plan).into_iter().map(|client| client.examples as f64);
    let updates = ended
        .clients
        .iter()
        .enumerate()
        .map(|(ordinal, client)| update(&client.half.seat().model, &plan.lora_of(ordinal, lora)));
    let weighed: Vec<(f64, Vec<Tensor>)> = examples.zip(updates).collect();
    let means = weighted_means(weighed.iter().map(|(examples, update)| (*examples, &update[..])));
    let global = ended.outcome.half.model().map(|model| update(model, lora)).unwrap_or_default();
    global.iter().zip(&means).map(|(global, mean)| norm(&(global - mean)) / norm(mean)).collect()
}

/// All that is beside the weight of each module.
fn update(model: &Model, lora: &LoraSettings) -> Vec<Tensor> {
    let modules = model.adapter().pairs().zip(model.residuals());
    let whole = modules.map(|([a, b], residual)| {
        let pair = LowRank { up: b.tensor.detach() * lora.scale(), down: a.tensor.detach() };
        let beside = residual.as_ref().map(Residual::factors);
        let LowRank { up, down } = LowRank::sum(&beside.into_iter().chain([pair]).collect::<Vec<_>>());
        up.to_kind(Kind::Double).matmul(&down.to_kind(Kind::Double))
    });
    whole.collect()
}

fn norm(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]).sqrt()
}
