//! An operator at the real API server, in a namespace of its own. There are no nodes, so a test plays the Job controller and
//! the kubelet: it makes pods and says how those fare.
//! Must not train anything, nor look into the operator: what counts is what it leaves at the API server.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{fmt::Debug, time::Duration};

use fedtune_crds::{FederatedFineTune, live::LiveStatus, status::Phase};
use fedtune_operator::{
    caches::Scope,
    controller::build::Settings,
    live::StatusVia,
    operator::{self, OperatorError, Options},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::Cluster;

/// What the operator may take for one thing; far more than it needs, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The image that is given to pods, which nobody pulls.
pub const IMAGE: &str = "registry.example.com/fedtune:test";

/// A run of two clients.
pub const RUN: &str = "
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
pub struct Operated {
    /// The cluster.
    pub cluster: &'static Cluster,
    /// A client of it.
    pub client: Client,
    /// A namespace that nobody else uses.
    pub namespace: String,
    running: Option<Working>,
}

impl Debug for Operated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operated").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Operated {
    /// A new namespace without an operator.
    pub async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let namespace = cluster.namespace("runs").await;
        let bench = Self { cluster, client: cluster.client().await, namespace, running: None };
        // What a controller makes in each namespace of a whole cluster.
        let _made = bench.kubectl(&["create", "serviceaccount", "default"], "");
        bench
    }

    /// A new namespace with an operator.
    pub async fn with_operator() -> Self {
        let mut bench = Self::new().await;
        bench.start();
        bench
    }

    /// Starts an operator.
    pub fn start(&mut self) {
        self.start_with(self.client.clone());
    }

    /// Starts an operator with a client of the test's own.
    pub fn start_with(&mut self, client: Client) {
        let options = Options {
            settings: Settings::new(IMAGE, &self.namespace),
            scope: Scope::Namespace(self.namespace.clone()),
            status_via: StatusVia::PodIp,
            listen: None,
            identity: "operator-of-a-test".to_owned(),
            election: None,
        };
        let (stop, stopped) = oneshot::channel();
        let run = operator::run(client, options, async {
            let _ = stopped.await;
        });
        self.running = Some((stop, tokio::spawn(run)));
    }

    /// Stops the operator as SIGTERM does.
    pub async fn stop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    }

    /// Ends the operator as SIGKILL does.
    pub fn kill(&mut self) {
        let (_, running) = self.running.take().unwrap();
        running.abort();
    }

    /// Kind and name of each object that the operator has made.
    pub async fn children(&self) -> Vec<String> {
        let of = |kind: &str, names: Vec<String>| names.into_iter().map(|name| format!("{kind} {name}")).collect();
        let all: [Vec<String>; 6] = [
            of("ConfigMap", self.names::<ConfigMap>().await),
            of("Job", self.names::<Job>().await),
            of("NetworkPolicy", self.names::<NetworkPolicy>().await),
            of("PersistentVolumeClaim", self.names::<PersistentVolumeClaim>().await),
            of("Secret", self.names::<Secret>().await),
            of("Service", self.names::<Service>().await),
        ];
        all.concat()
    }

    /// What `kubectl` says in the namespace; it must succeed.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        self.cluster.kubectl(&all, input).well().stdout
    }

    /// Applies a resource.
    pub fn apply(&self, yaml: &str) {
        self.kubectl(&["apply", "-f", "-"], yaml);
    }

    /// The objects of a kind in the namespace.
    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until the run `mail` is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&FederatedFineTune) -> bool) -> FederatedFineTune {
        self.until_of("mail", what, is_so).await
    }

    /// Waits until the object is so.
    pub async fn until_of<K>(&self, name: &str, what: &str, is_so: impl Fn(&K) -> bool) -> K
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

    /// Waits until the run `mail` stands so.
    pub async fn until_phase(&self, phase: Phase) -> FederatedFineTune {
        self.until(&format!("{phase:?}"), |run| of(run).phase == Some(phase)).await
    }

    /// Plays the Job controller: a pod as the Job's template has it.
    pub async fn make_pod(&self, job: &str) -> String {
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
    pub async fn say<K>(&self, name: &str, status: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patch = Patch::Merge(json!({"status": status}));
        self.api::<K>().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Plays the kubelet: the pod runs and is ready.
    pub async fn pod_runs(&self, pod: &str) {
        let container = json!({
            "name": "trainer", "image": IMAGE, "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
        });
        let ready = json!({"type": "Ready", "status": "True"});
        let status = json!({"phase": "Running", "conditions": [ready], "containerStatuses": [container]});
        self.say::<Pod>(pod, status).await;
    }

    /// Plays the kubelet: the pod has ended with this code and these last words.
    pub async fn pod_ends(&self, pod: &str, code: i32, message: &str) {
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
    pub async fn job_ends(&self, job: &str, (soon, ended): (&str, &str)) {
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

    /// Names of the operator's objects of a kind, in order.
    pub async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=fedtune-operator");
        let mut names: Vec<_> = self.api::<K>().list(&ours).await.unwrap().iter().map(ResourceExt::name_any).collect();
        names.sort();
        names
    }

    /// How often the operator has written an object whose name begins so, dry-runs apart.
    pub fn writes(&self, name: &str) -> usize {
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

/// The status; the empty one where there is none yet.
pub fn of(run: &FederatedFineTune) -> fedtune_crds::FederatedFineTuneStatus {
    run.status.clone().unwrap_or_default()
}

/// Whether the status' message has these words.
pub fn says(run: &FederatedFineTune, words: &str) -> bool {
    of(run).message.is_some_and(|message| message.contains(words))
}

/// Whether a condition is true.
pub fn holds(run: &FederatedFineTune, condition: &str) -> bool {
    of(run).conditions.iter().any(|found| found.type_ == condition && found.status == "True")
}

/// What the server of `run` says when it has succeeded.
pub fn last_words(run: &FederatedFineTune) -> String {
    let said: LiveStatus = serde_json::from_value(json!({
        "uid": run.uid().unwrap(), "epoch": 1, "seq": 99, "phase": "Succeeded", "round": 10, "rounds": 10,
        "clientsReady": 2, "clients": 2, "accuracy": 0.8604, "loss": 0.31, "payloadBytes": 413_492,
        "clientFlops": 3.1e15, "since": "2026-01-01T00:00:00Z", "message": "all 10 rounds are done",
    }))
    .unwrap();
    serde_json::to_string(&said).unwrap()
}
