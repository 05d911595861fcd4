//! Watches the machine from outside and says which law it breaks: a second, slower account of the same events.
//! Must not look into the machine; it trusts only what came in and what went out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use thiserror::Error;

use super::super::{Absence, Action, Client, Event, Exchange, Failure, Rules};

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Violation {
    #[error("{0:?} closed where {1:?} was open")]
    OutOfOrder(Exchange, Option<Exchange>),
    #[error("the run finished with rounds {0:?} closed, of {1}")]
    RoundLost(Vec<u32>, u32),
    #[error("client {0} counts in {1:?} and did not answer it since it was last asked")]
    CountedWithoutAnswer(Client, Exchange),
    #[error("client {0} answered {1:?} and does not count")]
    AnswerLost(Client, Exchange),
    #[error("those that count are not in ascending order, each once: {0:?}")]
    CountedTwice(Vec<Client>),
    #[error("those that count and those that are absent are {0:?}, and {1:?} take part")]
    Unaccounted(Vec<Client>, Vec<Client>),
    #[error("client {0} is absent as {1:?} where it is {2:?}")]
    WrongAbsence(Client, Absence, Absence),
    #[error("{0:?} closed with {1} of at least {2} answers")]
    BelowQuorum(Exchange, usize, usize),
    #[error("{0:?} did not wait for {1:?}")]
    Impatient(Exchange, Vec<Client>),
    #[error("{0:?} is still open though nobody is left to wait for, or waits for {1:?}, who gave up")]
    Tardy(Exchange, Vec<Client>),
    #[error("{0:?} while there is hope or time left")]
    HastyFailure(Failure),
    #[error("the labels were frozen before enough clients had joined or joining was over")]
    HastyFreeze,
    #[error("client {0} was asked {1:?}, which is not open")]
    AskedElsewhere(Client, Exchange),
    #[error("client {0} was asked and cannot hear it: it is not connected or gave up")]
    AskedAway(Client),
    #[error("client {0} was asked and takes no part in the round")]
    AskedStranger(Client),
    #[error("client {0} was asked twice in one session")]
    AskedTwice(Client),
    #[error("client {0} was asked again and its unfinished work not abandoned, or without need")]
    NotAbandoned(Client),
    #[error("client {0} was asked in the turn of client {1}")]
    TwoTurns(Client, Client),
    #[error("client {0} could work and is not asked")]
    NotAsked(Client),
    #[error("the work of client {0} was abandoned without need")]
    AbandonedForNothing(Client),
    #[error("client {0}'s answer to {1:?} was left out, which it did not give or which counts")]
    LeftOutForNothing(Client, Exchange),
    #[error("{0:?} after the end of the run")]
    AfterTheEnd(Action),
    #[error("nothing would ever happen again in {0:?}")]
    Stuck(Option<Exchange>),
    #[error("a tick at the deadline changed nothing in {0:?}")]
    BusyLoop(Option<Exchange>),
    #[error("the machine remembers {0} clients of {1}")]
    Memory(usize, usize),
    #[error("the same events in another order gave {1:?} and not {0:?}")]
    OrderMatters(Vec<Action>, Vec<Action>),
}

/// What an outsider knows of the run.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    rules: Rules,
    present: BTreeSet<Client>,
    gave_up: BTreeSet<Client>,
    phase: Phase,
    /// Rounds whose close is durable, in the order in which they closed.
    closed: Vec<u32>,
    /// Answers of this tick that may not count.
    to_leave_out: Vec<(Client, Exchange)>,
}

#[derive(Debug, Clone)]
enum Phase {
    Joining(Duration),
    Open(Watched),
    Closing(Exchange, Vec<Client>),
    Over,
}

/// What an outsider knows of the open exchange.
#[derive(Debug, Clone)]
struct Watched {
    exchange: Exchange,
    since: Duration,
    part: BTreeSet<Client>,
    attempts: BTreeMap<Client, Attempt>,
    /// Those asked in the session that they have now.
    told: BTreeSet<Client>,
    /// Those that need not be waited for, because they gave up at some time.
    excused: BTreeSet<Client>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Running,
    Broken,
    Answered,
}

type Verdict = Result<(), Violation>;

/// `Err(violation)` unless the law holds.
fn law(holds: bool, violation: impl FnOnce() -> Violation) -> Verdict {
    if holds { Ok(()) } else { Err(violation()) }
}

impl Witness {
    pub(super) fn new(rules: Rules, now: Duration) -> Self {
        Self {
            rules,
            present: BTreeSet::new(),
            gave_up: BTreeSet::new(),
            phase: Phase::Joining(now),
            closed: Vec::new(),
            to_leave_out: Vec::new(),
        }
    }

    /// The server died; `durable` says whether what was closing is kept. Returns the last closed round, if the labels
    /// were frozen.
    pub(super) fn restart(&mut self, now: Duration, durable: bool) -> Option<u32> {
        self.present.clear();
        self.gave_up.clear();
        if durable {
            self.note_close();
        }
        if matches!(self.phase, Phase::Joining(_)) {
            self.phase = Phase::Joining(now);
            return None;
        }
        let last = self.closed.last().copied().unwrap_or(0);
        self.open(now, Exchange { round: last + 1, index: 0 }, None);
        Some(last)
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(..))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The exchange that is open.
    fn open_exchange(&self) -> Option<Exchange> {
        match &self.phase {
            Phase::Open(watched) => Some(watched.exchange),
            Phase::Joining(_) | Phase::Closing(..) | Phase::Over => None,
        }
    }

    /// Takes what came in and what went out in a tick.
    pub(super) fn see(&mut self, now: Duration, events: &[Event], actions: &[Action], waiting: &[Client]) -> Verdict {
        for event in events {
            self.hear(now, event);
        }
        actions.iter().try_for_each(|action| self.check(now, action))?;
        if let Some((client, exchange)) = self.to_leave_out.pop() {
            return Err(Violation::AnswerLost(client, exchange));
        }
        self.check_all_are_asked(waiting)?;
        self.check_punctuality(now, waiting)
    }

    fn hear(&mut self, now: Duration, event: &Event) {
        match *event {
            Event::Joined(client) => {
                self.break_attempt(client);
                self.present.insert(client);
                self.gave_up.remove(&client);
                if let Phase::Open(watched) = &mut self.phase {
                    watched.told.remove(&client);
                }
            }
            Event::Left(client) => {
                self.break_attempt(client);
                self.present.remove(&client);
            }
            Event::GaveUp(client) => {
                self.break_attempt(client);
                self.gave_up.insert(client);
                if let Phase::Open(watched) = &mut self.phase {
                    watched.excused.insert(client);
                }
            }
            Event::Answered(client, exchange) => {
                if let Phase::Open(watched) = &mut self.phase
                    && watched.exchange == exchange
                    && let Some(attempt @ Attempt::Running) = watched.attempts.get_mut(&client)
                {
                    *attempt = Attempt::Answered;
                } else {
                    self.to_leave_out.push((client, exchange));
                }
            }
            Event::Closed => {
                self.note_close();
                if let Phase::Closing(Exchange { round, index }, answered) = self.phase.clone() {
                    if index + 1 < self.rules.exchanges {
                        self.open(now, Exchange { round, index: index + 1 }, Some(answered));
                    } else {
                        self.open(now, Exchange { round: round + 1, index: 0 }, None);
                    }
                }
            }
            Event::Enough => {
                self.note_close();
                self.open(now, Exchange { round: self.rules.rounds + 1, index: 0 }, None);
            }
        }
    }

    fn break_attempt(&mut self, client: Client) {
        if let Phase::Open(watched) = &mut self.phase
            && let Some(attempt @ Attempt::Running) = watched.attempts.get_mut(&client)
        {
            *attempt = Attempt::Broken;
        }
    }

    /// A round counts as closed when its last exchange is, and that is durable.
    fn note_close(&mut self) {
        if let Phase::Closing(exchange, _) = &self.phase
            && exchange.index + 1 == self.rules.exchanges
        {
            self.closed.push(exchange.round);
        }
    }

    fn open(&mut self, now: Duration, exchange: Exchange, part: Option<Vec<Client>>) {
        let part = part.unwrap_or_else(|| self.rules.sample(exchange.round)).into_iter().collect();
        let (attempts, told, excused) = (BTreeMap::new(), BTreeSet::new(), self.gave_up.clone());
        self.phase = Phase::Open(Watched { exchange, since: now, part, attempts, told, excused });
    }

    fn check(&mut self, now: Duration, action: &Action) -> Verdict {
        match action {
            Action::Freeze => self.check_freeze(now),
            Action::Ask(client, exchange) => self.check_ask(*client, *exchange),
            Action::Abandon(client, exchange) => self.check_abandon(*client, *exchange),
            Action::LeaveOut(client, exchange) => {
                let left_out = self.to_leave_out.iter().position(|answer| *answer == (*client, *exchange));
                let left_out = left_out.ok_or(Violation::LeftOutForNothing(*client, *exchange))?;
                self.to_leave_out.swap_remove(left_out);
                Ok(())
            }
            Action::Close { exchange, answered, absent } => self.check_close(now, *exchange, answered, absent),
            Action::Finish => self.check_finish(),
            Action::Fail(failure) => self.check_failure(now, failure),
        }
    }

    fn able(&self, client: Client) -> bool {
        self.present.contains(&client) && !self.gave_up.contains(&client)
    }

    fn check_freeze(&mut self, now: Duration) -> Verdict {
        let Phase::Joining(since) = self.phase else { return Err(Violation::HastyFreeze) };
        let clients = 0..self.rules.clients;
        let able = clients.clone().filter(|client| self.able(*client)).count();
        let complete = clients.clone().all(|client| self.able(client) || self.gave_up.contains(&client));
        let over = complete || now >= since.saturating_add(self.rules.round_timeout);
        law(over && able >= self.needed(self.rules.clients), || Violation::HastyFreeze)?;
        self.open(now, Exchange { round: 1, index: 0 }, None);
        Ok(())
    }

    fn needed(&self, part: usize) -> usize {
        self.rules.min_clients.clamp(1, part.max(1)).min(part)
    }

    fn check_ask(&mut self, client: Client, exchange: Exchange) -> Verdict {
        let (able, turns) = (self.able(client), self.rules.turns);
        let Phase::Open(watched) = &mut self.phase else { return Err(Violation::AskedElsewhere(client, exchange)) };
        law(watched.exchange == exchange, || Violation::AskedElsewhere(client, exchange))?;
        law(watched.part.contains(&client), || Violation::AskedStranger(client))?;
        law(able, || Violation::AskedAway(client))?;
        law(watched.told.insert(client), || Violation::AskedTwice(client))?;
        law(!watched.attempts.contains_key(&client), || Violation::NotAbandoned(client))?;
        let unfinished = watched.attempts.iter().find(|(_, attempt)| **attempt != Attempt::Answered);
        if let Some((other, _)) = unfinished.filter(|_| turns) {
            return Err(Violation::TwoTurns(client, *other));
        }
        watched.attempts.insert(client, Attempt::Running);
        Ok(())
    }

    fn check_abandon(&mut self, client: Client, exchange: Exchange) -> Verdict {
        let turns = self.rules.turns;
        let Phase::Open(watched) = &mut self.phase else { return Err(Violation::AbandonedForNothing(client)) };
        let needed = match watched.attempts.remove(&client) {
            Some(Attempt::Running) => turns,
            Some(Attempt::Broken) => true,
            Some(Attempt::Answered) | None => false,
        };
        law(needed && watched.exchange == exchange, || Violation::AbandonedForNothing(client))
    }

    fn check_close(
        &mut self,
        now: Duration,
        exchange: Exchange,
        answered: &[Client],
        absent: &[(Client, Absence)],
    ) -> Verdict {
        let open = self.open_exchange();
        let Phase::Open(watched) = &self.phase else { return Err(Violation::OutOfOrder(exchange, open)) };
        law(open == Some(exchange), || Violation::OutOfOrder(exchange, open))?;
        law(answered.is_sorted_by(|a, b| a < b), || Violation::CountedTwice(answered.to_vec()))?;
        for client in answered {
            let counts = watched.attempts.get(client) == Some(&Attempt::Answered);
            law(counts, || Violation::CountedWithoutAnswer(*client, exchange))?;
        }
        let mut all: Vec<_> = answered.iter().copied().chain(absent.iter().map(|(client, _)| *client)).collect();
        all.sort_unstable();
        law(all.iter().eq(&watched.part), || Violation::Unaccounted(all, watched.part.iter().copied().collect()))?;
        for (client, absence) in absent {
            let lost = watched.attempts.get(client) == Some(&Attempt::Answered);
            law(!lost, || Violation::AnswerLost(*client, exchange))?;
            let right = self.absence(*client);
            law(*absence == right, || Violation::WrongAbsence(*client, *absence, right))?;
        }
        let needed = self.needed(watched.part.len());
        law(answered.len() >= needed, || Violation::BelowQuorum(exchange, answered.len(), needed))?;
        self.check_patience(now, watched, absent)?;
        self.phase = Phase::Closing(exchange, answered.to_vec());
        Ok(())
    }

    fn absence(&self, client: Client) -> Absence {
        match (self.gave_up.contains(&client), self.present.contains(&client)) {
            (true, _) => Absence::GaveUp,
            (false, true) => Absence::Late,
            (false, false) => Absence::Away,
        }
    }

    /// Those that are absent without an excuse were waited for: together, or each for a turn.
    fn check_patience(&self, now: Duration, watched: &Watched, absent: &[(Client, Absence)]) -> Verdict {
        let missed: Vec<_> =
            absent.iter().map(|(client, _)| *client).filter(|c| !watched.excused.contains(c)).collect();
        let waits = if self.rules.turns { missed.len() as u32 } else { missed.len().min(1) as u32 };
        let patient = waits == 0 || now >= watched.since.saturating_add(self.rules.round_timeout.saturating_mul(waits));
        law(patient, || Violation::Impatient(watched.exchange, missed))
    }

    fn check_finish(&mut self) -> Verdict {
        let (closed, rounds) = (self.closed.clone(), self.rules.rounds);
        law(closed.iter().copied().eq(1..=rounds) && !self.is_over(), || Violation::RoundLost(closed, rounds))?;
        self.phase = Phase::Over;
        Ok(())
    }

    fn check_failure(&mut self, now: Duration, failure: &Failure) -> Verdict {
        let Rules { round_timeout, quorum_timeout, turns, .. } = self.rules;
        let both = round_timeout.saturating_add(quorum_timeout);
        let (have, part, since, patience) = match &self.phase {
            Phase::Joining(since) => {
                let able = (0..self.rules.clients).filter(|client| self.able(*client)).count();
                (able, self.rules.clients, *since, both)
            }
            Phase::Open(watched) => {
                let answered = watched.attempts.values().filter(|a| **a == Attempt::Answered).count();
                (answered, watched.part.len(), watched.since, if turns { quorum_timeout } else { both })
            }
            Phase::Closing(..) | Phase::Over => return Err(Violation::AfterTheEnd(Action::Fail(failure.clone()))),
        };
        let hopeless = have < self.needed(part) && now >= since.saturating_add(patience);
        law(hopeless, || Violation::HastyFailure(failure.clone()))?;
        self.phase = Phase::Over;
        Ok(())
    }

    /// Side by side, everybody who can work is at work; in turns, the one whose turn it is.
    fn check_all_are_asked(&self, waiting: &[Client]) -> Verdict {
        let Phase::Open(watched) = &self.phase else { return Ok(()) };
        let idle = |client: &Client| self.able(*client) && !watched.told.contains(client);
        let overlooked = match (self.rules.turns, waiting) {
            (true, [client]) => Some(*client).filter(idle),
            (true, _) => None,
            (false, _) => {
                let unanswered = |c: &Client| watched.attempts.get(c) != Some(&Attempt::Answered);
                watched.part.iter().copied().find(|client| unanswered(client) && idle(client))
            }
        };
        overlooked.map_or(Ok(()), |client| Err(Violation::NotAsked(client)))
    }

    /// Nobody waits for one that gave up if the others are enough.
    fn check_punctuality(&self, now: Duration, waiting: &[Client]) -> Verdict {
        let Phase::Open(watched) = &self.phase else { return Ok(()) };
        let unanswered = |c: &&Client| watched.attempts.get(c) != Some(&Attempt::Answered);
        let missing: Vec<_> = watched.part.iter().filter(unanswered).collect();
        let enough = watched.part.len() - missing.len() >= self.needed(watched.part.len());
        let in_vain = waiting.iter().all(|client| self.gave_up.contains(client));
        let late = !self.rules.turns && now >= watched.since.saturating_add(self.rules.round_timeout);
        law(!enough || !(in_vain || late), || Violation::Tardy(watched.exchange, waiting.to_vec()))
    }
}
