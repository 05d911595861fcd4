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
    evaluate::Evaluation,
    local::{self, tensors},
    meter::{Meter, Worker, peak_memory_bytes},
    models::{Model, Part},
    optimizer::Optimizer,
    random::Key,
    rounds::{Client, Exchange},
    wire::{Link, Message},
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
        let down = [((Direction::Down, PayloadKind::Adapter), adapter), ((Direction::Down, PayloadKind::Head), head)];
        let up = match self.upload {
            Upload::Parameters => {
                vec![((Direction::Up, PayloadKind::Adapter), adapter), ((Direction::Up, PayloadKind::Head), head)]
            }
            Upload::Gradients => vec![((Direction::Up, PayloadKind::Gradient), adapter + head)],
        };
        down.into_iter().chain(up).collect()
    }
}

struct FedLlmClient {
    upload: Upload,
    seat: ClientSeat,
}

impl ClientHalf for FedLlmClient {
    fn answer(&mut self, ask: &Message, _link: &mut Link) -> Result<Message, FrameworkError> {
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

    fn model(&self) -> &Model {
        &self.seat.model
    }

    fn worker(&mut self) -> &mut Worker {
        &mut self.seat.worker
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
    fn ask(&mut self, _client: Client, exchange: Exchange) -> Result<Message, FrameworkError> {
        let ServerSeat { worker, model, .. } = &mut self.seat;
        let tensors = worker.encode(|| self.broadcast.of(exchange.round, model, Part::Whole))?;
        Ok(Message { tensors, ..ask(exchange) })
    }

    fn take(&mut self, client: Client, _exchange: Exchange, answer: &Message) -> Result<(), FrameworkError> {
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

    fn close(&mut self, _exchange: Exchange, answered: &[(Client, u64)]) -> Result<(), FrameworkError> {
        let uploads = std::mem::take(&mut self.uploads);
        let ServerSeat { worker, model, .. } = &mut self.seat;
        worker.compute(|| {
            let counted = answered.iter().filter_map(|(k, examples)| Some((*examples as f64, &uploads.get(k)?[..])));
            let mean = weighted_means(counted);
            match self.upload {
                Upload::Parameters => adapter::assign(model, Part::Whole, &mean),
                Upload::Gradients => self.optimizer.step(&tensors(model, Part::Whole), &mean),
            }
        });
        Ok(())
    }

    fn evaluate(&mut self) -> Option<Evaluation> {
        Some(self.seat.evaluate())
    }

    fn model(&self) -> Option<&Model> {
        Some(&self.seat.model)
    }

    fn meter(&self) -> Meter {
        self.seat.worker.meter
    }
}
