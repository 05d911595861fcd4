//! `spec.egress` and `spec.metrics`: what pods may reach, and how much of what they count is shown.
//! Must not decide a result.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules::between;

/// A network that the run's pods may reach, beside DNS, the server and remote sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// The network, as in `10.0.0.0/8`.
    #[schemars(length(max = 43))]
    #[x_kube(validation = ("isCIDR(self)", "a network is an address and a prefix length, as in 10.0.0.0/8"))]
    pub cidr: String,
    /// TCP ports. Left out, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = ("self.all(port, port >= 1 && port <= 65535)", "a port is a whole number from 1 to 65535"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ports: Vec<u32>,
}

/// How much of what the run counts is shown to Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Clients beyond so many share one series, so that thousands of them do not flood a Prometheus.
    #[serde(default = "max_client_series")]
    #[x_kube(validation = between(0, 10_000, "a number of series"))]
    pub max_client_series: u32,
}

impl Default for Metrics {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

fn max_client_series() -> u32 {
    100
}
