//! What is next in a run's life: from what there is to what shall be done and how the run stands. Pure.
//! Must not ask, write, or look at a clock.

use fedtune_crds::{
    live::{LivePhase, LiveStatus},
    status::Phase,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{
    build::Run,
    observe::Observed,
    why::{self, Answers, Trouble},
};
use crate::caches::{JobEnd, JobView, PodPhase};

/// How long clients have to end by themselves once the server has succeeded.
pub const LEFTOVERS: SignedDuration = SignedDuration::from_secs(60);

/// What is next.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// How the run stands, if all acts succeed.
    pub stand: Stand,
    /// What shall be done, in this order.
    pub acts: Vec<Act>,
    /// When to look again where nothing happens; none, when something does.
    pub again: Option<SignedDuration>,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Check all that can be checked, freeze the spec, make the first children.
    Begin,
    /// Make the children that are missing.
    Complete,
    /// Renew the certificates.
    Renew,
    /// Let a Job have pods, or not.
    Suspend {
        /// The Job.
        job: String,
        /// Whether it may not.
        suspend: bool,
    },
    /// Delete a Job and its pods.
    DeleteJob {
        /// Its name.
        name: String,
        /// Its uid: one that took its place meanwhile is left alone.
        uid: String,
    },
    /// Delete the resource, whose time has come.
    DeleteRun,
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Stand {
    /// Nothing is made yet, because something outside is missing; it goes on when that appears.
    Waiting(Trouble),
    /// It cannot go on as it is.
    Refused(Trouble),
    /// Its server is not up.
    Starting(Option<Trouble>),
    /// Its server is up.
    Running(Option<Trouble>),
    /// Pods are ending.
    Suspending,
    /// No pod remains.
    Suspended,
    /// It ended well, and this is what the server said last.
    Succeeded(Box<LiveStatus>),
    /// It ended by an error.
    Failed(Trouble),
    /// It has ended, and its status says so already.
    Over,
    /// The resource is being deleted.
    Leaving,
}

/// Decides what is next for `run`.
pub fn decide(run: &Run, seen: &Observed, answers: &Answers, now: Timestamp) -> Decision {
    let phase = run.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
    if run.metadata.deletion_timestamp.is_some() || answers.namespace_ends {
        return leave(seen);
    }
    match phase {
        Phase::Pending => begin(),
        Phase::Failed if run.spec.attempt > current_attempt(run) => begin(),
        Phase::Succeeded => rest(run, seen, LEFTOVERS, now),
        Phase::Failed => rest(run, seen, SignedDuration::ZERO, now),
        Phase::Starting | Phase::Running | Phase::Suspended => go_on(run, seen, answers, now),
    }
}

/// The attempt that the present Jobs belong to.
pub fn current_attempt(run: &Run) -> u32 {
    run.status.as_ref().and_then(|status| status.attempt).unwrap_or(run.spec.attempt)
}

fn begin() -> Decision {
    Decision { stand: Stand::Starting(None), acts: vec![Act::Begin], again: None }
}

/// A Job whose last pod has failed may neither replace it, where the namespace ends, nor let it go: it holds the
/// namespace up until it is deleted itself.
fn leave(seen: &Observed) -> Decision {
    let acts = seen.jobs().filter(|job| !job.deleting).map(delete).collect();
    Decision { stand: Stand::Leaving, acts, again: None }
}

/// A run that has begun and not ended.
fn go_on(run: &Run, seen: &Observed, answers: &Answers, now: Timestamp) -> Decision {
    let uid = run.uid().unwrap_or_default();
    match seen.server.as_ref().and_then(|server| Some((server, server.end.as_ref()?))) {
        Some((server, JobEnd::Complete)) => match why::summary(seen, &uid) {
            Some(summary) => ended(Stand::Succeeded(Box::new(summary)), Vec::new(), LEFTOVERS),
            None => say_it_again(server),
        },
        Some((_, JobEnd::Failed { reason, message })) => fail(why::why_the_server_failed(seen, reason, message), seen),
        None => match (why::what_ended_the_run(seen), deadline(run).map(|deadline| deadline.duration_since(now))) {
            (Some(trouble), _) => fail(trouble, seen),
            (None, Some(left)) if !left.is_positive() => fail(too_late(run), seen),
            (None, left) => keep(run, seen, answers, left, now),
        },
    }
}

/// The server has ended well, and nobody has heard its last words: on its finished checkpoint it says them again.
fn say_it_again(server: &JobView) -> Decision {
    let acts = if server.deleting { Vec::new() } else { vec![delete(server)] };
    let sentence =
        "the server's pod went before its last words were read; it starts once more, on its finished checkpoint";
    Decision { stand: Stand::Starting(Some(Trouble::new("SummaryLost", sentence))), acts, again: None }
}

fn fail(trouble: Trouble, seen: &Observed) -> Decision {
    ended(Stand::Failed(trouble), delete_unfinished(seen), SignedDuration::ZERO)
}

fn ended(stand: Stand, acts: Vec<Act>, again: SignedDuration) -> Decision {
    Decision { stand, acts, again: Some(again) }
}

fn delete_unfinished(seen: &Observed) -> Vec<Act> {
    let left = seen.jobs().filter(|job| job.end.is_none() && !job.deleting);
    left.map(delete).collect()
}

fn delete(job: &JobView) -> Act {
    Act::DeleteJob { name: job.name.clone(), uid: job.uid.clone() }
}

/// Everything is in place, or is put there.
fn keep(
    run: &Run,
    seen: &Observed,
    answers: &Answers,
    deadline_in: Option<SignedDuration>,
    now: Timestamp,
) -> Decision {
    let mut acts = Vec::new();
    if !seen.missing.is_empty() {
        acts.push(Act::Complete);
    }
    if seen.renew_at.is_some_and(|at| at <= now) {
        acts.push(Act::Renew);
    }
    acts.extend(suspend(run, seen));
    let renew_in = seen.renew_at.map(|at| at.duration_since(now)).filter(SignedDuration::is_positive);
    let again = [deadline_in, renew_in, why::patience_ends(seen, now)].into_iter().flatten().min();
    Decision { stand: stand(run, seen, answers), acts, again }
}

/// Jobs that may have pods and should not, or the other way round.
fn suspend(run: &Run, seen: &Observed) -> impl Iterator<Item = Act> {
    let suspend = run.spec.suspend;
    seen.jobs()
        .filter(move |job| job.suspended != suspend && job.end.is_none() && !job.deleting)
        .map(move |job| Act::Suspend { job: job.name.clone(), suspend })
}

fn stand(run: &Run, seen: &Observed, answers: &Answers) -> Stand {
    if run.spec.suspend {
        // One that has ended and is being deleted is still to be seen; one that failed before stays for ever.
        let remain = seen.pods.iter().any(|pod| pod.remains() || pod.deleting);
        return if remain { Stand::Suspending } else { Stand::Suspended };
    }
    let why = why::why(seen, answers);
    if server_is_up(seen) { Stand::Running(why) } else { Stand::Starting(why) }
}

fn server_is_up(seen: &Observed) -> bool {
    // Its Job is about to say so too: nothing starts any more.
    if seen.server_pod().is_some_and(|pod| pod.phase == PodPhase::Succeeded) {
        return true;
    }
    let Some(pod) = seen.server_pod().filter(|pod| pod.remains() && !pod.deleting) else { return false };
    let listens = seen.live.as_ref().is_some_and(|live| match live.phase {
        LivePhase::Starting => false,
        LivePhase::Waiting | LivePhase::Running | LivePhase::Succeeded | LivePhase::Failed => true,
    });
    pod.ready || listens
}

/// When a run with `activeDeadlineSeconds` fails: so long after it began, or after it was last resumed, as for Jobs.
fn deadline(run: &Run) -> Option<Timestamp> {
    let status = run.status.as_ref()?;
    let seconds = run.spec.active_deadline_seconds.filter(|_| !run.spec.suspend)?;
    let resumed =
        status.conditions.iter().find(|condition| condition.type_ == "Suspended" && condition.status == "False");
    let begun = status.start_time.as_ref().map(|time| time.0);
    let begun = begun.max(resumed.map(|condition| condition.last_transition_time.0))?;
    begun.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

fn too_late(run: &Run) -> Trouble {
    let seconds = run.spec.active_deadline_seconds.unwrap_or_default();
    let sentence = format!(
        "the run has not ended within its activeDeadlineSeconds of {seconds}; its checkpoint stays, and a higher spec.attempt goes on from it"
    );
    Trouble::new("DeadlineExceeded", sentence)
}

/// A run that has ended: leftovers go after `grace`, and the resource itself when its time has come. Nothing is made
/// again, whatever is deleted.
fn rest(run: &Run, seen: &Observed, grace: SignedDuration, now: Timestamp) -> Decision {
    let ended = run.status.as_ref().and_then(|status| status.completion_time.as_ref()).map_or(now, |time| time.0);
    let left_until = |after: SignedDuration| after - now.duration_since(ended);
    let leftovers = delete_unfinished(seen);
    let leftovers_in = (!leftovers.is_empty()).then(|| left_until(grace));
    let deletion_in =
        run.spec.ttl_seconds_after_finished.map(|seconds| left_until(SignedDuration::from_secs(seconds.into())));
    let due = |left: Option<SignedDuration>| left.is_some_and(|left| !left.is_positive());

    let mut acts = if due(leftovers_in) { leftovers } else { Vec::new() };
    if due(deletion_in) {
        acts.push(Act::DeleteRun);
    }
    let again = [leftovers_in, deletion_in].into_iter().flatten().filter(SignedDuration::is_positive).min();
    Decision { stand: Stand::Over, acts, again }
}

#[cfg(test)]
mod tests;
