//! The account of a run: its rounds and clients as the report will have them; payload against its formula.
//! Must not change what the run computes: it counts what others did.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fedtune_crds::report::{
    Absence, ByteCount, ClientReport, Direction, FinalReport, PayloadKind, RoundReport, WorstClient,
};
use serde::{Deserialize, Serialize};

use super::{Announcement, JoinError, ServerError, archive::Completed};
use crate::{
    data::{Labels, LocalWork},
    evaluate::Evaluation,
    events::{Event, Events},
    frameworks::{Figures, Payload},
    meter::Meter,
    plan::Plan,
    rounds::{Client, Exchange, sample_size},
    wire::FIELDS_BYTES,
};

/// Bytes of all labels of a run, at most.
const LABEL_BYTES: usize = FIELDS_BYTES / 2;

/// An exchange at its close.
pub(super) struct RoundClose {
    pub(super) exchange: Exchange,
    pub(super) answered: Vec<Client>,
    pub(super) absent: Vec<(Client, crate::rounds::Absence)>,
}

/// Rounds, clients and figures of a run.
#[derive(Debug)]
pub struct Account {
    ids: Vec<String>,
    book: Book,
    open: OpenRound,
}

/// What of the account outlives the process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Book {
    labels: Vec<String>,
    members: BTreeMap<Client, Member>,
    completed: Completed,
    /// Rounds that are over.
    rounds: Vec<RoundReport>,
    last: Option<Evaluation>,
}

/// A client that joined.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    announcement: Announcement,
    /// What earlier processes of the client did.
    earlier: Meter,
    /// The last figures of the process that speaks for it now: its meter counts from its own start.
    figures: Figures,
}

impl Member {
    fn meter(&self) -> Meter {
        self.earlier.plus(self.figures.meter)
    }
}

/// What is known of the round that runs.
#[derive(Debug)]
struct OpenRound {
    number: u32,
    since: Duration,
    train_losses: BTreeMap<Client, f64>,
    participants: BTreeSet<Client>,
    absent: Vec<Absence>,
    /// How often each client was refused, and the last sentence.
    refused: BTreeMap<Client, (u32, String)>,
}

impl OpenRound {
    fn new(number: u32, since: Duration) -> Self {
        Self {
            number,
            since,
            train_losses: BTreeMap::new(),
            participants: BTreeSet::new(),
            absent: Vec::new(),
            refused: BTreeMap::new(),
        }
    }
}

impl Account {
    pub(super) fn new(plan: &Plan) -> Self {
        Self::resume(plan, Book::default())
    }

    /// Goes on from what an earlier process kept.
    pub(super) fn resume(plan: &Plan, book: Book) -> Self {
        let ids = plan.clients.iter().map(ToString::to_string).collect();
        Self { ids, book, open: OpenRound::new(0, Duration::ZERO) }
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Takes in the labels, now that they are frozen.
    pub(super) fn freeze(&mut self, labels: &Labels) {
        self.book.labels = labels.as_slice().to_vec();
    }

    /// The labels that were frozen; none before.
    pub(super) fn labels(&self) -> &[String] {
        &self.book.labels
    }

    /// Rounds that are over.
    pub fn rounds(&self) -> &[RoundReport] {
        &self.book.rounds
    }

    /// Takes in who joined with what. One that comes back must hold what it held: its weight is frozen with the labels.
    pub(super) fn joined(&mut self, client: Client, announcement: &Announcement) -> Result<(), JoinError> {
        let frozen = !self.book.labels.is_empty();
        if !frozen {
            self.check_labels(client, announcement)?;
        }
        let member = self.book.members.entry(client).or_default();
        let (before, now) = (&member.announcement, announcement);
        let known = !before.client.is_empty();
        if known && frozen && (before.examples, &before.labels) != (now.examples, &now.labels) {
            let (client, before, now) = (now.client.clone(), before.examples, now.examples);
            return Err(JoinError::OtherData { client, before, now });
        }
        if before.incarnation != now.incarnation {
            member.earlier = member.meter();
            member.figures.meter = Meter::default();
        }
        member.announcement = announcement.clone();
        Ok(())
    }

    /// All labels together go to every client in one message: a client whose labels make that too long cannot join.
    fn check_labels(&self, client: Client, announcement: &Announcement) -> Result<(), JoinError> {
        let others = self.book.members.iter().filter(|(other, _)| **other != client);
        let others = others.flat_map(|(_, member)| member.announcement.labels.keys());
        let all: BTreeSet<&String> = others.chain(announcement.labels.keys()).collect();
        // Quotes and a comma; what JSON escapes is rare in a label, and half of the room is left for it.
        let bytes = all.iter().map(|label| label.len() + 3).sum();
        if bytes <= LABEL_BYTES {
            return Ok(());
        }
        Err(JoinError::LabelsTooLong { client: announcement.client.clone(), bytes, allowed: LABEL_BYTES })
    }

    /// Clients that have joined so far.
    pub(super) fn members(&self) -> impl Iterator<Item = (Client, &Announcement)> {
        self.book.members.iter().map(|(client, member)| (*client, &member.announcement))
    }

    /// These clients with their examples, the weights of the means.
    pub(super) fn weights(&self, clients: &[Client]) -> Vec<(Client, u64)> {
        let examples = |client| self.book.members.get(client).map_or(0, |member| member.announcement.examples);
        clients.iter().map(|client| (*client, examples(client))).collect()
    }

    /// Rounds that each client answered to the end.
    pub(super) fn completed(&self) -> &Completed {
        &self.book.completed
    }

    /// Opens a round; false where it is open already.
    pub(super) fn begin_round(&mut self, round: u32, now: Duration) -> bool {
        let new = self.open.number != round;
        if new {
            self.open = OpenRound::new(round, now);
        }
        new
    }

    /// Units of work to expect in a round, for progress.
    pub(super) fn steps_of_a_round(&self, plan: &Plan) -> u64 {
        let asked = sample_size(self.ids.len(), plan.rules.fraction);
        let local = match plan.work {
            LocalWork::Steps(tau) => (tau * plan.accumulation * asked) as u64,
            LocalWork::Epochs(_) => self.members().map(|(client, _)| self.batches_of(client, plan)).sum(),
        };
        plan.framework.units(asked as u64, local, plan.accumulation as u64)
    }

    /// Batches of one client in a round: what the spec says, for the examples that it announced.
    pub(super) fn batches_of(&self, client: Client, plan: &Plan) -> u64 {
        let examples = self.book.members.get(&client).map_or(0, |member| member.announcement.examples);
        match plan.work {
            LocalWork::Steps(steps) => (steps as u64).saturating_mul(plan.accumulation as u64),
            LocalWork::Epochs(epochs) => examples.div_ceil(plan.batch_size as u64).saturating_mul(epochs as u64),
        }
    }

    pub(super) fn take_figures(&mut self, client: Client, figures: Figures) {
        self.open.train_losses.insert(client, figures.train_loss);
        let member = self.book.members.entry(client).or_default();
        let evaluation = figures.evaluation.or_else(|| member.figures.evaluation.take());
        member.figures = Figures { evaluation, ..figures };
    }

    /// What a client did so far, and the peak memory of its process.
    pub(super) fn done_by(&self, client: Client) -> (Meter, u64) {
        let member = self.book.members.get(&client);
        member.map_or_else(Default::default, |member| (member.meter(), member.figures.peak_memory_bytes))
    }

    /// Notes that a client was refused; gives how often in this round.
    pub(super) fn refused(&mut self, client: Client, sentence: &str) -> u32 {
        let (times, last) = self.open.refused.entry(client).or_default();
        *times += 1;
        sentence.clone_into(last);
        *times
    }

    /// How often a client was refused in this round.
    pub(super) fn times_refused(&self, client: Client) -> u32 {
        self.open.refused.get(&client).map_or(0, |(times, _)| *times)
    }

    /// Notes who counted in an exchange and who did not, and says so.
    pub(super) fn take_absent(&mut self, close: &RoundClose, events: &Events) {
        if close.exchange.index == 0 {
            self.open.participants = close.answered.iter().copied().collect();
        }
        for (client, absence) in &close.absent {
            let refused = self.open.refused.get(client).map(|(_, sentence)| sentence.clone());
            let reason = refused.unwrap_or_else(|| absence.to_string());
            let (round, client) = (close.exchange.round, self.ids[*client].clone());
            events.tell(Event::ClientAbsent { round, client: client.clone(), reason: reason.clone() });
            self.open.absent.push(Absence { client, reason });
        }
    }

    /// Notes who answered the round to the end, or where `shared`, that all clients go on from it.
    pub(super) fn complete(&mut self, close: &RoundClose, shared: bool) {
        let all: Vec<Client> = (0..self.ids.len()).collect();
        for client in if shared { &all } else { &close.answered } {
            self.book.completed.entry(*client).or_default().push(close.exchange.round);
        }
    }

    /// Who took part in the last round that is over.
    pub(super) fn last_participants(&self) -> Vec<Client> {
        let last = self.book.rounds.last().map(|round| &round.participants[..]).unwrap_or_default();
        let ordinals = self.ids.iter().enumerate();
        ordinals.filter(|(_, id)| last.contains(id)).map(|(client, _)| client).collect()
    }

    pub(super) fn end_round(
        &mut self,
        close: &RoundClose,
        evaluation: Option<Evaluation>,
        bytes: Vec<ByteCount>,
        now: Duration,
        events: &Events,
    ) {
        let evaluation = evaluation.unwrap_or_default();
        let round = RoundReport {
            round: close.exchange.round,
            seconds: now.saturating_sub(self.open.since).as_secs_f64(),
            accuracy: evaluation.accuracy(),
            macro_f1: evaluation.macro_f1(),
            loss: evaluation.loss(),
            perplexity: evaluation.perplexity(),
            token_accuracy: evaluation.token_accuracy(),
            exact_match: evaluation.exact_match(),
            choices_accuracy: evaluation.choices_accuracy(),
            train_loss: mean(self.open.train_losses.values().copied()),
            client_mean_accuracy: self.client_mean_accuracy(),
            client_flops: self.flops_since_last_round(),
            participants: self.open.participants.iter().map(|client| self.ids[*client].clone()).collect(),
            absent: std::mem::take(&mut self.open.absent),
            bytes,
        };
        events.tell(Event::RoundFinished {
            round: round.round,
            accuracy: round.accuracy,
            loss: round.loss,
            payload_bytes: round.bytes.iter().map(|count| count.payload).sum(),
            seconds: round.seconds,
        });
        self.book.rounds.push(round);
        self.book.last = Some(evaluation);
    }

    /// What the clients' meters have grown by.
    fn flops_since_last_round(&self) -> f64 {
        let members = self.book.members.values();
        let all = members.fold(0.0, |sum, member| sum + member.meter().flops.headline());
        self.book.rounds.iter().fold(all, |left, round| left - round.client_flops)
    }

    /// Each client's last evaluation of its own model.
    fn own(&self) -> impl Iterator<Item = (Client, &Evaluation)> {
        self.book.members.iter().filter_map(|(client, member)| Some((*client, member.figures.evaluation.as_ref()?)))
    }

    fn client_mean_accuracy(&self) -> Option<f64> {
        self.own().next().map(|_| mean(self.own().map(|(_, evaluation)| evaluation.accuracy())))
    }

    /// The last round's figures, with the clients' own where they evaluate themselves.
    pub fn final_figures(&self) -> FinalReport {
        let last = self.book.last.clone().unwrap_or_default();
        let worst = self.own().min_by(|(_, a), (_, b)| a.accuracy().total_cmp(&b.accuracy()));
        let worst = worst.map(|(client, e)| WorstClient { client: self.ids[client].clone(), accuracy: e.accuracy() });
        let client_mean_accuracy = self.client_mean_accuracy();
        FinalReport { worst_client: worst, client_mean_accuracy, ..last.figures(&self.book.labels) }
    }

    /// Every client that joined, by ordinal.
    pub fn clients(&self, plan: &Plan) -> Vec<ClientReport> {
        let report = |(client, member): (&Client, &Member)| {
            let Member { announcement, figures, .. } = member;
            let meter = member.meter();
            let count = |label: &String| announcement.labels.get(label).copied().unwrap_or(0);
            ClientReport {
                client: self.ids[*client].clone(),
                group: plan.clients[*client].group.clone(),
                examples: announcement.examples,
                label_counts: self.book.labels.iter().map(count).collect(),
                accuracy: figures.evaluation.as_ref().map(Evaluation::accuracy),
                rank: plan.ranks[*client] as u32,
                cut_layer: plan.framework.client_part(*client).cut_layer().map(|cut| cut as u32),
                steps: meter.steps,
                tokens: meter.tokens,
                flops: meter.flops,
                seconds: meter.seconds,
                peak_memory_bytes: figures.peak_memory_bytes,
                peak_memory_modelled: false,
            }
        };
        self.book.members.iter().map(report).collect()
    }
}

/// Refuses a difference between what was counted and what the formula says.
pub(super) fn check_payload(
    round: u32,
    client: &str,
    expected: &Payload,
    bytes: &[ByteCount],
) -> Result<(), ServerError> {
    let mine = bytes.iter().filter(|count| count.client == client);
    let counted: Payload = mine.map(|count| ((count.direction, count.kind), count.payload)).collect();
    let entries: BTreeSet<&(Direction, PayloadKind)> = counted.keys().chain(expected.keys()).collect();
    for entry in entries {
        let of = |payload: &Payload| payload.get(entry).copied().unwrap_or(0);
        let (counted, expected) = (of(&counted), of(expected));
        if counted != expected {
            let (client, (direction, kind)) = (client.to_owned(), *entry);
            return Err(ServerError::Payload { round, client, direction, kind, counted, expected });
        }
    }
    Ok(())
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}
