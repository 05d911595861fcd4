//! Writes a status: what matters at once, figures at most every five seconds, what has not changed never.
//! Must not decide what it says.

use std::time::{Duration, Instant};

use fedtune_crds::FederatedFineTuneStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client, ResourceExt, api::PostParams};

use crate::{
    controller::{build::Run, hindrance::Hindrance, post::FIELD_MANAGER},
    memory::Memories,
};

/// Between two writes of figures.
const PACE: Duration = Duration::from_secs(5);

/// What becomes of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It says what was written last.
    Never,
    /// It says something that is waited for.
    Now,
    /// Its figures are new, and the last ones were written a moment ago.
    After(Duration),
}

/// When `after` is written where `before` is what the cluster has, written so long `since`.
pub fn when(before: &FederatedFineTuneStatus, after: &FederatedFineTuneStatus, since: Option<Duration>) -> When {
    if before == after {
        return When::Never;
    }
    if essence(before) != essence(after) {
        return When::Now;
    }
    match since.and_then(|since| PACE.checked_sub(since)).filter(|left| !left.is_zero()) {
        Some(left) => When::After(left),
        None => When::Now,
    }
}

/// What scripts wait for: everything but figures and sentences.
fn essence(status: &FederatedFineTuneStatus) -> impl PartialEq {
    let condition = |condition: &Condition| {
        let Condition { type_, status, reason, observed_generation, last_transition_time: _, message: _ } = condition;
        (type_.clone(), status.clone(), reason.clone(), *observed_generation)
    };
    let conditions: Vec<_> = status.conditions.iter().map(condition).collect();
    let ended = status.completion_time.is_some();
    (status.phase, status.observed_generation, status.attempt, status.run_hash.clone(), conditions, ended)
}

/// Gives `run` its new status, on condition that nobody has changed the resource in the meantime.
///
/// # Errors
/// [`Hindrance::Stale`] where somebody has; else what the API server says.
pub async fn write(
    client: &Client,
    memories: &Memories,
    run: &Run,
    status: FederatedFineTuneStatus,
) -> Result<Run, Hindrance> {
    let api: Api<Run> = Api::namespaced(client.clone(), &run.namespace().unwrap_or_default());
    let how = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let wanted = Run { status: Some(status), ..run.clone() };
    let written = match api.replace_status(&run.name_any(), &how, &wanted).await {
        Ok(written) => written,
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => return Err(Hindrance::Stale),
        Err(error) => return Err(Hindrance::of("the status cannot be written", error)),
    };
    memories.of(&run.uid().unwrap_or_default(), |memory| memory.wrote(run, &written, Instant::now()));
    Ok(written)
}

#[cfg(test)]
mod tests {
    use fedtune_crds::status::Phase;

    use super::*;

    fn status(phase: Phase, loss: &str) -> FederatedFineTuneStatus {
        FederatedFineTuneStatus { phase: Some(phase), loss: Some(loss.to_owned()), ..Default::default() }
    }

    #[test]
    fn what_has_not_changed_is_not_written() {
        let same = status(Phase::Running, "0.5");
        assert_eq!(when(&same, &same, None), When::Never);
    }

    #[test]
    fn a_phase_is_written_at_once_and_a_figure_when_five_seconds_are_over() {
        let before = status(Phase::Running, "0.5");
        let second = Some(Duration::from_secs(1));
        assert_eq!(when(&before, &status(Phase::Succeeded, "0.5"), second), When::Now);
        assert_eq!(when(&before, &status(Phase::Running, "0.4"), second), When::After(Duration::from_secs(4)));
        assert_eq!(when(&before, &status(Phase::Running, "0.4"), Some(PACE)), When::Now);
        assert_eq!(when(&before, &status(Phase::Running, "0.4"), None), When::Now, "the operator has just started");
    }
}
