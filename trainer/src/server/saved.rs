//! What of a run a checkpoint keeps: the account, the bytes, the server half; and back.
//! Must not know files: the store keeps what this module makes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ServerError, account::Book};
use crate::{
    checkpoint::{CheckpointError, Keep, Snapshot},
    frameworks::ServerHalf,
    meter::Meter,
    wire::Carried,
};

/// The own name of the run that `keep` knows; none where it knows none.
pub fn saved_uid(keep: &dyn Keep) -> Result<Option<String>, CheckpointError> {
    Ok(keep.newest()?.and_then(|(_, snapshot)| Some(snapshot.fields["uid"].as_str()?.to_owned())))
}

/// The small part of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved {
    /// The run's own name.
    pub(super) uid: String,
    pub(super) book: Book,
    pub(super) carried: Carried,
    /// What the server computed.
    pub(super) meter: Meter,
    /// The half's own small part.
    half: Value,
}

impl Saved {
    /// A run as it stands at the close of a round.
    pub(super) fn snapshot(
        uid: &str,
        book: &Book,
        carried: Carried,
        half: &dyn ServerHalf,
    ) -> Result<Snapshot, ServerError> {
        let Snapshot { fields, tensors } = half.save()?;
        let (uid, book) = (uid.to_owned(), book.clone());
        let saved = Self { uid, book, carried, meter: half.meter(), half: fields };
        let fields = serde_json::to_value(saved).expect("an account is texts and finite numbers, which JSON holds");
        Ok(Snapshot { fields, tensors })
    }

    /// Reads what [`Saved::snapshot`] made in `round`; the half's part is left in the snapshot.
    pub(super) fn of(round: u32, snapshot: Snapshot) -> Result<(Self, Snapshot), ServerError> {
        let unusable = |error: serde_json::Error| ServerError::Saved { round, reason: error.to_string() };
        let mut saved: Self = serde_json::from_value(snapshot.fields).map_err(unusable)?;
        let fields = saved.half.take();
        Ok((saved, Snapshot { fields, tensors: snapshot.tensors }))
    }
}
