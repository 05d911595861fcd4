//! The page's table of a run's clients: what each holds, did and cost, and where it was missed.
//! Must not add clients up: sums stand in the table of the measures.

use std::collections::BTreeMap;

use fedtune_crds::report::{ClientReport, RunReport};
use serde::Serialize;

use super::{Entry, Run};
use crate::report::units;

/// Labels that are named beside the bar; the rest are counted.
const NAMED_LABELS: usize = 3;
/// A run with more clients than this starts closed.
const OPEN: usize = 12;

/// The clients of one run. Columns that no client fills are left out.
// The flags are columns, each shown or not on its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Serialize)]
pub(super) struct Roster {
    run: Entry,
    open: bool,
    has_labels: bool,
    has_accuracy: bool,
    has_cut: bool,
    modelled: bool,
    clients: Vec<Client>,
    server: Server,
    absences: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Client {
    name: String,
    examples: String,
    mix: Vec<Share>,
    mix_text: String,
    accuracy: String,
    rank: u32,
    cut_layer: String,
    steps: String,
    tokens: String,
    padding: String,
    flops: String,
    busy: String,
    waiting: String,
    memory: String,
    absent: String,
}

/// A part of the bar of labels, in percent of its width.
#[derive(Debug, Serialize)]
struct Share {
    x: f64,
    width: f64,
    class: usize,
}

#[derive(Debug, Serialize)]
struct Server {
    flops: String,
    busy: String,
    waiting: String,
    memory: String,
}

/// The table of a run's clients; `None` where there are none to speak of.
pub(super) fn roster(run: &Run) -> Option<Roster> {
    let report = run.report;
    if report.clients.is_empty() {
        return None;
    }
    let labels: Vec<&str> = report.final_figures.per_label.iter().map(|label| label.label.as_str()).collect();
    let absences = absences(report);
    let absent =
        |client: &ClientReport| absences.get(client.client.as_str()).map_or(String::new(), |missed| rounds(missed));
    Some(Roster {
        run: run.entry(),
        open: report.clients.len() <= OPEN,
        has_labels: report.clients.iter().any(|client| client.label_counts.iter().any(|count| *count > 0)),
        has_accuracy: report.clients.iter().any(|client| client.accuracy.is_some()),
        has_cut: report.clients.iter().any(|client| client.cut_layer.is_some()),
        modelled: report.clients.iter().any(|client| client.peak_memory_modelled),
        clients: report.clients.iter().map(|client| row(client, &labels, absent(client))).collect(),
        server: server(report),
        absences: absences.iter().flat_map(|(client, missed)| sentences(client, missed)).collect(),
    })
}

fn row(client: &ClientReport, labels: &[&str], absent: String) -> Client {
    let tokens = client.tokens.real.saturating_add(client.tokens.padding);
    let padding = if tokens > 0 { client.tokens.padding as f64 / tokens as f64 } else { f64::NAN };
    let seconds = client.seconds;
    Client {
        name: client.client.clone(),
        examples: units::count(client.examples),
        mix: mix(&client.label_counts),
        mix_text: mix_text(&client.label_counts, labels),
        accuracy: client.accuracy.map_or(units::NONE.into(), units::percent),
        rank: client.rank,
        cut_layer: client.cut_layer.map_or(units::NONE.into(), |layer| layer.to_string()),
        steps: units::count(client.steps),
        tokens: units::count(client.tokens.real),
        padding: units::percent(padding),
        flops: units::flops(client.flops.headline()),
        busy: units::duration(seconds.compute + seconds.encode + seconds.network),
        waiting: units::duration(seconds.wait),
        memory: memory(client.peak_memory_bytes),
        absent,
    }
}

fn server(report: &RunReport) -> Server {
    let seconds = report.server.seconds;
    Server {
        flops: units::flops(report.server.flops.headline()),
        busy: units::duration(seconds.compute + seconds.encode + seconds.network),
        waiting: units::duration(seconds.wait),
        memory: memory(report.server.peak_memory_bytes),
    }
}

/// Zero is what a run that did not measure it has.
fn memory(bytes: u64) -> String {
    if bytes == 0 { units::NONE.into() } else { units::bytes(bytes as f64) }
}

/// Labels as parts of a bar, in label order.
fn mix(counts: &[u64]) -> Vec<Share> {
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    let mut x = 0.0;
    let mut shares = Vec::new();
    for (label, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let width = *count as f64 / total * 100.0;
        // Neighbours differ: eight tones, told apart by the order and the text beside the bar.
        shares.push(Share { x, width, class: label % 8 });
        x += width;
    }
    shares
}

/// `ham 412 · spam 96`, the most frequent first.
fn mix_text(counts: &[u64], labels: &[&str]) -> String {
    let mut present: Vec<(usize, u64)> = counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
    present.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let name = |at: usize| labels.get(at).map_or_else(|| format!("label {at}"), |label| (*label).to_owned());
    let mut parts: Vec<String> = present
        .iter()
        .take(NAMED_LABELS)
        .map(|(label, count)| format!("{} {}", name(*label), units::count(*count)))
        .collect();
    if present.len() > NAMED_LABELS {
        parts.push(format!("{} more", present.len() - NAMED_LABELS));
    }
    parts.join(" · ")
}

/// For each client the rounds that it missed, and why.
type Absences<'a> = BTreeMap<&'a str, Vec<(u32, &'a str)>>;

fn absences(report: &RunReport) -> Absences<'_> {
    let mut absences = Absences::new();
    for round in &report.rounds {
        for absence in &round.absent {
            absences.entry(&absence.client).or_default().push((round.round, &absence.reason));
        }
    }
    absences
}

fn rounds(missed: &[(u32, &str)]) -> String {
    missed.iter().map(|(round, _)| round.to_string()).collect::<Vec<_>>().join(", ")
}

/// `silo-a/1 missed rounds 2, 5: its upload came late`, a sentence a reason.
fn sentences(client: &str, missed: &[(u32, &str)]) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<(u32, &str)>)> = Vec::new();
    for absence in missed {
        match reasons.iter_mut().find(|(reason, _)| *reason == absence.1) {
            Some((_, rounds)) => rounds.push(*absence),
            None => reasons.push((absence.1, vec![*absence])),
        }
    }
    let word = |missed: &[(u32, &str)]| if missed.len() == 1 { "round" } else { "rounds" };
    reasons
        .iter()
        .map(|(reason, missed)| format!("{client} missed {} {}: {reason}", word(missed), rounds(missed)))
        .collect()
}
