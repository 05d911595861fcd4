//! The comparison as an aligned table for the terminal.
//! Must not read the terminal itself: width and colour are arguments, so that a pipe gets plain text.

use fedtune_crds::report::{RunPhase, RunReport};

use super::{
    charts,
    measures::{self, Better},
    units, words,
};

const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const RESET: &str = "\u{1b}[0m";
const GAP: &str = "  ";
/// Names are cut to this before a column of figures is dropped, and to that when none can be dropped any more.
const FAIR_NAME: usize = 20;
const SHORTEST_NAME: usize = 12;
/// The column of the runs' names.
const NAMES: usize = 1;

/// One column: a heading, a cell for each run, and which cells are best.
struct Column {
    heading: &'static str,
    cells: Vec<String>,
    best: Vec<bool>,
    /// Text to the left, figures to the right.
    left: bool,
    /// Columns with the highest number go first where the terminal is narrow; zero never goes.
    dispensable: u8,
}

impl Column {
    fn width(&self) -> usize {
        self.cells.iter().map(|cell| length(cell)).chain([length(self.heading)]).max().unwrap_or(0)
    }
}

/// The runs side by side: a row a run, frameworks first, then baselines, then the sentences of failed runs.
/// Best figures among the frameworks are bold where `colour` is set. `width` is in characters; `None` does not limit.
pub fn terminal_table(reports: &[RunReport], width: Option<usize>, colour: bool) -> String {
    let runs = measures::in_reading_order(reports);
    let labels: Vec<String> = measures::labels(&runs).iter().map(|label| plain(label)).collect();
    let mut columns = columns(&runs, &labels);
    fit(&mut columns, width.unwrap_or(usize::MAX));
    let mut text = header(&columns, colour);
    for row in 0..runs.len() {
        text += &line(&columns, row, colour);
    }
    for (label, sentence) in words::failures(&runs, &labels) {
        text.extend(["\n", label, " ", &plain(&sentence), "\n"]);
    }
    text
}

fn columns(runs: &[&RunReport], labels: &[String]) -> Vec<Column> {
    let words =
        |heading, cells, dispensable| Column { heading, best: vec![false; runs.len()], cells, left: true, dispensable };
    let figures =
        |heading, dispensable, better, show: fn(f64) -> String, figure: fn(&RunReport) -> Option<f64>| Column {
            heading,
            cells: runs.iter().map(|run| figure(run).map_or(units::NONE.into(), show)).collect(),
            best: measures::best(runs, better, figure),
            left: false,
            dispensable,
        };
    let mut columns = vec![
        words("Framework", runs.iter().map(|run| framework(run)).collect(), 0),
        words("Run", labels.to_vec(), 0),
        figures("Accuracy", 0, Better::Larger, units::percent, |run| Some(measures::scores(run)?.accuracy)),
        figures("Macro-F1", 5, Better::Larger, units::decimal, |run| measures::scores(run)?.macro_f1),
        figures("Loss", 2, Better::Smaller, units::decimal, |run| Some(measures::scores(run)?.loss)),
        figures("Up", 0, Better::Smaller, units::bytes, |run| Some(run.totals.payload_bytes.up as f64)),
        figures("Down", 0, Better::Smaller, units::bytes, |run| Some(run.totals.payload_bytes.down as f64)),
        Column {
            best: vec![false; runs.len()],
            ..figures("Wire/payload", 6, Better::Smaller, units::decimal, measures::wire_per_payload)
        },
        figures("Client FLOPs", 0, Better::Smaller, units::flops, |run| Some(run.totals.client_flops)),
        figures("Client time", 4, Better::Smaller, units::duration, |run| Some(run.totals.client_seconds)),
        figures("Run time", 3, Better::Smaller, units::duration, |run| Some(run.totals.seconds)),
    ];
    if runs.iter().any(|run| measures::scores(run).is_some_and(|scores| scores.perplexity.is_some())) {
        let perplexity = |run: &RunReport| measures::scores(run)?.perplexity;
        columns.insert(4, figures("Perplexity", 3, Better::Smaller, units::decimal, perplexity));
    }
    columns
}

fn framework(run: &RunReport) -> String {
    match run.phase {
        RunPhase::Succeeded => run.framework.to_string(),
        RunPhase::Failed => format!("{} ✗", run.framework),
    }
}

/// Makes rows at most `width` long as far as can be: cuts run names a little, drops columns, then cuts names more.
fn fit(columns: &mut Vec<Column>, width: usize) {
    shorten_names(columns, width, FAIR_NAME);
    while excess(columns, width) > 0 {
        let most = (0..columns.len()).max_by_key(|at| columns[*at].dispensable);
        let Some(at) = most.filter(|at| columns[*at].dispensable > 0) else { break };
        columns.remove(at);
    }
    shorten_names(columns, width, SHORTEST_NAME);
}

/// Cuts names by as much as rows are too long, down to `shortest`.
fn shorten_names(columns: &mut [Column], width: usize, shortest: usize) {
    let excess = excess(columns, width);
    let names = &mut columns[NAMES];
    let letters = names.width().saturating_sub(excess).max(shortest);
    for name in &mut names.cells {
        *name = charts::shorten(name, letters);
    }
}

/// By how much rows are longer than `width`.
fn excess(columns: &[Column], width: usize) -> usize {
    row_width(columns).saturating_sub(width)
}

fn row_width(columns: &[Column]) -> usize {
    columns.iter().map(Column::width).sum::<usize>() + GAP.len() * columns.len().saturating_sub(1)
}

fn header(columns: &[Column], colour: bool) -> String {
    let headings: Vec<String> = columns.iter().map(|column| pad(column.heading, column.width(), column.left)).collect();
    let rule = "─".repeat(row_width(columns));
    let (dim, reset) = if colour { (DIM, RESET) } else { ("", "") };
    format!("{}\n{dim}{rule}{reset}\n", headings.join(GAP).trim_end())
}

fn line(columns: &[Column], row: usize, colour: bool) -> String {
    let cells: Vec<String> = columns
        .iter()
        .map(|column| {
            let cell = pad(&column.cells[row], column.width(), column.left);
            if colour && column.best[row] { format!("{BOLD}{cell}{RESET}") } else { cell }
        })
        .collect();
    format!("{}\n", cells.join(GAP).trim_end())
}

fn pad(cell: &str, width: usize, left: bool) -> String {
    let space = " ".repeat(width.saturating_sub(length(cell)));
    if left { format!("{cell}{space}") } else { format!("{space}{cell}") }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Without control characters: results may come from anyone, and an escape sequence would steer the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests;
