//! What the trainer's side of a handshake will ask of these certificates, asked of rustls itself.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::*;

const UID: &str = "5f0c1d1e-93aa-4f4b-8c1c-0a1b2c3d4e5f";

/// 2026-06-01, 00:00 UTC.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_780_272_000)
}

fn days(count: u32) -> Duration {
    DAY * count
}

fn ca() -> Authority {
    Authority::new(new_key().unwrap(), now()).unwrap()
}

fn server() -> Name {
    Name::Server { run: UID.to_owned() }
}

fn silo() -> Name {
    Name::Group { run: UID.to_owned(), group: "silo".to_owned() }
}

fn hosts() -> Vec<String> {
    ["mail-server.team.svc", "Fedtune.example.com", "192.0.2.1", "2001:db8:0::1"].map(str::to_owned).to_vec()
}

fn issued(ca: &Authority, name: &Name, hosts: &[String]) -> Leaf {
    ca.certify(name, hosts, &new_key().unwrap(), now()).unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn roots(ca: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(der(ca.cert())).unwrap();
    Arc::new(roots)
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap())
}

/// Whether a client that dials `host` at `moment` takes `leaf` for its server.
fn is_server(ca: &Authority, leaf: &Leaf, host: &str, moment: SystemTime) -> Result<(), rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(ca), provider).build().unwrap();
    let host = ServerName::try_from(host.to_owned()).unwrap();
    verifier.verify_server_cert(&der(&leaf.cert), &[], &host, &[], unix(moment)).map(drop)
}

/// Whether a server takes `leaf` for a client of the run at `moment`.
fn is_client(ca: &Authority, leaf: &Leaf, moment: SystemTime) -> Result<(), rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), provider).build().unwrap();
    verifier.verify_client_cert(&der(&leaf.cert), &[], unix(moment)).map(drop)
}

fn standing(pem: &str) -> Standing {
    Standing::read(pem).unwrap()
}

#[test]
fn a_client_takes_the_server_at_each_of_its_hosts_and_at_no_other() {
    let ca = ca();
    let leaf = issued(&ca, &server(), &hosts());
    for host in ["mail-server.team.svc", "fedtune.example.com", "192.0.2.1", "2001:db8::1"] {
        assert_eq!(is_server(&ca, &leaf, host, now()), Ok(()), "{host}");
    }
    assert!(is_server(&ca, &leaf, "other-server.team.svc", now()).is_err());
}

#[test]
fn a_certificate_serves_one_side_only_and_only_under_its_own_ca() {
    let (first, second) = (ca(), ca());
    let (of_server, of_group) = (issued(&first, &server(), &hosts()), issued(&first, &silo(), &[]));
    assert_eq!(is_client(&first, &of_group, now()), Ok(()));
    assert!(is_client(&first, &of_server, now()).is_err());
    assert!(is_client(&second, &of_group, now()).is_err());
    assert!(is_server(&second, &of_server, "mail-server.team.svc", now()).is_err());
}

#[test]
fn a_certificate_lasts_ninety_days_from_an_hour_before_it_is_made() {
    let ca = ca();
    let leaf = issued(&ca, &silo(), &[]);
    let hour = Duration::from_secs(3600);
    for (moment, good) in [
        (now() - hour, true),
        (now() - hour - Duration::from_secs(1), false),
        (now() + days(90), true),
        (now() + days(90) + Duration::from_secs(1), false),
    ] {
        assert_eq!(is_client(&ca, &leaf, moment).is_ok(), good, "{moment:?}");
    }
}

#[test]
fn a_ca_lasts_ten_years() {
    let standing = standing(ca().cert());
    assert_eq!(standing.not_after, now() + days(3653));
    assert_eq!(standing.not_before, now() - BACKDATED);
}

#[test]
fn names_are_the_uris_that_the_trainer_reads() {
    let ca = ca();
    for (name, uri) in [
        (server(), format!("spiffe://fedtune.io/run/{UID}/server")),
        (silo(), format!("spiffe://fedtune.io/run/{UID}/group/silo")),
    ] {
        assert_eq!(standing(&issued(&ca, &name, &[]).cert).uris, [uri]);
    }
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_time() {
    let ca = ca();
    let (authority, leaf) = (standing(ca.cert()), standing(&issued(&ca, &server(), &hosts()).cert));
    assert_eq!(leaf.renew_at(), now() - BACKDATED + (days(90) + BACKDATED) * 2 / 3);
    for (day, due) in [(0, false), (59, false), (60, true), (200, true)] {
        assert_eq!(leaf.must_be_renewed(&authority, &server(), &hosts(), now() + days(day)), due, "day {day}");
    }
}

#[test]
fn a_certificate_is_made_anew_when_it_is_not_the_one_that_is_needed() {
    let (first, second) = (ca(), ca());
    let (authority, leaf) = (standing(first.cert()), standing(&issued(&first, &server(), &hosts()).cert));
    let more: Vec<String> = hosts().into_iter().chain(["203.0.113.9".to_owned()]).collect();
    assert!(!leaf.must_be_renewed(&authority, &server(), &hosts()[..1], now()), "fewer hosts are no reason");
    assert!(leaf.must_be_renewed(&authority, &server(), &more, now()), "the exposed Service was given an address");
    assert!(leaf.must_be_renewed(&standing(second.cert()), &server(), &hosts(), now()), "the CA's Secret was lost");
    assert!(leaf.must_be_renewed(&authority, &silo(), &[], now()), "it names another");
}

#[test]
fn a_renewed_certificate_fits_the_key_that_is_there_and_has_another_number() {
    let ca = ca();
    let old = issued(&ca, &silo(), &[]);
    let renewed = ca.certify(&silo(), &[], &read_key(&old.key).unwrap(), now() + days(60)).unwrap();
    assert_eq!(renewed.key, old.key);
    assert_eq!(standing(&renewed.cert).public_key, standing(&old.cert).public_key);
    assert_eq!(is_client(&ca, &renewed, now() + days(149)), Ok(()));
    assert_ne!(renewed.cert, old.cert);
}

#[test]
fn a_ca_goes_on_from_the_texts_of_its_secret() {
    let first = ca();
    let again = Authority::from_pem(first.cert().to_owned(), &first.key()).unwrap();
    assert_eq!(is_client(&first, &issued(&again, &silo(), &[]), now()), Ok(()));
}

#[test]
fn texts_that_do_not_belong_together_are_refused() {
    let (first, second) = (ca(), ca());
    let said = |cert: &str, key: &str| Authority::from_pem(cert.to_owned(), key).unwrap_err().to_string();
    assert_eq!(
        said(first.cert(), &second.key()),
        "the CA's key is not the one of its certificate; delete the Secret to have another made"
    );
    assert_eq!(
        said("", &first.key()),
        "the CA's certificate cannot be read: it is not in PEM form; expected -----BEGIN CERTIFICATE-----"
    );
    assert!(said(first.cert(), "no key").starts_with("the key cannot be read: "));
}

#[test]
fn what_is_no_host_is_refused_by_name() {
    let error = ca().certify(&server(), &["not a host".to_owned()], &new_key().unwrap(), now()).unwrap_err();
    assert_eq!(error.to_string(), "\"not a host\" is neither a host's name nor an IP address");
}

#[test]
fn a_bundle_is_read_as_it_was_written_and_dials_an_address_in_brackets() {
    let ca = ca();
    let leaf = issued(&ca, &silo(), &[]);
    for (host, url) in [("fedtune.example.com", "https://fedtune.example.com:30443"), ("::1", "https://[::1]:30443")] {
        let bundle = Bundle::new(UID, "silo", (host, 30443), &ca, &leaf);
        assert_eq!(bundle.server, url);
        assert_eq!(Bundle::read(bundle.to_json().as_bytes()), Some(bundle));
    }
    assert_eq!(Bundle::read(b"{}"), None);
}
