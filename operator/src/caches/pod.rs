//! A pod as far as the operator looks at it: what it runs, whether it does, and why not.
//! Must not keep the rest: a thousand runs have thousands of pods.

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus},
    jiff::Timestamp,
};

use crate::controller::build::{labels, pod::TRAINER};

/// Label that the Job controller gives the pods of an Indexed Job.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// One pod of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// What it runs.
    pub part: Part,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// Where it stands.
    pub phase: PodPhase,
    /// Whether it answers its readiness probe.
    pub ready: bool,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// Why no node takes it, in the scheduler's words.
    pub unschedulable: Option<String>,
    /// Why the kubelet or a controller ended it, as for an eviction.
    pub ended_because: Option<String>,
    /// Its containers, those that prepare it first.
    pub containers: Vec<ContainerView>,
}

/// What a pod of a run runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The server.
    Server,
    /// Client `<group>/<index>`.
    Client {
        /// Its group.
        group: String,
        /// Its index in the group.
        index: u32,
    },
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have started.
    Pending,
    /// It runs, or what it does cannot be known.
    Running,
    /// All containers ended with 0.
    Succeeded,
    /// A container ended with another code.
    Failed,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub name: String,
    /// What it does now.
    pub state: State,
    /// How it ended the time before.
    pub last_end: Option<End>,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits, for the reason that the kubelet gives.
    Waiting {
        /// One word, as in `ImagePullBackOff`.
        reason: String,
        /// A sentence, often empty.
        message: String,
    },
    /// It runs.
    Running,
    /// It has ended.
    Ended(End),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its exit code.
    pub code: i32,
    /// One word, as in `OOMKilled`.
    pub reason: String,
    /// Its last words.
    pub message: String,
}

impl PodView {
    /// The pod, if its labels say that it belongs to a run.
    pub fn read(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let status = pod.status.as_ref();
        Some(Self {
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            part: part(pod)?,
            created: meta.creation_timestamp.as_ref()?.0,
            deleting: meta.deletion_timestamp.is_some(),
            phase: phase(status),
            ready: condition(status, "Ready").is_some_and(|(holds, _)| holds),
            ip: status.and_then(|status| status.pod_ip.clone()),
            unschedulable: condition(status, "PodScheduled")
                .and_then(|(holds, message)| (!holds && !message.is_empty()).then(|| message.to_owned())),
            ended_because: status.and_then(|status| status.message.clone().or_else(|| status.reason.clone())),
            containers: containers(status),
        })
    }

    /// Whether it still uses a node, or will.
    pub fn remains(&self) -> bool {
        match self.phase {
            PodPhase::Pending | PodPhase::Running => true,
            PodPhase::Succeeded | PodPhase::Failed => false,
        }
    }

    /// The container that runs the trainer.
    pub fn trainer(&self) -> Option<&ContainerView> {
        self.containers.iter().find(|container| container.name == TRAINER)
    }
}

fn part(pod: &Pod) -> Option<Part> {
    let labels = pod.metadata.labels.as_ref()?;
    match labels.get(labels::GROUP) {
        Some(group) => {
            let index = labels.get(INDEX).and_then(|index| index.parse().ok()).unwrap_or(0);
            Some(Part::Client { group: group.clone(), index })
        }
        None => Some(Part::Server),
    }
}

fn phase(status: Option<&PodStatus>) -> PodPhase {
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Running" | "Unknown") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some(_) | None => PodPhase::Pending,
    }
}

/// Whether the condition holds, and its message.
fn condition<'a>(status: Option<&'a PodStatus>, kind: &str) -> Option<(bool, &'a str)> {
    let conditions = status?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status == "True", found.message.as_deref().unwrap_or_default()))
}

fn containers(status: Option<&PodStatus>) -> Vec<ContainerView> {
    let Some(status) = status else { return Vec::new() };
    let prepare = status.init_container_statuses.iter().flatten();
    prepare.chain(status.container_statuses.iter().flatten()).map(container).collect()
}

fn container(status: &ContainerStatus) -> ContainerView {
    ContainerView {
        name: status.name.clone(),
        state: status.state.as_ref().map_or_else(waiting_for_nothing, state),
        last_end: status.last_state.as_ref().and_then(end),
    }
}

fn state(state: &ContainerState) -> State {
    if state.running.is_some() {
        return State::Running;
    }
    if let Some(end) = end(state) {
        return State::Ended(end);
    }
    state.waiting.as_ref().map_or_else(waiting_for_nothing, |waiting| State::Waiting {
        reason: waiting.reason.clone().unwrap_or_default(),
        message: waiting.message.clone().unwrap_or_default(),
    })
}

fn waiting_for_nothing() -> State {
    State::Waiting { reason: String::new(), message: String::new() }
}

fn end(state: &ContainerState) -> Option<End> {
    state.terminated.as_ref().map(|end| End {
        code: end.exit_code,
        reason: end.reason.clone().unwrap_or_default(),
        message: end.message.as_deref().unwrap_or_default().trim().to_owned(),
    })
}
