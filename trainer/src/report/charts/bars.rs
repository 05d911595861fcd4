//! Stacked bars: what the bytes of a run are.
//! Must not scale by logarithms: the parts of a stack add up only on a linear axis.

use super::{Drawing, Mark, labels, scale::Scale};

const WIDTH: f64 = 1060.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = WIDTH - 90.0;
const TOP: f64 = 8.0;
const ROW: f64 = 24.0;
const THICKNESS: f64 = 15.0;
const FOOT: f64 = 30.0;
/// A part that would be thinner than this is drawn so thick, to be seen at all.
const THINNEST: f64 = 1.5;

/// One stack.
pub(crate) struct Bar {
    pub(crate) label: String,
    /// Written at the end.
    pub(crate) total: String,
    pub(crate) segments: Vec<Segment>,
    /// Whether this bar begins a group, and stands a little apart.
    pub(crate) first: bool,
}

/// One part of a stack.
pub(crate) struct Segment {
    pub(crate) value: f64,
    pub(crate) class: String,
    pub(crate) title: String,
}

/// Draws the stacks below each other on one axis from zero.
pub(crate) fn bars(id: &str, title: String, description: String, bars: &[Bar], show: fn(f64) -> String) -> Drawing {
    let longest = bars.iter().map(|bar| bar.segments.iter().map(|segment| segment.value).sum());
    let scale = Scale::linear(longest.chain([0.0]), (LEFT, RIGHT));
    let groups = bars.iter().filter(|bar| bar.first).count() as f64;
    let bottom = TOP + ROW * bars.len() as f64 + 6.0 * groups;
    let mut marks = Vec::new();
    for (tick, place) in scale.ticks() {
        marks.push(Mark::line((place, TOP), (place, bottom), "grid"));
        marks.push(Mark::text((place, bottom + 17.0), "tick middle", show(tick)));
    }
    let mut y = TOP;
    for bar in bars {
        y += if bar.first { 6.0 } else { 0.0 };
        draw(bar, y + ROW / 2.0, &scale, &mut marks);
        y += ROW;
    }
    Drawing { id: id.into(), title, description, width: WIDTH, height: bottom + FOOT, marks }
}

fn draw(bar: &Bar, y: f64, scale: &Scale, marks: &mut Vec<Mark>) {
    marks.push(Mark::text((LEFT - 10.0, y + 4.0), "label end", labels::shorten(&bar.label, 32)));
    let (mut sum, mut x) = (0.0, LEFT);
    for segment in &bar.segments {
        sum += segment.value;
        let end = scale.place(sum).unwrap_or(RIGHT).max(x + THINNEST);
        marks.push(Mark::Rect {
            x: super::tenth(x),
            y: super::tenth(y - THICKNESS / 2.0),
            width: super::tenth(end - x),
            height: THICKNESS,
            class: format!("segment {}", segment.class),
            title: Some(segment.title.clone()),
        });
        x = end;
    }
    marks.push(Mark::text((x + 8.0, y + 4.0), "figure", bar.total.as_str()));
}
