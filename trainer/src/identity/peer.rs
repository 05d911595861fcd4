//! Who an accepted connection is, and for whom it may speak.
//! Must not be made of anything that the peer only claims: a name here was in a certificate that the handshake accepted.

use super::Name;

/// The peer of an accepted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// Its certificate was signed by the CA of the run's operator, and names this.
    Certified(Name),
    /// It speaks plain text, which somebody has asked for: it is whoever it says.
    Plain,
}

/// Why a connection may not speak for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum Foreign {
    #[error("the certificate is for run {certified}, and this is run {run}")]
    Run { certified: String, run: String },
    #[error("the certificate is for group {certified}, and may not speak for a client of group {group}")]
    Group { certified: String, group: String },
    #[error("the certificate is a server's, and a server may not speak for a client")]
    Server,
}

impl PeerIdentity {
    /// Whether the peer may speak for the clients of `group` in `run`.
    pub fn may_speak_for(&self, run: &str, group: &str) -> Result<(), Foreign> {
        let Self::Certified(name) = self else { return Ok(()) };
        if name.run() != run {
            return Err(Foreign::Run { certified: name.run().to_owned(), run: run.to_owned() });
        }
        match name {
            Name::Server { .. } => Err(Foreign::Server),
            Name::Group { group: certified, .. } if certified == group => Ok(()),
            Name::Group { group: certified, .. } => {
                Err(Foreign::Group { certified: certified.clone(), group: group.to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silo(run: &str, group: &str) -> PeerIdentity {
        PeerIdentity::Certified(Name::Group { run: run.to_owned(), group: group.to_owned() })
    }

    #[test]
    fn a_certificate_speaks_for_its_group_in_its_run_and_for_nobody_else() {
        assert_eq!(silo("mail", "silo-a").may_speak_for("mail", "silo-a"), Ok(()));
        let sentence = |peer: PeerIdentity| peer.may_speak_for("mail", "silo-a").unwrap_err().to_string();
        assert_eq!(sentence(silo("post", "silo-a")), "the certificate is for run post, and this is run mail");
        assert_eq!(
            sentence(silo("mail", "silo-b")),
            "the certificate is for group silo-b, and may not speak for a client of group silo-a"
        );
        let server = PeerIdentity::Certified(Name::Server { run: "mail".to_owned() });
        assert_eq!(sentence(server), "the certificate is a server's, and a server may not speak for a client");
    }
}
