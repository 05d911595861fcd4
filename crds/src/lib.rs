//! Types that operator and trainer share: the `FederatedFineTune` resource and the run report.
//! Must not link a Kubernetes client or libtorch.

pub mod report;
