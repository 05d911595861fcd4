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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate");
    let program = root.join(".cache/k8s/bin").join(name);
    assert!(
        program.is_file(),
        "there is no {}, which a cluster needs; run scripts/cluster.sh {part}",
        program.display()
    );
    program
}
