//! Server and clients as processes of their own: the same bits as in one process, and no stranger is let in.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::net::TcpListener;

use fedtune_tests::{Bench, Running};

const CLIENTS: [&str; 2] = ["silo/0", "silo/1"];

/// Seconds that a client waits for its server, also on a busy machine.
const PATIENCE: &str = "120";

/// An override that changes nothing: the seed that the spec has.
const SAME_SEED: &str = "seed=42";

/// Who is started first.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Server,
    Clients,
}

/// An address that nothing listens on.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn client(bench: &Bench, spec: &str, id: &str, address: &str, set: &str) -> Running {
    let url = format!("http://{address}");
    bench.start(&["client", spec, "--client", id, "--server", &url, "--patience", PATIENCE, "--set", set])
}

/// Runs `spec` as a server and two clients; results go to `apart/`.
fn run_apart(bench: &Bench, spec: &str, first: First) {
    let address = free_address();
    let start_server = || bench.start(&["server", spec, "--listen", &address, "--out", "apart"]);
    let start_clients = || CLIENTS.map(|id| client(bench, spec, id, &address, SAME_SEED));
    let (server, clients) = match first {
        First::Server => {
            let server = start_server();
            (server, start_clients())
        }
        First::Clients => {
            let clients = start_clients();
            (start_server(), clients)
        }
    };
    let _ended = clients.map(|client| client.wait().well());
    let _ended = server.wait().well();
}

/// One process and three give the same adapter to the last bit, and the same figures.
fn same_in_one_process_and_in_three(framework: &str, first: First) {
    let bench = Bench::new();
    let spec = bench.spec("tiny", framework);
    let _together = bench.run(&spec, &[]).well();
    run_apart(&bench, &spec, first);
    assert!(bench.adapter("out", "tiny") == bench.adapter("apart", "tiny"), "the adapters differ");
    let [together, apart] = ["out", "apart"].map(|out| bench.report(out, "tiny"));
    assert_eq!(together.run_hash, apart.run_hash);
    assert_eq!(together.final_figures, apart.final_figures);
    assert_eq!(together.totals.payload_bytes, apart.totals.payload_bytes);
    assert_eq!(together.totals.client_flops.to_bits(), apart.totals.client_flops.to_bits());
    assert_eq!(together.clients.len(), apart.clients.len());
}

#[test]
fn fedllm_in_three_processes_gives_the_bits_of_one() {
    same_in_one_process_and_in_three("fedLLM: {}", First::Server);
}

#[test]
fn kd_fedllm_in_three_processes_gives_the_bits_of_one() {
    same_in_one_process_and_in_three("kdFedLLM: {distillationSteps: 3}", First::Server);
}

#[test]
fn split_fedllm_v1_in_three_processes_gives_the_bits_of_one() {
    same_in_one_process_and_in_three("splitFedLLM: {cutLayer: 1, variant: V1}", First::Server);
}

#[test]
fn split_fedllm_v2_with_clients_that_came_before_the_server_gives_the_bits_of_one_process() {
    same_in_one_process_and_in_three("splitFedLLM: {cutLayer: 2, variant: V2}", First::Clients);
}

#[test]
fn a_client_that_is_not_of_the_run_is_refused_with_those_that_are() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let ended = client(&bench, &spec, "silo/7", &free_address(), SAME_SEED).wait();
    assert_eq!(ended.code, Some(78), "{ended:#?}");
    assert_eq!(ended.stderr, "fedtune: --client silo/7 is not of this run; its clients are silo/0, silo/1\n");
}

#[test]
fn a_client_of_another_spec_is_refused_and_the_run_goes_on_without_it() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let address = free_address();
    let mut server = bench.start(&["server", &spec, "--listen", &address]);
    let ended = client(&bench, &spec, "silo/1", &address, "seed=43").wait();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("spec, model and tokenizer must be the same on both sides"), "{}", ended.stderr);
    assert!(server.is_alive());
    let clients = CLIENTS.map(|id| client(&bench, &spec, id, &address, SAME_SEED));
    let _ended = clients.map(|client| client.wait().well());
    let _ended = server.wait().well();
}

#[test]
fn a_client_that_finds_no_server_gives_up_with_a_sentence() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let address = free_address();
    let url = format!("http://{address}");
    let ended = bench.fedtune(&["client", &spec, "--client", "silo/0", "--server", &url, "--patience", "0"]);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains(&format!("no server answers at http://{address}")), "{}", ended.stderr);
}

#[test]
fn plain_text_does_not_leave_this_machine_unasked() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    for arguments in [
        &["server", &spec, "--listen", "0.0.0.0:0"][..],
        &["client", &spec, "--client", "silo/0", "--server", "http://192.0.2.1:7443"],
    ] {
        let ended = bench.fedtune(arguments);
        assert_eq!(ended.code, Some(78), "{ended:#?}");
        assert!(ended.stderr.contains("add --insecure to accept that"), "{}", ended.stderr);
    }
}
