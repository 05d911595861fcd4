//! What becomes of a run's own objects: certificates that are renewed, names that somebody has taken, volumes that are full,
//! what an attempt finds of the one before.
//! Must not touch a pod: `life.rs` does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fedtune_crds::{FederatedFineTune, status::Phase};
use fedtune_tests::{
    cluster::Cluster,
    experiment::{Experiment, has_ended, has_round, says, workspace},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, runtime::wait::await_condition};
use serde_json::json;

/// Annotation of a Secret with a certificate.
const RENEW_AT: &str = "fedtune.io/renew-at";

/// A small experiment in a namespace of its own, and the folder of its results.
async fn experiment(cluster: &Cluster) -> (Experiment, String, PathBuf) {
    let (namespace, results) = cluster.experiment("children").await;
    (Experiment::new(cluster, "fedllm", &["shrink"]), namespace, results)
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn certificates_that_are_renewed_in_mid_run_change_no_bit_of_the_adapter() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, results) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(12));
    experiment.apply(cluster, &namespace);
    experiment.wait(cluster, &namespace, has_round(1)).await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client().await, &namespace);
    let of_server = format!("{}-tls-server", experiment.name());
    let before = secrets.get(&of_server).await.expect("a run has certificates");
    let due = format!("{RENEW_AT}=2020-01-01T00:00:00Z");
    let words = ["annotate", "secret", &of_server, &due, "--overwrite", "--namespace", &namespace];
    let _annotated = cluster.kubectl(&words, "").well();
    let certificate = |secret: &Secret| secret.data.as_ref().and_then(|data| data.get("tls.crt")).cloned();
    let was = certificate(&before);
    let is_renewed = |secret: Option<&Secret>| secret.is_some_and(|secret| certificate(secret) != was);
    let renewed =
        await_condition(secrets, &of_server, is_renewed).await.expect("it can be watched").expect("it is there");
    assert!(renewed.annotations()[RENEW_AT] > before.annotations()[RENEW_AT], "{:?}", renewed.annotations());
    // One that joins from now on has a certificate of the renewal, and finds a server that may still show the one before.
    let client = "app.kubernetes.io/component=client,batch.kubernetes.io/job-completion-index=1";
    experiment.kill(cluster, &namespace, client);
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_job_of_somebody_else_is_left_as_it_is_until_its_name_is_free() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, _) = experiment(cluster).await;
    experiment.set("/spec/training/rounds", json!(1));
    let name = format!("{}-server", experiment.name());
    let container = json!({"name": "idle", "image": "localhost/pause:1"});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    });
    let _made = cluster.kubectl(&["create", "--namespace", &namespace, "--filename", "-"], &job.to_string()).well();
    experiment.apply(cluster, &namespace);
    let words = [&format!("Job {name} was made by somebody else"), "left as it is"];
    experiment.wait(cluster, &namespace, says(&words)).await;
    let _gone = cluster.kubectl(&["delete", "job", &name, "--namespace", &namespace], "").well();
    experiment.succeeds(cluster, &namespace).await;
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_checkpoint_volume_that_is_full_is_said_and_the_run_goes_on_when_it_has_grown() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, results) = experiment(cluster).await;
    experiment.set("/spec/server/checkpoint", json!({"existingClaim": "small"}));
    cluster.claim_limited(&namespace, "small", "256Ki").await;
    experiment.apply(cluster, &namespace);
    let words = [&format!("pod {}-server", experiment.name()), "No space left on device"];
    experiment.wait(cluster, &namespace, says(&words)).await;
    cluster.grow_claim(&namespace, "small", "64Mi");
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_run_that_failed_for_want_of_its_model_succeeds_at_a_higher_attempt_once_the_model_is_there() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, results) = experiment(cluster).await;
    let models = cluster.claim_empty(&namespace, "late-models").await;
    for part in ["server", "clients/groups/0"] {
        let claim = format!("/spec/{part}/template/spec/volumes/0/persistentVolumeClaim/claimName");
        experiment.set(&claim, json!("late-models"));
    }
    experiment.apply(cluster, &namespace);
    let failed = experiment.wait(cluster, &namespace, has_ended()).await.status.expect("it has ended");
    assert_eq!(failed.phase, Some(Phase::Failed), "{:?}", failed.message);
    assert!(failed.message.as_deref().unwrap_or_default().contains(".cache/models/minilm"), "{:?}", failed.message);
    copy(&workspace().join(".cache/models/minilm"), &models.join("minilm"));
    experiment.patch(cluster, &namespace, &json!({"spec": {"attempt": 1}}));
    let is_at_it = |run: Option<&FederatedFineTune>| run.and_then(|run| run.status.as_ref()?.attempt) == Some(1);
    experiment.wait(cluster, &namespace, is_at_it).await;
    experiment.succeeds(cluster, &namespace).await;
    experiment.assert_bits_of_a_local_run(&results);
}

/// Copies the files of a folder that has no other folder in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a volume of a test can be written");
    for entry in fs::read_dir(from).expect("make setup brought it") {
        let file = entry.expect("a folder can be listed").path();
        let name = file.file_name().expect("a file has a name");
        let _bytes = fs::copy(&file, to.join(name)).expect("a volume of a test can be written");
    }
}

/// A resource of a later version, which this operator cannot read, is told so, and what can be read is looked at.
#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_resource_that_the_operator_cannot_read_says_so_and_holds_up_no_other() {
    let cluster = Cluster::with_operator().await;
    let (mut experiment, namespace, _) = experiment(cluster).await;
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let loosen = json!([{"op": "replace", "path": schema, "value": anything}]).to_string();
    let words = ["patch", "crd", "federatedfinetunes.fedtune.io", "--type=json", "--patch", &loosen];
    let _loosened = cluster.kubectl(&words, "").well();
    let unreadable = json!({
        "apiVersion": "fedtune.io/v1alpha1", "kind": "FederatedFineTune", "metadata": {"name": "of-tomorrow"},
        "spec": {"framework": {"telepathy": {}}, "model": 7},
    });
    let made = cluster.kubectl(&["create", "--namespace", &namespace, "--filename", "-"], &unreadable.to_string());
    cluster.install_definition().await;
    let _made = made.well();
    let resource = "fft/of-tomorrow";
    let waits = ["wait", resource, "--namespace", &namespace, "--for=condition=Stalled", "--timeout=60s"];
    let _told = cluster.kubectl(&waits, "").well();
    let message = "--output=jsonpath={.status.message}";
    let said = cluster.kubectl(&["get", resource, "--namespace", &namespace, message], "").well().stdout;
    assert!(said.starts_with("this operator cannot read the resource: "), "{said}");
    experiment.set("/spec/training/rounds", json!(1));
    experiment.apply(cluster, &namespace);
    experiment.succeeds(cluster, &namespace).await;
    let _gone = cluster.kubectl(&["delete", resource, "--namespace", &namespace, "--timeout=60s"], "").well();
}
