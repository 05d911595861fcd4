//! A cluster's certificate authority, and what it gives to each part.
//! Must not sign anything that outlives a test by much.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Names under which pods know the API server.
const SERVICE_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// The authority; its files lie in one folder, `<name>.crt` and `<name>.key`.
pub(super) struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes an authority, and the key that signs the tokens of service accounts.
    pub(super) fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a temporary folder can be written");
        let key = new_key();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        authority.distinguished_name.push(DnType::CommonName, "test-ca");
        let certificate = authority.self_signed(&key).expect("the parameters are right");
        write(&folder.join("ca.crt"), &certificate.pem());
        write(&folder.join("ca.key"), &key.serialize_pem());
        let tokens = new_key();
        write(&folder.join("tokens.key"), &tokens.serialize_pem());
        write(&folder.join("tokens.pub"), &tokens.public_key_pem());
        Self { folder, issuer: Issuer::new(authority, key) }
    }

    /// What the API server shows.
    pub(super) fn issue_server(&self, name: &str, addresses: &[String]) {
        let names = SERVICE_NAMES.iter().map(|name| (*name).to_owned()).chain(addresses.iter().cloned());
        self.issue(name, name, None, names.collect());
    }

    /// What somebody shows to the API server, in the place of a user name and a group.
    pub(super) fn issue_user(&self, name: &str, user: &str, group: Option<&str>, addresses: &[String]) {
        self.issue(name, user, group, addresses.to_vec());
    }

    fn issue(&self, file: &str, user: &str, group: Option<&str>, names: Vec<String>) {
        let key = new_key();
        let mut leaf = CertificateParams::new(names).expect("names and addresses are right");
        leaf.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            leaf.distinguished_name.push(DnType::OrganizationName, group);
        }
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = leaf.signed_by(&key, &self.issuer).expect("the parameters are right");
        write(&self.folder.join(format!("{file}.crt")), &certificate.pem());
        write(&self.folder.join(format!("{file}.key")), &key.serialize_pem());
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a temporary folder can be written");
}
