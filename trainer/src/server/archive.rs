//! Which rounds each client did, and what it was sent in them: for those that lost their state.
//! Must not hold what was sent: it is read from the store when it is asked for.

use std::collections::BTreeMap;

use crate::{
    checkpoint::Keep,
    frameworks::FrameworkError,
    rounds::Client,
    wire::{Message, Subject},
};

/// Rounds that each client answered to the end, ascending; where their state is the same for all, every round.
pub(super) type Completed = BTreeMap<Client, Vec<u32>>;

/// What clients can be brought back with.
#[derive(Debug)]
pub(super) struct Archive {
    completed: Completed,
    keep: Box<dyn Keep>,
}

impl Archive {
    pub(super) fn new(completed: Completed, keep: Box<dyn Keep>) -> Self {
        Self { completed, keep }
    }

    pub(super) fn last_completed(&self, client: Client) -> u32 {
        last_completed(&self.completed, client)
    }

    pub(super) fn replay(&self, client: Client, recall: &Message) -> Result<Message, FrameworkError> {
        replay(&self.completed, self.keep.as_ref(), client, recall)
    }
}

/// The last round that this client answered to the end; 0 for none.
pub(super) fn last_completed(completed: &Completed, client: Client) -> u32 {
    completed.get(&client).and_then(|rounds| rounds.last()).copied().unwrap_or(0)
}

/// What the client was sent, or would have been, in the first of its rounds after the one whose state it still has.
pub(super) fn replay(
    completed: &Completed,
    keep: &dyn Keep,
    client: Client,
    recall: &Message,
) -> Result<Message, FrameworkError> {
    let wrong = |error: String| FrameworkError::Fields { subject: Subject::Recall, error };
    let after = recall.fields["after"].as_u64().ok_or_else(|| wrong("after is no round".to_owned()))?;
    let mut rounds = completed.get(&client).into_iter().flatten().copied();
    let round = rounds.find(|round| u64::from(*round) > after);
    let round = round.ok_or_else(|| wrong(format!("the client did no round after {after}")))?;
    let kept = keep.broadcast(round).map_err(|error| wrong(error.to_string()))?;
    let kept = kept.ok_or_else(|| wrong(format!("what was sent in round {round} is not kept any more")))?;
    Ok(Message { tensors: kept.tensors, ..Message::new(Subject::Replay, round) })
}
