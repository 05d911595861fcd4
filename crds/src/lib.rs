//! Types that operator and trainer share: the `FederatedFineTune` resource and the run report.
//! Must not link a Kubernetes client or libtorch.

#![allow(unreachable_pub, reason = "`KubeSchema` repeats each public struct inside a function")]

mod between;
pub mod canonical;
pub mod clients;
pub mod crd;
pub mod data;
mod defaults;
pub mod framework;
pub mod live;
pub mod load;
pub mod model;
pub mod network;
pub mod quantities;
pub mod reference;
pub mod report;
mod resource;
mod rules;
pub mod server;
pub mod source;
pub mod status;
pub mod template;
pub mod training;
pub mod tuning;
pub mod volumes;

pub use canonical::{canonical_json, hex, spec_hash};
pub use load::{LoadError, Problem, documents, load, load_all};
pub use resource::{FederatedFineTune, FederatedFineTuneSpec};
pub use status::FederatedFineTuneStatus;
