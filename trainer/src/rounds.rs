//! Rounds as a pure state machine: events and a time in, actions out.
//! Must not hold a clock, a socket or a tensor, so that it can be driven through any fault without waiting for one.

use std::time::Duration;

use thiserror::Error;

mod crowd;
mod exchange;
mod machine;
mod rules;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use machine::Rounds;
pub use rules::{Rules, sample_size};

/// Ordinal of a client: replicas of earlier groups plus its index.
pub type Client = usize;

/// One question to the clients in a round; a round has `Rules::exchanges` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exchange {
    /// Round, from 1.
    pub round: u32,
    /// Exchange in the round, from 0.
    pub index: u32,
}

/// What happened since the last tick. A client's own events come in the order in which they happened; between clients
/// any order gives the same round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client opened a session, for the first time or again. Without a `Left` before, it replaces the session that
    /// the client had, of which nothing may come any more.
    Joined(Client),
    /// A client's session ended.
    Left(Client),
    /// A client said that it cannot go on in this session. It is not asked again before it joins anew.
    GaveUp(Client),
    /// A client's answer to an exchange is complete and was accepted.
    Answered(Client, Exchange),
    /// The server's own work at the close of an exchange is done.
    Closed,
    /// The same, and no further round is wanted.
    Enough,
}

/// What is to be done now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants' sentences name their fields")]
pub enum Action {
    /// Every client that will be waited for at the start has joined: the labels are frozen. Where that takes time,
    /// [`Rounds::frozen`] says so.
    Freeze,
    /// Ask this client; at most once in a session and exchange.
    Ask(Client, Exchange),
    /// Forget what this client did since it was asked: its session ended or its turn is over.
    Abandon(Client, Exchange),
    /// Leave this answer out: its exchange is closed, the client was not asked, or its turn is not now.
    LeaveOut(Client, Exchange),
    /// Combine the answers; the machine goes on at [`Event::Closed`] or [`Event::Enough`]. Both lists are in client order.
    Close { exchange: Exchange, answered: Vec<Client>, absent: Vec<(Client, Absence)> },
    /// All rounds are done.
    Finish,
    /// The run cannot go on.
    Fail(Failure),
}

/// Why a client that was to answer did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Absence {
    /// It was connected and did not answer in time.
    #[error("did not answer within the round timeout")]
    Late,
    /// It was not connected when the exchange closed.
    #[error("was not connected when the round closed")]
    Away,
    /// It said so, and did not come back.
    #[error("said that it could not go on")]
    GaveUp,
}

/// Why a run ended early.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the sentences document the fields")]
pub enum Failure {
    /// Too few clients joined or answered, for too long.
    #[error("QuorumLost: round {round} had {answered} of at least {needed} clients after {waited:?}")]
    QuorumLost { round: u32, answered: usize, needed: usize, waited: Duration },
}
