//! The round states of a client whose model goes on from round to round: kept, gone back to, and made again.
//! Must not decide which state a question builds on: the server says so, for it knows which rounds counted.
//!
//! A client that answered round `r` and lost its server before that round was kept there is asked for it again, and
//! must stand where it stood after the round before: so the two last states are kept. One that has lost them asks for
//! what it was sent, round by round, and does those rounds again.

use serde_json::{Value, json};

use super::ClientError;
use crate::{
    checkpoint::{Keep, Snapshot},
    frameworks::{ClientHalf, FrameworkError, Needs, exchange_of},
    rounds::Exchange,
    wire::{Line, Message, Subject},
};

#[derive(Debug)]
pub(super) struct States {
    needs: Needs,
    keep: Box<dyn Keep>,
    /// The run whose states they are.
    uid: String,
    /// Before the first round.
    initial: Snapshot,
    /// The round in whose final state the model stands; none while it is somewhere within a round.
    at: Option<u32>,
    /// The exchange that the model has answered, where the round goes on after it.
    midway: Option<Exchange>,
}

impl States {
    /// The states of a client whose model stands before the first round.
    pub(super) fn of(
        half: &dyn ClientHalf,
        needs: Needs,
        keep: Box<dyn Keep>,
        uid: &str,
    ) -> Result<Self, FrameworkError> {
        let initial = if needs.clients_keep_state { half.save()? } else { Snapshot::default() };
        Ok(Self { needs, keep, uid: uid.to_owned(), initial, at: Some(0), midway: None })
    }

    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// Brings the model to where `ask` wants it, asking the server for what is lost.
    pub(super) fn prepare(
        &mut self,
        half: &mut dyn ClientHalf,
        ask: &Message,
        line: &mut dyn Line,
    ) -> Result<(), ClientError> {
        if !self.needs.clients_keep_state {
            return Ok(());
        }
        let Exchange { round, index } = exchange_of(ask);
        let goes_on = index > 0 && self.midway == Some(Exchange { round, index: index - 1 });
        self.midway = None;
        if !goes_on {
            let wanted = ask.fields["state"].as_u64().unwrap_or(0) as u32;
            self.go_to(wanted, half, ask, line)?;
            self.at = None;
            if index > 0 {
                half.catch_up(ask)?;
            }
        }
        self.at = None;
        Ok(())
    }

    /// Brings the model to where it stands after the client's last round, which `finish` names.
    pub(super) fn conclude(
        &mut self,
        half: &mut dyn ClientHalf,
        finish: &Message,
        line: &mut dyn Line,
    ) -> Result<(), ClientError> {
        match finish.fields["state"].as_u64() {
            Some(last) if self.needs.clients_keep_models => self.go_to(last as u32, half, finish, line),
            Some(_) | None => Ok(()),
        }
    }

    /// Notes that an exchange is answered; keeps the state that the last one of a round leaves.
    pub(super) fn answered(&mut self, half: &dyn ClientHalf, exchange: Exchange) -> Result<(), ClientError> {
        if !self.needs.clients_keep_state {
            return Ok(());
        }
        if exchange.index + 1 < self.needs.exchanges {
            self.midway = Some(exchange);
            return Ok(());
        }
        self.write(half, exchange.round)
    }

    fn write(&mut self, half: &dyn ClientHalf, round: u32) -> Result<(), ClientError> {
        let Snapshot { fields, tensors } = half.save()?;
        let fields = json!({ "uid": self.uid, "half": fields });
        self.keep.write(round, &Snapshot { fields, tensors })?;
        self.at = Some(round);
        Ok(())
    }

    fn go_to(
        &mut self,
        wanted: u32,
        half: &mut dyn ClientHalf,
        ask: &Message,
        line: &mut dyn Line,
    ) -> Result<(), ClientError> {
        if self.at == Some(wanted) {
            return Ok(());
        }
        let (mut have, state) = self.newest_up_to(wanted);
        half.restore(&state)?;
        if have < wanted {
            tracing::warn!(have, wanted, "this client lacks the states of rounds, and asks for what was sent in them");
        }
        while have < wanted {
            let fields = json!({ "after": have });
            line.send(Message { fields, epoch: ask.epoch, ..Message::new(Subject::Recall, ask.round) })?;
            let sent = receive_replay(line, have)?;
            tracing::debug!(phase = "replay", round = sent.round);
            half.replay(&sent)?;
            have = sent.round;
            self.write(half, have)?;
        }
        Ok(())
    }

    /// The newest state of this run up to a round, and its round.
    fn newest_up_to(&self, wanted: u32) -> (u32, Snapshot) {
        let rounds = self.keep.rounds().into_iter().rev().filter(|round| *round <= wanted);
        let mut states = rounds.filter_map(|round| Some((round, self.read(round)?)));
        states.next().unwrap_or_else(|| (0, self.initial.clone()))
    }

    /// A state of this run; one that is damaged, or of another run, is as good as lost.
    fn read(&self, round: u32) -> Option<Snapshot> {
        let kept = self.keep.read(round).map_err(|error| tracing::warn!(%error, round, "a round state is lost"));
        let Snapshot { mut fields, tensors } = kept.ok()??;
        (fields["uid"].as_str() == Some(&self.uid)).then(|| {
            let fields = fields.get_mut("half").map_or(Value::Null, Value::take);
            Snapshot { fields, tensors }
        })
    }
}

/// The replay of a round after `have`; one that comes twice is passed over.
fn receive_replay(line: &mut dyn Line, have: u32) -> Result<Message, ClientError> {
    loop {
        let message = line.receive()?;
        match message.subject {
            Subject::Replay if message.round > have => return Ok(message),
            Subject::Replay => {}
            Subject::Refuse => {
                let reason = message.fields["reason"].as_str().unwrap_or("it gave no reason").to_owned();
                return Err(ClientError::Refused(reason));
            }
            other @ (Subject::Join
            | Subject::Welcome
            | Subject::Begin
            | Subject::Step
            | Subject::StepReply
            | Subject::StepGradient
            | Subject::StepGradientReply
            | Subject::Upload
            | Subject::Exchange
            | Subject::ExchangeReply
            | Subject::Finish
            | Subject::Recall) => return Err(ClientError::Unexpected(other)),
        }
    }
}
