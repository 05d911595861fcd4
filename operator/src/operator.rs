//! The operator as a process: its parts, in the order in which they start, and how they end.
//! Must not know what a reconcile does.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        Config as ControllerConfig, Controller, WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    caches::{Caches, PAGE, Scope, StoredRun, Triggers},
    controller::{
        Context, after_an_error,
        build::{Run, Settings},
        hindrance::words,
        reconcile,
    },
    events::Events,
    http::{self, Desk, ListenError},
    leader::{Election, Timing},
    live::{Live, StatusVia},
    memory::Memories,
    metrics::Metrics,
};

/// Runs that are looked at at once.
const AT_ONCE: u16 = 32;

/// How the operator was started.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it was installed with.
    pub settings: Settings,
    /// Where it looks for resources.
    pub scope: Scope,
    /// By which way it asks servers how they stand.
    pub status_via: StatusVia,
    /// Where it serves probes and metrics.
    pub listen: Option<SocketAddr>,
    /// Its name among operators.
    pub identity: String,
    /// How it is elected; none: it leads without asking.
    pub election: Option<LeaseOptions>,
}

/// The Lease by which an operator is elected.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How long everything takes.
    pub timing: Timing,
}

/// Why the operator ended by itself.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum OperatorError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("probes and metrics are served no longer: {0}")]
    Served(std::io::Error),
    #[error("the API server cannot be asked for FederatedFineTune resources: {}; is the definition installed, as by fedtune-operator crd | kubectl apply -f -, and may this operator list them?", words(.0))]
    NoResources(Box<kube::Error>),
    #[error("the lease was lost: another operator may lead now")]
    LeaseLost,
    #[error("the controller has ended")]
    ControllerEnded,
}

/// Runs the operator until `stop`.
///
/// # Errors
/// Where it cannot go on; a new process may.
pub async fn run(client: Client, options: Options, stop: impl Future<Output = ()>) -> Result<(), OperatorError> {
    let metrics = Metrics::new()?;
    let (ready, is_ready) = watch::channel(false);
    let mut serving = JoinSet::new();
    if let Some(address) = options.listen {
        serving.spawn(http::serve(address, Desk { metrics: metrics.clone(), ready: is_ready }).await?);
    }
    check_access(&client, &options.scope).await?;
    ready.send_replace(true);

    let election = options.election.as_ref().map(|lease| election(&client, lease, &options.identity));
    let done = tokio::select! {
        done = lead(&client, &options, &metrics, election.as_ref()) => done.map(|never| match never {}),
        Some(served) = serving.join_next() => match served {
            Ok(Err(error)) => Err(OperatorError::Served(error)),
            Ok(Ok(())) | Err(_) => Err(OperatorError::Served(std::io::ErrorKind::BrokenPipe.into())),
        },
        () = stop => {
            tracing::info!("stops");
            Ok(())
        }
    };
    // The controller is gone by now, so that nothing is written in the name of a lease given back.
    if let Some(election) = &election {
        election.release().await;
    }
    done
}

/// Asks once, so that a missing definition or right is a sentence and not a line in the log each second.
async fn check_access(client: &Client, scope: &Scope) -> Result<(), OperatorError> {
    let runs: Api<Run> = scope.api(client);
    let one = kube::api::ListParams::default().limit(1);
    runs.list_metadata(&one).await.map(drop).map_err(|error| OperatorError::NoResources(Box::new(error)))
}

fn election(client: &Client, LeaseOptions { namespace, name, timing }: &LeaseOptions, identity: &str) -> Election {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    Election::new(leases, name, identity, *timing)
}

/// Waits to be elected, then does the work, for as long as the lease is kept.
async fn lead(
    client: &Client,
    options: &Options,
    metrics: &Metrics,
    election: Option<&Election>,
) -> Result<Infallible, OperatorError> {
    let Some(election) = election else { return control(client, options, metrics, None).await };
    let (leads, mut is_leader) = watch::channel(false);
    let work = async {
        // The sender lives as long as this does.
        let _ = is_leader.wait_for(|leads| *leads).await;
        control(client, options, metrics, Some(election)).await
    };
    tokio::select! {
        () = election.run(&leads) => Err(OperatorError::LeaseLost),
        done = work => done,
    }
}

/// The controller with all that it reads from.
async fn control(
    client: &Client,
    options: &Options,
    metrics: &Metrics,
    election: Option<&Election>,
) -> Result<Infallible, OperatorError> {
    let mut watching = JoinSet::new();
    let (caches, Triggers { touched, touch, relisted }) = Caches::watch(client, &options.scope, &mut watching);
    let live = Live::new(client.clone(), options.status_via, touch);
    let memories = Memories::default();
    let timing = options.election.as_ref().map(|lease| lease.timing);
    let context = Arc::new(Context {
        client: client.clone(),
        settings: options.settings.clone(),
        caches,
        live: live.clone(),
        memories: memories.clone(),
        events: Events::new(client.clone(), &options.identity),
        metrics: metrics.clone(),
        leads: election.map(Election::renewed).zip(timing.map(|timing| timing.renew_deadline)),
    });
    let (runs, stream) = resources(client, &options.scope, memories, live);
    metrics.leads(runs.clone());
    Controller::for_stream(stream, runs)
        .with_config(ControllerConfig::default().concurrency(AT_ONCE))
        .reconcile_on(touched)
        .reconcile_all_on(relisted)
        .run(reconcile, after_an_error, context)
        .for_each(|done| async {
            if let Err(error) = done {
                tracing::debug!(%error, "a look at a run ended");
            }
        })
        .await;
    Err(OperatorError::ControllerEnded)
}

/// The resources, kept and as a stream of changes; one that is gone is forgotten.
fn resources(
    client: &Client,
    scope: &Scope,
    memories: Memories,
    live: Live,
) -> (Store<StoredRun>, impl futures::Stream<Item = Result<StoredRun, watcher::Error>> + Send + 'static) {
    let (reader, writer) = reflector::store();
    let events = watcher(scope.api::<StoredRun>(client), watcher::Config::default().page_size(PAGE))
        .modify(|run| run.meta_mut().managed_fields = None)
        .default_backoff();
    let forget = move |event: &Result<Event<StoredRun>, watcher::Error>| {
        if let Ok(Event::Delete(gone)) = event {
            let uid = gone.uid().unwrap_or_default();
            memories.forget(&uid);
            live.forget(&uid);
        }
    };
    (reader, reflector::reflector(writer, events).inspect(forget).applied_objects())
}
