//! What reaches the engine: joins, answers, refusals, ends; each checked, kept or refused with a sentence.
//! Must not decide what comes next: it gives the round machine events.

use fedtune_crds::report::Direction;

use super::{Engine, NON_FINITE_LOSS};
use crate::{
    events::Event as Progress,
    frameworks::{Figures, FrameworkError, exchange_of},
    rounds::{Client, Event, Exchange},
    server::{
        Announcement, Door, Inbox, JoinError, Refusal, ServerError, archive::replay, refusal_message, short,
        steps::not_open,
    },
    wire::{Message, Subject},
};

/// A client that is refused so often in one round is sent away until the next.
const REFUSALS_IN_A_ROUND: u32 = 3;

impl Engine<'_> {
    pub(super) fn take(&mut self, inbox: Inbox, door: &dyn Door) -> Result<Vec<Event>, ServerError> {
        match inbox {
            Inbox::Joined(client, announcement) => self.take_join(client, &announcement, door),
            Inbox::Message(client, message, _permit) => self.take_message(client, &message, door),
            Inbox::Left(client) => {
                self.setup.events.tell(Progress::ClientLeft { client: self.id(client) });
                Ok(vec![Event::Left(client)])
            }
            Inbox::StepRefused(client, error, _permit) => self.refuse_work(client, error, door),
            Inbox::Refused(client, error) => {
                self.note_refusal(client, &Refusal::of(&error));
                Ok(vec![Event::GaveUp(client)])
            }
            Inbox::Stop(error) => Err(error),
        }
    }

    fn take_join(
        &mut self,
        client: Client,
        announcement: &Announcement,
        door: &dyn Door,
    ) -> Result<Vec<Event>, ServerError> {
        let times = self.account.times_refused(client);
        let joined = if times < REFUSALS_IN_A_ROUND {
            self.account.joined(client, announcement)
        } else {
            Err(JoinError::TooOften { client: announcement.client.clone(), times })
        };
        if let Err(error) = joined {
            let refusal = Refusal::of_join(&error);
            door.send(client, refusal_message(&refusal, error.is_final()));
            self.say_refused(client, refusal);
            door.end(client);
            return Ok(Vec::new());
        }
        let (joined, of) = (self.account.members().count() as u32, self.setup.plan.rules.clients as u32);
        self.setup.events.tell(Progress::ClientJoined { client: announcement.client.clone(), joined, of });
        self.welcome(client, door)?;
        Ok(vec![Event::Joined(client)])
    }

    fn take_message(&mut self, client: Client, message: &Message, door: &dyn Door) -> Result<Vec<Event>, ServerError> {
        if let Err(error) = self.check_epoch(client, message) {
            return Ok(self.refuse_message(client, message, &error, door));
        }
        match message.subject {
            Subject::Upload | Subject::ExchangeReply => self.take_answer(client, message, door),
            Subject::Recall => match replay(self.account.completed(), self.keep.as_ref(), client, message) {
                Ok(replay) => {
                    door.send(client, self.address(replay));
                    Ok(Vec::new())
                }
                Err(error) => Ok(self.refuse_message(client, message, &error, door)),
            },
            Subject::Refuse => self.take_giving_up(client, message, door),
            got @ (Subject::Join
            | Subject::Welcome
            | Subject::Begin
            | Subject::Step
            | Subject::StepReply
            | Subject::StepGradient
            | Subject::StepGradientReply
            | Subject::Exchange
            | Subject::Finish
            | Subject::Replay) => {
                let error = FrameworkError::Unexpected { who: self.id(client), got, expected: Subject::Upload };
                Ok(self.refuse_message(client, message, &error, door))
            }
        }
    }

    /// A client that gives up takes only itself out of the round. Training that went wrong ends the run, unless there
    /// are enough others: they will say so themselves if it is not this client alone.
    fn take_giving_up(
        &mut self,
        client: Client,
        message: &Message,
        door: &dyn Door,
    ) -> Result<Vec<Event>, ServerError> {
        let (id, text) = (self.id(client), |name: &str| message.fields[name].as_str());
        let reason = text("reason").map_or_else(|| "gave up without a reason".to_owned(), short);
        if text("cause") == Some(NON_FINITE_LOSS) && !self.machine.can_spare(client) {
            return Err(ServerError::Client { client: id, reason });
        }
        if self.account.refused(client, &reason) >= REFUSALS_IN_A_ROUND {
            door.end(client);
        }
        self.setup.events.tell(Progress::ClientFailed { client: id, reason });
        Ok(vec![Event::GaveUp(client)])
    }

    fn check_epoch(&self, client: Client, message: &Message) -> Result<(), FrameworkError> {
        let (got, expected) = (message.epoch, self.keep.epoch());
        if got == expected {
            return Ok(());
        }
        Err(FrameworkError::StaleEpoch { who: self.id(client), got, expected })
    }

    /// Takes an answer to the question that is open for this client; any other is refused by its number.
    fn take_answer(&mut self, client: Client, answer: &Message, door: &dyn Door) -> Result<Vec<Event>, ServerError> {
        let (exchange, got) = (exchange_of(answer), answer.subject);
        let expected = if exchange.index == 0 { Subject::Upload } else { Subject::ExchangeReply };
        if got != expected {
            let error = FrameworkError::Unexpected { who: self.id(client), got, expected };
            return Ok(self.refuse_message(client, answer, &error, door));
        }
        let open = self.attempts.get(&client).filter(|(asked, _)| self.machine.waits_for(client, *asked)).copied();
        if open != Some((exchange, answer.attempt)) {
            let open = open.map(|(asked, attempt)| (asked.round, attempt));
            let error = not_open(&self.id(client), answer, open);
            return Ok(self.refuse_message(client, answer, &error, door));
        }
        match self.keep_answer(client, exchange, answer) {
            Ok(()) => Ok(vec![Event::Answered(client, exchange)]),
            Err(error) => {
                self.setup.ledger.count_refused(&self.id(client), answer);
                self.refuse_work(client, error, door)
            }
        }
    }

    fn keep_answer(&mut self, client: Client, exchange: Exchange, answer: &Message) -> Result<(), FrameworkError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let figures = Figures::of(answer, &running.recipe)?;
        running.half.take(client, exchange, answer, &figures)?;
        self.setup.ledger.count(&self.id(client), Direction::Up, answer);
        self.account.take_figures(client, figures);
        let (meter, peak_memory_bytes) = self.account.done_by(client);
        self.setup.events.tell(Progress::ClientFigures { client: self.id(client), meter, peak_memory_bytes });
        Ok(())
    }

    /// Work that is refused takes the client out of the open exchange; a loss that is no number ends the run.
    fn refuse_work(
        &mut self,
        client: Client,
        error: FrameworkError,
        door: &dyn Door,
    ) -> Result<Vec<Event>, ServerError> {
        if matches!(error, FrameworkError::Train(_)) && !self.machine.can_spare(client) {
            return Err(error.into());
        }
        // It is the server's own disk: the next upload would fare no better.
        if matches!(error, FrameworkError::Spill { .. }) {
            return Err(error.into());
        }
        let stale = match &error {
            FrameworkError::NotOpen { .. } | FrameworkError::StaleEpoch { .. } => true,
            // What comes twice has been taken once.
            FrameworkError::OutOfOrder { again, .. } => *again,
            FrameworkError::Train(_)
            | FrameworkError::Link(_)
            | FrameworkError::Wire(_)
            | FrameworkError::Torch(_)
            | FrameworkError::Count { .. }
            | FrameworkError::Tensor { .. }
            | FrameworkError::NotFinite { .. }
            | FrameworkError::Logits { .. }
            | FrameworkError::Int8 { .. }
            | FrameworkError::Range { .. }
            | FrameworkError::TooManySteps { .. }
            | FrameworkError::Fields { .. }
            | FrameworkError::Refused { .. }
            | FrameworkError::Spill { .. }
            | FrameworkError::Unexpected { .. } => false,
        };
        let sent_away = self.refuse(client, &error, door);
        if stale {
            return Ok(sent_away);
        }
        // One who means well comes back and is asked again.
        door.end(client);
        Ok(vec![Event::GaveUp(client)])
    }

    /// Refuses a message that has no place now; the client's part in the round stays as it was.
    fn refuse_message(
        &mut self,
        client: Client,
        message: &Message,
        error: &FrameworkError,
        door: &dyn Door,
    ) -> Vec<Event> {
        self.setup.ledger.count_refused(&self.id(client), message);
        self.refuse(client, error, door)
    }

    /// Tells the client; one that was refused too often is sent away, and this round does not wait for it any longer.
    fn refuse(&mut self, client: Client, error: &FrameworkError, door: &dyn Door) -> Vec<Event> {
        let refusal = Refusal::of(error);
        door.send(client, refusal_message(&refusal, false));
        if self.note_refusal(client, &refusal) >= REFUSALS_IN_A_ROUND {
            door.end(client);
            return vec![Event::GaveUp(client)];
        }
        Vec::new()
    }

    fn note_refusal(&mut self, client: Client, refusal: &Refusal) -> u32 {
        let times = self.account.refused(client, &refusal.sentence);
        self.say_refused(client, refusal.clone());
        times
    }

    fn say_refused(&self, client: Client, refusal: Refusal) {
        let (client, Refusal { reason, sentence }) = (self.id(client), refusal);
        self.setup.events.tell(Progress::UploadRefused { client, reason, sentence });
    }
}
