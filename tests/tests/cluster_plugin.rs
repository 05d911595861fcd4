//! `kubectl fedtune` at a real API server: what it shows, and what it says where it may not look.
//! Must not train anything.

use std::{fs, path::Path, process::Command};

use fedtune_crds::status::Phase;
use fedtune_tests::{
    Ended, Running,
    cluster::operated::{Operated, RUN, last_words},
    plugin,
};
use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

fn kubectl_fedtune(bench: &Operated, kubeconfig: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(plugin());
    command.args(arguments).args(["--namespace", &bench.namespace]).env("KUBECONFIG", kubeconfig);
    Running::start(&mut command).wait()
}

/// A finished run.
async fn finished() -> Operated {
    let bench = Operated::with_operator().await;
    bench.apply(RUN);
    bench.until_of::<Job>("mail-server", "there", |_| true).await;
    let pod = bench.make_pod("mail-server").await;
    bench.pod_runs(&pod).await;
    let run = bench.until_phase(Phase::Running).await;
    bench.pod_ends(&pod, 0, &last_words(&run)).await;
    bench.job_ends("mail-server", ("SuccessCriteriaMet", "Complete")).await;
    bench.until_phase(Phase::Succeeded).await;
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_an_experiment_are_compared_by_their_status() {
    let bench = finished().await;
    let experiment = bench.kubectl(&["get", "fft", "mail", "--output=jsonpath={.spec.experiment}"], "");
    let table = kubectl_fedtune(&bench, &bench.cluster.kubeconfig(), &["compare", &experiment]).well().stdout;
    let row: Vec<&str> = table.lines().nth(1).expect("there is a run").split_whitespace().collect();
    assert_eq!(row[..5], ["mail", "FedLLM", "Succeeded", "10/10", "0.8604"], "{table}");
    let none = kubectl_fedtune(&bench, &bench.cluster.kubeconfig(), &["compare", "another"]);
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("there is no run of the experiment another in the namespace"), "{}", none.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_in_a_sentence() {
    let bench = Operated::new().await;
    let config = bench.cluster.kubeconfig();
    let missing = kubectl_fedtune(&bench, &config, &["logs", "nobody"]);
    assert!(
        missing.code == Some(1) && missing.stderr.contains("there is no run nobody in the namespace"),
        "{missing:?}"
    );
    bench.apply(RUN);
    let unseen = kubectl_fedtune(&bench, &config, &["logs", "mail"]);
    assert!(unseen.stderr.contains("the run mail has no pods: the operator has not seen it yet"), "{unseen:?}");
    let nowhere = kubectl_fedtune(&bench, Path::new("/nonexistent/kubeconfig"), &["compare", "mail"]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("no cluster is named by KUBECONFIG"), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named() {
    let bench = Operated::new().await;
    bench.apply(RUN);
    let text = fs::read_to_string(bench.cluster.kubeconfig()).expect("a cluster has a kubeconfig");
    let mut config: Value = serde_json::from_str(&text).expect("it is written as JSON");
    config["users"][0]["user"]["as"] = json!("nobody-in-particular");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("kubeconfig");
    fs::write(&file, config.to_string()).expect("a temporary folder can be written");
    let refused = kubectl_fedtune(&bench, &file, &["compare", "mail"]);
    assert_eq!(refused.code, Some(1));
    let words = [
        "the right to list federatedfinetunes in the namespace",
        &bench.namespace,
        "is missing",
        "nobody-in-particular",
    ];
    assert!(words.iter().all(|word| refused.stderr.contains(word)), "{}", refused.stderr);
}
