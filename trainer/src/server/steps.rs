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
    /// The step that is next or under way.
    next: u32,
    /// Which of its messages comes next.
    phase: usize,
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
        Self { stepper, client, round: ask.round, attempt: ask.attempt, next: 0, phase: 0, most }
    }

    /// The reply to the next step; any other message is refused.
    pub(crate) fn take(&mut self, message: &Message) -> Result<Message, FrameworkError> {
        let open = (self.round, self.attempt);
        if (message.round, message.attempt) != open {
            return Err(not_open(&self.client, message, Some(open)));
        }
        self.check_order(message)?;
        if u64::from(self.next) >= self.most {
            return Err(FrameworkError::TooManySteps { who: self.client.clone(), most: self.most });
        }
        tracing::debug!(phase = "step", round = message.round, step = message.step);
        let reply = self.stepper.step(message)?;
        self.phase += 1;
        if self.phase == self.stepper.subjects().len() {
            (self.next, self.phase) = (self.next + 1, 0);
        }
        Ok(reply)
    }

    /// Refuses what a step does not consist of, what has been taken, and what is not due yet.
    fn check_order(&self, message: &Message) -> Result<(), FrameworkError> {
        let (subjects, who) = (self.stepper.subjects(), || self.client.clone());
        let due = subjects[self.phase];
        let Some(phase) = subjects.iter().position(|subject| *subject == message.subject) else {
            return Err(FrameworkError::Unexpected { who: who(), got: message.subject, expected: due });
        };
        if (message.step, phase) == (self.next, self.phase) {
            return Ok(());
        }
        let (got, expected) = ((message.subject, message.step), (due, self.next));
        let again = (message.step, phase) < (self.next, self.phase);
        Err(FrameworkError::OutOfOrder { who: who(), got, expected, again })
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

    /// Answers steps of two messages each.
    struct TwoEach;

    impl Stepper for TwoEach {
        fn subjects(&self) -> &'static [Subject] {
            &[Subject::Step, Subject::StepGradient]
        }

        fn step(&mut self, message: &Message) -> Result<Message, FrameworkError> {
            Echo.step(message)
        }
    }

    #[test]
    fn the_messages_of_a_step_come_in_their_order() {
        let mut steps = Steps { stepper: Box::new(TwoEach), ..steps() };
        let gradient = |number| Message { subject: Subject::StepGradient, ..step(3, 2, number) };
        let mut refused = |message: &Message| match steps.take(message) {
            Err(error @ FrameworkError::OutOfOrder { again, .. }) => Some((error.to_string(), again)),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        };
        let sentence = |got: &str, due: &str| format!("silo/0 sent {got} where {due} belongs");
        assert_eq!(refused(&gradient(0)), Some((sentence("step gradient 0", "step 0"), false)));
        assert_eq!(refused(&step(3, 2, 0)), None);
        assert_eq!(refused(&step(3, 2, 0)), Some((sentence("step 0", "step gradient 0"), true)));
        assert_eq!(refused(&step(3, 2, 1)), Some((sentence("step 1", "step gradient 0"), false)));
        assert_eq!(refused(&gradient(0)), None);
        assert_eq!(refused(&gradient(0)), Some((sentence("step gradient 0", "step 1"), true)));
        assert_eq!(refused(&step(3, 2, 1)), None);
    }

    #[test]
    fn what_a_step_does_not_consist_of_is_refused() {
        let odd = Message { subject: Subject::StepGradient, ..step(3, 2, 0) };
        assert_eq!(steps().take(&odd).unwrap_err().to_string(), "silo/0 sent a step gradient where a step belongs");
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
