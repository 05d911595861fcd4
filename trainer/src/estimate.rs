//! What a run will cost before it runs: bytes, operations and memory, by client and round.
//! Must not have formulas of its own: the framework's, which are checked while a run goes on, and the meter's.
//!
//! | file | one thing |
//! |---|---|
//! | `facts.rs` | what is known before a run: the model's shape, and the data or a bound in its place |
//! | `table.rs` | estimates side by side, and which of them fits a budget |

use fedtune_crds::report::{Direction, FrameworkName, UpDown};
use serde::Serialize;

use crate::{
    data::Example,
    flops::{self, BatchSize},
    frameworks::{PayloadFacts, StepSizes, WorkFacts, public_reads},
    local::{Recipe, plan as batches_of},
    models::Part,
    plan::Plan,
    random::Key,
};

mod facts;
mod table;

pub use facts::{Facts, FactsError};
pub use table::{Budget, table, verdict};

/// What a client's process takes beside its model: program, libtorch, tokenizer, data and the allocator's slack. Measured
/// on the CPU, as what is left of the peaks (`VmHWM`) of clients of MiniLM once the model of their memory is subtracted:
/// with it the model was within 11 % of each, from 0.5 to 8 thousand tokens a batch, in F32 and BF16.
pub const PROCESS_BYTES: u64 = 130_000_000;

/// What one run of a spec will cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// `metadata.name` of the spec.
    pub run: String,
    /// The framework that was put into it.
    pub framework: FrameworkName,
    /// Whether the spec itself asks for this framework.
    pub own: bool,
    /// Why the figures are upper bounds; nothing where the data was there, so that bytes are exact.
    pub bound: Option<String>,
    /// One entry a client, in ordinal order; none where only the server works.
    pub clients: Vec<ClientEstimate>,
}

/// What one client will send, receive, compute and hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientEstimate {
    /// Its id, `group/index`.
    pub client: String,
    /// Peak resident bytes of its process, modelled.
    pub memory_bytes: u64,
    /// The rounds that it is asked in.
    pub rounds: Vec<RoundEstimate>,
}

/// One client in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoundEstimate {
    /// From 1.
    pub round: u32,
    /// Payload bytes.
    pub payload_bytes: UpDown,
    /// Operations of training, distillation and public forward passes.
    pub flops: f64,
}

impl Estimate {
    /// The run of `plan` on what `facts` say.
    pub fn of(plan: &Plan, facts: &Facts, own: bool) -> Self {
        let recipe = plan.recipe(facts.labels, 0, facts.lora.clone());
        let count = plan.rules.clients;
        let clients = (0..count).map(|client| ClientEstimate::of(plan, facts, &recipe, client)).collect();
        Self { run: plan.name.clone(), framework: plan.framework.name(), own, bound: facts.bound.clone(), clients }
    }

    /// Payload bytes of all clients and rounds.
    pub fn bytes(&self) -> UpDown {
        let rounds = self.clients.iter().flat_map(|client| &client.rounds);
        rounds.fold(UpDown::default(), |sum, round| UpDown {
            up: sum.up + round.payload_bytes.up,
            down: sum.down + round.payload_bytes.down,
        })
    }

    /// Operations of all clients and rounds.
    pub fn flops(&self) -> f64 {
        self.clients.iter().flat_map(|client| &client.rounds).fold(0.0, |sum, round| sum + round.flops)
    }

    /// Bytes of the client that needs most.
    pub fn memory_bytes(&self) -> u64 {
        self.clients.iter().map(|client| client.memory_bytes).max().unwrap_or(0)
    }

    /// How often a client is asked, all clients together.
    pub fn turns(&self) -> usize {
        self.clients.iter().map(|client| client.rounds.len()).sum()
    }
}

impl ClientEstimate {
    fn of(plan: &Plan, facts: &Facts, recipe: &Recipe, client: usize) -> Self {
        let mut largest = BatchSize::of_rows(0, 0);
        let asked = (1..=plan.rules.rounds).filter(|round| plan.rules.sample(*round).contains(&client));
        let rounds = asked
            .map(|round| {
                let key = Key { seed: plan.seed, client: client as u32, round, step: 0 };
                let batches = sizes(&facts.clients[client], &batches_of(&facts.clients[client], recipe, key));
                largest = batches.iter().copied().fold(largest, larger);
                round_of(plan, facts, recipe, &batches, key)
            })
            .collect();
        Self {
            client: plan.clients[client].to_string(),
            memory_bytes: memory(plan, client, facts, recipe, largest) + beside_bytes(plan, facts),
            rounds,
        }
    }
}

/// Peak of a client's process, in bytes: while it reads the model, or while it trains on its largest batch. Weights that
/// the file has in the wanted type are mapped, so that a client that holds a part has that part's in memory; others are
/// made anew, all of them.
fn memory(plan: &Plan, client: usize, facts: &Facts, recipe: &Recipe, largest: BatchSize) -> u64 {
    let modelled =
        if plan.gradient_checkpointing { flops::modelled_checkpointed_memory } else { flops::modelled_memory };
    let lora = plan.lora_of(client, &facts.lora);
    let of = |part, batch| modelled(&facts.shape, part, &lora, recipe.head, batch, plan.precision);
    let (part, none) = (plan.framework.client_part(client), BatchSize::of_rows(0, 0));
    let training = of(part, largest);
    if facts.converted_bytes == 0 {
        return PROCESS_BYTES + training;
    }
    let whole = of(Part::Whole, none);
    PROCESS_BYTES + (training + whole - of(part, none)).max(facts.converted_bytes + whole)
}

/// Rank of what the first `rounds` rounds leave beside each target, if all who are asked answer.
fn rank_beside(plan: &Plan, facts: &Facts, rounds: u32) -> usize {
    let answered: Vec<_> = (1..=rounds).map(|round| plan.rules.sample(round)).collect();
    plan.framework.rank_beside(&answered, &facts.lora)
}

/// What a client holds beside the base in the last round.
fn beside_bytes(plan: &Plan, facts: &Facts) -> u64 {
    flops::beside_bytes(&facts.shape, &facts.lora, rank_beside(plan, facts, plan.rules.rounds.saturating_sub(1)))
}

fn round_of(plan: &Plan, facts: &Facts, recipe: &Recipe, batches: &[BatchSize], key: Key) -> RoundEstimate {
    let steps = StepSizes {
        rows: batches.iter().map(|batch| batch.rows as u64).sum(),
        tokens: batches.iter().map(|batch| batch.tokens() as u64).sum(),
    };
    let public_reads = public_reads(&facts.public, recipe.head);
    let (client, shape) = (key.client as usize, &facts.shape);
    let before = if key.round > 1 { plan.rules.sample(key.round - 1) } else { Vec::new() };
    let payload = plan.framework.payload(&PayloadFacts { client, shape, recipe, before: &before, public_reads, steps });
    let of = |wanted| payload.iter().filter(|((direction, _), _)| *direction == wanted).map(|(_, bytes)| bytes).sum();
    let lora = plan.lora_of(client, &recipe.lora);
    let own = Recipe { lora, rank_beside: rank_beside(plan, facts, key.round - 1), ..recipe.clone() };
    let flops = plan.framework.client_flops(&WorkFacts { shape, recipe: &own, batches, public: &facts.public, key });
    let payload_bytes = UpDown { up: of(Direction::Up), down: of(Direction::Down) };
    RoundEstimate { round: key.round, payload_bytes, flops: flops.headline() }
}

/// How large each batch of `examples` is once it is padded.
pub fn sizes(examples: &[Example], batches: &[Vec<usize>]) -> Vec<BatchSize> {
    let size = |batch: &Vec<usize>| BatchSize {
        rows: batch.len(),
        seq: batch.iter().map(|&index| examples[index].tokens.len()).max().unwrap_or(0),
        reads: batch.iter().map(|&index| examples[index].reads()).sum(),
    };
    batches.iter().map(size).collect()
}

fn larger(a: BatchSize, b: BatchSize) -> BatchSize {
    // Attention grows with the square of the length, so of equal numbers of tokens the longer rows count.
    if (b.tokens(), b.seq) > (a.tokens(), a.seq) { b } else { a }
}

#[cfg(test)]
mod tests;
