//! What happens in a run, as it happens: progress bars, logs and live metrics read this.
//! Must not decide anything: a run gives the same adapter whether anyone listens or not.

use std::{fmt, net::SocketAddr, sync::Arc};

use crate::{meter::Meter, refusal::RefusalReason};

/// Something that a person who waits would want to know.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants' sentences name their fields")]
pub enum Event {
    /// A piece of set-up began: `Tokenising 6,046 texts`. `of` is its length, zero where unknown.
    StageStarted { stage: String, of: u64 },
    /// The current piece of set-up is at `at`.
    StageAdvanced { at: u64 },
    /// The current piece of set-up is done.
    StageFinished,
    /// Said once at the start: device and precision, clients and their examples, a warning.
    Note { text: String },
    /// A run began.
    RunStarted { run: String, framework: String, rounds: u32, clients: u32 },
    /// The server has its model loaded and accepts clients at this address.
    Listening { address: SocketAddr },
    /// Told by a client: it has a session with its server.
    Connected,
    /// Told by a client: it has no session with its server, and why: `waits for the server at http://a:7443`.
    Disconnected { reason: String },
    /// A client joined.
    ClientJoined { client: String, joined: u32, of: u32 },
    /// A client's session ended.
    ClientLeft { client: String },
    /// The round waits for the answers of these clients, in ordinal order; of none, it waits for the server's own work.
    WaitingFor { clients: Vec<String> },
    /// What a client sent was refused, with the sentence that it was told. One that had not said who it is goes by its
    /// address.
    UploadRefused { client: String, reason: RefusalReason, sentence: String },
    /// A client said that it cannot go on.
    ClientFailed { client: String, reason: String },
    /// All that a client did since the start of the run: told by its own process after each answer, and by the server
    /// for each answer that counts.
    ClientFigures { client: String, meter: Meter, peak_memory_bytes: u64 },
    /// The state after `round` is durable, in so many bytes.
    Checkpointed { round: u32, bytes: u64 },
    /// A round began; `steps` is the number of `StepFinished` to expect in it, all clients together.
    RoundStarted { round: u32, steps: u64 },
    /// A unit of work in the round is done by this client (or by the server): a local or a distillation step.
    StepFinished { worker: String },
    /// A round ended.
    RoundFinished { round: u32, accuracy: f64, loss: f64, payload_bytes: u64, seconds: f64 },
    /// A client was left out of this round.
    ClientAbsent { round: u32, client: String, reason: String },
    /// A stop rule is met: the run ends after this round, and well.
    Stopped { round: u32, rule: String, sentence: String },
    /// The run ended; `error` is its sentence where it failed.
    RunFinished { run: String, error: Option<String> },
}

/// Where events go. Cheap to clone; called from any thread.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Sends every event to `listener`.
    pub fn to(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Nobody listens.
    pub fn silent() -> Self {
        Self::to(|_| ())
    }

    /// Both listen, this one first.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::to(move |event: Event| {
            self.tell(event.clone());
            other.tell(event);
        })
    }

    /// Tells the listener.
    pub fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[test]
    fn two_listeners_hear_the_same_the_first_one_first() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = |name: &'static str| {
            let heard = Arc::clone(&heard);
            Events::to(move |event| heard.lock().unwrap_or_else(PoisonError::into_inner).push((name, event)))
        };
        listener("first").and(listener("second")).tell(Event::Connected);
        assert_eq!(*heard.lock().unwrap(), [("first", Event::Connected), ("second", Event::Connected)]);
    }
}
