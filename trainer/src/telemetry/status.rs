//! The figures as the `LiveStatus` that `/status` answers with.
//! Must not measure: it puts figures in their places.

use fedtune_crds::live::{LiveStatus, moment};

use super::{RunFacts, figures::LiveFigures};

/// The figures as JSON holds them: a loss that is no number is none.
pub(super) fn view(figures: &LiveFigures, facts: &RunFacts, seq: u64) -> LiveStatus {
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
        payload_bytes: figures.payload_bytes,
        client_flops: client_flops(figures, facts),
        eta_seconds: figures.eta_seconds(facts.rounds),
        waiting_for: figures.waiting_for.iter().take(LiveStatus::NAMED).cloned().collect(),
        since: moment(figures.since),
        message: figures.message.clone(),
    }
}

/// Summed in client order, as the report does it, so that both say the same to the last bit.
fn client_flops(figures: &LiveFigures, facts: &RunFacts) -> f64 {
    let told = facts.clients.iter().filter_map(|client| figures.clients.get(client));
    told.fold(0.0, |sum: f64, client| sum + client.meter.flops.headline()).max(figures.recalled_flops)
}
