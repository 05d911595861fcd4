//! Progress as tracing events: what a program reads that follows a run through its logs.
//! Must not format a figure: fields keep the numbers.

use tracing::{debug, error, info, trace as finest, warn};

use crate::events::Event;

/// Logs the event with its fields; steps at `trace`, stages at `debug`, the rest where a person would look.
pub(super) fn trace(event: Event) {
    match event {
        Event::StageStarted { stage, of } => info!(stage, of, "stage started"),
        Event::StageAdvanced { at } => finest!(at, "stage advanced"),
        Event::StageFinished => debug!("stage finished"),
        Event::Note { text } => info!(text, "note"),
        Event::RunStarted { run, framework, rounds, clients } => {
            info!(run, framework, rounds, clients, "run started");
        }
        Event::Listening { address } => info!(%address, "listening"),
        Event::Connected => info!("connected"),
        Event::Disconnected { reason } => warn!(reason, "disconnected"),
        Event::ClientLeft { client } => info!(client, "client left"),
        Event::WaitingFor { clients } => debug!(clients = clients.join(", "), "waiting"),
        Event::UploadRefused { client, reason, sentence } => {
            warn!(client, reason = reason.as_str(), sentence, "upload refused");
        }
        Event::ClientFailed { client, reason } => warn!(client, reason, "client failed"),
        Event::ClientFigures { client, meter, peak_memory_bytes } => {
            debug!(client, flops = meter.flops.headline(), steps = meter.steps, peak_memory_bytes, "client figures");
        }
        Event::Checkpointed { round, bytes } => info!(round, bytes, "checkpointed"),
        Event::ClientJoined { client, joined, of } => info!(client, joined, of, "client joined"),
        Event::RoundStarted { round, steps } => info!(round, steps, "round started"),
        Event::StepFinished { worker } => finest!(worker, "step finished"),
        Event::RoundFinished { round, accuracy, loss, payload_bytes, seconds } => {
            info!(round, accuracy, loss, payload_bytes, seconds, "round finished");
        }
        Event::Stopped { round, rule, sentence } => info!(round, rule, sentence, "stop rule met"),
        Event::ClientAbsent { round, client, reason } => warn!(round, client, reason, "client absent"),
        Event::RunFinished { run, error: None } => info!(run, "run finished"),
        Event::RunFinished { run, error: Some(sentence) } => error!(run, error = sentence, "run failed"),
    }
}
