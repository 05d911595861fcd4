//! Disks that turn read-only in mid-run, and come back: the run ends with a sentence, and goes on from what was whole.
//! Must not depend on which round it is: the disk turns while some round is under way.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use fedtune_tests::{Bench, Ended, Running, mounts, siege::quiet_address};

const ROUNDS: u32 = 8;

/// Rounds that take longer than to turn a disk.
const SETS: [&str; 4] = ["--set", "training.rounds=8", "--set", "training.localSteps=40"];

const CAUSE: &str = "Read-only file system (os error 30)";

const DEBUG: [&str; 4] = ["--log", "fedtune=debug", "--log-format", "json"];

fn start(bench: &Bench, words: &[&str]) -> Running {
    bench.start(&[words, &SETS, &DEBUG].concat())
}

/// Waits until the checkpoint of round 1 is durable and round 2 goes on.
fn wait_for_round_2(process: &mut Running) {
    process.wait_for(&["\"phase\":\"round\"", "\"round\":2"]);
}

/// The last round that `folder`, below the bench, has a checkpoint of.
fn newest(bench: &Bench, folder: &str) -> u32 {
    let files = bench.files(folder);
    let rounds = files.iter().filter_map(|file| file.strip_prefix("round-")?.strip_suffix(".state"));
    rounds.map(|digits| digits.parse().unwrap()).max().unwrap()
}

fn assert_ended(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    assert!(ended.stderr.contains(words), "{words:?} is not in\n{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked at"), "{}", ended.stderr);
}

#[test]
fn a_disk_that_turns_read_only_in_mid_run_ends_it_and_the_same_command_goes_on() {
    if !mounts::enter("a_disk_that_turns_read_only_in_mid_run_ends_it_and_the_same_command_goes_on") {
        return;
    }
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let _whole = start(&bench, &["run", &spec, "--out", "out"]).wait().well();
    let command = ["run", &spec, "--out", "again"];
    let mut running = start(&bench, &command);
    wait_for_round_2(&mut running);
    mounts::turn_read_only(&bench.path("again"));
    let ended = running.wait();
    let reached = newest(&bench, "again/tiny/checkpoint");
    assert!((1..ROUNDS).contains(&reached), "{reached}");
    let file = format!("again/tiny/checkpoint/round-{:05}.state", reached + 1);
    assert_ended(&ended, 1, &format!("tiny: cannot write {file}: {CAUSE}"));
    assert_ended(&ended, 1, "; the checkpoints before it are untouched\n");
    // As long as it lasts, nothing begins.
    let refused = start(&bench, &command).wait();
    assert_ended(&refused, 78, &format!("again/tiny cannot be written: {CAUSE}"));

    mounts::turn_back(&bench.path("again"));
    let resumed = start(&bench, &command).wait().well();
    assert!(resumed.stderr.contains(&format!("tiny goes on after round {reached}")), "{}", resumed.stderr);
    assert!(bench.adapter("out", "tiny") == bench.adapter("again", "tiny"), "the adapters differ");
}

#[test]
fn a_client_whose_disk_turns_read_only_ends_alone_and_the_run_waits_for_it() {
    if !mounts::enter("a_client_whose_disk_turns_read_only_ends_alone_and_the_run_waits_for_it") {
        return;
    }
    let bench = Bench::new();
    let spec = bench.spec("tiny", "kdFedLLM: {distillationSteps: 2}");
    let _whole = start(&bench, &["run", &spec, "--out", "out"]).wait().well();
    let address = quiet_address();
    let url = format!("http://{address}");
    let client = |id: &str, state: &str| {
        start(&bench, &["client", &spec, "--client", id, "--server", &url, "--out", "apart", "--state", state])
    };
    let mut server = start(&bench, &["server", &spec, "--listen", &address, "--out", "apart"]);
    let [first, second] = [client("silo/0", "first"), client("silo/1", "second")];
    wait_for_round_2(&mut server);
    mounts::turn_read_only(&bench.path("first"));
    let ended = first.wait();
    let folder = "first/clients/silo/0";
    let reached = newest(&bench, folder);
    assert_ended(&ended, 1, &format!("cannot write {folder}/round-{:05}.state: {CAUSE}", reached + 1));

    mounts::turn_back(&bench.path("first"));
    let ended = [client("silo/0", "first"), second].map(|client| client.wait().well());
    assert!(ended.iter().all(|ended| !ended.stderr.contains("panicked at")));
    let _ended = server.wait().well();
    assert!(bench.adapter("out", "tiny") == bench.adapter("apart", "tiny"), "the adapters differ");
}
