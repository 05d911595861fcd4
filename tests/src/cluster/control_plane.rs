//! etcd and the API server: what they are told.
//! Must not start them.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{orders::Part, pki::Pki, programs};

/// Where the services of a cluster have their addresses.
pub(super) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The address of the API server's own service: the first of them.
const KUBERNETES_SERVICE: &str = "10.96.0.1";

/// Where a control plane listens, and whether nodes are to join it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlPlane {
    /// Address and port of etcd's clients.
    pub(super) etcd: String,
    /// Address and port of etcd's peers, of which there are none.
    pub(super) peers: String,
    /// The API server's address.
    pub(super) address: String,
    /// The API server's port.
    pub(super) port: u16,
    /// Whether there is a controller manager, which makes the service accounts that pods need.
    pub(super) has_nodes: bool,
}

impl ControlPlane {
    /// Where clients find the API server.
    pub(super) fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    /// Writes certificates, the audit policy and the administrator's kubeconfig into `folder`.
    pub(super) fn write_files(&self, folder: &Path, pki: &Pki) {
        let addresses = ["127.0.0.1", KUBERNETES_SERVICE, &self.address].map(str::to_owned);
        pki.issue_server("apiserver", &addresses);
        pki.issue_user("admin", "admin", Some("system:masters"), &[]);
        write_kubeconfig(folder, "admin", &self.url());
        fs::rename(folder.join("admin.kubeconfig"), folder.join("kubeconfig")).expect("it was just written");
        write_json(&folder.join("audit-policy.json"), &audit_policy());
    }

    /// etcd.
    pub(super) fn etcd(&self, folder: &Path) -> Part {
        let (clients, peers) = (format!("http://{}", self.etcd), format!("http://{}", self.peers));
        Part::new(
            "etcd",
            programs::control_plane("etcd"),
            [
                format!("--data-dir={}", folder.join("etcd").display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
                // Its data is thrown away.
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
            ],
        )
    }

    /// The API server.
    pub(super) fn api_server(&self, folder: &Path) -> Part {
        let pki = |file: &str| folder.join("pki").join(file).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers=http://{}", self.etcd),
            format!("--bind-address={}", if self.has_nodes { "0.0.0.0" } else { &self.address }),
            format!("--secure-port={}", self.port),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--service-account-key-file={}", pki("tokens.pub")),
            format!("--service-account-signing-key-file={}", pki("tokens.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Host names of nodes resolve nowhere.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--kubelet-client-certificate={}", pki("admin.crt")),
            format!("--kubelet-client-key={}", pki("admin.key")),
            format!("--audit-policy-file={}", folder.join("audit-policy.json").display()),
            format!("--audit-log-path={}", folder.join("log/audit.jsonl").display()),
            // Written before the answer is sent, so that whoever has the answer finds it.
            "--audit-log-mode=blocking-strict".to_owned(),
        ];
        if self.has_nodes {
            arguments.push(format!("--advertise-address={}", self.address));
            arguments.push("--enable-admission-plugins=NodeRestriction".to_owned());
        } else {
            // A pod is refused as long as its namespace has no service account, which nobody makes here.
            arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
            // Loopback cannot be advertised to pods; there are none.
            arguments.push("--advertise-address=192.0.2.1".to_owned());
        }
        Part::new("kube-apiserver", programs::control_plane("kube-apiserver"), arguments)
    }
}

/// Every request but reads of leases and what parts of the control plane do among themselves, without bodies.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": ["system:apiserver", "system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy"]},
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
            {"level": "Metadata"},
        ],
    })
}

/// Writes `<user>.kubeconfig`, with which `user` reaches `url`.
pub(super) fn write_kubeconfig(folder: &Path, user: &str, url: &str) {
    let pki = |file: &str| folder.join("pki").join(file);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fedtune", "cluster": {"server": url, "certificate-authority": pki("ca.crt")}}],
        "users": [{"name": user, "user": {
            "client-certificate": pki(&format!("{user}.crt")),
            "client-key": pki(&format!("{user}.key")),
        }}],
        "contexts": [{"name": "fedtune", "context": {"cluster": "fedtune", "user": user}}],
        "current-context": "fedtune",
    });
    write_json(&folder.join(format!("{user}.kubeconfig")), &config);
}

/// JSON is YAML, too.
pub(super) fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).expect("a temporary folder can be written");
}
