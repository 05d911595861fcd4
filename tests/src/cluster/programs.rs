//! Where the programs of a cluster lie.
//! Must not build them: `scripts/cluster.sh` does, and `make test` calls it.

use std::{
    env,
    path::{Path, PathBuf},
};

/// A program of the control plane: from `KUBEBUILDER_ASSETS`, as for other controllers' tests, else from the cache.
pub(super) fn control_plane(name: &str) -> PathBuf {
    env::var_os("KUBEBUILDER_ASSETS").map_or_else(
        || cached(name, "control-plane"),
        |folder| {
            let program = PathBuf::from(folder).join(name);
            assert!(program.is_file(), "KUBEBUILDER_ASSETS is set, and there is no {}", program.display());
            program
        },
    )
}

/// A program that `scripts/cluster.sh PART` builds.
pub(super) fn cached(name: &str, part: &str) -> PathBuf {
    let program = root().join(".cache/k8s/bin").join(name);
    assert!(
        program.is_file(),
        "there is no {}, which a cluster needs; run scripts/cluster.sh {part}",
        program.display()
    );
    program
}

/// The images that `make images` built; the one of pauses is among them, without which no pod starts.
pub(super) fn images() -> Vec<PathBuf> {
    let folder = root().join(".cache/images");
    let entries = folder.read_dir().into_iter().flatten().map(|entry| entry.expect("a folder can be listed").path());
    let images: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "tar")).collect();
    let has_pause = images.iter().any(|image| image.ends_with("pause.tar"));
    assert!(has_pause, "there is no {}, which every pod needs; run make images", folder.join("pause.tar").display());
    images
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate")
}
