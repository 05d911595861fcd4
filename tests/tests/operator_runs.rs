//! The operator against a real API server: from an applied resource to its children, its status and its end.
//! Must not train anything.

use fedtune_crds::status::Phase;
use fedtune_tests::cluster::operated::{Operated, RUN, holds, last_words, of, says};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Secret, Service},
    events::v1::Event,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_resource_has_all_its_children_and_its_spec_is_fixed() {
    let bench = Operated::with_operator().await;
    bench.apply(RUN);
    let run = bench.until_phase(Phase::Starting).await;
    assert_eq!(of(&run).observed_generation, run.metadata.generation);
    bench.until_of::<Job>("mail-clients-silo", "there", |_| true).await;
    assert_eq!(bench.names::<Job>().await, ["mail-clients-silo", "mail-server"]);
    assert_eq!(bench.names::<Secret>().await, ["mail-ca", "mail-tls-server", "mail-tls-silo"]);
    assert_eq!(bench.names::<Service>().await, ["mail-server"]);
    let maps = bench.names::<ConfigMap>().await;
    assert!(maps.len() == 1 && maps[0].starts_with("mail-run-"), "{maps:?}");

    let change = bench.cluster.kubectl(
        &["--namespace", &bench.namespace, "patch", "fft", "mail", "--type=merge", "-p", "{\"spec\": {\"seed\": 7}}"],
        "",
    );
    assert!(change.stderr.contains("seed is fixed once the run has started"), "{change:?}");
    // Ten children, and the status when it began.
    assert_eq!(bench.writes("mail"), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_from_starting_to_succeeded_and_keeps_the_servers_last_words() {
    let bench = Operated::with_operator().await;
    bench.apply(RUN);
    bench.until_of::<Job>("mail-server", "there", |_| true).await;
    let pod = bench.make_pod("mail-server").await;
    bench.pod_runs(&pod).await;
    let run = bench.until_phase(Phase::Running).await;
    assert!(holds(&run, "Reconciling") && !holds(&run, "Ready"));

    bench.pod_ends(&pod, 0, &last_words(&run)).await;
    bench.job_ends("mail-server", ("SuccessCriteriaMet", "Complete")).await;
    let status = of(&bench.until_phase(Phase::Succeeded).await);
    assert_eq!(status.progress.as_deref(), Some("10/10"));
    assert_eq!((status.accuracy.as_deref(), status.bytes.as_deref()), (Some("0.860"), Some("413 kB")));
    bench.kubectl(&["wait", "--for=condition=Complete", "fft/mail", "--timeout=5s"], "");

    // It never restarts, whatever is deleted.
    bench.kubectl(&["delete", "job", "mail-server"], "");
    bench.kubectl(
        &[
            "patch",
            "fft",
            "mail",
            "--type=merge",
            "-p",
            "{\"spec\": {\"ttlSecondsAfterFinished\": null, \"suspend\": true}}",
        ],
        "",
    );
    let run = bench.until("seen again", |run| of(run).observed_generation == run.metadata.generation).await;
    assert_eq!(of(&run).phase, Some(Phase::Succeeded));

    let events: Vec<Event> = bench.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let told = |reason: &str| events.iter().filter(|event| event.reason.as_deref() == Some(reason)).count();
    assert_eq!(["Starting", "Running", "Succeeded"].map(told), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_server_fails_the_run_in_its_own_words_and_a_higher_attempt_begins_anew() {
    let bench = Operated::with_operator().await;
    bench.apply(RUN);
    bench.until_of::<Job>("mail-clients-silo", "there", |_| true).await;
    let pod = bench.make_pod("mail-server").await;
    bench.pod_ends(&pod, 78, "column text is missing in /data/mail.csv; there are: a, b").await;
    bench.job_ends("mail-server", ("FailureTarget", "Failed")).await;
    let run = bench.until_phase(Phase::Failed).await;
    assert!(says(&run, "pod mail-server-0-pod: column text is missing in /data/mail.csv; there are: a, b"));
    assert!(holds(&run, "Failed") && holds(&run, "Stalled"));

    bench.kubectl(&["patch", "fft", "mail", "--type=merge", "-p", "{\"spec\": {\"attempt\": 1}}"], "");
    bench.until_of::<Job>("mail-server-1", "there", |_| true).await;
    let run = bench.until("of attempt 1", |run| of(run).attempt == Some(1)).await;
    assert_eq!((of(&run).phase, of(&run).completion_time), (Some(Phase::Starting), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_is_waited_for_by_name() {
    let bench = Operated::with_operator().await;
    let hub = "{huggingFace: {repo: a/b, tokenSecretRef: {name: hub, key: token}}}";
    bench.apply(&RUN.replace("{path: /model}", hub));
    let run =
        bench.until("waiting", |run| says(run, "Secret hub (spec.model.source.huggingFace.tokenSecretRef)")).await;
    assert_eq!((of(&run).phase, holds(&run, "Reconciling")), (Some(Phase::Pending), true));
    assert_eq!(bench.names::<ConfigMap>().await, [""; 0], "nothing is made before");
    bench.kubectl(&["create", "secret", "generic", "hub", "--from-literal=token=x"], "");
    bench.until_phase(Phase::Starting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_kubernetes_refuses_is_told_in_its_words_and_can_be_corrected() {
    let bench = Operated::with_operator().await;
    let with = |template: &str| format!("{RUN}  server: {{template: {{spec: {template}}}}}\n");
    bench.apply(&with("{nodeSelectro: {pool: gpu}}"));
    let run = bench.until("refused", |run| says(run, "unknown field \"spec.template.spec.nodeSelectro\"")).await;
    assert!(holds(&run, "Stalled"));
    bench.apply(&with("{priorityClassName: not-there}"));
    bench.until("refused", |run| says(run, "no PriorityClass with name not-there was found")).await;
    assert_eq!(bench.names::<ConfigMap>().await, [""; 0], "nothing is made before");
    bench.apply(&with("{nodeSelector: {pool: gpu}}"));
    bench.until_phase(Phase::Starting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_somebody_else_is_left_as_it_is() {
    let bench = Operated::with_operator().await;
    bench.kubectl(&["create", "secret", "generic", "mail-ca", "--from-literal=mine=1"], "");
    bench.apply(RUN);
    let run = bench.until("refused", |run| says(run, "Secret mail-ca was made by somebody else")).await;
    assert!(holds(&run, "Stalled"));
    let secret: Secret = bench.api().get("mail-ca").await.unwrap();
    assert!(secret.data.unwrap().contains_key("mine") && secret.metadata.owner_references.is_none());
    bench.kubectl(&["delete", "secret", "mail-ca"], "");
    bench.until_of::<Job>("mail-server", "there", |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_of_a_run_is_made_again() {
    let bench = Operated::with_operator().await;
    bench.apply(RUN);
    bench.until_of::<Job>("mail-clients-silo", "there", |_| true).await;
    let map = bench.names::<ConfigMap>().await.remove(0);
    let was: ConfigMap = bench.api().get(&map).await.unwrap();
    let (ca, leaf): (Secret, Secret) =
        (bench.api().get("mail-ca").await.unwrap(), bench.api().get("mail-tls-silo").await.unwrap());
    bench.api::<ConfigMap>().delete(&map, &DeleteParams::default()).await.unwrap();
    bench.api::<Service>().delete("mail-server", &DeleteParams::default()).await.unwrap();
    bench.api::<Secret>().delete("mail-ca", &DeleteParams::default()).await.unwrap();
    let again = bench.until_of::<ConfigMap>(&map, "there again", |found| found.uid() != was.uid()).await;
    assert_eq!(again.data, was.data);
    bench.until_of::<Service>("mail-server", "there again", |_| true).await;
    bench.until_of::<Secret>("mail-ca", "another", |found| found.data != ca.data).await;
    bench.until_of::<Secret>("mail-tls-silo", "of the new CA", |found| found.data != leaf.data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_reaches_every_job_and_is_lifted_again() {
    let bench = Operated::with_operator().await;
    bench.apply(&RUN.replace("spec:", "spec:\n  suspend: true"));
    let suspended = |job: &Job| job.spec.as_ref().unwrap().suspend == Some(true);
    bench.until_of::<Job>("mail-clients-silo", "suspended", suspended).await;
    let run = bench.until_phase(Phase::Suspended).await;
    assert!(holds(&run, "Suspended"));
    bench.kubectl(&["patch", "fft", "mail", "--type=merge", "-p", "{\"spec\": {\"suspend\": false}}"], "");
    for job in ["mail-server", "mail-clients-silo"] {
        bench.until_of::<Job>(job, "resumed", |job| !suspended(job)).await;
    }
    let run = bench.until_phase(Phase::Starting).await;
    assert!(!holds(&run, "Suspended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_starts_again_writes_nothing() {
    let mut bench = Operated::with_operator().await;
    bench.apply(RUN);
    bench.until_of::<Job>("mail-clients-silo", "there", |_| true).await;
    bench.stop().await;
    let before = bench.writes("mail");
    bench.start();
    // What is done for a second resource is done after the first was looked at.
    bench.apply(&RUN.replace("name: mail", "name: news"));
    bench.until_of::<Job>("news-clients-silo", "there", |_| true).await;
    assert_eq!(bench.writes("mail"), before);
}

/// By the library's own rules: a run is in progress until it has succeeded, and failed where only a person can help.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_by_kstatus_wait_for_the_adapter() {
    let bench = Operated::with_operator().await;
    let seen = || bench.cluster.kstatus(&bench.kubectl(&["get", "fft", "mail", "--output=json"], ""));
    bench.apply(RUN);
    bench.until_of::<Job>("mail-server", "there", |_| true).await;
    assert_eq!(seen(), "InProgress");
    let pod = bench.make_pod("mail-server").await;
    bench.pod_runs(&pod).await;
    let run = bench.until_phase(Phase::Running).await;
    assert_eq!(seen(), "InProgress");
    bench.pod_ends(&pod, 0, &last_words(&run)).await;
    bench.job_ends("mail-server", ("SuccessCriteriaMet", "Complete")).await;
    bench.until_phase(Phase::Succeeded).await;
    assert_eq!(seen(), "Current");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_by_kstatus_are_told_of_a_failure() {
    let bench = Operated::with_operator().await;
    bench.apply(RUN);
    bench.until_of::<Job>("mail-clients-silo", "there", |_| true).await;
    let pod = bench.make_pod("mail-server").await;
    bench.pod_ends(&pod, 78, "no column").await;
    bench.job_ends("mail-server", ("FailureTarget", "Failed")).await;
    bench.until_phase(Phase::Failed).await;
    assert_eq!(bench.cluster.kstatus(&bench.kubectl(&["get", "fft", "mail", "--output=json"], "")), "Failed");
}
