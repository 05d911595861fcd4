//! The runs of an experiment side by side, from their resources' status.
//! Must not compute a figure: what the operator has written is shown.

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use fedtune_crds::{FederatedFineTune, FederatedFineTuneStatus};
use kube::ResourceExt;

/// Headings, and whether what is below is a figure.
const COLUMNS: [(&str, bool); 10] = [
    ("NAME", false),
    ("FRAMEWORK", false),
    ("PHASE", false),
    ("ROUNDS", true),
    ("ACCURACY", true),
    ("LOSS", true),
    ("BYTES UP", true),
    ("BYTES DOWN", true),
    ("CLIENT FLOPS", true),
    ("CLIENT SECONDS", true),
];
/// What is not known yet.
const UNKNOWN: &str = "-";

/// A row a run, in the order given; names with their namespace where that may differ.
pub(crate) fn table(runs: &[FederatedFineTune], with_namespace: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(COLUMNS.map(|(heading, _)| heading));
    for (column, (_, is_figure)) in table.column_iter_mut().zip(COLUMNS) {
        column.set_padding((0, 2));
        if is_figure {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for run in runs {
        table.add_row(row(run, with_namespace));
    }
    table
}

fn row(run: &FederatedFineTune, with_namespace: bool) -> [String; 10] {
    let status = run.status.clone().unwrap_or_default();
    let name = match run.namespace().filter(|_| with_namespace) {
        Some(namespace) => format!("{namespace}/{}", run.name_any()),
        None => run.name_any(),
    };
    let phase = status.phase.map(|phase| format!("{phase:?}"));
    let [accuracy, loss, flops] = figures(&status);
    let told = [
        status.framework,
        phase,
        status.progress,
        accuracy,
        loss,
        status.payload_bytes_up,
        status.payload_bytes_down,
        flops,
        status.client_seconds,
    ];
    let mut cells = told.into_iter().map(|cell| cell.unwrap_or_else(|| UNKNOWN.to_owned()));
    let mut next = || cells.next().expect("there are as many as are asked for");
    [name, next(), next(), next(), next(), next(), next(), next(), next(), next()]
}

/// Accuracy, loss and client operations: to the last digit once the run has ended well, before that as rounds tell them.
fn figures(status: &FederatedFineTuneStatus) -> [Option<String>; 3] {
    match &status.final_figures {
        Some(figures) => [figures.accuracy.clone(), figures.loss.clone(), figures.client_flops.clone()],
        None => [status.accuracy.clone(), status.loss.clone(), status.client_flops.clone()],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(name: &str, status: &serde_json::Value) -> FederatedFineTune {
        let spec = json!({
            "framework": {"fedLLM": {}}, "model": {"source": {"path": "/m"}},
            "data": {"source": {"path": "/d"}, "format": "CSV"}, "training": {"rounds": 2},
        });
        let run = json!({"apiVersion": "fedtune.io/v1alpha1", "kind": "FederatedFineTune",
            "metadata": {"name": name, "namespace": "team"}, "spec": spec, "status": status});
        serde_json::from_value(run).expect("it is a run")
    }

    #[test]
    fn a_finished_run_shows_every_digit_and_a_new_one_that_nothing_is_known() {
        let done = json!({
            "framework": "FedLLM", "phase": "Succeeded", "progress": "2/2", "accuracy": "0.861", "loss": "0.310",
            "payloadBytesUp": "413492", "payloadBytesDown": "413492", "clientFlops": "3.10e12", "clientSeconds": "12.5",
            "final": {"accuracy": "0.8606666666666667", "loss": "0.31000000000000005", "clientFlops": "3100000000001"},
        });
        let text = table(&[run("done", &done), run("new", &json!(null))], true).to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let digits = ["team/done", "FedLLM", "Succeeded", "2/2", "0.8606666666666667", "0.31000000000000005"];
        assert_eq!(lines[1][..6], digits);
        assert_eq!(lines[1][6..], ["413492", "413492", "3100000000001", "12.5"]);
        assert_eq!(lines[2], ["team/new", "-", "-", "-", "-", "-", "-", "-", "-", "-"]);
    }
}
