//! What both ends of a handshake demand of each other: TLS 1.3, HTTP/2, and a certificate with the right name.
//! Must not use the process's default provider, older versions, or a session from before the certificates were read.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
    version::TLS13,
};

use super::{Name, Papers, PapersError, Source, papers::provider};

/// The one protocol spoken inside of TLS.
const HTTP_2: &[u8] = b"h2";

/// One end's identity: where its papers are, and the run in which they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where the papers are; read again at each handshake.
    pub source: Source,
    /// The run: its uid where it has one, else its name.
    pub run: String,
}

/// Why a server is not the one that a client looks for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Impostor {
    #[error("its certificate is for {name}, expected {expected}")]
    OtherName { name: Name, expected: Name },
    #[error("its certificate names nobody: {0}")]
    Nameless(super::NameError),
}

impl Identity {
    /// The server's end of a handshake at `now`: it takes clients of the CA that name a group, and nobody else.
    pub fn server_config(&self, now: SystemTime) -> Result<ServerConfig, PapersError> {
        let papers = self.source.read(now)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&papers.roots), provider()).build();
        let verifier = GroupVerifier(verifier.expect("papers have a CA, and no revocation list that could be wrong"));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(sole(&papers)));
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        // A resumed session would skip the certificates.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// The client's end of a handshake at `now`: it takes the server of its own run under the host it asked for.
    pub fn client_config(&self, now: SystemTime) -> Result<ClientConfig, PapersError> {
        let papers = self.source.read(now)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&papers.roots), provider()).build();
        let verifier = verifier.expect("papers have a CA, and no revocation list that could be wrong");
        let verifier = RunVerifier { inner: verifier, expected: Name::Server { run: self.run.clone() } };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3")
            // "Dangerous" is to verify less; this verifies the run as well.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(sole(&papers)));
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn sole(papers: &Papers) -> SingleCertAndKey {
    SingleCertAndKey::from(Arc::clone(&papers.certified))
}

/// Takes whom webpki takes, if the certificate also names a group.
#[derive(Debug)]
struct GroupVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for GroupVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, between, now)?;
        match Name::in_certificate(leaf) {
            Ok(Name::Group { .. }) => Ok(verified),
            // The client is told by an alert of its own, see `trouble.rs`.
            Ok(Name::Server { .. }) | Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Takes whom webpki takes, if the certificate also names the server of the expected run.
#[derive(Debug)]
struct RunVerifier {
    inner: Arc<WebPkiServerVerifier>,
    expected: Name,
}

impl ServerCertVerifier for RunVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(leaf, between, host, ocsp, now)?;
        let impostor = match Name::in_certificate(leaf) {
            Ok(name) if name == self.expected => return Ok(verified),
            Ok(name) => Impostor::OtherName { name, expected: self.expected.clone() },
            Err(error) => Impostor::Nameless(error),
        };
        Err(CertificateError::Other(OtherError(Arc::new(impostor))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
