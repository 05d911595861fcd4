//! After the last round: everyone who took part is told that it is over, also who comes back late.
//! Must not wait or read a clock; it says when everyone has confirmed.

use std::collections::BTreeSet;

use super::{Door, Inbox, Refusal, archive::Archive, refusal_message};
use crate::{
    refusal::RefusalReason,
    rounds::Client,
    wire::{Message, Subject},
};

/// Who has confirmed that the run is over.
#[derive(Debug)]
pub(crate) struct Farewell {
    /// What a client that joins now is told first.
    welcome: Message,
    finish: Message,
    archive: Archive,
    missing: BTreeSet<Client>,
}

impl Farewell {
    /// A farewell to these clients; `archive` brings those that lost their state to where they were.
    pub(super) fn new(welcome: Message, finish: Message, archive: Archive, clients: BTreeSet<Client>) -> Self {
        Self { welcome, finish, archive, missing: clients }
    }

    /// Tells everyone who is connected. One whose joining nobody has read yet waits for a welcome before all else.
    pub(crate) fn begin(&self, door: &dyn Door) {
        for client in &self.missing {
            door.send(*client, self.welcome.clone());
            door.send(*client, self.finish_of(*client));
        }
    }

    fn finish_of(&self, client: Client) -> Message {
        let fields = serde_json::json!({ "state": self.archive.last_completed(client) });
        Message { fields, ..self.finish.clone() }
    }

    /// Takes what a client says meanwhile.
    pub(crate) fn take(&mut self, inbox: Inbox, door: &dyn Door) {
        match inbox {
            Inbox::Joined(client, _) => {
                door.send(client, self.welcome.clone());
                door.send(client, self.finish_of(client));
            }
            Inbox::Message(client, message, _) if message.subject == Subject::Recall => {
                match self.archive.replay(client, &message) {
                    Ok(replay) => door.send(client, Message { epoch: self.finish.epoch, ..replay }),
                    Err(error) => door.send(client, refusal_message(&Refusal::of(&error), true)),
                }
            }
            Inbox::Message(client, message, _) if message.subject == Subject::Finish => {
                self.missing.remove(&client);
                door.end(client);
            }
            // An answer that comes now has no round any more; the client reads the finish behind it.
            Inbox::Message(..) | Inbox::Left(_) | Inbox::StepRefused(..) | Inbox::Refused(..) => {}
            // Whoever wants an end now gets it: the results are written.
            Inbox::Stop(_) => self.missing.clear(),
        }
    }

    /// Whether everyone has confirmed.
    pub(crate) fn is_over(&self) -> bool {
        self.missing.is_empty()
    }

    /// Tells everyone that there will be no results.
    pub(super) fn tell_failure(&self, sentence: &str, door: &dyn Door) {
        let refusal = Refusal { reason: RefusalReason::Other, sentence: format!("the run failed: {sentence}") };
        self.missing.iter().for_each(|client| door.send(*client, refusal_message(&refusal, true)));
    }
}
