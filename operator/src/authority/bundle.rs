//! A join bundle: all that a client of an external group needs, in the one file that `fedtune client --join` reads.
//! Must not be changed here alone: the trainer refuses an unknown field and another version.

use serde::{Deserialize, Serialize};

use super::{Authority, Leaf};

/// Version of the file's form.
const VERSION: u32 = 1;

/// What `fedtune client --join` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    version: u32,
    /// The run's uid.
    pub run: String,
    /// The group whose clients it lets join.
    pub group: String,
    /// The server's address, as in `https://fedtune.example.com:7443`.
    pub server: String,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// The group's certificate, PEM.
    pub cert: String,
    /// Its key, PEM.
    pub key: String,
}

impl Bundle {
    /// A bundle for the clients of `group`, which find the server of the run with `uid` at `host` and `port`.
    pub fn new(uid: &str, group: &str, (host, port): (&str, u16), authority: &Authority, leaf: &Leaf) -> Self {
        let server =
            if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") };
        Self {
            version: VERSION,
            run: uid.to_owned(),
            group: group.to_owned(),
            server,
            ca: authority.cert().to_owned(),
            cert: leaf.cert.clone(),
            key: leaf.key.clone(),
        }
    }

    /// The bundle in a file's text; none where it is no bundle of this version.
    pub fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(|bundle: &Self| bundle.version == VERSION)
    }

    /// The file's content.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a bundle is text, which JSON holds") + "\n"
    }
}
