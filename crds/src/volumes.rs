//! Where a run reads and writes on a cluster: claims, `spec.output`, `spec.cache`, `spec.resumeFrom`,
//! `spec.retentionPolicy`.
//! Must not decide a result: none of it changes a bit of the adapter.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    quantities::ByteSize,
    rules::{at_least_one, exactly_one, matches, object_name},
    source::S3,
};

/// A claim that the operator makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaim {
    /// Its size.
    #[serde(default = "size")]
    pub size: ByteSize,
    /// Its storage class. Left out, the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub storage_class_name: Option<String>,
    /// Who may mount it. Left out, `ReadWriteOncePod` where the driver allows it, else `ReadWriteOnce`;
    /// `ReadWriteMany` for a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
}

impl Default for VolumeClaim {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

/// Who may mount the claim. Left out, `ReadWriteOncePod` where the driver allows it, else `ReadWriteOnce`;
/// `ReadWriteMany` for a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// One node.
    ReadWriteOnce,
    /// One pod.
    ReadWriteOncePod,
    /// Any.
    ReadWriteMany,
}

/// Where the adapter, `results.json` and `report.html` go: a claim, S3, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = at_least_one(&["volume", "s3"]))]
pub struct Output {
    /// A folder of an existing claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<OutputVolume>,
    /// A prefix in an S3-compatible store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// A folder of an existing claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputVolume {
    /// Name of the claim.
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub existing_claim: String,
    /// Folder in it. Left out, the resource's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = ("!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
        "a folder of the claim is given from the claim's root, without a leading / and without .."))]
    pub path: Option<String>,
}

/// One claim for models and data, so that a run downloads each of them once: a new one or an existing one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["volumeClaim", "existingClaim"]))]
pub struct Cache {
    /// A claim that the operator makes for the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<VolumeClaim>,
    /// A claim that exists already and that several runs may share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub existing_claim: Option<String>,
}

/// The earlier run whose checkpoint may be gone on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeFrom {
    /// `metadata.uid` of that run, which its checkpoint in `server.checkpoint.existingClaim` carries.
    #[schemars(length(max = 36))]
    #[x_kube(validation = matches("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "a uid is 32 hexadecimal digits in five parts, as kubectl get -o yaml shows it"))]
    pub uid: String,
}

/// What becomes of the checkpoint when the resource is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetentionPolicy {
    /// It goes too.
    #[default]
    Delete,
    /// It stays and can be used again by `existingClaim`.
    Retain,
}

fn size() -> ByteSize {
    "10Gi".parse().expect("a literal of this crate, read by a test")
}
