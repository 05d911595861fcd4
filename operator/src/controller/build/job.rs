//! A Job as the JSON that goes to the API server, its template merged in.
//! Must not be read into Kubernetes' types before it is sent: they drop an unknown field of a template without a word.

use fedtune_crds::template::Template;
use k8s_openapi::api::{
    batch::v1::{
        Job as TypedJob, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
        PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
    },
    core::v1::PodTemplateSpec,
};
use kube::{
    api::{DynamicObject, TypeMeta},
    core::ObjectMeta,
};
use serde_json::{Value, json};

use super::{
    BuildError, Run, Settings,
    labels::{Part, owned},
    overlay,
    pod::TRAINER,
    requests::Requests,
};

/// The trainer's exit code where nothing but another spec, model or set-up would help.
const CONFIGURATION_ERROR: i32 = 78;

/// How often a pod is made anew, each client for itself: a node may be lost many times in a long run.
const BACKOFF_LIMIT: i32 = 20;

/// A Job with a template merged in, complete and unchecked: what is unknown in it the API server refuses in its words,
/// where it is asked with `fieldValidation=Strict`.
#[derive(Debug, Clone, PartialEq)]
pub struct Job(Value);

/// What makes a Job the server's or a group's.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) name: String,
    pub(super) part: Part<'a>,
    pub(super) replicas: u32,
    pub(super) on_configuration_error: OnConfigurationError,
    pub(super) template: PodTemplateSpec,
    /// What the trainer asks for where no overlay says.
    pub(super) requests: Requests,
    /// The resource's overlay, and where in it that stands.
    pub(super) overlay: Option<&'a Template>,
    pub(super) path: String,
}

/// What ends with a configuration error: the server's ends the run, a client's only that client, for the quorum is the
/// server's to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnConfigurationError {
    FailJob,
    FailIndex,
}

impl Job {
    pub(super) fn new(run: &Run, settings: &Settings, order: Order<'_>) -> Result<Self, BuildError> {
        let Order { name, part, replicas, on_configuration_error, template, requests, overlay, path } = order;
        let mut pod = json!(template);
        overlay::apply(run, &mut pod, &settings.template, "the operator's own template")?;
        if let Some(overlay) = overlay {
            overlay::apply(run, &mut pod, overlay, &path)?;
        }
        requests.fill_in(&mut pod);
        let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
        let job = TypedJob {
            metadata: owned(run, name, part),
            spec: Some(spec(run, replicas, on_configuration_error)),
            status: None,
        };
        let mut job = json!(job);
        job["spec"]["template"] = pod;
        Ok(Self(job))
    }

    /// The whole object.
    pub fn as_json(&self) -> &Value {
        &self.0
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// Image of the trainer in it.
    pub fn image(&self) -> &str {
        self.text("/spec/template/spec/containers/0/image")
    }

    /// The object as `kube::Api<DynamicObject>` sends it, with nothing left out.
    pub fn to_dynamic(&self) -> DynamicObject {
        dynamic("batch/v1", "Job", &self.0["metadata"], &self.0["spec"])
    }

    /// The first pod that it would make, for a dry-run: the API server checks more of a pod than of a Job.
    pub fn to_pod(&self) -> DynamicObject {
        let template = &self.0["spec"]["template"];
        let mut metadata = template["metadata"].clone();
        metadata["name"] = json!(format!("{}-0", self.name()));
        metadata["namespace"] = json!(self.namespace());
        dynamic("v1", "Pod", &metadata, &template["spec"])
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

fn dynamic(api_version: &str, kind: &str, metadata: &Value, spec: &Value) -> DynamicObject {
    let metadata: ObjectMeta = serde_json::from_value(metadata.clone()).expect("overlays add texts to metadata only");
    let types = Some(TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() });
    DynamicObject { types, metadata, data: json!({ "spec": spec }) }
}

/// Without a deadline: the operator watches the resource's own, since a Job's begins anew with each resume and each
/// attempt, and would end server and clients at different times.
fn spec(run: &Run, replicas: i32, on_configuration_error: OnConfigurationError) -> JobSpec {
    JobSpec {
        completion_mode: Some("Indexed".to_owned()),
        completions: Some(replicas),
        parallelism: Some(replicas),
        backoff_limit_per_index: Some(BACKOFF_LIMIT),
        // One more failed client would have the healthy ones killed; whether enough are left is the server's to say.
        max_failed_indexes: Some(replicas),
        // A client is never there twice.
        pod_replacement_policy: Some("Failed".to_owned()),
        pod_failure_policy: Some(failures(on_configuration_error)),
        suspend: Some(run.spec.suspend),
        ..JobSpec::default()
    }
}

/// A pod that had to make room does not count; one that can never succeed is not tried again.
fn failures(on_configuration_error: OnConfigurationError) -> PodFailurePolicy {
    let action = match on_configuration_error {
        OnConfigurationError::FailJob => "FailJob",
        OnConfigurationError::FailIndex => "FailIndex",
    };
    let disrupted =
        PodFailurePolicyOnPodConditionsPattern { type_: "DisruptionTarget".to_owned(), status: "True".to_owned() };
    let misconfigured = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(TRAINER.to_owned()),
        operator: "In".to_owned(),
        values: vec![CONFIGURATION_ERROR],
    };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![disrupted]),
            },
            PodFailurePolicyRule {
                action: action.to_owned(),
                on_exit_codes: Some(misconfigured),
                on_pod_conditions: None,
            },
        ],
    }
}
