//! What goes wrong, drawn from a seed: when, to whom, how.
//! Must not know the protocol; the world asks at each message and each turn.

use std::{collections::BTreeSet, time::Duration};

use crate::random::{Key, Site, Stream};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A connection breaks, and what was on its way is lost.
    Cut,
    /// A message arrives twice.
    Doubled,
    /// A message overtakes the one before it.
    Reordered,
    /// A message takes much longer than others.
    Late,
    /// A client's process dies.
    ClientDies,
    /// ... and has lost its round states.
    ClientForgets,
    /// The server's process dies between two turns.
    ServerDies,
    /// ... before it could write the checkpoint.
    ServerDiesBeforeWriting,
    /// ... after it wrote the checkpoint, before it told anyone.
    ServerDiesAfterWriting,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Cut,
        Self::Doubled,
        Self::Reordered,
        Self::Late,
        Self::ClientDies,
        Self::ClientForgets,
        Self::ServerDies,
        Self::ServerDiesBeforeWriting,
        Self::ServerDiesAfterWriting,
    ];
}

/// The faults of one run.
#[derive(Debug)]
pub(super) struct Faults {
    stream: Stream,
    /// How many more may happen, so that every run can end.
    left: u32,
    longest_outage: Duration,
    /// What happened.
    pub(super) seen: BTreeSet<Kind>,
}

impl Faults {
    /// Nothing goes wrong.
    pub(super) fn none() -> Self {
        Self { left: 0, ..Self::drawn(0) }
    }

    /// The faults of this seed; outages are short.
    pub(super) fn drawn(seed: u64) -> Self {
        let mut stream = Key { seed, ..Key::default() }.stream(Site::Sampling);
        let left = 1 + stream.below(8) as u32;
        Self { stream, left, longest_outage: Duration::from_secs(5), seen: BTreeSet::new() }
    }

    /// With outages longer than an impatient run waits.
    pub(super) fn with_outages(self) -> Self {
        Self { longest_outage: Duration::from_secs(60), ..self }
    }

    /// Whether this happens now, once in `odds` times.
    pub(super) fn strikes(&mut self, kind: Kind, odds: usize) -> bool {
        let strikes = self.left > 0 && self.stream.below(odds) == 0;
        if strikes {
            self.left -= 1;
            self.seen.insert(kind);
        }
        strikes
    }

    /// How long a dead process stays away, or a late message takes.
    pub(super) fn outage(&mut self) -> Duration {
        self.longest_outage.mul_f32(self.stream.unit())
    }

    /// How long a message usually takes.
    pub(super) fn delay(&mut self) -> Duration {
        Duration::from_micros(500 + self.stream.below(20_000) as u64)
    }
}
