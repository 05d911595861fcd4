//! The machine itself: the phases of a run, and what an event or the time changes in them.
//! Must not know how an open exchange is worked off; `exchange.rs` does.

use std::time::Duration;

use super::{
    Action, Client, Event, Exchange, Failure, Rules,
    crowd::Crowd,
    exchange::{Open, Verdict},
};

/// The machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounds {
    rules: Rules,
    crowd: Crowd,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Joining {
        since: Duration,
    },
    Open(Open),
    Closing {
        exchange: Exchange,
        answered: Vec<Client>,
    },
    /// The last round is closed, and nobody knows yet.
    Finished,
    Ended,
}

impl Rounds {
    /// A machine that waits for clients since `now`.
    pub fn new(rules: Rules, now: Duration) -> Self {
        Self { rules, crowd: Crowd::default(), phase: Phase::Joining { since: now } }
    }

    /// A machine that goes on after a restart, with frozen labels: `closed` is the last round that was closed, 0 if
    /// none was. The next one is open since `now`; nobody has joined yet, and who joins is asked. After the last round
    /// the first tick finishes.
    pub fn resume(rules: Rules, closed: u32, now: Duration) -> Self {
        let mut rounds = Self::new(rules, now);
        rounds.open_round(now, closed.saturating_add(1));
        rounds
    }

    /// The exchange that is open or closing, for `/status` and sentences.
    pub fn exchange(&self) -> Option<Exchange> {
        match &self.phase {
            Phase::Open(open) => Some(open.exchange()),
            Phase::Closing { exchange, .. } => Some(*exchange),
            Phase::Joining { .. } | Phase::Finished | Phase::Ended => None,
        }
    }

    /// Whether an answer of this client to this exchange would count if it were the next event.
    pub fn waits_for(&self, client: Client, exchange: Exchange) -> bool {
        match &self.phase {
            Phase::Open(open) => open.waits_for(client, exchange),
            Phase::Joining { .. } | Phase::Closing { .. } | Phase::Finished | Phase::Ended => false,
        }
    }

    /// Whom joining or the open exchange still waits for, in client order; with turns, whose turn it is. Who gave up
    /// is among them only where nobody else can bring the quorum.
    pub fn waiting_for(&self) -> Vec<Client> {
        match &self.phase {
            Phase::Joining { .. } => self.crowd.awaited(self.missing().collect()),
            Phase::Open(open) => open.waiting_for(&self.crowd),
            Phase::Closing { .. } | Phase::Finished | Phase::Ended => Vec::new(),
        }
    }

    /// Whether there are enough clients that can work now without this one.
    pub fn can_spare(&self, client: Client) -> bool {
        let others = (0..self.rules.clients).filter(|other| *other != client && self.crowd.can_work(*other));
        others.count() >= self.rules.needed(self.rules.clients)
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

    /// The work of [`Action::Freeze`] was done at `now`: nobody could begin before.
    pub fn frozen(&mut self, now: Duration) {
        if let Some(open) = self.open_exchange() {
            open.restart_clock(now);
        }
    }

    /// When to tick again if nothing happens before; a tick then changes something.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Joining { since } => self.rules.deadline(*since, self.enough_joined()),
            Phase::Open(open) => open.deadline(&self.rules),
            Phase::Finished => Some(Duration::ZERO),
            Phase::Closing { .. } | Phase::Ended => None,
        }
    }

    /// Notes an event. Nothing is decided before all events of a tick are in, so that their order decides nothing.
    fn take(&mut self, now: Duration, event: &Event, actions: &mut Vec<Action>) {
        match *event {
            Event::Joined(client) | Event::Left(client) | Event::GaveUp(client) if client >= self.rules.clients => {}
            Event::Joined(client) => {
                self.crowd.join(client);
                if let Some(open) = self.open_exchange() {
                    open.join(client, actions);
                }
            }
            Event::Left(client) => {
                self.crowd.leave(client);
                if let Some(open) = self.open_exchange() {
                    open.leave(client);
                }
            }
            Event::GaveUp(client) => {
                self.crowd.give_up(client);
                if let Some(open) = self.open_exchange() {
                    open.give_up(client, actions);
                }
            }
            Event::Answered(client, exchange) => {
                if !self.open_exchange().is_some_and(|open| open.answer(client, exchange)) {
                    actions.push(Action::LeaveOut(client, exchange));
                }
            }
            Event::Closed => self.after_close(now),
            Event::Enough => {
                if matches!(self.phase, Phase::Closing { .. }) {
                    self.phase = Phase::Finished;
                }
            }
        }
    }

    fn open_exchange(&mut self) -> Option<&mut Open> {
        match &mut self.phase {
            Phase::Open(open) => Some(open),
            Phase::Joining { .. } | Phase::Closing { .. } | Phase::Finished | Phase::Ended => None,
        }
    }

    /// Moves on when nothing more is waited for, or time is up.
    fn advance(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if let Phase::Joining { since } = self.phase {
            self.advance_joining(now, since, actions);
        }
        if let Phase::Open(open) = &mut self.phase {
            match open.advance(now, &self.rules, &self.crowd, actions) {
                Verdict::Wait => {}
                Verdict::Close => self.close(actions),
                Verdict::Fail(failure) => self.fail(failure, actions),
            }
        }
        if self.phase == Phase::Finished {
            actions.push(Action::Finish);
            self.phase = Phase::Ended;
        }
    }

    /// Waits for every client, whatever share of them a round asks: all of them name the labels.
    fn advance_joining(&mut self, now: Duration, since: Duration, actions: &mut Vec<Action>) {
        let enough = self.enough_joined();
        let late = self.rules.deadline(since, enough).is_some_and(|deadline| now >= deadline);
        let all_here = !self.missing().any(|client| self.crowd.is_hopeful(client));
        if enough && (late || all_here) {
            actions.push(Action::Freeze);
            self.open_round(now, 1);
        } else if late {
            let (answered, needed) = (self.crowd.able(), self.rules.needed(self.rules.clients));
            let waited = now.saturating_sub(since);
            self.fail(Failure::QuorumLost { round: 1, answered, needed, waited }, actions);
        }
    }

    fn enough_joined(&self) -> bool {
        self.crowd.able() >= self.rules.needed(self.rules.clients)
    }

    /// Those that cannot work now.
    fn missing(&self) -> impl Iterator<Item = Client> {
        (0..self.rules.clients).filter(|client| !self.crowd.can_work(*client))
    }

    fn close(&mut self, actions: &mut Vec<Action>) {
        if let Phase::Open(open) = &self.phase {
            let exchange = open.exchange();
            let (answered, absent) = open.outcome(&self.crowd);
            actions.push(Action::Close { exchange, answered: answered.clone(), absent });
            self.phase = Phase::Closing { exchange, answered };
        }
    }

    fn after_close(&mut self, now: Duration) {
        let Phase::Closing { exchange: Exchange { round, index }, answered } = &self.phase else { return };
        if *index + 1 < self.rules.exchanges {
            let mut participants = self.rules.sample(*round);
            participants.retain(|client| answered.contains(client));
            let next = Exchange { round: *round, index: *index + 1 };
            self.phase = Phase::Open(Open::new(next, participants, self.rules.turns, now));
        } else {
            let next = round.saturating_add(1);
            self.open_round(now, next);
        }
    }

    /// Opens a round for a new sample of the clients; after the last one the run is over.
    fn open_round(&mut self, now: Duration, round: u32) {
        self.phase = if round > self.rules.rounds {
            Phase::Finished
        } else {
            let (first, participants) = (Exchange { round, index: 0 }, self.rules.sample(round));
            Phase::Open(Open::new(first, participants, self.rules.turns, now))
        };
    }

    fn fail(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        actions.push(Action::Fail(failure));
        self.phase = Phase::Ended;
    }

    /// Most clients that are remembered in any one place, for the simulator.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => self.crowd.remembered().max(open.remembered()),
            Phase::Closing { answered, .. } => self.crowd.remembered().max(answered.len()),
            Phase::Joining { .. } | Phase::Finished | Phase::Ended => self.crowd.remembered(),
        }
    }
}
