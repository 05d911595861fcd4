//! Takes the results of a run to where its writer wants them: a folder, and a prefix in an S3-compatible store.
//! Must not change a result, and must not bring `results.json` before what it speaks of: who sees it may read the rest.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    durable, report,
    sources::{self, Access, SourceError, Store},
};

/// A place that results are taken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A folder of this machine, which a volume may be mounted to.
    Folder(PathBuf),
    /// A prefix in a store.
    Store(Box<Store>),
}

/// Why results did not arrive; they lie in the run's folder all the same.
#[derive(Debug, Error)]
pub enum DeliverError {
    /// A file or folder.
    #[error("the results lie in {} and cannot be copied: {}: {error}", from.display(), path.display())]
    Io {
        /// The run's folder.
        from: PathBuf,
        /// Which file or folder was in the way.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A store.
    #[error("the results lie in {} and cannot be sent: {error}", from.display())]
    Store {
        /// The run's folder.
        from: PathBuf,
        /// Why.
        error: SourceError,
    },
}

/// Takes what lies in the run's folder `from` to each destination; what is there already is replaced. Blocks; not to be
/// called on a runtime's thread.
///
/// # Errors
/// The first that fails; a later call does all of it again.
pub fn deliver(from: &Path, destinations: &[Destination], access: &Access) -> Result<(), DeliverError> {
    let results = results(from).map_err(|(path, error)| DeliverError::Io { from: from.to_owned(), path, error })?;
    for destination in destinations {
        match destination {
            Destination::Folder(to) => copy(&results, from, to)?,
            Destination::Store(store) => send(&results, from, store, access)?,
        }
    }
    Ok(())
}

/// What is delivered of a run's folder, by its path in there: adapters, then what is to be looked at, the report last.
pub(crate) fn results(from: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut found = Vec::new();
    collect(&from.join("adapter"), &mut found)?;
    found.sort();
    found.extend([report::ROUNDS, report::PAGE, report::RESULTS].map(|name| from.join(name)));
    // A run whose clients keep their own adapters has none at the server.
    found.retain(|file| file.is_file());
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    if !folder.is_dir() {
        return Ok(());
    }
    let told = |error| (folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.is_dir() { collect(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

fn below<'a>(file: &'a Path, from: &Path) -> &'a Path {
    file.strip_prefix(from).expect("results are listed below the folder they are taken from")
}

fn copy(results: &[PathBuf], from: &Path, to: &Path) -> Result<(), DeliverError> {
    for file in results {
        let target = to.join(below(file, from));
        let copied = fs::File::open(file).and_then(|mut source| {
            durable::write_with(&target, |mut file| io::copy(&mut source, &mut file).map(|_| ()))
        });
        copied.map_err(|error| DeliverError::Io { from: from.to_owned(), path: target, error })?;
    }
    Ok(())
}

fn send(results: &[PathBuf], from: &Path, store: &Store, access: &Access) -> Result<(), DeliverError> {
    let name = |file: &Path| below(file, from).to_string_lossy().into_owned();
    let files: Vec<(String, &Path)> = results.iter().map(|file| (name(file), file.as_path())).collect();
    sources::send(store, &access.of_output(), &files)
        .map_err(|error| DeliverError::Store { from: from.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["adapter/silo/0/adapter_model.safetensors", "adapter/README.md", "results.json", "rounds.csv", "run.json"]
        {
            durable::write_whole(&folder.path().join(name), name.as_bytes()).unwrap();
        }
        folder
    }

    #[test]
    fn the_report_comes_last_and_what_a_restart_needs_stays() {
        let folder = run_folder();
        let results = results(folder.path()).unwrap();
        let names: Vec<_> = results.iter().map(|file| below(file, folder.path()).to_str().unwrap()).collect();
        let expected = ["adapter/README.md", "adapter/silo/0/adapter_model.safetensors", "rounds.csv", "results.json"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_folder_gets_every_result_and_a_second_delivery_replaces_the_first() {
        let (from, to) = (run_folder(), tempfile::tempdir().unwrap());
        let destination = Destination::Folder(to.path().join("deep/mail"));
        for content in ["old", "new"] {
            durable::write_whole(&from.path().join("rounds.csv"), content.as_bytes()).unwrap();
            deliver(from.path(), std::slice::from_ref(&destination), &Access::of([])).unwrap();
        }
        assert_eq!(fs::read_to_string(to.path().join("deep/mail/rounds.csv")).unwrap(), "new");
        assert!(to.path().join("deep/mail/adapter/silo/0/adapter_model.safetensors").is_file());
        assert!(!to.path().join("deep/mail/run.json").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_and_so_is_where_the_results_lie() {
        let (from, to) = (run_folder(), tempfile::tempdir().unwrap());
        durable::write_whole(&to.path().join("adapter"), b"a file where a folder belongs").unwrap();
        let error = deliver(from.path(), &[Destination::Folder(to.path().to_owned())], &Access::of([])).unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with(&format!("the results lie in {} and cannot be copied: ", from.path().display())),
            "{told}"
        );
    }
}
