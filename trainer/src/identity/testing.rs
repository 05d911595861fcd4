//! Certificates for tests: a CA with a folder, in which it certifies whomever a test asks for.
//! Must not be used outside of tests.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::KeyPair;
use tempfile::TempDir;

use super::{
    Identity, Name, Source,
    issue::{Authority, Validity},
};

/// The run of tests that need only one.
pub(crate) const RUN: &str = "mail";

/// A CA, and the folder it writes to.
pub(crate) struct Office {
    folder: TempDir,
    pub(crate) authority: Authority,
}

impl Office {
    pub(crate) fn new() -> Self {
        let authority = Authority::new(KeyPair::generate().unwrap(), SystemTime::now()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), authority }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The identity of the run's server on this machine.
    pub(crate) fn server(&self) -> Identity {
        self.identity("server", &server(RUN))
    }

    /// The identity of a client of `group`.
    pub(crate) fn client(&self, group: &str) -> Identity {
        self.identity(group, &client(RUN, group))
    }

    /// An identity in the run that goes by `name`, whatever that is.
    pub(crate) fn identity(&self, folder: &str, name: &Name) -> Identity {
        let source = self.certify(folder, name, Validity::days(90, SystemTime::now()));
        Identity { source, run: RUN.to_owned() }
    }

    /// Writes certificate, key and CA of `name` into `folder`, in place of what is there.
    pub(crate) fn certify(&self, folder: &str, name: &Name, validity: Validity) -> Source {
        let folder = self.folder.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let hosts = match name {
            Name::Server { .. } => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            Name::Group { .. } => Vec::new(),
        };
        let cert = self.authority.certify(name, &hosts, &key, validity).unwrap();
        let write = |file: &str, text: &str| -> PathBuf {
            fs::write(folder.join(file), text).unwrap();
            folder.join(file)
        };
        Source::Files {
            cert: write("cert.pem", &cert),
            key: write("key.pem", &key.serialize_pem()),
            ca: write("ca.pem", self.authority.cert()),
        }
    }
}

pub(crate) fn server(run: &str) -> Name {
    Name::Server { run: run.to_owned() }
}

pub(crate) fn client(run: &str, group: &str) -> Name {
    Name::Group { run: run.to_owned(), group: group.to_owned() }
}
