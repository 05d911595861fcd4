//! Line charts: one line a run, over rounds or over what the rounds cost.
//! Must not need the colour to be read: each line has its own points, and its name at its end.

use std::fmt::Write;

use super::{
    Drawing, Mark, Style,
    labels::{self, Area},
    scale::Scale,
    tenth,
};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = HEIGHT - 46.0;
/// Where the plot ends if names stand in the margin, and if they stand in the plot.
const RIGHT_BESIDE_NAMES: f64 = WIDTH - 128.0;
const RIGHT: f64 = WIDTH - 34.0;
/// With more rounds than this only the last point of a line is drawn.
const MOST_POINTS: usize = 25;

/// One run: its points in order, each with the text that a pointer on it shows.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) style: Style,
    pub(crate) points: Vec<(f64, f64, String)>,
}

/// One axis.
pub(crate) struct Axis {
    pub(crate) caption: &'static str,
    pub(crate) show: fn(f64) -> String,
    pub(crate) scale: AxisScale,
}

/// How figures are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AxisScale {
    Linear,
    Rounds,
    Logarithmic,
}

/// Where the names of the runs stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// In the right margin: lines end at about the same place.
    Margin,
    /// Beside the last point: lines end anywhere.
    Point,
}

/// All that a line chart shows.
pub(crate) struct Curves<'a> {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: &'a [Series],
    /// A level to compare with, and its name.
    pub(crate) reference: Option<(f64, String)>,
    pub(crate) names: Placement,
}

/// Draws the lines.
pub(crate) fn curves(chart: &Curves) -> Drawing {
    let right = match chart.names {
        Placement::Margin => RIGHT_BESIDE_NAMES,
        Placement::Point => RIGHT,
    };
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let x = scale(chart.x.scale, points().map(|point| point.0), (LEFT, right));
    let level = chart.reference.iter().map(|(level, _)| *level);
    let y = scale(chart.y.scale, points().map(|point| point.1).chain(level), (BOTTOM, TOP));
    let mut marks = frame(chart, &x, &y, right);
    marks.extend(reference(chart, &y, right));
    let placed: Vec<Placed> = chart.series.iter().map(|series| Placed::new(series, &x, &y)).collect();
    for series in &placed {
        series.draw_line(&mut marks);
    }
    for series in &placed {
        series.draw_points(&mut marks);
    }
    match chart.names {
        Placement::Margin => names_in_margin(&placed, right, &mut marks),
        Placement::Point => names_at_points(&placed, right, &mut marks),
    }
    let (title, description) = (chart.title.clone(), chart.description.clone());
    Drawing { id: chart.id.into(), title, description, width: WIDTH, height: HEIGHT, marks }
}

fn scale(kind: AxisScale, figures: impl Iterator<Item = f64>, span: (f64, f64)) -> Scale {
    match kind {
        AxisScale::Linear => Scale::linear(figures, span),
        AxisScale::Rounds => Scale::rounds(figures, span),
        AxisScale::Logarithmic => Scale::logarithmic(figures, span),
    }
}

/// Grid, axis labels and captions.
fn frame(chart: &Curves, x: &Scale, y: &Scale, right: f64) -> Vec<Mark> {
    let mut marks = Vec::new();
    for (tick, height) in y.ticks() {
        marks.push(Mark::line((LEFT, height), (right, height), "grid"));
        marks.push(Mark::text((LEFT - 8.0, height + 4.0), "tick end", (chart.y.show)(tick)));
    }
    for (_, place) in x.ticks() {
        marks.push(Mark::line((place, BOTTOM), (place, BOTTOM + 4.0), "axis"));
    }
    for (place, text) in labels::apart(x.ticks().map(|(tick, place)| (place, (chart.x.show)(tick)))) {
        marks.push(Mark::text((place, BOTTOM + 18.0), "tick middle", text));
    }
    marks.push(Mark::line((LEFT, BOTTOM), (right, BOTTOM), "axis"));
    if let Some(place) = x.broken_at() {
        marks.push(Mark::line((place, TOP), (place, BOTTOM + 4.0), "break"));
    }
    marks.push(Mark::text((f64::midpoint(LEFT, right), HEIGHT - 8.0), "caption middle", chart.x.caption));
    marks
}

fn reference(chart: &Curves, y: &Scale, right: f64) -> Vec<Mark> {
    let Some((height, name)) = chart.reference.as_ref().and_then(|(level, name)| Some((y.place(*level)?, name))) else {
        return Vec::new();
    };
    vec![
        Mark::line((LEFT, height), (right, height), "reference"),
        Mark::text((right - 4.0, height + 14.0), "tick end", name),
    ]
}

/// A series with its points in pixels; points without a place are left out.
struct Placed<'a> {
    series: &'a Series,
    points: Vec<((f64, f64), &'a str)>,
}

impl<'a> Placed<'a> {
    fn new(series: &'a Series, x: &Scale, y: &Scale) -> Self {
        let place =
            |(at, figure, title): &'a (f64, f64, String)| Some(((x.place(*at)?, y.place(*figure)?), title.as_str()));
        Self { series, points: series.points.iter().filter_map(place).collect() }
    }

    fn end(&self) -> Option<(f64, f64)> {
        self.points.last().map(|(place, _)| *place)
    }

    fn draw_line(&self, marks: &mut Vec<Mark>) {
        let mut path = String::new();
        for (at, ((x, y), _)) in self.points.iter().enumerate() {
            let pen = if at == 0 { 'M' } else { 'L' };
            write!(path, "{pen}{} {}", tenth(*x), tenth(*y)).expect("a String takes all that is written to it");
        }
        if self.points.len() > 1 {
            marks.push(Mark::Path { d: path, class: format!("run {}", self.series.style.class), title: None });
        }
    }

    fn draw_points(&self, marks: &mut Vec<Mark>) {
        let skipped = if self.points.len() > MOST_POINTS { self.points.len() - 1 } else { 0 };
        let shown = self.points.iter().skip(skipped);
        marks.extend(shown.map(|(place, title)| Mark::point(*place, &self.series.style, Some((*title).to_owned()))));
    }
}

fn names_in_margin(placed: &[Placed], right: f64, marks: &mut Vec<Mark>) {
    let ends: Vec<(&Placed, (f64, f64))> = placed.iter().filter_map(|series| Some((series, series.end()?))).collect();
    let heights: Vec<f64> = ends.iter().map(|(_, end)| end.1).collect();
    for ((series, end), height) in ends.iter().zip(labels::spread(&heights, (TOP, BOTTOM))) {
        let class = &series.series.style.class;
        marks.push(Mark::line((end.0 + 6.0, end.1), (right + 12.0, height), &format!("leader {class}")));
        let name = labels::shorten(&series.series.label, 18);
        marks.push(Mark::text((right + 15.0, height + 4.0), &format!("name {class}"), name));
    }
}

fn names_at_points(placed: &[Placed], right: f64, marks: &mut Vec<Mark>) {
    let names: Vec<String> = placed.iter().map(|series| labels::shorten(&series.series.label, 18)).collect();
    let ends: Vec<(usize, (f64, f64))> =
        placed.iter().enumerate().filter_map(|(at, series)| Some((at, series.end()?))).collect();
    let wanted: Vec<((f64, f64), &str)> = ends.iter().map(|(at, end)| (*end, names[*at].as_str())).collect();
    let busy: Vec<(f64, f64)> =
        placed.iter().flat_map(|series| series.points.iter().map(|(place, _)| *place)).collect();
    let plot = Area { left: LEFT, top: 0.0, right: right + 10.0, bottom: BOTTOM };
    for ((at, _), place) in ends.iter().zip(labels::beside(&wanted, plot, &busy)) {
        let class = &placed[*at].series.style.class;
        marks.extend(place.map(|place| Mark::text(place, &format!("name {class}"), names[*at].as_str())));
    }
}
