//! `spec.server`: the pod that holds the global model, its checkpoint, and how clients from outside reach it.
//! Must not hold what it computes: that is `framework`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    rules::{at_most_one, between, matches, object_name},
    template::Template,
    volumes::VolumeClaim,
};

/// The server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// When and where it writes what a restart goes on from.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Opens the server to clients outside of the cluster. Left out, only pods of the run reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
    /// Overlay on its pod: resources, nodeSelector, volumes and the like. Merged by Kubernetes' own list keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

/// What a restart goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = at_most_one(&["volumeClaim", "existingClaim"]))]
pub struct Checkpoint {
    /// Rounds between two checkpoints; a restart repeats at most so many.
    #[serde(default = "every_rounds")]
    #[x_kube(validation = between(1, 100_000, "a number of rounds"))]
    pub every_rounds: u32,
    /// The claim that the operator makes for it. Left out, one of 10Gi in the default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<VolumeClaim>,
    /// A claim that exists already; a checkpoint of another run in it is refused unless `resumeFrom` names that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub existing_claim: Option<String>,
}

impl Default for Checkpoint {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

/// How clients outside of the cluster reach the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expose {
    /// Kind of the Service: `LoadBalancer` or `NodePort`.
    #[serde(rename = "type", default)]
    pub kind: ExposeKind,
    /// Names and addresses that clients dial; they go into the server's certificate and the join bundles. Left out,
    /// what the Service is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = ("self.all(name, name.matches('^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$'))",
        "a host is a DNS name or an IP address, without scheme and port"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Vec<String>,
    /// Annotations of the Service, which load balancers read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::rules::map_of_texts::<32, 4096>")]
    pub annotations: BTreeMap<String, String>,
    /// Class of the load balancer, where the cluster has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = matches("^[A-Za-z0-9]([A-Za-z0-9./_-]*[A-Za-z0-9])?$", "a load balancer class is a label, as in example.com/internal"))]
    pub load_balancer_class: Option<String>,
}

/// Kind of the Service that opens the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposeKind {
    /// The cluster's load balancer.
    #[default]
    LoadBalancer,
    /// A port of every node.
    NodePort,
}

fn every_rounds() -> u32 {
    1
}
