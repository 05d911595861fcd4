//! What a run's objects must be: a pure function from a resource to its children.
//! Must not talk to a cluster, read a clock or draw a random number.

use fedtune_crds::FederatedFineTune;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, PersistentVolumeClaim, Service},
    networking::v1::NetworkPolicy,
};

/// What the operator was installed with: the same for every run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of the trainer where a resource names none.
    pub trainer_image: String,
    /// Namespace that the operator runs in; it may read `/status` of every server.
    pub operator_namespace: String,
}

/// Everything but Secrets, which need random numbers and a clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Children {
    /// The spec as the trainer reads it; its name ends in a hash of its content.
    pub config_map: ConfigMap,
    /// Claims that the operator makes: the checkpoint's and the cache's.
    pub claims: Vec<PersistentVolumeClaim>,
    /// The headless one of the server, and the one that opens it to the outside.
    pub services: Vec<Service>,
    /// Who may speak to whom.
    pub network_policies: Vec<NetworkPolicy>,
    /// The server.
    pub server: Job,
    /// One for each managed group, in the order of the groups.
    pub clients: Vec<Job>,
}

/// A resource that the API server has accepted, with its defaults.
pub type Run = FederatedFineTune;
