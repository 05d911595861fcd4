//! `spec.clients` and `spec.participation`: who takes part, and how many must answer.
//! Must not say what they do: that is `framework` and `training`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    data::GroupData,
    quantities::{Decimal, TimeSpan},
    rules::{between, dns_label, object_name, share},
    template::Template,
};

/// Most groups that a resource may have.
pub const MAX_GROUPS: u32 = 100;

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clients {
    /// The groups, in the order that numbers the clients.
    #[serde(default = "groups")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub groups: Vec<Group>,
}

impl Default for Clients {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

impl Clients {
    /// Clients of all groups together.
    pub fn count(&self) -> u32 {
        self.groups.iter().map(|group| group.replicas).sum()
    }
}

/// A trust domain: its clients share one certificate, and on a cluster one Indexed Job. Client i is `<name>/<i>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.placement == 'Managed' || !(has(self.template) || has(self.state))",
    "an External group has no pods of ours; leave template and state out"))]
pub struct Group {
    /// Its name, part of its clients' ids and of object names.
    #[schemars(length(max = 63))]
    #[x_kube(validation = dns_label("self", 12, "a group's name has at most 12 small letters, digits and -, begins with a letter and ends with a letter or a digit"))]
    #[x_kube(validation = ("self != 'server'", "server is the server's own name; give the group another one"))]
    pub name: String,
    /// How many clients it has.
    #[serde(default = "replicas")]
    #[x_kube(validation = between(1, 9999, "a number of replicas"))]
    pub replicas: u32,
    /// LoRA rank of its clients, where it is not `tuning.lora.rank`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 1024, "a LoRA rank"))]
    pub rank: Option<u32>,
    /// Blocks that its clients run, where it is not `framework.splitFedLLM.cutLayer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 999, "a cut layer"))]
    pub cut_layer: Option<u32>,
    /// Examples of its own, partitioned among its replicas. Left out, its clients share `spec.data` with the other
    /// groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<GroupData>,
    /// Most training examples that each of its clients uses, chosen by seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 1_000_000_000, "a number of examples"))]
    pub max_examples: Option<u32>,
    /// Who runs its clients. `Managed`: the operator, as pods. `External`: their owner, anywhere, with the certificate
    /// and the join bundle that the operator makes; needs `server.expose`.
    #[serde(default)]
    pub placement: Placement,
    /// Where its clients keep what goes on from round to round: in KD-FedLLM their models, with `FLoRA` or
    /// `FedExLoRA` what was added beside the base. Left out, in the pod: a replaced pod replays its rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Overlay on its pods: resources, nodeSelector, volumes and the like. Merged by Kubernetes' own list keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

/// Who runs a group's clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// The operator.
    #[default]
    Managed,
    /// Their owner.
    External,
}

/// Where clients keep what must outlive their pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// A `ReadWriteMany` claim; each client has a folder of its own in it.
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub existing_claim: String,
}

/// How many clients a round asks, and how many must answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Participation {
    /// Clients that must have answered for a round to count. Left out, all that were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 999_900, "minClients"))]
    pub min_clients: Option<u32>,
    /// Share of the clients that a round asks, drawn by seed.
    #[serde(default = "fraction")]
    #[x_kube(validation = share("a fraction"))]
    pub fraction: Decimal,
    /// How long a round waits for every client asked; then it goes on with `minClients` of them.
    #[serde(default = "round_timeout")]
    pub round_timeout: TimeSpan,
    /// How much longer it waits for `minClients`; then the run fails as `QuorumLost` and keeps its checkpoint.
    #[serde(default = "quorum_timeout")]
    pub quorum_timeout: TimeSpan,
}

impl Default for Participation {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

fn groups() -> Vec<Group> {
    let group = serde_json::json!({"name": "silo"});
    vec![serde_json::from_value(group).expect("only a group's name has no default")]
}

fn replicas() -> u32 {
    2
}

fn fraction() -> Decimal {
    Decimal::literal("1.0")
}

fn round_timeout() -> TimeSpan {
    TimeSpan::literal("2h")
}

fn quorum_timeout() -> TimeSpan {
    TimeSpan::literal("30m")
}
