//! What there is of a run: its children, its pods, its server's own words; read from caches into one plain value.
//! Must not decide anything, ask the API server or write.

use std::sync::Arc;

use fedtune_crds::live::LiveStatus;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{
    build::{Run, names},
    child::{Child, Kind, expected, managed},
};
use crate::{
    caches::{Caches, JobView, Part, Place, PodView},
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
    let job = |name: String| caches.jobs.get(Place { namespace: &namespace, name: &name, run_uid: &uid });
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
    let (namespace, run_uid) = (run.namespace().unwrap_or_default(), run.uid().unwrap_or_default());
    let place = Place { namespace: &namespace, name: &child.name, run_uid: &run_uid };
    let ours = match child.kind {
        Kind::ConfigMap => caches.config_maps.get(place).is_some(),
        Kind::Secret => caches.secrets.get(place).is_some(),
        Kind::Claim => caches.claims.get(place).is_some(),
        Kind::Service => caches.services.get(place).is_some(),
        Kind::NetworkPolicy => caches.network_policies.get(place).is_some(),
        Kind::Job => caches.jobs.get(place).is_some(),
    };
    ours || memory.was_just_made(child)
}

/// The `ConfigMap` that the Jobs mount; before there are Jobs, the one that is there.
fn config_map(run: &Run, server: Option<&JobView>, caches: &Caches, memory: &Memory) -> Option<String> {
    if let Some(name) = server.and_then(|server| server.config_map.clone()) {
        let child = Child { kind: Kind::ConfigMap, name };
        return exists(&child, run, caches, memory).then_some(child.name);
    }
    let found = caches.config_maps.name_of_one(&run.uid().unwrap_or_default());
    found.or_else(|| memory.config_map_just_made().map(|child| child.name.clone()))
}

fn renew_at(run: &Run, caches: &Caches) -> Option<Timestamp> {
    let (namespace, run_uid) = (run.namespace().unwrap_or_default(), run.uid().unwrap_or_default());
    let names = std::iter::once(names::server_tls(run)).chain(managed(run).map(|group| names::tls(run, group)));
    names.filter_map(|name| caches.secrets.get(Place { namespace: &namespace, name: &name, run_uid: &run_uid })?).min()
}
