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
    if let Ok(seed) = env::var("FEDTUNE_SEED") {
        let seed = seed.parse().expect("FEDTUNE_SEED is the number of a seed");
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
        assert_eq!(assert_lawful(seed).said, assert_lawful(seed).said, "seed {seed}");
    }
}

/// A machine that breaks a law, and how that is noticed.
struct Broken {
    law: &'static str,
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
            law: "a doubled answer counts once",
            spoil: |actions| at_close(actions, |_, answered, _| answered.extend(answered.first().copied())),
            noticed: |violation| matches!(violation, Violation::CountedTwice(_)),
        },
        Broken {
            law: "only those that answered count",
            spoil: |actions| {
                at_close(actions, |_, answered, absent| {
                    answered.extend(absent.drain(..).map(|(client, _)| client));
                    answered.sort_unstable();
                });
            },
            noticed: |violation| matches!(violation, Violation::CountedWithoutAnswer(..)),
        },
        Broken {
            law: "all that take part are accounted for",
            spoil: |actions| at_close(actions, |_, _, absent| absent.clear()),
            noticed: |violation| matches!(violation, Violation::Unaccounted(..)),
        },
        Broken {
            law: "an answer that was taken counts",
            spoil: |actions| {
                at_close(actions, |_, answered, absent| {
                    absent.extend(answered.pop().map(|client| (client, Absence::Late)));
                });
            },
            noticed: |violation| matches!(violation, Violation::AnswerLost(..)),
        },
        Broken {
            law: "rounds close in order",
            spoil: |actions| at_close(actions, |exchange, _, _| exchange.round += 1),
            noticed: |violation| matches!(violation, Violation::OutOfOrder(..)),
        },
        Broken {
            law: "the run ends when all rounds are closed",
            spoil: |actions| {
                let closes = actions.iter_mut().filter(|action| matches!(action, Action::Close { .. }));
                closes.for_each(|action| *action = Action::Finish);
            },
            noticed: |violation| matches!(violation, Violation::RoundLost(..)),
        },
        Broken {
            law: "an answer that does not count is left out",
            spoil: |actions| actions.retain(|action| !matches!(action, Action::LeaveOut(..))),
            noticed: |violation| matches!(violation, Violation::AnswerLost(..)),
        },
        Broken {
            law: "everybody who can work is asked",
            spoil: |actions| actions.retain(|action| !matches!(action, Action::Ask(..))),
            noticed: |violation| matches!(violation, Violation::NotAsked(_)),
        },
        Broken {
            law: "unfinished work is abandoned before it begins again",
            spoil: |actions| actions.retain(|action| !matches!(action, Action::Abandon(..))),
            // In turns, the next turn then begins beside one that is not over.
            noticed: |violation| matches!(violation, Violation::NotAbandoned(_) | Violation::TwoTurns(..)),
        },
        Broken {
            law: "nobody is asked twice in a session",
            spoil: |actions| {
                let asks: Vec<_> = actions.iter().filter(|a| matches!(a, Action::Ask(..))).cloned().collect();
                actions.extend(asks);
            },
            noticed: |violation| matches!(violation, Violation::AskedTwice(_)),
        },
    ];
    for Broken { law, spoil, noticed } in broken {
        let first = (0..1_000).find_map(|seed| simulate(seed, spoil).1.err());
        assert!(first.as_ref().is_some_and(noticed), "{law}: {first:?}");
    }
}
