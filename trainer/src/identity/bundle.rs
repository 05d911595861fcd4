//! A join bundle: all that a client of one group needs to join a run, in one file.
//! Must not be read half: one file is renewed by one rename, so certificate and key always belong together.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Version of the file's form that this program reads and writes.
const VERSION: u32 = 1;

/// What `fedtune client --join` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    version: u32,
    /// The run: its uid where it has one, else its name.
    pub run: String,
    /// The group whose clients it lets join.
    pub group: String,
    /// The server's address, as in `https://127.0.0.1:7443`.
    pub server: String,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// The group's certificate, PEM.
    pub cert: String,
    /// Its key, PEM.
    pub key: String,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum BundleError {
    #[error("cannot read the join bundle {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: io::Error },
    #[error("{} is no join bundle ({reason}); `fedtune certs` makes one a group", path.display())]
    Malformed { path: PathBuf, reason: serde_json::Error },
    #[error("the join bundle {} has version {version}, and this program reads version {VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
}

impl Bundle {
    /// A bundle for the clients of `group` in `run`, which find their server at `server`.
    pub fn new(run: &str, group: &str, server: &str, ca: String, cert: String, key: String) -> Self {
        let [run, group, server] = [run, group, server].map(str::to_owned);
        Self { version: VERSION, run, group, server, ca, cert, key }
    }

    /// Reads a bundle's file; the papers in it are [`super::Source`]'s to check.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let text = fs::read(path).map_err(|reason| BundleError::Unreadable { path: path.to_owned(), reason })?;
        let bundle: Self =
            serde_json::from_slice(&text).map_err(|reason| BundleError::Malformed { path: path.to_owned(), reason })?;
        if bundle.version != VERSION {
            return Err(BundleError::Version { path: path.to_owned(), version: bundle.version });
        }
        Ok(bundle)
    }

    /// The file's content.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a bundle is text, which JSON holds") + "\n"
    }
}
