//! What the page on metrics says of a family, and its tables.
//! Must not know a metric: those who serve them say which they are.

use std::fmt;

/// What Prometheus calls the type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that goes up and down.
    Gauge,
    /// A number that only grows.
    Counter,
    /// Observations in buckets.
    Histogram,
}

/// One metric with all its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// As in a question to Prometheus.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Labels of each series, but for those that every series of the page has.
    pub labels: Vec<String>,
    /// One sentence, as on the page that is scraped.
    pub help: String,
}

/// A section with a row for each family.
pub fn section(heading: &str, words: &str, families: &[Family]) -> String {
    let rows: String = families.iter().map(ToString::to_string).collect();
    format!("\n## {heading}\n\n{words}\n\n| metric | is | labels | |\n|---|---|---|---|\n{rows}")
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, labels, help } = self;
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join(", "))
    }
}
