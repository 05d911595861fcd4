//! Baseline `localOnly`: every client trains for itself and evaluates itself; nothing but figures is exchanged.
//! Must not send a tensor.

use std::collections::BTreeMap;

use fedtune_crds::report::FrameworkName;

use super::{
    ClientHalf, ClientSeat, Figures, Framework, FrameworkError, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat,
    answer, ask,
};
use crate::{
    evaluate::Evaluation,
    local,
    meter::{Meter, Worker, peak_memory_bytes},
    models::Model,
    random::Key,
    rounds::{Client, Exchange},
    wire::{Link, Message},
};

/// The baseline; it has no options.
#[derive(Debug, Clone)]
pub struct LocalOnly;

impl Framework for LocalOnly {
    fn name(&self) -> FrameworkName {
        FrameworkName::LocalOnly
    }

    fn needs(&self) -> Needs {
        Needs {
            clients: true,
            exchanges: 1,
            turns: false,
            public: false,
            client_evaluates: true,
            all_data: false,
            clients_keep_models: true,
        }
    }

    fn client_half(&self, seat: ClientSeat) -> Box<dyn ClientHalf> {
        Box::new(LocalOnlyClient { seat })
    }

    fn server_half(&self, seat: ServerSeat) -> Box<dyn ServerHalf> {
        Box::new(LocalOnlyServer { seat, evaluations: BTreeMap::new() })
    }

    fn payload(&self, _facts: &PayloadFacts<'_>) -> Payload {
        Payload::new()
    }
}

struct LocalOnlyClient {
    seat: ClientSeat,
}

impl ClientHalf for LocalOnlyClient {
    fn answer(&mut self, ask: &Message, _link: &mut Link) -> Result<Message, FrameworkError> {
        let ClientSeat { ordinal, recipe, model, train, worker, .. } = &mut self.seat;
        let key = Key { seed: recipe.seed, client: *ordinal as u32, round: ask.round, step: 0 };
        let train_loss = local::train(model, train, recipe, key, worker)?;
        let evaluation = Some(self.seat.evaluate(ask.round)?);
        let peak_memory_bytes = peak_memory_bytes();
        let meter = self.seat.worker.meter;
        let figures = Figures { train_loss, meter, evaluation, peak_memory_bytes, ..Figures::default() };
        Ok(Message { fields: figures.fields(), ..answer(ask) })
    }

    fn model(&self) -> &Model {
        &self.seat.model
    }

    fn worker(&mut self) -> &mut Worker {
        &mut self.seat.worker
    }
}

struct LocalOnlyServer {
    seat: ServerSeat,
    evaluations: BTreeMap<Client, Evaluation>,
}

impl ServerHalf for LocalOnlyServer {
    fn ask(&mut self, _client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        Ok(ask(exchange))
    }

    fn take(&mut self, client: Client, _exchange: Exchange, answer: &Message) -> Result<(), FrameworkError> {
        if let Some(evaluation) = Figures::of(answer)?.evaluation {
            self.evaluations.insert(client, evaluation);
        }
        Ok(())
    }

    fn close(&mut self, _exchange: Exchange, _answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        Ok(())
    }

    /// All clients' counts together: every client saw the same examples, so this is the clients' mean.
    fn evaluate(&mut self) -> Option<Evaluation> {
        let mut all = Evaluation::default();
        self.evaluations.values().for_each(|evaluation| all.add(evaluation));
        Some(all)
    }

    fn model(&self) -> Option<&Model> {
        None
    }

    fn meter(&self) -> Meter {
        self.seat.worker.meter
    }
}
