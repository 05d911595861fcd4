//! Whom a certificate names: the server of a run, or one of its groups.
//! Must not trust the certificate: whether the right CA signed it is the handshake's question.

use std::{fmt, str::FromStr};

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// What every name begins with.
const PREFIX: &str = "spiffe://fedtune.io/run/";

/// What a certificate's one URI says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// `spiffe://fedtune.io/run/RUN/server`.
    Server {
        /// The run: its uid where it has one, else its name.
        run: String,
    },
    /// `spiffe://fedtune.io/run/RUN/group/GROUP`.
    Group {
        /// The run: its uid where it has one, else its name.
        run: String,
        /// A group of the run's clients.
        group: String,
    },
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum NameError {
    #[error("it is no X.509 certificate: {reason}")]
    Unreadable { reason: String },
    #[error("it has {count} URIs among its names, and must have exactly one")]
    Count { count: usize },
    #[error("it names {uri:?}; a name is {PREFIX}RUN/server or {PREFIX}RUN/group/GROUP")]
    Foreign { uri: String },
}

impl Name {
    /// The name in a certificate, as it was sent.
    pub fn in_certificate(certificate: &CertificateDer<'_>) -> Result<Self, NameError> {
        let certificate = EndEntityCert::try_from(certificate)
            .map_err(|error| NameError::Unreadable { reason: error.to_string() })?;
        let uris: Vec<&str> = certificate.valid_uri_names().collect();
        match uris[..] {
            [uri] => uri.parse(),
            _ => Err(NameError::Count { count: uris.len() }),
        }
    }

    /// The run that it belongs to.
    pub fn run(&self) -> &str {
        match self {
            Self::Server { run } | Self::Group { run, .. } => run,
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(uri: &str) -> Result<Self, NameError> {
        let path = uri.strip_prefix(PREFIX).unwrap_or_default();
        match path.split('/').collect::<Vec<_>>()[..] {
            [run, "server"] if is_segment(run) => Ok(Self::Server { run: run.to_owned() }),
            [run, "group", group] if is_segment(run) && is_segment(group) => {
                Ok(Self::Group { run: run.to_owned(), group: group.to_owned() })
            }
            _ => Err(NameError::Foreign { uri: uri.to_owned() }),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { run } => write!(f, "{PREFIX}{run}/server"),
            Self::Group { run, group } => write!(f, "{PREFIX}{run}/group/{group}"),
        }
    }
}

/// Whether SPIFFE allows `text` between two slashes.
fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !["", ".", ".."].contains(&text) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let server = Name::Server { run: "mail-split".to_owned() };
        let group = Name::Group { run: "5f0c1d1e-0000".to_owned(), group: "silo-a".to_owned() };
        assert_eq!(server.to_string(), "spiffe://fedtune.io/run/mail-split/server");
        assert_eq!(group.to_string(), "spiffe://fedtune.io/run/5f0c1d1e-0000/group/silo-a");
        for name in [server, group] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn what_is_nearly_a_name_is_none() {
        for uri in [
            "",
            "spiffe://fedtune.io/run/a",
            "spiffe://fedtune.io/run/a/server/",
            "spiffe://fedtune.io/run//server",
            "spiffe://fedtune.io/run/../server",
            "spiffe://fedtune.io/run/a/group/",
            "spiffe://fedtune.io/run/a/group/b/c",
            "spiffe://fedtune.io/run/a/group/b c",
            "spiffe://fedtune.io/run/a/Server",
            "spiffe://elsewhere.io/run/a/server",
            "https://fedtune.io/run/a/server",
        ] {
            assert_eq!(uri.parse::<Name>(), Err(NameError::Foreign { uri: uri.to_owned() }));
        }
    }
}
