//! Ways into a cluster: clients, kubectl, helm, and what the API server noted of them all.
//! Must not change how a cluster runs.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use serde_json::Value;
use tokio::time;

use super::{Cluster, LIMIT, programs};
use crate::program::Ended;

impl Cluster {
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
        let name = new_name(prefix);
        self.make_namespace(&name, BTreeMap::new()).await;
        name
    }

    /// A namespace of this name in which nothing runs that the `restricted` level forbids.
    pub(super) async fn make_restricted_namespace(&self, name: &str) {
        let level = ("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned());
        self.make_namespace(name, BTreeMap::from([level])).await;
    }

    async fn make_namespace(&self, name: &str, labels: BTreeMap<String, String>) {
        let client = self.client().await;
        let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let made = namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await;
        made.expect("a namespace can be made");
        if self.number.is_some() {
            // Until a controller has made it, pods are refused.
            let accounts: Api<ServiceAccount> = Api::namespaced(client, name);
            let is_there = |account: Option<&ServiceAccount>| account.is_some();
            let waited = time::timeout(LIMIT, await_condition(accounts, "default", is_there)).await;
            waited.expect("a namespace gets its service account in time").expect("an account can be watched");
        }
    }

    /// `kubectl` as the administrator runs it, with `input` on its standard input.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Ended {
        self.tool(programs::control_plane("kubectl"), arguments, input)
    }

    /// `helm` as the administrator runs it.
    pub fn helm(&self, arguments: &[&str]) -> Ended {
        self.tool(programs::cached("helm", "helm"), arguments, "")
    }

    /// How an object's status is read by kstatus's rules, which Flux and Argo CD go by, as the library itself has them.
    pub fn kstatus(&self, object: &str) -> String {
        self.tool(programs::cached("kstatus", "kstatus"), &[], object).well().stdout.trim().to_owned()
    }

    fn tool(&self, program: PathBuf, arguments: &[&str], input: &str) -> Ended {
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig());
        // What they find out they keep, and not for other clusters.
        for kept in ["KUBECACHEDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(kept, self.folder.join("tools").join(kept));
        }
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
}

/// A name that no other object of this process has.
pub(super) fn new_name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
