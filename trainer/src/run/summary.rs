//! What server and clients did, as the `RunReport` that is written down.
//! Must not measure: it puts figures in their places.

use fedtune_crds::report::{
    ClientReport, Environment, FinalReport, Hashes, RunPhase, RunReport, SCHEMA_VERSION, ServerReport, Totals,
};

use super::{local::Ended, materials::Materials, uid};
use crate::{
    flops::{self, BatchSize},
    meter::peak_memory_bytes,
    models::{Head, LoraSettings, Model, Part},
    plan::Plan,
    stop,
};

/// The report of a run that did all its rounds, or that a stop rule ended.
pub fn succeeded(plan: &Plan, materials: &Materials, ended: &Ended) -> RunReport {
    let outcome = &ended.outcome;
    let meter = outcome.half.meter();
    let clients = outcome.account.clients(plan);
    let head = plan.head(outcome.labels.len());
    let clients = if ended.apart { clients } else { modelled(plan, materials, clients, head, beside_the_base(ended)) };
    let (rounds, carried) = (outcome.account.rounds().to_vec(), outcome.ledger.total());
    let totals = Totals {
        payload_bytes: carried.payload,
        wire_bytes: carried.wire,
        client_flops: total(clients.iter().map(|client| client.flops.headline())),
        client_seconds: total(clients.iter().map(|client| client.seconds.compute)),
        seconds: total(rounds.iter().map(|round| round.seconds)),
    };
    let stopped = plan.stop.met(&rounds, plan.rules.rounds);
    let stop_reason = stopped.map_or(stop::ROUNDS, |stop| stop.rule);
    RunReport {
        rounds,
        clients,
        server: ServerReport { flops: meter.flops, seconds: meter.seconds, peak_memory_bytes: peak_memory_bytes() },
        final_figures: outcome.account.final_figures(),
        totals,
        // One that goes on from an earlier run has its name from there among clients, and its own in the report.
        uid: plan.uid.clone().unwrap_or_else(|| outcome.uid.clone()),
        ..frame(plan, materials, RunPhase::Succeeded, stop_reason)
    }
}

/// The sum; of nothing it is zero (`Iterator::sum` of floats gives a negative zero).
fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// The report of a run that ended with `error`.
pub fn failed(plan: &Plan, materials: &Materials, error: &str) -> RunReport {
    frame(plan, materials, RunPhase::Failed, error)
}

/// All that is known before the first round.
fn frame(plan: &Plan, materials: &Materials, phase: RunPhase, stop_reason: &str) -> RunReport {
    RunReport {
        schema_version: SCHEMA_VERSION,
        name: plan.name.clone(),
        uid: uid::text(plan),
        run_hash: materials.run_hash.clone(),
        experiment: plan.experiment.clone(),
        framework: plan.framework.name(),
        seed: plan.seed,
        attempt: plan.attempt,
        phase,
        stop_reason: stop_reason.to_owned(),
        spec: plan.spec.clone(),
        hashes: Hashes {
            spec: plan.spec_hash.clone(),
            base_model: materials.base.hash(),
            tokenizer: materials.tokenizer_hash.clone(),
            data: materials.corpus.data_hash.clone(),
            partition: materials.corpus.partition_hash.clone(),
        },
        environment: Environment {
            fedtune: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: env!("FEDTUNE_LIBTORCH").to_owned(),
            isa: isa().to_owned(),
            threads: plan.threads as u32,
            device: materials.device_words.clone(),
        },
        rounds: Vec::new(),
        clients: Vec::new(),
        server: ServerReport::default(),
        final_figures: FinalReport::default(),
        totals: Totals::default(),
    }
}

/// Bytes of what rounds have left beside the base; the clients hold what the server holds.
fn beside_the_base(ended: &Ended) -> u64 {
    let residuals = ended.outcome.half.model().map(Model::residuals).unwrap_or_default();
    residuals.iter().flatten().map(|residual| 4 * residual.size() as u64).sum()
}

/// Clients of one process share its memory: each gets a figure computed from shapes, and says so.
fn modelled(
    plan: &Plan,
    materials: &Materials,
    clients: Vec<ClientReport>,
    head: Head,
    beside: u64,
) -> Vec<ClientReport> {
    let shape = materials.base.shape();
    let (rows, seq) = (plan.batch_size, plan.data.max_sequence_length);
    let reads = match head {
        Head::Classifier(_) => rows,
        // At most every token is said.
        Head::Language => rows * seq,
    };
    let memory = if plan.gradient_checkpointing { flops::modelled_checkpointed_memory } else { flops::modelled_memory };
    let model = |client: ClientReport| {
        let part = plan.ordinal(&client.client).map_or(Part::Whole, |ordinal| plan.framework.client_part(ordinal));
        let lora = LoraSettings { rank: client.rank as usize, ..materials.lora.clone() };
        let bytes = memory(shape, part, &lora, head, BatchSize { rows, seq, reads }, plan.precision) + beside;
        ClientReport { peak_memory_bytes: bytes, peak_memory_modelled: true, ..client }
    };
    clients.into_iter().map(model).collect()
}

/// Instruction set of libtorch's kernels, by its own rule: the best that the processor has, or `ATEN_CPU_CAPABILITY`.
fn isa() -> &'static str {
    match std::env::var("ATEN_CPU_CAPABILITY").as_deref() {
        Ok("default") => "DEFAULT",
        Ok("avx2") => "AVX2",
        Ok(_) | Err(_) => best_isa(),
    }
}

#[cfg(target_arch = "x86_64")]
fn best_isa() -> &'static str {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("fma");
    match (avx512, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        (true, _) => "AVX512",
        (false, true) => "AVX2",
        (false, false) => "DEFAULT",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best_isa() -> &'static str {
    std::env::consts::ARCH
}
