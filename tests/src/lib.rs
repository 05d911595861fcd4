//! A bench for tests of the `fedtune` program as a user runs it: tiny experiments in folders of their own.
//! Must not call the trainer's code: what is tested here is the program, its files and its words.
//!
//! | file | one thing |
//! |---|---|
//! | `bench.rs` | a folder with a model, data and specs, and runs of the program in it |
//! | `cluster.rs` | a Kubernetes cluster: the real API server, and the real rest |
//! | `dashboards.rs` | the chart's dashboards, and what they should show of a run |
//! | `doomed.rs` | a test that is killed while its cluster runs |
//! | `experiment.rs` | an experiment of `manifests/`, run here and on a cluster |
//! | `exposition.rs` | a scrape, taken apart and held against Prometheus' rules |
//! | `files.rs` | a file server and an S3 store, on loopback |
//! | `http.rs` | one GET |
//! | `load.rs` | many runs at once |
//! | `mounts.rs` | disks that turn read-only |
//! | `prometheus.rs` | a real Prometheus |
//! | `pictures.rs` | dashboards as a page to look at |
//! | `program.rs` | the program: built, started, waited for |
//! | `scraped.rs` | processes of a run with telemetry |
//! | `siege.rs` | server and clients that are killed and started again |
//! | `tiny.rs` | a model and texts so small that a run takes a second |

mod bench;
pub mod cluster;
pub mod dashboards;
pub mod doomed;
pub mod experiment;
pub mod exposition;
pub mod files;
pub mod http;
pub mod load;
pub mod mounts;
pub mod pictures;
mod program;
pub mod prometheus;
pub mod scraped;
pub mod siege;
pub mod tiny;

pub use bench::Bench;
pub use program::{Ended, Running, operator, plugin, program};
