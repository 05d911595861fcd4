//! `fedtune estimate` against the run that follows: bytes, operations, and the memory of a client's own process.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{net::TcpListener, path::Path};

use fedtune_tests::Bench;
use serde_json::Value;

/// The estimate of `framework` for a spec, with overrides.
fn estimate(bench: &Bench, spec: &str, framework: &str, sets: &[&str]) -> Value {
    let ended = bench.fedtune(&[&["estimate", spec, "--json"], sets].concat()).well();
    let estimates: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    estimates.into_iter().find(|estimate| estimate["framework"] == framework).unwrap()
}

/// The sum of a figure over all clients and rounds.
fn sum(estimate: &Value, figure: impl Fn(&Value) -> f64) -> f64 {
    let clients = estimate["clients"].as_array().unwrap();
    clients.iter().flat_map(|client| client["rounds"].as_array().unwrap()).map(figure).sum()
}

#[test]
fn what_is_foretold_of_every_framework_is_what_its_run_costs() {
    let bench = Bench::new();
    for (name, framework, words) in [
        ("fedllm", "fedLLM: {}", "FedLLM"),
        ("kd", "kdFedLLM: {}", "KD-FedLLM"),
        ("split", "splitFedLLM: {}", "Split-FedLLM"),
    ] {
        let spec = bench.spec(name, framework);
        let foretold = estimate(&bench, &spec, words, &[]);
        let _ended = bench.run(&spec, &[]).well();
        let totals = bench.report("out", name).totals;
        let bytes = |way: &'static str| sum(&foretold, |round| round["payloadBytes"][way].as_f64().unwrap());
        assert!((bytes("up") - totals.payload_bytes.up as f64).abs() < 0.5, "{name}: {foretold}");
        assert!((bytes("down") - totals.payload_bytes.down as f64).abs() < 0.5, "{name}: {foretold}");
        let flops = sum(&foretold, |round| round["flops"].as_f64().unwrap());
        assert!((flops - totals.client_flops).abs() <= 0.02 * totals.client_flops, "{name}: {flops}");
    }
}

/// MiniLM, so that the model and its batches weigh something beside the program.
#[test]
fn the_memory_that_is_foretold_is_within_twenty_percent_of_a_clients_peak() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/models/minilm");
    let model = format!("model.source.path={}", model.display());
    let sets = ["--set", &model, "--set", "training.batchSize=64", "--set", "clients.groups[0].replicas=1"];
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let foretold = estimate(&bench, &spec, "FedLLM", &sets)["clients"][0]["memoryBytes"].as_f64().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let server = bench.start(&[&["server", &spec, "--listen", &address], &sets[..]].concat());
    let url = format!("http://{address}");
    let client = bench.start(&[&["client", &spec, "--client", "silo/0", "--server", &url], &sets[..]].concat());
    let (_client, _server) = (client.wait().well(), server.wait().well());
    let measured = bench.report("out", "tiny").clients[0].peak_memory_bytes as f64;
    assert!((foretold - measured).abs() <= 0.2 * measured, "{foretold} bytes foretold, {measured} measured");
}

#[test]
fn without_the_data_the_figures_are_upper_bounds_and_say_so() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let exact = estimate(&bench, &spec, "Split-FedLLM", &[]);
    assert_eq!(exact["bound"], Value::Null);
    let gone = ["--set", "data.source.path=gone.csv", "--set", "data.labels=[bad, good]"];
    let bound = estimate(&bench, &spec, "Split-FedLLM", &gone);
    assert!(bound["bound"].as_str().unwrap().starts_with("cannot read gone.csv"), "{}", bound["bound"]);
    let bytes = |estimate| sum(estimate, |round| round["payloadBytes"]["up"].as_f64().unwrap());
    assert!(bytes(&bound) >= bytes(&exact), "{} and {}", bytes(&bound), bytes(&exact));
    let words = bench.fedtune(&[&["estimate", &spec], &gone[..]].concat()).well().stdout;
    assert!(words.contains("upper bounds, as cannot read gone.csv"), "{words}");
}
