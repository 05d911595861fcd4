//! What befalls a run on a node: its pods are killed, there is no room for them, an image comes late, its namespace ends.
//! Must not repeat what the operator's tests say without a node.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use fedtune_crds::status::Phase;
use fedtune_tests::{
    Running,
    cluster::Cluster,
    experiment::{Experiment, files, has_ended, has_round, says},
    plugin,
};
use kube::runtime::wait::Condition;
use serde_json::{Value, json};

/// Enough that a pod which is killed has something left to do.
const ROUNDS: u32 = 12;

/// A small experiment of more rounds in a namespace of its own, and the folder of its results.
async fn experiment(cluster: &Cluster) -> (Experiment, String, PathBuf) {
    let (namespace, results) = cluster.experiment("life").await;
    let mut experiment = Experiment::new(cluster, "fedllm", &["shrink"]);
    experiment.set("/spec/training/rounds", json!(ROUNDS));
    (experiment, namespace, results)
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_server_killed_in_mid_run_changes_no_bit_of_the_adapter() {
    let cluster = Cluster::with_operator().await;
    let (experiment, namespace, results) = experiment(cluster).await;
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(2)).await;
    experiment.kill(cluster, &namespace, "app.kubernetes.io/component=server");
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn clients_killed_three_times_change_no_bit_of_the_adapter() {
    let cluster = Cluster::with_operator().await;
    let (experiment, namespace, results) = experiment(cluster).await;
    experiment.apply(cluster, &namespace);
    for round in [1, 4, 7] {
        experiment.wait(cluster, &namespace, has_round(round)).await;
        experiment.kill(
            cluster,
            &namespace,
            "app.kubernetes.io/component=client,batch.kubernetes.io/job-completion-index=1",
        );
    }
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_run_that_was_suspended_goes_on_to_the_bits_of_a_local_run() {
    let cluster = Cluster::with_operator().await;
    let (experiment, namespace, results) = experiment(cluster).await;
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(2)).await;
    let suspend = |suspend: bool| experiment.patch(cluster, &namespace, &json!({"spec": {"suspend": suspend}}));
    suspend(true);
    let resource = format!("fft/{}", experiment.name());
    let suspended = "--for=condition=Suspended";
    let _waited =
        cluster.kubectl(&["wait", &resource, "--namespace", &namespace, suspended, "--timeout=120s"], "").well();
    let ours = "app.kubernetes.io/name=fedtune";
    let pods = cluster.kubectl(&["get", "pods", "--namespace", &namespace, "--selector", ours, "--output=name"], "");
    assert_eq!(pods.well().stdout, "", "a pod remains");
    suspend(false);
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_restart_of_the_api_server_changes_no_bit_of_the_adapter() {
    let cluster = Cluster::with_operator().await;
    let (experiment, namespace, results) = experiment(cluster).await;
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(2)).await;
    cluster.restart_api_server().await;
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_slow_etcd_changes_no_bit_of_the_adapter() {
    let cluster = Cluster::with_operator().await;
    let (experiment, namespace, results) = experiment(cluster).await;
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(1)).await;
    cluster.slow_etcd(experiment.succeeds(cluster, &namespace)).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_run_goes_on_when_its_operators_are_killed() {
    let cluster = Cluster::with_operator().await;
    let (experiment, namespace, results) = experiment(cluster).await;
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(2)).await;
    cluster.kill_operators();
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_node_that_is_silent_for_a_minute_changes_no_bit_of_the_adapter() {
    let cluster = Cluster::with_operator().await;
    let (experiment, namespace, results) = experiment(cluster).await;
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(2)).await;
    cluster.silence_node();
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_run_without_room_says_so_in_the_schedulers_words_and_runs_when_there_is_room() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, _) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(1));
    experiment.set("/spec/server/template/spec/containers/0/resources/requests/cpu", json!("1"));
    let cores = cluster.cores_of_node();
    fill_node(cluster, &namespace, &format!("{}m", 1000 * cores - 500));
    experiment.apply(cluster, &namespace);
    let words = [&format!("pod {}-server", experiment.name()), "Insufficient cpu"];
    let waiting = experiment.wait(cluster, &namespace, says(&words)).await.status.expect("it has a message");
    assert_eq!(waiting.phase, Some(Phase::Starting), "{:?}", waiting.message);
    let _gone = cluster.kubectl(&["delete", "pod", "filler", "--namespace", &namespace], "").well();
    experiment.succeeds(cluster, &namespace).await;
}

fn fill_node(cluster: &Cluster, namespace: &str, cpu: &str) {
    let container = json!({
        "name": "pause", "image": "localhost/pause:1", "resources": {"requests": {"cpu": cpu}},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let security = json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"},
        "spec": {"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 0},
    });
    let _made = cluster.kubectl(&["apply", "--namespace", namespace, "--filename", "-"], &pod.to_string()).well();
    let words = ["wait", "pod/filler", "--namespace", namespace, "--for=condition=PodScheduled", "--timeout=60s"];
    let _scheduled = cluster.kubectl(&words, "").well();
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_groups_image_that_comes_late_is_waited_for() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, _) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(1));
    experiment.set("/spec/clients/groups/0/template/spec/containers/0/image", json!("localhost/fedtune:late"));
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, says(&["cannot be pulled", "localhost/fedtune:late"])).await;
    cluster.tag_image(concat!("localhost/fedtune:", env!("CARGO_PKG_VERSION")), "localhost/fedtune:late");
    experiment.succeeds(cluster, &namespace).await;
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn one_file_under_two_names_is_two_runs_apart() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, results) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(2));
    let mut twin = experiment.clone();
    twin.rename("mail-twin");
    for run in [&experiment, &twin] {
        run.apply(cluster, &namespace);
    }
    for run in [&experiment, &twin] {
        run.succeeds(cluster, &namespace).await;
        run.assert_bits_of_a_local_run(&results);
    }
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn what_its_pods_said_and_its_adapter_are_fetched_by_kubectl_fedtune() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, results) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(1));
    experiment.apply(cluster, &namespace);
    experiment.succeeds(cluster, &namespace).await;
    let name = experiment.name();
    let said = kubectl_fedtune(cluster, &["logs", name, "--namespace", &namespace]);
    let who: BTreeSet<&str> = said.lines().filter_map(|line| Some(line.split_once(" | ")?.0)).collect();
    assert_eq!(who, BTreeSet::from(["server", "silo/0", "silo/1", "silo/2", "silo/3"]), "{said}");

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let fetched = |what: &str| {
        let into = folder.path().join(what);
        let _files =
            kubectl_fedtune(cluster, &[what, name, "--namespace", &namespace, "-o", &into.display().to_string()]);
        files(&into)
    };
    let there = files(&results.join(name));
    let adapter = fetched("adapter");
    assert!(
        !adapter.is_empty() && adapter.iter().all(|(file, content)| there[file] == *content),
        "{:?}",
        adapter.keys()
    );
    assert_eq!(fetched("report").keys().collect::<Vec<_>>(), ["report.html", "results.json"]);
    let pods = cluster.kubectl(&["get", "pods", "--namespace", &namespace, "--output=name"], "").well().stdout;
    assert!(!pods.contains("-results-"), "a pod is left: {pods}");
}

/// What it prints; it must succeed.
fn kubectl_fedtune(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut command = Command::new(plugin());
    command.args(arguments).env("KUBECONFIG", cluster.kubeconfig());
    Running::start(&mut command).wait().well().stdout
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_run_past_its_time_is_deleted_with_all_that_is_its_own() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, results) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(1));
    experiment.set("/spec/ttlSecondsAfterFinished", json!(0));
    experiment.apply(cluster, &namespace);
    let resource = format!("fft/{}", experiment.name());
    let waits = ["wait", &resource, "--namespace", &namespace, "--for=delete", "--timeout=300s"];
    let _gone = cluster.kubectl(&waits, "").well();
    let owned = ["wait", "jobs,secrets,services", "--all", "--namespace", &namespace, "--for=delete", "--timeout=120s"];
    let _gone_too = cluster.kubectl(&owned, "").well();
    let file = results.join(experiment.name()).join("results.json");
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("results stay")).expect("they are JSON");
    assert_eq!(report["name"], experiment.name(), "{report}");
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_namespace_with_a_running_run_ends_when_it_is_deleted() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, _) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(500));
    experiment.apply(cluster, &namespace);
    let run = experiment.wait(cluster, &namespace, has_round(1)).await;
    assert!(!has_ended().matches_object(Some(&run)), "{:?}", run.status);
    let _gone = cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=180s"], "").well();
}
