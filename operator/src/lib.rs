//! The operator: makes the pods that a `FederatedFineTune` asks for, and says how the run stands.
//! Must not link libtorch: training is the trainer's.
//!
//! | module | one thing |
//! |---|---|
//! | `arguments` | the flags of `run` |
//! | `operator` | the process: its parts, in the order in which they start |
//! | `leader` | which of several operators works |
//! | `caches` | what the cluster holds of our runs |
//! | `live` | what running servers say of themselves |
//! | `memory` | what was just done and caches do not show yet |
//! | `controller` | one reconcile: observe, decide, validate, build, apply, status |
//! | `authority` | a run's CA and its certificates |
//! | `events`, `metrics`, `http` | what people and Prometheus are told |

pub mod arguments;
pub mod authority;
pub mod caches;
pub mod controller;
pub mod events;
pub mod http;
pub mod leader;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod operator;
