//! The operator on a cluster, installed from the chart as a user does, and the volumes that manifests read.
//! Must not know what a run does.

use std::path::PathBuf;

use serde_json::Value;

use super::{Cluster, access::new_name, programs};

/// Where the operator is installed; no pod of it may do what the `restricted` level forbids.
pub(super) const NAMESPACE: &str = "fedtune-system";
/// Its service account.
pub(super) const ACCOUNT: &str = "fedtune-operator";
/// The images as `make images` names them.
const IMAGES: [&str; 2] = ["image.repository=localhost/fedtune-operator", "trainer.image.repository=localhost/fedtune"];

impl Cluster {
    /// Installs the operator with these values of the chart, and waits until it is ready.
    pub async fn install_operator(&self, values: &[&str]) {
        let chart = programs::root().join("charts/fedtune").display().to_string();
        self.make_restricted_namespace(NAMESPACE).await;
        let sets = IMAGES.iter().chain(values).flat_map(|value| ["--set", value]);
        let install = ["install", "fedtune", &chart, "--namespace", NAMESPACE, "--wait", "--timeout", "3m"];
        let words: Vec<&str> = install.into_iter().chain(sets).collect();
        let installed = self.helm(&words);
        let pods = || self.kubectl(&["describe", "pods", "--namespace", NAMESPACE], "").stdout;
        assert_eq!(installed.code, Some(0), "{installed:#?}\n{}", pods());
    }

    /// Gives the chart other values, and waits until operators have them.
    pub fn upgrade_operator(&self, values: &[&str]) {
        let chart = programs::root().join("charts/fedtune").display().to_string();
        let upgrade =
            ["upgrade", "fedtune", &chart, "--namespace", NAMESPACE, "--reuse-values", "--wait", "--timeout", "3m"];
        let words: Vec<&str> = upgrade.into_iter().chain(values.iter().flat_map(|value| ["--set", value])).collect();
        let _upgraded = self.helm(&words).well();
    }

    /// Kills all operators as a lost node does; others take their place.
    pub fn kill_operators(&self) {
        let ours = ["--selector", "app.kubernetes.io/name=fedtune-operator"];
        let words = ["delete", "pods", "--namespace", NAMESPACE, "--grace-period=0", "--force"];
        let words: Vec<&str> = words.into_iter().chain(ours).collect();
        let _killed = self.kubectl(&words, "").well();
    }

    /// What the API server has refused the operator for want of a right, as the audit log has it. A namespace that ends
    /// and a quota forbid too, to those who have the right.
    pub fn refused_to_operator(&self) -> Vec<Value> {
        let is_refused =
            |event: &Value| is_by_operator(event) && event["annotations"]["authorization.k8s.io/decision"] == "forbid";
        self.audit().into_iter().filter(is_refused).collect()
    }

    /// A namespace that no other test has, with [`Cluster::claim_inputs`]; its name, and the folder of its results.
    pub async fn experiment(&self, prefix: &str) -> (String, PathBuf) {
        let name = new_name(prefix);
        self.make_restricted_namespace(&name).await;
        let results = self.claim_inputs(&name).await;
        (name, results)
    }

    /// The claims that `tests/e2e/volumes.yaml` mounts: `models` and `mail` as `make setup` brought them, and an empty one
    /// for `results`, whose folder on this machine is given.
    pub async fn claim_inputs(&self, namespace: &str) -> PathBuf {
        for (claim, content) in [("models", ".cache/models"), ("mail", ".cache/mail")] {
            self.claim_filled(namespace, claim, &programs::root().join(content)).await;
        }
        self.claim_empty(namespace, "results").await
    }
}

/// Whether the audit log has this request as the operator's.
pub(super) fn is_by_operator(event: &Value) -> bool {
    event["user"]["username"] == format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}")
}
