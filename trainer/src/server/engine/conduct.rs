//! What the engine does when the round machine says so: freezes, welcomes, asks, closes, keeps.
//! Must not decide when: the machine does.

use std::{collections::BTreeSet, time::Duration};

use fedtune_crds::report::{ByteCount, Direction};

use super::{Clock, Engine, Running, too_early};
use crate::{
    adapter_files::starting_model,
    data::{Labels, encode},
    events::Event as Progress,
    frameworks::{FrameworkError, PayloadFacts, ServerSeat, Spare, StepSizes, public_reads},
    local::check_evaluation,
    meter::Worker,
    models::Head,
    rounds::{Client, Event, Exchange},
    server::{
        Door, ServerError, ServerSetup, Steps,
        account::{RoundClose, check_payload},
        archive::last_completed,
        saved::Saved,
    },
    stop::Stop,
    wire::{Limits, Message, Subject},
};

/// Tensors of a message beside an adapter's.
const FEW_TENSORS: usize = 8;

impl Engine<'_> {
    /// Freezes the labels and makes the global model; from now on clients can be welcomed.
    pub(super) fn freeze(&mut self, door: &dyn Door) -> Result<(), ServerError> {
        tracing::debug!(phase = "freeze");
        let labels = self.frozen_labels();
        self.account.freeze(&labels);
        self.running = Some(self.make_running(labels)?);
        self.checkpoint(0)?;
        let members: Vec<Client> = self.account.members().map(|(client, _)| client).collect();
        members.into_iter().try_for_each(|client| self.welcome(client, door))
    }

    pub(super) fn make_running(&mut self, labels: Labels) -> Result<Running, ServerError> {
        let setup = &mut self.setup;
        let recipe = setup.plan.recipe(labels.len(), setup.pad_id, setup.lora.clone());
        let (base, initial) = (setup.base.share(), setup.initial.as_deref());
        let model = starting_model(base, &setup.lora, recipe.head, setup.plan.seed, labels.as_slice(), initial)?;
        let public = encode(&setup.public, &labels)?;
        let public_reads = public_reads(&public, recipe.head);
        setup.plan.framework.check(setup.base.shape(), &recipe, public_reads)?;
        let all_data: Vec<_> = setup.all_data.drain(..).flatten().collect();
        let seat = ServerSeat {
            recipe: recipe.clone(),
            model,
            spare: spare(setup, recipe.head, &labels),
            clients: setup.plan.clients.iter().map(ToString::to_string).collect(),
            all_data: encode(&all_data, &labels)?,
            public,
            evaluation: encode(&setup.evaluation, &labels)?,
            worker: Worker::new("server", setup.slots.clone(), setup.events.clone()),
        };
        let half = setup.plan.framework.server_half(seat);
        Ok(Running { half, labels, recipe, public_reads })
    }

    /// The plan's labels, else the sorted union of what clients announced, else what the server's own data has.
    fn frozen_labels(&self) -> Labels {
        let setup = &self.setup;
        let announced: BTreeSet<&String> = self.account.members().flat_map(|(_, a)| a.labels.keys()).collect();
        if !setup.plan.data.labels.is_empty() || announced.is_empty() {
            return Labels::new(setup.labels.clone());
        }
        Labels::new(announced.into_iter().cloned().collect())
    }

    /// Tells a client the labels, once they are frozen, and lets it send as much as its work needs.
    pub(super) fn welcome(&self, client: Client, door: &dyn Door) -> Result<(), ServerError> {
        if self.running.is_some() {
            door.widen(client, self.limits(client)?);
            door.send(client, self.welcome_message());
        }
        Ok(())
    }

    pub(super) fn welcome_message(&self) -> Message {
        let labels = self.account.labels();
        let fields = serde_json::json!({ "labels": labels, "uid": self.setup.uid });
        self.address(Message { fields, ..Message::new(Subject::Welcome, 0) })
    }

    /// The most that any one message of a client holds: no more than its whole round with one largest step.
    fn limits(&self, client: Client) -> Result<Limits, ServerError> {
        let running = self.running.as_ref().ok_or_else(too_early)?;
        let (rows, seq) = (running.recipe.batch_size as u64, running.recipe.max_length as u64);
        let steps = StepSizes { rows, tokens: rows * seq };
        let payload = self.setup.plan.framework.payload(&PayloadFacts {
            client,
            shape: self.setup.base.shape(),
            recipe: &running.recipe,
            before: &[],
            public_reads: running.public_reads,
            steps,
        });
        let up = payload.iter().filter(|((direction, _), _)| *direction == Direction::Up).map(|(_, bytes)| bytes);
        let tensors = running.half.seat().model.adapter().parameters().len() + FEW_TENSORS;
        Ok(Limits { tensors, payload_bytes: up.sum() })
    }

    pub(super) fn ask(
        &mut self,
        client: Client,
        exchange: Exchange,
        now: Duration,
        door: &dyn Door,
    ) -> Result<(), ServerError> {
        self.begin_round(exchange, now);
        let attempt = match self.attempts.get(&client) {
            Some((asked, attempt)) if *asked == exchange => attempt + 1,
            Some(_) | None => 1,
        };
        self.attempts.insert(client, (exchange, attempt));
        let keeps_state = self.setup.plan.framework.needs().clients_keep_state;
        let state = last_completed(self.account.completed(), client);
        let (epoch, id) = (self.keep.epoch(), self.id(client));
        let batches = self.account.batches_of(client, self.setup.plan);
        let half = &mut self.running()?.half;
        let mut ask = Message { epoch, attempt, ..half.ask(client, exchange)? };
        if keeps_state {
            ask.fields = serde_json::json!({ "state": state });
        }
        let stepper = half.stepper(client, exchange.round, batches);
        let steps = stepper.map(|stepper| Steps::of(stepper, id, &ask, batches));
        door.set_steps(client, steps);
        door.send(client, ask);
        Ok(())
    }

    fn begin_round(&mut self, exchange: Exchange, now: Duration) {
        if self.account.begin_round(exchange.round, now) {
            tracing::debug!(phase = "round", round = exchange.round);
            let steps = self.account.steps_of_a_round(self.setup.plan);
            self.setup.events.tell(Progress::RoundStarted { round: exchange.round, steps });
        }
    }

    pub(super) fn close(&mut self, close: &RoundClose, clock: Clock<'_>) -> Result<(), ServerError> {
        let Exchange { round, index } = close.exchange;
        tracing::debug!(phase = "close", round, exchange = index);
        self.begin_round(close.exchange, clock());
        let weights = self.account.weights(&close.answered);
        self.running()?.half.close(close.exchange, &weights)?;
        self.account.take_absent(close, &self.setup.events);
        for client in &close.answered {
            let attempt = self.attempts.get(client).map_or(0, |(_, attempt)| *attempt);
            self.setup.ledger.settle(&self.id(*client), close.exchange, attempt);
        }
        for (client, _) in &close.absent {
            self.setup.ledger.settle(&self.id(*client), close.exchange, 0);
        }
        if index + 1 == self.setup.plan.rules.exchanges {
            self.close_round(close, clock)?;
        }
        Ok(())
    }

    /// What the machine is told once an exchange is closed: whether a further round is wanted.
    pub(super) fn after_close(&self, exchange: Exchange) -> Event {
        let ends_round = exchange.index + 1 == self.setup.plan.rules.exchanges;
        let Some(Stop { rule, sentence }) = self.stop().filter(|_| ends_round) else { return Event::Closed };
        let (round, rule) = (exchange.round, rule.to_owned());
        self.setup.events.tell(Progress::Stopped { round, rule, sentence });
        Event::Enough
    }

    /// The stop rule that the rounds so far meet.
    pub(super) fn stop(&self) -> Option<Stop> {
        self.setup.plan.stop.met(self.account.rounds(), self.setup.plan.rules.rounds)
    }

    /// After a round's last exchange: evaluates, checks the bytes, and keeps all of it before anything else happens.
    fn close_round(&mut self, close: &RoundClose, clock: Clock<'_>) -> Result<(), ServerError> {
        let round = close.exchange.round;
        tracing::debug!(phase = "evaluate", round);
        let evaluation = self.running()?.half.evaluate();
        if let Some(evaluation) = &evaluation {
            check_evaluation(evaluation, "the global model", round).map_err(FrameworkError::from)?;
        }
        let bytes = self.setup.ledger.round(round);
        self.check_payload(close, &bytes)?;
        self.account.complete(close, self.setup.plan.framework.shares_state());
        self.account.end_round(close, evaluation, bytes, clock(), &self.setup.events);
        self.checkpoint(round)
    }

    /// Compares what each participant exchanged in the round with the framework's formula.
    fn check_payload(&self, close: &RoundClose, bytes: &[ByteCount]) -> Result<(), ServerError> {
        let Running { half, recipe, public_reads, .. } = self.running.as_ref().ok_or_else(too_early)?;
        let before = &self.account.last_participants()[..];
        for &client in &close.answered {
            let (shape, public_reads, steps) = (self.setup.base.shape(), *public_reads, half.step_sizes(client));
            let facts = PayloadFacts { client, shape, recipe, before, public_reads, steps };
            let expected = self.setup.plan.framework.payload(&facts);
            check_payload(close.exchange.round, &self.id(client), &expected, bytes)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, round: u32) -> Result<(), ServerError> {
        tracing::debug!(phase = "checkpoint", round);
        let Running { half, .. } = self.running.as_ref().ok_or_else(too_early)?;
        if let Some(sent) = half.broadcast()?.filter(|_| round > 0) {
            self.keep.write_broadcast(round, &sent)?;
        }
        let carried = self.setup.ledger.total();
        let snapshot = Saved::snapshot(&self.setup.uid, self.account.book(), carried, half.as_ref())?;
        let bytes = self.keep.write(round, &snapshot)?;
        self.setup.events.tell(Progress::Checkpointed { round, bytes });
        Ok(())
    }
}

/// Makes further models like the first; the arguments have made one already.
fn spare(setup: &ServerSetup<'_>, head: Head, labels: &Labels) -> Spare {
    let (base, lora, seed) = (setup.base.share(), setup.lora.clone(), setup.plan.seed);
    let (labels, initial) = (labels.clone(), setup.initial.clone());
    Spare(Box::new(move || {
        let model = starting_model(base.share(), &lora, head, seed, labels.as_slice(), initial.as_deref());
        model.expect("the same arguments have made a model already")
    }))
}
