//! What a running server says of itself at `/status`: the operator reads it and copies it into the resource's status.
//! Must not compute anything: the trainer measures, this module only gives the figures their names.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use crate::report::UpDown;

/// Where a run stands now. It also is the final summary, at most 3 KiB, that a server leaves as its termination message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveStatus {
    /// `metadata.uid` on a cluster, else one made for this run; empty while it is not known yet.
    #[serde(default)]
    pub uid: String,
    /// How often a server of this run has started on its checkpoint, this time included.
    #[serde(default)]
    pub epoch: u64,
    /// Grows by one with each change of anything here; begins anew with each process, so it counts within an epoch.
    pub seq: u64,
    /// Where the run stands in one word.
    pub phase: LivePhase,
    /// Last finished round; 0 before the first.
    #[serde(default)]
    pub round: u32,
    /// Rounds of the run.
    #[serde(default)]
    pub rounds: u32,
    /// Clients that are connected.
    #[serde(default)]
    pub clients_ready: u32,
    /// Clients of the run.
    #[serde(default)]
    pub clients: u32,
    /// Accuracy on the held-out examples after the last finished round.
    #[serde(default)]
    pub accuracy: Option<f64>,
    /// Mean cross-entropy on the held-out examples after the last finished round, in nats.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Tensor bytes that clients and server handed to the wire, both directions, until the last finished round ended.
    #[serde(default)]
    pub payload_bytes: u64,
    /// The same by direction.
    #[serde(default)]
    pub payload: UpDown,
    /// Bytes that the sockets carried until the last finished round ended.
    #[serde(default)]
    pub wire: UpDown,
    /// Headline FLOPs of all clients, as their last answers say.
    #[serde(default)]
    pub client_flops: f64,
    /// Compute seconds of all clients, as their last answers say.
    #[serde(default)]
    pub client_seconds: f64,
    /// Seconds until the last round ends if rounds stay as long as they were, counted from the last finished round.
    #[serde(default)]
    pub eta_seconds: Option<f64>,
    /// Clients that the round waits for, the first [`LiveStatus::NAMED`] of them by ordinal.
    #[serde(default)]
    pub waiting_for: Vec<String>,
    /// When phase, round or `waitingFor` last changed: what is waited for is waited for since then.
    pub since: Time,
    /// Why it ended well, in one word: `rounds`, or the name of a stop rule.
    #[serde(default)]
    pub stop_reason: Option<String>,
    /// What is going on or why it ended, as a sentence.
    #[serde(default)]
    pub message: String,
}

/// Failures that sentences begin with and metrics count by name: `QuorumLost: round 2 had 1 of at least 3 clients`.
pub const FAILURES: [&str; 3] = ["NonFiniteLoss", "PayloadMismatch", "QuorumLost"];

/// The failure that `sentence` names, be it told by the server or passed on from a client.
pub fn failure(sentence: &str) -> Option<&'static str> {
    FAILURES.into_iter().find(|name| sentence.contains(&format!("{name}: ")))
}

impl LiveStatus {
    /// Clients that `waitingFor` names, at most: with thousands of them a list would not fit into a summary.
    pub const NAMED: usize = 16;
}

/// Where a run stands in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LivePhase {
    /// Model and data are being read; nobody is listened to yet.
    Starting,
    /// The server listens, and the first round has not begun.
    Waiting,
    /// A round is running.
    Running,
    /// All rounds done, or a stop rule met.
    Succeeded,
    /// Ended by an error; `message` says which.
    Failed,
}

/// A moment as `since` has it, to the second.
pub fn moment(time: SystemTime) -> Time {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_written_and_its_names_are_camel_case() {
        let status = LiveStatus {
            uid: "u".to_owned(),
            epoch: 2,
            seq: 7,
            phase: LivePhase::Running,
            round: 1,
            rounds: 3,
            clients_ready: 1,
            clients: 2,
            accuracy: Some(0.75),
            loss: None,
            payload_bytes: 12,
            payload: UpDown { up: 5, down: 7 },
            wire: UpDown { up: 6, down: 8 },
            client_flops: 4.5e12,
            client_seconds: 1.5,
            eta_seconds: Some(2.5),
            waiting_for: vec!["silo/1".to_owned()],
            since: moment(UNIX_EPOCH + Duration::from_millis(1_700_000_000_900)),
            stop_reason: None,
            message: "round 2 of 3".to_owned(),
        };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(
            text,
            "{\"uid\":\"u\",\"epoch\":2,\"seq\":7,\"phase\":\"Running\",\"round\":1,\"rounds\":3,\"clientsReady\":1,\
             \"clients\":2,\"accuracy\":0.75,\"loss\":null,\"payloadBytes\":12,\"payload\":{\"up\":5,\"down\":7},\
             \"wire\":{\"up\":6,\"down\":8},\"clientFlops\":4500000000000.0,\"clientSeconds\":1.5,\"etaSeconds\":2.5,\
             \"waitingFor\":[\"silo/1\"],\"since\":\"2023-11-14T22:13:20Z\",\
             \"stopReason\":null,\"message\":\"round 2 of 3\"}"
        );
        assert_eq!(serde_json::from_str::<LiveStatus>(&text).unwrap(), status);
    }
}
