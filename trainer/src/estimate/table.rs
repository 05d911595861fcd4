//! Estimates side by side as text, and which of them fits a budget.
//! Must not compute what an estimate does not say.

use fedtune_crds::report::FrameworkName;

use super::Estimate;
use crate::report::units;

/// What all clients together may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Budget {
    /// Payload bytes, both directions.
    pub bytes: Option<u64>,
    /// Headline FLOPs.
    pub client_flops: Option<f64>,
}

impl Budget {
    /// What of it the run exceeds, in words; nothing where it fits.
    fn exceeded(self, estimate: &Estimate) -> Option<String> {
        let bytes = estimate.bytes().sum();
        let over_bytes = self
            .bytes
            .filter(|most| bytes > *most)
            .map(|most| format!("{} of {}", units::bytes(bytes as f64), units::bytes(most as f64)));
        let flops = estimate.flops();
        let over_flops = self.client_flops.filter(|most| flops > *most);
        let over_flops = over_flops.map(|most| format!("{} of {}", units::flops(flops), units::flops(most)));
        let over: Vec<String> = [over_bytes, over_flops].into_iter().flatten().collect();
        (!over.is_empty()).then(|| over.join(" and "))
    }
}

/// A line a framework; `*` marks the one that the spec asks for.
pub fn table(estimates: &[Estimate]) -> String {
    let heads = ["Framework", "Up a round", "Down a round", "All bytes", "FLOPs a round", "All FLOPs", "Memory"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    lines.extend(estimates.iter().map(line));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Means over clients and rounds, then sums.
fn line(estimate: &Estimate) -> Vec<String> {
    let (bytes, turns) = (estimate.bytes(), estimate.turns().max(1) as f64);
    let mark = if estimate.own { " *" } else { "" };
    let clients = !estimate.clients.is_empty();
    let shown = |text: String| if clients { text } else { units::NONE.to_owned() };
    vec![
        format!("{}{mark}", estimate.framework),
        shown(units::bytes(bytes.up as f64 / turns)),
        shown(units::bytes(bytes.down as f64 / turns)),
        shown(units::bytes(bytes.sum() as f64)),
        shown(units::flops(estimate.flops() / turns)),
        shown(units::flops(estimate.flops())),
        shown(units::bytes(estimate.memory_bytes() as f64)),
    ]
}

/// Which frameworks fit the budget, a line each; baselines exchange nothing to compare. Nothing without a budget.
pub fn verdict(estimates: &[Estimate], budget: Budget) -> String {
    if budget == Budget::default() {
        return String::new();
    }
    let contenders = estimates.iter().filter(|estimate| match estimate.framework {
        FrameworkName::FedLlm | FrameworkName::KdFedLlm | FrameworkName::SplitFedLlm => true,
        FrameworkName::Central | FrameworkName::LocalOnly => false,
    });
    let line = |estimate: &Estimate| match budget.exceeded(estimate) {
        None => format!("{} fits the budget\n", estimate.framework),
        Some(over) => format!("{} does not fit the budget: {over}\n", estimate.framework),
    };
    contenders.map(line).collect()
}
