//! Steps within a round: taken in order, from the attempt that is open, and answered by the framework's stepper.
//! Must not wait: it is called wherever a client's message arrives.

use std::fmt;

use crate::{
    frameworks::{FrameworkError, Stepper},
    wire::Message,
};

/// What answers the steps of one client in one attempt at a round.
pub(crate) struct Steps {
    stepper: Box<dyn Stepper>,
    client: String,
    round: u32,
    attempt: u32,
    next: u32,
    /// Steps of the round, at most.
    most: u64,
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "steps of {} in round {}, attempt {}", self.client, self.round, self.attempt)
    }
}

impl Steps {
    /// For the steps that answer `ask`, from the first one on; they are `most` at most.
    pub(crate) fn of(stepper: Box<dyn Stepper>, client: String, ask: &Message, most: u64) -> Self {
        Self { stepper, client, round: ask.round, attempt: ask.attempt, next: 0, most }
    }

    /// The reply to the next step; any other message is refused.
    pub(crate) fn take(&mut self, message: &Message) -> Result<Message, FrameworkError> {
        let open = (self.round, self.attempt);
        if (message.round, message.attempt) != open {
            return Err(not_open(&self.client, message, Some(open)));
        }
        if message.step != self.next {
            let (who, got, expected) = (self.client.clone(), message.step, self.next);
            return Err(FrameworkError::OutOfOrder { who, got, expected });
        }
        if u64::from(self.next) >= self.most {
            return Err(FrameworkError::TooManySteps { who: self.client.clone(), most: self.most });
        }
        tracing::debug!(phase = "step", round = message.round, step = message.step);
        let reply = self.stepper.step(message)?;
        self.next += 1;
        Ok(reply)
    }
}

/// Refuses a message by its round and attempt; `open` are those that are.
pub(crate) fn not_open(client: &str, message: &Message, open: Option<(u32, u32)>) -> FrameworkError {
    let Message { subject, round, attempt, .. } = *message;
    FrameworkError::NotOpen { who: client.to_owned(), subject, round, attempt, open }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Subject;

    struct Echo;

    impl Stepper for Echo {
        fn step(&mut self, message: &Message) -> Result<Message, FrameworkError> {
            Ok(Message { step: message.step, ..Message::new(Subject::StepReply, message.round) })
        }
    }

    fn step(round: u32, attempt: u32, step: u32) -> Message {
        Message { step, attempt, ..Message::new(Subject::Step, round) }
    }

    fn steps() -> Steps {
        Steps::of(Box::new(Echo), "silo/0".to_owned(), &Message { attempt: 2, ..Message::new(Subject::Begin, 3) }, 3)
    }

    #[test]
    fn steps_are_answered_in_order() {
        let mut steps = steps();
        for number in 0..3 {
            assert_eq!(steps.take(&step(3, 2, number)).unwrap().step, number);
        }
    }

    #[test]
    fn a_turn_has_no_more_steps_than_its_work() {
        let mut steps = steps();
        (0..3).for_each(|number| drop(steps.take(&step(3, 2, number)).unwrap()));
        let refused = steps.take(&step(3, 2, 3)).unwrap_err().to_string();
        assert_eq!(refused, "silo/0 sent another step after the 3 that its examples and the spec give it in a round");
    }

    #[test]
    fn a_step_sent_twice_or_too_early_is_refused_by_number() {
        let mut steps = steps();
        steps.take(&step(3, 2, 0)).unwrap();
        for odd in [0, 2] {
            let refused = steps.take(&step(3, 2, odd)).unwrap_err().to_string();
            assert_eq!(refused, format!("silo/0 sent step {odd} where step 1 belongs"));
        }
        steps.take(&step(3, 2, 1)).unwrap();
    }

    #[test]
    fn a_step_of_another_round_or_attempt_is_refused_by_number() {
        for (round, attempt) in [(2, 2), (4, 2), (3, 1), (3, 3)] {
            let refused = steps().take(&step(round, attempt, 0)).unwrap_err().to_string();
            let expected = format!(
                "silo/0 sent a step of round {round}, attempt {attempt}, which is not open for it; round 3, attempt 2 is"
            );
            assert_eq!(refused, expected);
        }
    }
}
