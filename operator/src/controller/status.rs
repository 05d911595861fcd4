//! How a run stands, as `status` says it. Pure.
//! Must not talk to the API server: that is `status::write`.

mod conditions;
mod figures;
pub mod write;

use fedtune_crds::{FederatedFineTuneStatus, live::LiveStatus, status::Phase};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    build::Run,
    decide::{Stand, current_attempt},
    observe::Observed,
};

/// The status that follows from how `run` stands now.
pub fn status(run: &Run, seen: &Observed, stand: &Stand, now: Timestamp) -> FederatedFineTuneStatus {
    let before = run.status.clone().unwrap_or_default();
    match stand {
        Stand::Over | Stand::Leaving => over(run, before),
        Stand::Waiting(_)
        | Stand::Refused(_)
        | Stand::Starting(_)
        | Stand::Running(_)
        | Stand::Suspending
        | Stand::Suspended
        | Stand::Succeeded(_)
        | Stand::Failed(_) => on_its_way(run, before, seen, stand, now),
    }
}

/// The status of a run that begins: its spec is frozen from here on.
pub fn begun(run: &Run, run_hash: &str, now: Timestamp) -> FederatedFineTuneStatus {
    let before = FederatedFineTuneStatus {
        attempt: Some(run.spec.attempt),
        run_hash: Some(run_hash.to_owned()),
        start_time: Some(Time(now)),
        completion_time: None,
        stop_reason: None,
        final_figures: None,
        ..run.status.clone().unwrap_or_default()
    };
    on_its_way(run, before, &Observed::default(), &Stand::Starting(None), now)
}

/// An end is final; only the generation that was seen goes on.
fn over(run: &Run, before: FederatedFineTuneStatus) -> FederatedFineTuneStatus {
    let generation = run.metadata.generation;
    let conditions = conditions::seen_again(before.conditions.clone(), generation);
    FederatedFineTuneStatus { observed_generation: generation, conditions, ..before }
}

fn on_its_way(
    run: &Run,
    before: FederatedFineTuneStatus,
    seen: &Observed,
    stand: &Stand,
    now: Timestamp,
) -> FederatedFineTuneStatus {
    let live = match stand {
        Stand::Succeeded(summary) => Some(summary.as_ref()),
        Stand::Waiting(_) | Stand::Refused(_) | Stand::Suspended | Stand::Over | Stand::Leaving => None,
        Stand::Starting(_) | Stand::Running(_) | Stand::Suspending | Stand::Failed(_) => seen.live.as_ref(),
    };
    let message = message(stand, live, run);
    let phase = phase(stand, &before);
    let ended = match phase {
        Phase::Succeeded | Phase::Failed => Some(Time(now)),
        Phase::Pending | Phase::Starting | Phase::Running | Phase::Suspended => None,
    };
    let status = FederatedFineTuneStatus {
        observed_generation: run.metadata.generation,
        phase: Some(phase),
        conditions: conditions::conditions(&before.conditions, stand, &message, run.metadata.generation, now),
        framework: run.spec.framework.name().map(|name| name.to_string()),
        attempt: before.attempt.or_else(|| Some(current_attempt(run))),
        completion_time: ended,
        stop_reason: figures::stop_reason(stand, &before),
        message: Some(message),
        ..before
    };
    figures::figures(status, live, stand, run)
}

fn phase(stand: &Stand, before: &FederatedFineTuneStatus) -> Phase {
    match stand {
        Stand::Waiting(_) => Phase::Pending,
        // A run that has begun stays begun, and so its spec fixed.
        Stand::Refused(_) | Stand::Over | Stand::Leaving => before.phase.unwrap_or(Phase::Pending),
        Stand::Starting(_) => Phase::Starting,
        Stand::Running(_) => Phase::Running,
        Stand::Suspending => before.phase.unwrap_or(Phase::Running),
        Stand::Suspended => Phase::Suspended,
        Stand::Succeeded(_) => Phase::Succeeded,
        Stand::Failed(_) => Phase::Failed,
    }
}

/// What is going on, as one sentence.
fn message(stand: &Stand, live: Option<&LiveStatus>, run: &Run) -> String {
    let text = match stand {
        Stand::Waiting(trouble) | Stand::Refused(trouble) | Stand::Failed(trouble) | Stand::Starting(Some(trouble)) => {
            trouble.sentence.clone()
        }
        Stand::Starting(None) => "the server starts".to_owned(),
        Stand::Running(trouble) => running(trouble.as_ref().map(|trouble| trouble.sentence.as_str()), live),
        Stand::Suspending => "suspend is set: the pods are ending".to_owned(),
        Stand::Suspended => "suspend is set: no pod remains, the checkpoint waits".to_owned(),
        Stand::Succeeded(summary) => summary.message.clone(),
        Stand::Over | Stand::Leaving => {
            run.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
        }
    };
    cut(text, MESSAGE_CHARACTERS)
}

/// Characters of a message, at most, by the resource's own rule.
const MESSAGE_CHARACTERS: usize = 3072;

fn cut(text: String, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// What the server says, whom it waits for since when, and what keeps a pod from coming.
fn running(trouble: Option<&str>, live: Option<&LiveStatus>) -> String {
    let Some(live) = live else { return trouble.unwrap_or("the server is up").to_owned() };
    let mut parts = vec![live.message.clone()];
    if !live.waiting_for.is_empty() {
        parts.push(format!("waiting for {} since {}", live.waiting_for.join(", "), live.since.0));
    }
    parts.extend(trouble.map(str::to_owned));
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

#[cfg(test)]
mod tests;
