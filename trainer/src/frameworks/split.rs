//! Split-FedLLM: the model is cut after a block; clients run the front, the server the back.
//! Must not let the whole model meet the private text: the front stays with the client, the back with the server.
//!
//! Step: hidden states, lengths and labels up; loss and backward through the back; their gradient down; backward
//! through the front. V1 (SplitFed, Thapa et al., arXiv 2004.12088): a back for each client, averaged each round.
//! V2: one back, clients take turns in a seeded order. Fronts are averaged, weighted by examples, in both.

use fedtune_crds::report::{Direction, FrameworkName, PayloadKind};

use super::{
    ClientHalf, ClientSeat, Framework, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat, StepSizes, adapter,
};
use crate::{
    models::{Head, Part},
    wire::{Element, Message, WireTensor},
};

mod back;
mod client;
mod server;

/// How the backs of several clients come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A copy of the back for each client, averaged each round.
    V1,
    /// One back; clients take turns.
    V2,
}

/// Split-FedLLM with its options.
#[derive(Debug, Clone)]
pub struct Split {
    /// Blocks that the client holds.
    pub cut_layer: usize,
    /// How backs come together.
    pub variant: Variant,
    /// Element type of hidden states and their gradients on the wire.
    pub codec: Element,
}

impl Framework for Split {
    fn name(&self) -> FrameworkName {
        FrameworkName::SplitFedLlm
    }

    fn needs(&self) -> Needs {
        let turns = match self.variant {
            Variant::V1 => false,
            Variant::V2 => true,
        };
        Needs {
            clients: true,
            exchanges: 1,
            turns,
            public: false,
            client_evaluates: false,
            all_data: false,
            clients_keep_models: false,
            clients_keep_state: false,
        }
    }

    fn client_half(&self, seat: ClientSeat) -> Box<dyn ClientHalf> {
        Box::new(client::SplitClient { split: self.clone(), seat })
    }

    fn server_half(&self, seat: ServerSeat) -> Box<dyn ServerHalf> {
        Box::new(server::SplitServer::new(self.clone(), seat))
    }

    /// Over the steps: `B S c` each way, `4 B` lengths up, labels up (`4 B`, or `4 B S` of a language model); the
    /// front's adapter each way.
    fn payload(&self, facts: &PayloadFacts<'_>) -> Payload {
        let StepSizes { rows, tokens } = facts.steps;
        let hidden = tokens * (facts.shape.hidden * self.codec.size()) as u64;
        let front = adapter::adapter_bytes(facts.shape, facts.recipe, Part::Front(self.cut_layer));
        let labels = match facts.recipe.head {
            Head::Classifier(_) => rows,
            Head::Language => tokens,
        };
        Payload::from([
            ((Direction::Up, PayloadKind::Activation), hidden),
            ((Direction::Up, PayloadKind::Length), 4 * rows),
            ((Direction::Up, PayloadKind::Label), 4 * labels),
            ((Direction::Up, PayloadKind::Adapter), front),
            ((Direction::Down, PayloadKind::ActivationGradient), hidden),
            ((Direction::Down, PayloadKind::Adapter), front),
        ])
    }

    fn cut_layer(&self) -> Option<usize> {
        Some(self.cut_layer)
    }
}

/// Stands in the labels of a language model where nothing is to be said.
const UNSAID: i32 = -100;

/// The tensors of a step, in this order.
struct StepTensors<'a> {
    /// `[batch, seq, hidden]` in the codec's element type.
    activation: &'a WireTensor,
    /// `[batch]`, i32: tokens of each row; the rest is padding.
    lengths: &'a WireTensor,
    /// i32: `[batch]`, or `[batch, seq]` of a language model: the token that is to be said after each, else [`UNSAID`].
    labels: &'a WireTensor,
}

impl<'a> StepTensors<'a> {
    fn of(message: &'a Message) -> Option<Self> {
        let [activation, lengths, labels] = &message.tensors[..] else { return None };
        Some(Self { activation, lengths, labels })
    }
}
