//! Baseline `localOnly`: every client trains for itself and evaluates itself; nothing but figures is exchanged.
//! Must not send a tensor.

use std::collections::BTreeMap;

use fedtune_crds::report::FrameworkName;

use super::{
    ClientHalf, ClientSeat, Figures, Framework, FrameworkError, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat,
    answer, ask, refuse_tensors,
};
use crate::{
    checkpoint::Snapshot,
    evaluate::Evaluation,
    local,
    meter::peak_memory_bytes,
    models::Model,
    random::Key,
    rounds::{Client, Exchange},
    wire::{Line, Message, Subject},
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
            clients_keep_state: true,
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
    fn seat(&self) -> &ClientSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ClientSeat {
        &mut self.seat
    }

    fn answer(&mut self, ask: &Message, _line: &mut dyn Line) -> Result<Message, FrameworkError> {
        let train_loss = self.train(ask.round)?;
        let evaluation = Some(self.seat.evaluate(ask.round)?);
        let peak_memory_bytes = peak_memory_bytes();
        let meter = self.seat.worker.meter;
        let figures = Figures { train_loss, meter, evaluation, peak_memory_bytes, ..Figures::default() };
        Ok(Message { fields: figures.fields(), ..answer(ask) })
    }

    fn replay(&mut self, sent: &Message) -> Result<(), FrameworkError> {
        self.train(sent.round).map(|_loss| ())
    }
}

impl LocalOnlyClient {
    fn train(&mut self, round: u32) -> Result<f64, FrameworkError> {
        let ClientSeat { ordinal, recipe, model, train, worker, .. } = &mut self.seat;
        let key = Key { seed: recipe.seed, client: *ordinal as u32, round, step: 0 };
        Ok(local::train(model, train, recipe, key, worker)?)
    }
}

struct LocalOnlyServer {
    seat: ServerSeat,
    evaluations: BTreeMap<Client, Evaluation>,
}

impl ServerHalf for LocalOnlyServer {
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
        client: Client,
        _exchange: Exchange,
        answer: &Message,
        figures: &Figures,
    ) -> Result<(), FrameworkError> {
        refuse_tensors(answer, &self.seat.clients[client])?;
        if let Some(evaluation) = &figures.evaluation {
            self.evaluations.insert(client, evaluation.clone());
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

    /// The server has no model of its own: each client's last evaluation is all there is.
    fn save(&self) -> Result<Snapshot, FrameworkError> {
        let fields = serde_json::to_value(&self.evaluations).expect("counts and numbers are what JSON holds");
        Ok(Snapshot { fields, tensors: Vec::new() })
    }

    fn restore(&mut self, saved: &Snapshot) -> Result<(), FrameworkError> {
        let read = serde_json::from_value(saved.fields.clone());
        self.evaluations =
            read.map_err(|error| FrameworkError::Fields { subject: Subject::Replay, error: error.to_string() })?;
        Ok(())
    }

    fn broadcast(&self) -> Result<Option<Snapshot>, FrameworkError> {
        Ok(Some(Snapshot::default()))
    }
}
