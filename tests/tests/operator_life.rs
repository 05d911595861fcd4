//! The worst nights of an operator, against a real API server: killed at any write, deadlines, ends that are final.
//! Must not train anything.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fedtune_crds::{FederatedFineTune, status::Phase};
use fedtune_tests::cluster::operated::{LIMIT, Operated, RUN, holds, last_words, of, says};
use http::{Method, Request};
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret};
use kube::{
    Client, ResourceExt,
    client::Body,
    runtime::wait::{await_condition, conditions::is_deleted},
};
use tokio::{sync::Notify, time::timeout};
use tower::service_fn;

/// A client whose writes get no answer and do not arrive once there were `limit` of them, as of an operator that was
/// killed then; says when that is. Events and dry runs are none.
fn dying_after(limit: usize, client: &Client) -> (Client, Arc<Notify>) {
    let (died, writes) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (inner, dead) = (client.clone(), died.clone());
    let service = service_fn(move |request: Request<Body>| {
        let (inner, dead, writes) = (inner.clone(), dead.clone(), writes.clone());
        async move {
            if is_write(&request) && writes.fetch_add(1, Ordering::SeqCst) >= limit {
                dead.notify_one();
                future::pending::<()>().await;
            }
            inner.send(request).await
        }
    });
    (Client::new(service, "default"), died)
}

fn is_write(request: &Request<Body>) -> bool {
    let uri = request.uri();
    let dry = uri.query().is_some_and(|query| query.contains("dryRun"));
    request.method() != Method::GET && !dry && !uri.path().contains("/events")
}

/// Whether each leaf was signed by the CA that is there: its Secret has the CA's certificate.
async fn leaves_are_of_the_ca(bench: &Operated) -> bool {
    let data = |secret: Secret| secret.data.unwrap_or_default();
    let ca = data(bench.api::<Secret>().get("mail-ca").await.unwrap());
    let certificate = &ca["tls.crt"];
    let mut all = true;
    for leaf in ["mail-tls-server", "mail-tls-silo"] {
        all &= data(bench.api::<Secret>().get(leaf).await.unwrap())["ca.crt"] == *certificate;
    }
    all
}

/// The name of a run's `ConfigMap` ends in a hash over its uid too.
fn without_hash(children: Vec<String>) -> Vec<String> {
    let cut = |child: String| child.split_once("-run-").map_or(child.clone(), |(name, _)| format!("{name}-run"));
    children.into_iter().map(cut).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_after_any_write_of_the_first_reconcile_leaves_what_the_next_one_completes() {
    let undisturbed = Operated::with_operator().await;
    undisturbed.apply(RUN);
    undisturbed.until_of::<Job>("mail-clients-silo", "there", |_| true).await;
    let (children, writes) = (without_hash(undisturbed.children().await), undisturbed.writes("mail"));
    assert_eq!(writes, children.len() + 1, "{children:?}");

    for killed_after in 0..writes {
        let mut bench = Operated::new().await;
        let (client, died) = dying_after(killed_after, &bench.client);
        bench.start_with(client);
        bench.apply(RUN);
        timeout(LIMIT, died.notified()).await.unwrap_or_else(|_| panic!("it has not written {killed_after} times"));
        bench.kill();
        bench.start();
        bench.until_of::<Job>("mail-clients-silo", "there", |_| true).await;
        bench.until_phase(Phase::Starting).await;
        assert_eq!(without_hash(bench.children().await), children, "killed after {killed_after} writes");
        assert!(leaves_are_of_the_ca(&bench).await, "killed after {killed_after} writes");
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_past_its_deadline_fails_and_leaves_no_job() {
    let bench = Operated::with_operator().await;
    bench.apply(&RUN.replace("spec:", "spec:\n  activeDeadlineSeconds: 1"));
    let run = bench.until_phase(Phase::Failed).await;
    assert!(says(&run, "has not ended within its activeDeadlineSeconds of 1"), "{run:?}");
    assert_eq!(of(&run).stop_reason.as_deref(), Some("DeadlineExceeded"));
    for job in ["mail-server", "mail-clients-silo"] {
        let gone = await_condition(bench.api::<Job>(), job, |found: Option<&Job>| {
            found.is_none_or(|found| found.metadata.deletion_timestamp.is_some())
        });
        timeout(LIMIT, Box::pin(gone)).await.unwrap_or_else(|_| panic!("{job} is still there")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_its_server_gave_up_ends_at_once_by_the_name_of_its_failure() {
    let bench = Operated::with_operator().await;
    bench.apply(RUN);
    bench.until_of::<Job>("mail-server", "there", |_| true).await;
    let pod = bench.make_pod("mail-server").await;
    bench.pod_ends(&pod, 1, "QuorumLost: round 2 had 1 of at least 2 clients after 900s").await;
    let run = bench.until_phase(Phase::Failed).await;
    assert_eq!(of(&run).stop_reason.as_deref(), Some("QuorumLost"), "the Job would try 20 times more");
    assert!(holds(&run, "Failed") && says(&run, "round 2 had 1 of at least 2 clients"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_time_after_the_end_is_over_is_deleted_and_not_before() {
    let bench = Operated::with_operator().await;
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: results}, spec: {accessModes: \
                 [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}";
    bench.apply(claim);
    let spec = "spec:\n  ttlSecondsAfterFinished: 2\n  output: {volume: {existingClaim: results}}";
    bench.apply(&RUN.replace("spec:", spec));
    bench.until_of::<Job>("mail-server", "there", |_| true).await;
    let pod = bench.make_pod("mail-server").await;
    let run = bench.until_phase(Phase::Starting).await;
    bench.pod_ends(&pod, 0, &last_words(&run)).await;
    bench.job_ends("mail-server", ("SuccessCriteriaMet", "Complete")).await;
    // It is seen to have succeeded before it goes.
    bench.until_phase(Phase::Succeeded).await;
    let uid = run.uid().unwrap();
    let gone = await_condition(bench.api::<FederatedFineTune>(), "mail", is_deleted(&uid));
    timeout(LIMIT, Box::pin(gone)).await.expect("its two seconds are over").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_refused_delays_no_other() {
    let bench = Operated::with_operator().await;
    let bad = RUN.replace("name: mail", "name: bad");
    bench.apply(&format!("{bad}  server: {{template: {{spec: {{priorityClassName: not-there}}}}}}\n"));
    bench.until_of::<FederatedFineTune>("bad", "refused", |run| says(run, "not-there")).await;
    for name in ["mail", "news", "web"] {
        bench.apply(&RUN.replace("name: mail", &format!("name: {name}")));
    }
    for name in ["mail-server", "news-server", "web-server"] {
        bench.until_of::<Job>(name, "there", |_| true).await;
    }
    let children = bench.children().await;
    assert!(children.iter().all(|child| !child.contains(" bad-")), "{children:?}");
}

/// Their first looks wait for the same lists, and each is to be woken.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_starts_anew_looks_at_every_run_that_is_there() {
    let mut bench = Operated::with_operator().await;
    let names = ["one", "two", "three", "four"];
    for name in names {
        bench.apply(&RUN.replace("{name: mail}", &format!("{{name: {name}}}")));
        bench.until_of(name, "starting", |run: &FederatedFineTune| of(run).phase == Some(Phase::Starting)).await;
    }
    bench.stop().await;
    for name in names {
        bench.kubectl(&["patch", "fft", name, "--type=merge", "-p", "{\"spec\": {\"suspend\": true}}"], "");
    }
    bench.start();
    for name in names {
        bench.until_of(name, "suspended", |run: &FederatedFineTune| of(run).phase == Some(Phase::Suspended)).await;
    }
}

/// The shape that Kueue takes a run in: the queue's name on the resource alone, Jobs that are made suspended, and one who
/// lifts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_a_queue_holds_back_is_let_go_by_its_resource_alone() {
    let bench = Operated::with_operator().await;
    let queued = "name: mail, labels: {kueue.x-k8s.io/queue-name: gpus}";
    bench.apply(&RUN.replace("name: mail", queued).replace("spec:", "spec:\n  suspend: true"));
    let is_suspended = |job: &Job| job.spec.as_ref().unwrap().suspend == Some(true);
    let jobs = ["mail-server", "mail-clients-silo"];
    for name in jobs {
        let job = bench.until_of::<Job>(name, "there", |_| true).await;
        assert!(is_suspended(&job), "{name} has pods before it is let go");
        let mut labels = job.labels().keys().chain(
            job.spec
                .as_ref()
                .unwrap()
                .template
                .metadata
                .iter()
                .flat_map(|pod| pod.labels.iter().flat_map(|labels| labels.keys())),
        );
        assert!(labels.all(|label| !label.contains("kueue")), "{name} would be queued apart: {job:?}");
    }
    bench.until_phase(Phase::Suspended).await;
    bench.kubectl(&["patch", "job", "mail-server", "--type=merge", "-p", "{\"spec\": {\"suspend\": false}}"], "");
    let held_back_again = |job: &Job| is_suspended(job) && job.metadata.generation >= Some(3);
    bench.until_of::<Job>("mail-server", "held back again", held_back_again).await;
    bench.kubectl(&["patch", "fft", "mail", "--type=merge", "-p", "{\"spec\": {\"suspend\": false}}"], "");
    for name in jobs {
        bench.until_of::<Job>(name, "let go", |job| !is_suspended(job)).await;
    }
}
