//! Who may join: a client of this run, with examples that it can have.
//! Must not know sockets or sessions; what it is told of a newcomer is the newcomer's own word.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{plan::Plan, refusal::RefusalReason, rounds::Client, wire::Message};

/// What a client says of itself when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Its id, `group/index`.
    pub client: String,
    /// Training examples it holds.
    pub examples: u64,
    /// Labels it has, and how many examples of each.
    pub labels: BTreeMap<String, u64>,
    /// Drawn by its process at the start: the same process coming back takes the place of its old session.
    #[serde(default)]
    pub incarnation: u64,
}

/// Why a client may not join.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum JoinError {
    #[error("a join cannot be read: {reason}")]
    Unreadable { reason: String },
    #[error("client {client} is not of this run, whose clients are {known}")]
    Unknown { client: String, known: String },
    #[error("client {client} is connected already")]
    Connected { client: String },
    #[error("client {client} has no examples")]
    NoExamples { client: String },
    #[error("client {client} claims {claimed} examples, and spec.clients.groups[].maxExamples allows {allowed}")]
    TooManyExamples { client: String, claimed: u64, allowed: u64 },
    #[error("client {client} claims {labelled} labelled examples of {examples}")]
    TooManyLabels { client: String, labelled: u64, examples: u64 },
    #[error(
        "client {client} names labels that make {bytes} bytes with those of the others; at most {allowed} are allowed"
    )]
    LabelsTooLong { client: String, bytes: usize, allowed: usize },
    #[error(
        "client {client} comes back with {now} examples, and joined this run with {before}; its data must stay as it was, labels too"
    )]
    OtherData { client: String, before: u64, now: u64 },
    #[error("client {client} was refused {times} times in this round; it may join the next")]
    TooOften { client: String, times: u32 },
}

impl JoinError {
    /// Whether another attempt is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Connected { .. } | Self::TooOften { .. } => false,
            Self::Unreadable { .. }
            | Self::Unknown { .. }
            | Self::NoExamples { .. }
            | Self::TooManyExamples { .. }
            | Self::TooManyLabels { .. }
            | Self::LabelsTooLong { .. }
            | Self::OtherData { .. } => true,
        }
    }

    /// Which client it was, or from where.
    pub fn who(&self, address: SocketAddr) -> String {
        match self {
            Self::Unreadable { .. } | Self::Unknown { .. } => address.ip().to_string(),
            Self::Connected { client }
            | Self::NoExamples { client }
            | Self::TooManyExamples { client, .. }
            | Self::TooManyLabels { client, .. }
            | Self::LabelsTooLong { client, .. }
            | Self::OtherData { client, .. }
            | Self::TooOften { client, .. } => client.clone(),
        }
    }
}

impl From<&JoinError> for RefusalReason {
    fn from(error: &JoinError) -> Self {
        match error {
            JoinError::Unreadable { .. } => Self::Protocol,
            JoinError::Unknown { .. } => Self::Identity,
            JoinError::Connected { .. } => Self::Duplicate,
            JoinError::LabelsTooLong { .. } => Self::TooLarge,
            JoinError::NoExamples { .. }
            | JoinError::TooManyExamples { .. }
            | JoinError::TooManyLabels { .. }
            | JoinError::OtherData { .. } => Self::Examples,
            JoinError::TooOften { .. } => Self::Other,
        }
    }
}

/// The rules of joining one run.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Ids and most examples of the clients, by ordinal.
    clients: Vec<(String, Option<u64>)>,
    /// How often the server has started.
    pub(super) epoch: u64,
}

impl Admission {
    /// The rules of `plan`.
    pub fn of(plan: &Plan, epoch: u64) -> Self {
        let bound = |group: &str| {
            let group = plan.data.groups.iter().find(|known| known.name == group);
            group.and_then(|group| group.max_examples).map(|most| most as u64)
        };
        let clients = plan.clients.iter().map(|client| (client.to_string(), bound(&client.group))).collect();
        Self { clients, epoch }
    }

    /// The client's ordinal and what it says of itself, or why it may not join.
    pub fn check(&self, join: &Message) -> Result<(Client, Announcement), JoinError> {
        let announcement: Announcement = serde_json::from_value(join.fields.clone())
            .map_err(|error| JoinError::Unreadable { reason: error.to_string() })?;
        let Announcement { client, examples, labels, .. } = &announcement;
        let Some(ordinal) = self.clients.iter().position(|(known, _)| known == client) else {
            let known = self.clients.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
            return Err(JoinError::Unknown { client: client.chars().take(64).collect(), known });
        };
        let client = client.clone();
        if *examples == 0 {
            return Err(JoinError::NoExamples { client });
        }
        if let Some(allowed) = self.clients[ordinal].1
            && *examples > allowed
        {
            return Err(JoinError::TooManyExamples { client, claimed: *examples, allowed });
        }
        // Weights must stay exact in F64: 2^40 examples are more than any client can have read.
        let labelled = labels.values().fold(0u64, |sum, count| sum.saturating_add(*count));
        if labelled > *examples || *examples > 1 << 40 {
            return Err(JoinError::TooManyLabels { client, labelled, examples: *examples });
        }
        Ok((ordinal, announcement))
    }
}
