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

/// The images that `make images` built, as archives; the one of pauses is what no pod starts without.
pub(super) fn images() -> [PathBuf; 3] {
    ["pause", "operator", "trainer"].map(|name| {
        let archive = root().join(format!(".cache/images/{name}.tar"));
        assert!(archive.is_file(), "there is no {}, which a node needs; run make images", archive.display());
        archive
    })
}

/// The operator's image of a release, and that release's source, both from `scripts/images.sh operator@<release>`.
pub(super) fn release(release: &str) -> (PathBuf, PathBuf) {
    let (image, source) = (format!(".cache/images/operator-{release}.tar"), format!(".cache/releases/{release}"));
    let (image, source) = (root().join(image), root().join(source));
    assert!(image.is_file(), "there is no {}; run scripts/images.sh operator@{release}", image.display());
    (image, source)
}

/// The workspace's folder.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate")
}
