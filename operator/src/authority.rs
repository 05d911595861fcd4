//! Makes a run's own CA and the certificates it signs: the server's, and one for each group.
//! Must not touch a cluster, and asks no clock and draws no key by itself: both are arguments.
//!
//! | file | one thing |
//! |---|---|
//! | `name.rs` | whom a certificate names, in the trainer's words |
//! | `standing.rs` | reads a certificate back: is it still ours, still right, still young? |
//! | `bundle.rs` | the file that an external group's clients join with |

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fedtune_crds::hex;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::DnsName;
use sha2::{Digest, Sha256};

mod bundle;
mod name;
mod standing;
#[cfg(test)]
mod tests;

pub use bundle::Bundle;
pub use name::Name;
pub use standing::{Standing, StandingError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a CA lasts: longer than any run.
const CA_LASTS: Duration = DAY.saturating_mul(3653);

/// How long a certificate lasts.
const LEAF_LASTS: Duration = DAY.saturating_mul(90);

/// Certificates begin this much before they are made, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum AuthorityError {
    #[error("{host:?} is neither a host's name nor an IP address")]
    Host { host: String },
    #[error("a key cannot be made: {0}")]
    NewKey(rcgen::Error),
    #[error("the key cannot be read: {0}")]
    OldKey(rcgen::Error),
    #[error("the CA's key is not the one of its certificate; delete the Secret to have another made")]
    OtherKey,
    #[error("the CA's certificate cannot be read: {0}")]
    Certificate(#[from] StandingError),
    #[error("the certificate of {name} cannot be made: {reason}")]
    Sign { name: String, reason: rcgen::Error },
}

/// A CA that can sign.
#[derive(Debug)]
pub struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// A new key, of the kind that every certificate here has: ECDSA on P-256. The one place where chance comes in.
///
/// # Errors
/// Where the machine has no randomness.
pub fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate().map_err(AuthorityError::NewKey)
}

/// The key in `pem`, to renew its certificate: who read the old certificate and then the new key has a pair that fits.
///
/// # Errors
/// Where it is no key.
pub fn read_key(pem: &str) -> Result<KeyPair, AuthorityError> {
    KeyPair::from_pem(pem).map_err(AuthorityError::OldKey)
}

impl Authority {
    /// A new CA with `key`, valid from `now` on for ten years.
    ///
    /// # Errors
    /// Where the key cannot sign.
    pub fn new(key: KeyPair, now: SystemTime) -> Result<Self, AuthorityError> {
        let mut params = authority(&key);
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + CA_LASTS).into();
        let cert = params.self_signed(&key).map_err(|reason| sign("the CA", reason))?.pem();
        Ok(Self { cert, issuer: Issuer::new(params, key) })
    }

    /// The CA that [`Authority::new`] made, from the texts of its Secret.
    ///
    /// # Errors
    /// Where one of them cannot be read, or they do not belong together.
    pub fn from_pem(cert: String, key: &str) -> Result<Self, AuthorityError> {
        let key = read_key(key)?;
        if Standing::read(&cert)?.public_key != key.public_key_raw() {
            return Err(AuthorityError::OtherKey);
        }
        Ok(Self { cert, issuer: Issuer::new(authority(&key), key) })
    }

    /// Its certificate, PEM.
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// Its key, PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for whoever has `key` and goes by `name`, from `now` on for 90 days; a server's also names its
    /// `hosts`.
    ///
    /// # Errors
    /// Where a host is none.
    pub fn certify(
        &self,
        name: &Name,
        hosts: &[String],
        key: &KeyPair,
        now: SystemTime,
    ) -> Result<Leaf, AuthorityError> {
        let failed = |reason| sign(&name.to_string(), reason);
        let mut params = leaf(name, key, now);
        params.subject_alt_names = hosts.iter().map(|host| host_name(host)).collect::<Result<_, _>>()?;
        params.subject_alt_names.push(SanType::URI(name.to_string().try_into().map_err(failed)?));
        let cert = params.signed_by(key, &self.issuer).map_err(failed)?.pem();
        Ok(Leaf { cert, key: key.serialize_pem() })
    }
}

/// What a CA's certificate says, but for its dates.
fn authority(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two CAs differ in name, so that a certificate of another is told from a forged one; one CA never does.
    params.distinguished_name = named(&format!("fedtune CA {}", &hex(&Sha256::digest(key.public_key_raw()))[..8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What a certificate says, but for its names.
fn leaf(name: &Name, key: &KeyPair, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let (role, usage) = match name {
        Name::Server { run } => (format!("server of {run}"), ExtendedKeyUsagePurpose::ServerAuth),
        Name::Group { run, group } => (format!("group {group} of {run}"), ExtendedKeyUsagePurpose::ClientAuth),
    };
    params.distinguished_name = named(&role);
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + LEAF_LASTS).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial(key, now));
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::OrganizationName, "fedtune");
    names.push(DnType::CommonName, name);
    names
}

fn host_name(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || AuthorityError::Host { host: host.to_owned() };
    DnsName::try_from(host).map_err(|_| wrong())?;
    Ok(SanType::DnsName(host.to_owned().try_into().map_err(|_| wrong())?))
}

/// A number that no other certificate of the CA has: a key is certified anew at another time.
fn serial(key: &KeyPair, now: SystemTime) -> SerialNumber {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let digest = Sha256::new().chain_update(key.public_key_raw()).chain_update(now.to_be_bytes()).finalize();
    let mut number = digest[..16].to_vec();
    // A serial number is positive, and of one length here.
    number[0] = number[0] & 0x7f | 0x40;
    SerialNumber::from(number)
}

fn sign(name: &str, reason: rcgen::Error) -> AuthorityError {
    AuthorityError::Sign { name: name.to_owned(), reason }
}
