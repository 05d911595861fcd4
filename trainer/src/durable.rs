//! Writes files and folders whole or not at all, so that neither a reader nor a crash ever meets half of one.
//! Must not know what is in them.

use std::{fs, io, io::Write, path::Path};

use tempfile::Builder;

/// What a file's name begins with while it is written; one that a crash left behind is nobody's.
pub(crate) const PARTIAL: &str = ".fedtune-";

/// Writes `content` to `path`, durable when it returns.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    write_parts(path, &[content])
}

/// As [`write_whole`], for what nobody but its owner may read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write(Builder::new().prefix(PARTIAL), path, |mut file| file.write_all(content))
}

/// Writes `parts` one after the other to `path` by way of a temporary file beside it: written, synced, renamed.
pub(crate) fn write_parts(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    write_with(path, |mut file| parts.iter().try_for_each(|part| file.write_all(part)))
}

/// As [`write_whole`], for what is too large to be in memory: `content` writes it.
pub(crate) fn write_with(path: &Path, content: impl FnOnce(&fs::File) -> io::Result<()>) -> io::Result<()> {
    write(readable_by_all(Builder::new().prefix(PARTIAL)), path, content)
}

fn write(
    builder: &mut Builder<'_, '_>,
    path: &Path,
    content: impl FnOnce(&fs::File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = parent(path);
    create_folder(folder)?;
    let file = builder.tempfile_in(folder)?;
    // By the file itself: what goes wrong should name `path`, which the caller knows, not the temporary file's.
    let open = file.as_file();
    content(open)?;
    open.sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

/// Makes `folder` and what is missing above it; durable when it returns.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
    let missing = folder.ancestors().take_while(is_missing).count();
    fs::create_dir_all(folder)?;
    folder.ancestors().take(missing).try_for_each(|made| sync_folder(parent(made)))
}

/// Puts the file `beside`, of the same volume, in the place of `path`; durable when it returns.
#[cfg(any(feature = "hub", feature = "http", feature = "s3"))]
pub(crate) fn publish_file(beside: &Path, path: &Path) -> io::Result<()> {
    fs::File::open(beside)?.sync_all()?;
    create_folder(parent(path))?;
    fs::rename(beside, path)?;
    sync_folder(parent(path))
}

/// Puts the folder `beside`, whose files were written by this module, in the place of `folder`, which has the same parent.
pub(crate) fn publish_folder(beside: &Path, folder: &Path) -> io::Result<()> {
    remove_folder(folder)?;
    fs::rename(beside, folder)?;
    sync_folder(parent(folder))
}

/// Removes `folder` with all that is in it, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A rename is durable only once the folder is synced.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    match fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems have no such call; there the file is whole all the same.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Temporary files are private by default; ours are for whoever may read the folder (less what the umask takes).
#[cfg(unix)]
fn readable_by_all<'a, 'b>(builder: &'b mut Builder<'a, 'a>) -> &'b mut Builder<'a, 'a> {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(fs::Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn readable_by_all<'a, 'b>(builder: &'b mut Builder<'a, 'a>) -> &'b mut Builder<'a, 'a> {
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/down/results.json");
        write_whole(&path, b"first").unwrap();
        write_parts(&path, &[b"sec", b"", b"ond"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_put_in_place_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("child")).unwrap();
        assert!(write_whole(&path, b"text").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_private_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_whole(&path, b"public").unwrap();
        write_private(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_takes_the_place_of_another_with_all_that_was_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (beside, place) = (folder.path().join("beside"), folder.path().join("place"));
        for name in ["first", "second"] {
            write_whole(&beside.join(name), b"text").unwrap();
            publish_folder(&beside, &place).unwrap();
            assert!(place.join(name).is_file() && !beside.exists());
        }
        assert!(!place.join("first").exists());
    }
}
