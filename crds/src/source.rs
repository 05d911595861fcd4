//! Where models and data come from: a folder or file, the Hugging Face hub, HTTP, S3.
//! Must not fetch anything: it only names places and the secrets that open them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{exactly_one, matches, object_name};

/// Where something is read from: exactly one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["path", "huggingFace", "http", "s3"]))]
pub struct Source {
    /// A folder or file: on this machine for a local run, where a volume is mounted in the pod for one on a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// A repository of the Hugging Face hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFace>,
    /// One file behind an http or https address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Objects in an S3-compatible store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// A repository of the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFace {
    /// The repository, as in `HuggingFaceTB/SmolLM2-135M`.
    #[schemars(length(max = 193))]
    #[x_kube(validation = matches("^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$", "a repository is owner/name, as in HuggingFaceTB/SmolLM2-135M"))]
    pub repo: String,
    /// Branch, tag or commit. A commit is the only one that cannot change under a later run.
    #[serde(default = "revision")]
    #[schemars(length(min = 1, max = 128))]
    pub revision: String,
    /// One file of the repository, one folder, or a pattern in which `*` stands for anything but `/`, as in
    /// `data/train-*.parquet`. Left out, what is needed of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub file: Option<String>,
    /// Secret with the hub's token, for what is not public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
}

/// One file behind an http or https address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// The address.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = matches("^https?://[^ ]+$", "an address begins with http:// or https:// and holds no space"))]
    pub url: String,
    /// SHA-256 of the file in hexadecimal; another content is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = matches("^[0-9a-f]{64}$", "a SHA-256 is 64 digits of 0 to 9 and a to f"))]
    pub sha256: Option<String>,
}

/// Objects in an S3-compatible store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.accessKeyIdSecretRef) == has(self.secretAccessKeySecretRef)",
    "set both accessKeyIdSecretRef and secretAccessKeySecretRef, or neither"))]
pub struct S3 {
    /// Bucket and prefix, as in `s3://bucket/path/to`; or one object, as in `s3://bucket/mail.csv`.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = matches("^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^ ]*)?$", "an S3 address is s3://bucket/prefix; a bucket has 3 to 63 small letters, digits, . and -"))]
    pub url: String,
    /// Address of the store, where it is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = matches("^https?://[^ ]+$", "an endpoint begins with http:// or https:// and holds no space"))]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Secret with the access key's id. Left out, the pod's own identity is used, on one machine the environment's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id_secret_ref: Option<SecretKeyRef>,
    /// Secret with the access key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key_secret_ref: Option<SecretKeyRef>,
}

/// One entry of a Secret in the resource's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
    /// Key of the entry in it.
    #[schemars(length(max = 253))]
    #[x_kube(validation = matches("^[-._a-zA-Z0-9]+$", "a key of a Secret has letters, digits, -, _ and ."))]
    pub key: String,
}

fn revision() -> String {
    "main".to_owned()
}
