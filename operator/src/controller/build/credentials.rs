//! Secrets that open sources, as variables of a pod's environment.
//! Must not give a pod a secret of what it does not read.

use std::collections::BTreeMap;

use fedtune_crds::source::{S3, SecretKeyRef};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, SecretKeySelector};

use super::{BuildError, sources::Placed};

/// What the trainer opens the hub and stores with.
const HUB: &str = "HF_TOKEN";
const STORE: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// What it opens the store of its results with, which may be another's than that of its data.
const OUTPUT: [&str; 2] = ["FEDTUNE_OUTPUT_AWS_ACCESS_KEY_ID", "FEDTUNE_OUTPUT_AWS_SECRET_ACCESS_KEY"];

/// The variables of `pod`, which reads `sources` and writes to `output`.
///
/// # Errors
/// Where two of them are opened by different secrets: a process has one environment.
pub(super) fn of(pod: &str, sources: &[Placed<'_>], output: Option<&S3>) -> Result<Vec<EnvVar>, BuildError> {
    let mut ring = Ring { pod, held: BTreeMap::new() };
    for (path, source) in sources {
        let hub = source.hugging_face.as_ref().and_then(|hub| hub.token_secret_ref.as_ref());
        ring.hold(HUB, path, hub)?;
        if let Some(store) = &source.s3 {
            ring.hold_store(STORE, path, store)?;
        }
    }
    if let Some(store) = output {
        ring.hold_store(OUTPUT, "spec.output.s3", store)?;
    }
    Ok(ring.held.into_iter().map(|(variable, (_, secret))| env(variable, secret)).collect())
}

struct Ring<'a> {
    pod: &'a str,
    held: BTreeMap<&'static str, (String, &'a SecretKeyRef)>,
}

impl<'a> Ring<'a> {
    fn hold_store(&mut self, [id, key]: [&'static str; 2], path: &str, store: &'a S3) -> Result<(), BuildError> {
        self.hold(id, path, store.access_key_id_secret_ref.as_ref())?;
        self.hold(key, path, store.secret_access_key_secret_ref.as_ref())
    }

    fn hold(&mut self, variable: &'static str, path: &str, secret: Option<&'a SecretKeyRef>) -> Result<(), BuildError> {
        let Some(secret) = secret else { return Ok(()) };
        let (first, held) = self.held.entry(variable).or_insert_with(|| (path.to_owned(), secret));
        if *held == secret {
            return Ok(());
        }
        Err(BuildError::TwoSecrets {
            pod: self.pod.to_owned(),
            variable,
            first: first.clone(),
            second: path.to_owned(),
        })
    }
}

fn env(variable: &str, secret: &SecretKeyRef) -> EnvVar {
    let selector = SecretKeySelector { name: secret.name.clone(), key: secret.key.clone(), optional: None };
    EnvVar {
        name: variable.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }),
    }
}
