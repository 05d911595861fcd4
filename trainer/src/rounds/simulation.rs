//! Drives the machine through thousands of runs in which everything goes wrong, and watches that no law is broken.
//! Must not use a clock or a thread: a seed is a run, always the same.
//!
//! A seed that breaks a law is printed with its history. To see it again:
//! `FEDTUNE_SEED=123 cargo test -p fedtune --lib rounds::simulation -- --nocapture`

use std::env;

use super::{Absence, Action, Client, Exchange};

mod witness;
mod world;

use witness::Violation;
use world::{Spoil, Tally, World};

/// The run of this seed, and what broke in it.
fn simulate(seed: u64, spoil: Spoil) -> (World, Result<(), Violation>) {
    let mut world = World::new(seed, spoil);
    let result = world.live();
    (world, result)
}

/// The run of this seed once more, told line by line.
fn history(seed: u64) -> String {
    let mut world = World::new(seed, |_| {});
    world.history = Some(Vec::new());
    // What broke is known.
    let _ = world.live();
    world.history.unwrap_or_default().join("\n")
}

fn assert_lawful(seed: u64) -> World {
    let (world, result) = simulate(seed, |_| {});
    if let Err(violation) = result {
        let again = format!("FEDTUNE_SEED={seed} cargo test -p fedtune --lib rounds::simulation -- --nocapture");
        panic!("{}\nseed {seed} broke a law: {violation}\nsee it again: {again}", history(seed));
    }
    world
}

#[test]
fn in_ten_thousand_faulty_runs_no_round_is_lost_none_is_stuck_and_nobody_counts_twice() {
    if let Some(seed) = env::var("FEDTUNE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        assert_lawful(seed);
        println!("{}", history(seed));
        return;
    }
    let mut tally = Tally::default();
    for seed in 0..10_000 {
        for (what, times) in assert_lawful(seed).tally.0 {
            *tally.0.entry(what).or_default() += times;
        }
    }
    println!("{tally:?}");
    let expected = [
        "joined",
        "session replaced",
        "frozen",
        "answer lost",
        "answer doubled",
        "abandoned",
        "left out",
        "closed complete",
        "closed without some",
        "server restarted",
        "finished",
        "failed",
    ];
    for what in expected {
        assert!(tally.0.get(what).is_some_and(|times| *times >= 500), "`{what}` is too rare to trust: {tally:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..300 {
        assert_eq!(assert_lawful(seed).said, assert_lawful(seed).said, "{}", Violation::NotReproducible);
    }
}

/// A law, what breaks it, and how its violation is known.
struct Broken {
    spoil: Spoil,
    noticed: fn(&Violation) -> bool,
}

/// Changes an exchange that closes, who counts, and who does not.
type Change = fn(&mut Exchange, &mut Vec<Client>, &mut Vec<(Client, Absence)>);

fn at_close(actions: &mut [Action], change: Change) {
    for action in actions {
        if let Action::Close { exchange, answered, absent } = action {
            change(exchange, answered, absent);
        }
    }
}

#[test]
fn the_witness_notices_every_law_that_is_broken() {
    let broken = [
        Broken {
            // An answer that comes twice counts twice.
            spoil: |actions| at_close(actions, |_, answered, _| answered.extend(answered.first().copied())),
            noticed: |violation| matches!(violation, Violation::CountedTwice(_)),
        },
        Broken {
            spoil: |actions| {
                at_close(actions, |_, answered, absent| {
                    answered.extend(absent.drain(..).map(|(client, _)| client));
                    answered.sort_unstable();
                });
            },
            noticed: |violation| matches!(violation, Violation::CountedWithoutAnswer(..)),
        },
        Broken {
            spoil: |actions| at_close(actions, |_, _, absent| absent.clear()),
            noticed: |violation| matches!(violation, Violation::Unaccounted(..)),
        },
        Broken {
            spoil: |actions| {
                at_close(actions, |_, answered, absent| {
                    absent.extend(answered.pop().map(|client| (client, Absence::Late)));
                });
            },
            noticed: |violation| matches!(violation, Violation::AnswerLost(..)),
        },
        Broken {
            spoil: |actions| at_close(actions, |exchange, _, _| exchange.round += 1),
            noticed: |violation| matches!(violation, Violation::OutOfOrder(..)),
        },
        Broken {
            spoil: |actions| {
                let closes = actions.iter_mut().filter(|action| matches!(action, Action::Close { .. }));
                closes.for_each(|action| *action = Action::Finish);
            },
            noticed: |violation| matches!(violation, Violation::RoundLost(..)),
        },
        Broken {
            spoil: |actions| actions.retain(|action| !matches!(action, Action::LeaveOut(..))),
            noticed: |violation| matches!(violation, Violation::AnswerLost(..)),
        },
        Broken {
            spoil: |actions| actions.retain(|action| !matches!(action, Action::Ask(..))),
            noticed: |violation| matches!(violation, Violation::NotAsked(_)),
        },
        Broken {
            spoil: |actions| actions.retain(|action| !matches!(action, Action::Abandon(..))),
            // In turns, the next turn then begins beside one that is not over.
            noticed: |violation| matches!(violation, Violation::NotAbandoned(_) | Violation::TwoTurns(..)),
        },
        Broken {
            spoil: |actions| {
                let asks: Vec<_> = actions.iter().filter(|a| matches!(a, Action::Ask(..))).cloned().collect();
                actions.extend(asks);
            },
            noticed: |violation| matches!(violation, Violation::AskedTwice(_)),
        },
    ];
    for (case, Broken { spoil, noticed }) in broken.iter().enumerate() {
        let first = (0..1_000).find_map(|seed| simulate(seed, *spoil).1.err());
        assert!(first.as_ref().is_some_and(noticed), "case {case}: {first:?}");
    }
}
