//! One source's folder in the cache: whole files, what is known of each, and parts of files that are still to come.
//! Must not trust what lies there: a file counts only with the SHA-256 that it had when it was brought.
//!
//! ```text
//! <cache>/sources/<kind>/<name>-<key>/
//!   files/    what is handed out; one whose stamp is missing or does not fit is nobody's
//!   stamps/   of each file: length, SHA-256, and the version that its server called it
//!   parts/    of each file that is not whole yet: what came, and the version that it is of
//!   seal.json the files that belong together, written when all of them are there
//!   lock      held by the process that brings them
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use fedtune_crds::hex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::SourceError;
use crate::{
    durable,
    events::{Event, Events},
};

/// What a server says about which content a file has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) etag: Option<String>,
    /// As the server writes it: it is only compared and sent back.
    pub(super) modified: Option<String>,
    /// Of the whole file, in bytes.
    pub(super) length: Option<u64>,
}

impl Version {
    /// Whether the two cannot be of one content. What only one of them says, contradicts nothing.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(left: Option<&T>, right: Option<&T>) -> bool {
            matches!((left, right), (Some(left), Some(right)) if left != right)
        }
        differ(self.etag.as_ref(), other.etag.as_ref())
            || differ(self.length.as_ref(), other.length.as_ref())
            // Copies of one content may differ in age; the tag knows better.
            || (self.etag.is_none() || other.etag.is_none())
                && differ(self.modified.as_ref(), other.modified.as_ref())
    }

    /// Whether it tells this content from others.
    pub(super) fn tells(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    /// What a range may be asked for by: a weak tag stands for like contents, not for equal bytes (RFC 9110, 13.1.5).
    pub(super) fn guard(&self) -> Option<&str> {
        match &self.etag {
            Some(etag) if !etag.starts_with("W/") => Some(etag),
            Some(_) => None,
            None => self.modified.as_deref(),
        }
    }
}

/// What is known of a whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) version: Version,
    /// In hexadecimal.
    pub(super) sha256: String,
    /// What its listing called this content, and no other.
    pub(super) id: Option<String>,
}

/// Files that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// Name below `files/` and SHA-256 of each.
    files: Vec<(String, String)>,
    /// Whether the one file is meant, rather than the folder.
    alone: bool,
}

/// One source's folder, which no other process brings files to meanwhile.
#[derive(Debug)]
pub(super) struct Hold {
    folder: PathBuf,
    _lock: Option<File>,
}

impl Hold {
    /// The folder of what `key` tells from all other sources of its kind; `name` is for a person who looks into the
    /// cache. Waits for another process that has it.
    pub(super) fn open(
        cache: &Path,
        kind: &str,
        name: &str,
        key: &[&str],
        events: &Events,
    ) -> Result<Self, SourceError> {
        let mut hash = Sha256::new();
        for part in key {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let key = hex(&hash.finalize());
        let folder = cache.join("sources").join(kind).join(format!("{}-{}", plain(name), &key[..16]));
        durable::create_folder(&folder).map_err(|error| disk(&folder, error))?;
        let lock = lock(&folder.join("lock"), name, events)?;
        Ok(Self { folder, _lock: lock })
    }

    fn file(&self, local: &str) -> PathBuf {
        self.folder.join("files").join(local)
    }

    fn stamp_file(&self, local: &str) -> PathBuf {
        self.folder.join("stamps").join(format!("{local}.json"))
    }

    /// What is known of a file that is there as it was brought.
    pub(super) fn stamp(&self, local: &str) -> Option<Stamp> {
        let stamp: Stamp = read_json(&self.stamp_file(local))?;
        (sha256_of(&self.file(local)).ok()? == stamp.sha256).then_some(stamp)
    }

    /// Reads a file that is there.
    pub(super) fn read(&self, local: &str) -> Result<Vec<u8>, SourceError> {
        let path = self.file(local);
        fs::read(&path).map_err(|error| disk(&path, error))
    }

    /// The part of a file that is still to come.
    pub(super) fn part(&self, local: &str) -> Part {
        let name = &hex(&Sha256::digest(local))[..32];
        let folder = self.folder.join("parts");
        Part { content: folder.join(format!("{name}.part")), about: folder.join(format!("{name}.json")) }
    }

    /// Makes a part that is complete the file, with this SHA-256.
    pub(super) fn publish(&self, part: &Part, local: &str, stamp: &Stamp) -> Result<(), SourceError> {
        let path = self.file(local);
        durable::publish_file(&part.content, &path).map_err(|error| disk(&path, error))?;
        let stamp_file = self.stamp_file(local);
        let json = serde_json::to_vec(stamp).expect("a stamp is made of texts and a number");
        durable::write_whole(&stamp_file, &json).map_err(|error| disk(&stamp_file, error))?;
        part.remove();
        Ok(())
    }

    /// Says that these files, which are all there, belong together, and removes others. Gives their path.
    pub(super) fn seal(&self, locals: &[&str], alone: bool) -> Result<PathBuf, SourceError> {
        let stamped = |local: &&str| {
            let stamp: Option<Stamp> = read_json(&self.stamp_file(local));
            ((*local).to_owned(), stamp.map(|stamp| stamp.sha256).unwrap_or_default())
        };
        let seal = Seal { files: locals.iter().map(stamped).collect(), alone };
        let keep: BTreeSet<PathBuf> = locals.iter().map(|local| self.file(local)).collect();
        let files = self.folder.join("files");
        remove_others(&files, &keep).map_err(|error| disk(&files, error))?;
        let json = serde_json::to_vec(&seal).expect("a seal is made of texts");
        let path = self.folder.join("seal.json");
        durable::write_whole(&path, &json).map_err(|error| disk(&path, error))?;
        Ok(self.path_of(&seal))
    }

    /// Whether something was sealed; what of it is still there, [`Hold::sealed`] finds out.
    pub(super) fn is_sealed(&self) -> bool {
        self.folder.join("seal.json").is_file()
    }

    /// The path of what was sealed, if all of it is there as it was brought.
    pub(super) fn sealed(&self) -> Option<PathBuf> {
        let seal: Seal = read_json(&self.folder.join("seal.json"))?;
        let whole = |(local, sha256): &(String, String)| {
            is_below(local) && sha256_of(&self.file(local)).is_ok_and(|found| found == *sha256)
        };
        (!seal.files.is_empty() && seal.files.iter().all(whole)).then(|| self.path_of(&seal))
    }

    fn path_of(&self, seal: &Seal) -> PathBuf {
        match seal.files.as_slice() {
            [(local, _)] if seal.alone => self.file(local),
            _ => self.folder.join("files"),
        }
    }
}

/// A file that is still to come.
#[derive(Debug)]
pub(super) struct Part {
    content: PathBuf,
    about: PathBuf,
}

impl Part {
    /// What came so far, and of which version; none where nothing did.
    pub(super) fn held(&self) -> Option<(u64, Version)> {
        let length = fs::metadata(&self.content).ok()?.len();
        let version = read_json(&self.about)?;
        (length > 0).then_some((length, version))
    }

    /// Begins anew with this version.
    pub(super) fn begin(&self, version: &Version) -> Result<File, SourceError> {
        let made = || {
            durable::create_folder(self.content.parent().expect("a part lies in its folder"))?;
            // Emptied before it is described anew: what came of another version never stands under this one's name.
            let file = File::create(&self.content)?;
            let json = serde_json::to_vec(version).expect("a version is made of texts and a number");
            durable::write_whole(&self.about, &json)?;
            Ok(file)
        };
        made().map_err(|error| disk(&self.content, error))
    }

    /// Goes on where it was.
    pub(super) fn resume(&self) -> Result<File, SourceError> {
        File::options().append(true).open(&self.content).map_err(|error| disk(&self.content, error))
    }

    /// SHA-256 of what came, in hexadecimal.
    pub(super) fn sha256(&self) -> Result<String, SourceError> {
        sha256_of(&self.content).map_err(|error| disk(&self.content, error))
    }

    /// What a write to it met.
    pub(super) fn failed(&self, error: io::Error) -> SourceError {
        disk(&self.content, error)
    }

    /// Forgets it; one that cannot be removed is begun anew the next time.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.content);
        let _ = fs::remove_file(&self.about);
    }
}

fn disk(path: &Path, error: io::Error) -> SourceError {
    SourceError::Disk { path: path.to_owned(), error }
}

/// Waits for whoever holds the lock. A file system without locks has none; there two processes bring the same twice.
fn lock(path: &Path, name: &str, events: &Events) -> Result<Option<File>, SourceError> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(|error| disk(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            events.tell(Event::Note { text: format!("waits for another process that brings {name}") });
            file.lock().map_err(|error| disk(path, error))?;
            Ok(Some(file))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// What cannot be read counts as absent.
fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Letters, digits, `-`, `_` and `.`, at most 60 of them.
fn plain(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    name.chars().take(60).map(plain).collect()
}

/// Whether a name stays below the folder that it is joined to.
fn is_below(local: &str) -> bool {
    !local.is_empty() && local.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn remove_others(folder: &Path, keep: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, keep)?;
        } else if !keep.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn hold(cache: &Path) -> Hold {
        Hold::open(cache, "http", "https://example.com/a b", &["key"], &Events::silent()).unwrap()
    }

    fn bring(hold: &Hold, local: &str, content: &str) {
        let part = hold.part(local);
        part.begin(&Version::default()).unwrap().write_all(content.as_bytes()).unwrap();
        let stamp = Stamp { version: Version::default(), sha256: part.sha256().unwrap(), id: None };
        hold.publish(&part, local, &stamp).unwrap();
    }

    fn version(etag: Option<&str>, modified: Option<&str>, length: Option<u64>) -> Version {
        Version { etag: etag.map(str::to_owned), modified: modified.map(str::to_owned), length }
    }

    #[test]
    fn a_file_that_was_changed_or_cut_counts_as_absent() {
        let cache = tempfile::tempdir().unwrap();
        let hold = hold(cache.path());
        bring(&hold, "a.csv", "text");
        let path = hold.seal(&["a.csv"], true).unwrap();
        assert_eq!(hold.sealed().as_ref(), Some(&path));
        for content in ["texd", "tex", ""] {
            fs::write(&path, content).unwrap();
            assert_eq!((hold.stamp("a.csv"), hold.sealed()), (None, None), "{content:?}");
        }
        fs::write(&path, "text").unwrap();
        assert!(hold.stamp("a.csv").is_some() && hold.sealed().is_some());
    }

    #[test]
    fn what_no_longer_belongs_to_a_source_is_removed_and_a_mixture_is_not_handed_out() {
        let cache = tempfile::tempdir().unwrap();
        let hold = hold(cache.path());
        for local in ["a/1.txt", "a/2.txt", "b/1.txt"] {
            bring(&hold, local, local);
        }
        let path = hold.seal(&["a/1.txt", "b/1.txt"], false).unwrap();
        assert!(!path.join("a/2.txt").exists() && path.join("b/1.txt").exists());
        // A newer version of one file, brought by a process that ended before it had the others.
        bring(&hold, "a/1.txt", "newer");
        assert_eq!(hold.sealed(), None);
    }

    #[test]
    fn a_seal_that_points_elsewhere_is_none() {
        let cache = tempfile::tempdir().unwrap();
        let hold = hold(cache.path());
        bring(&hold, "a.csv", "text");
        let sha256 = hold.stamp("a.csv").unwrap().sha256;
        for local in ["../files/a.csv", "/etc/passwd", "", "a.csv/"] {
            let seal = Seal { files: vec![(local.to_owned(), sha256.clone())], alone: true };
            fs::write(hold.folder.join("seal.json"), serde_json::to_vec(&seal).unwrap()).unwrap();
            assert_eq!(hold.sealed(), None, "{local:?}");
        }
    }

    #[test]
    fn versions_contradict_each_other_only_in_what_both_say() {
        let tagged = version(Some("\"a\""), Some("monday"), Some(4));
        assert!(!tagged.contradicts(&version(None, None, None)));
        assert!(!tagged.contradicts(&version(Some("\"a\""), Some("tuesday"), None)));
        assert!(tagged.contradicts(&version(Some("\"b\""), None, None)));
        assert!(tagged.contradicts(&version(None, Some("tuesday"), None)));
        assert!(tagged.contradicts(&version(Some("\"a\""), None, Some(5))));
    }

    #[test]
    fn a_weak_tag_guards_no_range() {
        assert_eq!(version(Some("\"a\""), None, None).guard(), Some("\"a\""));
        assert_eq!(version(Some("W/\"a\""), Some("monday"), None).guard(), None);
        assert_eq!(version(None, Some("monday"), None).guard(), Some("monday"));
    }

    #[test]
    fn another_process_waits_until_the_first_has_brought_it() {
        let cache = tempfile::tempdir().unwrap();
        let (events, notes) = crate::sources::testing::noted();
        let first = hold(cache.path());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                Hold::open(cache.path(), "http", "https://example.com/a b", &["key"], &events).unwrap().stamp("a.csv")
            });
            while notes.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            bring(&first, "a.csv", "text");
            drop(first);
            assert!(second.join().unwrap().is_some());
        });
    }
}
