//! Rounds as a pure state machine: events and a time in, actions out.
//! Must not hold a clock, a socket or a tensor, so that it can be driven through any fault without waiting for one.

use std::{collections::BTreeSet, time::Duration};

use thiserror::Error;

use crate::random::{Key, Site};

/// Ordinal of a client: replicas of earlier groups plus its index.
pub type Client = usize;

/// What decides who is asked, in which order, and how long is waited.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Clients of the run; zero for a run in which only the server works.
    pub clients: usize,
    /// Answers without which a round does not close.
    pub min_clients: usize,
    /// Share of the clients asked each round, above 0, at most 1.
    pub fraction: f64,
    /// Rounds of the run.
    pub rounds: u32,
    /// Exchanges of a round: each asks every participant once and closes once.
    pub exchanges: u32,
    /// Whether clients take turns, in an order drawn anew each round, rather than work side by side.
    pub turns: bool,
    /// How long an exchange (with turns: one turn) waits for all that were asked.
    pub round_timeout: Duration,
    /// How much longer it waits for `min_clients`.
    pub quorum_timeout: Duration,
    /// `spec.seed`.
    pub seed: u64,
}

/// One question to the clients in a round; a round has `Rules::exchanges` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exchange {
    /// Round, from 1.
    pub round: u32,
    /// Exchange in the round, from 0.
    pub index: u32,
}

/// What happened since the last tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client opened a session, for the first time or again.
    Joined(Client),
    /// A client's session ended.
    Left(Client),
    /// A client's answer to an exchange is complete and was accepted.
    Answered(Client, Exchange),
    /// The server's own work at the close of an exchange is done.
    Closed,
}

/// What is to be done now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants' sentences name their fields")]
pub enum Action {
    /// Every client that will be waited for at the start has joined: the labels are frozen.
    Freeze,
    /// Ask this client.
    Ask(Client, Exchange),
    /// Forget what this client did in its unfinished turn or exchange.
    Abandon(Client, Exchange),
    /// Leave this answer out: its exchange is closed, or the client's turn is not now.
    LeaveOut(Client, Exchange),
    /// Combine the answers; the machine goes on at [`Event::Closed`].
    Close { exchange: Exchange, answered: Vec<Client>, absent: Vec<(Client, Absence)> },
    /// All rounds are done.
    Finish,
    /// The run cannot go on.
    Fail(Failure),
}

/// Why a client that was asked did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Absence {
    /// It was connected and did not answer in time.
    #[error("did not answer within the round timeout")]
    Late,
    /// It was not connected when the exchange closed.
    #[error("was not connected when the round closed")]
    Away,
}

/// Why a run ended early.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the sentences document the fields")]
pub enum Failure {
    /// Too few clients joined or answered, for too long.
    #[error("QuorumLost: round {round} had {answered} of at least {needed} clients after {waited:?}")]
    QuorumLost { round: u32, answered: usize, needed: usize, waited: Duration },
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Rounds {
    rules: Rules,
    present: BTreeSet<Client>,
    phase: Phase,
}

#[derive(Debug, Clone)]
enum Phase {
    Joining { since: Duration },
    Open(Open),
    Closing(Exchange, Vec<Client>),
    Ended,
}

/// An exchange that waits for answers.
#[derive(Debug, Clone)]
struct Open {
    exchange: Exchange,
    /// Those asked, in the order in which they are asked.
    asked: Vec<Client>,
    answered: BTreeSet<Client>,
    /// With turns: those passed over.
    passed: BTreeSet<Client>,
    since: Duration,
}

impl Rounds {
    /// A machine that waits for clients since `now`.
    pub fn new(rules: Rules, now: Duration) -> Self {
        Self { rules, present: BTreeSet::new(), phase: Phase::Joining { since: now } }
    }

    /// The exchange that is open or closing, for `/status` and sentences.
    pub fn exchange(&self) -> Option<Exchange> {
        match &self.phase {
            Phase::Open(open) => Some(open.exchange),
            Phase::Closing(exchange, _) => Some(*exchange),
            Phase::Joining { .. } | Phase::Ended => None,
        }
    }

    /// Whether an answer of this client to this exchange would count now.
    pub fn waits_for(&self, client: Client, exchange: Exchange) -> bool {
        match &self.phase {
            Phase::Open(open) => open.exchange == exchange && open.waits_for(client, self.rules.turns),
            Phase::Joining { .. } | Phase::Closing(..) | Phase::Ended => false,
        }
    }

    /// Takes in what happened and says what to do. `now` is the time since any fixed moment.
    pub fn tick(&mut self, now: Duration, events: &[Event]) -> Vec<Action> {
        let mut actions = Vec::new();
        for event in events {
            self.take(now, event, &mut actions);
        }
        self.advance(now, &mut actions);
        actions
    }

    /// When to tick again if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let (since, enough) = match &self.phase {
            Phase::Joining { since } => (*since, self.present.len() >= self.rules.min_clients),
            Phase::Open(open) => (open.since, self.rules.turns || open.answered.len() >= self.needed(open.asked.len())),
            Phase::Closing(..) | Phase::Ended => return None,
        };
        let patience = if enough { Duration::ZERO } else { self.rules.quorum_timeout };
        Some(since + self.rules.round_timeout + patience)
    }

    fn take(&mut self, now: Duration, event: &Event, actions: &mut Vec<Action>) {
        match *event {
            Event::Joined(client) => {
                self.present.insert(client);
                if let Phase::Open(open) = &self.phase
                    && open.waits_for(client, self.rules.turns)
                {
                    actions.push(Action::Abandon(client, open.exchange));
                    actions.push(Action::Ask(client, open.exchange));
                }
            }
            Event::Left(client) => {
                self.present.remove(&client);
            }
            Event::Answered(client, exchange) => self.take_answer(now, client, exchange, actions),
            Event::Closed => self.after_close(now, actions),
        }
    }

    fn take_answer(&mut self, now: Duration, client: Client, exchange: Exchange, actions: &mut Vec<Action>) {
        let turns = self.rules.turns;
        match &mut self.phase {
            Phase::Open(open) if open.exchange == exchange && open.waits_for(client, turns) => {
                open.answered.insert(client);
                if turns {
                    open.since = now;
                    open.ask_next(&self.present, actions);
                }
            }
            Phase::Open(_) | Phase::Joining { .. } | Phase::Closing(..) | Phase::Ended => {
                actions.push(Action::LeaveOut(client, exchange));
            }
        }
    }

    /// Moves on when nothing more is waited for, or time is up.
    fn advance(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Joining { since } => self.advance_joining(now, *since, actions),
            Phase::Open(open) if self.rules.turns => {
                let open = open.clone();
                self.advance_turns(now, open, actions);
            }
            Phase::Open(open) => {
                let open = open.clone();
                self.advance_exchange(now, &open, actions);
            }
            Phase::Closing(..) | Phase::Ended => {}
        }
    }

    fn advance_joining(&mut self, now: Duration, since: Duration, actions: &mut Vec<Action>) {
        let Rules { clients, min_clients, round_timeout, quorum_timeout, .. } = self.rules;
        let waited = now.saturating_sub(since);
        let here = self.present.len();
        if here == clients || (waited >= round_timeout && here >= min_clients) {
            actions.push(Action::Freeze);
            self.open(now, Exchange { round: 1, index: 0 }, None, actions);
            self.advance(now, actions);
        } else if waited >= round_timeout + quorum_timeout {
            self.fail(Failure::QuorumLost { round: 1, answered: here, needed: min_clients, waited }, actions);
        }
    }

    fn advance_exchange(&mut self, now: Duration, open: &Open, actions: &mut Vec<Action>) {
        let needed = self.needed(open.asked.len());
        let waited = now.saturating_sub(open.since);
        let answered = open.answered.len();
        if answered == open.asked.len() || (waited >= self.rules.round_timeout && answered >= needed) {
            self.close(open, actions);
        } else if waited >= self.rules.round_timeout + self.rules.quorum_timeout {
            let round = open.exchange.round;
            self.fail(Failure::QuorumLost { round, answered, needed, waited }, actions);
        }
    }

    /// With turns, the time is each turn's own: who does not answer in it is passed over, the next is asked.
    fn advance_turns(&mut self, now: Duration, mut open: Open, actions: &mut Vec<Action>) {
        if let Some(client) = open.turn()
            && now.saturating_sub(open.since) >= self.rules.round_timeout
        {
            actions.push(Action::Abandon(client, open.exchange));
            open.passed.insert(client);
            open.since = now;
            open.ask_next(&self.present, actions);
        }
        if open.turn().is_some() {
            self.phase = Phase::Open(open);
            return;
        }
        let (answered, needed) = (open.answered.len(), self.needed(open.asked.len()));
        if answered >= needed {
            self.close(&open, actions);
        } else {
            let waited = self.rules.round_timeout * open.passed.len() as u32;
            self.fail(Failure::QuorumLost { round: open.exchange.round, answered, needed, waited }, actions);
        }
    }

    fn close(&mut self, open: &Open, actions: &mut Vec<Action>) {
        let absence = |client: &Client| if self.present.contains(client) { Absence::Late } else { Absence::Away };
        let mut absent: Vec<_> =
            open.asked.iter().filter(|c| !open.answered.contains(c)).map(|c| (*c, absence(c))).collect();
        absent.sort_unstable_by_key(|(client, _)| *client);
        let answered: Vec<_> = open.answered.iter().copied().collect();
        actions.push(Action::Close { exchange: open.exchange, answered: answered.clone(), absent });
        self.phase = Phase::Closing(open.exchange, answered);
    }

    fn after_close(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Phase::Closing(Exchange { round, index }, answered) = self.phase.clone() else { return };
        if index + 1 < self.rules.exchanges {
            self.open(now, Exchange { round, index: index + 1 }, Some(answered), actions);
        } else if round < self.rules.rounds {
            self.open(now, Exchange { round: round + 1, index: 0 }, None, actions);
        } else {
            actions.push(Action::Finish);
            self.phase = Phase::Ended;
        }
    }

    /// Opens an exchange for `asked`, or for a new sample of all clients.
    fn open(&mut self, now: Duration, exchange: Exchange, asked: Option<Vec<Client>>, actions: &mut Vec<Action>) {
        let asked = asked.unwrap_or_else(|| self.sample(exchange.round));
        let open = Open { exchange, asked, answered: BTreeSet::new(), passed: BTreeSet::new(), since: now };
        if self.rules.turns {
            open.ask_next(&self.present, actions);
        } else {
            let here = open.asked.iter().filter(|client| self.present.contains(client));
            actions.extend(here.map(|client| Action::Ask(*client, exchange)));
        }
        self.phase = Phase::Open(open);
    }

    /// Draws the round's participants; with turns, in the order of their turns, else in client order.
    fn sample(&self, round: u32) -> Vec<Client> {
        let Rules { clients, fraction, seed, .. } = self.rules;
        let key = Key { seed, round, ..Key::default() };
        let mut all: Vec<Client> = (0..clients).collect();
        key.stream(Site::Sampling).shuffle(&mut all);
        all.truncate(sample_size(clients, fraction));
        all.sort_unstable();
        if self.rules.turns {
            key.stream(Site::Turns).shuffle(&mut all);
        }
        all
    }

    fn needed(&self, asked: usize) -> usize {
        self.rules.min_clients.min(asked)
    }

    fn fail(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        actions.push(Action::Fail(failure));
        self.phase = Phase::Ended;
    }
}

impl Open {
    /// The client whose turn it is.
    fn turn(&self) -> Option<Client> {
        self.asked.iter().copied().find(|c| !self.answered.contains(c) && !self.passed.contains(c))
    }

    fn waits_for(&self, client: Client, turns: bool) -> bool {
        if turns {
            self.turn() == Some(client)
        } else {
            self.asked.contains(&client) && !self.answered.contains(&client)
        }
    }

    fn ask_next(&self, present: &BTreeSet<Client>, actions: &mut Vec<Action>) {
        if let Some(client) = self.turn().filter(|client| present.contains(client)) {
            actions.push(Action::Ask(client, self.exchange));
        }
    }
}

/// Clients asked in a round: the share rounded to the nearest, at least one where there is one.
pub fn sample_size(clients: usize, fraction: f64) -> usize {
    ((clients as f64 * fraction).round() as usize).clamp(clients.min(1), clients)
}

#[cfg(test)]
mod tests;
