//! What a running server or client says of itself to machines: `/healthz`, `/readyz`, `/status`, `/metrics` and the
//! termination message.
//! Must not change what a run computes, nor show anything of the clients' data: it listens to events and counts.
//!
//! ```text
//! events --figures.rs--> LiveFigures --status.rs---> LiveStatus --> /status, termination.rs
//!                             |  ^------metrics.rs--> Registry --> /metrics
//!                             |         wire::Ledger (bytes), volume.rs (room), read at the scrape
//! ```
//!
//! | file | one thing |
//! |---|---|
//! | `figures.rs` | all that is known, from the events so far |
//! | `status.rs` | it as a `LiveStatus` |
//! | `metrics.rs` | it as Prometheus metrics |
//! | `volume.rs` | how full a volume is |
//! | `http.rs` | both over plain HTTP, for the kubelet, the operator and Prometheus |
//! | `termination.rs` | the last words, in a file |

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fedtune_crds::{
    live::LiveStatus,
    report::{FrameworkName, RunReport},
};
use prometheus::{Registry, TextEncoder};
use tokio::{sync::watch, time::timeout};

use crate::{
    events::{Event, Events},
    plan::Plan,
    wire::Ledger,
};

mod figures;
mod http;
mod metrics;
mod status;
pub mod termination;
#[cfg(test)]
mod tests;
mod volume;

use figures::LiveFigures;
pub use figures::Readiness;
pub use http::{Http, HttpError};
pub use metrics::reference as metrics_reference;

/// What is known of a run before it begins.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// The namespace of the resource; empty outside of a cluster.
    pub namespace: String,
    /// `metadata.name`.
    pub run: String,
    /// `spec.experiment`.
    pub experiment: String,
    /// The framework.
    pub framework: FrameworkName,
    /// Rounds of the run.
    pub rounds: u32,
    /// Ids of all clients, by ordinal.
    pub clients: Vec<String>,
    /// Clients, from the first on, that have series of their own in the metrics; the others share one.
    pub max_client_series: usize,
}

impl RunFacts {
    /// The facts of `plan` in `namespace`.
    pub fn of(plan: &Plan, namespace: &str) -> Self {
        let taking_part = plan.clients.iter().take(plan.rules.clients);
        Self {
            namespace: namespace.to_owned(),
            run: plan.name.clone(),
            experiment: plan.experiment.clone(),
            framework: plan.framework.name(),
            rounds: plan.rules.rounds,
            clients: taking_part.map(ToString::to_string).collect(),
            max_client_series: plan.max_client_series,
        }
    }
}

/// Whose telemetry it is: a server and a client know different things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The server: the run as a whole, and every byte.
    Server,
    /// The client of this id: what it did itself.
    Client(String),
}

/// Tells the time; an argument, so that tests need not wait.
pub type Clock = fn() -> SystemTime;

/// All that a process says of itself. Cheap to clone; told and read from any thread.
#[derive(Clone)]
pub struct Telemetry(Arc<Shared>);

struct Shared {
    facts: RunFacts,
    role: Role,
    clock: Clock,
    live: Mutex<Live>,
    /// The present `seq`.
    changed: watch::Sender<u64>,
}

struct Live {
    figures: LiveFigures,
    status: LiveStatus,
    ledger: Ledger,
    volume: Option<PathBuf>,
}

impl Live {
    /// Once a round: the sum is over all rounds and clients.
    fn count_bytes(&mut self) {
        self.figures.carried = self.ledger.total();
    }
}

impl Telemetry {
    /// The telemetry of a process that has done nothing yet.
    pub fn new(facts: RunFacts, role: Role, clock: Clock) -> Self {
        let figures = LiveFigures::new(clock());
        let status = status::view(&figures, &facts, 1);
        let (changed, _) = watch::channel(status.seq);
        let live = Mutex::new(Live { figures, status, ledger: Ledger::new(), volume: None });
        Self(Arc::new(Shared { facts, role, clock, live, changed }))
    }

    /// A listener that keeps it up to date.
    pub fn listener(&self) -> Events {
        let telemetry = self.clone();
        Events::to(move |event| telemetry.take(&event))
    }

    fn take(&self, event: &Event) {
        // These come by the thousand and change nothing here.
        if matches!(event, Event::StepFinished { .. } | Event::StageAdvanced { .. }) {
            return;
        }
        let now = (self.0.clock)();
        self.change(|live| {
            live.figures.take(event, &self.0.facts, now);
            if matches!(event, Event::RoundFinished { .. } | Event::RunFinished { .. }) {
                live.count_bytes();
            }
        });
    }

    /// Names the run, once its checkpoint is locked: its uid, and how often a server has started on it.
    pub fn name_run(&self, uid: &str, epoch: u64) {
        self.change(|live| live.figures.name_run(uid, epoch));
    }

    /// Reads bytes from this ledger from now on.
    pub fn watch_ledger(&self, ledger: &Ledger) {
        self.change(|live| {
            live.ledger = ledger.clone();
            live.count_bytes();
        });
    }

    /// Shows the room on the volume that holds this folder, which need not be there yet.
    pub fn watch_volume(&self, folder: impl Into<PathBuf>) {
        self.change(|live| live.volume = Some(folder.into()));
    }

    /// Shows when the certificate in use ends.
    pub fn set_certificate_expiry(&self, expiry: SystemTime) {
        self.change(|live| live.figures.certificate_expiry = Some(expiry));
    }

    /// Takes over the sums of a report that has just been written: the last words say what it says.
    pub fn settle(&self, report: &RunReport) {
        self.change(|live| live.figures.settle(report));
    }

    /// Takes over the figures of a run that an earlier process finished, to say them again.
    pub fn recall(&self, report: &RunReport) {
        self.change(|live| live.figures.recall(report));
    }

    /// The figures as of the last change.
    pub fn status(&self) -> LiveStatus {
        self.live().status.clone()
    }

    /// The figures as soon as their `seq` is another than `after`, or after the longest wait as they are.
    ///
    /// A smaller `seq` counts too: it is of a process that was started since, and the caller has none of its figures.
    pub async fn status_after(&self, after: u64, longest: Duration) -> LiveStatus {
        let mut changed = self.0.changed.subscribe();
        // The sender lives in `self`, so what ends this early is the wait.
        let _ = timeout(longest, changed.wait_for(|seq| *seq != after)).await;
        self.status()
    }

    /// Whether it can do its work, and if not, why.
    pub fn readiness(&self) -> Readiness {
        self.live().figures.readiness.clone()
    }

    /// Whose it is.
    pub fn role(&self) -> &Role {
        &self.0.role
    }

    /// Registers all metrics with the values that they have now.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let (figures, ledger, volume) = {
            let live = self.live();
            (live.figures.clone(), live.ledger.clone(), live.volume.clone())
        };
        let volume = volume.as_deref().and_then(volume::room);
        let _families = metrics::register(registry, &self.0.role, &self.0.facts, &figures, &ledger, volume)?;
        Ok(())
    }

    /// A scrape: all metrics, in Prometheus' text format.
    pub fn metrics(&self) -> Result<String, prometheus::Error> {
        let registry = Registry::new_custom(None, Some(metrics::run_labels(&self.0.facts)))?;
        self.register(&registry)?;
        TextEncoder::new().encode_to_string(&registry.gather())
    }

    /// Applies a change, and where it shows raises `seq` by one and wakes who waits for it.
    fn change(&self, change: impl FnOnce(&mut Live)) {
        let mut live = self.live();
        change(&mut live);
        let next = status::view(&live.figures, &self.0.facts, live.status.seq);
        if next != live.status {
            live.status = LiveStatus { seq: next.seq + 1, ..next };
            self.0.changed.send_replace(live.status.seq);
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A listener that panicked left figures that are whole, at most without its last one.
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("facts", &self.0.facts).field("role", &self.0.role).finish_non_exhaustive()
    }
}
