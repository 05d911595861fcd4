//! Manifests as a user applies them: pods train them, and the adapter on the claim is a local run's to the last bit.
//! Must not look at how.

use fedtune_crds::status::Phase;
use fedtune_tests::{
    cluster::Cluster,
    experiment::{Experiment, manifests},
};

/// One of each framework, which are run first.
const FRAMEWORKS: [&str; 3] = ["fedllm", "kd", "split-v1"];

async fn gives_the_adapter_of_a_local_run(manifest: &str, patches: &[&str]) {
    let cluster = Cluster::with_operator().await;
    let experiment = Experiment::new(cluster, manifest, patches);
    let (namespace, results) = cluster.experiment(manifest).await;
    let status = experiment.run_on(cluster, &namespace).await.status.expect("a run that has ended has a status");
    assert_eq!(status.phase, Some(Phase::Succeeded), "{manifest}: {:?}", status.message);
    let refused = cluster.refused_to_operator();
    assert!(refused.is_empty(), "the chart grants too little: {refused:#?}");
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn each_framework_trains_in_pods_to_the_bits_of_a_local_run() {
    for manifest in FRAMEWORKS {
        gives_the_adapter_of_a_local_run(manifest, &["shrink"]).await;
    }
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn every_other_manifest_does_so_too() {
    for manifest in manifests().iter().filter(|manifest| !FRAMEWORKS.contains(&manifest.as_str())) {
        gives_the_adapter_of_a_local_run(manifest, &["shrink"]).await;
    }
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_manifest_that_nobody_shrank_does_so_too() {
    gives_the_adapter_of_a_local_run("fedllm", &[]).await;
}
