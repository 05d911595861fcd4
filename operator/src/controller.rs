//! One reconcile as a table of contents: `observe` reads, `decide` and `build` are pure, `validate` asks, `apply`
//! writes, `status` says.
//! Must not hold what a step does: that is the step's own file.

pub mod apply;
pub mod build;
pub mod child;
pub mod decide;
pub mod hindrance;
pub mod look_up;
pub mod observe;
pub mod post;
pub mod references;
pub mod status;
pub mod validate;
pub mod why;

mod carry_out;
#[cfg(test)]
pub(crate) mod testing;
mod unreadable;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fedtune_crds::{FederatedFineTuneStatus, status::Phase};
use futures::FutureExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Client, ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};

use self::{
    build::{Run, Settings},
    carry_out::carry_out,
    decide::{Stand, decide},
    hindrance::Hindrance,
    look_up::look_up,
    observe::{Observed, observe},
    status::{
        status,
        write::{When, when, write},
    },
    why::{Trouble, questions},
};
use crate::{
    caches::{Caches, PodPhase, StoredRun},
    events::Events,
    leader::Renewed,
    live::{Live, Target},
    memory::{Memories, Memory},
    metrics::Metrics,
};

/// After a write that somebody else's was ahead of.
const STALE: Duration = Duration::from_millis(500);

/// Longest pause of what waits for something outside, or is refused: neither tells when it has changed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What all reconciles share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the operator was installed with.
    pub settings: Settings,
    /// What there is.
    pub caches: Caches,
    /// What servers say.
    pub live: Live,
    /// What was just done.
    pub memories: Memories,
    /// Who is told.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether this operator may write, by the lease and how long it is good for.
    pub leads: Option<(Renewed, Duration)>,
}

impl Context {
    /// A process that was stopped for a while may not know yet that another leads.
    fn may_write(&self) -> bool {
        self.leads.as_ref().is_none_or(|(renewed, duration)| renewed.within(*duration))
    }
}

/// Brings one run a step further.
///
/// # Errors
/// Where the API server could not be asked or told; the run is tried again after a pause of its own.
pub async fn reconcile(stored: Arc<StoredRun>, context: Arc<Context>) -> Result<Action, Hindrance> {
    let begun = Instant::now();
    context.caches.listed().await;
    if !context.may_write() {
        return Ok(Action::requeue(STALE));
    }
    let done = match &stored.0 {
        Ok(run) => reconcile_run(run, &context).boxed().await,
        Err(invalid) => unreadable::say_so(&invalid.metadata, &invalid.error, &context).await,
    };
    context.metrics.reconciled(begun.elapsed());
    match done {
        Err(Hindrance::Stale) => Ok(Action::requeue(STALE)),
        done => done,
    }
}

async fn reconcile_run(run: &Run, context: &Context) -> Result<Action, Hindrance> {
    let (now, uid) = (Timestamp::now(), run.uid().unwrap_or_default());
    let run = context.memories.of(&uid, |memory| memory.latest(run));
    let seen = context.memories.of(&uid, |memory| observe(&run, &context.caches, &context.live, memory));
    follow(&run, &seen, &context.live);
    let namespace = run.namespace().unwrap_or_default();
    let answers = look_up(&context.client, &context.memories, &uid, &namespace, &questions(&seen, now)).await;
    let answers = answers.map_err(|error| Hindrance::of("events cannot be read", error))?;
    let decision = decide(&run, &seen, &answers, now);
    let carried_out = carry_out(&run, &seen, &decision.acts, context, now).await;
    // What was carried out may have written a status itself.
    let run = context.memories.of(&uid, |memory| memory.latest(&run));
    let (stand, pause) = settle(decision.stand, carried_out, &run, context)?;
    let status = status(&run, &seen, &stand, now);
    let figures_in = tell(&run, status, context).await?;
    let doubt_in = context.memories.of(&uid, |memory| memory.doubt_in());
    let again = decision.again.map(unsigned);
    Ok(next_look([again, pause, figures_in, doubt_in]))
}

/// How the run stands after all, and how long to wait where a step was hindered.
fn settle(
    planned: Stand,
    carried_out: Result<(), Hindrance>,
    run: &Run,
    context: &Context,
) -> Result<(Stand, Option<Duration>), Hindrance> {
    let uid = run.uid().unwrap_or_default();
    let pause = || context.memories.of(&uid, Memory::failed).min(LONGEST_WAIT);
    let phase = run.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
    match carried_out {
        Ok(()) => {
            context.memories.of(&uid, Memory::went_well);
            Ok((planned, None))
        }
        Err(Hindrance::Waiting(trouble)) => Ok((waiting(planned, phase, trouble), Some(pause()))),
        Err(Hindrance::Refused(trouble)) if is_on_its_way(&planned) => Ok((Stand::Refused(trouble), Some(pause()))),
        // An end is an end, also where something that should follow from it is refused.
        Err(Hindrance::Refused(_)) => Ok((planned, Some(pause()))),
        Err(error @ (Hindrance::Api { .. } | Hindrance::Stale)) => Err(error),
    }
}

/// How a run stands that was hindered by what may pass.
fn waiting(planned: Stand, phase: Phase, trouble: Trouble) -> Stand {
    match planned {
        Stand::Starting(_) if phase == Phase::Pending => Stand::Waiting(trouble),
        Stand::Starting(_) => Stand::Starting(Some(trouble)),
        Stand::Running(_) => Stand::Running(Some(trouble)),
        Stand::Waiting(_)
        | Stand::Refused(_)
        | Stand::Suspending
        | Stand::Suspended
        | Stand::Succeeded(_)
        | Stand::Failed(_)
        | Stand::Over
        | Stand::Leaving => planned,
    }
}

fn is_on_its_way(stand: &Stand) -> bool {
    match stand {
        Stand::Waiting(_)
        | Stand::Refused(_)
        | Stand::Starting(_)
        | Stand::Running(_)
        | Stand::Suspending
        | Stand::Suspended => true,
        Stand::Succeeded(_) | Stand::Failed(_) | Stand::Over | Stand::Leaving => false,
    }
}

/// Writes the status where it is time to, and tells what is new in it; else says in how long it is.
async fn tell(run: &Run, status: FederatedFineTuneStatus, context: &Context) -> Result<Option<Duration>, Hindrance> {
    let before = run.status.clone().unwrap_or_default();
    let uid = run.uid().unwrap_or_default();
    let since = context.memories.of(&uid, |memory| memory.wrote_at()).map(|at| at.elapsed());
    match when(&before, &status, since) {
        When::Never => Ok(None),
        When::After(left) => Ok(Some(left)),
        When::Now => {
            let written = write(&context.client, &context.memories, run, status).await?;
            context.events.tell(run, &before, &written.status.unwrap_or_default()).await;
            Ok(None)
        }
    }
}

/// Follows the run's server while it runs.
fn follow(run: &Run, seen: &Observed, live: &Live) {
    let uid = run.uid().unwrap_or_default();
    let phase = run.status.as_ref().and_then(|status| status.phase);
    if matches!(phase, Some(Phase::Succeeded | Phase::Failed)) {
        return live.forget(&uid);
    }
    let namespace = run.namespace().unwrap_or_default();
    let target = seen.server_pod().filter(|pod| pod.phase == PodPhase::Running).and_then(|pod| {
        let ip = pod.ip.clone()?;
        Some(Target { namespace: namespace.clone(), pod: pod.name.clone(), pod_uid: pod.uid.clone(), ip })
    });
    live.follow(&ObjectRef::new(&run.name_any()).within(&namespace), &uid, target);
}

/// What is done with a run after an error: it is left alone for a while, and no other is.
#[expect(clippy::needless_pass_by_value, reason = "the controller calls it so")]
pub fn after_an_error(stored: Arc<StoredRun>, error: &Hindrance, context: Arc<Context>) -> Action {
    let uid = stored.uid().unwrap_or_default();
    let pause = context.memories.of(&uid, Memory::failed);
    context.metrics.erred(error);
    tracing::warn!(run = stored.name_any(), namespace = stored.namespace(), %error, ?pause, "a run is tried again later");
    Action::requeue(pause)
}

fn next_look<const N: usize>(times: [Option<Duration>; N]) -> Action {
    times.into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue)
}

/// A time that is over already is now.
fn unsigned(duration: SignedDuration) -> Duration {
    // A moment later than due, so that it is due then.
    Duration::try_from(duration).unwrap_or_default() + Duration::from_millis(10)
}
