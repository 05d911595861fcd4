//! Makes a CA and the certificates it signs: the server's of a run, and one for each of its groups.
//! Must not touch files, and asks no clock: when a certificate begins and ends is an argument.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fedtune_crds::hex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use sha2::{Digest, Sha256};

use super::Name;

mod folder;

pub use folder::{Issued, Order, issue};

/// A day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a CA lasts.
const CA_LASTS: Duration = DAY.saturating_mul(3653);

/// Certificates begin this much before they are made, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum IssueError {
    #[error("{host:?} is neither a host's name nor an IP address")]
    Host { host: String },
    #[error("a group named {group} would share the folder of the CA or the server; give it another name")]
    Group { group: String },
    #[error("the certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot read or write {}: {reason}", path.display())]
    File { path: std::path::PathBuf, reason: std::io::Error },
    #[error("{} holds no key that can be used ({reason}); remove it to have another made", path.display())]
    Key { path: std::path::PathBuf, reason: rcgen::Error },
    #[error("{} is no CA that `fedtune certs` made, or its key is not in {} ({reason})", cert.display(), key.display())]
    Authority { cert: std::path::PathBuf, key: std::path::PathBuf, reason: String },
    #[error("the CA in {} expired on {date}; remove its folder to have another made, and give out all certificates anew", path.display())]
    Expired { path: std::path::PathBuf, date: String },
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub from: SystemTime,
    /// Its last.
    pub until: SystemTime,
}

impl Validity {
    /// `days` from `now` on, backdated by an hour.
    pub fn days(days: u32, now: SystemTime) -> Self {
        Self { from: now - BACKDATED, until: now + DAY * days }
    }
}

/// A CA that can sign.
#[derive(Debug)]
pub struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA with `key`, from `now` on for ten years.
    pub fn new(key: KeyPair, now: SystemTime) -> Result<Self, IssueError> {
        let mut params = authority(&key);
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + CA_LASTS).into();
        let cert = params.self_signed(&key)?.pem();
        Ok(Self { cert, issuer: Issuer::new(params, key) })
    }

    /// The CA that [`Authority::new`] made with `key`; whether `cert` is that one's, whoever is certified will notice.
    pub fn from_pem(cert: String, key: KeyPair) -> Self {
        Self { cert, issuer: Issuer::new(authority(&key), key) }
    }

    /// Its certificate, PEM.
    pub fn cert(&self) -> &str {
        &self.cert
    }

    /// A certificate for whoever has `key` and goes by `name`; a server's also names its `hosts`. PEM.
    pub fn certify(
        &self,
        name: &Name,
        hosts: &[String],
        key: &KeyPair,
        validity: Validity,
    ) -> Result<String, IssueError> {
        let mut params = CertificateParams::default();
        let (role, usage) = match name {
            Name::Server { .. } => ("server".to_owned(), ExtendedKeyUsagePurpose::ServerAuth),
            Name::Group { group, .. } => (format!("group {group}"), ExtendedKeyUsagePurpose::ClientAuth),
        };
        params.distinguished_name = named(&format!("{role} of {}", name.run()));
        params.subject_alt_names = hosts.iter().map(|host| host_name(host)).collect::<Result<_, _>>()?;
        params.subject_alt_names.push(SanType::URI(name.to_string().try_into()?));
        params.not_before = validity.from.into();
        params.not_after = validity.until.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(key, validity));
        Ok(params.signed_by(key, &self.issuer)?.pem())
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

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut names = rcgen::DistinguishedName::new();
    names.push(DnType::OrganizationName, "fedtune");
    names.push(DnType::CommonName, name);
    names
}

fn host_name(host: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || IssueError::Host { host: host.to_owned() };
    rustls::pki_types::DnsName::try_from(host).map_err(|_| wrong())?;
    Ok(SanType::DnsName(host.to_owned().try_into().map_err(|_| wrong())?))
}

/// A number that no other certificate of the CA has: a key is certified anew at another time.
fn serial(key: &KeyPair, validity: Validity) -> SerialNumber {
    let from = validity.from.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let until = validity.until.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let digest = Sha256::new()
        .chain_update(key.public_key_raw())
        .chain_update(from.to_be_bytes())
        .chain_update(until.to_be_bytes())
        .finalize();
    let mut number = digest[..16].to_vec();
    // A serial number is positive, and of one length here.
    number[0] = number[0] & 0x7f | 0x40;
    SerialNumber::from(number)
}
