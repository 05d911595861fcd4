//! The server's account of every byte: payload by client, round, direction and kind, and what the sockets carried.
//! Must not estimate: payload is counted at the messages, wire bytes at the sockets.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fedtune_crds::report::{ByteCount, Direction, PayloadKind, UpDown};
use serde::{Deserialize, Serialize};

use super::{Message, traffic::Traffic};
use crate::rounds::Exchange;

/// Shared by all links of a server; cheap to clone.
///
/// Payload is kept by attempt: which asking of the client in an exchange it belongs to. When an exchange closes, the
/// attempt that counted is settled; what all others carried is retransmission.
///
/// A client's wire bytes belong to the newest round that it and the server have spoken of, from the first message
/// of that round on: what is still on its way when the next round begins is counted in the next. Joining is round 0.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    clients: BTreeMap<String, Account>,
    /// What earlier processes of the same run counted.
    before: Carried,
}

/// Bytes of a run so far, as a checkpoint keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Payload of settled attempts.
    pub payload: UpDown,
    /// What the sockets carried.
    pub wire: UpDown,
    /// Payload of all other attempts.
    pub retransmitted: UpDown,
}

impl Ledger {
    /// An account without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from what an earlier process of the same run had counted.
    pub fn resume(&self, before: Carried) {
        self.book().before = before;
    }

    /// Bytes of `round` by client, direction and kind, in this order.
    ///
    /// `wire` is the share of what the client's socket carried in that round and direction, framing and keep-alives
    /// included, split over the kinds in proportion to their payload so that the sum is exact. Where a direction had
    /// no payload there is no entry to carry its wire bytes: only [`Ledger::total`] has them.
    pub fn round(&self, round: u32) -> Vec<ByteCount> {
        let book = self.book();
        book.clients.iter().flat_map(|(client, account)| account.round(client, round)).collect()
    }

    /// All clients and rounds, earlier processes included.
    pub fn total(&self) -> Carried {
        let book = self.book();
        book.clients.values().map(Account::total).fold(book.before, |sum, part| Carried {
            payload: add(sum.payload, part.payload),
            wire: add(sum.wire, part.wire),
            retransmitted: add(sum.retransmitted, part.retransmitted),
        })
    }

    /// Counts a message's payload: one that was sent, or one that came and was accepted.
    pub fn count(&self, client: &str, direction: Direction, message: &Message) {
        let mut book = self.book();
        let account = book.account(client);
        account.enter_round(message.round);
        // What belongs to no attempt belongs to the round that runs.
        let round = if message.attempt > 0 { message.round } else { account.newest_round() };
        account.enter(direction, Exchange { round, index: message.exchange() }, message.attempt, message);
    }

    /// Counts a message that came and led to nothing.
    pub fn count_refused(&self, client: &str, message: &Message) {
        let mut book = self.book();
        let account = book.account(client);
        // Of what is refused nothing is believed, its round neither.
        let exchange = Exchange { round: account.newest_round(), index: 0 };
        account.enter(Direction::Up, exchange, 0, message);
    }

    /// Says which attempt of a client counted in an exchange that is closed; 0 for none.
    pub fn settle(&self, client: &str, exchange: Exchange, attempt: u32) {
        self.book().account(client).settled.insert(exchange, attempt);
    }

    /// Settled payload by client, direction and kind, of this process.
    pub fn payload(&self) -> BTreeMap<(String, Direction, PayloadKind), u64> {
        let mut all = BTreeMap::new();
        for (client, account) in &self.book().clients {
            for (entry, bytes) in account.payload.iter().filter(|(entry, _)| account.is_settled(entry)) {
                *all.entry((client.clone(), entry.direction, entry.kind)).or_default() += bytes;
            }
        }
        all
    }

    /// What the sockets of each client have carried, in this process.
    pub fn wire(&self) -> BTreeMap<String, UpDown> {
        self.book().clients.iter().map(|(client, account)| (client.clone(), account.carried())).collect()
    }

    /// Payload of each client that led to nothing: sent again, refused, or of an exchange that closed without it.
    pub fn retransmitted(&self) -> BTreeMap<String, UpDown> {
        let book = self.book();
        book.clients.iter().map(|(client, account)| (client.clone(), account.total().retransmitted)).collect()
    }

    /// Counts a connection's bytes as `client`'s, from its first byte on; a client that reconnects has several.
    pub(super) fn add_connection(&self, client: &str, traffic: Arc<Traffic>) {
        self.book().account(client).connections.push(traffic);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change is one addition: a thread that panicked elsewhere left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn account(&mut self, client: &str) -> &mut Account {
        self.clients.entry(client.to_owned()).or_default()
    }
}

/// What a payload count is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    exchange: Exchange,
    /// From 1; 0 for what belongs to no attempt, and never counts.
    attempt: u32,
    direction: Direction,
    kind: PayloadKind,
}

/// One client's bytes.
#[derive(Debug, Default)]
struct Account {
    payload: BTreeMap<Entry, u64>,
    /// The attempt that counted, of each exchange that is closed.
    settled: BTreeMap<Exchange, u32>,
    connections: Vec<Arc<Traffic>>,
    /// What the connections had carried when each round began.
    at_begin: BTreeMap<u32, UpDown>,
}

impl Account {
    fn total(&self) -> Carried {
        let mut total = Carried { wire: self.carried(), ..Carried::default() };
        for (entry, bytes) in &self.payload {
            let of = match self.settled.get(&entry.exchange) {
                Some(settled) if entry.attempt > 0 && *settled == entry.attempt => &mut total.payload,
                Some(_) => &mut total.retransmitted,
                None if entry.attempt == 0 => &mut total.retransmitted,
                // Not decided yet.
                None => continue,
            };
            match entry.direction {
                Direction::Up => of.up += bytes,
                Direction::Down => of.down += bytes,
            }
        }
        total
    }

    fn enter(&mut self, direction: Direction, exchange: Exchange, attempt: u32, message: &Message) {
        for (kind, bytes) in message.payload_by_kind() {
            *self.payload.entry(Entry { exchange, attempt, direction, kind }).or_default() += bytes;
        }
    }

    fn is_settled(&self, entry: &Entry) -> bool {
        entry.attempt > 0 && self.settled.get(&entry.exchange) == Some(&entry.attempt)
    }

    fn carried(&self) -> UpDown {
        self.connections.iter().map(|traffic| traffic.carried()).fold(UpDown::default(), add)
    }

    fn newest_round(&self) -> u32 {
        self.at_begin.last_key_value().map_or(0, |(newest, _)| *newest)
    }

    fn enter_round(&mut self, round: u32) {
        if round > self.newest_round() {
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
        // Of each kind: what counted, and what did not.
        let mut kinds: BTreeMap<PayloadKind, (u64, u64)> = BTreeMap::new();
        let of_it = |entry: &Entry| entry.exchange.round == round && entry.direction == direction;
        for (entry, bytes) in self.payload.iter().filter(|(entry, _)| of_it(entry)) {
            let (counted, again) = kinds.entry(entry.kind).or_default();
            *(if self.is_settled(entry) { counted } else { again }) += bytes;
        }
        let all: Vec<u64> = kinds.values().map(|(counted, again)| counted + again).collect();
        let shares = split_in_proportion(carried, &all);
        let count = |((kind, (payload, retransmitted)), wire)| ByteCount {
            client: client.to_owned(),
            direction,
            kind,
            payload,
            wire,
            retransmitted,
        };
        kinds.into_iter().zip(shares).map(count).collect()
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
    use crate::wire::{Element, Subject, WireTensor};

    #[test]
    fn wire_bytes_are_split_in_proportion_and_add_up() {
        assert_eq!(split_in_proportion(1000, &[300, 100]), [750, 250]);
        assert_eq!(split_in_proportion(1, &[1, 1, 1]).iter().sum::<u64>(), 1);
        assert_eq!(split_in_proportion(1 << 60, &[1 << 60, 1 << 59, 7]).iter().sum::<u64>(), 1 << 60);
        assert_eq!(split_in_proportion(7, &[0, 0]), [0, 0]);
        assert!(split_in_proportion(7, &[]).is_empty());
    }

    fn message(subject: Subject, round: u32, attempt: u32, tensors: &[(PayloadKind, usize)]) -> Message {
        let tensor = |&(kind, bytes): &(PayloadKind, usize)| WireTensor {
            name: String::new(),
            kind,
            element: Element::U8,
            shape: vec![bytes as i64],
            bytes: vec![0; bytes].into(),
        };
        Message { attempt, tensors: tensors.iter().map(tensor).collect(), ..Message::new(subject, round) }
    }

    const ADAPTER: [(PayloadKind, usize); 2] = [(PayloadKind::Adapter, 100), (PayloadKind::Head, 10)];
    const FIRST: Exchange = Exchange { round: 1, index: 0 };

    #[test]
    fn payload_is_counted_by_client_round_direction_and_kind() {
        let ledger = Ledger::new();
        let (down, up) = (message(Subject::Begin, 1, 1, &ADAPTER), message(Subject::Upload, 1, 1, &ADAPTER));
        ledger.count("silo/1", Direction::Up, &up);
        ledger.count("silo/0", Direction::Down, &down);
        ledger.count("silo/0", Direction::Down, &message(Subject::Begin, 2, 1, &ADAPTER));
        ledger.settle("silo/0", FIRST, 1);
        ledger.settle("silo/1", FIRST, 1);
        let counts: Vec<_> = ledger.round(1).into_iter().map(|c| (c.client, c.direction, c.kind, c.payload)).collect();
        assert_eq!(
            counts,
            [
                ("silo/0".to_owned(), Direction::Down, PayloadKind::Adapter, 100),
                ("silo/0".to_owned(), Direction::Down, PayloadKind::Head, 10),
                ("silo/1".to_owned(), Direction::Up, PayloadKind::Adapter, 100),
                ("silo/1".to_owned(), Direction::Up, PayloadKind::Head, 10),
            ]
        );
        assert_eq!(ledger.total().payload, UpDown { up: 110, down: 110 });
        assert!(ledger.round(3).is_empty());
    }

    #[test]
    fn an_attempt_that_did_not_count_is_retransmission() {
        let ledger = Ledger::new();
        for attempt in 1..=2 {
            ledger.count("silo/0", Direction::Down, &message(Subject::Begin, 1, attempt, &ADAPTER));
        }
        ledger.count("silo/0", Direction::Up, &message(Subject::Upload, 1, 2, &ADAPTER));
        // Doubled, and refused for it.
        ledger.count_refused("silo/0", &message(Subject::Upload, 1, 2, &ADAPTER));
        ledger.settle("silo/0", FIRST, 2);
        let total = ledger.total();
        assert_eq!(total.payload, UpDown { up: 110, down: 110 });
        assert_eq!(total.retransmitted, UpDown { up: 110, down: 110 });
        assert!(ledger.round(1).iter().all(|count| count.retransmitted == count.payload));
    }

    #[test]
    fn a_resumed_run_goes_on_from_what_was_counted() {
        let ledger = Ledger::new();
        let before = Carried { payload: UpDown { up: 7, down: 8 }, ..Carried::default() };
        ledger.resume(before);
        assert_eq!(ledger.total(), before);
    }
}
