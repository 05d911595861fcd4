//! What goes wrong with pods, and how the resource says so.
//! Must not repeat what the operator's tests say without a node.

use fedtune_crds::status::Phase;
use fedtune_tests::{
    cluster::Cluster,
    experiment::{Experiment, has_ended, says},
};
use serde_json::json;

/// A small experiment in a namespace of its own.
async fn experiment(cluster: &Cluster, manifest: &str) -> (Experiment, String) {
    let (namespace, _) = cluster.experiment("trouble").await;
    (Experiment::new(cluster, manifest, &["shrink"]), namespace)
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn an_image_that_does_not_exist_is_named_with_its_pod() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace) = experiment(cluster, "fedllm").await;
    experiment.set("/spec/image", json!("localhost/fedtune:never-built"));
    experiment.apply(cluster, &namespace);
    let name = experiment.name();
    let words = [&format!("pod {name}-server"), "its image cannot be pulled", "localhost/fedtune:never-built"];
    experiment.wait(cluster, &namespace, says(&words)).await;
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_cut_past_the_last_block_ends_the_run_in_the_trainers_words() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace) = experiment(cluster, "split-v1").await;
    experiment.set("/spec/framework/splitFedLLM/cutLayer", json!(99));
    experiment.apply(cluster, &namespace);
    let status = experiment.wait(cluster, &namespace, has_ended()).await.status.expect("it has ended");
    let message = status.message.unwrap_or_default();
    assert_eq!(status.phase, Some(Phase::Failed), "{message}");
    assert!(message.contains("cutLayer") && message.contains("99"), "{message}");
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_run_waits_for_a_claim_that_is_missing_and_goes_on_when_it_is_there() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace) = experiment(cluster, "fedllm").await;
    experiment.set("/spec/output/volume/existingClaim", json!("later"));
    experiment.apply(cluster, &namespace);
    let words = ["waiting for what is not in namespace", "PersistentVolumeClaim later"];
    experiment.wait(cluster, &namespace, says(&words)).await;
    cluster.claim_empty(&namespace, "later").await;
    let status = experiment.wait(cluster, &namespace, has_ended()).await.status.expect("it has ended");
    assert_eq!(status.phase, Some(Phase::Succeeded), "{:?}", status.message);
}
