//! A resource that was stored under other rules and cannot be read: it is told, and the others go on.
//! Must not touch its phase, nor its children.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
    runtime::controller::Action,
};
use serde_json::json;

use super::{Context, build::Run, hindrance::Hindrance};

/// Says in the status of the resource with this metadata that it cannot be read, and why.
pub(super) async fn say_so(metadata: &ObjectMeta, error: &str, context: &Context) -> Result<Action, Hindrance> {
    let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else {
        return Ok(Action::await_change());
    };
    let message = format!("this operator cannot read the resource: {error}");
    // The same at each look: a patch that changes nothing makes no new version, and so no new look.
    let since = metadata.creation_timestamp.clone().unwrap_or(Time(Timestamp::UNIX_EPOCH));
    let condition = |type_: &str, status: &str| Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: "Unreadable".to_owned(),
        message: message.clone(),
        observed_generation: metadata.generation,
        last_transition_time: since.clone(),
    };
    let conditions = [condition("Ready", "False"), condition("Reconciling", "False"), condition("Stalled", "True")];
    let patch = json!({"status": {"message": message, "conditions": conditions}});
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), namespace, &ApiResource::erase::<Run>(&()));
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(Action::await_change()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Action::await_change()),
        Err(error) => Err(Hindrance::of("the status cannot be written", error)),
    }
}
