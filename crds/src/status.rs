//! `status`: where a run stands, as `kubectl get` shows it.
//! Must not hold a list per round or client: an object of the API is small, the full report is in `output`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Where a run stands. Accuracy, loss, bytes and operations are text: columns show text, and 7 billion parameters times
/// a billion tokens is more than a 64-bit integer holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederatedFineTuneStatus {
    /// `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run stands in one word. Left out, the operator has not seen it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What is going on or why it ended, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 3072))]
    pub message: Option<String>,
    /// Ready, Reconciling and Stalled in kstatus's sense, and Complete, Failed and Suspended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The framework, in the words of reports and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub framework: Option<String>,
    /// Finished rounds of all, as in `7/10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// Last finished round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// Connected clients of all, as in `4/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub clients_ready: Option<String>,
    /// Accuracy on the held-out examples after the last round, for the eye: `0.861`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub accuracy: Option<String>,
    /// Mean cross-entropy on the held-out examples after the last round, in nats, for the eye: `0.310`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub loss: Option<String>,
    /// Payload of all clients so far, both directions, for the eye: `1.2 GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub bytes: Option<String>,
    /// Payload bytes from the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub payload_bytes_up: Option<String>,
    /// Payload bytes to the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub payload_bytes_down: Option<String>,
    /// Bytes that the sockets carried from the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub wire_bytes_up: Option<String>,
    /// Bytes that the sockets carried to the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub wire_bytes_down: Option<String>,
    /// Floating point operations of all clients, evaluation left out, for the eye: `3.10e15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub client_flops: Option<String>,
    /// Compute seconds of all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub client_seconds: Option<String>,
    /// What columns round, to the last digit, once the run has ended well.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "final")]
    pub final_figures: Option<FinalFigures>,
    /// Seconds until the last round ends, at the present pace, as in `12m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub eta: Option<String>,
    /// Why the run ended: `rounds`, a stop rule's name, or a word for what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub stop_reason: Option<String>,
    /// Hash over all that decides the result; a checkpoint of another hash is not gone on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub run_hash: Option<String>,
    /// `spec.attempt` that the present Jobs belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When the first child was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 64))]
    pub start_time: Option<Time>,
    /// When the run succeeded or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 64))]
    pub completion_time: Option<Time>,
}

/// Figures of a run that has ended well, to the last digit, as its `results.json` has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FinalFigures {
    /// Accuracy on the held-out examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub accuracy: Option<String>,
    /// Mean cross-entropy on the held-out examples, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub loss: Option<String>,
    /// Floating point operations of all clients, evaluation left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub client_flops: Option<String>,
}

/// Where the run stands in one word. Left out, the operator has not seen it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Seen, nothing made yet; the spec may still change.
    Pending,
    /// Children are being made.
    Starting,
    /// The server is up.
    Running,
    /// No pod remains, the checkpoint waits.
    Suspended,
    /// Ended well.
    Succeeded,
    /// Ended by an error; `message` says which.
    Failed,
}

/// Kubernetes' own condition, with the bounds that its documentation states, in a list keyed by type.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One aspect of the run's state.",
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"description": "The aspect, in CamelCase.", "type": "string", "maxLength": 316},
                "status": {"description": "Whether it holds.", "type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"description": "metadata.generation that it speaks of.", "type": "integer", "format": "int64"},
                "lastTransitionTime": {"description": "When its status last changed.", "type": "string", "format": "date-time", "maxLength": 64},
                "reason": {"description": "Why, in one CamelCase word.", "type": "string", "maxLength": 1024},
                "message": {"description": "Why, as a sentence.", "type": "string", "maxLength": 32768},
            },
        },
    })
}
