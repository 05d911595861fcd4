//! The trainer: fine-tunes one language model across clients in three federated frameworks, and measures each.
//! Must not know Kubernetes: it reads a spec and writes a report, on a cluster and on one machine alike.

pub mod data;
pub mod events;
pub mod logs;
pub mod models;
pub mod progress;
pub mod random;
pub mod report;

/// The messages and the service of `proto/federation.proto`, generated.
#[allow(missing_docs, clippy::pedantic)]
pub mod protocol {
    tonic::include_proto!("fedtune.v1");
}
