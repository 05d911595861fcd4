//! The rules of a run: who is asked, in which order, how many answers are enough, how long is waited.
//! Must not depend on who is connected: the same rules ask the same clients in the same order in every run.

use std::time::Duration;

use super::Client;
use crate::random::{Key, Site};

/// What decides who is asked, in which order, and how long is waited.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Clients of the run; zero for a run in which only the server works.
    pub clients: usize,
    /// Answers without which a round does not close; where fewer are asked, all of those. Never none, if any is asked.
    pub min_clients: usize,
    /// Share of the clients asked each round, above 0, at most 1.
    pub fraction: f64,
    /// Rounds of the run.
    pub rounds: u32,
    /// Exchanges of a round: each asks every participant once and closes once.
    pub exchanges: u32,
    /// Whether clients take turns, in an order drawn anew each round, rather than work side by side.
    pub turns: bool,
    /// How long joining, an exchange or (with turns) one turn waits for all.
    pub round_timeout: Duration,
    /// How much longer it waits for `min_clients`; with turns, from the end of the last turn on.
    pub quorum_timeout: Duration,
    /// `spec.seed`.
    pub seed: u64,
}

impl Rules {
    /// Draws the round's participants; with turns, in the order of their turns, else in client order.
    pub fn sample(&self, round: u32) -> Vec<Client> {
        let key = Key { seed: self.seed, round, ..Key::default() };
        let mut all: Vec<Client> = (0..self.clients).collect();
        key.stream(Site::Sampling).shuffle(&mut all);
        all.truncate(sample_size(self.clients, self.fraction));
        all.sort_unstable();
        if self.turns {
            key.stream(Site::Turns).shuffle(&mut all);
        }
        all
    }

    /// How many of `asked` clients are enough.
    pub(super) fn needed(&self, asked: usize) -> usize {
        self.min_clients.max(1).min(asked)
    }

    /// When joining or an exchange that began at `since` waits no longer; never, if that is past the end of time.
    pub(super) fn deadline(&self, since: Duration, enough: bool) -> Option<Duration> {
        let patience = if enough { Duration::ZERO } else { self.quorum_timeout };
        since.checked_add(self.round_timeout)?.checked_add(patience)
    }
}

/// Clients asked in a round: the share rounded to the nearest, at least one where there is one.
pub fn sample_size(clients: usize, fraction: f64) -> usize {
    ((clients as f64 * fraction).round() as usize).clamp(clients.min(1), clients)
}
