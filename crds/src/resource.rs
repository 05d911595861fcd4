//! The `FederatedFineTune` resource: one experiment, as a user writes it.
//! Must not spell out a rule: those between parts are in `between`, those of a part beside its fields.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    between,
    clients::{Clients, Participation},
    data::Data,
    framework::Framework,
    model::Model,
    network::{Egress, Metrics},
    rules::{self, matches, object_name},
    server::Server,
    status::FederatedFineTuneStatus,
    training::{Stop, Training},
    tuning::Tuning,
    volumes::{Cache, Output, ResumeFrom, RetentionPolicy},
};

/// A federated fine-tuning run: what is learned from whose data in which framework, where and when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "fedtune.io",
    version = "v1alpha1",
    kind = "FederatedFineTune",
    plural = "federatedfinetunes",
    shortname = "fft",
    category = "all",
    namespaced,
    status = "FederatedFineTuneStatus",
    derive = "PartialEq",
    doc = "Fine-tunes a language model across clients whose data stays where it is, and measures accuracy, communication and client compute.",
    validation = rules::resource_name(),
    printcolumn(name = "Framework", type_ = "string", json_path = ".status.framework", description = "Framework of the run"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the run stands"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress", description = "Finished rounds of all"),
    printcolumn(name = "Clients", type_ = "string", json_path = ".status.clientsReady", description = "Connected clients of all"),
    printcolumn(name = "Accuracy", type_ = "string", json_path = ".status.accuracy", description = "Accuracy on the held-out examples"),
    printcolumn(name = "Bytes", type_ = "string", json_path = ".status.bytes", description = "Payload of all clients, both directions"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Since when the resource exists"),
    printcolumn(name = "Experiment", type_ = "string", json_path = ".spec.experiment", description = "Runs of one experiment are compared", priority = 1),
    printcolumn(name = "Loss", type_ = "string", json_path = ".status.loss", description = "Loss on the held-out examples", priority = 1),
    printcolumn(name = "FLOPs", type_ = "string", json_path = ".status.clientFlops", description = "Floating point operations of all clients", priority = 1),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.eta", description = "Time left at the present pace", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", description = "What is going on, as a sentence", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = between::distillation_needs_a_public_set())]
#[x_kube(validation = between::only_language_models_answer())]
#[x_kube(validation = between::only_split_cuts_groups())]
#[x_kube(validation = between::one_server_half_has_one_cut())]
#[x_kube(validation = between::unequal_ranks_need_a_way_to_combine())]
#[x_kube(validation = between::external_groups_need_an_open_server())]
#[x_kube(validation = between::the_quorum_can_be_reached())]
#[x_kube(validation = between::self_deletion_needs_an_output())]
#[x_kube(validation = between::resuming_needs_the_claim())]
pub struct FederatedFineTuneSpec {
    /// Runs of one experiment are compared with each other: in the report, in dashboards and as a label.
    #[serde(default = "experiment")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = matches("^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", "an experiment is a label value: letters, digits, -, _ and ., a letter or digit at both ends"))]
    pub experiment: String,
    /// How the clients learn together: exactly one framework or baseline.
    pub framework: Framework,
    /// The base model.
    pub model: Model,
    /// What is trained on top of it.
    #[serde(default)]
    pub tuning: Tuning,
    /// The examples.
    pub data: Data,
    /// How clients train, and for how many rounds.
    #[serde(default)]
    pub training: Training,
    /// How many clients a round asks, and how many must answer.
    #[serde(default)]
    pub participation: Participation,
    /// When the run may end before its last round.
    #[serde(default)]
    pub stop: Stop,
    /// What all randomness comes from: initial weights, batches, dropout, partition, held-out examples.
    #[serde(default = "seed")]
    #[x_kube(validation = rules::between(0, 1 << 53, "a seed"))]
    pub seed: u64,
    /// Who takes part.
    #[serde(default)]
    pub clients: Clients,
    /// The server's pod, its checkpoint and how it is reached.
    #[serde(default)]
    pub server: Server,
    /// Where adapter, results and report go on a cluster. Left out, they stay on the checkpoint's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// Image of the trainer. Left out, the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = matches("^[^ ]+$", "an image is a reference without spaces, as in registry.example.com/fedtune:0.1.0"))]
    pub image: Option<String>,
    /// Stops all pods and keeps the checkpoint; set back to false, the run goes on from it.
    #[serde(default)]
    pub suspend: bool,
    /// Raise it to try a failed run again on its checkpoint.
    #[serde(default)]
    #[x_kube(validation = rules::between(0, 99, "an attempt"))]
    #[x_kube(validation = ("self >= oldSelf", "an attempt can only be raised"))]
    pub attempt: u32,
    /// Seconds after which a run that has not ended fails. Left out, no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::between(1, 31_536_000, "activeDeadlineSeconds"))]
    pub active_deadline_seconds: Option<u32>,
    /// Seconds after its end when the resource deletes itself, as for Jobs. Left out, never. Needs `output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::between(0, 31_536_000, "ttlSecondsAfterFinished"))]
    pub ttl_seconds_after_finished: Option<u32>,
    /// What becomes of the checkpoint when the resource is deleted: `Delete` or `Retain`.
    #[serde(default)]
    pub retention_policy: RetentionPolicy,
    /// The earlier run whose checkpoint in `server.checkpoint.existingClaim` may be gone on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<ResumeFrom>,
    /// One claim for models and data, so that a run downloads each of them once. Left out, each pod downloads for
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Networks that the pods may reach, beside DNS, the server and remote sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub egress: Vec<Egress>,
    /// Service account of the pods. Left out, the namespace's default. Its token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub service_account_name: Option<String>,
    /// How much of what the run counts is shown to Prometheus.
    #[serde(default)]
    pub metrics: Metrics,
}

fn experiment() -> String {
    "default".to_owned()
}

fn seed() -> u64 {
    42
}
