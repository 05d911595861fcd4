//! Many runs at once: the operator as a process of its own, and the figures that the kernel and the audit log have of it.
//! Must not play a kubelet: pods, where there are any, are kwok's, and a run stands where nobody answers for its server.

use std::{
    fmt, fs,
    process::Command,
    time::{Duration, Instant},
};

use fedtune_crds::{FederatedFineTune, status::Phase};
use futures::{StreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
    },
};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time;

use crate::{
    cluster::{Cluster, pretended::PRETENDER},
    program::{Running, operator},
};

/// Names those requests of the audit log that are not the operator's.
const AGENT: &str = "fedtune-bench";
/// Requests that are under way at once.
const AT_ONCE: usize = 16;
/// Between two looks at how many objects there are.
const LOOK: Duration = Duration::from_millis(500);
/// What any one phase may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// A server and four clients.
const PODS_OF_A_RUN: u32 = 5;
/// The kernel counts a process' time in hundredths of a second.
const TICKS: f64 = 100.0;

/// A figure, and what it should be.
#[derive(Debug)]
pub struct Row {
    what: String,
    measured: String,
    goal: &'static str,
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "| {} | {} | {} |", self.what, self.measured, self.goal)
    }
}

fn row(what: impl Into<String>, measured: impl Into<String>, goal: &'static str) -> Row {
    Row { what: what.into(), measured: measured.into(), goal }
}

/// A control plane, and an operator that works on it.
pub struct Load {
    operator: Running,
    namespace: String,
    client: Client,
    cluster: Cluster,
    pods: bool,
    names: Vec<String>,
}

impl fmt::Debug for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Load").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Load {
    /// Starts both, where `pods` says so with a pretended node for pods.
    pub async fn start(pods: bool) -> Self {
        let cluster = if pods { Cluster::pretended().await } else { Cluster::control_plane().await };
        let namespace = cluster.namespace("load").await;
        let client = client(&cluster).await;
        let mut operator = start_operator(&cluster, &namespace, "first");
        operator.wait_for(&["leads", "first"]);
        Self { operator, namespace, client, cluster, pods, names: Vec::new() }
    }

    /// Applies so many runs at once, and waits until each has all of its children.
    pub async fn apply(&mut self, runs: u32) -> Vec<Row> {
        let per_run = self.children_of_one().await;
        let (before, asked, began) = (self.cpu(), self.requests().len(), Instant::now());
        self.names = (0..runs).map(|number| format!("run-{number}")).collect();
        self.create_all(&self.names).await;
        let applied = began.elapsed();
        let wanted = per_run * (u64::from(runs) + 1);
        self.until(async || self.children().await >= wanted).await;
        let took = began.elapsed();
        self.until(async || self.in_phase(Phase::Starting).await + self.in_phase(Phase::Running).await > runs as usize)
            .await;
        let pods_of_all = if self.pods { self.pods_of_all(runs, began).await } else { Vec::new() };
        let (operator, server) = self.cpu().since(before);
        let requests = self.requests().split_off(asked);
        let count =
            |kind: fn(&Value) -> bool| requests.iter().filter(|event| kind(event)).count() as f64 / f64::from(runs);
        let mut rows = vec![
            row("until all runs are stored", seconds(applied), ""),
            row(format!("until all {wanted} children exist"), seconds(took), ""),
        ];
        rows.extend(pods_of_all);
        rows.extend([
            row("writes a run", format!("{:.2} for {per_run} children", count(is_write)), "children + 3"),
            row("dry-runs a run", format!("{:.2}", count(is_dry_run)), ""),
            row("Events written a run", format!("{:.2}", count(is_event)), ""),
            row("reads of Events a run", format!("{:.2}", count(is_look_at_events)), ""),
            row(
                "operator's CPU to API server's",
                format!("{operator:.1} s to {server:.1} s, {:.2}", operator / server),
                "under 0.33",
            ),
            row("operator's memory, at most", self.peak_memory(), "under 64 MiB"),
        ]);
        rows
    }

    /// Waits for the pods of all runs, and for every run to have been seen to run.
    async fn pods_of_all(&self, runs: u32, began: Instant) -> Vec<Row> {
        let wanted = u64::from(PODS_OF_A_RUN * (runs + 1));
        self.until(async || self.count::<Pod>().await >= wanted).await;
        let there = began.elapsed();
        self.until(async || self.in_phase(Phase::Running).await > runs as usize).await;
        vec![
            row(format!("until all {wanted} pods exist"), seconds(there), ""),
            row("until all runs are said to run", seconds(began.elapsed()), ""),
        ]
    }

    /// Kills the operator while another stands by, which goes on.
    pub fn take_over(&mut self) -> Vec<Row> {
        let mut second = start_operator(&self.cluster, &self.namespace, "second");
        second.wait_for(&["probes and metrics are served"]);
        let killed = Instant::now();
        self.operator.signal("KILL");
        second.wait_for(&["leads", "second"]);
        self.operator = second;
        vec![row("until another operator leads", seconds(killed.elapsed()), "under 20 s")]
    }

    /// Suspends all runs, and then watches what the operator does about runs that nothing befalls.
    pub async fn suspend(&mut self, idle_seconds: u64) -> Vec<Row> {
        let began = Instant::now();
        let runs: Api<FederatedFineTune> = Api::namespaced(self.client.clone(), &self.namespace);
        let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
        let patches = self.names.iter().map(async |name| {
            runs.patch(name, &PatchParams::default(), &suspend).await.expect("a run may be suspended");
        });
        stream::iter(patches).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        self.until(async || self.in_phase(Phase::Suspended).await >= self.names.len()).await;
        let took = began.elapsed();
        let (before, asked) = (self.cpu(), self.requests().len());
        time::sleep(Duration::from_secs(idle_seconds)).await;
        let (operator, server) = self.cpu().since(before);
        let requests = self.requests().split_off(asked);
        let a_second = |count: f64| count / idle_seconds as f64;
        vec![
            row("until all are suspended", seconds(took), ""),
            row(
                format!("operator's requests a second over {idle_seconds} s of suspended runs"),
                format!("{:.2}", a_second(requests.len() as f64)),
                "nothing that polls all",
            ),
            row("operator's share of a core then", format!("{:.4}", a_second(operator)), ""),
            row("API server's share of a core then", format!("{:.4}", a_second(server)), ""),
            row("operator's memory, at most", self.peak_memory(), "under 64 MiB"),
        ]
    }

    /// How many children a run has, by one that is alone.
    async fn children_of_one(&self) -> u64 {
        let name = "alone".to_owned();
        self.create_all(&[name]).await;
        let has_begun = async || self.in_phase(Phase::Starting).await + self.in_phase(Phase::Running).await == 1;
        self.until(async || has_begun().await && self.children().await > 0).await;
        // `Starting` is written before the first child; the last is a Job of the clients.
        self.until(async || self.count::<Job>().await == 2).await;
        self.children().await
    }

    async fn create_all(&self, names: &[String]) {
        let runs: Api<FederatedFineTune> = Api::namespaced(self.client.clone(), &self.namespace);
        let create = names.iter().map(|name| {
            let runs = runs.clone();
            async move {
                let run = serde_json::from_value(run(name, self.pods)).expect("it is a run");
                runs.create(&PostParams::default(), &run).await.expect("a run may be made")
            }
        });
        stream::iter(create).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    }

    async fn children(&self) -> u64 {
        self.count::<ConfigMap>().await
            + self.count::<Job>().await
            + self.count::<NetworkPolicy>().await
            + self.count::<PersistentVolumeClaim>().await
            + self.count::<Secret>().await
            + self.count::<Service>().await
    }

    /// Of a list of one the API server says how many more there are.
    async fn count<K>(&self) -> u64
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let first = api.list_metadata(&ListParams::default().limit(1)).await.expect("objects can be listed");
        first.items.len() as u64 + first.metadata.remaining_item_count.unwrap_or(0).unsigned_abs()
    }

    async fn in_phase(&self, wanted: Phase) -> usize {
        let runs: Api<FederatedFineTune> = Api::namespaced(self.client.clone(), &self.namespace);
        let runs = runs.list(&ListParams::default()).await.expect("runs can be listed");
        runs.iter().filter(|run| run.status.as_ref().and_then(|status| status.phase) == Some(wanted)).count()
    }

    async fn until(&self, holds: impl AsyncFn() -> bool) {
        let (deadline, mut looks) = (Instant::now() + LIMIT, time::interval(LOOK));
        while !holds().await {
            assert!(Instant::now() < deadline, "it is not so after {LIMIT:?}");
            looks.tick().await;
        }
    }

    /// Answered requests for this namespace, but for the bench's own and watches.
    fn requests(&self) -> Vec<Value> {
        let mut events = self.cluster.audit();
        events.retain(|event| {
            event["stage"] == "ResponseComplete"
                && event["objectRef"]["namespace"] == *self.namespace
                && event["userAgent"] != AGENT
                && event["user"]["username"] != PRETENDER
                && event["verb"] != "watch"
        });
        events
    }

    fn cpu(&self) -> Cpu {
        Cpu { operator: cpu_seconds(self.operator.id()), server: cpu_seconds(self.cluster.api_server()) }
    }

    fn peak_memory(&self) -> String {
        let file = format!("/proc/{}/status", self.operator.id());
        let status = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel notes a peak");
        let kibibytes: f64 = peak.trim().trim_end_matches(" kB").parse().expect("it is a number");
        format!("{:.0} MiB", kibibytes / 1024.0)
    }
}

/// Seconds of CPU since the begin of each process.
#[derive(Clone, Copy)]
struct Cpu {
    operator: f64,
    server: f64,
}

impl Cpu {
    fn since(self, before: Self) -> (f64, f64) {
        (self.operator - before.operator, self.server - before.server)
    }
}

fn cpu_seconds(process: u32) -> f64 {
    let file = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    // After the name, which may hold anything: proc(5) counts utime and stime as 14 and 15, and what follows it from 3.
    let (_, fields) = stat.rsplit_once(')').expect("a name is in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("it is a number"));
    ticks.sum::<f64>() / TICKS
}

fn is_dry_run(event: &Value) -> bool {
    event["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun"))
}

fn is_of_events(event: &Value) -> bool {
    event["objectRef"]["resource"] == "events"
}

fn is_event(event: &Value) -> bool {
    is_of_events(event) && event["verb"] != "list"
}

fn is_look_at_events(event: &Value) -> bool {
    is_of_events(event) && event["verb"] == "list"
}

fn is_write(event: &Value) -> bool {
    let writes = event["verb"].as_str().is_some_and(|verb| ["create", "update", "patch", "delete"].contains(&verb));
    writes && !is_dry_run(event) && !is_of_events(event) && event["objectRef"]["resource"] != "leases"
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn run(name: &str, pods: bool) -> Value {
    let mut run = json!({
        "apiVersion": "fedtune.io/v1alpha1",
        "kind": "FederatedFineTune",
        "metadata": {"name": name},
        "spec": {
            "framework": {"fedLLM": {}},
            "model": {"source": {"path": "/model"}},
            "data": {"source": {"path": "/data"}, "format": "CSV"},
            "training": {"rounds": 10},
            "clients": {"groups": [{"name": "silo", "replicas": 4}]},
        },
    });
    if pods {
        // Nobody schedules them, or makes volumes.
        let on_it = json!({"spec": {"nodeName": PRETENDER}});
        run["spec"]["server"] = json!({"template": on_it});
        run["spec"]["clients"]["groups"][0]["template"] = on_it;
    }
    run
}

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("the harness wrote it");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("the harness wrote it");
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(AGENT)));
    Client::try_from(config).expect("the certificates are there")
}

fn start_operator(cluster: &Cluster, namespace: &str, identity: &str) -> Running {
    let mut command = Command::new(operator());
    command.args(["run", "--trainer-image", "registry.example.com/fedtune:bench", "--identity", identity]);
    command.args(["--operator-namespace", namespace, "--listen", "127.0.0.1:0"]);
    Running::start(command.env("KUBECONFIG", cluster.kubeconfig()).env("RUST_LOG", "info"))
}
