//! The life of a run as a table: what there is, and what follows.

use super::*;
use crate::{
    caches::PodView,
    controller::{
        child::{Child, Kind},
        testing::*,
    },
};

fn decided(run: &Run, seen: &Observed, now: i64) -> Decision {
    decide(run, seen, &Answers::default(), at(now))
}

fn delete(name: &str) -> Act {
    Act::DeleteJob { name: name.to_owned(), uid: format!("uid-of-{name}") }
}

fn reason(stand: &Stand) -> &'static str {
    match stand {
        Stand::Waiting(trouble) | Stand::Refused(trouble) | Stand::Failed(trouble) => trouble.reason,
        Stand::Starting(trouble) | Stand::Running(trouble) => trouble.as_ref().map_or("", |trouble| trouble.reason),
        Stand::Suspending | Stand::Suspended | Stand::Succeeded(_) | Stand::Over | Stand::Leaving => "",
    }
}

#[test]
fn a_new_resource_is_begun() {
    for phase in [None, Some(Phase::Pending)] {
        let decision = decided(&run(phase), &Observed::default(), 0);
        assert_eq!(decision.acts, [Act::Begin]);
    }
}

#[test]
fn a_run_is_running_once_its_server_listens() {
    let pod = || server_pod(PodPhase::Running, crate::caches::State::Running);
    let seen = with_pods(jobs(), [pod()]);
    assert_eq!(decided(&run(Some(Phase::Starting)), &seen, 5).stand, Stand::Starting(None));
    let listens = Observed { live: Some(live(LivePhase::Waiting, 0)), ..seen.clone() };
    assert_eq!(decided(&run(Some(Phase::Starting)), &listens, 5).stand, Stand::Running(None));
    let ready = with_pods(jobs(), [PodView { ready: true, ..pod() }]);
    assert_eq!(decided(&run(Some(Phase::Starting)), &ready, 5).stand, Stand::Running(None));
}

#[test]
fn a_run_whose_server_has_gone_starts_again() {
    let seen = Observed { live: Some(live(LivePhase::Running, 3)), ..jobs() };
    assert_eq!(decided(&run(Some(Phase::Running)), &seen, 5).stand, Stand::Starting(None));
}

#[test]
fn a_run_whose_server_has_just_ended_well_does_not_start_again() {
    let seen = with_pods(jobs(), [server_pod(PodPhase::Succeeded, exited(0, "Completed", ""))]);
    assert_eq!(decided(&run(Some(Phase::Running)), &seen, 5).stand, Stand::Running(None));
}

#[test]
fn what_is_missing_of_a_run_is_made_again_until_the_run_has_ended() {
    let missing = vec![Child { kind: Kind::Service, name: "mail-server".to_owned() }];
    let seen = Observed { missing, ..jobs() };
    for phase in [Phase::Starting, Phase::Running, Phase::Suspended] {
        assert!(decided(&run(Some(phase)), &seen, 5).acts.contains(&Act::Complete), "{phase:?}");
    }
    let all_gone = Observed { server: None, clients: Vec::new(), ..seen };
    for phase in [Phase::Succeeded, Phase::Failed] {
        assert_eq!(decided(&run(Some(phase)), &all_gone, 500).acts, [], "{phase:?}");
    }
}

#[test]
fn suspending_stops_all_jobs_and_has_happened_when_no_pod_remains() {
    let mut run = run(Some(Phase::Running));
    run.spec.suspend = true;
    let seen = with_pods(jobs(), [server_pod(PodPhase::Running, crate::caches::State::Running)]);
    let decision = decided(&run, &seen, 5);
    let suspend = |job: &str| Act::Suspend { job: job.to_owned(), suspend: true };
    assert_eq!(decision.acts, [suspend("mail-server"), suspend("mail-clients-silo")]);
    assert_eq!(decision.stand, Stand::Suspending);
    let ended = server_pod(PodPhase::Failed, exited(143, "Error", ""));
    let leaving = with_pods(jobs(), [PodView { deleting: true, ..ended.clone() }]);
    assert_eq!(decided(&run, &leaving, 6).stand, Stand::Suspending);
    assert_eq!(decided(&run, &with_pods(seen, [ended]), 7).stand, Stand::Suspended);
}

#[test]
fn resuming_lets_all_jobs_have_pods_again() {
    let mut seen = jobs();
    seen.server.iter_mut().chain(&mut seen.clients).for_each(|job| job.suspended = true);
    let resume = |job: &str| Act::Suspend { job: job.to_owned(), suspend: false };
    let decision = decided(&run(Some(Phase::Suspended)), &seen, 5);
    assert_eq!(decision.acts, [resume("mail-server"), resume("mail-clients-silo")]);
}

#[test]
fn a_run_has_succeeded_when_its_servers_job_is_complete_and_left_a_report_of_this_run() {
    let complete = JobView { active: 0, end: Some(JobEnd::Complete), ..job("mail-server") };
    let mut seen = Observed { server: Some(complete), ..jobs() };
    let words = |uid: &str| {
        let said = LiveStatus { uid: uid.to_owned(), ..live(LivePhase::Succeeded, 10) };
        server_pod(PodPhase::Succeeded, exited(0, "Completed", &serde_json::to_string(&said).unwrap()))
    };
    let running = run(Some(Phase::Running));
    seen = with_pods(seen, [words(UID)]);
    let Stand::Succeeded(summary) = decided(&running, &seen, 90).stand else { panic!("it has succeeded") };
    assert_eq!(summary.round, 10);

    seen = with_pods(seen, [words("somebody else's")]);
    let decision = decided(&running, &seen, 90);
    assert_eq!((reason(&decision.stand), decision.acts), ("SummaryLost", vec![delete("mail-server")]));
}

#[test]
fn a_report_that_was_heard_before_the_pod_vanished_is_enough() {
    let complete = JobView { active: 0, end: Some(JobEnd::Complete), ..job("mail-server") };
    let seen = Observed { server: Some(complete), live: Some(live(LivePhase::Succeeded, 10)), ..jobs() };
    assert!(matches!(decided(&run(Some(Phase::Running)), &seen, 90).stand, Stand::Succeeded(_)));
}

#[test]
fn a_failed_server_fails_the_run_in_its_own_words_and_ends_its_clients() {
    let seen = Observed { server: Some(failed_job("mail-server")), ..jobs() };
    let words = "column text is missing; there are: a, b";
    let seen = with_pods(seen, [server_pod(PodPhase::Failed, exited(78, "Error", words))]);
    let decision = decided(&run(Some(Phase::Running)), &seen, 20);
    let Stand::Failed(trouble) = decision.stand else { panic!("it has failed") };
    assert_eq!(trouble.sentence, format!("pod mail-server-0-x: {words}"));
    assert_eq!(decision.acts, [delete("mail-clients-silo")]);
}

#[test]
fn a_failed_group_does_not_fail_the_run() {
    let seen = Observed { clients: vec![failed_job("mail-clients-silo")], ..jobs() };
    assert_eq!(decided(&run(Some(Phase::Running)), &seen, 20).acts, []);
}

#[test]
fn a_higher_attempt_begins_a_failed_run_again_and_no_other() {
    for (phase, begins) in [(Phase::Failed, true), (Phase::Succeeded, false), (Phase::Running, false)] {
        let mut run = run(Some(phase));
        run.spec.attempt = 1;
        let begun = decided(&run, &jobs(), 20).acts.contains(&Act::Begin);
        assert_eq!(begun, begins, "{phase:?}");
    }
}

#[test]
fn a_deadline_counts_from_the_start_or_the_last_resuming() {
    let mut run = run(Some(Phase::Running));
    run.spec.active_deadline_seconds = Some(60);
    assert_eq!(decided(&run, &jobs(), 50).again, Some(SignedDuration::from_secs(10)));
    let decision = decided(&run, &jobs(), 60);
    assert_eq!(reason(&decision.stand), "DeadlineExceeded");
    assert_eq!(decision.acts, [delete("mail-server"), delete("mail-clients-silo")]);

    let conditions = &mut run.status.as_mut().unwrap().conditions;
    let suspended = conditions.iter_mut().find(|condition| condition.type_ == "Suspended").unwrap();
    suspended.last_transition_time.0 = at(40);
    assert_eq!(decided(&run, &jobs(), 60).again, Some(SignedDuration::from_secs(40)));
    run.spec.suspend = true;
    assert_eq!(decided(&run, &jobs(), 999).stand, Stand::Suspended, "a suspended run is not late");
}

#[test]
fn clients_of_a_run_that_has_succeeded_have_a_minute_to_end() {
    let run = run(Some(Phase::Succeeded));
    let complete = JobView { active: 0, end: Some(JobEnd::Complete), ..job("mail-server") };
    let seen = Observed { server: Some(complete), ..jobs() };
    let before = decided(&run, &seen, 130);
    assert_eq!((before.acts, before.again), (vec![], Some(SignedDuration::from_secs(30))));
    assert_eq!(decided(&run, &seen, 160).acts, [delete("mail-clients-silo")]);
}

#[test]
fn clients_of_a_run_that_has_failed_end_at_once() {
    let seen = Observed { server: Some(failed_job("mail-server")), ..jobs() };
    assert_eq!(decided(&run(Some(Phase::Failed)), &seen, 100).acts, [delete("mail-clients-silo")]);
}

#[test]
fn a_resource_deletes_itself_when_its_time_has_come() {
    let mut run = run(Some(Phase::Succeeded));
    run.spec.ttl_seconds_after_finished = Some(3600);
    let nothing = Observed::default();
    let before = decided(&run, &nothing, 100);
    assert_eq!((before.acts, before.again), (vec![], Some(SignedDuration::from_secs(3600))));
    assert_eq!(decided(&run, &nothing, 3700).acts, [Act::DeleteRun]);
}

#[test]
fn jobs_are_deleted_where_the_namespace_ends() {
    let ends = Answers { namespace_ends: true, ..Answers::default() };
    let decision = decide(&run(Some(Phase::Running)), &jobs(), &ends, at(5));
    assert_eq!(decision.acts, [delete("mail-server"), delete("mail-clients-silo")]);
    assert_eq!(decision.stand, Stand::Leaving);
}

#[test]
fn certificates_are_renewed_when_their_time_has_come() {
    let seen = Observed { renew_at: Some(at(50)), ..jobs() };
    assert_eq!(decided(&run(Some(Phase::Running)), &seen, 20).again, Some(SignedDuration::from_secs(30)));
    assert_eq!(decided(&run(Some(Phase::Running)), &seen, 50).acts, [Act::Renew]);
}

#[test]
fn a_run_that_its_server_gave_up_is_not_tried_again_by_the_next_pod() {
    let told = |sentence| with_pods(jobs(), [server_pod(PodPhase::Failed, exited(1, "Error", sentence))]);
    let lost = decided(&run(Some(Phase::Running)), &told("QuorumLost: round 2 had 1 of at least 3 clients"), 5);
    assert_eq!(reason(&lost.stand), "QuorumLost");
    assert_eq!(lost.acts, [delete("mail-server"), delete("mail-clients-silo")]);
    let passing = decided(&run(Some(Phase::Running)), &told("the disk is full"), 5);
    assert!(matches!(passing.stand, Stand::Starting(_)), "{passing:?}");

    let mut again = told("QuorumLost: round 2 had 1 of at least 3 clients");
    again.server.as_mut().unwrap().created = at(1);
    let decision = decided(&run(Some(Phase::Running)), &again, 5);
    assert!(matches!(decision.stand, Stand::Starting(_)), "it was told of an earlier attempt: {decision:?}");
}
