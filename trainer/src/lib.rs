//! The trainer: fine-tunes one language model across clients in three federated frameworks, and measures each.
//! Must not know Kubernetes: it reads a spec and writes a report, on a cluster and on one machine alike.

pub mod adapter_files;
#[cfg(feature = "jemalloc")]
mod allocator;
pub mod averages;
mod caught;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod data;
pub mod deliver;
mod durable;
pub mod estimate;
pub mod evaluate;
pub mod events;
pub mod export;
pub mod flops;
pub mod frameworks;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod identity;
mod kernels;
pub mod local;
pub mod logs;
pub mod low_rank;
pub mod merge;
pub mod meter;
pub mod models;
pub mod optimizer;
pub mod pace;
pub mod plan;
pub mod predict;
pub mod progress;
pub mod random;
pub mod refusal;
pub mod report;
pub mod rounds;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod server;
pub mod sources;
pub mod stop;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod wire;

/// The messages and the service of `proto/federation.proto`, generated.
#[allow(missing_docs, clippy::pedantic)]
pub mod protocol {
    tonic::include_proto!("fedtune.v1");
}
