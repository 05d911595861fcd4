//! The client across sessions: what it does with each message, and what it has when a session breaks.
//! Must not wait or dial itself: [`Dial`] does.

use std::collections::BTreeMap;

use super::{ClientError, ClientSetup, Dial, Finished, states::States};
use crate::{
    adapter_files::starting_model,
    data::{Labels, encode},
    events::{Event, Events},
    frameworks::{ClientHalf, ClientSeat, exchange_of},
    meter::{Worker, peak_memory_bytes},
    server::{Announcement, NON_FINITE_LOSS},
    wire::{Line, Message, Subject},
};

pub(super) struct Member<'a> {
    announcement: Announcement,
    events: Events,
    /// Until the first welcome, which says the labels.
    setup: Option<ClientSetup<'a>>,
    seated: Option<Seated>,
    /// The newest server that it has spoken with.
    epoch: u64,
}

/// What exists once the labels are known.
struct Seated {
    half: Box<dyn ClientHalf>,
    labels: Labels,
    states: States,
}

impl<'a> Member<'a> {
    pub(super) fn new(setup: ClientSetup<'a>) -> Self {
        let events = setup.events.clone();
        Self { announcement: announce(&setup), events, setup: Some(setup), seated: None, epoch: 0 }
    }

    /// Sessions, one after another, until the run is over or this client cannot go on.
    pub(super) fn take_part(&mut self, dial: &mut dyn Dial) -> Result<Finished, ClientError> {
        let mut trouble = None;
        loop {
            let mut line = dial.open(trouble.as_deref())?;
            match self.session(line.as_mut(), dial) {
                Ok(()) => return self.finish(line),
                Err(error) if error.is_passing() => {
                    let reason = error.to_string();
                    self.events.tell(Event::Disconnected { reason: reason.clone() });
                    trouble = Some(reason);
                }
                Err(error) => {
                    self.tell_server(line.as_mut(), &error);
                    return Err(error);
                }
            }
        }
    }

    fn finish(&mut self, line: Box<dyn Line>) -> Result<Finished, ClientError> {
        let seated = self.seated.take().ok_or(ClientError::Unexpected(Subject::Finish))?;
        Ok(Finished { half: seated.half, labels: seated.labels.as_slice().to_vec(), epoch: self.epoch, line })
    }

    /// One session, from its join until the run is over.
    fn session(&mut self, line: &mut dyn Line, dial: &mut dyn Dial) -> Result<(), ClientError> {
        let fields = serde_json::to_value(&self.announcement).expect("an announcement is text and numbers");
        line.send(Message { fields, ..Message::new(Subject::Join, 0) })?;
        tracing::debug!(phase = "join");
        let welcome = line.receive()?;
        self.take_welcome(&welcome)?;
        dial.held();
        self.events.tell(Event::Connected);
        let mut answered = None;
        loop {
            let seated = self.seated.as_mut().ok_or(ClientError::Unexpected(Subject::Begin))?;
            let message = seated.half.seat_mut().worker.wait(|| line.receive())?;
            match message.subject {
                // What comes twice is done once.
                Subject::Begin | Subject::Exchange if answered == Some((exchange_of(&message), message.attempt)) => {}
                Subject::Begin | Subject::Exchange => {
                    answered = Some((exchange_of(&message), message.attempt));
                    let answer = seated.answer(&message, line)?;
                    seated.half.seat_mut().worker.network(|| line.send(answer))?;
                    seated.say_figures(&self.events);
                }
                Subject::Finish => {
                    tracing::debug!(phase = "finish");
                    return seated.states.conclude(seated.half.as_mut(), &message, line);
                }
                Subject::Refuse => take_refusal(&message)?,
                Subject::Welcome => self.take_welcome(&message)?,
                Subject::StepReply | Subject::StepGradientReply => {}
                other @ (Subject::Join
                | Subject::Step
                | Subject::StepGradient
                | Subject::Upload
                | Subject::ExchangeReply
                | Subject::Recall
                | Subject::Replay) => return Err(ClientError::Unexpected(other)),
            }
        }
    }

    /// Takes its seat at the first welcome; at a later one it must be the same run's.
    fn take_welcome(&mut self, welcome: &Message) -> Result<(), ClientError> {
        if welcome.subject == Subject::Refuse {
            take_refusal(welcome)?;
            return Err(ClientError::NotNow(reason(welcome)));
        }
        let fields = (serde_json::from_value(welcome.fields["labels"].clone()), welcome.fields["uid"].as_str());
        let (Subject::Welcome, (Ok(labels), Some(uid))) = (welcome.subject, fields) else {
            return Err(ClientError::Unexpected(welcome.subject));
        };
        if welcome.epoch < self.epoch {
            return Err(ClientError::OldServer { theirs: welcome.epoch, known: self.epoch });
        }
        self.epoch = welcome.epoch;
        let labels = Labels::new(labels);
        if let Some(setup) = self.setup.take() {
            self.seated = Some(take_seat(setup, labels, uid)?);
            return Ok(());
        }
        match &self.seated {
            Some(seated) if seated.labels == labels && seated.states.uid() == uid => Ok(()),
            Some(_) | None => Err(ClientError::OtherRun),
        }
    }

    /// Tells the server why this client goes, unless it was the server that sent it away or is gone.
    fn tell_server(&self, line: &mut dyn Line, error: &ClientError) {
        if error.is_the_servers() {
            return;
        }
        let cause = if error.is_training() { NON_FINITE_LOSS } else { "Other" };
        let fields = serde_json::json!({ "reason": error.to_string(), "cause": cause });
        // If the session is broken the server has noticed.
        let _ = line.send(Message { fields, epoch: self.epoch, ..Message::new(Subject::Refuse, 0) });
    }
}

impl Seated {
    /// Does what was asked, from the state that it builds on.
    fn answer(&mut self, ask: &Message, line: &mut dyn Line) -> Result<Message, ClientError> {
        tracing::debug!(phase = "work", round = ask.round, exchange = ask.step);
        let exchange = exchange_of(ask);
        self.states.prepare(self.half.as_mut(), ask, line)?;
        let answer = self.half.answer(ask, line)?;
        self.states.answered(self.half.as_ref(), exchange)?;
        tracing::debug!(phase = "upload", round = ask.round, exchange = ask.step);
        Ok(answer)
    }

    fn say_figures(&mut self, events: &Events) {
        let worker = &self.half.seat().worker;
        let (client, meter) = (worker.name.clone(), worker.meter);
        events.tell(Event::ClientFigures { client, meter, peak_memory_bytes: peak_memory_bytes() });
    }
}

/// What the client says of itself.
fn announce(setup: &ClientSetup<'_>) -> Announcement {
    let mut labels = BTreeMap::new();
    for label in setup.train.iter().filter_map(|record| record.label.clone()) {
        *labels.entry(label).or_default() += 1;
    }
    if setup.plan.framework.labels_stay() {
        // Their names make the run's labels, where the plan does not say them; how many there are of each is not told.
        if !setup.plan.data.labels.is_empty() {
            labels.clear();
        }
        for count in labels.values_mut() {
            *count = 0;
        }
    }
    let client = setup.plan.clients[setup.ordinal].to_string();
    Announcement { client, examples: setup.train.len() as u64, labels, incarnation: setup.incarnation }
}

/// Makes the client half, now that the labels are known.
fn take_seat(setup: ClientSetup<'_>, labels: Labels, uid: &str) -> Result<Seated, ClientError> {
    let plan = setup.plan;
    let recipe = plan.recipe(labels.len(), setup.pad_id, setup.lora.clone());
    let (head, initial) = (recipe.head, setup.initial.as_deref());
    let model = starting_model(setup.base, &setup.lora, head, plan.seed, labels.as_slice(), initial)?;
    let seat = ClientSeat {
        ordinal: setup.ordinal,
        recipe,
        model,
        train: encode(&setup.train, &labels)?,
        public: encode(&setup.public, &labels)?,
        evaluation: encode(&setup.evaluation, &labels)?,
        worker: Worker::new(plan.clients[setup.ordinal].to_string(), setup.slots, setup.events),
    };
    let half = plan.framework.client_half(seat);
    let states = States::of(half.as_ref(), plan.framework.needs(), setup.keep, uid)?;
    Ok(Seated { half, labels, states })
}

/// A refusal that is final is an error; one of a single message is only said.
fn take_refusal(message: &Message) -> Result<(), ClientError> {
    let reason = reason(message);
    if message.fields["final"].as_bool().unwrap_or(true) {
        return Err(ClientError::Refused(reason));
    }
    tracing::warn!(reason, "the server refused what this client sent, and goes on");
    Ok(())
}

fn reason(refusal: &Message) -> String {
    refusal.fields["reason"].as_str().unwrap_or("it gave no reason").to_owned()
}
