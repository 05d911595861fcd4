//! Reads a certificate back: whose it is, for which hosts, from when to when, signed by which CA.
//! Must not trust it for a connection: whoever shakes hands checks signatures.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    time::ASN1Time,
};

use super::Name;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last moment.
    pub not_after: SystemTime,
    /// The URIs among its names; ours have exactly one, a [`Name`].
    pub uris: Vec<String>,
    /// DNS names and addresses among its names.
    pub hosts: BTreeSet<String>,
    /// Its public key's bits.
    pub public_key: Vec<u8>,
    /// Identifier of its own key, which a CA's has.
    pub key_id: Option<Vec<u8>>,
    /// Identifier of the key that signed it.
    pub authority_key_id: Option<Vec<u8>>,
}

/// Why a text says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum StandingError {
    #[error("it is not in PEM form; expected -----BEGIN CERTIFICATE-----")]
    NotPem,
    #[error("it is no X.509 certificate: {reason}")]
    NotX509 { reason: String },
}

impl Standing {
    /// Reads the first certificate in `pem`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn read(pem: &str) -> Result<Self, StandingError> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| StandingError::NotPem)?;
        let refused = |reason: String| StandingError::NotX509 { reason };
        let certificate = pem.parse_x509().map_err(|error| refused(error.to_string()))?;
        let (uris, hosts) = names(&certificate);
        Ok(Self {
            not_before: moment(certificate.validity.not_before),
            not_after: moment(certificate.validity.not_after),
            uris,
            hosts,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            key_id: key_id(&certificate),
            authority_key_id: authority_key_id(&certificate),
        })
    }

    /// When it should be renewed: two thirds of its time, so that a month is left to notice a failure.
    pub fn renew_at(&self) -> SystemTime {
        let lasts = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + lasts * 2 / 3
    }

    /// Whether it must be made anew at `now`: it is old, another CA's, another's, or does not name all of `hosts`.
    pub fn must_be_renewed(&self, ca: &Self, name: &Name, hosts: &[String], now: SystemTime) -> bool {
        now >= self.renew_at()
            || self.authority_key_id.is_none()
            || self.authority_key_id != ca.key_id
            || self.uris != [name.to_string()]
            || !hosts.iter().all(|host| self.hosts.contains(&written_alike(host)))
    }
}

/// An address has several spellings; a name is the same in large letters.
fn written_alike(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |address| address.to_string())
}

fn moment(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or_default())
}

/// URIs, and hosts.
fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, BTreeSet<String>) {
    let (mut uris, mut hosts) = (Vec::new(), BTreeSet::new());
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return (uris, hosts) };
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(host) => drop(hosts.insert(written_alike(host))),
            GeneralName::IPAddress(bytes) => hosts.extend(address(bytes)),
            // Names of kinds that we never give.
            _ => {}
        }
    }
    (uris, hosts)
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.ok().map(|address| address.to_string())
}

fn key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        // One of many extensions is asked for.
        _ => None,
    })
}

fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        // One of many extensions is asked for.
        _ => None,
    })
}
