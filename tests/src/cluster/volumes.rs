//! Volumes of a node: a stock of empty ones for whoever claims one, and claims that are filled or small from the start.
//! Must not know what is kept in them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client,
    api::PostParams,
    runtime::wait::{Condition, await_condition},
};
use serde_json::{Value, json};
use tokio::time;

use super::{Cluster, LIMIT, node};

/// Volumes that a cluster has for claims which name none.
const STOCK: usize = 64;
/// What each of them promises; nobody holds a folder to it.
const SIZE: &str = "20Gi";
/// The class of claims that name none.
const CLASS: &str = "standard";

/// Fills the stock: the class of all claims that name none, and its volumes.
pub(super) async fn stock(client: &Client, folder: &Path) {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let classes: Api<StorageClass> = Api::all(client.clone());
    classes.create(&PostParams::default(), &typed(class)).await.expect("a storage class can be made");
    for number in 0..STOCK {
        let name = format!("stock-{number:02}");
        let path = folder.join("volumes").join(&name);
        make_folder(&path);
        create_volume(client, volume(&name, &path, SIZE, Some(CLASS))).await;
    }
}

impl Cluster {
    /// A claim in `namespace` on a copy-free, read-only view of `content`.
    pub async fn claim_filled(&self, namespace: &str, claim: &str, content: &Path) {
        let content = content.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", content.display()));
        let path = self.volume_folder(namespace, claim);
        let [from, to] = [&content, &path].map(|path| path.to_str().expect("paths of tests are plain"));
        self.keeper().run("mount", &["--bind", "--options", "ro", from, to]);
        self.claim(namespace, claim, &path, SIZE).await;
    }

    /// A claim in `namespace` that holds this many bytes, as in `10Mi`, and then is full.
    pub async fn claim_limited(&self, namespace: &str, claim: &str, size: &str) {
        let path = self.volume_folder(namespace, claim);
        let options = format!("size={},mode=0777", size.trim_end_matches('i'));
        let to = path.to_str().expect("paths of tests are plain");
        self.keeper().run("mount", &["-t", "tmpfs", "--options", &options, "tmpfs", to]);
        self.claim(namespace, claim, &path, size).await;
    }

    /// Lets a claim of [`Cluster::claim_limited`] hold more, as in `10Mi`.
    pub fn grow_claim(&self, namespace: &str, claim: &str, size: &str) {
        let path = self.volume_folder(namespace, claim);
        let options = format!("remount,size={}", size.trim_end_matches('i'));
        self.keeper().run("mount", &["--options", &options, path.to_str().expect("paths of tests are plain")]);
    }

    /// An empty claim in `namespace`, and the folder behind it on this machine.
    pub async fn claim_empty(&self, namespace: &str, claim: &str) -> std::path::PathBuf {
        let path = self.volume_folder(namespace, claim);
        self.claim(namespace, claim, &path, SIZE).await;
        path
    }

    fn volume_folder(&self, namespace: &str, claim: &str) -> std::path::PathBuf {
        let path = self.folder.join("volumes").join(format!("{namespace}-{claim}"));
        make_folder(&path);
        path
    }

    async fn claim(&self, namespace: &str, claim: &str, path: &Path, size: &str) {
        let client = self.client().await;
        let name = format!("{namespace}-{claim}");
        create_volume(&client, volume(&name, path, size, None)).await;
        let object = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim},
            "spec": {
                "storageClassName": "",
                "volumeName": name,
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": size}},
            },
        });
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, namespace);
        claims.create(&PostParams::default(), &typed(object)).await.expect("a claim can be made");
        let bound = time::timeout(LIMIT, await_condition(claims, claim, is_bound())).await;
        bound.expect("a volume is bound in time").expect("a claim can be watched");
    }
}

fn volume(name: &str, path: &Path, size: &str, class: Option<&str>) -> Value {
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node::NAME]});
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": class.unwrap_or(""),
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    })
}

/// Whether a claim has its volume.
fn is_bound() -> impl Condition<PersistentVolumeClaim> {
    |claim: Option<&PersistentVolumeClaim>| {
        let phase = claim.and_then(|claim| claim.status.as_ref()?.phase.as_deref());
        phase == Some("Bound")
    }
}

async fn create_volume(client: &Client, volume: Value) {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    volumes.create(&PostParams::default(), &typed(volume)).await.expect("a volume can be made");
}

/// Whoever a pod runs as may write there.
fn make_folder(path: &Path) {
    fs::create_dir_all(path).expect("a temporary folder can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a folder of ours can be opened");
}

fn typed<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("it is written as Kubernetes has it")
}
