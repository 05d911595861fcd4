//! Certificate, key and CA of one end, read from files or a join bundle, and checked against each other and the clock.
//! Must not keep them: whoever shakes hands reads them again, so that a renewed certificate needs no restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};
use webpki::{EndEntityCert, KeyUsage};

use super::{Bundle, BundleError, Name, NameError};

/// The last second of the year 9999, which stands for ever in certificates.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// Where an end's papers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Three PEM files.
    Files {
        /// The certificate, with those between it and the CA, if any, after it.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
        /// The CA's certificate; several where one takes over from another.
        ca: PathBuf,
    },
    /// A join bundle.
    Bundle(PathBuf),
}

/// An end's papers as they were at one moment: they fit each other, and were valid.
#[derive(Debug, Clone)]
pub struct Papers {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    name: Name,
    not_after: SystemTime,
}

/// Why papers cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum PapersError {
    #[error("cannot read {place}: {reason}")]
    Unreadable { place: String, reason: io::Error },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("{place} holds no {what} in PEM form; expected -----BEGIN {what}-----")]
    NotPem { place: String, what: &'static str },
    #[error("the key in {place} is of a kind that cannot be used; expected ECDSA P-256, P-384, Ed25519 or RSA")]
    Key { place: String },
    #[error("the key in {key} does not belong to the certificate in {cert}")]
    Mismatch { key: String, cert: String },
    #[error("the certificate in {place} cannot be used: {error}")]
    Name { place: String, error: NameError },
    #[error("the certificate in {place} expired on {date}; renew it")]
    Expired { place: String, date: String },
    #[error("the certificate in {place} is not valid before {date}; is the clock right?")]
    NotYet { place: String, date: String },
    #[error("the certificate in {cert} was not signed by the CA in {ca}")]
    WrongCa { cert: String, ca: String },
    #[error("the certificate in {place} may not be used as a {use_as}'s: {reason}")]
    Unfit { place: String, use_as: &'static str, reason: String },
}

/// A document and where it was found.
struct Document {
    place: String,
    pem: Vec<u8>,
}

impl Source {
    /// Reads the papers and checks them as of `now`.
    pub fn read(&self, now: SystemTime) -> Result<Papers, PapersError> {
        let [cert, key, ca] = self.documents()?;
        let chain = certificates(&cert)?;
        let roots = roots(&ca)?;
        let name = Name::in_certificate(&chain[0]);
        let name = name.map_err(|error| PapersError::Name { place: cert.place.clone(), error })?;
        verify(&name, &chain, &roots, now).map_err(|error| unfit(&error, &name, &cert.place, &ca.place))?;
        let not_after = end(&name, &chain, &roots);
        let certified = certify(chain, &key, &cert.place)?;
        Ok(Papers { certified: Arc::new(certified), roots, name, not_after })
    }

    fn documents(&self) -> Result<[Document; 3], PapersError> {
        match self {
            Self::Files { cert, key, ca } => Ok([document(cert)?, document(key)?, document(ca)?]),
            Self::Bundle(path) => {
                let Bundle { cert, key, ca, .. } = Bundle::read(path)?;
                let part = |name, pem: String| Document {
                    place: format!("`{name}` of {}", path.display()),
                    pem: pem.into_bytes(),
                };
                Ok([part("cert", cert), part("key", key), part("ca", ca)])
            }
        }
    }
}

impl Papers {
    /// Whom the certificate names.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// The one provider of cryptography here; never the process's default, which another library could set.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn document(path: &Path) -> Result<Document, PapersError> {
    let place = path.display().to_string();
    match fs::read(path) {
        Ok(pem) => Ok(Document { place, pem }),
        Err(reason) => Err(PapersError::Unreadable { place, reason }),
    }
}

/// The certificates in a document, at least one.
fn certificates(document: &Document) -> Result<Vec<CertificateDer<'static>>, PapersError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&document.pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| not_pem(document, "CERTIFICATE"))
}

fn not_pem(document: &Document, what: &'static str) -> PapersError {
    PapersError::NotPem { place: document.place.clone(), what }
}

fn roots(ca: &Document) -> Result<Arc<RootCertStore>, PapersError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|_| not_pem(ca, "CERTIFICATE"))?;
    }
    Ok(Arc::new(roots))
}

/// The certificate with its key, which must be its own.
fn certify(chain: Vec<CertificateDer<'static>>, key: &Document, cert: &str) -> Result<CertifiedKey, PapersError> {
    let der = PrivateKeyDer::from_pem_slice(&key.pem).map_err(|_| not_pem(key, "PRIVATE KEY"))?;
    CertifiedKey::from_der(chain, der, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => PapersError::Mismatch { key: key.place.clone(), cert: cert.to_owned() },
        // rustls' errors grow with its versions.
        _ => PapersError::Key { place: key.place.clone() },
    })
}

/// Asks what the other side will ask: valid at `now`, signed by the CA, for use as a server or as a client.
fn verify(
    name: &Name,
    chain: &[CertificateDer<'static>],
    roots: &RootCertStore,
    now: SystemTime,
) -> Result<(), webpki::Error> {
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let (leaf, between) = chain.split_first().expect("a chain has at least one certificate");
    let algorithms = provider().signature_verification_algorithms.all;
    let usage = match name {
        Name::Server { .. } => KeyUsage::server_auth(),
        Name::Group { .. } => KeyUsage::client_auth(),
    };
    let leaf = EndEntityCert::try_from(leaf)?;
    leaf.verify_for_usage(algorithms, &roots.roots, between, now, usage, None, None).map(drop)
}

/// When a chain that is valid now will not be any more: webpki says so to those who come too late.
fn end(name: &Name, chain: &[CertificateDer<'static>], roots: &RootCertStore) -> SystemTime {
    let last = UNIX_EPOCH + LAST_SECOND;
    match verify(name, chain, roots, last) {
        Err(webpki::Error::CertExpired { not_after, .. }) => UNIX_EPOCH + Duration::from_secs(not_after.as_secs()),
        // A certificate may be valid for ever.
        Ok(()) | Err(_) => last,
    }
}

/// What the other side would say, as a sentence about these files.
fn unfit(error: &webpki::Error, name: &Name, cert: &str, ca: &str) -> PapersError {
    let place = cert.to_owned();
    match error {
        webpki::Error::CertExpired { not_after, .. } => PapersError::Expired { place, date: date(*not_after) },
        webpki::Error::CertNotValidYet { not_before, .. } => PapersError::NotYet { place, date: date(*not_before) },
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            PapersError::WrongCa { cert: place, ca: ca.to_owned() }
        }
        // webpki's errors grow with its versions.
        other => {
            let use_as = match name {
                Name::Server { .. } => "server",
                Name::Group { .. } => "client",
            };
            PapersError::Unfit { place, use_as, reason: other.to_string() }
        }
    }
}

/// As in `2026-11-24 13:05 UTC`.
fn date(time: UnixTime) -> String {
    let time = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs());
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}

/// Refuses a CA that may not sign at `now`, or did not sign `leaf`, a client's certificate. Both PEM.
pub(super) fn check_authority(ca: &str, leaf: &str, now: SystemTime) -> Result<(), PapersError> {
    let document = |place: &str, pem: &str| Document { place: place.to_owned(), pem: pem.as_bytes().to_vec() };
    let (ca, leaf) = (document("its certificate", ca), document("a certificate of its key", leaf));
    let (itself, chain, roots) = (certificates(&ca)?, certificates(&leaf)?, roots(&ca)?);
    let name = Name::in_certificate(&chain[0]);
    let name = name.map_err(|error| PapersError::Name { place: leaf.place.clone(), error })?;
    match verify(&name, &itself, &roots, now) {
        // It is valid now, and not anybody's own.
        Err(webpki::Error::CaUsedAsEndEntity) => {}
        Err(error) => return Err(unfit(&error, &name, &ca.place, &ca.place)),
        Ok(()) => return Err(not_pem(&ca, "CERTIFICATE of a CA")),
    }
    verify(&name, &chain, &roots, now).map_err(|error| unfit(&error, &name, &leaf.place, &ca.place))
}
