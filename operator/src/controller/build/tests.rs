//! What the children of a run have to do with each other.

mod bounds;
pub(super) mod fixtures;
mod groups;
mod identity;
mod jobs;
mod network;
mod snapshots;
mod volumes;
