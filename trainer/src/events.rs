//! What happens in a run, as it happens: progress bars, logs and live metrics read this.
//! Must not decide anything: a run gives the same adapter whether anyone listens or not.

use std::{fmt, sync::Arc};

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
    /// A client joined.
    ClientJoined { client: String, joined: u32, of: u32 },
    /// A round began; `steps` is the number of `StepFinished` to expect in it, all clients together.
    RoundStarted { round: u32, steps: u64 },
    /// A unit of work in the round is done by this client (or by the server): a local or a distillation step.
    StepFinished { worker: String },
    /// A round ended.
    RoundFinished { round: u32, accuracy: f64, loss: f64, payload_bytes: u64, seconds: f64 },
    /// A client was left out of this round.
    ClientAbsent { round: u32, client: String, reason: String },
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
