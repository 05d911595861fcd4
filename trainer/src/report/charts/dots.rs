//! The three measures side by side: a row a run, a panel a measure, a dot where its figure is.
//! Must not show a figure by length: bytes differ by factors of thousands, and a bar on a logarithmic axis lies.

use super::{Drawing, Mark, Style, labels, scale::Scale};

const WIDTH: f64 = 1060.0;
const NAMES: f64 = 168.0;
const GAP: f64 = 26.0;
const HEAD: f64 = 54.0;
const ROW: f64 = 27.0;
const FOOT: f64 = 26.0;

/// One measure: a figure a run, in the order of the rows, `None` where a run has none.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) show: fn(f64) -> String,
    pub(crate) tick: fn(f64) -> String,
    pub(crate) logarithmic: bool,
    pub(crate) figures: Vec<Option<f64>>,
    pub(crate) best: Vec<bool>,
    /// A level to compare with, and its name.
    pub(crate) reference: Option<(f64, String)>,
}

/// Draws the panels beside each other.
pub(crate) fn dots(
    id: &str,
    title: String,
    description: String,
    rows: &[(String, Style)],
    panels: &[Panel],
) -> Drawing {
    let height = HEAD + ROW * rows.len() as f64 + FOOT;
    let mut marks = Vec::new();
    for (row, (name, style)) in rows.iter().enumerate() {
        marks.push(Mark::point((7.0, middle(row)), style, None));
        let class = format!("name {}", style.class);
        marks.push(Mark::text((19.0, middle(row) + 4.0), &class, labels::shorten(name, 23)));
    }
    let width = (WIDTH - NAMES) / panels.len().max(1) as f64;
    for (at, panel) in panels.iter().enumerate() {
        let left = NAMES + width * at as f64 + GAP / 2.0;
        marks.extend(draw(panel, rows, (left, left + width - GAP)));
    }
    Drawing { id: id.into(), title, description, width: WIDTH, height, marks }
}

fn middle(row: usize) -> f64 {
    HEAD + ROW * (row as f64 + 0.5)
}

fn draw(panel: &Panel, rows: &[(String, Style)], (left, right): (f64, f64)) -> Vec<Mark> {
    let known = panel.figures.iter().flatten().copied();
    let figures = known.chain(panel.reference.iter().map(|(level, _)| *level));
    let span = (left + 10.0, right - 22.0);
    let scale = if panel.logarithmic { Scale::logarithmic(figures, span) } else { Scale::linear(figures, span) };
    let bottom = HEAD + ROW * rows.len() as f64;
    let mut marks = vec![Mark::text((left, 14.0), "panel", panel.title), Mark::text((left, 30.0), "hint", panel.hint)];
    for (_, place) in scale.ticks() {
        marks.push(Mark::line((place, HEAD), (place, bottom), "grid"));
    }
    let ticks = scale.ticks().map(|(tick, place)| (place, (panel.tick)(tick)));
    for (place, text) in labels::apart(ticks) {
        marks.push(Mark::text((place, bottom + 17.0), "tick middle", text));
    }
    if let Some(place) = scale.broken_at() {
        marks.push(Mark::line((place, HEAD), (place, bottom), "break"));
    }
    if let Some((place, name)) = panel.reference.as_ref().and_then(|(level, name)| Some((scale.place(*level)?, name))) {
        marks.push(Mark::line((place, HEAD - 4.0), (place, bottom), "reference"));
        marks.push(Mark::text((place, HEAD - 7.0), "tick middle", name));
    }
    for row in 0..rows.len() {
        marks.extend(draw_row(panel, &scale, rows, row, (left, right)));
    }
    marks
}

fn draw_row(
    panel: &Panel,
    scale: &Scale,
    rows: &[(String, Style)],
    row: usize,
    (left, right): (f64, f64),
) -> Vec<Mark> {
    let y = middle(row);
    let (name, style) = &rows[row];
    let mut marks = vec![Mark::line((left, y), (right, y), "row")];
    let Some(figure) = panel.figures[row] else {
        marks.push(Mark::text((left + 6.0, y + 4.0), "tick", "failed"));
        return marks;
    };
    let text = (panel.show)(figure);
    let weight = if panel.best[row] { "figure best" } else { "figure" };
    // A figure off the scale is stated, without a dot.
    let Some(x) = scale.place(figure) else {
        marks.push(Mark::text((left + 6.0, y + 4.0), weight, text));
        return marks;
    };
    let past_middle = x > left + (right - left) * 0.62;
    let (at, anchor) = if past_middle { (x - 10.0, " end") } else { (x + 10.0, "") };
    marks.push(Mark::point((x, y), style, Some(format!("{name}: {text}"))));
    marks.push(Mark::text((at, y + 4.0), &format!("{weight}{anchor}"), text));
    marks
}
