//! FedLLM: clients fine-tune locally and upload parameters or gradients; the server combines, weighted by examples.
//! Must not hold more of a client than its upload.
//!
//! Round: adapter down, tau local steps, adapter up, `sum p_k theta_k` (`FedAvg`, `McMahan` et al., arXiv 1602.05629)
//! or one of the other aggregations below, all towards `sum p_k s_k B_k A_k` with `p_k` the share of the examples and
//! `s_k = alpha / r_k` (rsLoRA: `alpha / sqrt r_k`). With `upload: Gradients`: adapter down, the mean of tau gradients
//! taken where it stands up, one step of the server's optimizer, whose state persists.
//!
//! | aggregation | down | up | the server |
//! |---|---|---|---|
//! | `FedAvg` | A, B | A, B | means of A and of B; their product is not the mean product |
//! | `FFALoRA` (arXiv 2403.12313) | B | B | mean of B; A stays as drawn from the seed, so this is the mean product |
//! | `FLoRA` (2409.05976) | the last round's stack | A, B | stacks `[p_k s_k B_k][A_k]`: everyone adds it beside the base, and begins a new pair |
//! | `FedExLoRA` (2410.09432) | A, B, the last residual | A, B | means, and what they lack of the mean product: everyone adds it beside the base |
//! | `FlexLoRA` (2402.11505) | A, B of the client's rank | A, B | the mean product, cut to each client's rank by singular values |
//!
//! What is beside the base in `FLoRA` and `FedExLoRA` is the same for all clients, and it is their state: a client that
//! was not asked in a round, joined late or lost its state is sent that round's products when it is asked again.
//!
//! | file | one thing |
//! |---|---|
//! | `client.rs`, `server.rs` | the two halves |
//! | `uploads.rs` | a round's uploads until it closes, in memory or on disk |
//! | `combine.rs`, `aggregate.rs` | what becomes of a round's uploads; stack and residual, the algebra |
//! | `products.rs` | products and residuals as wire tensors |
//! | `optimizer.rs` | the server's step along mean parameters |

use fedtune_crds::report::{Direction, FrameworkName, PayloadKind};

use super::{
    ClientHalf, ClientSeat, Framework, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat,
    adapter::{self, Matrices},
};
use crate::{models::LoraSettings, optimizer::Rule, rounds::Client};

mod aggregate;
mod client;
mod combine;
mod optimizer;
mod products;
mod server;
mod uploads;

use client::FedLlmClient;
pub use optimizer::{Adaptive, ServerRule};
use server::FedLlmServer;

/// What clients upload, and what the server does with it.
#[derive(Debug, Clone, PartialEq)]
pub enum Upload {
    /// The adapter after the local steps.
    Parameters(Aggregation),
    /// The mean of the steps' gradients at the round's starting adapter; the server's rule and learning rate, where
    /// they are not those of training.
    Gradients(Option<(Rule, f64)>),
}

/// How adapters are combined.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregation {
    /// Means of A and of B.
    FedAvg(ServerRule),
    /// Mean of B, A frozen.
    FfaLora(ServerRule),
    /// Stacked beside the base.
    Flora,
    /// Means, and the exact residual beside the base.
    FedExLora,
    /// The mean product, cut to each client's rank.
    FlexLora,
}

/// FedLLM with its options.
#[derive(Debug, Clone)]
pub struct FedLlm {
    /// What clients upload, and what becomes of it.
    pub upload: Upload,
    /// The mu of `FedProx`; zero for none.
    pub proximal_mu: f64,
    /// The LoRA rank of each client.
    pub ranks: Vec<usize>,
}

impl FedLlm {
    /// Whether clients hold something beside the base that grows from round to round.
    fn has_residual(&self) -> bool {
        match &self.upload {
            Upload::Parameters(Aggregation::Flora | Aggregation::FedExLora) => true,
            Upload::Parameters(Aggregation::FedAvg(_) | Aggregation::FfaLora(_) | Aggregation::FlexLora)
            | Upload::Gradients(_) => false,
        }
    }

    fn freezes_a(&self) -> bool {
        matches!(self.upload, Upload::Parameters(Aggregation::FfaLora(_)))
    }

    /// Which matrices of a pair are trained and sent.
    fn matrices(&self) -> Matrices {
        if self.freezes_a() { Matrices::B } else { Matrices::Both }
    }

    /// The adapter of one client.
    fn lora(&self, client: Client, lora: &LoraSettings) -> LoraSettings {
        LoraSettings { rank: self.ranks.get(client).copied().unwrap_or(lora.rank), ..lora.clone() }
    }

    /// Rank of what a client is sent in a round before which these have answered.
    fn rank_down(&self, client: Client, before: &[Client], lora: &LoraSettings) -> usize {
        let rank = |client: Client| self.lora(client, lora).rank;
        match &self.upload {
            Upload::Parameters(Aggregation::Flora) => before.iter().map(|client| rank(*client)).sum(),
            // The means, and of the residual one pair less than there are clients.
            Upload::Parameters(Aggregation::FedExLora) => rank(client) * before.len().max(1),
            Upload::Parameters(Aggregation::FedAvg(_) | Aggregation::FfaLora(_) | Aggregation::FlexLora)
            | Upload::Gradients(_) => rank(client),
        }
    }
}

impl Framework for FedLlm {
    fn name(&self) -> FrameworkName {
        FrameworkName::FedLlm
    }

    fn needs(&self) -> Needs {
        Needs {
            clients: true,
            exchanges: 1,
            turns: false,
            public: false,
            client_evaluates: false,
            all_data: false,
            clients_keep_models: false,
            clients_keep_state: self.has_residual(),
        }
    }

    fn shares_state(&self) -> bool {
        self.has_residual()
    }

    /// All pairs of `FLoRA`; of FedEx-LoRA's residual one pair less than there are clients.
    fn rank_beside(&self, answered: &[Vec<Client>], lora: &LoraSettings) -> usize {
        let of_round = |clients: &Vec<Client>| match &self.upload {
            Upload::Parameters(Aggregation::Flora) => clients.iter().map(|client| self.lora(*client, lora).rank).sum(),
            Upload::Parameters(Aggregation::FedExLora) => lora.rank * clients.len().saturating_sub(1),
            Upload::Parameters(Aggregation::FedAvg(_) | Aggregation::FfaLora(_) | Aggregation::FlexLora)
            | Upload::Gradients(_) => 0,
        };
        answered.iter().map(of_round).sum()
    }

    /// Of the mean product the server keeps as much as the client of the largest rank.
    fn global_rank(&self, rank: usize) -> usize {
        match &self.upload {
            Upload::Parameters(Aggregation::FlexLora) => self.ranks.iter().copied().max().unwrap_or(rank),
            Upload::Parameters(_) | Upload::Gradients(_) => rank,
        }
    }

    fn client_half(&self, mut seat: ClientSeat) -> Box<dyn ClientHalf> {
        seat.recipe.proximal_mu = self.proximal_mu;
        if self.freezes_a() {
            seat.model.freeze_a();
        }
        Box::new(FedLlmClient::new(self.upload.clone(), seat))
    }

    fn server_half(&self, mut seat: ServerSeat) -> Box<dyn ServerHalf> {
        if self.freezes_a() {
            seat.model.freeze_a();
        }
        Box::new(FedLlmServer::new(self.clone(), seat))
    }

    /// Down `N(rank)` of what [the table](self) says, up `N(r_k)`, and the head both ways.
    fn payload(&self, facts: &PayloadFacts<'_>) -> Payload {
        let lora = self.lora(facts.client, &facts.recipe.lora);
        let bytes = |rank| {
            let lora = LoraSettings { rank, ..lora.clone() };
            adapter::matrix_bytes(facts.shape, &lora, self.matrices())
        };
        let (down, up) = (bytes(self.rank_down(facts.client, facts.before, &facts.recipe.lora)), bytes(lora.rank));
        let head = adapter::head_bytes(facts.shape, facts.recipe);
        let down = [(Direction::Down, PayloadKind::Adapter, down), (Direction::Down, PayloadKind::Head, head)];
        let up = match self.upload {
            Upload::Parameters(_) => vec![(PayloadKind::Adapter, up), (PayloadKind::Head, head)],
            Upload::Gradients(_) => vec![(PayloadKind::Gradient, up + head)],
        };
        let up = up.into_iter().map(|(kind, bytes)| (Direction::Up, kind, bytes));
        // A language model has no head to send, and before FLoRA's first round there is no stack.
        let entries = down.into_iter().chain(up).filter(|(.., bytes)| *bytes > 0);
        entries.map(|(direction, kind, bytes)| ((direction, kind), bytes)).collect()
    }
}

#[cfg(test)]
mod tests;
