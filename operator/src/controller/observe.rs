//! What there is of a run: its children, its pods, its server's own words; read from caches into one plain value.
//! Must not decide anything, ask the API server or write.

use std::sync::Arc;

use fedtune_crds::live::LiveStatus;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition},
        core::v1::ConfigMap,
    },
    jiff::Timestamp,
};
use kube::{
    Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    apply::certificates,
    build::{Run, names},
    child::{Child, Kind, Owner, expected, managed},
};
use crate::{
    caches::{Caches, INSTANCE, Part, PodView},
    live::Live,
    memory::Memory,
};

/// What there is of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Children that should exist and do not.
    pub missing: Vec<Child>,
    /// The `ConfigMap` that the run's pods mount, if it exists.
    pub config_map: Option<String>,
    /// The server's Job.
    pub server: Option<JobView>,
    /// Each managed group's Job, in the order of the groups.
    pub clients: Vec<JobView>,
    /// All pods, oldest first.
    pub pods: Vec<Arc<PodView>>,
    /// What the server said last, if it is of this run.
    pub live: Option<LiveStatus>,
    /// When the first certificate must be renewed.
    pub renew_at: Option<Timestamp>,
}

/// A Job as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it may have pods.
    pub suspended: bool,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// Pods that it has and that have not ended.
    pub active: i32,
    /// How it ended, once it has.
    pub end: Option<JobEnd>,
    /// Image of its first container.
    pub image: Option<String>,
    /// The run's `ConfigMap` that its pods mount.
    pub config_map: Option<String>,
}

/// How a Job ended; final, whatever happens afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// All its pods succeeded.
    Complete,
    /// It gave up.
    Failed {
        /// One word, as in `PodFailurePolicy`.
        reason: String,
        /// A sentence.
        message: String,
    },
}

impl Observed {
    /// The server's pods, oldest first.
    pub fn server_pods(&self) -> impl DoubleEndedIterator<Item = &PodView> {
        self.pods.iter().map(AsRef::as_ref).filter(|pod| pod.part == Part::Server)
    }

    /// The server's newest pod.
    pub fn server_pod(&self) -> Option<&PodView> {
        self.server_pods().next_back()
    }

    /// Jobs of the server and of all groups.
    pub fn jobs(&self) -> impl Iterator<Item = &JobView> {
        self.server.iter().chain(&self.clients)
    }
}

/// Reads what there is of `run`.
pub fn observe(run: &Run, caches: &Caches, live: &Live, memory: &Memory) -> Observed {
    let uid = run.uid().unwrap_or_default();
    let namespace = run.namespace().unwrap_or_default();
    let job = |name: String| {
        let found = caches.jobs.get(&ObjectRef::new(&name).within(&namespace))?;
        (Owner::of(found.meta(), run) == Owner::Us).then(|| view(&found))
    };
    let server = job(names::server_job(run));
    let config_map = config_map(run, server.as_ref(), caches, memory);
    let mut missing: Vec<_> = expected(run).into_iter().filter(|child| !exists(child, run, caches, memory)).collect();
    if config_map.is_none() {
        let mounted = server.as_ref().and_then(|server| server.config_map.clone());
        missing.insert(0, Child { kind: Kind::ConfigMap, name: mounted.unwrap_or_default() });
    }
    Observed {
        missing,
        config_map,
        server,
        clients: managed(run).filter_map(|group| job(names::client_job(run, group))).collect(),
        pods: caches.pods.of(&uid),
        live: live.latest(&uid).filter(|live| live.uid == uid),
        renew_at: renew_at(run, caches),
    }
}

/// Whether the child is there and ours, or was made a moment ago and the caches do not know it yet.
fn exists(child: &Child, run: &Run, caches: &Caches, memory: &Memory) -> bool {
    let ours = match child.kind {
        Kind::ConfigMap => has(&caches.config_maps, child, run),
        Kind::Secret => has(&caches.secrets, child, run),
        Kind::Claim => has(&caches.claims, child, run),
        Kind::Service => has(&caches.services, child, run),
        Kind::NetworkPolicy => has(&caches.network_policies, child, run),
        Kind::Job => has(&caches.jobs, child, run),
    };
    ours || memory.was_just_made(child)
}

fn has<K>(store: &Store<K>, child: &Child, run: &Run) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let key = ObjectRef::new(&child.name).within(&run.namespace().unwrap_or_default());
    store.get(&key).is_some_and(|found| Owner::of(found.meta(), run) == Owner::Us)
}

/// The `ConfigMap` that the Jobs mount; before there are Jobs, the one that is there.
fn config_map(run: &Run, server: Option<&JobView>, caches: &Caches, memory: &Memory) -> Option<String> {
    let namespace = run.namespace();
    if let Some(name) = server.and_then(|server| server.config_map.clone()) {
        let child = Child { kind: Kind::ConfigMap, name };
        return exists(&child, run, caches, memory).then_some(child.name);
    }
    let ours = |found: &PartialObjectMeta<ConfigMap>| {
        found.namespace() == namespace && Owner::of(&found.metadata, run) == Owner::Us
    };
    let found = caches.config_maps.find(ours).map(|found| found.name_any());
    found.or_else(|| memory.config_map_just_made().map(|child| child.name.clone()))
}

fn renew_at(run: &Run, caches: &Caches) -> Option<Timestamp> {
    let namespace = run.namespace().unwrap_or_default();
    let names = std::iter::once(names::server_tls(run)).chain(managed(run).map(|group| names::tls(run, group)));
    let secrets: Vec<_> =
        names.filter_map(|name| caches.secrets.get(&ObjectRef::new(&name).within(&namespace))).collect();
    certificates::renew_at(secrets.iter().filter_map(|secret| secret.annotations().get(certificates::RENEW_AT)))
}

fn view(job: &Job) -> JobView {
    let status = job.status.as_ref();
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let instance = job.labels().get(INSTANCE).map_or("", String::as_str);
    let volumes = pod.and_then(|pod| pod.volumes.as_ref()).into_iter().flatten();
    let mut mounted = volumes.filter_map(|volume| volume.config_map.as_ref()).map(|map| map.name.clone());
    JobView {
        name: job.name_any(),
        uid: job.uid().unwrap_or_default(),
        created: job.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        suspended: job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false),
        deleting: job.metadata.deletion_timestamp.is_some(),
        active: status.and_then(|status| status.active).unwrap_or(0),
        end: status.and_then(|status| status.conditions.as_ref()).and_then(|conditions| end(conditions)),
        image: pod.and_then(|pod| pod.containers.first()?.image.clone()),
        config_map: mounted.find(|name| name.starts_with(&format!("{instance}-run-"))),
    }
}

fn end(conditions: &[JobCondition]) -> Option<JobEnd> {
    let holds = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    if holds("Complete").is_some() {
        return Some(JobEnd::Complete);
    }
    holds("Failed").map(|failed| JobEnd::Failed {
        reason: failed.reason.clone().unwrap_or_default(),
        message: failed.message.clone().unwrap_or_default(),
    })
}
