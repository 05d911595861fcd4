//! What a client sends in a step, and the reply to it.
//! Must not look into tensors: the client reads them.

use crate::{
    frameworks::{FrameworkError, answer},
    meter::Worker,
    random::Key,
    wire::{Line, LinkError, Message, Subject, WireTensor},
};

/// The other side, in sentences.
pub(super) const SERVER: &str = "the server";

/// The subjects of a step and of the reply to it.
pub(super) const STEP: (Subject, Subject) = (Subject::Step, Subject::StepReply);

/// Those of its second half, where the head is the client's.
pub(super) const STEP_GRADIENT: (Subject, Subject) = (Subject::StepGradient, Subject::StepGradientReply);

/// A question whose answer takes steps.
pub(super) struct Asking<'a> {
    /// The question.
    pub(super) ask: &'a Message,
    /// The way to who asked.
    pub(super) line: &'a mut dyn Line,
}

impl Asking<'_> {
    /// Sends a message of the step of `key` about the first of these subjects, and gives the reply about the second.
    pub(super) fn exchange(
        &mut self,
        (subject, expected): (Subject, Subject),
        key: Key,
        tensors: Vec<WireTensor>,
        worker: &mut Worker,
    ) -> Result<Message, FrameworkError> {
        let message = Message { subject, step: key.step, tensors, ..answer(self.ask) };
        worker.network(|| self.line.send(message))?;
        let reply = worker.wait(|| self.receive(expected, key.step))?;
        check(&reply, expected, key.step)?;
        Ok(reply)
    }

    /// The next message that is neither the refusal of a single message, which is only said (a server that will not go
    /// on ends the session), nor something that came twice: the question itself, or the reply to what is over.
    fn receive(&mut self, expected: Subject, step: u32) -> Result<Message, LinkError> {
        let ask = self.ask;
        loop {
            let message = self.line.receive()?;
            let passing = message.subject == Subject::Refuse && message.fields["final"].as_bool() == Some(false);
            let again = message.subject == ask.subject && (message.round, message.attempt) == (ask.round, ask.attempt);
            let due = (ask.attempt, step, half(expected));
            let over = half(message.subject).is_some() && (message.attempt, message.step, half(message.subject)) < due;
            if !passing && !over && !again {
                return Ok(message);
            }
            if passing {
                let reason = message.fields["reason"].as_str().unwrap_or("it gave no reason");
                tracing::warn!(reason, "the server refused what this client sent, and goes on");
            }
        }
    }
}

/// Which half of a step a reply belongs to.
fn half(reply: Subject) -> Option<u8> {
    match reply {
        Subject::StepReply => Some(0),
        Subject::StepGradientReply => Some(1),
        Subject::Join
        | Subject::Welcome
        | Subject::Begin
        | Subject::Step
        | Subject::StepGradient
        | Subject::Upload
        | Subject::Exchange
        | Subject::ExchangeReply
        | Subject::Finish
        | Subject::Refuse
        | Subject::Recall
        | Subject::Replay => None,
    }
}

/// Refuses what is not the reply to this step.
fn check(reply: &Message, expected: Subject, step: u32) -> Result<(), FrameworkError> {
    if (reply.subject, reply.step) == (expected, step) {
        return Ok(());
    }
    if reply.subject == Subject::Refuse {
        let reason = reply.fields["reason"].as_str().unwrap_or("it gave no reason").to_owned();
        return Err(FrameworkError::Refused { who: SERVER.to_owned(), reason });
    }
    Err(FrameworkError::Unexpected { who: SERVER.to_owned(), got: reply.subject, expected })
}
