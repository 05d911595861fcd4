//! Labels of a run's objects, the selectors that read them, and who owns the objects.
//! Must not name objects: that is `names`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use super::{BuildError, Run};

/// The uid of the run, by which its objects are found.
pub const RUN_UID: &str = "fedtune.io/run-uid";
/// The group that a client's pod belongs to.
pub const GROUP: &str = "fedtune.io/group";
/// The experiment, by which runs are compared.
pub const EXPERIMENT: &str = "fedtune.io/experiment";
/// What the object belongs to: [`SERVER`], [`CLIENT`] or [`RUN`].
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Who made the object: [`OPERATOR`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The component that aggregates.
pub const SERVER: &str = "server";
/// The component that trains.
pub const CLIENT: &str = "client";
/// The component of what all of a run's pods share.
pub const RUN: &str = "run";
/// What [`MANAGED_BY`] says.
pub const OPERATOR: &str = "fedtune-operator";

/// What an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// All pods of the run.
    Run,
    /// The server.
    Server,
    /// A group of clients.
    Group(&'a str),
}

/// A stored resource's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl Identity {
    /// The identity that the API server gave `run`.
    ///
    /// # Errors
    /// Where it was never stored.
    pub fn of(run: &Run) -> Result<Self, BuildError> {
        let name = run.name_any();
        let missing = |field| BuildError::NotStored { run: name.clone(), field };
        let namespace = run.namespace().ok_or_else(|| missing("metadata.namespace"))?;
        let uid = run.uid().ok_or_else(|| missing("metadata.uid"))?;
        run.metadata.name.is_some().then_some(()).ok_or_else(|| missing("metadata.name"))?;
        Ok(Self { name, namespace, uid })
    }
}

/// Labels of an object that belongs to `part` of `run`.
pub fn labels(run: &Run, part: Part<'_>) -> BTreeMap<String, String> {
    let (component, group) = match part {
        Part::Run => (RUN, None),
        Part::Server => (SERVER, None),
        Part::Group(group) => (CLIENT, Some(group.to_owned())),
    };
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "fedtune".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), run.name_any()),
        (COMPONENT.to_owned(), component.to_owned()),
        (MANAGED_BY.to_owned(), OPERATOR.to_owned()),
        (RUN_UID.to_owned(), run.uid().unwrap_or_default()),
        (EXPERIMENT.to_owned(), run.spec.experiment.clone()),
    ]);
    labels.extend(group.map(|group| (GROUP.to_owned(), group)));
    labels
}

/// The pods of `part`; of [`Part::Run`] all of them.
pub fn selector(run: &Run, part: Part<'_>) -> LabelSelector {
    let mut labels = labels(run, part);
    labels.retain(|key, _| match part {
        Part::Run => key == RUN_UID,
        Part::Server | Part::Group(_) => [RUN_UID, COMPONENT, GROUP].contains(&key.as_str()),
    });
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// The pods of all groups.
pub fn all_clients(run: &Run) -> LabelSelector {
    let mut clients = selector(run, Part::Group(""));
    clients.match_labels.get_or_insert_default().retain(|key, _| key != GROUP);
    clients
}

/// Metadata of an object that goes when `run` goes.
pub fn owned(run: &Run, name: String, part: Part<'_>) -> ObjectMeta {
    ObjectMeta { owner_references: owner(run).map(|owner| vec![owner]), ..kept(run, name, part) }
}

/// Metadata of an object that stays when `run` goes.
pub fn kept(run: &Run, name: String, part: Part<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: run.namespace(),
        labels: Some(labels(run, part)),
        ..ObjectMeta::default()
    }
}

fn owner(run: &Run) -> Option<OwnerReference> {
    run.controller_owner_ref(&())
}
