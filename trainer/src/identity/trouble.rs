//! What a handshake that failed means, for the person at the client's end.
//! Must not decide what to do about it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Why a client's handshake failed: what TLS says, or that the server hung up within it.
pub(crate) fn of_handshake(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Some("the server hung up within the TLS handshake".to_owned()),
        _ => of_tls(error),
    }
}

/// Why TLS gave up at a client's end, if it was TLS that did.
pub(crate) fn of_tls(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::InvalidMessage(_) => "the server does not speak TLS: it has no certificates, or this is another \
                                     program's port"
            .to_owned(),
        // rustls' errors grow with its versions, and say what they are.
        other => format!("TLS: {other}"),
    })
}

/// What the server's refusal says of this client.
fn of_alert(alert: AlertDescription) -> String {
    let sentence = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the server does not trust the CA that signed this client's certificate"
        }
        AlertDescription::CertificateExpired => {
            "to the server this client's certificate is expired or not valid yet: renew it, or set the clocks right"
        }
        AlertDescription::CertificateRequired => "the server asks for a certificate, and this client has none",
        AlertDescription::UnsupportedCertificate => {
            "the server does not take this certificate from a client: it is not one of a group"
        }
        AlertDescription::AccessDenied => {
            "the server does not take this client's certificate: it must name one group, as in \
             spiffe://fedtune.io/run/RUN/group/GROUP"
        }
        AlertDescription::ProtocolVersion => "the server speaks no TLS 1.3",
        // Alerts are an open list of numbers.
        other => return format!("the server ended the TLS handshake: {other:?}"),
    };
    sentence.to_owned()
}

/// What is wrong with the server's certificate.
fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate was not signed by this client's CA".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, or this machine's clock is wrong".to_owned()
        }
        CertificateError::Other(impostor) => format!("this is not the server of this run: {}", impostor.0),
        // rustls' errors grow with its versions, and say what they are.
        other => format!("the server's certificate cannot be trusted: {other}"),
    }
}
