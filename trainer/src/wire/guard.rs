//! Who may keep a connection: whoever joins in time, and a bounded number of those that have not joined yet.
//! Must not look at what a connection carries.
//!
//! ```text
//! accepted --join_by--> cut            waits for a join, holds one of the places
//!    | join                            waits to be let in, holds its place still
//!    | admitted                        a client of the run; the place is free
//!    | its session ends --> cut        the last of it is still delivered
//! ```

use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::{debug, warn};

/// What an ended session's last message may take to leave: 4 MiB at the slowest line in mind.
const FAREWELL_WITHIN: Duration = Duration::from_secs(60);

/// What a refusal may take to leave.
pub(super) const LAST_WORD_WITHIN: Duration = Duration::from_secs(2);

/// How often connections that were cut are spoken of.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// The places of connections on which nobody has joined yet.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    join_within: Duration,
    tally: Arc<Tally>,
}

impl Gate {
    /// A gate with `places`; whoever takes one has `join_within` to join.
    pub(super) fn new(places: usize, join_within: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), join_within, tally: Arc::default() }
    }

    /// A guard for a connection that was accepted at `now`, if there is a place.
    pub(super) fn enter(&self, now: Instant) -> Option<Arc<Guard>> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.tally.count(now, &"too many others had not joined yet");
            return None;
        };
        let state =
            State { stage: Stage::Waiting { join_by: now + self.join_within }, opened: false, place: Some(place) };
        Some(Arc::new(Guard { state: Mutex::new(state), waker: AtomicWaker::new(), tally: Arc::clone(&self.tally) }))
    }

    /// Counts a connection that was given up before its client had joined.
    pub(super) fn count(&self, why: &dyn Display) {
        self.tally.count(Instant::now(), why);
    }
}

/// One connection's right to stay.
#[derive(Debug)]
pub(super) struct Guard {
    state: Mutex<State>,
    /// Whoever reads the connection: woken when its right changes.
    waker: AtomicWaker,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Whether its one session was opened.
    opened: bool,
    /// Given back when the client is admitted, or with the connection.
    place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// No session yet, or one that has not said who it is.
    Waiting { join_by: Instant },
    /// Somebody said who they are.
    Joined,
    /// The session is over.
    Ended { cut: Instant },
}

impl Guard {
    /// Until when the client has to join.
    pub(super) fn join_by(&self) -> Option<Instant> {
        match self.lock().stage {
            Stage::Waiting { join_by } => Some(join_by),
            Stage::Joined | Stage::Ended { .. } => None,
        }
    }

    /// When the connection is cut as things stand. Whoever has a session is told first.
    pub(super) fn cut_at(&self) -> Option<Instant> {
        let state = self.lock();
        match state.stage {
            Stage::Waiting { join_by } if state.opened => Some(join_by + LAST_WORD_WITHIN),
            Stage::Waiting { join_by } => Some(join_by),
            Stage::Joined => None,
            Stage::Ended { cut } => Some(cut),
        }
    }

    /// Opens the connection's one session; false where it has had one.
    pub(super) fn open_session(&self) -> bool {
        let mut first = false;
        self.change(|state| first = !std::mem::replace(&mut state.opened, true));
        first
    }

    /// The client has said who it is, if its session is not over by now.
    pub(super) fn join(&self) {
        self.change(|state| {
            if matches!(state.stage, Stage::Waiting { .. }) {
                state.stage = Stage::Joined;
            }
        });
    }

    /// The client is of this run: others may wait in its place.
    pub(super) fn admit(&self) {
        self.change(|state| state.place = None);
    }

    /// The session is over; one that was never let in leaves sooner.
    pub(super) fn end(&self, now: Instant) {
        self.change(|state| {
            let within = if state.place.is_some() { LAST_WORD_WITHIN } else { FAREWELL_WITHIN };
            state.stage = Stage::Ended { cut: now + within };
        });
    }

    /// Counts the connection as one that was cut, if nobody has joined on it.
    pub(super) fn count_cut(&self, now: Instant) {
        if self.join_by().is_some() {
            self.tally.count(now, &"nobody joined on it in time");
        }
    }

    /// Wakes this one when the connection's right changes.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts connections that came to nothing, and speaks of them now and then.
#[derive(Debug, Default)]
struct Tally(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    unspoken: u64,
    spoke: Option<Instant>,
}

impl Tally {
    fn count(&self, now: Instant, why: &dyn Display) {
        debug!(%why, "a connection was closed before its client had joined");
        if let Some(connections) = self.due(now) {
            warn!(connections, last = %why, "connections were closed before their clients had joined");
        }
    }

    /// Counts one, and says how many there are to speak of, if it is time to.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.unspoken += 1;
        if count.spoke.is_some_and(|spoke| now < spoke + WARN_EVERY) {
            return None;
        }
        count.spoke = Some(now);
        Some(std::mem::take(&mut count.unspoken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN_WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn a_place_is_held_until_its_client_is_admitted_or_gone() {
        let (gate, now) = (Gate::new(2, JOIN_WITHIN), Instant::now());
        let first = gate.enter(now).unwrap();
        let second = gate.enter(now).unwrap();
        assert!(gate.enter(now).is_none());
        first.join();
        assert!(gate.enter(now).is_none(), "to say who one is does not make one a client");
        first.admit();
        let third = gate.enter(now).unwrap();
        assert!(gate.enter(now).is_none());
        drop(second);
        assert!(gate.enter(now).is_some());
        drop(third);
    }

    #[test]
    fn a_connection_is_cut_unless_somebody_joins_and_again_when_the_session_is_over() {
        let (gate, now) = (Gate::new(2, JOIN_WITHIN), Instant::now());
        let client = gate.enter(now).unwrap();
        assert_eq!(client.join_by(), Some(now + JOIN_WITHIN));
        assert_eq!(client.cut_at(), Some(now + JOIN_WITHIN));
        assert!(client.open_session());
        assert!(!client.open_session(), "a connection has one session");
        assert_eq!(client.cut_at(), Some(now + JOIN_WITHIN + LAST_WORD_WITHIN));
        client.join();
        client.admit();
        assert_eq!(client.cut_at(), None);
        client.end(now);
        assert_eq!(client.cut_at(), Some(now + FAREWELL_WITHIN));
        let refused = gate.enter(now).unwrap();
        refused.join();
        refused.end(now);
        // A join that was on its way when the session ended changes nothing.
        refused.join();
        assert_eq!(refused.cut_at(), Some(now + LAST_WORD_WITHIN));
    }

    #[test]
    fn ten_thousand_cut_connections_are_spoken_of_twice_a_minute() {
        let (tally, begin) = (Tally::default(), Instant::now());
        let spoken = (0..10_000).filter_map(|n| tally.due(begin + Duration::from_millis(6 * n)));
        assert_eq!(spoken.collect::<Vec<_>>(), [1, 5000]);
    }
}
