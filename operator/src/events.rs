//! Kubernetes Events for what a person would want to know of a run, each told once.
//! Must not remember anything: what a status said before tells what is news.

use fedtune_crds::{FederatedFineTuneStatus, status::Phase};
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::controller::build::Run;

/// Characters of a note, at most, by Kubernetes' own rule.
const NOTE: usize = 1024;

/// Tells Events.
#[derive(Clone)]
pub struct Events(Recorder);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

/// One thing that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should look.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl Events {
    /// Tells them in the name of `instance`.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: "fedtune-operator".to_owned(), instance: Some(instance.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Tells what `after` says of `run` and `before` did not. One that cannot be told is only logged: the status has it.
    pub async fn tell(&self, run: &Run, before: &FederatedFineTuneStatus, after: &FederatedFineTuneStatus) {
        let Some(News { warning, reason, note }) = news(before, after) else { return };
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, note: Some(note), action: "Reconcile".to_owned(), secondary: None };
        if let Err(error) = self.0.publish(&event, &run.object_ref(&())).await {
            tracing::warn!(reason = event.reason, %error, "an Event cannot be told");
        }
    }
}

/// What `after` says and `before` did not.
pub fn news(before: &FederatedFineTuneStatus, after: &FederatedFineTuneStatus) -> Option<News> {
    let message = || after.message.clone().unwrap_or_default();
    let reason = reason(after);
    let trouble = is_trouble(reason);
    let again = self::reason(before) == reason;
    if before.phase != after.phase && !(trouble && again) {
        let phase = after.phase?;
        let warning = phase == Phase::Failed || trouble;
        let reason = if trouble { reason.to_owned() } else { format!("{phase:?}") };
        return Some(News { warning, reason, note: cut(message()) });
    }
    (trouble && !again).then(|| News { warning: true, reason: reason.to_owned(), note: cut(message()) })
}

/// All conditions have the same reason: why the run stands as it does.
fn reason(status: &FederatedFineTuneStatus) -> &str {
    status.conditions.first().map_or("", |condition| condition.reason.as_str())
}

/// Whether the reason says more than where the run stands.
fn is_trouble(reason: &str) -> bool {
    !["", "Starting", "Running", "Suspending", "Suspended", "Succeeded"].contains(&reason)
}

fn cut(text: String) -> String {
    match text.char_indices().nth(NOTE) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        apimachinery::pkg::apis::meta::v1::{Condition, Time},
        jiff::Timestamp,
    };

    use super::*;

    fn status(phase: Phase, reason: &str) -> FederatedFineTuneStatus {
        let condition = Condition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let message = Some(format!("about {reason}"));
        FederatedFineTuneStatus { phase: Some(phase), conditions: vec![condition], message, ..Default::default() }
    }

    fn told(before: &FederatedFineTuneStatus, after: &FederatedFineTuneStatus) -> Option<(bool, String)> {
        news(before, after).map(|news| (news.warning, news.reason))
    }

    #[test]
    fn a_new_phase_is_told_and_a_new_figure_is_not() {
        let starting = status(Phase::Starting, "Starting");
        let running = status(Phase::Running, "Running");
        assert_eq!(told(&FederatedFineTuneStatus::default(), &starting), Some((false, "Starting".to_owned())));
        assert_eq!(told(&starting, &running), Some((false, "Running".to_owned())));
        assert_eq!(told(&running, &FederatedFineTuneStatus { round: Some(3), ..running.clone() }), None);
    }

    #[test]
    fn a_trouble_is_told_when_it_comes_and_not_again() {
        let starting = status(Phase::Starting, "Starting");
        let pulling = status(Phase::Starting, "ImagePullFailed");
        assert_eq!(told(&starting, &pulling), Some((true, "ImagePullFailed".to_owned())));
        assert_eq!(told(&pulling, &pulling), None);
        assert_eq!(told(&pulling, &status(Phase::Running, "ImagePullFailed")), None);
    }

    #[test]
    fn a_failure_is_a_warning_with_its_own_reason() {
        let failed = status(Phase::Failed, "OutOfMemory");
        assert_eq!(told(&status(Phase::Running, "Running"), &failed), Some((true, "OutOfMemory".to_owned())));
    }
}
