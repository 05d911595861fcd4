//! The conditions: kstatus's `Ready`, `Reconciling`, `Stalled`, and `Complete`, `Failed`, `Suspended`.
//! Must not forget since when a condition is what it is.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::super::{decide::Stand, why::Trouble};

/// All of them, in the order of the list.
const TYPES: [&str; 6] = ["Ready", "Reconciling", "Stalled", "Complete", "Failed", "Suspended"];

/// The conditions of a run that stands so; what has not changed keeps its time.
///
/// A run is `Ready` once it has succeeded, and `Reconciling` until then: those who wait for it by kstatus's rules wait
/// for the adapter.
pub(super) fn conditions(
    before: &[Condition],
    stand: &Stand,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (holding, reason) = holding(stand);
    TYPES
        .into_iter()
        .map(|type_| {
            let status = if holding.contains(&type_) { "True" } else { "False" };
            let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                observed_generation: generation,
                last_transition_time: same.map_or(Time(now), |condition| condition.last_transition_time.clone()),
            }
        })
        .collect()
}

/// The same conditions, of a spec that has changed where it does not matter.
pub(super) fn seen_again(conditions: Vec<Condition>, generation: Option<i64>) -> Vec<Condition> {
    conditions.into_iter().map(|condition| Condition { observed_generation: generation, ..condition }).collect()
}

/// Which conditions hold, and why all of them are as they are.
fn holding(stand: &Stand) -> (&'static [&'static str], &'static str) {
    let or = |trouble: &Option<Trouble>, otherwise| trouble.as_ref().map_or(otherwise, |trouble| trouble.reason);
    match stand {
        Stand::Waiting(trouble) => (&["Reconciling"], trouble.reason),
        Stand::Refused(trouble) => (&["Stalled"], trouble.reason),
        Stand::Starting(trouble) => (&["Reconciling"], or(trouble, "Starting")),
        Stand::Running(trouble) => (&["Reconciling"], or(trouble, "Running")),
        Stand::Suspending => (&["Reconciling"], "Suspending"),
        Stand::Suspended => (&["Suspended"], "Suspended"),
        Stand::Succeeded(_) => (&["Ready", "Complete"], "Succeeded"),
        Stand::Failed(trouble) => (&["Stalled", "Failed"], trouble.reason),
        Stand::Over | Stand::Leaving => (&[], ""),
    }
}
