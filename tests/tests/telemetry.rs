//! What running processes say of themselves over HTTP and in their last words, held against what they leave in files.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{collections::BTreeMap, net::TcpListener};

use fedtune_crds::{
    live::{LivePhase, LiveStatus},
    report::{Direction, PayloadKind, RunReport},
};
use fedtune_tests::{
    Bench,
    exposition::{Scrape, promtool_accepts},
    http::get,
    scraped::{start_client, start_server},
};

const CLIENTS: [&str; 2] = ["silo/0", "silo/1"];

fn status(address: &str, path: &str) -> LiveStatus {
    let (code, body) = get(address, path);
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Follows a run by long polls until it is over; gives what was seen.
fn follow(address: &str) -> Vec<LiveStatus> {
    let mut seen = vec![status(address, "/status")];
    while !matches!(seen.last().unwrap().phase, LivePhase::Succeeded | LivePhase::Failed) {
        seen.push(status(address, &format!("/status?after={}", seen.last().unwrap().seq)));
    }
    seen
}

fn scrape(address: &str) -> Scrape {
    let (code, text) = get(address, "/metrics");
    assert_eq!(code, 200, "{text}");
    if !promtool_accepts(&text) {
        eprintln!("skipped: there is no promtool on this machine; its rules were checked here");
    }
    Scrape::of(&text)
}

/// Payload of all rounds by direction and kind.
fn payload(report: &RunReport) -> BTreeMap<(Direction, PayloadKind), u64> {
    let mut sums = BTreeMap::new();
    for count in report.rounds.iter().flat_map(|round| &round.bytes) {
        *sums.entry((count.direction, count.kind)).or_default() += count.payload;
    }
    sums
}

/// A run as three processes whose telemetry is read after the end.
fn last_figures_are_those_of_the_report(framework: &str, name: &str) {
    let bench = Bench::new();
    let spec = bench.spec("tiny", framework);
    let (mut server, address, listens) = start_server(&bench, &spec);
    assert_eq!(get(&address, "/readyz"), (200, "ready\n".to_owned()));
    let clients = CLIENTS.map(|id| start_client(&bench, &spec, id, &listens));

    let seen = follow(&address);
    let report = bench.report("apart", "tiny");
    status_says_what_the_report_says(&seen, &report);
    server_scrape_says_what_the_report_says(&scrape(&address), &report, name);
    for ((mut client, address), id) in clients.into_iter().zip(CLIENTS) {
        client.wait_for(&["tiny: done"]);
        client_scrape_says_what_the_report_says(&scrape(&address), &report, id);
    }
    server.wait_for(&["the termination message is written"]);
    let words: LiveStatus = serde_json::from_slice(&bench.read("last-words")).unwrap();
    assert_eq!(&words, seen.last().unwrap());
}

fn status_says_what_the_report_says(seen: &[LiveStatus], report: &RunReport) {
    assert!(seen.windows(2).all(|pair| pair[0].seq < pair[1].seq), "{seen:#?}");
    let last = seen.last().unwrap();
    assert_eq!((last.phase, &last.uid), (LivePhase::Succeeded, &report.uid), "{last:?}");
    assert_eq!((last.round, last.rounds, last.clients), (2, 2, 2));
    assert_eq!(last.accuracy, Some(report.final_figures.accuracy));
    assert_eq!(last.loss, Some(report.final_figures.loss));
    assert_eq!(last.payload_bytes, report.totals.payload_bytes.sum());
    assert_eq!(last.client_flops.to_bits(), report.totals.client_flops.to_bits());
    assert_eq!((last.eta_seconds, last.waiting_for.len()), (Some(0.0), 0));
}

fn server_scrape_says_what_the_report_says(scrape: &Scrape, report: &RunReport, name: &str) {
    let run = [("namespace", "lab"), ("run", "tiny"), ("experiment", "tiny"), ("framework", name)];
    for (_, labels, _) in &scrape.samples {
        assert!(run.iter().all(|(label, value)| labels[*label] == *value), "{labels:?}");
    }
    let same = |name, expected: f64| assert_eq!(scrape.value(name, &[]).to_bits(), expected.to_bits(), "{name}");
    same("fedtune_round", report.rounds.len() as f64);
    same("fedtune_rounds", 2.0);
    same("fedtune_evaluation_accuracy_ratio", report.final_figures.accuracy);
    same("fedtune_evaluation_loss", report.final_figures.loss);
    same("fedtune_round_duration_seconds_count", report.rounds.len() as f64);

    let kinds = payload(report);
    for ((direction, kind), bytes) in &kinds {
        let labels = [("direction", direction.as_str()), ("kind", kind.as_str())];
        let sum: f64 = scrape.with("fedtune_payload_bytes_total", &labels).map(|(_, value)| value).sum();
        assert_eq!(sum as u64, *bytes, "{labels:?}");
    }
    assert_eq!(scrape.with("fedtune_payload_bytes_total", &[]).count(), kinds.len() * CLIENTS.len());
    for (direction, reported) in [("up", report.totals.wire_bytes.up), ("down", report.totals.wire_bytes.down)] {
        let labels = [("direction", direction)];
        let wire: f64 = scrape.with("fedtune_wire_bytes_total", &labels).map(|(_, value)| value).sum();
        assert!(wire as u64 >= reported, "{direction}");
    }
    let room = |state| scrape.value("fedtune_checkpoint_volume_bytes", &[("state", state)]);
    assert!(room("total") >= room("used") + room("free"));
}

fn client_scrape_says_what_the_report_says(scrape: &Scrape, report: &RunReport, id: &str) {
    let client = report.clients.iter().find(|client| client.client == id).unwrap();
    let value = |name, label, value| scrape.value(name, &[("client", id), (label, value)]);
    let flops = |phase| value("fedtune_client_flops_total", "phase", phase).to_bits();
    assert_eq!(flops("train"), client.flops.train.to_bits());
    assert_eq!(flops("publicForward"), client.flops.public_forward.to_bits());
    assert_eq!(flops("distill"), client.flops.distill.to_bits());
    assert_eq!(value("fedtune_client_tokens_total", "kind", "real") as u64, client.tokens.real);
    assert_eq!(value("fedtune_client_tokens_total", "kind", "padding") as u64, client.tokens.padding);
    assert!(value("fedtune_client_seconds_total", "activity", "compute") >= client.seconds.compute);
    assert!(scrape.value("fedtune_client_peak_memory_bytes", &[]) as u64 >= client.peak_memory_bytes);
}

#[test]
fn after_a_run_of_fedllm_status_metrics_and_last_words_say_what_the_report_says() {
    last_figures_are_those_of_the_report("fedLLM: {}", "FedLLM");
}

#[test]
fn after_a_run_of_kd_fedllm_status_metrics_and_last_words_say_what_the_report_says() {
    last_figures_are_those_of_the_report("kdFedLLM: {distillationSteps: 3}", "KD-FedLLM");
}

#[test]
fn after_a_run_of_split_fedllm_status_metrics_and_last_words_say_what_the_report_says() {
    last_figures_are_those_of_the_report("splitFedLLM: {cutLayer: 1}", "Split-FedLLM");
}

#[test]
fn a_client_that_waits_for_its_server_is_alive_and_says_what_it_waits_for() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    // It takes connections, and nobody speaks on them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    let (mut client, address) = start_client(&bench, &spec, "silo/0", &nobody);
    assert_eq!(get(&address, "/healthz"), (200, "alive\n".to_owned()));
    client.wait_for(&["waits for the server at "]);
    let (code, body) = get(&address, "/readyz");
    assert_eq!((code, body), (503, format!("not ready: waits for the server at http://{nobody}\n")));
    assert!(client.is_alive());
}

#[test]
fn a_finished_run_says_its_last_words_again() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let _ended = bench.run(&spec, &[]).well();
    let log = bench.path("last-words").display().to_string();
    let _ended = bench.fedtune(&["server", &spec, "--listen", "127.0.0.1:0", "--termination-log", &log]).well();
    let (words, report): (LiveStatus, _) =
        (serde_json::from_slice(&bench.read("last-words")).unwrap(), bench.report("out", "tiny"));
    assert_eq!((words.phase, words.uid, words.round), (LivePhase::Succeeded, report.uid, 2));
    assert_eq!(words.accuracy, Some(report.final_figures.accuracy));
    assert_eq!(words.payload_bytes, report.totals.payload_bytes.sum());
}

#[test]
fn an_error_is_the_last_word_also_where_the_configuration_is_at_fault() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let log = bench.path("last-words").display().to_string();
    for arguments in [
        &["server", "no-such.yaml"][..],
        &["server", &spec, "--listen", "127.0.0.1:0", "--set", "data.source.path=no-such.csv"],
        &["client", &spec, "--client", "silo/7", "--server", "http://127.0.0.1:1"],
        &["client", &spec, "--client", "silo/0", "--server", "http://127.0.0.1:1", "--patience", "0"],
    ] {
        let ended = bench.fedtune(&[arguments, &["--quiet", "--termination-log", &log]].concat());
        assert_ne!(ended.code, Some(0), "{ended:#?}");
        let words = String::from_utf8(bench.read("last-words")).unwrap();
        assert_eq!(ended.stderr, format!("fedtune: {words}\n"));
    }
}

#[test]
fn last_words_that_cannot_be_written_are_a_warning() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let _ended = bench.run(&spec, &[]).well();
    let ended = bench.fedtune(&["server", &spec, "--termination-log", "no-such-folder/log"]).well();
    assert!(ended.stderr.contains("the termination message cannot be written"), "{}", ended.stderr);
}

#[test]
fn a_port_that_is_taken_is_said_before_anything_is_read() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = bench.fedtune(&["server", &spec, "--listen", "127.0.0.1:0", "--http", &address]);
    assert_eq!(ended.code, Some(78), "{ended:#?}");
    assert!(
        ended.stderr.starts_with(&format!("fedtune: --http {address} cannot be listened on: ")),
        "{}",
        ended.stderr
    );
}
