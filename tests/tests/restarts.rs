//! Processes that end in mid-run and are started again with the same command; folders that they must leave alone.
//! Must not depend on when exactly a process is ended: that is what `kills.rs` is for.

use std::fs;

use fedtune_tests::{Bench, Ended, Running, siege::quiet_address};

/// Enough that there is room for an end in the middle.
const ROUNDS: [&str; 2] = ["--set", "training.rounds=6"];

const DEBUG: [&str; 4] = ["--log", "fedtune=debug", "--log-format", "json"];

/// What the processes log in a phase.
fn phase(name: &str) -> String {
    format!("\"phase\":\"{name}\"")
}

fn run(bench: &Bench, spec: &str, out: &str, more: &[&str]) -> Running {
    bench.start(&[&["run", spec, "--out", out], &ROUNDS[..], &DEBUG, more].concat())
}

fn server(bench: &Bench, spec: &str, address: &str, out: &str) -> Running {
    bench.start(&[&["server", spec, "--listen", address, "--out", out], &ROUNDS[..], &DEBUG].concat())
}

fn client(bench: &Bench, spec: &str, id: &str, address: &str, out: &str) -> Running {
    let url = format!("http://{address}");
    bench.start(&[&["client", spec, "--client", id, "--server", &url, "--out", out], &ROUNDS[..], &DEBUG].concat())
}

/// Waits until the checkpoint of the round before `round` is durable and this round goes on.
fn wait_for_round(process: &mut Running, round: u32) {
    process.wait_for(&[&phase("round"), &format!("\"round\":{round}")]);
}

/// Asserts that the program ended on its own word.
fn assert_refused(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(78), "{ended:#?}");
    assert!(ended.stderr.contains(words), "{words:?} is not in\n{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked at"), "{}", ended.stderr);
}

fn assert_stopped(ended: &Ended, signal: &str, code: i32) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    let words = format!("stopped by {signal}; the same command goes on from the last finished round");
    assert!(ended.stderr.contains(&words), "{}", ended.stderr);
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was_and_a_fresh_one_starts_anew() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "kdFedLLM: {distillationSteps: 2}");
    let _whole = run(&bench, &spec, "out", &[]).wait().well();
    let mut killed = run(&bench, &spec, "again", &[]);
    wait_for_round(&mut killed, 4);
    drop(killed);
    let resumed = run(&bench, &spec, "again", &[]).wait().well();
    assert!(resumed.stderr.contains("tiny goes on after round 3"), "{}", resumed.stderr);
    assert!(!resumed.stderr.contains(&format!("{},\"round\":3", phase("round"))), "{}", resumed.stderr);
    assert!(bench.adapter("out", "tiny") == bench.adapter("again", "tiny"), "the adapters differ");
    let [whole, resumed] = ["out", "again"].map(|out| bench.report(out, "tiny"));
    assert_eq!(whole.final_figures, resumed.final_figures);
    assert_eq!(whole.totals.payload_bytes, resumed.totals.payload_bytes);

    let mut killed = run(&bench, &spec, "again", &["--fresh"]);
    wait_for_round(&mut killed, 3);
    drop(killed);
    let fresh = run(&bench, &spec, "again", &["--fresh"]).wait().well();
    assert!(!fresh.stderr.contains("goes on after"), "{}", fresh.stderr);
    assert!(bench.adapter("out", "tiny") == bench.adapter("again", "tiny"), "the adapters differ");
}

/// What is beside the base is everyone's state: the server's in its checkpoint, each client's in its own.
#[test]
fn flora_that_was_killed_writes_the_adapter_of_a_run_that_was_not() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {aggregation: FLoRA}");
    let _whole = run(&bench, &spec, "out", &[]).wait().well();
    let mut killed = run(&bench, &spec, "again", &[]);
    wait_for_round(&mut killed, 4);
    drop(killed);
    let resumed = run(&bench, &spec, "again", &[]).wait().well();
    assert!(resumed.stderr.contains("tiny goes on after round 3"), "{}", resumed.stderr);
    assert!(bench.adapter("out", "tiny") == bench.adapter("again", "tiny"), "the adapters differ");
    let [whole, resumed] = ["out", "again"].map(|out| bench.report(out, "tiny"));
    assert_eq!(whole.final_figures, resumed.final_figures);
    assert_eq!(whole.totals.payload_bytes, resumed.totals.payload_bytes);
}

#[test]
fn sigterm_and_sigint_end_a_run_which_then_goes_on() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    for (round, signal, code) in [(2, "TERM", 143), (4, "INT", 130)] {
        let mut running = run(&bench, &spec, "out", &[]);
        wait_for_round(&mut running, round);
        running.signal(signal);
        assert_stopped(&running.wait(), &format!("SIG{signal}"), code);
        assert!(!bench.path("out/tiny/results.json").exists(), "a run that was stopped has not failed");
    }
    let resumed = run(&bench, &spec, "out", &[]).wait().well();
    assert!(resumed.stderr.contains("tiny goes on after round "), "{}", resumed.stderr);
    let _whole = run(&bench, &spec, "whole", &[]).wait().well();
    assert!(bench.adapter("out", "tiny") == bench.adapter("whole", "tiny"), "the adapters differ");
}

#[test]
fn sigterm_ends_a_server_and_a_client_which_then_go_on() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "splitFedLLM: {cutLayer: 1}");
    let address = quiet_address();
    let mut first = server(&bench, &spec, &address, "apart");
    let [mut stopped, stays] = ["silo/0", "silo/1"].map(|id| client(&bench, &spec, id, &address, "apart"));
    wait_for_round(&mut first, 2);
    first.signal("TERM");
    assert_stopped(&first.wait(), "SIGTERM", 143);
    stopped.wait_for(&["the run failed: stopped by SIGTERM"]);
    stopped.signal("TERM");
    assert_stopped(&stopped.wait(), "SIGTERM", 143);

    let processes =
        [server(&bench, &spec, &address, "apart"), client(&bench, &spec, "silo/0", &address, "apart"), stays];
    let ended = processes.map(|process| process.wait().well());
    assert!(ended[0].stderr.contains("tiny goes on after round "), "{}", ended[0].stderr);
    let _whole = run(&bench, &spec, "out", &[]).wait().well();
    assert!(bench.adapter("out", "tiny") == bench.adapter("apart", "tiny"), "the adapters differ");
}

#[test]
fn a_second_server_on_the_folder_of_a_first_is_refused_also_with_fresh() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let address = quiet_address();
    let mut first = server(&bench, &spec, &address, "apart");
    let clients = ["silo/0", "silo/1"].map(|id| client(&bench, &spec, id, &address, "apart"));
    wait_for_round(&mut first, 1);
    // Where it stands still, it has not ended before the others are refused.
    first.signal("STOP");
    for more in [&[][..], &["--fresh"]] {
        let arguments = [&["server", &spec, "--listen", "127.0.0.1:0", "--out", "apart"], &ROUNDS[..], more].concat();
        assert_refused(&bench.fedtune(&arguments), "apart/tiny/checkpoint is in use by another process");
    }
    let arguments = [&["run", &spec, "--out", "apart"], &ROUNDS[..]].concat();
    assert_refused(&bench.fedtune(&arguments), "apart/tiny/checkpoint is in use by another process");
    assert!(!bench.path("apart/tiny/results.json").exists(), "a run that was refused wrote into another's folder");
    first.signal("CONT");
    let _ended = clients.map(|client| client.wait().well());
    let _ended = first.wait().well();
}

#[test]
fn a_client_with_states_and_its_server_may_share_a_folder_whoever_comes_first() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "localOnly: {}");
    let address = quiet_address();
    let url = format!("http://{address}");
    let impatient = ["client", &spec, "--client", "silo/0", "--server", &url, "--patience", "0"];
    let ended = bench.fedtune(&[&impatient, &ROUNDS[..]].concat());
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let first = server(&bench, &spec, &address, "out");
    let clients = ["silo/0", "silo/1"].map(|id| client(&bench, &spec, id, &address, "out"));
    let _ended = clients.map(|client| client.wait().well());
    let _ended = first.wait().well();
}

/// A run whose results are gone, so that it would go on from its checkpoints.
fn unfinished(framework: &str) -> (Bench, String) {
    let bench = Bench::new();
    let spec = bench.spec("tiny", framework);
    let _ended = run(&bench, &spec, "out", &[]).wait().well();
    fs::remove_file(bench.path("out/tiny/results.json")).expect("it was written");
    (bench, spec)
}

/// The run is refused with these words, and every file stays what it was.
fn assert_refused_untouched(bench: &Bench, spec: &str, words: &str) {
    let contents = |bench: &Bench| -> Vec<(String, Vec<u8>)> {
        let files = bench.files("out").into_iter().filter(|file| !file.ends_with("owner.json"));
        files.map(|file| (file.clone(), bench.read(&format!("out/{file}")))).collect()
    };
    let before = contents(bench);
    assert_refused(&run(bench, spec, "out", &[]).wait(), words);
    assert!(contents(bench) == before, "something was overwritten: {:?}", bench.files("out"));
}

fn cut_short(bench: &Bench, round: u32) {
    let name = format!("out/tiny/checkpoint/round-{round:05}.state");
    let bytes = bench.read(&name);
    bench.write(&name, &bytes[..bytes.len() - 7]);
}

#[test]
fn a_checkpoint_cut_short_is_passed_over_for_the_one_before_and_two_stop_the_run() {
    let (bench, spec) = unfinished("fedLLM: {}");
    let adapter = bench.adapter("out", "tiny");
    cut_short(&bench, 6);
    let resumed = run(&bench, &spec, "out", &[]).wait().well();
    assert!(resumed.stderr.contains("round-00006.state is no whole checkpoint"), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("tiny goes on after round 5"), "{}", resumed.stderr);
    assert!(bench.adapter("out", "tiny") == adapter, "the adapters differ");

    fs::remove_file(bench.path("out/tiny/results.json")).expect("it was written");
    for round in [5, 6] {
        cut_short(&bench, round);
    }
    assert_refused_untouched(&bench, &spec, "no checkpoint in out/tiny/checkpoint is whole, so the run cannot go on");
    let _anew = run(&bench, &spec, "out", &["--fresh"]).wait().well();
    assert!(bench.adapter("out", "tiny") == adapter, "the adapters differ");
}

#[test]
fn a_checkpoint_of_another_base_model_is_left_alone() {
    let (bench, spec) = unfinished("fedLLM: {}");
    let mut weights = bench.read("model/model.safetensors");
    *weights.last_mut().expect("it has weights") ^= 1;
    bench.write("model/model.safetensors", weights);
    assert_refused_untouched(&bench, &spec, "out/tiny/checkpoint holds checkpoints of another base model");
}

#[test]
fn a_checkpoint_of_a_newer_version_is_left_alone() {
    let (bench, spec) = unfinished("fedLLM: {}");
    let name = "out/tiny/checkpoint/owner.json";
    let owner = String::from_utf8(bench.read(name)).expect("JSON is text");
    let newer = owner.replacen("\"format\": 1", "\"format\": 99", 1);
    assert_ne!(newer, owner);
    bench.write(name, newer);
    assert_refused_untouched(&bench, &spec, "holds checkpoints in format 99, this program knows up to format 1");
}

#[test]
fn round_states_of_another_spec_are_left_alone() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "kdFedLLM: {}");
    let url = format!("http://{}", quiet_address());
    let seeded = |seed: &str| {
        let own = ["client", &spec, "--client", "silo/0", "--server", &url, "--patience", "0", "--state", "states"];
        bench.fedtune(&[&own[..], &["--set", seed]].concat())
    };
    assert_eq!(seeded("seed=42").code, Some(1));
    let owner = bench.read("states/clients/silo/0/owner.json");
    assert_refused(&seeded("seed=43"), "states/clients/silo/0 holds checkpoints of another spec");
    assert_eq!(bench.read("states/clients/silo/0/owner.json"), owner);
}
