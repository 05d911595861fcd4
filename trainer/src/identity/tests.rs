//! Real handshakes over loopback, with certificates of our own making.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use tokio::{io::AsyncReadExt, runtime::Runtime};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    issue::Validity,
    papers::provider,
    testing::{Office, RUN, client, server},
    *,
};
use crate::wire::{
    Limits, Line, Message, Subject, Terms,
    client::{ConnectError, ConnectOptions, connect},
    runtime,
    server::{Arrival, ListenOptions, Listener},
};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn terms() -> Terms {
    Terms { run: "hash".to_owned(), limits: Limits { tensors: 4, payload_bytes: 1 << 20 } }
}

fn listen(runtime: &Runtime, identity: Option<Identity>) -> Listener {
    Listener::bind(ANY_PORT, ListenOptions { identity, ..terms().into() }, runtime.handle()).unwrap()
}

fn options(runtime: &Runtime, identity: Option<Identity>) -> ConnectOptions {
    ConnectOptions { identity, ..ConnectOptions::plain(terms(), runtime.handle()) }
}

/// A session of `identity` with the server, as the server sees it.
fn arrive(runtime: &Runtime, listener: &mut Listener, identity: &Identity) -> Arrival {
    let url = format!("https://{}", listener.local_addr());
    let mut link = connect(&url, &options(runtime, Some(identity.clone()))).unwrap();
    link.send(Message::new(Subject::Join, 0)).unwrap();
    let mut arrival = listener.accept_until(Instant::now() + PATIENCE).expect("the client joins");
    arrival.link.send(Message::new(Subject::Welcome, 0)).unwrap();
    assert_eq!(link.receive(), Ok(Message::new(Subject::Welcome, 0)));
    arrival
}

/// Why `identity` gets no session at `address`.
fn refusal(runtime: &Runtime, address: SocketAddr, identity: Option<Identity>) -> String {
    let scheme = if identity.is_some() { "https" } else { "http" };
    match connect(&format!("{scheme}://{address}"), &options(runtime, identity)).unwrap_err() {
        ConnectError::Distrusted { reason, .. } => reason,
        other => panic!("it should be a matter of trust: {other}"),
    }
}

/// What a client of `office` trusts.
fn roots(office: &Office) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(office.authority.cert().as_bytes()).unwrap()).unwrap();
    roots
}

/// Certificate and key from `source`, whatever they are worth.
fn unchecked(source: &Source) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let Source::Files { cert, key, .. } = source else { panic!("tests write files") };
    (vec![CertificateDer::from_pem_file(cert).unwrap()], PrivateKeyDer::from_pem_file(key).unwrap())
}

/// A client that sends what it has without asking whether it will do; what the server says to it.
fn brazen(runtime: &Runtime, address: SocketAddr, office: &Office, source: Option<&Source>) -> String {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let config = config.with_root_certificates(roots(office));
    let config = match source.map(unchecked) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let said = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        stream.read_u8().await.unwrap_err()
    });
    of_tls(&said).unwrap_or_else(|| panic!("TLS should say why: {said}"))
}

/// A server that shows what it has without asking whether it will do.
fn impostor(runtime: &Runtime, source: &Source) -> SocketAddr {
    let (chain, key) = unchecked(source);
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(ANY_PORT)).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // The client hangs up, which is what the test is about.
        let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    });
    address
}

fn over_since_yesterday() -> Validity {
    let now = SystemTime::now();
    Validity { from: now - 2 * DAY, until: now - DAY }
}

#[test]
fn with_the_right_certificates_a_session_opens_and_the_server_knows_the_group() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let mut listener = listen(&runtime, Some(office.server()));
    let arrival = arrive(&runtime, &mut listener, &office.client("silo"));
    assert_eq!(arrival.peer, PeerIdentity::Certified(client(RUN, "silo")));
    assert_eq!(arrival.peer.may_speak_for(RUN, "silo"), Ok(()));
}

#[test]
fn a_client_of_another_ca_is_told_so() {
    let (runtime, office, other) = (runtime().unwrap(), Office::new(), Office::new());
    let listener = listen(&runtime, Some(office.server()));
    assert_eq!(
        brazen(&runtime, listener.local_addr(), &office, Some(&other.client("silo").source)),
        "the server does not trust the CA that signed this client's certificate"
    );
}

#[test]
fn a_server_of_another_ca_is_not_spoken_to() {
    let (runtime, office, other) = (runtime().unwrap(), Office::new(), Office::new());
    let listener = listen(&runtime, Some(other.server()));
    assert_eq!(
        refusal(&runtime, listener.local_addr(), Some(office.client("silo"))),
        "the server's certificate was not signed by this client's CA"
    );
}

#[test]
fn an_expired_client_is_told_so() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen(&runtime, Some(office.server()));
    let expired = office.certify("silo", &client(RUN, "silo"), over_since_yesterday());
    assert_eq!(
        brazen(&runtime, listener.local_addr(), &office, Some(&expired)),
        "to the server this client's certificate is expired or not valid yet: renew it, or set the clocks right"
    );
}

#[test]
fn an_expired_server_is_not_spoken_to() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let address = impostor(&runtime, &office.certify("server", &server(RUN), over_since_yesterday()));
    assert_eq!(
        refusal(&runtime, address, Some(office.client("silo"))),
        "the server's certificate has expired, or this machine's clock is wrong"
    );
}

#[test]
fn the_server_of_another_run_is_not_spoken_to() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen(&runtime, Some(office.identity("server", &server("post"))));
    assert_eq!(
        refusal(&runtime, listener.local_addr(), Some(office.client("silo"))),
        "this is not the server of this run: its certificate is for spiffe://fedtune.io/run/post/server, expected \
         spiffe://fedtune.io/run/mail/server"
    );
}

#[test]
fn a_client_that_poses_as_the_server_is_not_spoken_to() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let address = impostor(&runtime, &office.client("silo-b").source);
    let sentence = refusal(&runtime, address, Some(office.client("silo-a")));
    assert!(sentence.starts_with("the server's certificate cannot be trusted: "), "{sentence}");
}

#[test]
fn a_server_under_another_host_is_not_spoken_to() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    let options = ListenOptions { identity: Some(office.server()), ..terms().into() };
    let listener = Listener::bind(address, options, runtime.handle()).unwrap();
    let sentence = refusal(&runtime, listener.local_addr(), Some(office.client("silo")));
    assert!(sentence.starts_with("the server's certificate cannot be trusted: "), "{sentence}");
    assert!(sentence.contains("127.0.0.2"), "{sentence}");
}

#[test]
fn a_client_of_another_run_or_group_is_known_as_such() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let mut listener = listen(&runtime, Some(office.server()));
    let stranger = office.identity("stranger", &client("post", "silo"));
    let arrival = arrive(&runtime, &mut listener, &stranger);
    assert_eq!(
        arrival.peer.may_speak_for(RUN, "silo").unwrap_err().to_string(),
        "the certificate is for run post, and this is run mail"
    );
    let arrival = arrive(&runtime, &mut listener, &office.client("silo-b"));
    assert_eq!(
        arrival.peer.may_speak_for(RUN, "silo-a").unwrap_err().to_string(),
        "the certificate is for group silo-b, and may not speak for a client of group silo-a"
    );
}

#[test]
fn the_servers_own_certificate_lets_no_client_in() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen(&runtime, Some(office.server()));
    assert_eq!(
        brazen(&runtime, listener.local_addr(), &office, Some(&office.server().source)),
        "the server does not take this certificate from a client: it is not one of a group"
    );
}

#[test]
fn a_client_without_a_certificate_is_told_so() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen(&runtime, Some(office.server()));
    assert_eq!(
        brazen(&runtime, listener.local_addr(), &office, None),
        "the server asks for a certificate, and this client has none"
    );
}

#[test]
fn a_certificate_of_the_right_ca_that_names_two_groups_lets_nobody_in() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    // A CA of any other make, which the server trusts beside its own.
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let identity = office.server();
    let Source::Files { ca: trusted, .. } = &identity.source else { panic!("tests write files") };
    fs::write(trusted, office.authority.cert().to_owned() + &ca_pem).unwrap();
    let listener = listen(&runtime, Some(identity));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names =
        ["silo-a", "silo-b"].map(|group| SanType::URI(client(RUN, group).to_string().try_into().unwrap())).to_vec();
    let cert = params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let [cert_file, key_file] = ["two.pem", "two.key"].map(|file| office.path().join(file));
    fs::write(&cert_file, cert.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let source = Source::Files { cert: cert_file, key: key_file, ca: office.path().join("none") };
    assert_eq!(
        brazen(&runtime, listener.local_addr(), &office, Some(&source)),
        "the server does not take this client's certificate: it must name one group, as in \
         spiffe://fedtune.io/run/RUN/group/GROUP"
    );
}

#[test]
fn a_plain_client_is_told_that_the_server_speaks_tls() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen(&runtime, Some(office.server()));
    assert_eq!(
        refusal(&runtime, listener.local_addr(), None),
        "the server speaks TLS: its address begins with https://, and this client needs a certificate, its key and \
         the CA"
    );
}

#[test]
fn a_tls_client_is_told_that_the_server_speaks_plain_text() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen(&runtime, None);
    assert_eq!(
        refusal(&runtime, listener.local_addr(), Some(office.client("silo"))),
        "the server does not speak TLS: it has no certificates, or this is another program's port"
    );
}

/// A `ClientHello` of TLS 1.2, the newest that it offers.
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ECDSA P-256
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: P-256
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 23, 0, 0, // extended_master_secret
    ];
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // no session
    body.extend([0, 2, 0xc0, 0x2b]); // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([1, 0]); // no compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![0x16, 3, 1];
    hello.extend((body.len() as u16 + 4).to_be_bytes());
    hello.extend([1, 0]);
    hello.extend((body.len() as u16).to_be_bytes());
    hello.extend(body);
    hello
}

#[test]
fn tls_1_2_is_refused() {
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen(&runtime, Some(office.server()));
    let mut stream = TcpStream::connect(listener.local_addr()).unwrap();
    stream.write_all(&hello_of_tls_1_2()).unwrap();
    let mut alert = [0; 7];
    stream.read_exact(&mut alert).unwrap();
    assert_eq!((alert[0], alert[6]), (ALERT, PROTOCOL_VERSION));
}

#[test]
fn a_renewed_certificate_is_used_at_the_next_handshake() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let (server_name, silo) = (server(RUN), client(RUN, "silo"));
    let mut listener = listen(&runtime, Some(office.server()));
    let identity = office.client("silo");
    arrive(&runtime, &mut listener, &identity);
    // The server's runs out: nobody gets in.
    office.certify("server", &server_name, over_since_yesterday());
    assert_eq!(
        refusal(&runtime, listener.local_addr(), Some(identity.clone())),
        "the server hung up within the TLS handshake"
    );
    office.certify("server", &server_name, Validity::days(1, SystemTime::now()));
    arrive(&runtime, &mut listener, &identity);
    // So does the client's, which says so itself.
    office.certify("silo", &silo, over_since_yesterday());
    let sentence = refusal(&runtime, listener.local_addr(), Some(identity.clone()));
    assert!(sentence.contains("silo/cert.pem expired on "), "{sentence}");
    office.certify("silo", &silo, Validity::days(1, SystemTime::now()));
    arrive(&runtime, &mut listener, &identity);
}

#[test]
fn papers_that_cannot_be_used_are_named_with_what_is_wrong() {
    let (office, now) = (Office::new(), SystemTime::now());
    let Source::Files { cert, key, ca } = office.client("silo").source else { panic!("tests write files") };
    let Source::Files { key: other_key, .. } = office.client("other").source else { panic!("tests write files") };
    fs::write(office.path().join("foreign.pem"), Office::new().authority.cert()).unwrap();
    let (foreign_ca, missing) = (office.path().join("foreign.pem"), office.path().join("missing.pem"));
    let source = |cert, key, ca| Source::Files { cert, key, ca };
    let sentence = |source: Source, now| source.read(now).unwrap_err().to_string();
    let place = |path: &std::path::PathBuf| path.display().to_string();
    assert_eq!(
        sentence(source(missing.clone(), key.clone(), ca.clone()), now),
        format!("cannot read {}: No such file or directory (os error 2)", place(&missing))
    );
    assert_eq!(
        sentence(source(key.clone(), key.clone(), ca.clone()), now),
        format!("{} holds no CERTIFICATE in PEM form; expected -----BEGIN CERTIFICATE-----", place(&key))
    );
    assert_eq!(
        sentence(source(cert.clone(), cert.clone(), ca.clone()), now),
        format!("{} holds no PRIVATE KEY in PEM form; expected -----BEGIN PRIVATE KEY-----", place(&cert))
    );
    assert_eq!(
        sentence(source(cert.clone(), other_key.clone(), ca.clone()), now),
        format!("the key in {} does not belong to the certificate in {}", place(&other_key), place(&cert))
    );
    assert_eq!(
        sentence(source(cert.clone(), key.clone(), foreign_ca.clone()), now),
        format!("the certificate in {} was not signed by the CA in {}", place(&cert), place(&foreign_ca))
    );
    assert_eq!(
        sentence(source(ca.clone(), key.clone(), ca.clone()), now),
        format!(
            "the certificate in {} cannot be used: it has 0 URIs among its names, and must have exactly one",
            place(&ca)
        )
    );
    let expired = sentence(source(cert.clone(), key.clone(), ca.clone()), now + 91 * DAY);
    assert!(expired.starts_with(&format!("the certificate in {} expired on 20", place(&cert))), "{expired}");
    let early = sentence(source(cert.clone(), key, ca), now - DAY);
    assert!(early.starts_with(&format!("the certificate in {} is not valid before 20", place(&cert))), "{early}");
}
