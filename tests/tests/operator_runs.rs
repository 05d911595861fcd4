//! The operator against a real API server: from an applied resource to its children, its status and its end. There are
//! no nodes, so the tests play the Job controller and the kubelet: they make pods and say how those fare.
//! Must not train anything.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{fmt::Debug, time::Duration};

use fedtune_crds::{FederatedFineTune, live::LiveStatus, status::Phase};
use fedtune_operator::{
    caches::Scope,
    controller::build::Settings,
    live::StatusVia,
    operator::{self, OperatorError, Options},
};
use fedtune_tests::cluster::Cluster;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Pod, Secret, Service},
        events::v1::Event,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

/// What the operator may take for one thing; far more than it needs, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const IMAGE: &str = "registry.example.com/fedtune:test";

const RUN: &str = "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {name: mail}
spec:
  framework: {fedLLM: {}}
  model: {source: {path: /model}}
  data: {source: {path: /data}, format: CSV}
  training: {rounds: 10}
";

/// An operator that runs, and what stops it.
type Working = (oneshot::Sender<()>, JoinHandle<Result<(), OperatorError>>);

/// An operator for one namespace of the cluster that all tests share.
struct Bench {
    cluster: &'static Cluster,
    client: Client,
    namespace: String,
    running: Option<Working>,
}

impl Bench {
    async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let namespace = cluster.namespace("runs").await;
        let bench = Self { cluster, client: cluster.client().await, namespace, running: None };
        // What a controller makes in each namespace of a whole cluster.
        let _made = bench.kubectl(&["create", "serviceaccount", "default"], "");
        bench
    }

    async fn with_operator() -> Self {
        let mut bench = Self::new().await;
        bench.start();
        bench
    }

    fn start(&mut self) {
        let options = Options {
            settings: Settings::new(IMAGE, &self.namespace),
            scope: Scope::Namespace(self.namespace.clone()),
            status_via: StatusVia::PodIp,
            listen: None,
            identity: "operator-of-a-test".to_owned(),
            election: None,
        };
        let (stop, stopped) = oneshot::channel();
        let run = operator::run(self.client.clone(), options, async {
            let _ = stopped.await;
        });
        self.running = Some((stop, tokio::spawn(run)));
    }

    async fn stop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        self.cluster.kubectl(&all, input).well().stdout
    }

    fn apply(&self, yaml: &str) {
        self.kubectl(&["apply", "-f", "-"], yaml);
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until the run is so.
    async fn until(&self, what: &str, is_so: impl Fn(&FederatedFineTune) -> bool) -> FederatedFineTune {
        self.until_of("mail", what, is_so).await
    }

    /// Waits until the object is so.
    async fn until_of<K>(&self, name: &str, what: &str, is_so: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
    {
        let api = self.api::<K>();
        let found = await_condition(api.clone(), name, |found: Option<&K>| found.is_some_and(&is_so));
        let Ok(found) = timeout(LIMIT, Box::pin(found)).await else {
            panic!("{name} is not {what}: {}", json!(api.get_opt(name).await.unwrap()))
        };
        found.unwrap().unwrap()
    }

    async fn until_phase(&self, phase: Phase) -> FederatedFineTune {
        self.until(&format!("{phase:?}"), |run| of(run).phase == Some(phase)).await
    }

    /// Plays the Job controller: a pod as the Job's template has it.
    async fn make_pod(&self, job: &str) -> String {
        let job: Job = self.api().get(job).await.unwrap();
        let template = job.spec.as_ref().unwrap().template.clone();
        let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
        pod.metadata.name = Some(format!("{}-0-pod", job.name_any()));
        pod.metadata.owner_references = Some(vec![job.controller_owner_ref(&()).unwrap()]);
        let made = self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        self.say::<Job>(&job.name_any(), json!({"active": 1})).await;
        made.name_any()
    }

    /// Plays the controller or kubelet that says how an object fares.
    async fn say<K>(&self, name: &str, status: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patch = Patch::Merge(json!({"status": status}));
        self.api::<K>().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn pod_runs(&self, pod: &str) {
        let container = json!({
            "name": "trainer", "image": IMAGE, "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
        });
        let ready = json!({"type": "Ready", "status": "True"});
        let status = json!({"phase": "Running", "conditions": [ready], "containerStatuses": [container]});
        self.say::<Pod>(pod, status).await;
    }

    async fn pod_ends(&self, pod: &str, code: i32, message: &str) {
        let end =
            json!({"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }, "message": message});
        let container = json!({
            "name": "trainer", "image": IMAGE, "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end},
        });
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let status = json!({"phase": phase, "conditions": [], "containerStatuses": [container]});
        self.say::<Pod>(pod, status).await;
    }

    /// The API server wants to be told that a Job will end before it is told that it has.
    async fn job_ends(&self, job: &str, (soon, ended): (&str, &str)) {
        let condition = |kind: &str| {
            let at = "2026-01-01T00:01:00Z";
            json!({"type": kind, "status": "True", "reason": "Test", "message": "", "lastProbeTime": at, "lastTransitionTime": at})
        };
        let begun = json!({"startTime": "2026-01-01T00:00:00Z", "active": 0, "conditions": [condition(soon)]});
        self.say::<Job>(job, begun).await;
        let mut status = json!({"conditions": [condition(soon), condition(ended)]});
        if ended == "Complete" {
            status["completionTime"] = json!("2026-01-01T00:01:00Z");
        }
        self.say::<Job>(job, status).await;
    }

    async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=fedtune-operator");
        let mut names: Vec<_> = self.api::<K>().list(&ours).await.unwrap().iter().map(ResourceExt::name_any).collect();
        names.sort();
        names
    }

    /// How often the operator has written an object whose name begins so, dry-runs apart.
    fn writes(&self, name: &str) -> usize {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_write = |event: &&Value| {
            let object = &event["objectRef"];
            text(&object["namespace"]) == self.namespace
                && text(&object["name"]).starts_with(name)
                && ["create", "update", "patch", "delete"].contains(&text(&event["verb"]).as_str())
                && event["stage"] == "ResponseComplete"
                && object["resource"] != "events"
                && !text(&event["requestURI"]).contains("dryRun")
                && !text(&event["userAgent"]).starts_with("kubectl")
        };
        self.cluster.audit().iter().filter(is_write).count()
    }
}

fn of(run: &FederatedFineTune) -> fedtune_crds::FederatedFineTuneStatus {
    run.status.clone().unwrap_or_default()
}

fn says(run: &FederatedFineTune, words: &str) -> bool {
    of(run).message.is_some_and(|message| message.contains(words))
}

fn holds(run: &FederatedFineTune, condition: &str) -> bool {
    of(run).conditions.iter().any(|found| found.type_ == condition && found.status == "True")
}

fn last_words(run: &FederatedFineTune) -> String {
    let said: LiveStatus = serde_json::from_value(json!({
        "uid": run.uid().unwrap(), "epoch": 1, "seq": 99, "phase": "Succeeded", "round": 10, "rounds": 10,
        "clientsReady": 2, "clients": 2, "accuracy": 0.8604, "loss": 0.31, "payloadBytes": 413_492,
        "clientFlops": 3.1e15, "since": "2026-01-01T00:00:00Z", "message": "all 10 rounds are done",
    }))
    .unwrap();
    serde_json::to_string(&said).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_resource_has_all_its_children_and_its_spec_is_fixed() {
    let bench = Bench::with_operator().await;
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
    let bench = Bench::with_operator().await;
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
    let bench = Bench::with_operator().await;
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
    let bench = Bench::with_operator().await;
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
    let bench = Bench::with_operator().await;
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
    let bench = Bench::with_operator().await;
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
    let bench = Bench::with_operator().await;
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
    let bench = Bench::with_operator().await;
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
    let mut bench = Bench::with_operator().await;
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
