//! The kill oracle: whatever process is killed, and whenever, the run ends with the same adapter to the last bit.
//! Must not choose moments that suit the program: they come from a seed, and every phase of the protocol has one.
//!
//! `FEDTUNE_KILLS=300` asks for more kills than there are by default, from further seeds; `FEDTUNE_SEED` is the first.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{collections::BTreeSet, env, time::Duration};

use fedtune_crds::report::{RunPhase, RunReport};
use fedtune_tests::{
    Bench,
    siege::{Kill, Phase, Side, Siege, Whom},
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

const CLIENTS: [&str; 2] = ["silo/0", "silo/1"];

/// Frameworks under siege, which share the kills that are asked for.
const FRAMEWORKS: usize = 5;

/// Sieges in which each phase must have had a kill.
const MOST_CHANCES: u64 = 4;

/// From the phase to the kill, at most.
const LONGEST_DELAY: u64 = 40;

const fn server(name: &'static str) -> Phase {
    Phase { side: Side::Server, name, exchange: 0 }
}

const fn client(name: &'static str) -> Phase {
    Phase { side: Side::Client, name, exchange: 0 }
}

const fn second(phase: Phase) -> Phase {
    Phase { exchange: 1, ..phase }
}

/// What every round has.
const ROUND: [Phase; 7] = [
    server("round"),
    server("close"),
    server("evaluate"),
    server("checkpoint"),
    client("join"),
    client("work"),
    client("upload"),
];

/// What rounds of two exchanges have besides.
const SECOND_EXCHANGE: [Phase; 3] = [second(server("close")), second(client("work")), second(client("upload"))];

/// What rounds with steps over the wire have besides.
const STEPS: [Phase; 1] = [server("step")];

/// After the last round.
const END: [Phase; 3] = [server("export"), server("farewell"), client("finish")];

/// A framework and the phases that its rounds have besides [`ROUND`].
struct Framework {
    yaml: &'static str,
    phases: &'static [Phase],
}

/// The first seed, and how many kills are asked for in all.
fn wanted() -> (u64, usize) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().unwrap());
    (number("FEDTUNE_SEED").unwrap_or(1), number("FEDTUNE_KILLS").unwrap_or(0) as usize)
}

/// Kills of a run, from a seed: each phase once, one of them with all processes, and the server once more while a client
/// is in the midst of its part.
fn kills(framework: &Framework, seed: u64) -> Vec<Kill> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let of_a_round = ROUND.iter().chain(framework.phases);
    let mut moments: Vec<(Phase, Whom)> = of_a_round.map(|phase| (*phase, Whom::Speaker)).collect();
    moments.shuffle(&mut random);
    moments[0].1 = Whom::All;
    let midst = moments[1..].iter().find(|(phase, _)| phase.side == Side::Client).map(|(phase, _)| *phase);
    moments.push((midst.unwrap(), Whom::Server));
    moments.shuffle(&mut random);
    let begin = (server("freeze"), Whom::Speaker);
    let end = END.iter().map(|phase| (*phase, Whom::Speaker));
    let moments: Vec<(Phase, Whom)> = [begin].into_iter().chain(moments).chain(end).collect();
    let kill = |(phase, whom): (Phase, Whom)| {
        // What is last is over at once.
        let is_last = END[1..].contains(&phase);
        let delay = Duration::from_millis(if is_last { 0 } else { random.random_range(0..=LONGEST_DELAY) });
        Kill { phase, whom, delay, from_round: 0, forgets: false }
    };
    moments.into_iter().map(kill).collect()
}

/// Enough rounds for the kills: from one to the next no more than one passes, and those of the end need none.
fn sets(kills: usize) -> Vec<String> {
    let rounds = format!("training.rounds={}", kills - END.len());
    ["--set", &rounds, "--set", "training.localSteps=2"].map(str::to_owned).to_vec()
}

/// The run of one process that nobody kills.
fn undisturbed(bench: &Bench, spec: &str, sets: &[&str]) -> RunReport {
    let _ended = bench.run(spec, sets).well();
    bench.report("out", "tiny")
}

/// The adapters below `out`: the global one, or the clients'.
fn adapters(bench: &Bench, out: &str) -> Vec<(String, Vec<u8>)> {
    let files = bench.files(&format!("{out}/tiny/adapter"));
    let weights = files.into_iter().filter(|file| file.ends_with("adapter_model.safetensors"));
    weights.map(|file| (file.clone(), bench.read(&format!("{out}/tiny/adapter/{file}")))).collect()
}

/// The results of `out` are those of the run that nobody disturbed.
fn assert_same(bench: &Bench, out: &str, expected: &RunReport, what: &str) {
    let (ours, theirs) = (adapters(bench, "out"), adapters(bench, out));
    assert!(!ours.is_empty() && ours == theirs, "{what}: the adapters differ");
    let report = bench.report(out, "tiny");
    assert_eq!(report.phase, RunPhase::Succeeded, "{what}");
    let rounds: Vec<u32> = report.rounds.iter().map(|round| round.round).collect();
    assert_eq!(rounds, (1..=expected.rounds.len() as u32).collect::<Vec<_>>(), "{what}");
    assert_eq!(report.final_figures, expected.final_figures, "{what}");
    assert_eq!(report.totals.payload_bytes, expected.totals.payload_bytes, "{what}");
    assert!(report.totals.client_flops >= expected.totals.client_flops, "{what}: work went uncounted");
}

/// Sieges from further and further seeds, until the framework had its share of the kills and each phase one.
fn survives_kills(framework: &Framework) {
    let (first, wanted) = wanted();
    let phases = [server("freeze")].into_iter().chain(ROUND).chain(framework.phases.iter().copied()).chain(END);
    let mut missing: BTreeSet<Phase> = phases.collect();
    let (mut done, mut seed) = (0, first);
    while done * FRAMEWORKS < wanted || !missing.is_empty() {
        // What is over in a moment may have ended before it could be killed; the next seed has another chance.
        let is_missing = done * FRAMEWORKS >= wanted && seed >= first + MOST_CHANCES;
        assert!(!is_missing, "{}, FEDTUNE_SEED={first}: no kill came in {missing:?}", framework.yaml);
        for phase in survives_kills_of(framework, seed) {
            missing.remove(&phase);
            done += 1;
        }
        seed += 1;
    }
    // Shown with --nocapture, and where a test fails.
    println!("{}: {done} kills", framework.yaml);
}

/// One siege; gives the phases in which a kill hit.
fn survives_kills_of(framework: &Framework, seed: u64) -> Vec<Phase> {
    let what = format!("{}, FEDTUNE_SEED={seed}", framework.yaml);
    let plan = kills(framework, seed);
    let sets = sets(plan.len());
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let bench = Bench::new();
    let spec = bench.spec("tiny", framework.yaml);
    let expected = undisturbed(&bench, &spec, &sets);
    let mut siege = Siege::begin(&bench, what.clone(), &spec, "apart", &CLIENTS, &sets);
    let hits = siege.strike_all(&plan);
    siege.end();
    assert_same(&bench, "apart", &expected, &what);
    plan.iter().zip(hits).filter(|(_, hit)| *hit > 0).map(|(kill, _)| kill.phase).collect()
}

#[test]
fn fedllm_killed_in_every_phase_gives_the_bits_of_a_run_that_nobody_killed() {
    survives_kills(&Framework { yaml: "fedLLM: {}", phases: &[] });
}

#[test]
fn kd_fedllm_killed_in_every_phase_gives_the_bits_of_a_run_that_nobody_killed() {
    survives_kills(&Framework { yaml: "kdFedLLM: {distillationSteps: 2}", phases: &SECOND_EXCHANGE });
}

#[test]
fn split_fedllm_v1_killed_in_every_phase_gives_the_bits_of_a_run_that_nobody_killed() {
    survives_kills(&Framework { yaml: "splitFedLLM: {cutLayer: 1, variant: V1}", phases: &STEPS });
}

#[test]
fn split_fedllm_v2_killed_in_every_phase_gives_the_bits_of_a_run_that_nobody_killed() {
    survives_kills(&Framework { yaml: "splitFedLLM: {cutLayer: 2, variant: V2}", phases: &STEPS });
}

#[test]
fn local_only_killed_in_every_phase_gives_the_bits_of_a_run_that_nobody_killed() {
    survives_kills(&Framework { yaml: "localOnly: {}", phases: &[] });
}

/// A client of KD that is killed twice: it loses its round states, and then again while it makes them anew.
#[test]
fn a_kd_client_that_lost_its_states_replays_and_gives_the_same_bits() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "kdFedLLM: {distillationSteps: 2}");
    let sets = ["--set", "training.rounds=5"];
    let expected = undisturbed(&bench, &spec, &sets);
    let forget =
        Kill { phase: client("work"), from_round: 4, delay: Duration::ZERO, whom: Whom::Speaker, forgets: true };
    let replay = Kill { phase: client("replay"), from_round: 0, forgets: false, ..forget };
    let mut siege = Siege::begin(&bench, "a client forgets".to_owned(), &spec, "apart", &CLIENTS, &sets);
    assert_eq!(siege.strike_all(&[forget, replay]), [1, 1]);
    siege.end();
    assert_same(&bench, "apart", &expected, "a client forgets");
    let retransmitted = |report: &RunReport| -> u64 {
        report.rounds.iter().flat_map(|round| &round.bytes).map(|count| count.retransmitted).sum()
    };
    assert_eq!(retransmitted(&expected), 0);
    assert!(retransmitted(&bench.report("apart", "tiny")) > 0, "what was sent again is not said");
}
