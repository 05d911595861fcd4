//! Claims that the operator makes: the checkpoint's and the cache's.
//! Must not make one that exists already under another name: that one is only mounted.

use std::collections::BTreeMap;

use fedtune_crds::{
    quantities::ByteSize,
    volumes::{AccessMode, RetentionPolicy, VolumeClaim},
};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use serde_json::{Value, json};

use super::{
    Run, Settings,
    labels::{Part, kept, owned},
    names,
};

/// The claims of `run`.
pub(super) fn claims(run: &Run, settings: &Settings) -> Vec<PersistentVolumeClaim> {
    [checkpoint(run, settings), cache(run)].into_iter().flatten().collect()
}

/// Name of the claim with the checkpoint.
pub(super) fn checkpoint_claim(run: &Run) -> String {
    let existing = run.spec.server.checkpoint.existing_claim.clone();
    existing.unwrap_or_else(|| names::checkpoint(run))
}

/// Name of the claim that all pods share, where there is one.
pub(super) fn cache_claim(run: &Run) -> Option<String> {
    let cache = run.spec.cache.as_ref()?;
    Some(cache.existing_claim.clone().unwrap_or_else(|| names::cache(run)))
}

fn checkpoint(run: &Run, settings: &Settings) -> Option<PersistentVolumeClaim> {
    let checkpoint = &run.spec.server.checkpoint;
    if checkpoint.existing_claim.is_some() {
        return None;
    }
    let name = names::checkpoint(run);
    let metadata = match run.spec.retention_policy {
        RetentionPolicy::Delete => owned(run, name, Part::Server),
        // Without an owner nothing deletes it.
        RetentionPolicy::Retain => kept(run, name, Part::Server),
    };
    let alone = if settings.read_write_once_pod { AccessMode::ReadWriteOncePod } else { AccessMode::ReadWriteOnce };
    Some(claim(metadata, &checkpoint.volume_claim.clone().unwrap_or_default(), alone))
}

/// Pods on several nodes mount it at the same time.
fn cache(run: &Run) -> Option<PersistentVolumeClaim> {
    let wanted = run.spec.cache.as_ref()?.volume_claim.as_ref()?;
    Some(claim(owned(run, names::cache(run), Part::Run), wanted, AccessMode::ReadWriteMany))
}

fn claim(metadata: ObjectMeta, wanted: &VolumeClaim, otherwise: AccessMode) -> PersistentVolumeClaim {
    let VolumeClaim { size, storage_class_name, access_mode } = wanted;
    let mode = match access_mode.unwrap_or(otherwise) {
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
        AccessMode::ReadWriteMany => "ReadWriteMany",
    };
    let requests = BTreeMap::from([("storage".to_owned(), quantity(size))]);
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            storage_class_name: storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// As it was written: Kubernetes reads the same units.
fn quantity(size: &ByteSize) -> Quantity {
    match json!(size) {
        Value::String(text) => Quantity(text),
        number => Quantity(number.to_string()),
    }
}
