//! A volume of ours and where it is mounted.
//! Must not be called as a user would call one: a template's volumes are merged by name.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
    VolumeMount,
};

/// What the names of our volumes begin with.
pub(super) const PREFIX: &str = "fedtune-";

/// Group and owner of Secret files may read them: the pod's group is the trainer's.
const GROUP_READS: i32 = 0o440;

/// A volume and its one mount.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    pub(super) volume: Volume,
    pub(super) mount: VolumeMount,
}

impl Mount {
    /// A folder that lives as long as the pod.
    pub(super) fn empty_dir(name: &str, path: &str) -> Self {
        let empty_dir = Some(EmptyDirVolumeSource::default());
        Self::of(name, path, Volume { empty_dir, ..Volume::default() })
    }

    /// A claim, or one `folder` of it.
    pub(super) fn claim(name: &str, path: &str, claim: &str) -> Self {
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: None };
        Self::of(name, path, Volume { persistent_volume_claim: Some(source), ..Volume::default() })
    }

    /// The files of a `ConfigMap`.
    pub(super) fn config_map(name: &str, path: &str, config_map: &str) -> Self {
        let source = ConfigMapVolumeSource { name: config_map.to_owned(), ..ConfigMapVolumeSource::default() };
        Self::of(name, path, Volume { config_map: Some(source), ..Volume::default() }).read_only()
    }

    /// The files of a Secret; without a sub-path, so that a renewed certificate arrives in the pod.
    pub(super) fn secret(name: &str, path: &str, secret: &str) -> Self {
        let source = SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(GROUP_READS),
            ..SecretVolumeSource::default()
        };
        Self::of(name, path, Volume { secret: Some(source), ..Volume::default() }).read_only()
    }

    /// Only this folder of it, made where it is not there.
    pub(super) fn folder(mut self, folder: &str) -> Self {
        self.mount.sub_path = Some(folder.to_owned());
        self
    }

    /// Only this folder of it, in which the pod's variables are replaced.
    pub(super) fn folder_of_variables(mut self, folder: String) -> Self {
        self.mount.sub_path_expr = Some(folder);
        self
    }

    fn read_only(mut self) -> Self {
        self.mount.read_only = Some(true);
        self
    }

    fn of(name: &str, path: &str, volume: Volume) -> Self {
        let name = format!("{PREFIX}{name}");
        let mount = VolumeMount { name: name.clone(), mount_path: path.to_owned(), ..VolumeMount::default() };
        Self { volume: Volume { name, ..volume }, mount }
    }
}
