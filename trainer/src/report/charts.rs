//! Charts as lists of marks with coordinates, which the page's template turns into inline SVG.
//! Must not write markup: texts stay plain here, and the template escapes them.

mod bars;
mod curves;
mod dots;
mod labels;
mod scale;

use serde::Serialize;

pub(crate) use bars::{Bar, Segment, bars};
pub(crate) use curves::{Axis, AxisScale, Curves, Placement, Series, curves};
pub(crate) use dots::{Panel, dots};
pub(crate) use labels::shorten;

/// A chart that is ready to be drawn. Lengths are in user units, one CSS pixel at full size.
#[derive(Debug, Serialize)]
pub(crate) struct Drawing {
    /// Unique on the page: title and description are tied to the picture by it.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) marks: Vec<Mark>,
}

/// Something to draw; `class` says how, in the page's style sheet.
#[derive(Debug, Serialize)]
#[serde(tag = "mark", rename_all = "camelCase")]
pub(crate) enum Mark {
    Line {
        x1: f64,
        y1: f64,
        x2: f64,
        y2: f64,
        class: String,
    },
    Text {
        x: f64,
        y: f64,
        class: String,
        text: String,
    },
    /// `title` is what a pointer that rests on it shows.
    Path {
        d: String,
        class: String,
        title: Option<String>,
    },
    Rect {
        x: f64,
        y: f64,
        width: f64,
        height: f64,
        class: String,
        title: Option<String>,
    },
}

impl Mark {
    fn line(from: (f64, f64), to: (f64, f64), class: &str) -> Self {
        let ((x1, y1), (x2, y2)) = (from, to);
        Self::Line { x1: tenth(x1), y1: tenth(y1), x2: tenth(x2), y2: tenth(y2), class: class.into() }
    }

    fn text(at: (f64, f64), class: &str, text: impl Into<String>) -> Self {
        Self::Text { x: tenth(at.0), y: tenth(at.1), class: class.into(), text: text.into() }
    }

    fn point(at: (f64, f64), style: &Style, title: Option<String>) -> Self {
        Self::Path { d: style.shape.path(at), class: format!("point {}", style.class), title }
    }
}

/// How a run looks wherever it is drawn: colour by class, shape beside it for eyes that do not see the colour.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Style {
    pub(crate) class: String,
    pub(crate) shape: Shape,
}

/// The shape of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Wedge,
    Cross,
}

impl Shape {
    pub(crate) const ALL: [Self; 6] =
        [Self::Circle, Self::Square, Self::Triangle, Self::Diamond, Self::Wedge, Self::Cross];

    /// The outline around `at`, of about equal area in all shapes.
    fn path(self, (x, y): (f64, f64)) -> String {
        let (x, y) = (tenth(x), tenth(y));
        match self {
            Self::Circle => format!("M{x} {y}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
            Self::Square => format!("M{x} {y}m-3.5-3.5h7v7h-7z"),
            Self::Triangle => format!("M{x} {y}m0-5l4.6 8h-9.2z"),
            Self::Diamond => format!("M{x} {y}m0-5l5 5l-5 5l-5-5z"),
            Self::Wedge => format!("M{x} {y}m0 5l4.6-8h-9.2z"),
            Self::Cross => format!("M{x} {y}m-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
        }
    }
}

/// The sample of a run's line and point that stands beside its name.
pub(crate) fn swatch(style: &Style) -> Drawing {
    let marks = vec![
        Mark::line((1.0, 7.0), (27.0, 7.0), &format!("run {}", style.class)),
        Mark::point((14.0, 7.0), style, None),
    ];
    Drawing { id: String::new(), title: String::new(), description: String::new(), width: 28.0, height: 14.0, marks }
}

/// Coordinates to a tenth of a pixel: finer cannot be seen, and would double the size of the page.
fn tenth(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
