//! Certificates as Secrets: the CA's, the server's, one a managed group, a join bundle an external one.
//! Must not make or check certificates: that is `authority`.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{
    Run,
    labels::{Part, owned},
    names,
};
use crate::authority::{Authority, Leaf};

/// Key of the certificate, in the Secrets of Kubernetes' own TLS type.
pub const CERT: &str = "tls.crt";
/// Key of the certificate's private key.
pub const KEY: &str = "tls.key";
/// Key of the CA's certificate.
pub const CA: &str = "ca.crt";
/// Key of a join bundle.
pub const JOIN: &str = "join";

/// The CA with its key. No pod mounts it.
pub fn ca(run: &Run, authority: &Authority) -> Secret {
    let (cert, key) = (authority.cert().to_owned(), authority.key());
    tls(run, names::ca(run), Part::Run, [(CERT, cert), (KEY, key)])
}

/// The server's papers.
pub fn server(run: &Run, authority: &Authority, leaf: &Leaf) -> Secret {
    papers(run, names::server_tls(run), Part::Server, authority, leaf)
}

/// A managed group's papers.
pub fn group(run: &Run, group: &str, authority: &Authority, leaf: &Leaf) -> Secret {
    papers(run, names::tls(run, group), Part::Group(group), authority, leaf)
}

/// What an external group's owner hands to `fedtune client --join`.
pub fn join(run: &Run, group: &str, bundle: &str) -> Secret {
    secret(run, names::join(run, group), Part::Group(group), "Opaque", [(JOIN, bundle.to_owned())])
}

fn papers(run: &Run, name: String, part: Part<'_>, authority: &Authority, leaf: &Leaf) -> Secret {
    let (cert, key, ca) = (leaf.cert.clone(), leaf.key.clone(), authority.cert().to_owned());
    tls(run, name, part, [(CERT, cert), (KEY, key), (CA, ca)])
}

fn tls<const N: usize>(run: &Run, name: String, part: Part<'_>, entries: [(&str, String); N]) -> Secret {
    secret(run, name, part, "kubernetes.io/tls", entries)
}

fn secret<const N: usize>(
    run: &Run,
    name: String,
    part: Part<'_>,
    type_: &str,
    entries: [(&str, String); N],
) -> Secret {
    let data: BTreeMap<_, _> =
        entries.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect();
    Secret { metadata: owned(run, name, part), data: Some(data), type_: Some(type_.to_owned()), ..Secret::default() }
}
