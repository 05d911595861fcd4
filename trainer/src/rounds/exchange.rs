//! An open exchange: where each client that takes part stands, side by side or in turns, until enough have answered.
//! Must not know what comes before or after it.

use std::{collections::BTreeMap, time::Duration};

use super::{Absence, Action, Client, Exchange, Failure, Rules, crowd::Crowd};

/// An exchange that waits for answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Open {
    exchange: Exchange,
    since: Duration,
    /// Those that take part, in the order of their turns.
    order: Vec<Client>,
    /// Each of them, and how far it is.
    stands: BTreeMap<Client, Stand>,
    in_turns: bool,
    /// With turns: whose turn it is, and since when.
    turn: Option<(Client, Duration)>,
    /// With turns: since when everybody has had one and too few have answered.
    turns_over: Option<Duration>,
}

/// How far a client is in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Has nothing to do yet, or will be asked anew.
    Unasked,
    /// Asked in the session that it has now.
    Asked,
    /// Asked in a session that is over, or in which it gave up: what it did is abandoned when it is asked again.
    Broken,
    /// Its answer counts.
    Answered,
    /// With turns: its turn is over, and it did not answer.
    PassedOver,
    /// With turns: passed over, and not asked yet in the session that it has now. It gets another turn if too few have
    /// answered.
    Back,
}

/// What an exchange comes to.
pub(super) enum Verdict {
    Wait,
    Close,
    Fail(Failure),
}

impl Open {
    /// An exchange with the clients in `order` that is open since `now`. Nobody is asked before it is advanced.
    pub(super) fn new(exchange: Exchange, order: Vec<Client>, in_turns: bool, now: Duration) -> Self {
        let stands = order.iter().map(|client| (*client, Stand::Unasked)).collect();
        Self { exchange, since: now, order, stands, in_turns, turn: None, turns_over: None }
    }

    /// Counts time from `now` on, for whoever has been asked already too.
    pub(super) fn restart_clock(&mut self, now: Duration) {
        self.since = now;
        self.turn = self.turn.map(|(client, _)| (client, now));
        self.turns_over = self.turns_over.map(|_| now);
    }

    pub(super) fn exchange(&self) -> Exchange {
        self.exchange
    }

    pub(super) fn waits_for(&self, client: Client, exchange: Exchange) -> bool {
        self.exchange == exchange && self.stands.get(&client) == Some(&Stand::Asked)
    }

    pub(super) fn waiting_for(&self, crowd: &Crowd) -> Vec<Client> {
        match self.turn {
            Some((client, _)) => vec![client],
            None => crowd.awaited(self.unanswered().collect()),
        }
    }

    /// The client's session is new: what it did in an earlier one does not count.
    pub(super) fn join(&mut self, client: Client, actions: &mut Vec<Action>) {
        self.abandon(client, actions);
        self.change(client, Stand::PassedOver, Stand::Back);
    }

    /// The client's session is over. Its turn stays open, so that it can come back.
    pub(super) fn leave(&mut self, client: Client) {
        self.change(client, Stand::Asked, Stand::Broken);
        self.change(client, Stand::Back, Stand::PassedOver);
    }

    /// The client cannot go on in this session. Its turn is over, so that the next can work.
    pub(super) fn give_up(&mut self, client: Client, actions: &mut Vec<Action>) {
        self.leave(client);
        if self.has_turn(client) {
            self.pass_over(client, actions);
        }
    }

    /// Counts the client's answer if it was asked for; false if not.
    pub(super) fn answer(&mut self, client: Client, exchange: Exchange) -> bool {
        let counts = self.waits_for(client, exchange);
        if counts {
            self.stands.insert(client, Stand::Answered);
            self.turn = None;
        }
        counts
    }

    /// Asks whom there is to ask, and says whether the exchange is over.
    pub(super) fn advance(
        &mut self,
        now: Duration,
        rules: &Rules,
        crowd: &Crowd,
        actions: &mut Vec<Action>,
    ) -> Verdict {
        let settled = if self.in_turns {
            self.advance_turns(now, rules, crowd, actions);
            self.turn.is_none()
        } else {
            is_up(now, rules.deadline(self.since, true)) || !self.unanswered().any(|client| crowd.is_hopeful(client))
        };
        if settled && self.has_enough(rules) {
            return Verdict::Close;
        }
        if is_up(now, self.quorum_deadline(rules)) {
            return Verdict::Fail(self.failure(now, rules));
        }
        self.ask(crowd, actions);
        Verdict::Wait
    }

    /// When something happens by itself.
    pub(super) fn deadline(&self, rules: &Rules) -> Option<Duration> {
        if self.in_turns {
            [self.turn_deadline(rules), self.quorum_deadline(rules)].into_iter().flatten().min()
        } else {
            rules.deadline(self.since, self.has_enough(rules))
        }
    }

    /// Those that answered, and those that did not and why, in client order.
    pub(super) fn outcome(&self, crowd: &Crowd) -> (Vec<Client>, Vec<(Client, Absence)>) {
        let absent = self.unanswered().map(|client| (client, crowd.absence(client))).collect();
        (self.answered().collect(), absent)
    }

    /// With turns, the time is each turn's own: who does not answer in it is passed over, the next one begins.
    fn advance_turns(&mut self, now: Duration, rules: &Rules, crowd: &Crowd, actions: &mut Vec<Action>) {
        if let Some((client, _)) = self.turn
            && is_up(now, self.turn_deadline(rules))
        {
            // One that came at the last moment was not asked in its session yet.
            let comes = crowd.can_work(client) && self.stands[&client] == Stand::Unasked;
            self.pass_over(client, actions);
            if comes {
                self.stands.insert(client, Stand::Back);
            }
        }
        if self.turn.is_none() {
            self.turn = self.next_turn(now, rules, crowd).map(|client| (client, now));
        }
    }

    /// Who is next. When everybody has had a turn and too few have answered, those that were passed over and joined
    /// again since get another, as long as the quorum timeout lasts. Nobody gets one in the session in which it was
    /// passed over: it may still be at work there, and what it sends could not be told from its new turn.
    fn next_turn(&mut self, now: Duration, rules: &Rules, crowd: &Crowd) -> Option<Client> {
        while let Some(client) = self.first(Stand::Unasked) {
            if crowd.is_hopeful(client) {
                return Some(client);
            }
            self.stands.insert(client, Stand::PassedOver);
        }
        if self.has_enough(rules) {
            return None;
        }
        self.turns_over.get_or_insert(now);
        let back = self.first(Stand::Back)?;
        self.stands.insert(back, Stand::Unasked);
        Some(back)
    }

    fn pass_over(&mut self, client: Client, actions: &mut Vec<Action>) {
        self.abandon(client, actions);
        self.stands.insert(client, Stand::PassedOver);
        self.turn = None;
    }

    fn abandon(&mut self, client: Client, actions: &mut Vec<Action>) {
        if matches!(self.stands.get(&client), Some(Stand::Asked | Stand::Broken)) {
            actions.push(Action::Abandon(client, self.exchange));
            self.stands.insert(client, Stand::Unasked);
        }
    }

    fn ask(&mut self, crowd: &Crowd, actions: &mut Vec<Action>) {
        for client in self.order.clone() {
            let open = !self.in_turns || self.has_turn(client);
            if open && crowd.can_work(client) && self.change(client, Stand::Unasked, Stand::Asked) {
                actions.push(Action::Ask(client, self.exchange));
            }
        }
    }

    /// Moves a client that stands at `from` to `to`; false if it stands elsewhere.
    fn change(&mut self, client: Client, from: Stand, to: Stand) -> bool {
        let stand = self.stands.get_mut(&client).filter(|stand| **stand == from);
        stand.map(|stand| *stand = to).is_some()
    }

    fn has_turn(&self, client: Client) -> bool {
        self.turn.is_some_and(|(turn, _)| turn == client)
    }

    /// The first client in the order of turns that stands there.
    fn first(&self, stand: Stand) -> Option<Client> {
        self.order.iter().copied().find(|client| self.stands[client] == stand)
    }

    fn answered(&self) -> impl Iterator<Item = Client> {
        self.stands.iter().filter(|(_, stand)| **stand == Stand::Answered).map(|(client, _)| *client)
    }

    fn unanswered(&self) -> impl Iterator<Item = Client> {
        self.stands.iter().filter(|(_, stand)| **stand != Stand::Answered).map(|(client, _)| *client)
    }

    fn has_enough(&self, rules: &Rules) -> bool {
        self.answered().count() >= rules.needed(self.order.len())
    }

    fn turn_deadline(&self, rules: &Rules) -> Option<Duration> {
        self.turn.and_then(|(_, since)| since.checked_add(rules.round_timeout))
    }

    fn quorum_deadline(&self, rules: &Rules) -> Option<Duration> {
        if self.in_turns {
            self.turns_over.and_then(|since| since.checked_add(rules.quorum_timeout))
        } else {
            rules.deadline(self.since, false)
        }
    }

    /// Clients that are remembered, for the simulator.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.order.len().max(self.stands.len())
    }

    fn failure(&self, now: Duration, rules: &Rules) -> Failure {
        let (answered, needed) = (self.answered().count(), rules.needed(self.order.len()));
        let waited = now.saturating_sub(self.since);
        Failure::QuorumLost { round: self.exchange.round, answered, needed, waited }
    }
}

fn is_up(now: Duration, deadline: Option<Duration>) -> bool {
    deadline.is_some_and(|deadline| now >= deadline)
}
