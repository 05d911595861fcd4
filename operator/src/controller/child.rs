//! Which objects a run has, by kind and name, and whose an object is.
//! Must not say what is in them: that is `build`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::build::{Run, groups, labels, names};

/// A child by kind and name, in the namespace of its run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Child {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// Kinds of children, in the order in which they are made: pods come last, and find all they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The spec as the trainer reads it.
    ConfigMap,
    /// Certificates.
    Secret,
    /// Checkpoint and cache.
    Claim,
    /// The server's name.
    Service,
    /// Who may speak to whom.
    NetworkPolicy,
    /// Server and clients.
    Job,
}

impl Kind {
    /// The kind as Kubernetes calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Claim => "PersistentVolumeClaim",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Job => "Job",
        }
    }
}

impl std::fmt::Display for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The children that a run which has begun must have, in the order in which they are made; but for the `ConfigMap`,
/// whose name depends on what is in it.
pub fn expected(run: &Run) -> Vec<Child> {
    let mut children = Vec::new();
    let mut push = |kind, name| children.push(Child { kind, name });
    push(Kind::Secret, names::ca(run));
    push(Kind::Secret, names::server_tls(run));
    managed(run).for_each(|group| push(Kind::Secret, names::tls(run, group)));
    groups::external(run).for_each(|(_, group)| push(Kind::Secret, names::join(run, &group.name)));
    if run.spec.server.checkpoint.existing_claim.is_none() {
        push(Kind::Claim, names::checkpoint(run));
    }
    if run.spec.cache.as_ref().is_some_and(|cache| cache.volume_claim.is_some()) {
        push(Kind::Claim, names::cache(run));
    }
    push(Kind::Service, names::server(run));
    if run.spec.server.expose.is_some() {
        push(Kind::Service, names::exposed(run));
    }
    push(Kind::NetworkPolicy, names::server(run));
    managed(run).for_each(|group| push(Kind::NetworkPolicy, names::clients(run, group)));
    push(Kind::Job, names::server_job(run));
    managed(run).for_each(|group| push(Kind::Job, names::client_job(run, group)));
    children
}

/// Names of the groups whose clients are pods.
pub fn managed(run: &Run) -> impl Iterator<Item = &str> {
    groups::managed(run).map(|(_, group)| group.name.as_str())
}

/// Uids of the runs that an object with this metadata may be a child of: its owners', or where it has none its label's,
/// as of what is kept when its run goes.
pub fn runs_of(meta: &ObjectMeta) -> Vec<String> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    if owners.is_empty() {
        return run_label(meta).cloned().into_iter().collect();
    }
    owners.iter().map(|owner| owner.uid.clone()).collect()
}

fn run_label(meta: &ObjectMeta) -> Option<&String> {
    meta.labels.as_ref()?.get(labels::RUN_UID)
}

/// Whose an object is, seen from a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The run's.
    Us,
    /// That of an earlier run of the same name: it goes by itself.
    Earlier,
    /// Somebody else's, described in a few words.
    Stranger(String),
}

impl Owner {
    /// Whose the object with this metadata is.
    pub fn of(meta: &ObjectMeta, run: &Run) -> Self {
        if run.metadata.uid.as_ref().is_some_and(|uid| runs_of(meta).contains(uid)) {
            return Self::Us;
        }
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        let earlier = owners.iter().any(|owner| owner.kind == Run::kind(&()) && owner.name == run.name_any());
        if earlier {
            return Self::Earlier;
        }
        match (owners.first(), run_label(meta)) {
            (Some(owner), _) => Self::Stranger(format!("belongs to {} {}", owner.kind, owner.name)),
            (None, Some(_)) => Self::Stranger("was kept from an earlier run".to_owned()),
            (None, None) => Self::Stranger("was made by somebody else".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;
    use crate::controller::{
        apply::objects,
        build::{Settings, children},
        testing::{UID, run},
    };

    #[test]
    fn what_is_expected_of_a_run_is_what_is_built_for_it() {
        let mut full = fedtune_crds::load(include_str!("../../../crds/tests/full.yaml"), &[]).unwrap();
        full.metadata = run(None).metadata;
        for run in [run(None), full] {
            let built = children(&run, &Settings::new("image", "fedtune-system")).unwrap();
            let built: Vec<Child> = objects(&built).into_iter().map(|(child, _)| child).collect();
            let is_secret = |child: &Child| child.kind == Kind::Secret;
            let expected = expected(&run).into_iter().filter(|child| !is_secret(child));
            assert!(expected.eq(built.into_iter().filter(|child| child.kind != Kind::ConfigMap)));
        }
    }

    fn owned_by(kind: &str, name: &str, uid: &str) -> ObjectMeta {
        let owner =
            OwnerReference { kind: kind.to_owned(), name: name.to_owned(), uid: uid.to_owned(), ..Default::default() };
        ObjectMeta { owner_references: Some(vec![owner]), ..ObjectMeta::default() }
    }

    fn labelled(uid: &str) -> ObjectMeta {
        let labels = [(labels::RUN_UID.to_owned(), uid.to_owned())].into();
        ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
    }

    #[test]
    fn an_object_is_ours_an_earlier_runs_or_somebody_elses_by_its_owner() {
        let stranger = |what: &str| Owner::Stranger(what.to_owned());
        for (meta, owner) in [
            (owned_by("FederatedFineTune", "mail", UID), Owner::Us),
            (owned_by("FederatedFineTune", "mail", "another uid"), Owner::Earlier),
            (owned_by("FederatedFineTune", "news", "another uid"), stranger("belongs to FederatedFineTune news")),
            (owned_by("Deployment", "mail", "another uid"), stranger("belongs to Deployment mail")),
            (ObjectMeta::default(), stranger("was made by somebody else")),
            (labelled(UID), Owner::Us),
            (labelled("another uid"), stranger("was kept from an earlier run")),
        ] {
            assert_eq!(Owner::of(&meta, &run(None)), owner);
        }
    }
}
