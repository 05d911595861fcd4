//! Who may join: a client of this run, with examples that it can have.
//! Must not know sockets or sessions; what it is told of a newcomer is the newcomer's own word.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    identity::{Foreign, PeerIdentity},
    plan::{ClientId, Plan},
    refusal::RefusalReason,
    rounds::Client,
    wire::Message,
};

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
    #[error("client {client} is not let in: {foreign}")]
    Foreign { client: String, foreign: Foreign },
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
            | Self::Foreign { .. }
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
            | Self::Foreign { client, .. }
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
            JoinError::Unknown { .. } | JoinError::Foreign { .. } => Self::Identity,
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
    /// What certificates call the run.
    run: String,
    /// Ids and most examples of the clients, by ordinal.
    clients: Vec<(ClientId, Option<u64>)>,
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
        let clients = plan.clients.iter().map(|client| (client.clone(), bound(&client.group))).collect();
        Self { run: plan.run().to_owned(), clients, epoch }
    }

    /// The client's ordinal and what it says of itself, or why it may not join.
    pub fn check(&self, join: &Message, peer: &PeerIdentity) -> Result<(Client, Announcement), JoinError> {
        let announcement: Announcement = serde_json::from_value(join.fields.clone())
            .map_err(|error| JoinError::Unreadable { reason: error.to_string() })?;
        let Announcement { client, examples, labels, .. } = &announcement;
        let Some(ordinal) = self.clients.iter().position(|(known, _)| known.to_string() == *client) else {
            let known = self.clients.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(", ");
            return Err(JoinError::Unknown { client: client.chars().take(64).collect(), known });
        };
        let client = client.clone();
        if let Err(foreign) = peer.may_speak_for(&self.run, &self.clients[ordinal].0.group) {
            return Err(JoinError::Foreign { client, foreign });
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::Name, wire::Subject};

    fn admission() -> Admission {
        let clients = ["silo-a", "silo-b"].map(|group| (ClientId { group: group.to_owned(), index: 0 }, Some(5)));
        Admission { run: "mail".to_owned(), clients: clients.to_vec(), epoch: 1 }
    }

    fn join(client: &str, examples: u64, labelled: u64) -> Message {
        let fields = serde_json::json!({ "client": client, "examples": examples, "labels": { "a": labelled } });
        Message { fields, ..Message::new(Subject::Join, 0) }
    }

    fn silo(run: &str, group: &str) -> PeerIdentity {
        PeerIdentity::Certified(Name::Group { run: run.to_owned(), group: group.to_owned() })
    }

    #[test]
    fn a_client_is_let_in_only_by_a_certificate_of_its_group_and_run() {
        let check = |peer: &PeerIdentity| admission().check(&join("silo-b/0", 3, 3), peer).map(|(client, _)| client);
        assert_eq!(check(&silo("mail", "silo-b")), Ok(1));
        assert_eq!(check(&PeerIdentity::Plain), Ok(1));
        assert_eq!(
            check(&silo("mail", "silo-a")).unwrap_err().to_string(),
            "client silo-b/0 is not let in: the certificate is for group silo-a, and may not speak for a client of \
             group silo-b"
        );
        assert_eq!(
            check(&silo("post", "silo-b")).unwrap_err().to_string(),
            "client silo-b/0 is not let in: the certificate is for run post, and this is run mail"
        );
    }

    #[test]
    fn a_client_that_claims_examples_it_cannot_have_is_refused() {
        let check = |join: &Message| admission().check(join, &PeerIdentity::Plain).unwrap_err().to_string();
        assert_eq!(check(&join("silo-a/0", 0, 0)), "client silo-a/0 has no examples");
        let over = "client silo-a/0 claims 6 examples, and spec.clients.groups[].maxExamples allows 5";
        assert_eq!(check(&join("silo-a/0", 6, 6)), over);
        assert_eq!(check(&join("silo-a/0", 4, 5)), "client silo-a/0 claims 5 labelled examples of 4");
    }
}
