//! A node whose pods start at once and never end, as kwok pretends: what a controller meets where there are thousands.
//! Must not run anything in a pod: nobody answers at their addresses.

use std::{fs, path::Path};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{Cluster, control_plane::write_kubeconfig, node, orders::Part, pki::Pki, programs};

/// The user by whom kwok writes, and the node that it pretends.
pub const PRETENDER: &str = "kwok";
/// Its pods are at addresses of this machine's own, where a connection is refused at once.
const ADDRESSES: &str = "127.64.0.0/10";

/// Writes what the parts read.
pub(super) fn write_files(folder: &Path, url: &str, pki: &Pki) {
    let controllers = "kube-controller-manager";
    pki.issue_user(controllers, "system:kube-controller-manager", None, &[]);
    pki.issue_user(PRETENDER, PRETENDER, Some("system:masters"), &[]);
    for user in [controllers, PRETENDER] {
        write_kubeconfig(folder, user, url);
    }
    fs::write(folder.join("kwok.yaml"), include_str!("pretended.yaml")).expect("a temporary folder can be written");
}

/// The controllers that Jobs and their pods need, and the pretender.
pub(super) fn parts(folder: &Path) -> [Part; 2] {
    let at = |file: &str| folder.join(file).display().to_string();
    let controllers = ["job-controller", "garbage-collector-controller", "namespace-controller"].join(",");
    let pretender = [
        format!("--kubeconfig={}", at("kwok.kubeconfig")),
        format!("--config={}", at("kwok.yaml")),
        format!("--cidr={ADDRESSES}"),
        "--manage-all-nodes=true".to_owned(),
        "--node-lease-duration-seconds=0".to_owned(),
    ];
    let more = [
        format!("--controllers={controllers}"),
        // By default they make 20 pods a second.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ];
    [node::controllers(folder, &more), Part::new("kwok", programs::cached("kwok", "pretended"), pretender)]
}

impl Cluster {
    /// Makes the node. There is no scheduler: pods must name it.
    pub(super) async fn make_pretended_node(&self) {
        let nodes: Api<Node> = Api::all(self.client().await);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": PRETENDER}});
        let node = serde_json::from_value(node).expect("it is written as Kubernetes has it");
        nodes.create(&PostParams::default(), &node).await.expect("a node can be made");
    }
}
