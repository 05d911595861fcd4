//! What a run's objects must be: a pure function from a resource to its children.
//! Must not talk to a cluster, read a clock or draw a random number.
//!
//! | file | one thing |
//! |---|---|
//! | `settings.rs` | what the operator was installed with |
//! | `names.rs` | the name of every object, and the server's addresses |
//! | `labels.rs` | labels, selectors and owners |
//! | `groups.rs` | which groups have pods of ours |
//! | `config_map.rs` | the spec as the trainer reads it |
//! | `secret.rs` | certificates as Secrets |
//! | `service.rs` | how the server is found and opened |
//! | `network_policy.rs` | who may speak to whom |
//! | `volume.rs`, `mount.rs` | claims that are made, volumes that are mounted |
//! | `sources.rs`, `credentials.rs` | what a pod reads, and the secrets that open it |
//! | `pod.rs`, `requests.rs` | what the pods of server and clients share, and what they ask of a node |
//! | `server_job.rs`, `client_job.rs` | what only one of them has |
//! | `overlay.rs`, `refusals.rs`, `restricted.rs` | a template merged in, what it may not set, what no pod may be |
//! | `job.rs` | a Job as the JSON that goes to the API server |

use fedtune_crds::FederatedFineTune;
use k8s_openapi::api::{
    core::v1::{ConfigMap, PersistentVolumeClaim, Service},
    networking::v1::NetworkPolicy,
};

mod client_job;
pub mod config_map;
mod credentials;
pub mod groups;
mod job;
pub mod labels;
mod mount;
pub mod names;
mod network_policy;
pub mod overlay;
pub mod pod;
mod refusals;
mod requests;
mod restricted;
pub mod secret;
mod server_job;
mod service;
mod settings;
mod sources;
mod volume;

pub use job::Job;
pub use settings::Settings;

/// A resource that the API server has accepted, with its defaults.
pub type Run = FederatedFineTune;

/// Everything but Secrets, which need random numbers and a clock: [`secret`] makes them of what [`crate::authority`]
/// issued.
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
    /// One for each managed group, in the order of the groups; none in the central baseline.
    pub clients: Vec<Job>,
}

/// Why a resource has no children.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum BuildError {
    #[error("{run} has no {field}; only what the API server has stored can be run")]
    NotStored { run: String, field: &'static str },
    #[error("{path}: {sentence}")]
    Template { path: String, sentence: String },
    #[error("{pod} would need two values of {variable}, for {first} and for {second}; let both name the same Secret")]
    TwoSecrets { pod: String, variable: &'static str, first: String, second: String },
}

/// All that `run` needs, but for Secrets.
///
/// # Errors
/// Where the resource was never stored, a template sets what it may not, or a pod would need two tokens of one kind.
pub fn children(run: &Run, settings: &Settings) -> Result<Children, BuildError> {
    let config_map = config_map::config_map(run, &labels::Identity::of(run)?, settings);
    let name = config_map.metadata.name.clone().unwrap_or_default();
    Ok(Children {
        claims: volume::claims(run, settings),
        services: service::services(run),
        network_policies: network_policy::policies(run, settings),
        server: server_job::job(run, settings, &name)?,
        clients: client_job::jobs(run, settings, &name)?,
        config_map,
    })
}

/// The hash over all that decides the result, for `status.runHash`: neither `suspend`, `attempt` nor an image changes
/// it.
pub fn run_hash(run: &Run) -> String {
    fedtune_crds::spec_hash(&run.spec)
}

#[cfg(test)]
mod tests;
