//! What `kubectl get` and `kubectl wait` read.

use fedtune_crds::live::LivePhase;

use super::*;
use crate::controller::{testing::*, why::Trouble};

fn holds(status: &FederatedFineTuneStatus) -> Vec<&str> {
    let conditions = status.conditions.iter().filter(|condition| condition.status == "True");
    conditions.map(|condition| condition.type_.as_str()).collect()
}

fn of(run: &Run, stand: &Stand, now: i64) -> FederatedFineTuneStatus {
    status(run, &Observed { live: Some(live(LivePhase::Running, 7)), ..jobs() }, stand, at(now))
}

#[test]
fn each_stand_has_its_conditions() {
    let trouble = || Trouble::new("ReferenceMissing", "a secret is missing");
    let summary = || Box::new(live(LivePhase::Succeeded, 10));
    for (stand, phase, conditions) in [
        (Stand::Waiting(trouble()), Phase::Pending, vec!["Reconciling"]),
        (Stand::Starting(None), Phase::Starting, vec!["Reconciling"]),
        (Stand::Running(None), Phase::Running, vec!["Reconciling"]),
        (Stand::Suspended, Phase::Suspended, vec!["Suspended"]),
        (Stand::Succeeded(summary()), Phase::Succeeded, vec!["Ready", "Complete"]),
        (Stand::Failed(trouble()), Phase::Failed, vec!["Stalled", "Failed"]),
    ] {
        let status = of(&run(None), &stand, 5);
        assert_eq!((status.phase, holds(&status)), (Some(phase), conditions));
        let observed = status.conditions.iter().map(|condition| condition.observed_generation);
        assert!(observed.eq([Some(1); 6]));
    }
}

#[test]
fn a_refused_resource_stays_editable_and_a_refused_run_does_not() {
    let refused = Stand::Refused(Trouble::new("Invalid", "no"));
    assert_eq!(of(&run(None), &refused, 5).phase, Some(Phase::Pending));
    assert_eq!(of(&run(Some(Phase::Running)), &refused, 5).phase, Some(Phase::Running));
}

#[test]
fn columns_show_the_servers_figures() {
    let status = of(&run(Some(Phase::Starting)), &Stand::Running(None), 60);
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    assert_eq!(
        [&status.progress, &status.clients_ready, &status.accuracy, &status.loss, &status.bytes, &status.client_flops]
            .map(text),
        ["7/10", "2/2", "0.860", "0.310", "413 kB", "3.10e15"].map(str::to_owned)
    );
    assert_eq!((text(&status.eta), text(&status.framework)), ("12m".to_owned(), "FedLLM".to_owned()));
}

#[test]
fn figures_outlive_the_server_that_told_them() {
    let mut run = run(Some(Phase::Starting));
    run.status = Some(of(&run, &Stand::Running(None), 60));
    let status = status(&run, &jobs(), &Stand::Suspended, at(70));
    assert_eq!((status.progress.as_deref(), status.clients_ready.as_deref()), (Some("7/10"), Some("0/2")));
    assert_eq!(status.accuracy.as_deref(), Some("0.860"));
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut run = run(Some(Phase::Starting));
    let since = |run: &Run, type_: &str| {
        let conditions = &run.status.as_ref().unwrap().conditions;
        conditions.iter().find(|condition| condition.type_ == type_).unwrap().last_transition_time.0
    };
    run.status = Some(of(&run, &Stand::Running(None), 60));
    assert_eq!(since(&run, "Reconciling"), at(0));
    run.status = Some(of(&run, &Stand::Succeeded(Box::new(live(LivePhase::Succeeded, 10))), 90));
    assert_eq!((since(&run, "Reconciling"), since(&run, "Complete"), since(&run, "Failed")), (at(90), at(90), at(0)));
}

#[test]
fn an_end_is_final() {
    let mut run = run(Some(Phase::Running));
    run.status = Some(of(&run, &Stand::Succeeded(Box::new(live(LivePhase::Succeeded, 10))), 90));
    run.metadata.generation = Some(2);
    let before = run.status.clone().unwrap();
    let after = of(&run, &Stand::Over, 900);
    assert_eq!(after.observed_generation, Some(2));
    assert_eq!(
        (after.phase, after.message, after.completion_time),
        (before.phase, before.message, before.completion_time)
    );
    assert_eq!(holds(&of(&run, &Stand::Over, 900)), ["Ready", "Complete"]);
}

#[test]
fn a_run_that_waits_says_for_whom_and_since_when() {
    let waits = LiveStatus { waiting_for: vec!["silo/1".to_owned()], ..live(LivePhase::Running, 7) };
    let seen = Observed { live: Some(waits), ..jobs() };
    let status = status(&run(Some(Phase::Running)), &seen, &Stand::Running(None), at(60));
    assert_eq!(status.message.as_deref(), Some("round 7 of 10 is done; waiting for silo/1 since 2023-11-14T22:14:10Z"));
}

#[test]
fn a_run_that_begins_again_forgets_its_end() {
    let mut run = run(Some(Phase::Failed));
    run.spec.attempt = 2;
    let status = begun(&run, "hash", at(200));
    assert_eq!((status.phase, status.attempt, status.completion_time), (Some(Phase::Starting), Some(2), None));
    assert_eq!(status.start_time.map(|time| time.0), Some(at(200)));
}
