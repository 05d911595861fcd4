//! What the resource's own rules cannot know, checked before anything is made: whether what it refers to exists, and
//! whether the API server would take its Jobs and their pods.
//! Must not write: a dry-run stores nothing.

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::{Client, ResourceExt};

use super::{
    build::{Children, Job, Run},
    child::Kind,
    hindrance::Hindrance,
    look_up::exists,
    post::{Mode, dry_run_pod, post},
    references::{Reference, Referred, references},
    why::Trouble,
};

/// Requests at once for one run.
const AT_ONCE: usize = 8;

/// Checks that `run` could start now.
///
/// # Errors
/// What is missing, or what the API server says against a Job or a pod.
pub async fn validate(run: &Run, children: &Children, client: &Client) -> Result<(), Hindrance> {
    let namespace = run.namespace().unwrap_or_default();
    check_references(run, client, &namespace).await?;
    let jobs = std::iter::once(&children.server).chain(&children.clients);
    let dry_runs: Vec<_> = jobs.map(|job| dry_run(client, &namespace, job).boxed()).collect();
    stream::iter(dry_runs).buffered(AT_ONCE).try_collect::<()>().await
}

async fn check_references(run: &Run, client: &Client, namespace: &str) -> Result<(), Hindrance> {
    let references = references(run);
    let looked_up: Vec<_> = references.iter().map(|reference| is_there(client, namespace, reference).boxed()).collect();
    let there: Vec<bool> = stream::iter(looked_up).buffered(AT_ONCE).try_collect().await?;
    let missing: Vec<_> = references.iter().zip(there).filter(|(_, there)| !there).map(|(found, _)| found).collect();
    if missing.is_empty() { Ok(()) } else { Err(Hindrance::Waiting(absence(&missing, namespace))) }
}

async fn is_there(
    client: &Client,
    namespace: &str,
    Reference { kind, name, path }: &Reference,
) -> Result<bool, Hindrance> {
    let found = match kind {
        Referred::Secret => exists::<Secret>(client, namespace, name).await,
        Referred::ConfigMap => exists::<ConfigMap>(client, namespace, name).await,
        Referred::Claim => exists::<PersistentVolumeClaim>(client, namespace, name).await,
    };
    found.map_err(|error| Hindrance::of(format!("{} {name} of {path} cannot be looked up", kind.as_str()), error))
}

fn absence(missing: &[&Reference], namespace: &str) -> Trouble {
    let each = missing.iter().map(|Reference { kind, name, path }| format!("{} {name} ({path})", kind.as_str()));
    let names = each.collect::<Vec<_>>().join(", ");
    let sentence =
        format!("waiting for what is not in namespace {namespace} yet: {names}; the run starts when it is there");
    Trouble::new("ReferenceMissing", sentence)
}

async fn dry_run(client: &Client, namespace: &str, job: &Job) -> Result<(), Hindrance> {
    let name = job.name();
    let refused = |what: &str, error| Hindrance::of(format!("{what} {name} cannot be made"), error);
    match post(client, Kind::Job, namespace, job.as_json(), Mode::DryRun).await {
        // Whose it is comes out when it is made.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        result => result.map_err(|error| refused("Job", error))?,
    }
    let pod = serde_json::to_value(job.to_pod()).expect("a pod is plain data");
    match dry_run_pod(client, namespace, &pod).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        result => result.map_err(|error| refused("the pods of Job", error)),
    }
}
