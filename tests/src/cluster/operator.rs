//! The operator on a cluster, installed from the chart as a user does, and the volumes that manifests read.
//! Must not know what a run does.

use std::path::PathBuf;

use serde_json::Value;

use super::{Cluster, access::new_name, programs};
use crate::program::Ended;

/// Where the operator is installed; no pod of it may do what the `restricted` level forbids.
pub(super) const NAMESPACE: &str = "fedtune-system";
/// Its service account.
pub(super) const ACCOUNT: &str = "fedtune-operator";
/// The images as `make images` names them.
const IMAGES: [&str; 2] = ["image.repository=localhost/fedtune-operator", "trainer.image.repository=localhost/fedtune"];
/// What was set before, and today's chart for all that was not.
const KEEP_VALUES: &str = "--reset-then-reuse-values";

impl Cluster {
    /// Installs the operator with these values of the chart, and waits until it is ready.
    pub async fn install_operator(&self, values: &[&str]) {
        self.make_restricted_namespace(NAMESPACE).await;
        self.install_operator_again(values);
    }

    /// Installs the operator where one was, and waits until it is ready.
    pub fn install_operator_again(&self, values: &[&str]) {
        let values: Vec<&str> = IMAGES.iter().chain(values).copied().collect();
        let installed = self.helm_with("install", &chart(), &[], &values);
        let pods = || self.kubectl(&["describe", "pods", "--namespace", NAMESPACE], "").stdout;
        assert_eq!(installed.code, Some(0), "{installed:#?}\n{}", pods());
    }

    /// Takes the operator away; definition and runs stay.
    pub fn uninstall_operator(&self) {
        let _gone = self.helm(&["uninstall", "fedtune", "--namespace", NAMESPACE, "--wait", "--timeout", "3m"]).well();
    }

    /// Gives the chart other values, and waits until operators have them.
    pub fn upgrade_operator(&self, values: &[&str]) {
        self.upgrade_to(&chart(), values);
    }

    /// Makes the operator the one of this release, which `make e2e` has built, by that release's own chart. Runs have today's
    /// trainer, which alone the node has.
    pub fn change_operator_to(&self, release: &str) {
        let (image, source) = programs::release(release);
        self.import_image(&image).expect("the image was built");
        let chart = source.join("charts/fedtune").display().to_string();
        let (tag, trainer) = (format!("image.tag={release}"), concat!("trainer.image.tag=", env!("CARGO_PKG_VERSION")));
        self.upgrade_to(&chart, &[&tag, trainer]);
    }

    /// Makes the operator today's again.
    pub fn change_operator_back(&self) {
        self.upgrade_operator(&["image.tag=", "trainer.image.tag="]);
    }

    /// Helm waits for new pods, and not until the last of the old ones has given its lead back.
    fn upgrade_to(&self, chart: &str, values: &[&str]) {
        let _upgraded = self.helm_with("upgrade", chart, &[KEEP_VALUES], values).well();
        let on_their_way = "--output=jsonpath={.items[?(@.metadata.deletionTimestamp)].metadata.name}";
        let pods = self.kubectl(&["get", "pods", "--namespace", NAMESPACE, on_their_way], "").well().stdout;
        let waits = ["wait", "pods", "--namespace", NAMESPACE, "--for=delete", "--timeout=60s"];
        let words: Vec<&str> = waits.into_iter().chain(pods.split_whitespace()).collect();
        if !pods.is_empty() {
            let _gone = self.kubectl(&words, "").well();
        }
    }

    fn helm_with(&self, verb: &str, chart: &str, flags: &[&str], values: &[&str]) -> Ended {
        let words = [verb, "fedtune", chart, "--namespace", NAMESPACE, "--wait", "--timeout", "3m"];
        let sets = values.iter().flat_map(|value| ["--set", value]);
        self.helm(&words.into_iter().chain(flags.iter().copied()).chain(sets).collect::<Vec<_>>())
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

fn chart() -> String {
    programs::root().join("charts/fedtune").display().to_string()
}

/// Whether the audit log has this request as the operator's.
pub(super) fn is_by_operator(event: &Value) -> bool {
    event["user"]["username"] == format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}")
}
