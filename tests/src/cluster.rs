//! A Kubernetes cluster of a test's own: the real etcd and API server, and for pods the real rest.
//! Must not leave anything behind: a keeper ends it all when the test is over, has failed or was killed.
//!
//! | file | one thing |
//! |---|---|
//! | `access.rs` | ways into a cluster: clients, kubectl, helm, the audit log |
//! | `control_plane.rs` | what etcd and the API server are told |
//! | `enclosure.rs` | network, mounts and processes of a node's own |
//! | `faults.rs` | what befalls a cluster |
//! | `folder.rs` | a cluster's folder, and what is kept of it when a test has failed |
//! | `keep.rs` | the process that starts the parts and ends them |
//! | `keeper.rs` | the harness' end of it |
//! | `lasting.rs` | a cluster that outlives the program that started it |
//! | `node.rs` | what runs pods, and what it is told |
//! | `operator.rs` | the operator, installed as a user does, and the volumes that manifests read |
//! | `operated.rs` | an operator in the test itself, at a control plane whose kubelet the test plays |
//! | `orders.rs` | what is said between the two |
//! | `pki.rs` | certificates |
//! | `pretended.rs` | a node whose pods do nothing |
//! | `programs.rs` | where the programs lie |
//! | `rights.rs` | what the operator may do, and what it has done |
//! | `volumes.rs` | volumes and claims |

mod access;
mod control_plane;
mod enclosure;
mod faults;
mod folder;
mod keep;
mod keeper;
mod lasting;
mod node;
pub mod operated;
mod operator;
mod orders;
mod pki;
pub mod pretended;
mod programs;
pub mod rights;
mod volumes;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fedtune_crds::crd;
use k8s_openapi::{
    api::core::v1::Node, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::{Condition, await_condition, conditions::is_crd_established},
};
use tokio::{sync::OnceCell, time};

use self::{control_plane::ControlPlane, enclosure::Number, keeper::Keeper, orders::Order, pki::Pki};
pub use self::{
    keep::{keep, keep_enclosed, keep_parts},
    lasting::{Lasting, end_lasting, start_lasting},
};
use crate::siege::quiet_address;

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
    /// Of its enclosure, where it has one.
    number: Option<Number>,
}

impl Cluster {
    /// etcd and the API server, which takes no root: what a controller talks to, without nodes for pods.
    pub async fn control_plane() -> Self {
        Self::without_node(|_, _, _| ()).await
    }

    /// The same with controllers of Jobs and a pretended node, on which pods run that do nothing.
    pub async fn pretended() -> Self {
        let cluster = Self::without_node(pretended::write_files).await;
        for part in pretended::parts(&cluster.folder) {
            cluster.keeper().start_part(part);
        }
        cluster.make_pretended_node().await;
        cluster
    }

    async fn without_node(write_more: impl Fn(&Path, &str, &Pki)) -> Self {
        let folder = folder::new();
        let cluster = Self { keeper: Mutex::new(Keeper::start(&folder)), folder, number: None };
        let (address, port) = split(&quiet_address());
        let plane = ControlPlane { etcd: quiet_address(), peers: quiet_address(), address, port, has_nodes: false };
        let pki = Pki::new(cluster.folder.join("pki"));
        plane.write_files(&cluster.folder, &pki);
        write_more(&cluster.folder, &plane.url(), &pki);
        cluster.start_control_plane(&plane).await;
        cluster
    }

    /// All of Kubernetes with one node, and the images that `make images` built; takes root.
    pub async fn node() -> Self {
        Self::node_in(folder::new(), Stdio::inherit()).await
    }

    /// A node in this folder, whose keeper says what goes wrong to `errors`.
    async fn node_in(folder: PathBuf, errors: Stdio) -> Self {
        let (keeper, number) = Keeper::start_enclosed(&folder, errors);
        let cluster = Self { keeper: Mutex::new(keeper), folder, number: Some(number) };
        cluster.prepare_node();
        let (plane, pki) = (node::control_plane(number), Pki::new(cluster.folder.join("pki")));
        plane.write_files(&cluster.folder, &pki);
        node::write_files(number, &cluster.folder, &plane.url(), &pki);
        cluster.start_control_plane(&plane).await;
        cluster.start_node(number).await;
        cluster
    }

    /// The control plane that all tests of one process share; each takes a namespace of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(Self::control_plane).await
    }

    /// The cluster with a node and the operator that all tests of one process share; each takes a namespace of its own.
    pub async fn with_operator() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        let start = async || {
            let cluster = Self::node().await;
            cluster.install_operator(&["trainer.lingerSeconds=0"]).await;
            cluster
        };
        SHARED.get_or_init(start).await
    }

    async fn start_control_plane(&self, plane: &ControlPlane) {
        for part in [plane.etcd(&self.folder), plane.api_server(&self.folder)] {
            self.keeper().start_part(part);
        }
        self.wait_until_ready().await;
        self.install_definition().await;
    }

    fn prepare_node(&self) {
        for command in node::preparations() {
            let (program, arguments) = command.split_first().expect("a command has a program");
            self.keeper().run(*program, arguments);
        }
    }

    async fn start_node(&self, number: Number) {
        let mut parts = node::parts(number, &self.folder).into_iter();
        // The kubelet ends where there is no containerd.
        self.keeper().start_part(parts.next().expect("there are several"));
        self.import_images().await;
        parts.for_each(|part| self.keeper().start_part(part));
        let client = self.client().await;
        volumes::stock(&client, &self.folder).await;
        let nodes: Api<Node> = Api::all(client);
        let ready = time::timeout(LIMIT, await_condition(nodes, node::NAME, is_ready())).await;
        let said =
            || format!("the node is not ready after {LIMIT:?}; its kubelet last said:\n{}", self.last_words("kubelet"));
        ready.unwrap_or_else(|_| panic!("{}", said())).expect("a node can be watched");
    }

    /// Gives an image that the node has another name, too.
    pub fn tag_image(&self, image: &str, name: &str) {
        let socket = self.folder.join("containerd.sock").display().to_string();
        let words = ["--address", &socket, "--namespace", "k8s.io", "images", "tag", image, name];
        self.keeper().run("ctr", &words);
    }

    /// Whole cores that the node gives to pods.
    pub fn cores_of_node(&self) -> u32 {
        let words = ["get", "node", node::NAME, "--output=jsonpath={.status.allocatable.cpu}"];
        let said = self.kubectl(&words, "").well().stdout;
        said.parse().unwrap_or_else(|error| panic!("the node has {said} cores: {error}"))
    }

    /// Gives the node every image that there is, as soon as containerd answers.
    async fn import_images(&self) {
        let deadline = time::Instant::now() + LIMIT;
        let mut looks = time::interval(LOOK);
        for image in programs::images() {
            while let Err(why) = self.import_image(&image) {
                assert!(time::Instant::now() < deadline, "{} cannot be imported: {why}", image.display());
                looks.tick().await;
            }
        }
    }

    fn import_image(&self, image: &Path) -> Result<(), String> {
        let (socket, image) = (self.folder.join("containerd.sock"), image.display().to_string());
        let words = ["--address", &socket.display().to_string(), "--namespace", "k8s.io", "images", "import", &image];
        self.keeper().try_order(&Order::Run("ctr".into(), words.map(str::to_owned).into()))
    }

    /// The API server's process: the one that was told this cluster's folder.
    pub fn api_server(&self) -> u32 {
        let ours = self.folder.display().to_string();
        let is_it = |process: &u32| {
            let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.split('\0').next().is_some_and(|program| program.ends_with("kube-apiserver")) && words.contains(&ours)
        };
        let processes = fs::read_dir("/proc").expect("the kernel lists processes");
        let mut numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.find(is_it).expect("the API server runs")
    }

    /// The node's address, as this machine sees it.
    pub fn address_of_node(&self) -> Option<String> {
        self.number.map(Number::node)
    }

    /// This machine's address, as the node's pods see it.
    pub fn machine(&self) -> Option<String> {
        self.number.map(Number::machine)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
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

    /// Makes the definition the one of the types, whatever it was.
    pub async fn install_definition(&self) {
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

/// Whether a node takes pods.
fn is_ready() -> impl Condition<Node> {
    |node: Option<&Node>| {
        let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref()).into_iter().flatten();
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

fn split(address: &str) -> (String, u16) {
    let (host, port) = address.split_once(':').expect("an address has a port");
    (host.to_owned(), port.parse().expect("a port is a number"))
}
