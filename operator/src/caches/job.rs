//! A Job as far as the operator looks at it: whether it may have pods, how it ended, what its pods mount.
//! Must not keep the rest: its template is the largest part of it, and written by `build` alone.

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition},
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::INSTANCE;

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

impl JobView {
    /// The Job's view.
    pub fn read(job: &Job) -> Self {
        let status = job.status.as_ref();
        let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let instance = job.labels().get(INSTANCE).map_or("", String::as_str);
        let volumes = pod.and_then(|pod| pod.volumes.as_ref()).into_iter().flatten();
        let mut mounted = volumes.filter_map(|volume| volume.config_map.as_ref()).map(|map| map.name.clone());
        Self {
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
