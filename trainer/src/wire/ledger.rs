//! The server's account of every byte: payload by client, round, direction and kind, and what the sockets carried.
//! Must not estimate: payload is counted at the messages, wire bytes at the sockets.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fedtune_crds::report::{ByteCount, Direction, PayloadKind, UpDown};

use super::traffic::Traffic;

/// Shared by all links of a server; cheap to clone.
///
/// A client's wire bytes belong to the newest round that it and the server have spoken of, from the first message
/// of that round on: what is still on its way when the next round begins is counted in the next. Joining is round 0.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, Account>>>);

impl Ledger {
    /// An account without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of `round` by client, direction and kind, in this order.
    ///
    /// `wire` is the share of what the client's socket carried in that round and direction, framing and keep-alives
    /// included, split over the kinds in proportion to their payload so that the sum is exact. Where a direction had
    /// no payload there is no entry to carry its wire bytes: only [`Ledger::total_wire`] has them.
    pub fn round(&self, round: u32) -> Vec<ByteCount> {
        let accounts = self.accounts();
        accounts.iter().flat_map(|(client, account)| account.round(client, round)).collect()
    }

    /// Payload of all clients and rounds.
    pub fn total_payload(&self) -> UpDown {
        let accounts = self.accounts();
        let entries = accounts.values().flat_map(|account| &account.payload);
        entries.fold(UpDown::default(), |total, (entry, bytes)| match entry.direction {
            Direction::Up => UpDown { up: total.up + bytes, ..total },
            Direction::Down => UpDown { down: total.down + bytes, ..total },
        })
    }

    /// What the sockets of all clients have carried: joining, fields, framing and keep-alives included.
    pub fn total_wire(&self) -> UpDown {
        self.accounts().values().map(Account::carried).fold(UpDown::default(), add)
    }

    /// Payload of all rounds by client, direction and kind.
    pub fn payload(&self) -> BTreeMap<(String, Direction, PayloadKind), u64> {
        let mut all = BTreeMap::new();
        for (client, account) in self.accounts().iter() {
            let mut sums: BTreeMap<_, u64> = BTreeMap::new();
            for (entry, bytes) in &account.payload {
                *sums.entry((entry.direction, entry.kind)).or_default() += bytes;
            }
            all.extend(sums.into_iter().map(|((direction, kind), bytes)| ((client.clone(), direction, kind), bytes)));
        }
        all
    }

    /// What the sockets of each client have carried.
    pub fn wire(&self) -> BTreeMap<String, UpDown> {
        self.accounts().iter().map(|(client, account)| (client.clone(), account.carried())).collect()
    }

    /// Payload of each client that was sent again after a broken link. So far nothing is: a broken link ends a session.
    pub fn retransmitted(&self) -> BTreeMap<String, UpDown> {
        self.accounts().keys().map(|client| (client.clone(), UpDown::default())).collect()
    }

    /// Counts a connection's bytes as `client`'s, from its first byte on; a client that reconnects has several.
    pub(super) fn add_connection(&self, client: &str, traffic: Arc<Traffic>) {
        self.accounts().entry(client.to_owned()).or_default().connections.push(traffic);
    }

    /// Counts the client's wire bytes from here on in `round`, if that is a later one.
    pub(super) fn enter_round(&self, client: &str, round: u32) {
        self.accounts().entry(client.to_owned()).or_default().enter_round(round);
    }

    /// Counts a message's payload.
    pub(crate) fn count(&self, client: &str, direction: Direction, round: u32, payload: &BTreeMap<PayloadKind, u64>) {
        let mut accounts = self.accounts();
        let account = accounts.entry(client.to_owned()).or_default();
        for (kind, bytes) in payload {
            *account.payload.entry(Entry { round, direction, kind: *kind }).or_default() += bytes;
        }
    }

    fn accounts(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        // Each change is one addition: a thread that panicked elsewhere left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a payload count is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    round: u32,
    direction: Direction,
    kind: PayloadKind,
}

/// One client's bytes.
#[derive(Debug, Default)]
struct Account {
    payload: BTreeMap<Entry, u64>,
    connections: Vec<Arc<Traffic>>,
    /// What the connections had carried when each round began.
    at_begin: BTreeMap<u32, UpDown>,
}

impl Account {
    fn carried(&self) -> UpDown {
        self.connections.iter().map(|traffic| traffic.carried()).fold(UpDown::default(), add)
    }

    fn enter_round(&mut self, round: u32) {
        let newest = self.at_begin.last_key_value().map_or(0, |(newest, _)| *newest);
        if round > newest {
            let carried = self.carried();
            self.at_begin.insert(round, carried);
        }
    }

    /// What was carried from the begin of `round` to the begin of the next, or to now.
    fn carried_in(&self, round: u32) -> UpDown {
        let begin = match self.at_begin.get(&round) {
            Some(begin) => *begin,
            None if round == 0 => UpDown::default(),
            None => return UpDown::default(),
        };
        let end = self.at_begin.range(round + 1..).next().map_or_else(|| self.carried(), |(_, end)| *end);
        UpDown { up: end.up - begin.up, down: end.down - begin.down }
    }

    fn round(&self, client: &str, round: u32) -> Vec<ByteCount> {
        let carried = self.carried_in(round);
        let mut counts = self.direction(client, round, Direction::Up, carried.up);
        counts.extend(self.direction(client, round, Direction::Down, carried.down));
        counts
    }

    fn direction(&self, client: &str, round: u32, direction: Direction, carried: u64) -> Vec<ByteCount> {
        let of_it = |entry: &Entry| entry.round == round && entry.direction == direction;
        let (kinds, payloads): (Vec<_>, Vec<_>) =
            self.payload.iter().filter(|(entry, _)| of_it(entry)).map(|(entry, bytes)| (entry.kind, *bytes)).unzip();
        let count = |((kind, payload), wire)| ByteCount {
            client: client.to_owned(),
            direction,
            kind,
            payload,
            wire,
            retransmitted: 0,
        };
        let shares = split_in_proportion(carried, &payloads);
        kinds.into_iter().zip(payloads).zip(shares).map(count).collect()
    }
}

/// `whole` in parts that are proportional to `weights`, each within one of its exact share, and add up to `whole`.
fn split_in_proportion(whole: u64, weights: &[u64]) -> Vec<u64> {
    let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let mut passed = 0;
    let mut given = 0;
    let mut part = |weight: &u64| {
        passed += u128::from(*weight);
        // At most `whole`, so it fits; without any weight nothing is given.
        let up_to_here = (u128::from(whole) * passed).checked_div(total).unwrap_or(0) as u64;
        let part = up_to_here - given;
        given = up_to_here;
        part
    };
    weights.iter().map(&mut part).collect()
}

fn add(a: UpDown, b: UpDown) -> UpDown {
    UpDown { up: a.up + b.up, down: a.down + b.down }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_bytes_are_split_in_proportion_and_add_up() {
        assert_eq!(split_in_proportion(1000, &[300, 100]), [750, 250]);
        assert_eq!(split_in_proportion(1, &[1, 1, 1]).iter().sum::<u64>(), 1);
        assert_eq!(split_in_proportion(1 << 60, &[1 << 60, 1 << 59, 7]).iter().sum::<u64>(), 1 << 60);
        assert_eq!(split_in_proportion(7, &[0, 0]), [0, 0]);
        assert!(split_in_proportion(7, &[]).is_empty());
    }

    #[test]
    fn payload_is_counted_by_client_round_direction_and_kind() {
        let ledger = Ledger::new();
        let message = BTreeMap::from([(PayloadKind::Adapter, 100), (PayloadKind::Head, 10)]);
        ledger.count("silo/1", Direction::Up, 1, &message);
        ledger.count("silo/0", Direction::Down, 1, &message);
        ledger.count("silo/0", Direction::Down, 1, &message);
        ledger.count("silo/0", Direction::Down, 2, &message);
        let counts: Vec<_> = ledger.round(1).into_iter().map(|c| (c.client, c.direction, c.kind, c.payload)).collect();
        assert_eq!(
            counts,
            [
                ("silo/0".to_owned(), Direction::Down, PayloadKind::Adapter, 200),
                ("silo/0".to_owned(), Direction::Down, PayloadKind::Head, 20),
                ("silo/1".to_owned(), Direction::Up, PayloadKind::Adapter, 100),
                ("silo/1".to_owned(), Direction::Up, PayloadKind::Head, 10),
            ]
        );
        assert_eq!(ledger.total_payload(), UpDown { up: 110, down: 330 });
        let of_all_rounds = ledger.payload();
        let entry = ("silo/0".to_owned(), Direction::Down, PayloadKind::Adapter);
        assert_eq!((of_all_rounds[&entry], of_all_rounds.values().sum::<u64>()), (300, 440));
        assert!(ledger.round(3).is_empty());
    }
}
