//! A cluster's own folder, and what is kept of it when a test has failed.
//! Must not remove it: the keeper does, also where a test was killed.

use std::{
    fs,
    io::{self, Write},
    panic,
    path::{Path, PathBuf},
};

use super::keep;

/// A folder that its keeper removes, also where this process cannot.
pub(super) fn new() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("fedtune-cluster-").tempdir();
    let folder = folder.expect("a temporary folder can be made").keep();
    fs::create_dir(folder.join("log")).expect("a temporary folder can be written");
    remember_failures(&folder);
    folder
}

/// When any test of this process fails, the keeper of `folder` keeps the logs.
fn remember_failures(folder: &Path) {
    let (folder, before) = (folder.to_owned(), panic::take_hook());
    panic::set_hook(Box::new(move |what| {
        before(what);
        // A cluster that is gone already has nothing to keep.
        if fs::write(folder.join(keep::FAILED), what.to_string()).is_ok() {
            let _ = writeln!(io::stderr(), "what the cluster said is kept in {}", folder.join("log").display());
        }
    }));
}
