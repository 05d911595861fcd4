//! The real engine and real clients over a network in memory, with a simulated clock, through seeds of faults.
//! Must not wait for anything: time jumps to what happens next, and the same seed gives the same run.
//!
//! | file | one thing |
//! |---|---|
//! | `baton.rs` | client threads that run one at a time, and what they ask the world for |
//! | `world.rs` | server, clients and network: what happens next |
//! | `faults.rs` | what goes wrong, drawn from the seed |
//!
//! A failing seed is printed; `FEDTUNE_SEED=123 cargo test -p fedtune server::simulation` runs it alone.

use std::{sync::OnceLock, time::Duration};

use super::Outcome;
use crate::{plan::Plan, testing::plan};

mod baton;
mod faults;
mod world;

use faults::Faults;
use world::{Ending, World};

/// Seeds of each test; `FEDTUNE_SEEDS` asks for more.
const SEEDS: u64 = 50;

/// Every framework with clients, in its variants.
const FRAMEWORKS: [&str; 10] = [
    "fedLLM: {}",
    "kdFedLLM: {distillationSteps: 1}",
    "splitFedLLM: {variant: V1, cutLayer: 1}",
    "splitFedLLM: {variant: V2, cutLayer: 1}",
    "localOnly: {}",
    "kdFedLLM: {distillationSteps: 1, weighting: Confidence, logits: {topK: 2}}",
    "splitFedLLM: {variant: V2, cutLayer: 1, head: Client, activationCodec: INT8}",
    "fedLLM: {aggregation: FLoRA}",
    "fedLLM: {aggregation: FedExLoRA}",
    "fedLLM: {aggregation: FFALoRA, serverOptimizer: {fedYogi: {}}}",
];

/// A run whose timeouts outlast every outage: whoever is missing is waited for.
fn patient(framework: &str) -> &'static Plan {
    kept(plan(framework, &["participation.roundTimeout=100h", "participation.quorumTimeout=100h"]))
}

/// Client threads outlive no plan: there are few, and the test's process frees them.
fn kept(plan: Plan) -> &'static Plan {
    Box::leak(Box::new(plan))
}

/// A run that goes on without whoever is late.
fn impatient(framework: &str) -> &'static Plan {
    let sets = ["participation.minClients=1", "participation.roundTimeout=20s", "participation.quorumTimeout=60s"];
    kept(plan(framework, &[&sets[..], &["training.rounds=3"]].concat()))
}

/// The values of everything a run leaves: the global adapter, or each client's own.
fn fingerprint(ending: &Ending) -> Vec<u8> {
    let Ending::Finished { outcome, clients } = ending else { panic!("it did not finish: {ending:?}") };
    match outcome.half.model() {
        Some(_) => bytes(&outcome.half.save().unwrap()),
        None => clients.values().flat_map(bytes).collect(),
    }
}

fn bytes(snapshot: &crate::checkpoint::Snapshot) -> Vec<u8> {
    snapshot.tensors.iter().flat_map(|tensor| tensor.bytes.to_vec()).collect()
}

/// Runs the seeds of a test, or the one that the environment names.
fn each_seed(first: u64, run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let all = first..first + number("FEDTUNE_SEEDS").unwrap_or(SEEDS);
    let seeds = number("FEDTUNE_SEED").map_or(all, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        assert!(outcome.is_ok(), "seed {seed} failed; FEDTUNE_SEED={seed} runs it alone");
    }
}

/// Whatever breaks, a patient run ends with the bits of a run in which nothing did.
fn ends_with_the_same_bits(framework: usize) {
    static CALM: [OnceLock<Vec<u8>>; FRAMEWORKS.len()] = [const { OnceLock::new() }; FRAMEWORKS.len()];
    let plan = patient(FRAMEWORKS[framework]);
    let calm = CALM[framework].get_or_init(|| fingerprint(&World::new(plan, Faults::none()).live()));
    each_seed(1_000_000 * framework as u64, |seed| {
        let ending = World::new(plan, Faults::drawn(seed)).live();
        if fingerprint(&ending) != *calm {
            let history = World::new(plan, Faults::drawn(seed)).live_and_tell();
            panic!("seed {seed}: other bits than without faults\n{history}");
        }
        check_report(plan, &ending, seed);
    });
}

/// An impatient run loses no round and counts nobody twice; it ends, if only for want of a quorum.
fn keeps_its_account(framework: usize) {
    let plan = impatient(FRAMEWORKS[framework]);
    each_seed(1_000_000 * framework as u64 + 500_000, |seed| {
        let ending = World::new(plan, Faults::drawn(seed).with_outages()).live();
        check_report(plan, &ending, seed);
    });
}

/// Every round closed once and in order; everyone is either a participant or absent, and nobody both.
fn check_report(plan: &Plan, ending: &Ending, seed: u64) {
    let Ending::Finished { outcome, .. } = ending else {
        assert!(matches!(ending, Ending::QuorumLost), "seed {seed}: {ending:?}");
        return;
    };
    let Outcome { account, .. } = outcome.as_ref();
    let rounds: Vec<u32> = account.rounds().iter().map(|round| round.round).collect();
    assert_eq!(rounds, (1..=plan.rules.rounds).collect::<Vec<_>>(), "seed {seed}");
    for round in account.rounds() {
        let mut all: Vec<&String> = round.participants.iter().collect();
        all.dedup();
        assert_eq!(all.len(), round.participants.len(), "seed {seed}: somebody counts twice");
        let absent = |client: &String| round.absent.iter().any(|absence| absence.client == *client);
        let accounted = plan.clients.iter().map(ToString::to_string).all(|c| all.contains(&&c) || absent(&c));
        assert!(accounted, "seed {seed}: somebody is neither a participant nor absent: {round:?}");
        assert!(round.participants.len() >= plan.rules.min_clients, "seed {seed}: below the quorum");
    }
}

macro_rules! simulations {
    ($($calm:ident, $rough:ident: $framework:literal;)+) => {
        $(#[test]
        fn $calm() {
            ends_with_the_same_bits($framework);
        }

        #[test]
        fn $rough() {
            keeps_its_account($framework);
        })+
    };
}

simulations! {
    whatever_breaks_fedllm_ends_with_the_same_bits, an_impatient_fedllm_run_keeps_its_account: 0;
    whatever_breaks_kd_fedllm_ends_with_the_same_bits, an_impatient_kd_fedllm_run_keeps_its_account: 1;
    whatever_breaks_split_v1_ends_with_the_same_bits, an_impatient_split_v1_run_keeps_its_account: 2;
    whatever_breaks_split_v2_ends_with_the_same_bits, an_impatient_split_v2_run_keeps_its_account: 3;
    whatever_breaks_local_only_ends_with_the_same_bits, an_impatient_local_only_run_keeps_its_account: 4;
    whatever_breaks_kd_with_top_k_ends_with_the_same_bits, an_impatient_kd_run_with_top_k_keeps_its_account: 5;
    whatever_breaks_a_u_shaped_split_ends_with_the_same_bits, an_impatient_u_shaped_run_keeps_its_account: 6;
    whatever_breaks_flora_ends_with_the_same_bits, an_impatient_flora_run_keeps_its_account: 7;
}

#[test]
fn whatever_breaks_fedex_ends_with_the_same_bits() {
    ends_with_the_same_bits(8);
}

#[test]
fn whatever_breaks_a_server_optimizer_ends_with_the_same_bits() {
    ends_with_the_same_bits(9);
}

/// A disk that takes longer for one checkpoint than clients may take for a round and its quorum together.
#[test]
fn nobody_is_blamed_or_left_out_for_the_servers_slow_disk() {
    for framework in FRAMEWORKS {
        let plan = impatient(framework);
        let quick = World::new(plan, Faults::none()).live();
        let slow = World::new(plan, Faults::none()).with_slow_disk(Duration::from_secs(300)).live();
        check_report(plan, &slow, 0);
        let Ending::Finished { outcome, .. } = &slow else { panic!("{framework}: {slow:?}") };
        for round in outcome.account.rounds() {
            assert_eq!(round.participants.len(), plan.clients.len(), "{framework}: {round:?}");
        }
        assert!(fingerprint(&slow) == fingerprint(&quick), "{framework}: other bits than with a quick disk");
    }
}

#[test]
fn the_simulation_is_the_real_run_when_nothing_breaks() {
    use crate::{events::Events, run::local, testing::materials};
    let plan = patient(FRAMEWORKS[0]);
    let real = local::run(plan, &materials(plan, world::records_of(plan)), local::Kept::Nowhere, &Events::silent());
    let real = bytes(&real.unwrap().outcome.half.save().unwrap());
    assert!(fingerprint(&World::new(plan, Faults::none()).live()) == real);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let plan = impatient(FRAMEWORKS[1]);
    let history = |_| World::new(plan, Faults::drawn(7).with_outages()).live_and_tell();
    assert_eq!(history(0), history(1));
}

#[test]
fn the_faults_of_the_seeds_are_of_every_kind() {
    let plan = patient(FRAMEWORKS[1]);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let mut world = World::new(plan, Faults::drawn(1_000_000 + seed));
        world.run();
        seen.extend(world.faults.seen.iter().copied());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), faults::Kind::ALL);
}
