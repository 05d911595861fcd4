//! KD-FedLLM: clients share logits on a public set; knowledge is distilled into the server's student and back.
//! Must not send a weight in either direction.
//!
//! Round: local steps, the clients' logits up, their mean is the teacher of the server's student, the student's logits
//! down, they are the teacher of every client. Models persist over rounds. Loss (Hinton et al., arXiv 1503.02531):
//! `(1 - lambda) CE + lambda T^2 KL(softmax(z_teacher / T) || softmax(z / T))`, mean over read states; the CE term only
//! where the public examples say what is right.
//!
//! | file | one thing |
//! |---|---|
//! | `public.rs` | which states of the public examples are read |
//! | `layout.rs` | which logits travel, and how many bytes that is |
//! | `logits.rs` | logits written, checked and read back |
//! | `teacher.rs` | the mean of the clients' logits |
//! | `student.rs` | the loss, and the steps that follow it |
//! | `travel.rs` | logits from one model to another as a whole, to be measured |
//! | `client.rs`, `server.rs` | the two halves |

use std::collections::BTreeMap;

use fedtune_crds::report::{Direction, Flops, FrameworkName, PayloadKind};

use super::{
    ClientHalf, ClientSeat, Framework, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat, Unfit, WorkFacts,
};
use crate::{
    data::Example,
    flops,
    local::Recipe,
    models::{Head, ModelShape, Part},
};

mod client;
mod layout;
mod logits;
mod public;
mod server;
mod student;
mod teacher;
mod travel;

pub use layout::{Form, Layout, Selection};
pub use logits::{RowError, soften};
pub use public::public_reads;
pub use student::{Distillation, distillation_loss};
pub use teacher::Weighting;
pub use travel::{read_logits, write_logits};

/// KD-FedLLM with its options.
#[derive(Debug, Clone)]
pub struct Kd {
    /// How a model learns from its teacher.
    pub distillation: Distillation,
    /// How much a client's logits count.
    pub weighting: Weighting,
    /// Which logits travel.
    pub selection: Selection,
}

impl Kd {
    fn layout(&self, shape: &ModelShape, recipe: &Recipe, public: &[Example]) -> Layout {
        self.layout_of(shape, recipe.head, public_reads(public, recipe.head))
    }

    fn layout_of(&self, shape: &ModelShape, head: Head, reads: usize) -> Layout {
        self.selection.layout(reads, head.classes(shape))
    }
}

impl Framework for Kd {
    fn name(&self) -> FrameworkName {
        FrameworkName::KdFedLlm
    }

    fn needs(&self) -> Needs {
        Needs {
            clients: true,
            exchanges: 2,
            turns: false,
            public: true,
            client_evaluates: true,
            all_data: false,
            clients_keep_models: false,
            clients_keep_state: true,
        }
    }

    fn client_half(&self, seat: ClientSeat) -> Box<dyn ClientHalf> {
        Box::new(client::KdClient { kd: self.clone(), train_loss: 0.0, seat })
    }

    fn server_half(&self, seat: ServerSeat) -> Box<dyn ServerHalf> {
        Box::new(server::KdServer { kd: self.clone(), uploads: BTreeMap::new(), broadcast: None, seat })
    }

    /// Local steps, the public set once forward, and a distillation.
    fn client_flops(&self, facts: &WorkFacts<'_>) -> Flops {
        let WorkFacts { shape, recipe, public, key, .. } = facts;
        let public = public::PublicSet::of(public, recipe);
        let sizes = |batches: Vec<Vec<usize>>| batches.into_iter().map(|indices| public.size(&indices));
        let forward = |size| flops::forward(shape, Part::Whole, &recipe.lora, recipe.head, size);
        let train = |size| recipe.step_flops(shape, Part::Whole, size);
        Flops {
            train: facts.train(Part::Whole),
            public_forward: sizes(public.once()).map(forward).sum(),
            distill: sizes(self.distillation.batches(&public, *key)).map(train).sum(),
            ..Flops::default()
        }
    }

    /// Every client distils once, and so does the server.
    fn units(&self, clients: u64, local: u64, batches_a_step: u64) -> u64 {
        local + (clients + 1) * self.distillation.steps as u64 * batches_a_step
    }

    /// reads x classes x 4 each way, or reads x k x (2 + bytes of a class).
    fn payload(&self, facts: &PayloadFacts<'_>) -> Payload {
        let bytes = self.layout_of(facts.shape, facts.recipe.head, facts.public_reads).bytes();
        let both = [Direction::Up, Direction::Down];
        both.into_iter().map(|direction| ((direction, PayloadKind::Logits), bytes)).collect()
    }

    fn check(&self, shape: &ModelShape, recipe: &Recipe, public_reads: usize) -> Result<(), Unfit> {
        self.selection.check(public_reads, recipe.head.classes(shape))
    }
}

#[cfg(test)]
mod tests;
