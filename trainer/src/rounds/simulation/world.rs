//! A world with its own weather: clients that answer, are late, die and return, a server that restarts.
//! Must not use a clock or any chance but its seed's.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    super::{Action, Client, Event, Exchange, Rounds, Rules},
    witness::{Violation, Witness},
};
use crate::random::{Key, Site, Stream};

/// More ticks than any of these small worlds needs.
const ENDLESS: usize = 2_000;
/// When a world begins; not at zero, so that the longest timeout ends past the end of time.
const BEGINNING: Duration = Duration::from_secs(1);

/// How often each thing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally(pub(super) BTreeMap<&'static str, usize>);

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

/// What will happen at some time.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Come(Client),
    Go(Client),
    GiveUp(Client, Session),
    Answer(Client, Session, Exchange),
    Closed,
    Crash,
}

/// Number of a session: what an earlier one sent does not arrive.
type Session = u32;

/// Changes what the machine said before the witness sees it, to show that the witness would notice.
pub(super) type Spoil = fn(&mut Vec<Action>);

pub(super) struct World {
    stream: Stream,
    /// Percentage of things that go wrong.
    trouble: usize,
    rules: Rules,
    machine: Rounds,
    witness: Witness,
    spoil: Spoil,
    now: Duration,
    /// What will happen, in order of time, then of planning.
    agenda: BTreeMap<(Duration, usize), Happening>,
    planned: usize,
    sessions: BTreeMap<Client, Session>,
    last_session: Session,
    pub(super) tally: Tally,
    /// What went in and out, tick by tick, where it is wanted.
    pub(super) history: Option<Vec<String>>,
    /// Everything that the machine said.
    pub(super) said: Vec<Action>,
}

impl World {
    pub(super) fn new(seed: u64, spoil: Spoil) -> Self {
        let mut stream = Key { seed, ..Key::default() }.stream(Site::Sampling);
        let rules = draw_rules(seed, &mut stream);
        let trouble = [0, 5, 20, 50][stream.below(4)];
        let mut world = Self {
            trouble,
            machine: Rounds::new(rules.clone(), BEGINNING),
            witness: Witness::new(rules.clone(), BEGINNING),
            rules,
            stream,
            spoil,
            now: BEGINNING,
            agenda: BTreeMap::new(),
            planned: 0,
            sessions: BTreeMap::new(),
            last_session: 0,
            tally: Tally::default(),
            history: None,
            said: Vec::new(),
        };
        world.invite_all();
        for _ in 0..world.stream.below(3) {
            if world.goes_wrong() {
                world.plan(60, Happening::Crash);
            }
        }
        world
    }

    /// Lives until the run is over or a law is broken; some ticks come late, some for nothing.
    pub(super) fn live(&mut self) -> Result<(), Violation> {
        let rules = self.rules.clone();
        self.note(|| format!("{rules:?}"));
        let mut events = Vec::new();
        for _ in 0..ENDLESS {
            self.tick(&events)?;
            if self.witness.is_over() {
                return self.check_the_end();
            }
            let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = planned.into_iter().chain(self.machine.deadline()).min() else {
                // Without timeouts the run waits for ever for clients that never come.
                return self.check_progress();
            };
            self.now = match self.stream.below(8) {
                0 => self.now.max(next) + seconds(self.stream.below(9)),
                1 => self.now,
                _ => self.now.max(next),
            };
            events = self.live_through();
        }
        Err(Violation::Stuck(self.machine.exchange()))
    }

    /// Everything that is due, as events; a crash ends the batch.
    fn live_through(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Happening::Come(client) => {
                    self.tally.count(if self.sessions.contains_key(&client) { "session replaced" } else { "joined" });
                    self.last_session += 1;
                    self.sessions.insert(client, self.last_session);
                    events.push(Event::Joined(client));
                    if self.goes_wrong() {
                        self.plan(20, Happening::Go(client));
                    }
                }
                Happening::Go(client) => {
                    if self.sessions.remove(&client).is_some() {
                        events.push(Event::Left(client));
                    }
                    if self.stream.below(8) > 0 {
                        self.plan(25, Happening::Come(client));
                    }
                }
                Happening::GiveUp(client, session) => {
                    if self.sessions.get(&client) == Some(&session) {
                        events.push(Event::GaveUp(client));
                        self.plan(20, Happening::Go(client));
                    }
                }
                Happening::Answer(client, session, exchange) => {
                    if self.sessions.get(&client) == Some(&session) {
                        events.push(Event::Answered(client, exchange));
                    }
                }
                Happening::Closed => events.push(Event::Closed),
                Happening::Crash => {
                    self.crash();
                    return Vec::new();
                }
            }
        }
        events
    }

    fn tick(&mut self, events: &[Event]) -> Result<(), Violation> {
        let before = (events.len() > 1).then(|| self.machine.clone());
        let mut actions = self.machine.tick(self.now, events);
        let now = self.now;
        self.note(|| format!("{now:>5?} {events:?} -> {actions:?}"));
        if let Some(before) = before {
            self.check_order(before, events, &actions)?;
        }
        (self.spoil)(&mut actions);
        let waiting = self.machine.waiting_for();
        self.witness.see(self.now, events, &actions, &waiting)?;
        let remembered = self.machine.remembered();
        if remembered > self.rules.clients {
            return Err(Violation::Memory(remembered, self.rules.clients));
        }
        if self.stream.below(4) == 0 {
            self.check_progress()?;
        }
        for action in &actions {
            self.react(action);
        }
        self.said.append(&mut actions);
        Ok(())
    }

    /// What the world makes of an action.
    fn react(&mut self, action: &Action) {
        match *action {
            Action::Freeze => self.tally.count("frozen"),
            Action::Ask(client, exchange) => self.work(client, exchange),
            Action::Abandon(..) => self.tally.count("abandoned"),
            Action::LeaveOut(..) => self.tally.count("left out"),
            Action::Close { ref absent, .. } => {
                self.tally.count(if absent.is_empty() { "closed complete" } else { "closed without some" });
                let pause = if self.goes_wrong() { 10 } else { 1 };
                self.plan(pause, Happening::Closed);
            }
            Action::Finish => self.tally.count("finished"),
            Action::Fail(_) => self.tally.count("failed"),
        }
    }

    /// What comes of asking a client.
    fn work(&mut self, client: Client, exchange: Exchange) {
        let session = self.sessions[&client];
        let answer = Happening::Answer(client, session, exchange);
        if !self.goes_wrong() {
            self.plan(8, answer);
            return;
        }
        match self.stream.below(8) {
            0 => self.tally.count("answer lost"),
            1 => self.plan(60, answer),
            2 => {
                self.tally.count("answer doubled");
                self.plan(8, answer);
                self.plan(30, answer);
            }
            3 => self.plan(10, Happening::GiveUp(client, session)),
            4 => {
                self.plan(8, Happening::Go(client));
                self.plan(8, answer);
            }
            5 => {
                self.plan(20, Happening::Come(client));
                self.plan(20, answer);
            }
            6 => {
                let (round, index) = (self.stream.below(4) as u32, self.stream.below(3) as u32);
                self.plan(8, Happening::Answer(client, session, Exchange { round, index }));
                self.plan(8, answer);
            }
            _ => {
                // Somebody answers in its place.
                let other = self.stream.below(self.rules.clients);
                let session = self.sessions.get(&other).copied().unwrap_or_default();
                self.plan(8, Happening::Answer(other, session, exchange));
                self.plan(8, answer);
            }
        }
    }

    /// The server dies and is there again; its clients come back one by one.
    fn crash(&mut self) {
        let durable = self.witness.is_closing() && self.stream.below(2) == 0;
        let closed = self.witness.restart(self.now, durable);
        let (rules, now) = (self.rules.clone(), self.now);
        self.machine = match closed {
            Some(closed) => Rounds::resume(rules, closed, now),
            None => Rounds::new(rules, now),
        };
        self.agenda.clear();
        self.sessions.clear();
        self.tally.count("server restarted");
        self.note(|| format!("{now:>5?} the server restarts after round {closed:?}"));
        self.invite_all();
    }

    fn invite_all(&mut self) {
        for client in 0..self.rules.clients {
            if !self.goes_wrong() || self.stream.below(4) > 0 {
                self.plan(10, Happening::Come(client));
            }
        }
    }

    fn goes_wrong(&mut self) -> bool {
        self.stream.below(100) < self.trouble
    }

    /// Plans something within so many seconds.
    fn plan(&mut self, within: usize, happening: Happening) {
        let at = self.now + seconds(self.stream.below(within));
        self.planned += 1;
        self.agenda.insert((at, self.planned), happening);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(line());
        }
    }

    /// The same events, the clients' own in order and the clients in another, must come to the same.
    fn check_order(&mut self, mut twin: Rounds, events: &[Event], actions: &[Action]) -> Result<(), Violation> {
        let shuffled = self.interleave(events);
        let others = twin.tick(self.now, &shuffled);
        let count = |actions: &[Action], action: &Action| actions.iter().filter(|other| *other == action).count();
        let same = actions.len() == others.len() && actions.iter().all(|a| count(actions, a) == count(&others, a));
        if same && twin == self.machine { Ok(()) } else { Err(Violation::OrderMatters(actions.to_vec(), others)) }
    }

    fn interleave(&mut self, events: &[Event]) -> Vec<Event> {
        let mut order: Vec<_> = events.iter().map(owner).collect();
        let mut queues: BTreeMap<_, VecDeque<&Event>> = BTreeMap::new();
        for event in events {
            queues.entry(owner(event)).or_default().push_back(event);
        }
        self.stream.shuffle(&mut order);
        order.iter().filter_map(|owner| queues.get_mut(owner)?.pop_front()).cloned().collect()
    }

    /// If nothing happens any more, deadlines alone bring the run on, and each does something.
    fn check_progress(&self) -> Result<(), Violation> {
        let (mut machine, mut now) = (self.machine.clone(), self.now);
        if self.witness.is_closing() || self.witness.is_over() || self.rules.round_timeout == Duration::MAX {
            return Ok(());
        }
        for _ in 0..=2 * self.rules.clients + 2 {
            let before = machine.clone();
            now = now.max(machine.deadline().ok_or(Violation::Stuck(machine.exchange()))?);
            let actions = machine.tick(now, &[]);
            if actions.iter().any(|a| matches!(a, Action::Close { .. } | Action::Finish | Action::Fail(_))) {
                return Ok(());
            }
            if actions.is_empty() && machine == before {
                return Err(Violation::BusyLoop(machine.exchange()));
            }
        }
        Err(Violation::Stuck(machine.exchange()))
    }

    /// After the end the machine says nothing more.
    fn check_the_end(&mut self) -> Result<(), Violation> {
        let events: Vec<_> = (0..self.rules.clients).map(Event::Joined).chain([Event::Closed]).collect();
        let said = self.machine.tick(self.now + seconds(1_000), &events);
        match (said.into_iter().next(), self.machine.deadline()) {
            (None, None) => Ok(()),
            (Some(action), _) => Err(Violation::AfterTheEnd(action)),
            (None, Some(_)) => Err(Violation::BusyLoop(None)),
        }
    }
}

/// Whose event it is; the server's own are nobody's.
fn owner(event: &Event) -> Option<Client> {
    match *event {
        Event::Joined(client) | Event::Left(client) | Event::GaveUp(client) | Event::Answered(client, _) => {
            Some(client)
        }
        Event::Closed | Event::Enough => None,
    }
}

fn draw_rules(seed: u64, stream: &mut Stream) -> Rules {
    let clients = [0, 1, 2, 2, 3, 3, 4, 4, 5, 6, 8, 12][stream.below(12)];
    let timeouts = [0, 5, 20, 20, 40];
    let round_timeout = if stream.below(40) == 0 { Duration::MAX } else { seconds(timeouts[stream.below(5)]) };
    Rules {
        clients,
        min_clients: stream.below(clients + 2),
        fraction: [1.0, 1.0, 0.5, 0.3][stream.below(4)],
        rounds: 1 + stream.below(3) as u32,
        exchanges: 1 + stream.below(2) as u32,
        turns: stream.below(2) == 0,
        round_timeout,
        quorum_timeout: seconds(timeouts[stream.below(5)]),
        seed,
    }
}

fn seconds(count: usize) -> Duration {
    Duration::from_secs(count as u64)
}
