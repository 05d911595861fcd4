//! Dashboards as a page that can be looked at without a Grafana: each panel's answers from a real Prometheus, drawn plainly.
//! Must not choose what is asked: that is the dashboard's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{
    dashboards::Panel,
    prometheus::{Prometheus, Sample, Series},
};

/// Width and height of a drawing, and what is left free around it for its scale, in pixels.
const SIZE: (f64, f64, f64) = (440.0, 180.0, 24.0);
const COLOURS: [&str; 8] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7ea4", "#bf3989", "#57606a"];

/// The panels as they stand at `span`'s end; those over time from its begin, in seconds since 1970.
pub fn page(title: &str, panels: &[Panel], prometheus: &Prometheus, span: (f64, f64)) -> String {
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>{title}</title><style>\
         body{{font:13px sans-serif;margin:16px}}main{{display:grid;grid-template-columns:repeat(3,460px);gap:12px}}\
         section{{border:1px solid #ccc;padding:8px}}h2{{font-size:14px;margin:0}}p{{color:#666;margin:2px 0 6px}}\
         table{{border-collapse:collapse;font-size:11px}}td,th{{padding:2px 6px;text-align:right;border-top:1px solid #ddd}}</style>\
         <h1>{title}</h1><main>"
    );
    for panel in panels {
        let Panel { title, description, .. } = panel;
        let drawn = drawn(panel, prometheus, span).unwrap_or_else(|| format!("<p><i>{}</i></p>", panel.no_data));
        write!(page, "<section><h2>{title}</h2><p>{description}</p>{drawn}</section>")
            .expect("a text can be written to");
    }
    page + "</main>"
}

/// What the panel shows; none where it has no data.
fn drawn(panel: &Panel, prometheus: &Prometheus, span: (f64, f64)) -> Option<String> {
    let now = || panel.queries.iter().map(|(_, query)| prometheus.query(query)).collect::<Vec<_>>();
    match panel.kind.as_str() {
        "timeseries" => lines(panel, prometheus, span),
        "stat" | "bargauge" => bars(panel, &now()),
        "table" => table(panel, &now()),
        "xychart" => scatter(panel, &now()),
        other => panic!("{}: nobody has thought of a {other} here", panel.title),
    }
}

fn lines(panel: &Panel, prometheus: &Prometheus, span: (f64, f64)) -> Option<String> {
    let series: Vec<(String, Series)> = panel
        .queries
        .iter()
        .flat_map(|(legend, query)| {
            let named = |series: Series| (with_labels(legend, &series.0), numbers(series));
            prometheus.query_range(query, span).into_iter().map(named)
        })
        .collect();
    let most = series.iter().flat_map(|(_, (_, values))| values).map(|(_, value)| *value).fold(f64::NAN, f64::max);
    if most.is_nan() {
        return None;
    }
    let top = if most > 0.0 { most } else { 1.0 };
    let mut drawing = String::new();
    let mut legend = String::new();
    for ((name, (_, values)), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<(f64, f64)> =
            values.iter().map(|(time, value)| ((time - span.0) / (span.1 - span.0), value / top)).collect();
        drawing += &polyline(&points, colour);
        let last = values.last().map(|(_, value)| shown(*value, &panel.units[0])).unwrap_or_default();
        write!(legend, "<span style=\"color:{colour}\">{name} {last}</span> ").expect("a text can be written to");
    }
    Some(format!("{}{legend}", framed(&drawing, &shown(top, &panel.units[0]), &format!("{:.0} s", span.1 - span.0))))
}

/// Without what is no number, as a share of nothing.
fn numbers((labels, mut values): Series) -> Series {
    values.retain(|(_, value)| value.is_finite());
    (labels, values)
}

fn bars(panel: &Panel, answers: &[Vec<Sample>]) -> Option<String> {
    let samples: Vec<(String, f64)> = panel
        .queries
        .iter()
        .zip(answers)
        .flat_map(|((legend, _), samples)| samples.iter().map(|(labels, value)| (with_labels(legend, labels), *value)))
        .collect();
    let most = samples.iter().map(|(_, value)| *value).fold(f64::NAN, f64::max);
    let row = |(name, value): &(String, f64)| {
        let share = if most > 0.0 { 100.0 * value / most } else { 0.0 };
        format!(
            "<div>{name} <b>{}</b></div><div style=\"background:{};height:8px;width:{share:.1}%\"></div>",
            shown(*value, &panel.units[0]),
            COLOURS[0]
        )
    };
    (!samples.is_empty()).then(|| samples.iter().map(row).collect())
}

/// A row for each set of labels, a column for each question.
fn table(panel: &Panel, answers: &[Vec<Sample>]) -> Option<String> {
    let keys: BTreeSet<&BTreeMap<String, String>> = answers.iter().flatten().map(|(labels, _)| labels).collect();
    let heads: Vec<&str> = panel.queries.iter().map(|(legend, _)| legend.as_str()).collect();
    let heads = heads.join("</th><th>");
    let row = |labels: &BTreeMap<String, String>| {
        let cell = |(samples, unit): (&Vec<Sample>, &String)| {
            let found = samples.iter().find(|(of, _)| of == labels).map(|(_, value)| shown(*value, unit));
            format!("<td>{}</td>", found.unwrap_or_default())
        };
        let cells: String = answers.iter().zip(&panel.units).map(cell).collect();
        format!("<tr><th>{}</th>{cells}</tr>", labels.values().cloned().collect::<Vec<_>>().join(" "))
    };
    let rows: String = keys.iter().map(|labels| row(labels)).collect();
    (!keys.is_empty()).then(|| format!("<table><tr><th></th><th>{heads}</th></tr>{rows}</table>"))
}

/// The second question's answers over the first one's, a point for each set of labels.
fn scatter(panel: &Panel, answers: &[Vec<Sample>]) -> Option<String> {
    let [across, up] = answers else { panic!("{}: it needs two questions", panel.title) };
    let both: Vec<(String, f64, f64)> = across
        .iter()
        .filter_map(|(labels, x)| {
            let (_, y) = up.iter().find(|(of, _)| of == labels)?;
            Some((labels.values().cloned().collect::<Vec<_>>().join(" "), *x, *y))
        })
        .collect();
    let most = |of: fn(&(String, f64, f64)) -> f64| both.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let (right, top) = (most(|(_, x, _)| *x), most(|(_, _, y)| *y));
    let mut drawing = String::new();
    for (name, x, y) in &both {
        let (x, y) = place(x / right, y / top);
        write!(
            drawing,
            "<circle cx={x} cy={y} r=4 fill=#1f6feb /><text x={} y={} text-anchor=end>{name}</text>",
            x - 6.0,
            y + 4.0
        )
        .expect("a text can be written to");
    }
    (!both.is_empty()).then(|| framed(&drawing, &shown(top, &panel.units[1]), &shown(right, &panel.units[0])))
}

fn framed(drawing: &str, top: &str, right: &str) -> String {
    let (width, height, margin) = SIZE;
    let (floor, end) = (height - margin, width - margin);
    format!(
        "<svg width={width} height={height} font-size=11><path d=\"M{margin} {margin}V{floor}H{end}\" fill=none stroke=#999 />\
         <text x={margin} y={}>{top}</text><text x={end} y={} text-anchor=end>{right}</text>{drawing}</svg>",
        margin - 8.0,
        height - 8.0
    )
}

fn polyline(points: &[(f64, f64)], colour: &str) -> String {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| {
            let (x, y) = place(*x, *y);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    format!("<polyline points=\"{}\" fill=none stroke={colour} stroke-width=1.5 />", points.join(" "))
}

/// Shares of the axes as pixels.
fn place(x: f64, y: f64) -> (f64, f64) {
    let (width, height, margin) = SIZE;
    (margin + x * (width - 2.0 * margin), height - margin - y * (height - 2.0 * margin))
}

/// A legend as Grafana fills it in.
fn with_labels(legend: &str, labels: &BTreeMap<String, String>) -> String {
    labels.iter().fold(legend.to_owned(), |legend, (name, value)| legend.replace(&format!("{{{{{name}}}}}"), value))
}

/// A number in one of the units that the dashboards use.
fn shown(value: f64, unit: &str) -> String {
    match unit {
        "percentunit" => format!("{:.1} %", 100.0 * value),
        "decbytes" => scaled(value, 1000.0, "B"),
        "bytes" => scaled(value, 1024.0, "iB"),
        "Bps" => scaled(value, 1000.0, "B/s"),
        "flop" => scaled(value, 1000.0, "FLOP"),
        "flops" => scaled(value, 1000.0, "FLOP/s"),
        "s" => format!("{value:.2} s"),
        "ops" => format!("{value:.2} /s"),
        "none" => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        other => panic!("nobody has thought of the unit {other} here"),
    }
}

fn scaled(value: f64, step: f64, unit: &str) -> String {
    let mut value = value;
    for prefix in ["", "k", "M", "G", "T"] {
        if value.abs() < step {
            return format!("{value:.2} {prefix}{unit}");
        }
        value /= step;
    }
    format!("{value:.2} P{unit}")
}
