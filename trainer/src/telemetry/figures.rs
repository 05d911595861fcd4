//! All that is known of a run or a client from the events so far.
//! Must not grow with anything that a peer can choose: sentences are cut, clients are those of the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use fedtune_crds::{
    live::LivePhase,
    report::{RunPhase, RunReport, Totals},
};

use super::{RunFacts, termination::cut};
use crate::{events::Event, meter::Meter, refusal::RefusalReason, stop, wire::Carried};

/// Bytes of a sentence in the status, at most: the whole status must fit into a termination message.
const SENTENCE_BYTES: usize = 1024;

/// Whether a process can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The server listens with its model loaded, or the client has a session.
    Ready,
    /// Not now, and why.
    NotReady(String),
}

impl Readiness {
    fn not(reason: &str) -> Self {
        Self::NotReady(cut(reason, SENTENCE_BYTES).to_owned())
    }
}

/// The figures.
#[derive(Debug, Clone)]
pub(super) struct LiveFigures {
    pub(super) uid: String,
    pub(super) epoch: u64,
    pub(super) phase: LivePhase,
    pub(super) message: String,
    /// Why the run ends before its last round, once it is known.
    pub(super) stopped: Option<String>,
    /// When `phase`, `open_round` or `waiting_for` last changed.
    pub(super) since: SystemTime,
    /// Last round that began, and last that is finished.
    pub(super) open_round: u32,
    pub(super) round: u32,
    pub(super) accuracy: Option<f64>,
    pub(super) loss: Option<f64>,
    /// Seconds of each round that this process has seen to its end.
    pub(super) round_seconds: Vec<f64>,
    /// As of the last finished round.
    pub(super) carried: Carried,
    /// What the clients' last answers say.
    pub(super) clients: BTreeMap<String, ClientFigures>,
    /// The report's sums, once there is a report.
    pub(super) settled: Option<Totals>,
    /// Why the run ended well, in one word, once it is known.
    pub(super) stop_reason: Option<String>,
    pub(super) present: BTreeSet<String>,
    pub(super) waiting_for: Vec<String>,
    pub(super) refused: BTreeMap<RefusalReason, u64>,
    pub(super) client_failures: u64,
    pub(super) checkpointed: Option<SystemTime>,
    pub(super) certificate_expiry: Option<SystemTime>,
    pub(super) readiness: Readiness,
}

/// All that a client did since the start of the run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClientFigures {
    pub(super) meter: Meter,
    pub(super) peak_memory_bytes: u64,
}

impl LiveFigures {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            uid: String::new(),
            epoch: 0,
            phase: LivePhase::Starting,
            message: "reads the model and the data".to_owned(),
            stopped: None,
            since: now,
            open_round: 0,
            round: 0,
            accuracy: None,
            loss: None,
            round_seconds: Vec::new(),
            carried: Carried::default(),
            clients: BTreeMap::new(),
            settled: None,
            stop_reason: None,
            present: BTreeSet::new(),
            waiting_for: Vec::new(),
            refused: BTreeMap::new(),
            client_failures: 0,
            checkpointed: None,
            certificate_expiry: None,
            readiness: Readiness::not("it reads the model and the data"),
        }
    }

    pub(super) fn name_run(&mut self, uid: &str, epoch: u64) {
        // A uid has 36 characters.
        uid.clone_into(&mut self.uid);
        self.epoch = epoch;
    }

    /// What an event changes.
    pub(super) fn take(&mut self, event: &Event, facts: &RunFacts, now: SystemTime) {
        let before = (self.phase, self.open_round, self.waiting_for.clone());
        match event {
            Event::StageStarted { stage, .. } => self.take_stage(stage),
            Event::Listening { .. } => self.take_listening(facts),
            Event::Connected => self.readiness = Readiness::Ready,
            Event::Disconnected { reason } => self.readiness = Readiness::not(reason),
            Event::ClientJoined { client, .. } => self.take_joined(client, facts),
            Event::ClientLeft { client } => self.take_left(client, facts),
            Event::RoundStarted { round, .. } => self.take_round_started(*round, facts),
            Event::WaitingFor { clients } => self.waiting_for.clone_from(clients),
            Event::RoundFinished { round, accuracy, loss, seconds, .. } => {
                self.take_round_finished(*round, *accuracy, *loss, *seconds, facts);
            }
            Event::ClientAbsent { round, client, reason } => {
                self.say(&format!("round {round} goes on without {client}, which {reason}"));
            }
            Event::UploadRefused { client, reason, sentence } => {
                *self.refused.entry(*reason).or_default() += 1;
                self.say(&format!("refused {client}: {sentence}"));
            }
            Event::ClientFailed { client, reason } => {
                self.client_failures += 1;
                self.say(&format!("{client} gave up: {reason}"));
            }
            Event::ClientFigures { client, meter, peak_memory_bytes } => {
                let figures = ClientFigures { meter: *meter, peak_memory_bytes: *peak_memory_bytes };
                self.clients.insert(client.clone(), figures);
            }
            Event::Checkpointed { .. } => self.checkpointed = Some(now),
            Event::Stopped { round, rule, sentence } => {
                self.take_stopped(format!("stopped by {rule} after round {round}: {sentence}"));
            }
            Event::RunFinished { error, .. } => self.take_run_finished(error.as_deref()),
            Event::StageAdvanced { .. }
            | Event::StageFinished
            | Event::Note { .. }
            | Event::RunStarted { .. }
            | Event::StepFinished { .. } => {}
        }
        if before != (self.phase, self.open_round, self.waiting_for.clone()) {
            self.since = now;
        }
    }

    fn take_stage(&mut self, stage: &str) {
        if self.phase == LivePhase::Starting {
            self.say(stage);
        }
    }

    fn take_listening(&mut self, facts: &RunFacts) {
        self.readiness = Readiness::Ready;
        self.phase = LivePhase::Waiting;
        self.say_who_is_here(facts);
    }

    fn take_joined(&mut self, client: &str, facts: &RunFacts) {
        self.present.insert(client.to_owned());
        self.say_who_is_here(facts);
    }

    fn take_left(&mut self, client: &str, facts: &RunFacts) {
        self.present.remove(client);
        self.say_who_is_here(facts);
    }

    /// Before the first round that is all there is to say.
    fn say_who_is_here(&mut self, facts: &RunFacts) {
        if self.phase == LivePhase::Waiting {
            self.say(&format!("{} of {} clients are here", self.present.len(), facts.clients.len()));
        }
    }

    fn take_round_started(&mut self, round: u32, facts: &RunFacts) {
        self.phase = LivePhase::Running;
        self.open_round = round;
        self.say(&format!("round {round} of {}", facts.rounds));
    }

    fn take_round_finished(&mut self, round: u32, accuracy: f64, loss: f64, seconds: f64, facts: &RunFacts) {
        self.round = round;
        self.accuracy = Some(accuracy);
        self.loss = Some(loss);
        self.round_seconds.push(seconds);
        self.waiting_for.clear();
        self.say(&format!("round {round} of {} is done", facts.rounds));
    }

    fn take_stopped(&mut self, words: String) {
        self.say(&words);
        self.stopped = Some(words);
    }

    fn take_run_finished(&mut self, error: Option<&str>) {
        self.phase = if error.is_some() { LivePhase::Failed } else { LivePhase::Succeeded };
        self.waiting_for.clear();
        self.readiness = Readiness::not("the run is over");
        let done = self
            .stopped
            .as_ref()
            .map_or_else(|| "the run is done".to_owned(), |stopped| format!("the run is done: {stopped}"));
        self.say(error.unwrap_or(&done));
    }

    /// From here on it says what the report says, to the last digit.
    pub(super) fn settle(&mut self, report: &RunReport) {
        self.accuracy = Some(report.final_figures.accuracy);
        self.loss = Some(report.final_figures.loss);
        self.settled = Some(report.totals.clone());
        self.stop_reason = Some(report.stop_reason.clone());
    }

    /// Takes over what an earlier process finished.
    pub(super) fn recall(&mut self, report: &RunReport) {
        self.settle(report);
        self.uid.clone_from(&report.uid);
        self.round = report.rounds.last().map_or(0, |round| round.round);
        self.open_round = self.round;
        self.stopped = stop::words(report);
        self.take_run_finished((report.phase == RunPhase::Failed).then_some(&report.stop_reason));
    }

    /// Seconds that the rounds still to come take if they are as long as those so far; unknown before the first.
    pub(super) fn eta_seconds(&self, rounds: u32) -> Option<f64> {
        match self.phase {
            LivePhase::Succeeded => Some(0.0),
            LivePhase::Failed => None,
            LivePhase::Starting | LivePhase::Waiting | LivePhase::Running => {
                let seen = self.round_seconds.len();
                let mean = self.round_seconds.iter().sum::<f64>() / seen as f64;
                (seen > 0).then(|| mean * f64::from(rounds.saturating_sub(self.round)))
            }
        }
    }

    fn say(&mut self, sentence: &str) {
        cut(sentence, SENTENCE_BYTES).clone_into(&mut self.message);
    }
}
