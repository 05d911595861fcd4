//! Runs whose operator is another one at their end than at their begin: upgraded from the first release, taken away and installed
//! again.
//! Must not leave another operator behind than it found: all tests share it.

use std::time::Instant;

use fedtune_crds::status::Phase;
use fedtune_tests::{
    cluster::Cluster,
    experiment::{Experiment, has_round, note},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, ObjectMeta},
};
use serde_json::json;

/// The first release, from which all later ones must be upgrades without a trace.
const FIRST: &str = "v0.1.0";
const OURS: &str = "app.kubernetes.io/managed-by=fedtune-operator";

/// Name, uid and generation of the Jobs, and name and uid of the pods: what a restart or a change would alter.
async fn trace(cluster: &Cluster, namespace: &str) -> Vec<(String, Option<String>, Option<i64>)> {
    let client = cluster.client().await;
    let (jobs, pods): (Api<Job>, Api<Pod>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace));
    let ours = ListParams::default().labels(OURS);
    let jobs = jobs.list(&ours).await.expect("Jobs can be listed");
    let pods = pods.list(&ours).await.expect("pods can be listed");
    let row = |meta: &ObjectMeta| (meta.name.clone().unwrap_or_default(), meta.uid.clone(), meta.generation);
    assert_eq!((jobs.items.len(), pods.items.len()), (2, 5), "a run has a server and a group of four clients");
    jobs.iter().map(|job| row(&job.metadata)).chain(pods.iter().map(|pod| row(&pod.metadata))).collect()
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn an_upgrade_from_the_first_release_leaves_no_trace_in_a_run_under_way() {
    let cluster = Cluster::with_operator().await;
    let (namespace, results) = cluster.experiment("upgrades").await;
    cluster.change_operator_to(FIRST);
    let mut experiment = Experiment::new(cluster, "fedllm", &["shrink"]);
    experiment.set("/spec/training/rounds", json!(60));
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(1)).await;
    let before = trace(cluster, &namespace).await;
    cluster.change_operator_back();
    let at_upgrade = experiment.now(cluster, &namespace).await;
    assert_eq!(at_upgrade.phase, Some(Phase::Running), "{:?}", at_upgrade.message);
    assert_eq!(trace(cluster, &namespace).await, before, "the upgrade touched what runs");
    experiment.wait(cluster, &namespace, has_round(at_upgrade.round.unwrap_or(0) + 1)).await;
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_run_goes_on_without_an_operator_and_the_next_one_sees_it_to_its_end() {
    let cluster = Cluster::with_operator().await;
    let (namespace, results) = cluster.experiment("upgrades").await;
    let mut experiment = Experiment::new(cluster, "fedllm", &["shrink"]);
    experiment.set("/spec/training/rounds", json!(30));
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(1)).await;
    let before = trace(cluster, &namespace).await;
    cluster.uninstall_operator();
    assert_eq!(trace(cluster, &namespace).await, before, "the run went with its operator");
    let left_at = experiment.now(cluster, &namespace).await;
    assert_eq!(left_at.phase, Some(Phase::Running), "{:?}", left_at.message);
    let server = format!("job/{}-server", experiment.name());
    let complete = ["wait", &server, "--namespace", &namespace, "--for=condition=Complete", "--timeout=300s"];
    let _complete = cluster.kubectl(&complete, "").well();
    let began = Instant::now();
    cluster.install_operator_again(&["trainer.lingerSeconds=0"]);
    let installed = began.elapsed();
    let mut first = Experiment::new(cluster, "fedllm", &["shrink"]);
    first.rename("first-after-install");
    first.apply(cluster, &namespace);
    first.succeeds(cluster, &namespace).await;
    note(format_args!(
        "helm install took {:.1} s, and its first run had succeeded after {:.1} s",
        installed.as_secs_f64(),
        began.elapsed().as_secs_f64()
    ));
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}
