//! Who is connected, and who of them can work.
//! Must not know rounds: it outlives them.

use std::collections::BTreeSet;

use super::{Absence, Client};

/// The clients that have been heard of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Crowd {
    present: BTreeSet<Client>,
    /// Those that gave up since they last joined, connected or not.
    gave_up: BTreeSet<Client>,
}

impl Crowd {
    pub(super) fn join(&mut self, client: Client) {
        self.present.insert(client);
        self.gave_up.remove(&client);
    }

    pub(super) fn leave(&mut self, client: Client) {
        self.present.remove(&client);
    }

    pub(super) fn give_up(&mut self, client: Client) {
        self.gave_up.insert(client);
    }

    /// Whether there is any use in asking this client.
    pub(super) fn can_work(&self, client: Client) -> bool {
        self.present.contains(&client) && !self.gave_up.contains(&client)
    }

    /// How many can work.
    pub(super) fn able(&self) -> usize {
        self.present.difference(&self.gave_up).count()
    }

    /// Whether it is worth waiting for this client: it did not say that it cannot go on. It may be away.
    pub(super) fn is_hopeful(&self, client: Client) -> bool {
        !self.gave_up.contains(&client)
    }

    /// Those of `missing` that are waited for: all but those that gave up; these too where there is nobody else.
    pub(super) fn awaited(&self, missing: Vec<Client>) -> Vec<Client> {
        let hopeful: Vec<_> = missing.iter().copied().filter(|client| self.is_hopeful(*client)).collect();
        if hopeful.is_empty() { missing } else { hopeful }
    }

    /// Why this client did not answer.
    pub(super) fn absence(&self, client: Client) -> Absence {
        if self.gave_up.contains(&client) {
            Absence::GaveUp
        } else if self.present.contains(&client) {
            Absence::Late
        } else {
            Absence::Away
        }
    }

    /// Clients that are remembered, for the simulator.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.present.union(&self.gave_up).count()
    }
}
