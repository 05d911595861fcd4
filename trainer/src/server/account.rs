//! The account of a run: its rounds and clients as the report will have them; payload against its formula.
//! Must not change what the run computes: it counts what others did.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use fedtune_crds::report::{
    Absence, ByteCount, ClientReport, Direction, FinalReport, PayloadKind, RoundReport, WorstClient,
};

use super::{Announcement, ServerError};
use crate::{
    data::{Labels, LocalWork},
    evaluate::Evaluation,
    events::{Event, Events},
    frameworks::{Figures, FrameworkError, Payload, PayloadFacts, StepSizes},
    local::Recipe,
    models::ModelShape,
    plan::Plan,
    rounds::{Client, Exchange, sample_size},
};

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
    labels: Vec<String>,
    joined: BTreeMap<Client, Announcement>,
    /// Each client's last figures: cumulative meters.
    figures: BTreeMap<Client, Figures>,
    /// Each client's last evaluation of its own model.
    own: BTreeMap<Client, Evaluation>,
    /// Rounds that are over.
    pub rounds: Vec<RoundReport>,
    last: Option<Evaluation>,
    open: OpenRound,
}

/// What is known of the round that runs.
#[derive(Debug)]
struct OpenRound {
    number: u32,
    since: Instant,
    figures: BTreeMap<Client, Figures>,
    participants: BTreeSet<Client>,
    absent: Vec<Absence>,
    refused: BTreeMap<Client, String>,
    begun_again: BTreeSet<Client>,
}

impl OpenRound {
    fn new(number: u32) -> Self {
        Self {
            number,
            since: Instant::now(),
            figures: BTreeMap::new(),
            participants: BTreeSet::new(),
            absent: Vec::new(),
            refused: BTreeMap::new(),
            begun_again: BTreeSet::new(),
        }
    }
}

impl Account {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            ids: plan.clients.iter().map(ToString::to_string).collect(),
            labels: Vec::new(),
            joined: BTreeMap::new(),
            figures: BTreeMap::new(),
            own: BTreeMap::new(),
            rounds: Vec::new(),
            last: None,
            open: OpenRound::new(0),
        }
    }

    /// Takes in the labels, now that they are frozen.
    pub(super) fn freeze(&mut self, labels: &Labels) {
        self.labels = labels.as_slice().to_vec();
    }

    /// Takes in who joined with what.
    pub(super) fn joined(&mut self, client: Client, announcement: Announcement) {
        self.joined.insert(client, announcement);
    }

    /// These clients with their examples, the weights of the means.
    pub(super) fn weights(&self, clients: &[Client]) -> Vec<(Client, u64)> {
        clients.iter().map(|client| (*client, self.joined.get(client).map_or(0, |joined| joined.examples))).collect()
    }

    /// Notes that a client begins its round again: what it exchanged before is no part of the formula.
    pub(super) fn abandoned(&mut self, client: Client) {
        self.open.begun_again.insert(client);
    }

    /// Opens a round; false where it is open already.
    pub(super) fn begin_round(&mut self, round: u32) -> bool {
        let new = self.open.number != round;
        if new {
            self.open = OpenRound::new(round);
        }
        new
    }

    /// Units of work to expect in a round, for progress.
    pub(super) fn steps_of_a_round(&self, plan: &Plan) -> u64 {
        let asked = sample_size(self.ids.len(), plan.rules.fraction);
        let epochs = |a: &Announcement, epochs: usize| a.examples.div_ceil(plan.batch_size as u64) * epochs as u64;
        let local = match plan.work {
            LocalWork::Steps(tau) => (tau * asked) as u64,
            LocalWork::Epochs(count) => self.joined.values().map(|a| epochs(a, count)).sum(),
        };
        plan.framework.units(asked as u64, local)
    }

    pub(super) fn take_figures(&mut self, client: Client, figures: Figures) {
        if let Some(evaluation) = &figures.evaluation {
            self.own.insert(client, evaluation.clone());
        }
        self.figures.insert(client, figures.clone());
        self.open.figures.insert(client, figures);
    }

    pub(super) fn refused(&mut self, client: Client, error: &FrameworkError) {
        self.open.refused.insert(client, error.to_string());
    }

    /// Notes who counted in an exchange and who did not, and says so.
    pub(super) fn take_absent(&mut self, close: &RoundClose, events: &Events) {
        if close.exchange.index == 0 {
            self.open.participants = close.answered.iter().copied().collect();
        }
        for (client, absence) in &close.absent {
            let reason = self.open.refused.get(client).cloned().unwrap_or_else(|| absence.to_string());
            let (round, client) = (close.exchange.round, self.ids[*client].clone());
            events.tell(Event::ClientAbsent { round, client: client.clone(), reason: reason.clone() });
            self.open.absent.push(Absence { client, reason });
        }
    }

    /// Compares what each participant exchanged in the round with the framework's formula.
    pub(super) fn check_payload(
        &self,
        plan: &Plan,
        shape: &ModelShape,
        recipe: &Recipe,
        public: usize,
        close: &RoundClose,
        bytes: &[ByteCount],
    ) -> Result<(), ServerError> {
        for client in close.answered.iter().filter(|client| !self.open.begun_again.contains(client)) {
            let steps = self.open.figures.get(client).map_or(StepSizes::default(), |figures| figures.steps);
            let expected = plan.framework.payload(&PayloadFacts { shape, recipe, public, steps });
            compare(close.exchange.round, &self.ids[*client], &expected, bytes)?;
        }
        Ok(())
    }

    pub(super) fn end_round(
        &mut self,
        close: &RoundClose,
        evaluation: Option<Evaluation>,
        bytes: Vec<ByteCount>,
        events: &Events,
    ) {
        let evaluation = evaluation.unwrap_or_default();
        let round = RoundReport {
            round: close.exchange.round,
            seconds: self.open.since.elapsed().as_secs_f64(),
            accuracy: evaluation.accuracy(),
            macro_f1: evaluation.macro_f1(),
            loss: evaluation.loss(),
            train_loss: mean(self.open.figures.values().map(|figures| figures.train_loss)),
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
        self.rounds.push(round);
        self.last = Some(evaluation);
    }

    /// What the clients' meters have grown by.
    fn flops_since_last_round(&self) -> f64 {
        let all = self.figures.values().fold(0.0, |sum, figures| sum + figures.meter.flops.headline());
        self.rounds.iter().fold(all, |left, round| left - round.client_flops)
    }

    fn client_mean_accuracy(&self) -> Option<f64> {
        (!self.own.is_empty()).then(|| mean(self.own.values().map(Evaluation::accuracy)))
    }

    /// The last round's figures, with the clients' own where they evaluate themselves.
    pub fn final_figures(&self) -> FinalReport {
        let last = self.last.clone().unwrap_or_default();
        let worst = self.own.iter().min_by(|(_, a), (_, b)| a.accuracy().total_cmp(&b.accuracy()));
        let worst = worst.map(|(client, e)| WorstClient { client: self.ids[*client].clone(), accuracy: e.accuracy() });
        let client_mean_accuracy = self.client_mean_accuracy();
        FinalReport { worst_client: worst, client_mean_accuracy, ..last.figures(&self.labels) }
    }

    /// Every client that joined, by ordinal.
    pub fn clients(&self, plan: &Plan, lora_rank: usize) -> Vec<ClientReport> {
        let report = |(client, joined): (&Client, &Announcement)| {
            let figures = self.figures.get(client).cloned().unwrap_or_default();
            let count = |label: &String| joined.labels.get(label).copied().unwrap_or(0);
            ClientReport {
                client: self.ids[*client].clone(),
                group: plan.clients[*client].group.clone(),
                examples: joined.examples,
                label_counts: self.labels.iter().map(count).collect(),
                accuracy: self.own.get(client).map(Evaluation::accuracy),
                rank: lora_rank as u32,
                cut_layer: plan.framework.cut_layer().map(|cut| cut as u32),
                steps: figures.meter.steps,
                tokens: figures.meter.tokens,
                flops: figures.meter.flops,
                seconds: figures.meter.seconds,
                peak_memory_bytes: figures.peak_memory_bytes,
                peak_memory_modelled: false,
            }
        };
        self.joined.iter().map(report).collect()
    }
}

/// Refuses a difference between what was counted and what the formula says.
fn compare(round: u32, client: &str, expected: &Payload, bytes: &[ByteCount]) -> Result<(), ServerError> {
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
