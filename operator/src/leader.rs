//! Leader election by a Lease, as client-go does it: another's lease is over when it has not changed for its duration
//! on this machine's own monotonic clock, so that clocks that differ do no harm.
//! Must not believe a time that somebody else wrote.

mod candidate;

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, ResourceExt, api::PostParams};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use self::candidate::{Candidate, Step};

/// How long everything takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A lease that has not changed for so long is free.
    pub duration: Duration,
    /// A leader that cannot renew for so long leads no longer; shorter than the duration.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Who runs for leader.
#[derive(Debug, Clone)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    renewed: Renewed,
}

/// When the lease was last renewed. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Renewed(Arc<Mutex<Option<Instant>>>);

impl Renewed {
    /// Whether nobody else can lead yet: a process that was stopped for a while must not write on.
    pub fn within(&self, deadline: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|renewed| renewed.elapsed() < deadline)
    }

    fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

impl Election {
    /// `identity` runs for the lease `name`.
    pub fn new(api: Api<Lease>, name: &str, identity: &str, timing: Timing) -> Self {
        let (name, identity) = (name.to_owned(), identity.to_owned());
        Self { api, name, identity, timing, renewed: Renewed::default() }
    }

    /// When the lease was renewed.
    pub fn renewed(&self) -> Renewed {
        self.renewed.clone()
    }

    /// Runs for leader until elected, then renews; says to `leads` how it stands. Ends when the lease cannot be kept.
    pub async fn run(&self, leads: &watch::Sender<bool>) {
        let mut candidate = Candidate::new(&self.identity, self.timing.duration);
        while !self.try_once(&mut candidate).await {
            sleep(self.timing.retry).await;
        }
        tracing::info!(lease = self.name, identity = self.identity, "leads");
        leads.send_replace(true);
        loop {
            sleep(self.timing.retry).await;
            if self.try_once(&mut candidate).await {
                continue;
            }
            if !self.renewed.within(self.timing.renew_deadline) || !candidate.holds() {
                break;
            }
        }
        tracing::error!(lease = self.name, "leads no longer: the lease could not be renewed in time");
        leads.send_replace(false);
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub async fn release(&self) {
        let released = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        self.renewed.set(None);
        if let Some(Err(error)) = within(self.timing.retry, released).await {
            tracing::warn!(%error, "the lease cannot be given back; another leads when it is over");
        }
    }

    /// Takes or renews the lease; whether it is ours now.
    async fn try_once(&self, candidate: &mut Candidate) -> bool {
        // Counted from before the request: the API server may have renewed it just then.
        let at = Instant::now();
        match within(self.timing.renew_deadline / 2, self.take(candidate)).await {
            Some(Ok(true)) => {
                self.renewed.set(Some(at));
                true
            }
            Some(Ok(false)) | None => false,
            Some(Err(error)) => {
                tracing::warn!(lease = self.name, %error, "the lease cannot be asked for");
                false
            }
        }
    }

    async fn take(&self, candidate: &mut Candidate) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.name).await?;
        candidate.sees(found.as_ref(), Instant::now());
        let step = candidate.step(Instant::now(), Timestamp::now());
        let how = PostParams::default();
        let written = match (step, found) {
            (Step::Wait, _) => return Ok(false),
            (Step::Write(spec), None) => {
                let mut lease = Lease { spec: Some(spec), ..Lease::default() };
                lease.metadata.name = Some(self.name.clone());
                self.api.create(&how, &lease).await
            }
            (Step::Write(spec), Some(lease)) => {
                // With the version that was read: of two that take it, one fails.
                self.api.replace(&lease.name_any(), &how, &Lease { spec: Some(spec), ..lease.clone() }).await
            }
        };
        match written {
            Ok(lease) => {
                candidate.sees(Some(&lease), Instant::now());
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What `future` gives, if it does so in time.
async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    timeout(time, future).await.ok()
}
