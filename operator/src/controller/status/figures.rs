//! The figures of a run as text: what the server said, in the columns' words.
//! Must not compute a figure: the trainer measures.

use fedtune_crds::{FederatedFineTuneStatus, live::LiveStatus, status::FinalFigures};

use super::super::{build::Run, decide::Stand};

/// `status` with the figures that the server gave; without any, those that it had, but for who is connected.
pub(super) fn figures(
    status: FederatedFineTuneStatus,
    live: Option<&LiveStatus>,
    stand: &Stand,
    run: &Run,
) -> FederatedFineTuneStatus {
    let clients = run.spec.clients.count();
    let rounds = run.spec.training.rounds;
    let ready = live.filter(|_| connected(stand)).map_or(0, |live| live.clients_ready);
    let status = FederatedFineTuneStatus {
        clients_ready: Some(format!("{ready}/{clients}")),
        progress: status.progress.or_else(|| Some(format!("0/{rounds}"))),
        eta: None,
        ..status
    };
    let Some(live) = live else { return status };
    let ended = matches!(stand, Stand::Succeeded(_) | Stand::Failed(_));
    FederatedFineTuneStatus {
        progress: Some(format!("{}/{rounds}", live.round)),
        round: Some(live.round),
        accuracy: live.accuracy.map(decimal).or(status.accuracy),
        loss: live.loss.map(decimal).or(status.loss),
        bytes: Some(bytes(live.payload_bytes)),
        payload_bytes_up: Some(live.payload.up.to_string()),
        payload_bytes_down: Some(live.payload.down.to_string()),
        wire_bytes_up: Some(live.wire.up.to_string()),
        wire_bytes_down: Some(live.wire.down.to_string()),
        client_flops: Some(exponential(live.client_flops)),
        client_seconds: Some(live.client_seconds.to_string()),
        final_figures: matches!(stand, Stand::Succeeded(_)).then(|| exact(live)),
        eta: live.eta_seconds.filter(|_| !ended).map(span),
        ..status
    }
}

/// Each figure as the report has it: the shortest text that is read as the same number.
fn exact(live: &LiveStatus) -> FinalFigures {
    let text = |figure: f64| format!("{figure:?}");
    FinalFigures {
        accuracy: live.accuracy.map(text),
        loss: live.loss.map(text),
        client_flops: Some(text(live.client_flops)),
    }
}

fn connected(stand: &Stand) -> bool {
    match stand {
        Stand::Starting(_) | Stand::Running(_) | Stand::Suspending | Stand::Succeeded(_) => true,
        Stand::Waiting(_) | Stand::Refused(_) | Stand::Suspended | Stand::Failed(_) | Stand::Over | Stand::Leaving => {
            false
        }
    }
}

/// Why it ended, in one word.
pub(super) fn stop_reason(stand: &Stand, before: &FederatedFineTuneStatus) -> Option<String> {
    match stand {
        Stand::Failed(trouble) => Some(trouble.reason.to_owned()),
        Stand::Over | Stand::Leaving => before.stop_reason.clone(),
        Stand::Succeeded(summary) => summary.stop_reason.clone(),
        Stand::Waiting(_)
        | Stand::Refused(_)
        | Stand::Starting(_)
        | Stand::Running(_)
        | Stand::Suspending
        | Stand::Suspended => None,
    }
}

fn decimal(value: f64) -> String {
    if value.abs() < 1e5 { format!("{value:.3}") } else { format!("{value:.2e}") }
}

fn exponential(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.2e}") }
}

/// `1.2 GB`: decimal units, as much as a column has room for.
fn bytes(value: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && scaled < 99.95);
    format!("{scaled:.digits$} {}", UNITS[unit])
}

/// `12m`: as `kubectl` writes ages.
fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..120 => format!("{whole}s"),
        120..7200 => format!("{}m", whole / 60),
        7200..172_800 => format!("{}h{}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{}h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_into_a_column() {
        for (value, text) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (413_492, "413 kB"), (1_234_567_890, "1.2 GB")]
        {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        for (seconds, text) in [(2.5, "3s"), (119.0, "119s"), (720.0, "12m"), (7_500.0, "2h5m"), (200_000.0, "2d7h")] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!((exponential(3.1e15), exponential(0.0)), ("3.10e15".to_owned(), "0".to_owned()));
        assert_eq!((decimal(0.8604), decimal(1.0e7)), ("0.860".to_owned(), "1.00e7".to_owned()));
    }
}
