//! Why a run does not get on: one sentence that names the pod and the cause.
//! Must not ask the cluster: what only it knows comes in as [`Answers`], and what should be asked goes out as questions.

use std::collections::BTreeMap;

use fedtune_crds::live::{FAILURES, LivePhase, LiveStatus, failure};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::observe::Observed;
use crate::caches::{ContainerView, End, JobView, Part, PodPhase, PodView, State};

/// How long a pod may be pending before its events are read.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

/// How long what its events said of a pod that stays pending may be told on.
const LONGEST_PATIENCE: SignedDuration = SignedDuration::from_secs(300);

/// Exit code of a trainer that was told to stop.
const STOPPED: i32 = 143;

/// What keeps a run from getting on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One CamelCase word.
    pub reason: &'static str,
    /// What and why.
    pub sentence: String,
}

impl Trouble {
    /// A trouble with this reason and sentence.
    pub fn new(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: sentence.into() }
    }
}

/// What only the API server knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// Objects whose events say more than their status.
    pub events_of: Vec<Subject>,
    /// Whether the namespace is being deleted.
    pub namespace: bool,
}

/// An object that has events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.name`.
    pub name: String,
}

/// What was found out about [`Questions`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// The latest warning about each object that was asked for, by uid.
    pub warnings: BTreeMap<String, Warning>,
    /// Whether the namespace is being deleted.
    pub namespace_ends: bool,
}

/// An event of type `Warning`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// One word, as in `FailedMount`.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

/// Events are read of pods that have been pending for long, and of Jobs that cannot make pods. A pod that is deleted
/// while its Job goes on may go with its namespace.
pub fn questions(seen: &Observed, now: Timestamp) -> Questions {
    let old = |created: Timestamp| now.duration_since(created) >= PATIENCE;
    let jobs = seen
        .jobs()
        .filter(|job| is_without_pods(job) && old(job.created))
        .map(|job| Subject { uid: job.uid.clone(), name: job.name.clone() });
    let silent = |pod: &&PodView| pod.phase == PodPhase::Pending && !pod.deleting && of_its_state(pod).is_none();
    let pods = newest(seen)
        .filter(|pod| silent(pod) && old(pod.created))
        .map(|pod| Subject { uid: pod.uid.clone(), name: pod.name.clone() });
    Questions {
        // A few that tell the cause are enough; thousands of clients have the same.
        events_of: jobs.chain(pods).take(3).collect(),
        namespace: seen.pods.iter().any(|pod| pod.deleting) && seen.jobs().any(|job| !job.suspended && !job.deleting),
    }
}

/// When a question may come up that does not now.
pub fn patience_ends(seen: &Observed, now: Timestamp) -> Option<SignedDuration> {
    let pods = newest(seen).filter(|pod| pod.phase == PodPhase::Pending).map(|pod| pod.created);
    let jobs = seen.jobs().filter(|job| is_without_pods(job)).map(|job| job.created);
    let wait = |created: Timestamp| {
        let age = now.duration_since(created);
        // What has lasted that long is asked about again, after as long again: the API server reads all events of the
        // namespace for each answer, and a thousand runs without room would ask it for nothing else.
        if age < PATIENCE { PATIENCE - age } else { age.min(LONGEST_PATIENCE) }
    };
    pods.chain(jobs).map(wait).min()
}

/// What keeps the run from getting on, the server's trouble before the clients'.
pub fn why(seen: &Observed, answers: &Answers) -> Option<Trouble> {
    let of_pod = |pod: &PodView| {
        let asked = || answers.warnings.get(&pod.uid).map(|warning| of_event("pod", &pod.name, warning));
        of_its_state(pod).or_else(asked).or_else(|| of_the_one_before(pod, seen))
    };
    let pods = newest(seen).filter(|pod| !pod.ready).find_map(of_pod);
    let jobs = || {
        let mut jobs = seen.jobs().filter(|job| is_without_pods(job));
        jobs.find_map(|job| Some(of_event("Job", &job.name, answers.warnings.get(&job.uid)?)))
    };
    pods.or_else(jobs)
}

/// Why the server's Job has failed, as its last pod said it.
pub fn why_the_server_failed(seen: &Observed, reason: &str, message: &str) -> Trouble {
    let last = seen.server_pods().rfind(|pod| pod.phase == PodPhase::Failed);
    last.and_then(of_its_end)
        .unwrap_or_else(|| Trouble::new("ServerFailed", format!("the server's Job failed as {reason}: {message}")))
}

/// What ended the run itself, where a pod of the server's Job has told of it: the next pod would end so too.
pub fn what_ended_the_run(seen: &Observed) -> Option<Trouble> {
    let job = seen.server.as_ref()?;
    let last = seen.server_pods().rfind(|pod| pod.phase == PodPhase::Failed && pod.created >= job.created)?;
    of_its_end(last).filter(|trouble| FAILURES.contains(&trouble.reason))
}

/// The summary that a server of the run with this uid left when it succeeded.
pub fn summary(seen: &Observed, uid: &str) -> Option<LiveStatus> {
    let left = seen.server_pods().filter_map(|pod| serde_json::from_str(&end(pod.trainer()?)?.message).ok());
    let told = seen.live.clone();
    left.chain(told).rfind(|said: &LiveStatus| said.uid == uid && said.phase == LivePhase::Succeeded)
}

fn is_without_pods(job: &JobView) -> bool {
    !job.suspended && !job.deleting && job.active == 0 && job.end.is_none()
}

/// The newest pod of each part, the server's first.
fn newest(seen: &Observed) -> impl Iterator<Item = &PodView> {
    let by_part: BTreeMap<&Part, &PodView> = seen.pods.iter().map(|pod| (&pod.part, pod.as_ref())).collect();
    by_part.into_values()
}

/// What the pod's own status says.
fn of_its_state(pod: &PodView) -> Option<Trouble> {
    if pod.phase == PodPhase::Failed {
        return of_its_end(pod);
    }
    if let Some(message) = &pod.unschedulable {
        return Some(Trouble::new("Unschedulable", format!("pod {} cannot be scheduled: {message}", pod.name)));
    }
    pod.containers.iter().find_map(|container| of_container(&pod.name, container))
}

fn of_container(pod: &str, container: &ContainerView) -> Option<Trouble> {
    let State::Waiting { reason, message } = &container.state else { return None };
    let trouble = |word, what: &str| Some(Trouble::new(word, format!("pod {pod}: {what}: {message}")));
    match reason.as_str() {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable" => trouble("ImagePullFailed", "its image cannot be pulled"),
        "CreateContainerConfigError" | "CreateContainerError" => {
            trouble("ContainerNotMade", "its container cannot be made")
        }
        "RunContainerError" | "StartError" => trouble("ContainerNotStarted", "its container cannot be started"),
        "CrashLoopBackOff" => container.last_end.as_ref().map(|end| of_end(pod, end)),
        _ => None,
    }
}

/// How the pod ended, if it did.
fn of_its_end(pod: &PodView) -> Option<Trouble> {
    let evicted = pod.ended_because.as_ref();
    let ended = pod.containers.iter().find_map(|container| end(container).filter(|end| end.code != 0));
    match (ended, evicted) {
        (Some(end), _) if !end.message.is_empty() || end.reason == "OOMKilled" => Some(of_end(&pod.name, end)),
        (_, Some(because)) => Some(Trouble::new("PodEnded", format!("pod {} was ended: {because}", pod.name))),
        (Some(end), None) => Some(of_end(&pod.name, end)),
        (None, None) => None,
    }
}

/// A pod that is not ready yet says nothing; the one that it replaces may.
fn of_the_one_before(pod: &PodView, seen: &Observed) -> Option<Trouble> {
    let earlier =
        seen.pods.iter().map(AsRef::as_ref).filter(|other| other.part == pod.part && other.phase == PodPhase::Failed);
    let told_to_stop = |other: &&PodView| other.trainer().and_then(end).is_some_and(|end| end.code == STOPPED);
    earlier.rev().find(|other| !told_to_stop(other)).and_then(of_its_end)
}

fn end(container: &ContainerView) -> Option<&End> {
    match &container.state {
        State::Ended(end) => Some(end),
        State::Waiting { .. } | State::Running => None,
    }
}

fn of_end(pod: &str, end: &End) -> Trouble {
    if end.reason == "OOMKilled" {
        let cure = "raise resources.limits.memory in its template, or train with a smaller batch";
        return Trouble::new("OutOfMemory", format!("pod {pod} was killed for lack of memory; {cure}"));
    }
    if end.message.is_empty() {
        return Trouble::new("PodFailed", format!("pod {pod} ended with exit code {}; its logs say why", end.code));
    }
    // What a server says at its end in JSON is for machines; its message is the sentence.
    let said = serde_json::from_str(&end.message).map_or_else(|_| end.message.clone(), |said: LiveStatus| said.message);
    Trouble::new(failure(&said).unwrap_or("PodFailed"), format!("pod {pod}: {said}"))
}

fn of_event(kind: &str, name: &str, warning: &Warning) -> Trouble {
    let (reason, what) = match warning.reason.as_str() {
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => ("VolumeNotMounted", "a volume cannot be mounted"),
        "FailedScheduling" => ("Unschedulable", "it cannot be scheduled"),
        "FailedCreate" => ("PodsNotMade", "its pods cannot be made"),
        "Failed" | "ErrImageNeverPull" | "InspectFailed" => ("ImagePullFailed", "its image cannot be pulled"),
        _ => ("NotStarted", "it does not start"),
    };
    Trouble::new(reason, format!("{kind} {name}: {what}: {}", warning.note))
}

#[cfg(test)]
mod tests;
