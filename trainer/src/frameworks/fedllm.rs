//! FedLLM: clients fine-tune locally and upload parameters or gradients; the server averages, weighted by examples.
//! Must not hold more of a client than its upload.
//!
//! Round: adapter down, tau local steps, adapter up, sum of `p_k theta_k` (`FedAvg`, `McMahan` et al., arXiv 1602.05629).
//! With `upload: Gradients`: adapter down, the mean of tau gradients taken where it stands up, one step of the
//! server's optimizer, whose state persists.

use std::collections::BTreeMap;

use fedtune_crds::report::{Direction, FrameworkName, PayloadKind};
use tch::Tensor;

use super::{
    ClientHalf, ClientSeat, Figures, Framework, FrameworkError, Needs, Payload, PayloadFacts, ServerHalf, ServerSeat,
    adapter::{self, Broadcast},
    answer, ask,
};
use crate::{
    averages::weighted_means,
    checkpoint::Snapshot,
    local::{self, tensors},
    meter::peak_memory_bytes,
    models::Part,
    optimizer::Optimizer,
    random::Key,
    rounds::{Client, Exchange},
    wire::{Element, Line, Message, WireTensor},
};

/// What clients upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// The adapter after the local steps.
    Parameters,
    /// The mean of the steps' gradients at the round's starting adapter.
    Gradients,
}

/// FedLLM with its options.
#[derive(Debug, Clone)]
pub struct FedLlm {
    /// What clients upload.
    pub upload: Upload,
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
            clients_keep_state: false,
        }
    }

    fn client_half(&self, seat: ClientSeat) -> Box<dyn ClientHalf> {
        Box::new(FedLlmClient { upload: self.upload, seat })
    }

    fn server_half(&self, seat: ServerSeat) -> Box<dyn ServerHalf> {
        let optimizer = Optimizer::new(&seat.recipe.optimizer, &tensors(&seat.model, Part::Whole));
        Box::new(FedLlmServer {
            upload: self.upload,
            broadcast: Broadcast::default(),
            optimizer,
            uploads: BTreeMap::new(),
            seat,
        })
    }

    fn payload(&self, facts: &PayloadFacts<'_>) -> Payload {
        let adapter = adapter::adapter_bytes(facts.shape, facts.recipe, Part::Whole);
        let head = adapter::head_bytes(facts.shape, facts.recipe);
        let down = [(PayloadKind::Adapter, adapter), (PayloadKind::Head, head)];
        let up = match self.upload {
            Upload::Parameters => down.to_vec(),
            Upload::Gradients => vec![(PayloadKind::Gradient, adapter + head)],
        };
        let down = down.map(|(kind, bytes)| ((Direction::Down, kind), bytes));
        let up = up.into_iter().map(|(kind, bytes)| ((Direction::Up, kind), bytes));
        // A language model has no head to send.
        down.into_iter().chain(up).filter(|(_, bytes)| *bytes > 0).collect()
    }
}

struct FedLlmClient {
    upload: Upload,
    seat: ClientSeat,
}

impl ClientHalf for FedLlmClient {
    fn seat(&self) -> &ClientSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ClientSeat {
        &mut self.seat
    }

    fn answer(&mut self, ask: &Message, _line: &mut dyn Line) -> Result<Message, FrameworkError> {
        let ClientSeat { ordinal, recipe, model, train, worker, .. } = &mut self.seat;
        let values = worker.encode(|| adapter::read_parameters(model, Part::Whole, ask, "the server"))?;
        adapter::assign(model, Part::Whole, &values);
        let key = Key { seed: recipe.seed, client: *ordinal as u32, round: ask.round, step: 0 };
        let (train_loss, tensors) = match self.upload {
            Upload::Parameters => {
                let loss = local::train(model, train, recipe, key, worker)?;
                (loss, worker.encode(|| adapter::write(model, Part::Whole))?)
            }
            Upload::Gradients => {
                let (loss, gradients) = local::mean_gradients(model, train, recipe, key, worker)?;
                (loss, worker.encode(|| adapter::write_gradients(model, &gradients))?)
            }
        };
        let peak_memory_bytes = peak_memory_bytes();
        let figures = Figures { train_loss, meter: worker.meter, peak_memory_bytes, ..Figures::default() };
        Ok(Message { tensors, fields: figures.fields(), ..answer(ask) })
    }
}

struct FedLlmServer {
    upload: Upload,
    /// The adapter on the wire, encoded once a round for all clients.
    broadcast: Broadcast,
    optimizer: Optimizer,
    uploads: BTreeMap<Client, Vec<Tensor>>,
    seat: ServerSeat,
}

impl ServerHalf for FedLlmServer {
    fn seat(&self) -> &ServerSeat {
        &self.seat
    }

    fn seat_mut(&mut self) -> &mut ServerSeat {
        &mut self.seat
    }

    fn ask(&mut self, _client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        let ServerSeat { worker, model, .. } = &mut self.seat;
        let tensors = worker.encode(|| self.broadcast.of(exchange.round, model, Part::Whole))?;
        Ok(Message { tensors, ..ask(exchange) })
    }

    fn take(
        &mut self,
        client: Client,
        _exchange: Exchange,
        answer: &Message,
        _figures: &Figures,
    ) -> Result<(), FrameworkError> {
        let ServerSeat { worker, model, clients, .. } = &mut self.seat;
        let who = &clients[client];
        let upload = worker.encode(|| match self.upload {
            Upload::Parameters => adapter::read_parameters(model, Part::Whole, answer, who),
            Upload::Gradients => adapter::read(model, Part::Whole, answer, who, |_| PayloadKind::Gradient),
        })?;
        self.uploads.insert(client, upload);
        Ok(())
    }

    fn abandon(&mut self, client: Client, _exchange: Exchange) {
        self.uploads.remove(&client);
    }

    fn close(&mut self, exchange: Exchange, answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        let uploads = std::mem::take(&mut self.uploads);
        let ServerSeat { worker, model, recipe, .. } = &mut self.seat;
        // The server takes one step a round, so the schedule counts rounds.
        let factor = recipe.optimizer.schedule.factor(u64::from(exchange.round - 1), recipe.rounds.into());
        worker.compute(|| {
            let counted = answered.iter().filter_map(|(k, examples)| Some((*examples as f64, &uploads.get(k)?[..])));
            let mean = weighted_means(counted);
            match self.upload {
                Upload::Parameters => adapter::assign(model, Part::Whole, &mean),
                Upload::Gradients => self.optimizer.step(&tensors(model, Part::Whole), &mean, factor),
            }
        });
        Ok(())
    }

    /// The adapter, and behind it the history of the server's optimizer, which goes on from round to round.
    fn save(&self) -> Result<Snapshot, FrameworkError> {
        let mut tensors = adapter::write(&self.seat.model, Part::Whole)?;
        let (steps, moments) = self.optimizer.history();
        for (index, moment) in moments.iter().enumerate() {
            let name = format!("optimizer.{index}");
            tensors.push(WireTensor::from_tensor(name, PayloadKind::Gradient, moment, Element::F32)?);
        }
        Ok(Snapshot { fields: serde_json::json!({ "optimizerSteps": steps }), tensors })
    }

    fn restore(&mut self, saved: &Snapshot) -> Result<(), FrameworkError> {
        let model = &self.seat.model;
        let (values, moments) = saved.tensors.split_at(saved.tensors.len().min(model.adapter().parameters().len()));
        adapter::assign(model, Part::Whole, &adapter::read_saved(model, values)?);
        let moments = moments.iter().map(|moment| moment.to_tensor(model.device())).collect::<Result<Vec<_>, _>>()?;
        let steps = saved.fields["optimizerSteps"].as_i64().unwrap_or(0);
        self.optimizer.resume(steps as i32, moments);
        Ok(())
    }
}
