//! Two operators at one cluster, as processes: one works, the other takes over when it is gone.
//! Must not look into the Lease: what counts is who works and when.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use fedtune_tests::{Running, cluster::Cluster, operator};

/// A take-over may take so long with the operator's own timing.
const GOAL: Duration = Duration::from_secs(20);

fn start(cluster: &Cluster, namespace: &str, identity: &str) -> Running {
    let mut command = Command::new(operator());
    command.args(["run", "--trainer-image", "registry.example.com/fedtune:test", "--identity", identity]);
    command.args(["--namespace", namespace, "--operator-namespace", namespace, "--listen", "127.0.0.1:0"]);
    Running::start(command.env("KUBECONFIG", cluster.kubeconfig()).env("RUST_LOG", "info"))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_operator_takes_over_in_time_when_the_leader_is_killed_and_at_once_when_it_is_stopped() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("leader").await;
    let mut first = start(cluster, &namespace, "first");
    first.wait_for(&["leads", "first"]);
    let mut second = start(cluster, &namespace, "second");
    second.wait_for(&["probes and metrics are served"]);

    let killed = Instant::now();
    first.signal("KILL");
    second.wait_for(&["leads", "second"]);
    let after_a_kill = killed.elapsed();
    assert!(after_a_kill < GOAL, "{after_a_kill:?}");

    let mut third = start(cluster, &namespace, "third");
    third.wait_for(&["probes and metrics are served"]);
    second.signal("TERM");
    assert_eq!(second.wait().code, Some(0));
    let stopped = Instant::now();
    third.wait_for(&["leads", "third"]);
    assert!(stopped.elapsed() < after_a_kill, "a lease that is given back is not waited for");
}

#[test]
fn an_operator_without_a_cluster_says_so() {
    let mut command = Command::new(operator());
    command.args(["run", "--trainer-image", "x"]).env("KUBECONFIG", "/nowhere").env_remove("KUBERNETES_SERVICE_HOST");
    let ended = Running::start(&mut command).wait();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("there is no cluster"), "{ended:?}");
}

#[test]
fn times_with_which_two_could_lead_at_once_are_refused() {
    let mut command = Command::new(operator());
    command.args(["run", "--trainer-image", "x", "--lease-seconds", "5"]);
    let ended = Running::start(&mut command).wait();
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("--renew-deadline-seconds (10) must be less than --lease-seconds (5)"), "{ended:?}");
}
