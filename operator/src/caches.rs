//! What the cluster holds of our runs, kept up to date by watches that ask for our labels only.
//! Must not write to the cluster, nor keep what nobody reads: users' Secrets are not watched, ours only by name.

mod job;
mod kept;
mod pod;
mod pods;

use std::{fmt::Debug, future::Future, mem};

use futures::{
    StreamExt, TryStreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::ObjectRef,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinSet};

pub use self::{
    job::{JobEnd, JobView},
    kept::{Kept, Place},
    pod::{ContainerView, End, Part, PodPhase, PodView, State},
    pods::PodIndex,
};
use crate::controller::{
    apply::certificates,
    build::{Run, labels},
};

/// Label with the name of the run.
pub const INSTANCE: &str = "app.kubernetes.io/instance";

/// Objects that a list brings at once: of whole ones 500, as is usual, are megabytes for each kind.
pub const PAGE: u32 = 100;

/// A resource that may have been stored before today's types: one that cannot be read must not stop the others' watch.
pub type StoredRun = DeserializeGuard<Run>;

/// Where the operator looks for resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In all namespaces.
    Cluster,
    /// In one.
    Namespace(String),
}

impl Scope {
    /// The API of a kind within the scope.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// The children of all runs.
#[derive(Debug, Clone)]
pub struct Caches {
    /// Jobs.
    pub jobs: Kept<JobView>,
    /// That the claims which the operator made exist.
    pub claims: Kept<()>,
    /// That our Secrets exist, and when what is in one must be renewed.
    pub secrets: Kept<Option<Timestamp>>,
    /// That our `ConfigMap`s exist.
    pub config_maps: Kept<()>,
    /// That our Services exist.
    pub services: Kept<()>,
    /// That our network policies exist.
    pub network_policies: Kept<()>,
    /// Pods, by run.
    pub pods: PodIndex,
    /// Of each watch, whether it has brought its first list. Not the stores' own `wait_until_ready`: of several that wait
    /// for it at once it wakes only the last, and the runs of the others would never be looked at.
    listed: Vec<watch::Receiver<bool>>,
}

/// What makes a run be looked at again.
#[derive(Debug)]
pub struct Triggers {
    /// Runs of which a child has changed.
    pub touched: UnboundedReceiver<ObjectRef<StoredRun>>,
    /// Says of another run that something about it has changed.
    pub touch: UnboundedSender<ObjectRef<StoredRun>>,
    /// A list was taken anew, so that a deletion may have gone unseen.
    pub relisted: UnboundedReceiver<()>,
}

impl Caches {
    /// Begins to watch, in tasks of `watching`; they end with it.
    pub fn watch(client: &Client, scope: &Scope, watching: &mut JoinSet<()>) -> (Self, Triggers) {
        let (touched, touched_end) = unbounded();
        let (relisted, relisted_end) = unbounded();
        let touch = touched.clone();
        let mut watches = Watches { client, scope, touched, relisted, watching, listed: Vec::new() };
        let caches = Self {
            jobs: watches.kept(JobView::read),
            claims: watches.existing::<PersistentVolumeClaim>(),
            secrets: watches.kept(|secret: &PartialObjectMeta<Secret>| certificates::renew_at(secret)),
            config_maps: watches.existing::<ConfigMap>(),
            services: watches.existing::<Service>(),
            network_policies: watches.existing::<NetworkPolicy>(),
            pods: watches.pods(),
            listed: watches.listed,
        };
        (caches, Triggers { touched: touched_end, touch, relisted: relisted_end })
    }

    /// Waits until each watch has brought its first list; before that, what is not seen may exist.
    pub async fn listed(&self) {
        for listed in &self.listed {
            // One that has ended brings nothing more, and neither does the operator.
            let _ = listed.clone().wait_for(|listed| *listed).await;
        }
    }
}

/// Watches that are being begun.
struct Watches<'a> {
    client: &'a Client,
    scope: &'a Scope,
    touched: UnboundedSender<ObjectRef<StoredRun>>,
    relisted: UnboundedSender<()>,
    watching: &'a mut JoinSet<()>,
    listed: Vec<watch::Receiver<bool>>,
}

impl Watches<'_> {
    /// Which children of kind `K` exist; of more than their metadata the API server is not asked.
    fn existing<K>(&mut self) -> Kept<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        self.kept(|_: &PartialObjectMeta<K>| ())
    }

    /// The children of kind `K`, each as `read` sees it.
    fn kept<K, V>(&mut self, read: fn(&K) -> V) -> Kept<V>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
        V: Clone + Send + 'static,
    {
        let kept = Kept::default();
        let taking = kept.clone();
        self.follow(move |event| taking.take(event, read));
        kept
    }

    /// The pods, by run.
    fn pods(&mut self) -> PodIndex {
        let index = PodIndex::default();
        let taking = index.clone();
        self.follow(move |event: &Event<Pod>| taking.take(event));
        index
    }

    /// Hands what a watch of `K` says to `take`, and then has the run looked at.
    fn follow<K>(&mut self, mut take: impl FnMut(&Event<K>) + Send + 'static)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        let (touched, relisted) = (self.touched.clone(), self.relisted.clone());
        let (listed, is_listed) = watch::channel(false);
        self.listed.push(is_listed);
        let take = move |event: &Event<K>| {
            take(event);
            if matches!(event, Event::InitDone) {
                listed.send_replace(true);
            }
        };
        self.watching.spawn(follow(self.scope.api(self.client), take, touched, relisted));
    }
}

fn follow<K>(
    api: Api<K>,
    mut take: impl FnMut(&Event<K>) + Send + 'static,
    touched: UnboundedSender<ObjectRef<StoredRun>>,
    relisted: UnboundedSender<()>,
) -> impl Future<Output = ()> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default().labels(&ours()).page_size(PAGE);
    let events = watcher(api, config).default_backoff();
    async move {
        let mut events = events.boxed();
        let mut first_list = true;
        loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    take(&event);
                    match event {
                        Event::Apply(object) | Event::Delete(object) => touch(&object, &touched),
                        // Whoever waited for the first list looks anyway; from a later one a child may be gone.
                        Event::InitDone if mem::take(&mut first_list) => {}
                        Event::InitDone => drop(relisted.unbounded_send(())),
                        Event::Init | Event::InitApply(_) => {}
                    }
                }
                Ok(None) => return,
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "a watch broke and is begun again"),
            }
        }
    }
}

/// Has the run of `child` looked at; where nobody listens any more, the operator is on its way out.
fn touch<K: Resource<DynamicType = ()>>(child: &K, touched: &UnboundedSender<ObjectRef<StoredRun>>) {
    if let Some(run) = run_of(child) {
        let _ = touched.unbounded_send(run);
    }
}

/// What every child is labelled with.
fn ours() -> String {
    format!("{}={}", labels::MANAGED_BY, labels::OPERATOR)
}

/// The run that a child's labels name.
fn run_of<K: Resource>(child: &K) -> Option<ObjectRef<StoredRun>> {
    let name = child.meta().labels.as_ref()?.get(INSTANCE)?;
    Some(ObjectRef::new(name).within(child.meta().namespace.as_deref()?))
}
