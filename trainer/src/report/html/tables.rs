//! The page's tables over all runs: the three measures, scores by label, rounds, and what the runs ran on.
//! Must not leave out what a chart shows: whoever does not see the charts reads these.

use fedtune_crds::report::{RunPhase, RunReport};
use serde::Serialize;

use super::{Entry, Run};
use crate::{
    report::{
        measures::{self, Better},
        units,
    },
    stop,
};

/// A table cell: its text, and whether it is the best of its column.
#[derive(Debug, Serialize)]
struct Cell {
    text: String,
    best: bool,
}

/// One run in the table of the measures.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    run: Entry,
    failed: bool,
    baseline: bool,
    cells: Vec<Cell>,
    /// Lines below the name: the clients' own accuracy, where they evaluate themselves.
    notes: Vec<String>,
}

/// The three measures, a row a run. The order of the cells is that of the template's headings.
pub(super) fn measured(runs: &[Run]) -> Vec<Measured> {
    let columns = columns(runs);
    let row = |at: usize, run: &Run| Measured {
        run: run.entry(),
        failed: run.report.phase == RunPhase::Failed,
        baseline: measures::is_baseline(run.report.framework),
        cells: columns.iter().map(|column| Cell { text: column.0[at].clone(), best: column.1[at] }).collect(),
        notes: notes(run.report),
    };
    runs.iter().enumerate().map(|(at, run)| row(at, run)).collect()
}

type Column = (Vec<String>, Vec<bool>);

fn columns(runs: &[Run]) -> Vec<Column> {
    let reports: Vec<&RunReport> = runs.iter().map(|run| run.report).collect();
    let column = |better, show: fn(f64) -> String, figure: fn(&RunReport) -> Option<f64>| -> Column {
        let texts = reports.iter().map(|report| figure(report).map_or(units::NONE.into(), show)).collect();
        (texts, measures::best(&reports, better, figure))
    };
    vec![
        column(Better::Larger, units::percent, |run| Some(measures::scores(run)?.accuracy)),
        column(Better::Larger, units::decimal, |run| measures::scores(run)?.macro_f1),
        column(Better::Smaller, units::decimal, |run| Some(measures::scores(run)?.loss)),
        column(Better::Smaller, units::bytes, |run| Some(run.totals.payload_bytes.up as f64)),
        column(Better::Smaller, units::bytes, |run| Some(run.totals.payload_bytes.down as f64)),
        // Framing is no one's merit, so it has no best.
        (column(Better::Smaller, units::decimal, measures::wire_per_payload).0, vec![false; runs.len()]),
        column(Better::Smaller, units::flops, |run| Some(run.totals.client_flops)),
        column(Better::Smaller, units::duration, |run| Some(run.totals.client_seconds)),
        column(Better::Smaller, units::bytes, |run| Some(measures::client_memory(run)?.0 as f64)),
        column(Better::Smaller, units::duration, |run| Some(run.totals.seconds)),
    ]
}

/// How the clients' own models do, where clients evaluate themselves, and which stop rule ended the run.
fn notes(report: &RunReport) -> Vec<String> {
    let end = &report.final_figures;
    // For `localOnly` the mean is the headline already.
    let mean = end.client_mean_accuracy.filter(|mean| (mean - end.accuracy).abs() > 1e-9);
    let mean = mean.map(|mean| format!("clients: {} on average", units::percent(mean)));
    let worst = end.worst_client.as_ref();
    let worst = worst.map(|worst| format!("worst client: {} ({})", units::percent(worst.accuracy), worst.client));
    let stopped = stop::words(report);
    [said(report), mean, worst, stopped].into_iter().flatten().collect()
}

/// How a language model's words do.
fn said(report: &RunReport) -> Option<String> {
    let end = &report.final_figures;
    let shares =
        [("tokens", end.token_accuracy), ("whole answers", end.exact_match), ("choices", end.choices_accuracy)];
    let shares = shares.into_iter().filter_map(|(of, share)| Some(format!("{} of {of}", units::percent(share?))));
    Some(format!("perplexity {}; right: {}", units::decimal(end.perplexity?), shares.collect::<Vec<_>>().join(", ")))
}

/// Scores of one label in one run.
#[derive(Debug, Serialize)]
pub(super) struct LabelScores {
    run: String,
    label: String,
    examples: String,
    precision: String,
    recall: String,
    f1: String,
}

/// Precision, recall and F1 of each label in each run.
pub(super) fn label_scores(runs: &[Run]) -> Vec<LabelScores> {
    let scores = |run: &Run| -> Vec<LabelScores> {
        let score = |label: &fedtune_crds::report::LabelFigures| LabelScores {
            run: run.label.clone(),
            label: label.label.clone(),
            examples: units::count(label.examples),
            precision: units::decimal(label.precision),
            recall: units::decimal(label.recall),
            f1: units::decimal(label.f1),
        };
        run.report.final_figures.per_label.iter().map(score).collect()
    };
    runs.iter().flat_map(scores).collect()
}

/// One round of one run.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    run: String,
    number: u32,
    accuracy: String,
    macro_f1: String,
    loss: String,
    train_loss: String,
    payload: String,
    payload_so_far: String,
    flops_so_far: String,
    seconds: String,
    participants: usize,
    absent: usize,
}

/// Every round of every run: the figures behind the curves.
pub(super) fn rounds(runs: &[Run]) -> Vec<Round> {
    runs.iter().flat_map(rounds_of).collect()
}

fn rounds_of(run: &Run) -> Vec<Round> {
    let spent = measures::payload_by_round(run.report).into_iter().zip(measures::flops_by_round(run.report));
    let rounds = run.report.rounds.iter().zip(spent);
    rounds
        .map(|(round, (payload_so_far, flops_so_far))| Round {
            run: run.label.clone(),
            number: round.round,
            accuracy: units::percent(round.accuracy),
            macro_f1: units::decimal(round.macro_f1),
            loss: units::decimal(round.loss),
            train_loss: units::decimal(round.train_loss),
            payload: units::bytes(round.bytes.iter().map(|count| count.payload as f64).sum()),
            payload_so_far: units::bytes(payload_so_far),
            flops_so_far: units::flops(flops_so_far),
            seconds: units::duration(round.seconds),
            participants: round.participants.len(),
            absent: round.absent.len(),
        })
        .collect()
}

/// One thing that decides the result, with each value it had and the runs that had it.
#[derive(Debug, Serialize)]
pub(super) struct Fact {
    name: &'static str,
    values: Vec<FactValue>,
}

#[derive(Debug, Serialize)]
struct FactValue {
    text: String,
    /// Empty where all runs share the value.
    runs: Vec<String>,
}

/// Hashes and environment; a value that all runs share is stated once.
pub(super) fn facts(runs: &[Run]) -> Vec<Fact> {
    let facts: [(&'static str, Read); 11] = [
        ("fedtune", |run| run.environment.fedtune.clone()),
        ("libtorch", |run| run.environment.libtorch.clone()),
        ("instruction set", |run| run.environment.isa.clone()),
        ("threads of a client", |run| run.environment.threads.to_string()),
        ("device", |run| run.environment.device.clone()),
        ("base model", |run| run.hashes.base_model.clone()),
        ("tokenizer", |run| run.hashes.tokenizer.clone()),
        ("data", |run| run.hashes.data.clone()),
        ("partition", |run| run.hashes.partition.clone()),
        ("spec", |run| run.hashes.spec.clone()),
        ("run", |run| run.run_hash.clone()),
    ];
    facts.into_iter().map(|(name, read)| Fact { name, values: values(runs, read) }).collect()
}

/// Reads a fact off a report.
type Read = fn(&RunReport) -> String;

fn values(runs: &[Run], read: Read) -> Vec<FactValue> {
    let mut values: Vec<FactValue> = Vec::new();
    for run in runs {
        let text = read(run.report);
        let text = if text.is_empty() { units::NONE.into() } else { text };
        match values.iter_mut().find(|value| value.text == text) {
            Some(value) => value.runs.push(run.label.clone()),
            None => values.push(FactValue { text, runs: vec![run.label.clone()] }),
        }
    }
    if let [only] = values.as_mut_slice() {
        only.runs.clear();
    }
    values
}
