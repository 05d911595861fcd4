//! Which groups of a run have pods of ours, and which join from outside.
//! Must not ask what a group does: the trainer's frameworks know.

use fedtune_crds::clients::{Group, Placement};

use super::Run;

/// The groups whose clients the operator runs, each with its place in the spec.
pub fn managed(run: &Run) -> impl Iterator<Item = (usize, &Group)> {
    placed(run, Placement::Managed)
}

/// The groups whose owners run their clients.
pub fn external(run: &Run) -> impl Iterator<Item = (usize, &Group)> {
    placed(run, Placement::External)
}

/// In the central baseline nobody but the server works; its groups only say how many share the data.
fn placed(run: &Run, placement: Placement) -> impl Iterator<Item = (usize, &Group)> {
    let groups = run.spec.clients.groups.iter().enumerate();
    groups.filter(move |(_, group)| run.spec.framework.central.is_none() && group.placement == placement)
}
