//! Runs and what there is of them, as plain data, for the tests of pure steps.
//! Must not be part of the program.

use std::sync::Arc;

use fedtune_crds::{
    live::{LivePhase, LiveStatus},
    report::UpDown,
    status::Phase,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{build::Run, observe::Observed};
use crate::caches::{ContainerView, End, JobEnd, JobView, Part, PodPhase, PodView, State};

pub(crate) const UID: &str = "0b1c2d3e-0000-4000-8000-000000000001";

/// So many seconds after an arbitrary moment.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A run of two clients that stands in `phase`, began at 0 and, if it has ended, ended at 100.
pub(crate) fn run(phase: Option<Phase>) -> Run {
    let yaml = "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {name: mail, namespace: team, uid: 0b1c2d3e-0000-4000-8000-000000000001, generation: 1}
spec:
  framework: {fedLLM: {}}
  model: {source: {path: /model}}
  data: {source: {path: /data}, format: CSV}
  training: {rounds: 10}
";
    let mut run = fedtune_crds::load(yaml, &[]).unwrap();
    run.status = phase.map(|phase| {
        let mut status = super::status::begun(&run, "hash", at(0));
        status.phase = Some(phase);
        if matches!(phase, Phase::Succeeded | Phase::Failed) {
            status.completion_time = Some(Time(at(100)));
        }
        status
    });
    run
}

pub(crate) fn job(name: &str) -> JobView {
    JobView {
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        created: at(0),
        suspended: false,
        deleting: false,
        active: 1,
        end: None,
        image: None,
        config_map: None,
    }
}

pub(crate) fn failed_job(name: &str) -> JobView {
    let end = JobEnd::Failed { reason: "BackoffLimitExceeded".to_owned(), message: "too often".to_owned() };
    JobView { active: 0, end: Some(end), ..job(name) }
}

/// All Jobs run.
pub(crate) fn jobs() -> Observed {
    Observed {
        server: Some(job("mail-server")),
        clients: vec![job("mail-clients-silo")],
        config_map: Some("mail-run-1".to_owned()),
        ..Observed::default()
    }
}

pub(crate) fn server_pod(phase: PodPhase, state: State) -> PodView {
    pod("mail-server-0-x", Part::Server, phase, state)
}

pub(crate) fn client_pod(name: &str, index: u32, phase: PodPhase, state: State) -> PodView {
    pod(name, Part::Client { group: "silo".to_owned(), index }, phase, state)
}

fn pod(name: &str, part: Part, phase: PodPhase, state: State) -> PodView {
    let container = ContainerView { name: super::build::pod::TRAINER.to_owned(), state, last_end: None };
    PodView {
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        part,
        created: at(0),
        deleting: false,
        phase,
        ready: false,
        ip: Some("10.0.0.7".to_owned()),
        unschedulable: None,
        ended_because: None,
        containers: vec![container],
    }
}

pub(crate) fn with_pods(seen: Observed, pods: impl IntoIterator<Item = PodView>) -> Observed {
    Observed { pods: pods.into_iter().map(Arc::new).collect(), ..seen }
}

pub(crate) fn exited(code: i32, reason: &str, message: &str) -> State {
    State::Ended(End { code, reason: reason.to_owned(), message: message.to_owned() })
}

pub(crate) fn waiting(reason: &str, message: &str) -> State {
    State::Waiting { reason: reason.to_owned(), message: message.to_owned() }
}

pub(crate) fn live(phase: LivePhase, round: u32) -> LiveStatus {
    LiveStatus {
        uid: UID.to_owned(),
        epoch: 1,
        seq: 1,
        phase,
        round,
        rounds: 10,
        clients_ready: 2,
        clients: 2,
        accuracy: Some(0.8604),
        loss: Some(0.31),
        payload_bytes: 413_492,
        payload: UpDown { up: 400_000, down: 13_492 },
        wire: UpDown { up: 400_100, down: 13_500 },
        client_flops: 3.1e15,
        client_seconds: 12.5,
        eta_seconds: Some(720.0),
        waiting_for: Vec::new(),
        since: Time(at(50)),
        stop_reason: (phase == LivePhase::Succeeded).then(|| "rounds".to_owned()),
        message: format!("round {round} of 10 is done"),
    }
}
