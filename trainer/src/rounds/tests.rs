use std::collections::BTreeSet;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn rules(clients: usize, min_clients: usize) -> Rules {
    Rules {
        clients,
        min_clients,
        fraction: 1.0,
        rounds: 2,
        exchanges: 1,
        turns: false,
        round_timeout: 10 * MINUTE,
        quorum_timeout: 5 * MINUTE,
        seed: 42,
    }
}

fn exchange(round: u32, index: u32) -> Exchange {
    Exchange { round, index }
}

fn joined(clients: usize) -> Vec<Event> {
    (0..clients).map(Event::Joined).collect()
}

/// A machine whose first round is open.
fn started(rules: Rules) -> (Rounds, Vec<Action>) {
    let clients = rules.clients;
    let mut rounds = Rounds::new(rules, Duration::ZERO);
    let actions = rounds.tick(Duration::ZERO, &joined(clients));
    (rounds, actions)
}

#[test]
fn a_round_begins_when_all_clients_have_joined() {
    let mut rounds = Rounds::new(rules(2, 2), Duration::ZERO);
    assert_eq!(rounds.tick(MINUTE, &[Event::Joined(1)]), []);
    let asked = rounds.tick(MINUTE, &[Event::Joined(0)]);
    let first = exchange(1, 0);
    assert_eq!(asked, [Action::Freeze, Action::Ask(0, first), Action::Ask(1, first)]);
}

/// The first checkpoint may take longer than a client may take for its answer.
#[test]
fn the_time_that_freezing_takes_is_not_the_clients() {
    for turns in [false, true] {
        let (mut rounds, _) = started(Rules { turns, ..rules(2, 2) });
        rounds.frozen(20 * MINUTE);
        assert_eq!(rounds.tick(29 * MINUTE, &[]), [], "turns: {turns}");
        // A turn has its 10 minutes, a round of all at once 5 more for its quorum.
        assert_eq!(rounds.deadline(), Some(if turns { 30 * MINUTE } else { 35 * MINUTE }), "turns: {turns}");
    }
}

#[test]
fn after_the_last_round_the_run_is_finished() {
    let (mut rounds, _) = started(rules(1, 1));
    for round in 1..=2 {
        let actions = rounds.tick(MINUTE, &[Event::Answered(0, exchange(round, 0))]);
        assert!(matches!(&actions[..], [Action::Close { answered, .. }] if answered == &[0]), "{actions:?}");
        let actions = rounds.tick(MINUTE, &[Event::Closed]);
        let expected = if round == 1 { Action::Ask(0, exchange(2, 0)) } else { Action::Finish };
        assert_eq!(actions, [expected]);
    }
}

#[test]
fn a_late_client_is_left_out_and_named() {
    let (mut rounds, _) = started(rules(3, 2));
    let answers = [Event::Answered(2, exchange(1, 0)), Event::Answered(0, exchange(1, 0))];
    assert_eq!(rounds.tick(MINUTE, &answers), []);
    assert_eq!(rounds.deadline(), Some(10 * MINUTE));
    let closed = rounds.tick(10 * MINUTE, &[]);
    let close = Action::Close { exchange: exchange(1, 0), answered: vec![0, 2], absent: vec![(1, Absence::Late)] };
    assert_eq!(closed, [close]);
    let late = rounds.tick(11 * MINUTE, &[Event::Answered(1, exchange(1, 0))]);
    assert_eq!(late, [Action::LeaveOut(1, exchange(1, 0))]);
}

#[test]
fn a_client_that_returns_before_its_round_closes_redoes_that_round() {
    let (mut rounds, _) = started(rules(2, 1));
    assert_eq!(rounds.tick(MINUTE, &[Event::Left(1)]), []);
    let again = rounds.tick(2 * MINUTE, &[Event::Joined(1)]);
    assert_eq!(again, [Action::Abandon(1, exchange(1, 0)), Action::Ask(1, exchange(1, 0))]);
}

#[test]
fn a_client_that_is_away_when_its_round_closes_joins_the_next() {
    let (mut rounds, _) = started(rules(2, 1));
    rounds.tick(MINUTE, &[Event::Left(1), Event::Answered(0, exchange(1, 0))]);
    let closed = rounds.tick(10 * MINUTE, &[]);
    assert!(matches!(&closed[..], [Action::Close { absent, .. }] if absent == &[(1, Absence::Away)]), "{closed:?}");
    assert_eq!(rounds.tick(10 * MINUTE, &[Event::Joined(1)]), []);
    let next = rounds.tick(10 * MINUTE, &[Event::Closed]);
    assert_eq!(next, [Action::Ask(0, exchange(2, 0)), Action::Ask(1, exchange(2, 0))]);
}

#[test]
fn without_a_quorum_the_run_fails_after_both_timeouts() {
    let (mut rounds, _) = started(rules(3, 2));
    rounds.tick(MINUTE, &[Event::Answered(0, exchange(1, 0))]);
    assert_eq!(rounds.deadline(), Some(15 * MINUTE));
    assert_eq!(rounds.tick(14 * MINUTE, &[]), []);
    let failed = rounds.tick(15 * MINUTE, &[]);
    let failure = Failure::QuorumLost { round: 1, answered: 1, needed: 2, waited: 15 * MINUTE };
    assert_eq!(failed, [Action::Fail(failure)]);
}

#[test]
fn a_quorum_that_comes_late_closes_the_round_at_once() {
    let (mut rounds, _) = started(rules(3, 2));
    rounds.tick(MINUTE, &[Event::Answered(0, exchange(1, 0))]);
    let closed = rounds.tick(12 * MINUTE, &[Event::Answered(2, exchange(1, 0))]);
    assert!(matches!(&closed[..], [Action::Close { answered, .. }] if answered == &[0, 2]), "{closed:?}");
}

#[test]
fn a_second_exchange_asks_those_that_answered_the_first() {
    let (mut rounds, _) = started(Rules { exchanges: 2, ..rules(3, 2) });
    rounds.tick(MINUTE, &[Event::Answered(0, exchange(1, 0)), Event::Answered(2, exchange(1, 0))]);
    rounds.tick(10 * MINUTE, &[]);
    let asked = rounds.tick(10 * MINUTE, &[Event::Closed]);
    assert_eq!(asked, [Action::Ask(0, exchange(1, 1)), Action::Ask(2, exchange(1, 1))]);
}

#[test]
fn turns_are_taken_one_after_another_in_an_order_drawn_each_round() {
    let (mut rounds, actions) = started(Rules { turns: true, rounds: 8, ..rules(4, 4) });
    let mut orders = BTreeSet::new();
    let mut next = actions[1..].to_vec();
    for round in 1..=8 {
        let mut order = Vec::new();
        while let [Action::Ask(client, at)] = next[..] {
            assert_eq!(at, exchange(round, 0));
            order.push(client);
            next = rounds.tick(MINUTE, &[Event::Answered(client, at)]);
        }
        assert!(matches!(&next[..], [Action::Close { answered, .. }] if answered == &[0, 1, 2, 3]), "{next:?}");
        next = rounds.tick(MINUTE, &[Event::Closed]);
        orders.insert(order);
    }
    assert!(orders.len() > 1, "8 rounds drew the same order: {orders:?}");
}

#[test]
fn a_turn_that_is_not_taken_in_time_is_rolled_back_and_passed_over() {
    let (mut rounds, actions) = started(Rules { turns: true, ..rules(2, 1) });
    let Action::Ask(first, _) = actions[1] else { panic!("{actions:?}") };
    let passed = rounds.tick(10 * MINUTE, &[]);
    assert_eq!(passed, [Action::Abandon(first, exchange(1, 0)), Action::Ask(1 - first, exchange(1, 0))]);
    let closed = rounds.tick(11 * MINUTE, &[Event::Answered(1 - first, exchange(1, 0))]);
    assert!(matches!(&closed[..], [Action::Close { absent, .. }] if absent == &[(first, Absence::Late)]), "{closed:?}");
}

#[test]
fn an_answer_to_another_exchange_does_not_count() {
    let (mut rounds, _) = started(Rules { exchanges: 2, ..rules(1, 1) });
    for other in [exchange(0, 0), exchange(1, 1), exchange(2, 0)] {
        assert!(!rounds.waits_for(0, other));
        assert_eq!(rounds.tick(MINUTE, &[Event::Answered(0, other)]), [Action::LeaveOut(0, other)]);
    }
}

#[test]
fn a_round_without_a_single_answer_never_closes() {
    let (mut rounds, _) = started(rules(2, 0));
    assert_eq!(rounds.tick(10 * MINUTE, &[]), []);
    assert!(matches!(rounds.tick(15 * MINUTE, &[])[..], [Action::Fail(_)]));
}

#[test]
fn an_answer_out_of_turn_is_refused() {
    let (mut rounds, actions) = started(Rules { turns: true, ..rules(2, 2) });
    let Action::Ask(first, at) = actions[1] else { panic!("{actions:?}") };
    assert_eq!(rounds.tick(MINUTE, &[Event::Answered(1 - first, at)]), [Action::LeaveOut(1 - first, at)]);
}

#[test]
fn a_run_without_clients_closes_each_round_at_once() {
    let (mut rounds, actions) = started(rules(0, 0));
    assert!(matches!(&actions[..], [Action::Freeze, Action::Close { .. }]), "{actions:?}");
    assert!(matches!(&rounds.tick(MINUTE, &[Event::Closed])[..], [Action::Close { .. }]));
    assert_eq!(rounds.tick(MINUTE, &[Event::Closed]), [Action::Finish]);
}

#[test]
fn a_run_of_which_enough_is_done_is_finished_before_its_last_round() {
    let (mut rounds, _) = started(rules(2, 2));
    // Before a round closes there is nothing to end.
    assert_eq!(rounds.tick(MINUTE, &[Event::Enough]), []);
    let answers = [0, 1].map(|client| Event::Answered(client, exchange(1, 0)));
    assert!(matches!(&rounds.tick(MINUTE, &answers)[..], [Action::Close { .. }]));
    assert_eq!(rounds.tick(MINUTE, &[Event::Enough]), [Action::Finish]);
    assert_eq!((rounds.tick(MINUTE, &[Event::Joined(0)]), rounds.deadline()), (vec![], None));
}

#[test]
fn a_fraction_asks_that_many_clients_and_others_each_round() {
    let rules = Rules { fraction: 0.5, ..rules(8, 1) };
    let rounds: BTreeSet<_> = (1..=8).map(|round| rules.sample(round)).collect();
    assert!(rounds.iter().all(|clients| clients.len() == 4));
    assert!(rounds.len() > 1);
    assert_eq!((sample_size(10, 0.01), sample_size(0, 1.0), sample_size(3, 1.0)), (1, 0, 3));
}

#[test]
fn a_client_that_joins_late_is_asked_without_anything_to_forget() {
    let mut rounds = Rounds::new(rules(2, 1), Duration::ZERO);
    rounds.tick(Duration::ZERO, &[Event::Joined(0)]);
    let first = exchange(1, 0);
    assert_eq!(rounds.tick(10 * MINUTE, &[]), [Action::Freeze, Action::Ask(0, first)]);
    assert_eq!(rounds.tick(11 * MINUTE, &[Event::Joined(1)]), [Action::Ask(1, first)]);
}

#[test]
fn a_session_that_replaces_another_begins_its_exchange_again() {
    let (mut rounds, _) = started(rules(2, 2));
    let first = exchange(1, 0);
    let again = rounds.tick(MINUTE, &[Event::Joined(1)]);
    assert_eq!(again, [Action::Abandon(1, first), Action::Ask(1, first)]);
    rounds.tick(MINUTE, &[Event::Answered(1, first)]);
    assert_eq!(rounds.tick(2 * MINUTE, &[Event::Joined(1)]), []);
}

#[test]
fn an_answer_that_comes_before_the_client_is_asked_again_does_not_count() {
    let (mut rounds, _) = started(rules(2, 2));
    let first = exchange(1, 0);
    let actions = rounds.tick(MINUTE, &[Event::Joined(1), Event::Answered(1, first)]);
    assert_eq!(actions, [Action::Abandon(1, first), Action::LeaveOut(1, first), Action::Ask(1, first)]);
    assert!(rounds.waits_for(1, first));
}

#[test]
fn after_a_restart_the_next_round_is_open_and_who_joins_is_asked() {
    let mut rounds = Rounds::resume(Rules { exchanges: 2, ..rules(2, 2) }, 1, MINUTE);
    let second = exchange(2, 0);
    assert_eq!(rounds.exchange(), Some(second));
    assert_eq!(rounds.tick(MINUTE, &[]), []);
    assert_eq!(rounds.waiting_for(), [0, 1]);
    assert_eq!(rounds.tick(2 * MINUTE, &[Event::Joined(1)]), [Action::Ask(1, second)]);
    assert_eq!(rounds.deadline(), Some(16 * MINUTE));
}

#[test]
fn after_a_restart_the_first_turn_is_its_clients_own_as_if_nothing_had_been() {
    let rules = Rules { turns: true, ..rules(3, 3) };
    let (_, actions) = started(rules.clone());
    let Action::Ask(first, at) = actions[1] else { panic!("{actions:?}") };
    let mut rounds = Rounds::resume(rules, 0, Duration::ZERO);
    assert_eq!(rounds.tick(MINUTE, &[]), []);
    assert_eq!(rounds.waiting_for(), [first]);
    assert_eq!(rounds.tick(MINUTE, &joined(3)), [Action::Ask(first, at)]);
}

#[test]
fn after_a_restart_with_all_rounds_closed_the_run_is_finished_at_once() {
    let mut rounds = Rounds::resume(rules(2, 2), 2, MINUTE);
    assert_eq!(rounds.tick(MINUTE, &[]), [Action::Finish]);
    assert_eq!((rounds.tick(MINUTE, &joined(2)), rounds.deadline()), (vec![], None));
}

#[test]
fn after_a_restart_a_run_without_clients_goes_on_at_once() {
    let mut rounds = Rounds::resume(rules(0, 0), 1, MINUTE);
    assert!(matches!(&rounds.tick(MINUTE, &[])[..], [Action::Close { exchange: Exchange { round: 2, .. }, .. }]));
}

#[test]
fn a_client_that_gave_up_is_not_waited_for() {
    let (mut rounds, _) = started(rules(3, 2));
    let answers = [Event::Answered(2, exchange(1, 0)), Event::Answered(0, exchange(1, 0))];
    assert_eq!(rounds.tick(MINUTE, &answers), []);
    let closed = rounds.tick(2 * MINUTE, &[Event::GaveUp(1)]);
    let absent = vec![(1, Absence::GaveUp)];
    assert_eq!(closed, [Action::Close { exchange: exchange(1, 0), answered: vec![0, 2], absent }]);
    // It is connected, and said that it cannot go on: nobody asks it.
    let next = rounds.tick(2 * MINUTE, &[Event::Closed]);
    assert_eq!(next, [Action::Ask(0, exchange(2, 0)), Action::Ask(2, exchange(2, 0))]);
    assert_eq!(rounds.waiting_for(), [0, 2]);
}

#[test]
fn a_client_that_gave_up_is_asked_again_when_it_comes_back() {
    let (mut rounds, _) = started(rules(2, 2));
    let first = exchange(1, 0);
    rounds.tick(MINUTE, &[Event::Answered(0, first), Event::GaveUp(1), Event::Left(1)]);
    assert_eq!(rounds.waiting_for(), [1], "without it there is no quorum");
    assert_eq!(rounds.deadline(), Some(15 * MINUTE));
    let again = rounds.tick(2 * MINUTE, &[Event::Joined(1)]);
    assert_eq!(again, [Action::Abandon(1, first), Action::Ask(1, first)]);
    let closed = rounds.tick(3 * MINUTE, &[Event::Answered(1, first)]);
    assert!(matches!(&closed[..], [Action::Close { absent, .. }] if absent.is_empty()), "{closed:?}");
}

#[test]
fn an_answer_after_giving_up_does_not_count() {
    let (mut rounds, _) = started(rules(2, 2));
    let first = exchange(1, 0);
    assert_eq!(rounds.tick(MINUTE, &[Event::GaveUp(1), Event::Answered(1, first)]), [Action::LeaveOut(1, first)]);
}

#[test]
fn joining_does_not_wait_for_one_that_gave_up() {
    let mut rounds = Rounds::new(rules(3, 2), Duration::ZERO);
    assert_eq!(rounds.tick(MINUTE, &[Event::Joined(0), Event::Joined(1), Event::GaveUp(1)]), []);
    assert_eq!((rounds.waiting_for(), rounds.deadline()), (vec![2], Some(15 * MINUTE)));
    let frozen = rounds.tick(MINUTE, &[Event::Joined(2)]);
    assert_eq!(frozen, [Action::Freeze, Action::Ask(0, exchange(1, 0)), Action::Ask(2, exchange(1, 0))]);
}

#[test]
fn joining_waits_for_all_clients_even_where_a_round_asks_a_share() {
    let mut rounds = Rounds::new(Rules { fraction: 0.25, ..rules(4, 3) }, Duration::ZERO);
    assert_eq!(rounds.tick(MINUTE, &joined(3)), []);
    assert_eq!((rounds.waiting_for(), rounds.deadline()), (vec![3], Some(10 * MINUTE)));
    let frozen = rounds.tick(MINUTE, &[Event::Joined(3)]);
    assert!(matches!(frozen[..], [Action::Freeze, Action::Ask(..)]), "{frozen:?}");
}

#[test]
fn where_fewer_are_asked_than_must_answer_all_of_them_must() {
    let (mut rounds, actions) = started(Rules { fraction: 0.5, ..rules(4, 4) });
    let [_, Action::Ask(one, at), Action::Ask(other, _)] = actions[..] else { panic!("{actions:?}") };
    rounds.tick(MINUTE, &[Event::Answered(one, at)]);
    assert_eq!(rounds.tick(14 * MINUTE, &[]), []);
    let closed = rounds.tick(14 * MINUTE, &[Event::Answered(other, at)]);
    assert!(matches!(closed[..], [Action::Close { .. }]), "{closed:?}");
}

#[test]
fn a_turn_stays_open_for_a_client_that_left_until_its_time_is_up() {
    let (mut rounds, actions) = started(Rules { turns: true, ..rules(2, 1) });
    let Action::Ask(first, at) = actions[1] else { panic!("{actions:?}") };
    assert_eq!(rounds.tick(MINUTE, &[Event::Left(first)]), []);
    assert_eq!(rounds.waiting_for(), [first]);
    let back = rounds.tick(2 * MINUTE, &[Event::Joined(first)]);
    assert_eq!(back, [Action::Abandon(first, at), Action::Ask(first, at)]);
    assert_eq!(rounds.deadline(), Some(10 * MINUTE));
}

#[test]
fn a_client_that_gives_up_in_its_turn_is_passed_over_at_once() {
    let (mut rounds, actions) = started(Rules { turns: true, ..rules(2, 1) });
    let Action::Ask(first, at) = actions[1] else { panic!("{actions:?}") };
    let passed = rounds.tick(MINUTE, &[Event::GaveUp(first)]);
    assert_eq!(passed, [Action::Abandon(first, at), Action::Ask(1 - first, at)]);
    let closed = rounds.tick(2 * MINUTE, &[Event::Answered(1 - first, at)]);
    assert!(
        matches!(&closed[..], [Action::Close { absent, .. }] if absent == &[(first, Absence::GaveUp)]),
        "{closed:?}"
    );
}

#[test]
fn a_client_that_gave_up_before_its_turn_gets_none() {
    let (mut rounds, actions) = started(Rules { turns: true, ..rules(2, 1) });
    let Action::Ask(first, at) = actions[1] else { panic!("{actions:?}") };
    assert_eq!(rounds.tick(MINUTE, &[Event::GaveUp(1 - first)]), []);
    let closed = rounds.tick(MINUTE, &[Event::Answered(first, at)]);
    assert!(matches!(closed[..], [Action::Close { .. }]), "{closed:?}");
}

#[test]
fn with_too_few_turns_taken_who_comes_back_gets_another() {
    let (mut rounds, actions) = started(Rules { turns: true, ..rules(2, 2) });
    let Action::Ask(first, at) = actions[1] else { panic!("{actions:?}") };
    rounds.tick(MINUTE, &[Event::Left(first)]);
    rounds.tick(10 * MINUTE, &[]);
    assert_eq!(rounds.tick(11 * MINUTE, &[Event::Answered(1 - first, at)]), []);
    assert_eq!((rounds.waiting_for(), rounds.deadline()), (vec![first], Some(16 * MINUTE)));
    assert_eq!(rounds.tick(12 * MINUTE, &[Event::Joined(first)]), [Action::Ask(first, at)]);
    let closed = rounds.tick(13 * MINUTE, &[Event::Answered(first, at)]);
    assert!(matches!(&closed[..], [Action::Close { absent, .. }] if absent.is_empty()), "{closed:?}");
}

#[test]
fn another_turn_is_not_given_to_one_that_came_back_and_left_again() {
    let rules = Rules { turns: true, ..rules(3, 3) };
    let order = rules.sample(1);
    let mut rounds = Rounds::resume(rules, 0, Duration::ZERO);
    for minutes in [0, 10, 20] {
        assert_eq!(rounds.tick(minutes * MINUTE, &[]), []);
    }
    rounds.tick(21 * MINUTE, &[Event::Joined(order[0]), Event::Joined(order[1])]);
    rounds.tick(22 * MINUTE, &[Event::Left(order[0])]);
    assert_eq!(rounds.tick(30 * MINUTE, &[]), [Action::Ask(order[1], exchange(1, 0))]);
}

#[test]
fn one_that_joins_at_the_last_moment_of_its_turn_is_not_forgotten() {
    let rules = Rules { turns: true, ..rules(1, 1) };
    let mut rounds = Rounds::resume(rules, 0, Duration::ZERO);
    assert_eq!(rounds.tick(Duration::ZERO, &[]), []);
    assert_eq!(rounds.tick(10 * MINUTE, &[Event::Joined(0)]), [Action::Ask(0, exchange(1, 0))]);
}

#[test]
fn with_too_few_turns_taken_the_run_fails_when_the_quorum_timeout_has_passed() {
    let (mut rounds, actions) = started(Rules { turns: true, ..rules(2, 2) });
    let Action::Ask(first, at) = actions[1] else { panic!("{actions:?}") };
    rounds.tick(10 * MINUTE, &[]);
    // Still in the session in which it was passed over, it gets no other turn.
    assert_eq!(rounds.tick(11 * MINUTE, &[Event::Answered(1 - first, at)]), []);
    let failure = Failure::QuorumLost { round: 1, answered: 1, needed: 2, waited: 16 * MINUTE };
    assert_eq!(rounds.tick(16 * MINUTE, &[]), [Action::Fail(failure)]);
}

#[test]
fn timeouts_past_the_end_of_time_are_no_timeouts() {
    for turns in [false, true] {
        let forever = Rules { turns, round_timeout: Duration::MAX, quorum_timeout: Duration::MAX, ..rules(2, 2) };
        let mut rounds = Rounds::new(forever.clone(), MINUTE);
        assert_eq!((rounds.tick(MINUTE, &[]), rounds.deadline()), (vec![], None));
        let mut rounds = Rounds::resume(forever, 0, MINUTE);
        assert_eq!((rounds.tick(Duration::MAX, &[]), rounds.deadline()), (vec![], None));
    }
}

#[test]
fn one_that_is_not_of_the_run_changes_nothing() {
    let mut rounds = Rounds::new(rules(2, 2), Duration::ZERO);
    let before = rounds.clone();
    assert_eq!(rounds.tick(MINUTE, &[Event::Joined(2), Event::GaveUp(7), Event::Left(9)]), []);
    assert_eq!(rounds, before);
}
