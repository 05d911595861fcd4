//! The spec as the trainer reads it, `run.json`, in a `ConfigMap` that never changes.
//! Must not hold what may change while a run goes on: its name is a hash of its content.

use std::collections::BTreeMap;

use fedtune_crds::{canonical::sorted, hex};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Run, Settings,
    labels::{Identity, Part, owned},
    names,
};

/// Key of the resource.
pub const RUN_JSON: &str = "run.json";

/// Digits of the hash in the name: enough to tell the versions of one resource apart.
const DIGITS: usize = 10;

/// Fields that may be changed while a run goes on, or that only the operator acts on after its end.
const FREE: [&str; 3] = ["suspend", "attempt", "ttlSecondsAfterFinished"];

/// The `ConfigMap` of `run`.
pub(super) fn config_map(run: &Run, identity: &Identity, settings: &Settings) -> ConfigMap {
    let text = run_json(run, identity, settings);
    let hash = &hex(&Sha256::digest(&text))[..DIGITS];
    ConfigMap {
        metadata: owned(run, names::config_map(run, hash), Part::Run),
        immutable: Some(true),
        data: Some(BTreeMap::from([(RUN_JSON.to_owned(), text)])),
        binary_data: None,
    }
}

/// The resource with image and defaults filled in, keys in order, so that equal resources are equal texts.
fn run_json(run: &Run, identity: &Identity, settings: &Settings) -> String {
    let mut spec = json!(run.spec);
    let fields = spec.as_object_mut().expect("a spec is an object");
    fields.retain(|key, _| !FREE.contains(&key.as_str()));
    fields.insert("image".to_owned(), json!(image(run, settings)));
    let resource = json!({
        "apiVersion": Run::api_version(&()),
        "kind": Run::kind(&()),
        "metadata": {"name": identity.name, "namespace": identity.namespace, "uid": identity.uid},
        "spec": spec,
    });
    let ordered: Value = serde_json::from_str(&sorted(&resource)).expect("it was JSON a moment ago");
    serde_json::to_string_pretty(&ordered).expect("JSON is text") + "\n"
}

/// Image of the trainer.
pub(super) fn image<'a>(run: &'a Run, settings: &'a Settings) -> &'a str {
    run.spec.image.as_deref().unwrap_or(&settings.trainer_image)
}
