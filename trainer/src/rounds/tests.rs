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
fn a_fraction_asks_that_many_clients_and_others_each_round() {
    let sampled = |round| Rounds::new(Rules { fraction: 0.5, ..rules(8, 1) }, Duration::ZERO).sample(round);
    let rounds: BTreeSet<_> = (1..=8).map(sampled).collect();
    assert!(rounds.iter().all(|clients| clients.len() == 4));
    assert!(rounds.len() > 1);
    assert_eq!((sample_size(10, 0.01), sample_size(0, 1.0), sample_size(3, 1.0)), (1, 0, 3));
}
