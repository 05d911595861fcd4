//! Makes one object at the API server, unknown fields refused; or only asks whether it could be made.
//! Must not change an object that is there already.

use axum::http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, core::PartialObjectMeta};
use serde_json::Value;

use super::child::{Child, Kind};

/// Who made an object, in its managed fields.
pub const FIELD_MANAGER: &str = "fedtune-operator";

/// Whether an object is made, or only asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is made.
    Make,
    /// The API server does all but store it.
    DryRun,
}

/// Makes `object` of `kind`.
///
/// # Errors
/// Where the API server refuses it or cannot be reached.
pub async fn post(client: &Client, kind: Kind, namespace: &str, object: &Value, mode: Mode) -> Result<(), kube::Error> {
    create(client, &collection(kind, namespace), object, mode).await
}

/// Asks whether a pod could be made: much is checked of a pod that is not of a Job.
///
/// # Errors
/// Where the API server refuses it or cannot be reached.
pub async fn dry_run_pod(client: &Client, namespace: &str, pod: &Value) -> Result<(), kube::Error> {
    create(client, &format!("/api/v1/namespaces/{namespace}/pods"), pod, Mode::DryRun).await
}

/// Metadata of a child, if it exists.
///
/// # Errors
/// Where the API server cannot be reached.
pub async fn metadata(
    client: &Client,
    namespace: &str,
    child: &Child,
) -> Result<Option<PartialObjectMeta<Pod>>, kube::Error> {
    let path = format!("{}/{}", collection(child.kind, namespace), child.name);
    let request = Request::get(path).body(Vec::new()).expect("names of objects make a path");
    match client.request(request).await {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// By hand, because `kube::Api` cannot ask for `fieldValidation`, without which a typo in a template is dropped.
async fn create(client: &Client, path: &str, object: &Value, mode: Mode) -> Result<(), kube::Error> {
    let dry_run = match mode {
        Mode::Make => "",
        Mode::DryRun => "&dryRun=All",
    };
    let path = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict{dry_run}");
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    let request = Request::post(path).header("content-type", "application/json").body(body);
    client.request_text(request.map_err(kube::Error::HttpError)?).await.map(drop)
}

fn collection(kind: Kind, namespace: &str) -> String {
    let (api, plural) = match kind {
        Kind::ConfigMap => ("api/v1", "configmaps"),
        Kind::Secret => ("api/v1", "secrets"),
        Kind::Claim => ("api/v1", "persistentvolumeclaims"),
        Kind::Service => ("api/v1", "services"),
        Kind::NetworkPolicy => ("apis/networking.k8s.io/v1", "networkpolicies"),
        Kind::Job => ("apis/batch/v1", "jobs"),
    };
    format!("/{api}/namespaces/{namespace}/{plural}")
}
