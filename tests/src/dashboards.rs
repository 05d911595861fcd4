//! The chart's dashboards as a user's Grafana has them: which question each panel asks, and what it should be answered.
//! Must not ask, nor draw.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fedtune_crds::report::RunReport;
use serde_json::Value;

use crate::prometheus::Sample;

/// What Grafana puts into each question by itself.
const BY_GRAFANA: [(&str, &str); 2] = [("$__rate_interval", "10s"), ("$__range", "1h")];

/// A panel.
#[derive(Debug)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// Its questions, each after its legend.
    pub queries: Vec<(String, String)>,
    /// How Grafana draws it, as in `timeseries`.
    pub kind: String,
    /// What it says of itself.
    pub description: String,
    /// What it says where it has nothing to show.
    pub no_data: String,
    /// Unit of each question's answers, as in `decbytes`.
    pub units: Vec<String>,
}

/// Where they lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/fedtune/dashboards")
}

/// The panels of a dashboard, its variables replaced by these.
pub fn panels(dashboard: &str, variables: &[(&str, &str)]) -> Vec<Panel> {
    let file = folder().join(dashboard).with_extension("json");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let dashboard: Value = serde_json::from_str(&text).expect("a dashboard is JSON");
    let list = |value: &Value| value.as_array().expect("a dashboard has panels, and they have targets").clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let query = |target: &Value| (text(&target["legendFormat"]), with_variables(&text(&target["expr"]), variables));
    let panel = |panel: &Value| {
        let queries: Vec<_> = list(&panel["targets"]).iter().map(query).collect();
        let units = queries.iter().map(|(legend, _)| unit(&panel["fieldConfig"], legend)).collect();
        let (title, kind, description) = (text(&panel["title"]), text(&panel["type"]), text(&panel["description"]));
        let no_data = text(&panel["fieldConfig"]["defaults"]["noValue"]);
        Panel { title, queries, kind, description, no_data, units }
    };
    list(&dashboard["panels"]).iter().map(panel).collect()
}

/// The unit of the answers with this legend: a column may have one of its own.
fn unit(config: &Value, legend: &str) -> String {
    let overrides = config["overrides"].as_array().into_iter().flatten();
    let mut own = overrides.filter(|own| own["matcher"]["options"] == legend);
    let properties = own.next().and_then(|own| own["properties"].as_array()).into_iter().flatten();
    let own = properties.into_iter().find(|property| property["id"] == "unit").map(|property| &property["value"]);
    own.unwrap_or(&config["defaults"]["unit"]).as_str().unwrap_or_default().to_owned()
}

/// A question as Grafana would send it.
fn with_variables(expr: &str, variables: &[(&str, &str)]) -> String {
    let all = BY_GRAFANA.iter().chain(variables);
    let expr = all.fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    assert!(!expr.contains('$'), "{expr}");
    expr
}

/// What a panel of *Compare* should show of a run that succeeded within `seconds`; nothing where it shows failed ones.
///
/// # Panics
/// Where there is a panel that nobody has thought of here.
pub fn compared(title: &str, legend: &str, report: &RunReport, seconds: f64) -> Option<f64> {
    let (totals, end) = (&report.totals, &report.final_figures);
    Some(match (title, legend) {
        ("Accuracy", _) | (_, "Accuracy") => end.accuracy,
        ("Loss", _) | (_, "Loss") => end.loss,
        ("Payload, both directions", _) | (_, "Payload") => totals.payload_bytes.sum() as f64,
        (_, "Up") => totals.payload_bytes.up as f64,
        (_, "Down") => totals.payload_bytes.down as f64,
        (_, "Wire") => totals.wire_bytes.sum() as f64,
        ("Client operations", _) | (_, "FLOPs") => totals.client_flops,
        ("Client compute time", _) | (_, "Compute") => totals.client_seconds,
        ("Duration", _) => seconds,
        ("Failed runs", _) => return None,
        other => panic!("{other:?} is a panel that is not tested"),
    })
}

/// Whether the answer is this one number.
pub fn value_of(found: &[Sample], expected: f64) -> bool {
    matches!(found, [(_, value)] if value_is(*value, expected))
}

/// Whether two numbers are the same to the last bit.
pub fn value_is(value: f64, expected: f64) -> bool {
    value.to_bits() == expected.to_bits()
}
