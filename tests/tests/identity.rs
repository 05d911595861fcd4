//! Mutual TLS as a user sets it up: `fedtune certs`, then a server and clients that trust nobody else.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{net::TcpListener, sync::mpsc, thread};

use fedtune_tests::{Bench, Ended, Running};

/// Seconds that a client waits for its server, also on a busy machine.
const PATIENCE: &str = "120";

/// An address that nothing listens on.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn certs(bench: &Bench, spec: &str, out: &str, address: &str) -> Ended {
    let (_, port) = address.rsplit_once(':').unwrap();
    bench.fedtune(&["certs", spec, "--out", out, "--server-name", "127.0.0.1", "--port", port]).well()
}

fn server(bench: &Bench, spec: &str, address: &str, certs: &str) -> Running {
    let [cert, key, ca] = ["cert", "key", "ca"].map(|file| format!("{certs}/server/{file}.pem"));
    let files = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca];
    bench.start(&[&["server", spec, "--listen", address, "--out", "apart"], &files[..]].concat())
}

fn client(bench: &Bench, spec: &str, id: &str, bundle: &str, patience: &str) -> Running {
    bench.start(&["client", spec, "--client", id, "--join", bundle, "--patience", patience])
}

#[test]
fn a_run_with_certificates_gives_the_bits_of_one_process() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let _together = bench.run(&spec, &[]).well();
    let address = free_address();
    let made = certs(&bench, &spec, "certs", &address);
    assert!(made.stdout.starts_with("Made a CA and certificates in certs, for 90 days"), "{}", made.stdout);
    let mut server = server(&bench, &spec, &address, "certs");
    // The first certificates need not be the last: these are read when the clients come.
    let renewed = certs(&bench, &spec, "certs", &address);
    assert!(renewed.stdout.starts_with("Renewed the certificates in certs under the CA"), "{}", renewed.stdout);
    assert!(server.is_alive());
    let clients = ["silo/0", "silo/1"].map(|id| client(&bench, &spec, id, "certs/silo.join", PATIENCE));
    let _ended = clients.map(|client| client.wait().well());
    let _ended = server.wait().well();
    assert!(bench.adapter("out", "tiny") == bench.adapter("apart", "tiny"), "the adapters differ");
    let [together, apart] = ["out", "apart"].map(|out| bench.report(out, "tiny"));
    assert_eq!(together.totals.payload_bytes, apart.totals.payload_bytes);
    let [plain, tls] = [&together, &apart].map(|report| report.totals.wire_bytes.sum());
    println!("payload {} bytes, wire {plain} plain and {tls} by TLS", together.totals.payload_bytes.sum());
    assert!(tls > plain, "TLS costs bytes, and they are counted: {tls} and {plain}");
}

/// Server and four clients as processes of their own, whose results go to `out`.
fn run_as_five(bench: &Bench, spec: &str, out: &str, by_tls: bool) {
    let address = free_address();
    let url = format!("http://{address}");
    if by_tls {
        let _made = certs(bench, spec, "certs", &address);
    }
    let [cert, key, ca] = ["cert", "key", "ca"].map(|file| format!("certs/server/{file}.pem"));
    let papers = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca];
    let papers = if by_tls { &papers[..] } else { &[] };
    let way = if by_tls { ["--join", "certs/silo.join"] } else { ["--server", &url] };
    let server = bench.start(&[&["server", spec, "--listen", &address, "--out", out], papers].concat());
    let clients = [0, 1, 2, 3].map(|index| {
        let id = format!("silo/{index}");
        bench.start(&[&["client", spec, "--client", &id, "--out", out, "--patience", PATIENCE], &way[..]].concat())
    });
    let _ended = clients.map(|client| client.wait().well());
    let _ended = server.wait().well();
}

#[test]
fn one_process_or_five_with_tls_or_without_give_the_same_bits() {
    for framework in ["fedLLM: {}", "kdFedLLM: {distillationSteps: 2}", "splitFedLLM: {cutLayer: 1}"] {
        let bench = Bench::new();
        let yaml = bench.yaml("tiny", framework).replace("replicas: 2", "replicas: 4");
        let spec = bench.write("tiny.yaml", yaml).display().to_string();
        let _together = bench.run(&spec, &[]).well();
        for (out, by_tls) in [("plain", false), ("tls", true)] {
            run_as_five(&bench, &spec, out, by_tls);
            assert!(
                bench.adapter("out", "tiny") == bench.adapter(out, "tiny"),
                "{framework}, {out}: the adapters differ"
            );
        }
    }
}

#[test]
fn a_client_with_the_certificate_of_another_ca_does_not_get_in_and_the_run_goes_on() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let address = free_address();
    for out in ["certs", "others"] {
        let _made = certs(&bench, &spec, out, &address);
    }
    let mut server = server(&bench, &spec, &address, "certs");
    // The first one is let in, which shows that the server listens.
    let first = client(&bench, &spec, "silo/0", "certs/silo.join", PATIENCE);
    let stranger = client(&bench, &spec, "silo/1", "others/silo.join", "3").wait();
    assert_eq!(stranger.code, Some(1), "{stranger:#?}");
    assert!(
        stranger.stderr.contains("the server's certificate was not signed by this client's CA"),
        "{}",
        stranger.stderr
    );
    assert!(server.is_alive());
    let second = client(&bench, &spec, "silo/1", "certs/silo.join", PATIENCE);
    for running in [first, second, server] {
        let _ended = running.wait().well();
    }
}

#[test]
fn a_second_client_of_one_id_is_refused_and_the_first_goes_on() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let address = free_address();
    let _made = certs(&bench, &spec, "certs", &address);
    let server = server(&bench, &spec, &address, "certs");
    let (ended, twins) = mpsc::channel();
    for _ in 0..2 {
        let (twin, ended) = (client(&bench, &spec, "silo/0", "certs/silo.join", "15"), ended.clone());
        thread::spawn(move || ended.send(twin.wait()).unwrap());
    }
    // Whichever comes second is refused as long as it is patient, and the other waits for silo/1.
    let refused = twins.recv().unwrap();
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("client silo/0 is connected already"), "{}", refused.stderr);
    let other = client(&bench, &spec, "silo/1", "certs/silo.join", PATIENCE);
    for running in [other, server] {
        let _ended = running.wait().well();
    }
    let _let_in = twins.recv().unwrap().well();
}

#[test]
fn papers_that_do_not_fit_are_refused_before_anything_is_loaded() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let _made = certs(&bench, &spec, "certs", "127.0.0.1:7443");
    let join = |id: &'static str| ["client", &spec, "--client", id, "--join", "certs/silo.join"];
    let refused = |arguments: &[&str], sentence: &str| {
        let ended = bench.fedtune(arguments);
        assert_eq!(ended.code, Some(78), "{ended:#?}");
        assert_eq!(ended.stderr, format!("fedtune: {sentence}\n"));
    };
    refused(
        &[&join("silo/0")[..], &["--run-uid", "other"]].concat(),
        "the certificate is for run tiny, and this is run other",
    );
    refused(
        &[&join("silo/0")[..], &["--server", "http://127.0.0.1:7443"]].concat(),
        "http://127.0.0.1:7443 would be plain text, and this client has a certificate: its server's address begins \
         with https://",
    );
    refused(
        &["client", &spec, "--client", "silo/0", "--server", "https://127.0.0.1:7443"],
        "https://127.0.0.1:7443 is reached by TLS, for which this client needs a certificate, its key and the CA",
    );
    let silo =
        ["--tls-cert", "certs/silo/cert.pem", "--tls-key", "certs/silo/key.pem", "--tls-ca", "certs/ca/cert.pem"];
    refused(
        &[&["server", &spec][..], &silo].concat(),
        "the certificate names spiffe://fedtune.io/run/tiny/group/silo, and this server is \
         spiffe://fedtune.io/run/tiny/server",
    );
    bench.write("certs/silo.join", "{}");
    let ended = bench.fedtune(&join("silo/0"));
    assert_eq!(ended.code, Some(78), "{ended:#?}");
    assert!(ended.stderr.starts_with("fedtune: certs/silo.join is no join bundle (missing field"), "{}", ended.stderr);
}
