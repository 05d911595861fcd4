//! A Kubernetes cluster of a test's own: the real etcd and API server, and for pods the real rest.
//! Must not leave anything behind: a keeper ends it all when the test is over, has failed or was killed.
//!
//! | file | one thing |
//! |---|---|
//! | `control_plane.rs` | what etcd and the API server are told |
//! | `keep.rs` | the process that starts the parts and ends them |
//! | `keeper.rs` | the harness' end of it |
//! | `orders.rs` | what is said between the two |
//! | `pki.rs` | certificates |
//! | `programs.rs` | where the programs lie |

mod control_plane;
mod keep;
mod keeper;
mod orders;
mod pki;
mod programs;

use std::{
    fs,
    io::Write,
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fedtune_crds::crd;
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions::is_crd_established},
};
use serde_json::Value;
use tokio::{sync::OnceCell, time};

pub use self::keep::keep;
use self::{control_plane::ControlPlane, keeper::Keeper, pki::Pki};
use crate::{program::Ended, siege::quiet_address};

/// What a control plane may take to be ready; far more than it needs, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of a log that are shown when a part has failed.
const QUOTED: usize = 20;

/// A running cluster with the definition of `FederatedFineTune` in it; gone when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    keeper: Mutex<Keeper>,
}

impl Cluster {
    /// etcd and the API server, which takes no root: what a controller talks to, without nodes for pods.
    pub async fn control_plane() -> Self {
        let cluster = Self::new();
        let (address, port) = split(&quiet_address());
        let plane = ControlPlane { etcd: quiet_address(), peers: quiet_address(), address, port, has_nodes: false };
        plane.write_files(&cluster.folder, &Pki::new(&cluster.folder.join("pki")));
        for part in [plane.etcd(&cluster.folder), plane.api_server(&cluster.folder)] {
            cluster.keeper().start_part(part);
        }
        cluster.wait_until_ready().await;
        cluster.install_definition().await;
        cluster
    }

    /// The control plane that all tests of one process share; each takes a namespace of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(Self::control_plane).await
    }

    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("fedtune-cluster-").tempdir();
        // Its keeper removes it, also where this process cannot.
        let folder = folder.expect("a temporary folder can be made").keep();
        fs::create_dir(folder.join("log")).expect("a temporary folder can be written");
        remember_failures(&folder);
        let keeper = Mutex::new(Keeper::start(&folder));
        Self { folder, keeper }
    }

    /// The administrator's way into the cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A client with all rights; it belongs to the runtime that asks for it.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("the harness wrote it");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("the harness wrote it")).expect("the certificates are there")
    }

    /// A namespace that no other test has, beginning with `prefix`.
    pub async fn namespace(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let namespaces: Api<Namespace> = Api::all(self.client().await);
        namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace can be made");
        name
    }

    /// `kubectl` as the administrator runs it, with `input` on its standard input.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = Command::new(programs::control_plane("kubectl"));
        command.args(arguments).env("KUBECONFIG", self.kubeconfig());
        // It keeps what it discovers there.
        command.env("KUBECACHEDIR", self.folder.join("kubectl"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        // One that does not read its input may have ended already.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("a child can be waited for");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What was asked of the API server so far, oldest first, as events of `audit.k8s.io/v1`.
    pub fn audit(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.join("log/audit.jsonl")).unwrap_or_default();
        // The last line may be half written.
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn keeper(&self) -> std::sync::MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `/readyz`, and not for a part that has ended.
    async fn wait_until_ready(&self) {
        let deadline = time::Instant::now() + LIMIT;
        let client = self.client().await;
        let mut looks = time::interval(LOOK);
        loop {
            looks.tick().await;
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a path is a request");
            if client.request_text(request).await.is_ok() {
                return;
            }
            for part in ["etcd", "kube-apiserver"] {
                if let Some(how) = self.keeper().end_of(part) {
                    panic!("{part} ended with {how}; it last said:\n{}", self.last_words(part));
                }
            }
            let said = || self.last_words("kube-apiserver");
            assert!(time::Instant::now() < deadline, "no control plane after {LIMIT:?}; it last said:\n{}", said());
        }
    }

    async fn install_definition(&self) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client().await);
        let (definition, force) = (crd::definition(), PatchParams::apply("fedtune-tests").force());
        let name = definition.metadata.name.as_deref().expect("a definition has a name");
        let applied = definitions.patch(name, &force, &Patch::Apply(&definition)).await;
        applied.unwrap_or_else(|error| panic!("the API server refuses the definition: {error}"));
        let established = await_condition(definitions, name, is_crd_established());
        let established = time::timeout(LIMIT, established).await.expect("a definition is established in time");
        established.expect("a definition can be watched");
    }

    /// The end of the log of a part.
    fn last_words(&self, part: &str) -> String {
        let log = fs::read_to_string(self.folder.join(format!("log/{part}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(QUOTED)..].join("\n")
    }
}

/// When any test of this process fails, the keeper of `folder` keeps the logs.
fn remember_failures(folder: &Path) {
    let (folder, before) = (folder.to_owned(), panic::take_hook());
    panic::set_hook(Box::new(move |what| {
        before(what);
        // A cluster that is gone already has nothing to keep.
        if fs::write(folder.join(keep::FAILED), what.to_string()).is_ok() {
            let _ = writeln!(std::io::stderr(), "what the cluster said is kept in {}", folder.join("log").display());
        }
    }));
}

fn split(address: &str) -> (String, u16) {
    let (host, port) = address.split_once(':').expect("an address has a port");
    (host.to_owned(), port.parse().expect("a port is a number"))
}
