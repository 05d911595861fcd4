//! What a person reads when a run does not get on.

use super::*;
use crate::controller::testing::*;

fn sentence(seen: &Observed) -> String {
    why(seen, &Answers::default())
        .map_or_else(String::new, |trouble| format!("{}: {}", trouble.reason, trouble.sentence))
}

fn pending(state: State) -> Observed {
    with_pods(jobs(), [client_pod("mail-clients-silo-1-x", 1, PodPhase::Pending, state)])
}

#[test]
fn nothing_keeps_a_run_from_getting_on_whose_pods_run() {
    assert_eq!(sentence(&with_pods(jobs(), [server_pod(PodPhase::Running, State::Running)])), "");
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_with_its_pod() {
    for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"] {
        let seen = pending(waiting(reason, "no such image nowhere/x"));
        assert_eq!(
            sentence(&seen),
            "ImagePullFailed: pod mail-clients-silo-1-x: its image cannot be pulled: no such image nowhere/x"
        );
    }
}

#[test]
fn a_pod_without_a_node_is_told_in_the_schedulers_words() {
    let pod = PodView {
        unschedulable: Some("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.".to_owned()),
        ..server_pod(PodPhase::Pending, waiting("", ""))
    };
    assert_eq!(
        sentence(&with_pods(jobs(), [pod])),
        "Unschedulable: pod mail-server-0-x cannot be scheduled: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    );
}

#[test]
fn a_pod_that_had_too_little_memory_is_told_with_a_cure_while_its_successor_is_not_ready() {
    let dead = client_pod("mail-clients-silo-1-a", 1, PodPhase::Failed, exited(137, "OOMKilled", ""));
    let next = client_pod("mail-clients-silo-1-b", 1, PodPhase::Pending, waiting("ContainerCreating", ""));
    let seen = with_pods(jobs(), [dead.clone(), next.clone()]);
    assert!(sentence(&seen).starts_with("OutOfMemory: pod mail-clients-silo-1-a was killed for lack of memory; raise"));
    let ready = PodView { ready: true, phase: PodPhase::Running, ..next };
    assert_eq!(sentence(&with_pods(jobs(), [dead, ready])), "");
}

#[test]
fn the_trainers_own_sentence_is_repeated() {
    let dead = client_pod("mail-clients-silo-1-a", 1, PodPhase::Failed, exited(78, "Error", "column label is missing"));
    assert_eq!(sentence(&with_pods(jobs(), [dead])), "PodFailed: pod mail-clients-silo-1-a: column label is missing");
}

#[test]
fn a_pod_that_was_told_to_stop_is_no_trouble_for_the_next() {
    let stopped = client_pod("mail-clients-silo-1-a", 1, PodPhase::Failed, exited(143, "Error", ""));
    let next = client_pod("mail-clients-silo-1-b", 1, PodPhase::Pending, waiting("ContainerCreating", ""));
    assert_eq!(sentence(&with_pods(jobs(), [stopped, next])), "");
}

#[test]
fn the_servers_trouble_comes_before_a_clients() {
    let client = client_pod("mail-clients-silo-1-x", 1, PodPhase::Pending, waiting("ErrImagePull", "a"));
    let server = server_pod(PodPhase::Pending, waiting("ErrImagePull", "b"));
    assert!(sentence(&with_pods(jobs(), [client, server])).contains("mail-server-0-x"));
}

#[test]
fn events_are_read_of_pods_that_have_been_pending_for_ten_seconds_and_say_nothing() {
    let silent = pending(waiting("ContainerCreating", ""));
    assert_eq!(questions(&silent, at(9)), Questions::default());
    assert_eq!(patience_ends(&silent, at(9)), Some(SignedDuration::from_secs(1)));
    for (age, next) in [(10, 10), (40, 40), (4000, 300)] {
        assert_eq!(patience_ends(&silent, at(age)), Some(SignedDuration::from_secs(next)), "after {age} s");
    }
    let asked = questions(&silent, at(10)).events_of;
    assert_eq!(asked.iter().map(|subject| subject.name.as_str()).collect::<Vec<_>>(), ["mail-clients-silo-1-x"]);
    assert_eq!(questions(&pending(waiting("ErrImagePull", "a")), at(10)), Questions::default(), "it says enough");

    let note = "MountVolume.SetUp failed for volume \"mail\" : secret \"key\" not found".to_owned();
    let warning = Warning { reason: "FailedMount".to_owned(), note };
    let warnings = [("uid-of-mail-clients-silo-1-x".to_owned(), warning)].into();
    let trouble = why(&silent, &Answers { warnings, namespace_ends: false }).unwrap();
    assert_eq!(
        (trouble.reason, trouble.sentence.as_str()),
        (
            "VolumeNotMounted",
            "pod mail-clients-silo-1-x: a volume cannot be mounted: MountVolume.SetUp failed for volume \"mail\" : secret \"key\" not found"
        )
    );
}

#[test]
fn a_job_that_cannot_make_pods_is_asked_about_and_the_quota_named() {
    let mut seen = jobs();
    seen.clients[0].active = 0;
    let asked = questions(&seen, at(10)).events_of;
    assert_eq!(asked.iter().map(|subject| subject.name.as_str()).collect::<Vec<_>>(), ["mail-clients-silo"]);
    let warning = Warning { reason: "FailedCreate".to_owned(), note: "exceeded quota: small".to_owned() };
    let warnings = [("uid-of-mail-clients-silo".to_owned(), warning)].into();
    let trouble = why(&seen, &Answers { warnings, namespace_ends: false }).unwrap();
    assert_eq!(trouble.sentence, "Job mail-clients-silo: its pods cannot be made: exceeded quota: small");
}

#[test]
fn an_evicted_server_is_told_in_the_kubelets_words() {
    let seen = Observed { server: Some(failed_job("mail-server")), ..jobs() };
    let pod = PodView {
        ended_because: Some("The node was low on resource: memory.".to_owned()),
        ..server_pod(PodPhase::Failed, exited(137, "Error", ""))
    };
    let trouble = why_the_server_failed(&with_pods(seen, [pod]), "BackoffLimitExceeded", "too often");
    assert_eq!(trouble.sentence, "pod mail-server-0-x was ended: The node was low on resource: memory.");
}

#[test]
fn a_failure_is_counted_by_the_name_that_the_server_gave_it() {
    let seen = Observed { server: Some(failed_job("mail-server")), ..jobs() };
    for (sentence, reason) in [
        ("QuorumLost: round 2 had 1 of at least 3 clients after 900s", "QuorumLost"),
        ("client silo/1: NonFiniteLoss: the loss of silo/1 became NaN in round 1, step 2", "NonFiniteLoss"),
        ("the disk is full", "PodFailed"),
    ] {
        let pod = server_pod(PodPhase::Failed, exited(1, "Error", sentence));
        let trouble = why_the_server_failed(&with_pods(seen.clone(), [pod]), "BackoffLimitExceeded", "too often");
        assert_eq!((trouble.reason, trouble.sentence), (reason, format!("pod mail-server-0-x: {sentence}")));
    }
}
