//! Split-FedLLM: the model is cut after a block; clients run the front, the server the back.
//! Must not let the whole model meet the private text: the front stays with the client, the back with the server.
//!
//! Step: hidden states, lengths and labels up; loss and backward through the back; their gradient down; backward
//! through the front. V1 (SplitFed, Thapa et al., arXiv 2004.12088): a back for each client, averaged each round.
//! V2: one back, clients take turns in a seeded order. What clients hold is averaged, weighted by examples, in both.
//!
//! With the head at the client (U-shaped, Vepakomma et al., arXiv 1812.00564) labels stay: hidden states go up, what
//! the server's blocks make of them comes down; loss and backward through the head; its gradient goes up, that of the
//! hidden states comes down; backward through the front, and one step of the optimizer over both ends.
//!
//! | file | one thing |
//! |---|---|
//! | `codec.rs` | hidden states and gradients as wire tensors, and INT8 |
//! | `client.rs` | the client half |
//! | `line.rs` | what a client sends in a step, and the reply to it |
//! | `server.rs` | the server half, between rounds |
//! | `back.rs` | a back, and the turn that is taken on it |
//! | `stepper.rs` | one message of a step on a back |
//! | `arrivals.rs` | what came in it, checked |

use fedtune_crds::report::{Direction, FrameworkName, PayloadKind};

use super::{
    ClientHalf, ClientSeat, Framework, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat, StepSizes, adapter,
};
use crate::{
    models::{Head, Part},
    rounds::Client,
};

mod arrivals;
mod back;
mod client;
mod codec;
mod line;
mod server;
mod stepper;
#[cfg(test)]
mod tests;

pub use codec::Codec;

/// How the backs of several clients come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A copy of the back for each client, averaged.
    V1,
    /// One back; clients take turns.
    V2,
}

/// Who holds what follows the last block, and so needs the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSide {
    /// The server.
    Server,
    /// The client.
    Client,
}

/// Split-FedLLM with its options.
#[derive(Debug, Clone)]
pub struct Split {
    /// Blocks that each client holds, by ordinal; all the same in V2.
    pub cuts: Vec<usize>,
    /// How backs come together.
    pub variant: Variant,
    /// Where the head is.
    pub head: HeadSide,
    /// How hidden states and their gradients travel.
    pub codec: Codec,
}

impl Split {
    fn cut(&self, client: Client) -> usize {
        self.cuts[client]
    }

    /// What the server holds and trains for this client.
    fn server_part(&self, client: Client) -> Part {
        match self.head {
            HeadSide::Server => Part::Back(self.cut(client)),
            HeadSide::Client => Part::Middle(self.cut(client)),
        }
    }
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

    /// Over the steps, with c bytes a token by the codec: `B S c` and `4 B` lengths up, `B S c` down; the same again
    /// each way with the head at the client, else labels up (`4 B`, or `4 B S` of a language model). Once a round the
    /// adapter of what the client holds, each way.
    fn payload(&self, facts: &PayloadFacts<'_>) -> Payload {
        let StepSizes { rows, tokens } = facts.steps;
        let hidden = tokens * self.codec.bytes_per_token(facts.shape.hidden) as u64;
        let adapter = adapter::adapter_bytes(facts.shape, facts.recipe, self.client_part(facts.client));
        let common = [
            ((Direction::Up, PayloadKind::Activation), hidden),
            ((Direction::Up, PayloadKind::Length), 4 * rows),
            ((Direction::Up, PayloadKind::Adapter), adapter),
            ((Direction::Down, PayloadKind::ActivationGradient), hidden),
            ((Direction::Down, PayloadKind::Adapter), adapter),
        ];
        let mut payload = Payload::from(common);
        match self.head {
            HeadSide::Server => {
                let labels = match facts.recipe.head {
                    Head::Classifier(_) => rows,
                    Head::Language => tokens,
                };
                payload.insert((Direction::Up, PayloadKind::Label), 4 * labels);
            }
            HeadSide::Client => {
                let head = adapter::head_bytes(facts.shape, facts.recipe);
                payload.insert((Direction::Up, PayloadKind::ActivationGradient), hidden);
                payload.insert((Direction::Down, PayloadKind::Activation), hidden);
                payload.insert((Direction::Up, PayloadKind::Head), head);
                payload.insert((Direction::Down, PayloadKind::Head), head);
            }
        }
        payload
    }

    fn client_part(&self, client: Client) -> Part {
        match self.head {
            HeadSide::Server => Part::Front(self.cut(client)),
            HeadSide::Client => Part::Ends(self.cut(client)),
        }
    }

    fn labels_stay(&self) -> bool {
        self.head == HeadSide::Client
    }
}

/// Stands in the labels of a language model where nothing is to be said.
const UNSAID: i32 = -100;
