//! A client of a run: joins, works on its own data when asked, answers, until the server says that it is over.
//! Must not know which framework it runs, and must not send anything but what its half answers.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use thiserror::Error;

use crate::{
    data::{DataError, Labels, Record, encode},
    events::{Event, Events},
    frameworks::{ClientHalf, ClientSeat, FrameworkError},
    meter::{Slots, Worker, peak_memory_bytes},
    models::{Base, LoraSettings, Model, ModelError},
    plan::Plan,
    rounds::Client,
    server::{Announcement, panic_sentence},
    wire::{
        Link, LinkError, Message, Subject,
        client::{ConnectError, ConnectOptions, connect},
    },
};

/// What a client works with.
#[derive(Debug)]
pub struct ClientSetup<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its ordinal among all clients.
    pub ordinal: Client,
    /// The frozen base.
    pub base: Base,
    /// The adapter, its targets resolved.
    pub lora: LoraSettings,
    /// What fills a batch.
    pub pad_id: u32,
    /// Its private records.
    pub train: Vec<Record>,
    /// Public records.
    pub public: Vec<Record>,
    /// Held-out records, where clients evaluate themselves; else empty.
    pub evaluation: Vec<Record>,
    /// Cores shared with whoever else computes in this process.
    pub slots: Slots,
    /// Who listens.
    pub events: Events,
}

/// What a client has when the run is over.
pub struct Finished {
    /// The client half, which holds the client's model.
    pub half: Box<dyn ClientHalf>,
    /// Labels in the order of the logits.
    pub labels: Vec<String>,
}

/// Why a client cannot go on.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The session broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its labels.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The adapter.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its work.
    #[error(transparent)]
    Framework(#[from] FrameworkError),
    /// The server does not want it.
    #[error("the server refused: {0}")]
    Refused(String),
    /// libtorch gave up on the model thread.
    #[error("the model thread stopped: {0}")]
    Panic(String),
    /// A message that has no place here.
    #[error("the server sent a {0} where a welcome, a question or the end of the run belongs")]
    Unexpected(Subject),
}

/// Joins the run at `url` and works until it is over.
pub fn work(setup: ClientSetup<'_>, url: &str, options: &ConnectOptions) -> Result<Finished, ClientError> {
    setup.events.tell(Event::Disconnected { reason: format!("waits for the server at {url}") });
    let mut link = connect(url, options)?;
    link.send(join(&setup))?;
    let panicked = |panic: Box<dyn Any + Send>| Err(ClientError::Panic(panic_sentence(panic.as_ref())));
    let worked = catch_unwind(AssertUnwindSafe(|| work_on(setup, &mut link))).unwrap_or_else(panicked);
    if let Err(error) = &worked {
        tell_server(&mut link, error);
    }
    worked
}

fn work_on(setup: ClientSetup<'_>, link: &mut Link) -> Result<Finished, ClientError> {
    let events = setup.events.clone();
    events.tell(Event::Connected);
    let labels = wait_for_labels(link)?;
    let mut half = take_seat(setup, &labels)?;
    loop {
        let message = half.worker().wait(|| link.receive())?;
        match message.subject {
            Subject::Begin | Subject::Exchange => {
                let answer = half.answer(&message, link)?;
                half.worker().network(|| link.send(answer))?;
                tell_figures(half.worker(), &events);
            }
            Subject::Finish => return Ok(Finished { half, labels: labels.as_slice().to_vec() }),
            Subject::Refuse => return Err(refused(&message)),
            other @ (Subject::Join
            | Subject::Welcome
            | Subject::Step
            | Subject::StepReply
            | Subject::Upload
            | Subject::ExchangeReply) => {
                return Err(ClientError::Unexpected(other));
            }
        }
    }
}

fn tell_figures(worker: &Worker, events: &Events) {
    let (client, meter, peak_memory_bytes) = (worker.name.clone(), worker.meter, peak_memory_bytes());
    events.tell(Event::ClientFigures { client, meter, peak_memory_bytes });
}

/// What the client says of itself.
fn join(setup: &ClientSetup<'_>) -> Message {
    let mut labels = BTreeMap::new();
    for label in setup.train.iter().filter_map(|record| record.label.clone()) {
        *labels.entry(label).or_default() += 1;
    }
    let client = setup.plan.clients[setup.ordinal].to_string();
    let announcement = Announcement { client, examples: setup.train.len() as u64, labels };
    let fields = serde_json::to_value(announcement).expect("an announcement is text and numbers, which JSON holds");
    Message { fields, ..Message::new(Subject::Join, 0) }
}

fn wait_for_labels(link: &mut Link) -> Result<Labels, ClientError> {
    let message = link.receive()?;
    match message.subject {
        Subject::Welcome => {
            let labels = serde_json::from_value(message.fields["labels"].clone());
            labels.map(Labels::new).map_err(|_| ClientError::Unexpected(Subject::Welcome))
        }
        Subject::Refuse => Err(refused(&message)),
        other @ (Subject::Join
        | Subject::Begin
        | Subject::Step
        | Subject::StepReply
        | Subject::Upload
        | Subject::Exchange
        | Subject::ExchangeReply
        | Subject::Finish) => Err(ClientError::Unexpected(other)),
    }
}

/// Makes the client half, now that the labels are known.
fn take_seat(setup: ClientSetup<'_>, labels: &Labels) -> Result<Box<dyn ClientHalf>, ClientError> {
    let recipe = setup.plan.recipe(labels.len(), setup.pad_id, setup.lora.clone());
    let model = Model::new(setup.base, &setup.lora, labels.len(), setup.plan.seed)?;
    let seat = ClientSeat {
        ordinal: setup.ordinal,
        recipe,
        model,
        train: encode(&setup.train, labels)?,
        public: encode(&setup.public, labels)?,
        evaluation: encode(&setup.evaluation, labels)?,
        worker: Worker::new(setup.plan.clients[setup.ordinal].to_string(), setup.slots, setup.events),
    };
    Ok(setup.plan.framework.client_half(seat))
}

fn refused(message: &Message) -> ClientError {
    ClientError::Refused(message.fields["reason"].as_str().unwrap_or("it gave no reason").to_owned())
}

/// Tells the server why this client goes, unless it was the server that sent it away or is gone.
fn tell_server(link: &mut Link, error: &ClientError) {
    match error {
        ClientError::Refused(_)
        | ClientError::Link(_)
        | ClientError::Connect(_)
        | ClientError::Framework(FrameworkError::Refused { .. } | FrameworkError::Link(_)) => {}
        ClientError::Data(_)
        | ClientError::Model(_)
        | ClientError::Framework(_)
        | ClientError::Panic(_)
        | ClientError::Unexpected(_) => {
            let fields = serde_json::json!({ "reason": error.to_string() });
            // If the link is broken the server has noticed.
            let _ = link.send(Message { fields, ..Message::new(Subject::Refuse, 0) });
        }
    }
}
