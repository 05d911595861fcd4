//! What the operator was installed with: the same for every run.
//! Must not hold what a resource can say for itself.

use std::{collections::BTreeMap, time::Duration};

use fedtune_crds::template::Template;

/// What the operator was installed with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Image of the trainer where a resource names none.
    pub trainer_image: String,
    /// When nodes look for a newer image under the same name; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// Namespace that the operator runs in; it may read `/status` of every server.
    pub operator_namespace: String,
    /// Labels of the operator's own pods in that namespace.
    pub operator_labels: BTreeMap<String, String>,
    /// Labels of the pods that may read `/metrics`, in any namespace.
    pub prometheus_labels: BTreeMap<String, String>,
    /// Whether the storage driver knows `ReadWriteOncePod`, so that a checkpoint has one pod at a time by its volume too.
    pub read_write_once_pod: bool,
    /// How long server and clients go on serving `/metrics` after the end, for the last scrape; under a minute, after
    /// which the operator deletes what is left of a finished run.
    pub linger: Duration,
    /// Overlay on every pod of the trainer, beneath the resource's own: pull secrets, tolerations, a runtime class.
    pub template: Template,
}

impl Settings {
    /// What an installation that says nothing else has.
    pub fn new(trainer_image: &str, operator_namespace: &str) -> Self {
        let named = |name: &str| BTreeMap::from([("app.kubernetes.io/name".to_owned(), name.to_owned())]);
        Self {
            trainer_image: trainer_image.to_owned(),
            image_pull_policy: None,
            operator_namespace: operator_namespace.to_owned(),
            operator_labels: named("fedtune-operator"),
            prometheus_labels: named("prometheus"),
            read_write_once_pod: false,
            linger: Duration::from_secs(30),
            template: Template::default(),
        }
    }
}
