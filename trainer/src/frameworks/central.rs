//! Baseline `central`: the server trains on the union of the clients' data, K tau steps a round; no clients at all.
//! Must not differ from a client's local training in anything but the number of steps.

use fedtune_crds::report::FrameworkName;

use super::{
    ClientHalf, ClientSeat, Figures, Framework, FrameworkError, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat,
    ask, local_only,
};
use crate::{
    data::batches::LocalWork,
    local,
    random::Key,
    rounds::{Client, Exchange},
    wire::Message,
};

/// The baseline; it has no options.
#[derive(Debug, Clone)]
pub struct Central;

impl Framework for Central {
    fn name(&self) -> FrameworkName {
        FrameworkName::Central
    }

    fn needs(&self) -> Needs {
        Needs {
            clients: false,
            exchanges: 1,
            turns: false,
            public: false,
            client_evaluates: false,
            all_data: true,
            clients_keep_models: false,
            clients_keep_state: false,
        }
    }

    /// A client of this baseline would train for itself; none is ever asked.
    fn client_half(&self, seat: ClientSeat) -> Box<dyn ClientHalf> {
        local_only::LocalOnly.client_half(seat)
    }

    fn server_half(&self, seat: ServerSeat) -> Box<dyn ServerHalf> {
        Box::new(CentralServer { seat })
    }

    fn payload(&self, _facts: &PayloadFacts<'_>) -> Payload {
        Payload::new()
    }
}

struct CentralServer {
    seat: ServerSeat,
}

impl ServerHalf for CentralServer {
    fn seat(&self) -> &ServerSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ServerSeat {
        &mut self.seat
    }

    fn ask(&mut self, _client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        Ok(ask(exchange))
    }

    fn take(
        &mut self,
        _client: Client,
        _exchange: Exchange,
        _answer: &Message,
        _figures: &Figures,
    ) -> Result<(), FrameworkError> {
        Ok(())
    }

    fn close(&mut self, exchange: Exchange, _answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        let ServerSeat { recipe, model, all_data, worker, clients, .. } = &mut self.seat;
        let mut recipe = recipe.clone();
        recipe.work = match recipe.work {
            LocalWork::Steps(tau) => LocalWork::Steps(tau * clients.len()),
            // An epoch over the union is an epoch of every client.
            LocalWork::Epochs(epochs) => LocalWork::Epochs(epochs),
        };
        let key = Key { seed: recipe.seed, client: 0, round: exchange.round, step: 0 };
        local::train(model, all_data, &recipe, key, worker)?;
        Ok(())
    }
}
