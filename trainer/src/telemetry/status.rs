//! The figures as the `LiveStatus` that `/status` answers with.
//! Must not measure: it puts figures in their places.

use fedtune_crds::{
    live::{LiveStatus, moment},
    report::Totals,
};

use super::{RunFacts, figures::LiveFigures};

/// The figures as JSON holds them: a loss that is no number is none.
pub(super) fn view(figures: &LiveFigures, facts: &RunFacts, seq: u64) -> LiveStatus {
    let totals = figures.settled.clone().unwrap_or_else(|| totals(figures, facts));
    LiveStatus {
        uid: figures.uid.clone(),
        epoch: figures.epoch,
        seq,
        phase: figures.phase,
        round: figures.round,
        rounds: facts.rounds,
        clients_ready: figures.present.len() as u32,
        clients: facts.clients.len() as u32,
        accuracy: figures.accuracy.filter(|accuracy| accuracy.is_finite()),
        loss: figures.loss.filter(|loss| loss.is_finite()),
        payload_bytes: totals.payload_bytes.sum(),
        payload: totals.payload_bytes,
        wire: totals.wire_bytes,
        client_flops: totals.client_flops,
        client_seconds: totals.client_seconds,
        eta_seconds: figures.eta_seconds(facts.rounds),
        waiting_for: figures.waiting_for.iter().take(LiveStatus::NAMED).cloned().collect(),
        since: moment(figures.since),
        stop_reason: figures.stop_reason.clone(),
        message: figures.message.clone(),
    }
}

/// Summed in client order, as the report does it, so that both say the same to the last bit.
fn totals(figures: &LiveFigures, facts: &RunFacts) -> Totals {
    let told = || facts.clients.iter().filter_map(|client| figures.clients.get(client));
    Totals {
        payload_bytes: figures.carried.payload,
        wire_bytes: figures.carried.wire,
        client_flops: told().fold(0.0, |sum, client| sum + client.meter.flops.headline()),
        client_seconds: told().fold(0.0, |sum, client| sum + client.meter.seconds.compute),
        ..Totals::default()
    }
}
