//! Which charts the page has, and what stands in them.
//! Must not know coordinates: `charts` places what it is given here.

use fedtune_crds::report::{Direction, PayloadKind, RunReport};
use serde::Serialize;

use super::Run;
use crate::report::{
    charts::{Axis, AxisScale, Bar, Curves, Drawing, Panel, Placement, Segment, Series, bars, curves, dots},
    measures::{self, Better},
    units,
};

/// Client FLOPs are shown by factors where runs differ by more than this, else by differences.
const WIDE: f64 = 30.0;

/// The three measures side by side.
pub(super) fn overview(runs: &[Run]) -> Drawing {
    let rows: Vec<_> = runs.iter().map(|run| (run.label.clone(), run.style.clone())).collect();
    let panels = [
        Panel {
            title: "Accuracy",
            hint: "on held-out examples · more is better",
            show: units::percent,
            tick: whole_percent,
            logarithmic: false,
            reference: majority(runs).map(|(level, _)| (level, "majority".into())),
            ..panel(runs, Better::Larger, |run| Some(measures::scores(run)?.accuracy))
        },
        Panel {
            title: "Communication",
            hint: "payload up and down · less is better",
            logarithmic: true,
            ..panel(runs, Better::Smaller, |run| measures::scores(run).map(|_| measures::payload(run)))
        },
        Panel {
            title: "Client compute",
            hint: "FLOPs of all clients · less is better",
            show: units::flops,
            tick: flops_tick,
            logarithmic: wide(runs),
            ..panel(runs, Better::Smaller, |run| measures::scores(run).map(|_| run.totals.client_flops))
        },
    ];
    let description = "One row a run: accuracy, payload bytes and client FLOPs. The table below has the same figures.";
    dots("overview", "The three measures side by side".into(), description.into(), &rows, &panels)
}

/// A panel in bytes, which the others override.
fn panel(runs: &[Run], better: Better, figure: fn(&RunReport) -> Option<f64>) -> Panel {
    let reports: Vec<&RunReport> = runs.iter().map(|run| run.report).collect();
    Panel {
        title: "",
        hint: "",
        show: units::bytes,
        tick: bytes_tick,
        logarithmic: false,
        figures: reports.iter().map(|report| figure(report)).collect(),
        best: measures::best(&reports, better, figure),
        reference: None,
    }
}

/// Accuracy and loss over the rounds.
pub(super) fn by_round(runs: &[Run]) -> Vec<Drawing> {
    let rounds = || Axis { caption: "round", show: whole, scale: AxisScale::Rounds };
    let numbers = |report: &RunReport| report.rounds.iter().map(|round| f64::from(round.round)).collect();
    let accuracy = all_series(runs, numbers, |report, at| report.rounds[at].accuracy, units::percent);
    let loss = all_series(runs, numbers, |report, at| report.rounds[at].loss, units::decimal);
    if accuracy.iter().all(|series| series.points.is_empty()) {
        return Vec::new();
    }
    vec![
        curves(&Curves {
            id: "accuracy-by-round",
            title: "Accuracy by round".into(),
            description: ending(runs, "accuracy", |report| {
                report.rounds.last().map(|last| units::percent(last.accuracy))
            }),
            x: rounds(),
            y: Axis { caption: "accuracy", show: whole_percent, scale: AxisScale::Linear },
            series: &accuracy,
            reference: majority(runs),
            names: Placement::Margin,
        }),
        curves(&Curves {
            id: "loss-by-round",
            title: "Loss by round".into(),
            description: ending(runs, "loss", |report| report.rounds.last().map(|last| units::decimal(last.loss))),
            x: rounds(),
            y: Axis { caption: "loss", show: short, scale: AxisScale::Linear },
            series: &loss,
            reference: None,
            names: Placement::Margin,
        }),
    ]
}

/// Accuracy over what it cost: payload bytes, client FLOPs.
pub(super) fn by_cost(runs: &[Run]) -> Vec<Drawing> {
    let chart = |id, title: &str, x: Axis, show: fn(f64) -> String, spent: fn(&RunReport) -> Vec<f64>| {
        let series = all_series(runs, spent, |report, at| report.rounds[at].accuracy, units::percent);
        let measured = series.iter().any(|series| !series.points.is_empty());
        measured.then(|| {
            curves(&Curves {
                id,
                title: title.into(),
                description: ending(runs, "cost", |report| spent(report).last().map(|spent| show(*spent))),
                x,
                y: Axis { caption: "accuracy", show: whole_percent, scale: AxisScale::Linear },
                series: &series,
                reference: majority(runs),
                names: Placement::Point,
            })
        })
    };
    let bytes = Axis { caption: "payload so far, both directions", show: bytes_tick, scale: AxisScale::Logarithmic };
    let scale = if wide(runs) { AxisScale::Logarithmic } else { AxisScale::Linear };
    let flops = Axis { caption: "client FLOPs so far, all clients", show: flops_tick, scale };
    let charts = [
        chart("accuracy-by-bytes", "Accuracy against bytes", bytes, units::bytes, measures::payload_by_round),
        chart("accuracy-by-flops", "Accuracy against client compute", flops, units::flops, measures::flops_by_round),
    ];
    charts.into_iter().flatten().collect()
}

/// What the bytes are, as a chart and in figures.
#[derive(Debug, Serialize)]
pub(super) struct Kinds {
    drawing: Drawing,
    names: Vec<&'static str>,
    rows: Vec<KindRow>,
}

#[derive(Debug, Serialize)]
struct KindRow {
    label: String,
    direction: &'static str,
    cells: Vec<String>,
    total: String,
}

/// The bytes by kind; `None` where no run sent any.
pub(super) fn kinds(runs: &[Run]) -> Option<Kinds> {
    let sums: Vec<_> = runs.iter().map(|run| measures::payload_by_kind(run.report)).collect();
    let mut kinds: Vec<PayloadKind> = sums.iter().flat_map(|sums| sums.keys().map(|(_, kind)| *kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.is_empty() {
        return None;
    }
    let mut stacks = Vec::new();
    let mut rows = Vec::new();
    for (run, sums) in runs.iter().zip(&sums).filter(|(_, sums)| !sums.is_empty()) {
        for (direction, arrow) in [(Direction::Up, "up"), (Direction::Down, "down")] {
            let of = |kind: PayloadKind| sums.get(&(direction, kind)).copied().unwrap_or(0) as f64;
            let total = units::bytes(kinds.iter().map(|kind| of(*kind)).sum());
            stacks.push(Bar {
                label: format!("{} {arrow}", run.label),
                total: total.clone(),
                first: direction == Direction::Up,
                segments: kinds.iter().filter(|kind| of(**kind) > 0.0).map(|kind| segment(*kind, of(*kind))).collect(),
            });
            let cells = kinds.iter().map(|kind| units::bytes(of(*kind))).collect();
            rows.push(KindRow { label: run.label.clone(), direction: arrow, cells, total });
        }
    }
    let description = "Stacked bars: payload of each run by direction and kind. The table below has the same figures.";
    let drawing = bars("bytes-by-kind", "Payload by kind".into(), description.into(), &stacks, bytes_tick);
    Some(Kinds { drawing, names: kinds.into_iter().map(PayloadKind::as_str).collect(), rows })
}

fn segment(kind: PayloadKind, value: f64) -> Segment {
    Segment { value, class: kind.as_str().into(), title: format!("{}: {}", kind.as_str(), units::bytes(value)) }
}

/// A line for each run: its rounds over `xs`, with a text for each point.
fn all_series(
    runs: &[Run],
    xs: impl Fn(&RunReport) -> Vec<f64>,
    y: fn(&RunReport, usize) -> f64,
    show: fn(f64) -> String,
) -> Vec<Series> {
    let points = |run: &Run| {
        let points = xs(run.report).into_iter().enumerate().map(|(at, x)| {
            let y = y(run.report, at);
            (x, y, format!("{}, round {}: {}", run.label, run.report.rounds[at].round, show(y)))
        });
        points.collect()
    };
    runs.iter().map(|run| Series { label: run.label.clone(), style: run.style.clone(), points: points(run) }).collect()
}

/// What the chart says, for those who do not see it: where each line ends.
fn ending(runs: &[Run], what: &str, figure: impl Fn(&RunReport) -> Option<String>) -> String {
    let ends = runs.iter().filter_map(|run| Some(format!("{} {}", run.label, figure(run.report)?)));
    format!("Final {what}: {}.", ends.collect::<Vec<_>>().join(", "))
}

/// What guessing the most frequent label reaches, where that is the same for all runs.
pub(super) fn majority(runs: &[Run]) -> Option<(f64, String)> {
    let mut known = runs.iter().map(|run| run.report.final_figures.majority).filter(|majority| *majority > 0.0);
    let level = known.next()?;
    known.all(|other| (other - level).abs() < 1e-9).then(|| (level, format!("majority {}", units::percent(level))))
}

fn wide(runs: &[Run]) -> bool {
    let spent = || runs.iter().map(|run| run.report.totals.client_flops).filter(|flops| *flops > 0.0);
    let (low, high) = (spent().fold(f64::INFINITY, f64::min), spent().fold(0.0, f64::max));
    high > low * WIDE
}

fn whole_percent(share: f64) -> String {
    let percent = share * 100.0;
    // Ticks may lie closer than a percent.
    if (percent - percent.round()).abs() < 1e-6 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

fn bytes_tick(bytes: f64) -> String {
    units::tick(&units::bytes(bytes))
}

fn flops_tick(flops: f64) -> String {
    units::tick(&units::flops(flops))
}

fn whole(figure: f64) -> String {
    format!("{figure:.0}")
}

fn short(figure: f64) -> String {
    if figure.abs() >= 1e4 { format!("{figure:.0e}") } else { format!("{}", (figure * 1000.0).round() / 1000.0) }
}
