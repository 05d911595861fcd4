//! Joins that cannot be, sessions beside sessions, and clients that send or receive without end.
//! Must not need a certificate to be refused: what is refused here is refused to every client.

use serde_json::{Value, json};

use super::{
    peer::{ME, Peer, announcement, fair_answer, join},
    scene::{FEDLLM, Held, KD, alone, assert_refused, play, play_set},
};
use crate::{
    events::Event,
    refusal::RefusalReason,
    wire::{Message, Subject},
};

/// The third joins with what `spoil` makes of a fair announcement, is told why not, and then joins as it should.
fn refuses_join(reason: RefusalReason, says: &str, last: bool, spoil: impl FnOnce(&mut Value) + Send) {
    let ended = play_set(FEDLLM, &["clients.groups[0].maxExamples=12"], Held::Nobody, |third| {
        let mut odd = announcement();
        spoil(&mut odd);
        third.send(join(&odd));
        let refusal = third.wait_for(Subject::Refuse);
        assert_eq!(refusal.fields, json!({ "reason": says, "final": last }));
        *third = third.back();
        third.give_up();
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(FEDLLM), "a refused join changed the global adapter");
}

#[test]
fn more_examples_than_the_spec_allows_are_refused() {
    let says = "client silo/2 claims 13 examples, and spec.clients.groups[].maxExamples allows 12";
    refuses_join(RefusalReason::Examples, says, true, |join| join["examples"] = json!(13));
    let says = "client silo/2 claims 18446744073709551615 examples, and spec.clients.groups[].maxExamples allows 12";
    refuses_join(RefusalReason::Examples, says, true, |join| join["examples"] = json!(u64::MAX));
}

#[test]
fn a_client_without_examples_is_refused() {
    refuses_join(RefusalReason::Examples, "client silo/2 has no examples", true, |join| join["examples"] = json!(0));
}

#[test]
fn more_labelled_examples_than_examples_are_refused() {
    let says = "client silo/2 claims 18446744073709551615 labelled examples of 12";
    let labels = json!({ "a": u64::MAX, "b": u64::MAX });
    refuses_join(RefusalReason::Examples, says, true, |join| join["labels"] = labels);
}

#[test]
fn labels_that_no_message_holds_are_refused() {
    let labels: std::collections::BTreeMap<String, u64> = (0..4000).map(|k| (format!("label-{k:05}"), 1)).collect();
    // The others have a, b and c.
    let bytes = 4000 * 14 + 3 * 4;
    let says = format!(
        "client silo/2 names labels that make {bytes} bytes with those of the others; at most 32768 are allowed"
    );
    let ended = play(FEDLLM, |third| {
        third.heard.wait_for(|event| matches!(event, Event::ClientJoined { joined: 2, .. }));
        let mut odd = announcement();
        odd["labels"] = json!(labels);
        odd["examples"] = json!(4000);
        third.send(join(&odd));
        assert_eq!(third.wait_for(Subject::Refuse).fields, json!({ "reason": says, "final": true }));
        *third = third.back();
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::TooLarge]);
    assert!(ended.adapter() == alone(FEDLLM));
}

/// A second session while the first is open, from another process or with other data.
fn refuses_return(reason: RefusalReason, says: &str, last: bool, spoil: impl FnOnce(&mut Value) + Send) {
    let ended = play_set(FEDLLM, &[], Held::Clients, |third| {
        third.join();
        third.wait_for(Subject::Begin);
        let mut odd = announcement();
        spoil(&mut odd);
        let mut second = third.again();
        second.send(join(&odd));
        let refusal = second.wait_for(Subject::Refuse);
        assert_eq!(refusal.fields, json!({ "reason": says, "final": last }));
        *third = third.back();
        third.give_up();
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(FEDLLM));
}

#[test]
fn a_second_process_for_a_client_that_is_connected_is_refused() {
    let says = "client silo/2 is connected already";
    refuses_return(RefusalReason::Duplicate, says, false, |join| join["incarnation"] = json!(78));
}

#[test]
fn a_client_that_comes_back_with_other_data_is_refused() {
    let says = "client silo/2 comes back with 11 examples, and joined this run with 12; \
                its data must stay as it was, labels too";
    refuses_return(RefusalReason::Examples, says, true, |join| {
        join["examples"] = json!(11);
        join["labels"] = json!({ "a": 11 });
    });
}

#[test]
fn a_process_that_comes_back_takes_the_place_of_its_old_session() {
    let ended = play_set(FEDLLM, &[], Held::Clients, |third| {
        third.join();
        third.wait_for(Subject::Begin);
        let mut second = third.back();
        assert_eq!(second.wait_for(Subject::Begin).attempt, 2);
        // The old session ends without a word: it is its own process that has gone on.
        assert_eq!(third.receive().map(|message| message.subject), Err("the session ended".to_owned()));
        *third = second;
        third.give_up();
    });
    assert_refused(&ended, &[]);
    assert!(ended.adapter() == alone(FEDLLM));
}

/// Is refused until its session ends.
fn wear_out(third: &mut Peer, ask: &Message) {
    for _ in 0..3 {
        third.send(Message { round: 0, ..fair_answer(ask) });
        assert!(third.refusal().contains("a upload of round 0"));
    }
    assert_eq!(third.receive().map(|message| message.subject), Err("the session ended".to_owned()));
}

#[test]
fn a_client_that_is_refused_three_times_is_sent_away_until_the_next_round() {
    let ended = play_set(FEDLLM, &[], Held::Clients, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        wear_out(third, &ask);
        third.heard.wait_for(|event| matches!(event, Event::ClientLeft { client } if client == ME));
        let mut soon = third.again();
        soon.send(join(&announcement()));
        let refusal = soon.wait_for(Subject::Refuse);
        let says = "client silo/2 was refused 3 times in this round; it may join the next";
        assert_eq!(refusal.fields, json!({ "reason": says, "final": false }));
        // The round closes although nobody's time is up.
        third.others.open();
        third.heard.wait_for(|event| matches!(event, Event::RoundStarted { round: 2, .. }));
    });
    assert_refused(
        &ended,
        &[RefusalReason::StaleRound, RefusalReason::StaleRound, RefusalReason::StaleRound, RefusalReason::Other],
    );
    assert!(ended.adapter() == alone(FEDLLM));
}

#[test]
fn a_client_that_was_sent_away_may_join_the_next_round() {
    let ended = play_set(FEDLLM, &[], Held::ClientsAfterAnAnswer, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        wear_out(third, &ask);
        third.heard.wait_for(|event| matches!(event, Event::RoundStarted { round: 2, .. }));
        *third = third.back();
        assert_eq!(third.wait_for(Subject::Begin).round, 2);
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::StaleRound; 3]);
    assert!(ended.adapter() == alone(FEDLLM));
}

#[test]
fn a_flood_of_steps_is_read_one_at_a_time() {
    let ended = play_set(FEDLLM, &[], Held::Engine, |third| {
        // The engine stands still as if it worked; whatever it is not done with waits at the client.
        third.join();
        let tensors = vec![super::answers::floats("t", fedtune_crds::report::PayloadKind::Adapter, &[64], 0.0)];
        third.flood(&Message { tensors, epoch: 1, attempt: 1, ..Message::new(Subject::Step, 9) });
        third.others.open();
        third.heard.wait_for(|event| matches!(event, Event::ClientLeft { client } if client == ME));
    });
    assert_refused(&ended, &[RefusalReason::StaleRound; 3]);
    assert_eq!(ended.outcome.ledger.total().retransmitted.up, 3 * 256, "more was read than was answered");
    assert!(ended.adapter() == alone(FEDLLM));
}

#[test]
fn a_client_that_asks_without_end_and_never_reads_loses_its_session() {
    let ended = play_set(KD, &[], Held::Nobody, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        let logits = super::answers::floats("logits", fedtune_crds::report::PayloadKind::Logits, &[8, 3], 0.0);
        third.send(Message { tensors: vec![logits], ..fair_answer(&ask) });
        let ask = third.wait_for(Subject::Exchange);
        third.send(Message { tensors: Vec::new(), ..fair_answer(&ask) });
        assert_eq!(third.wait_for(Subject::Begin).round, 2);
        // Each is answered with what was sent in the first round, until nothing more fits on the way.
        let fields = json!({ "after": 0 });
        third.flood(&Message { fields, epoch: 1, ..Message::new(Subject::Recall, 2) });
        third.heard.wait_for(|event| matches!(event, Event::ClientLeft { client } if client == ME));
        *third = third.back();
        third.give_up();
    });
    assert_refused(&ended, &[]);
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let ended = play(FEDLLM, |third| {
        third.send(join(&announcement()));
        third.heard.wait_for(|event| matches!(event, Event::RoundStarted { .. }));
        // Neither the welcome nor the question is read.
        third.give_up();
        third.heard.wait_for(|event| matches!(event, Event::RoundFinished { round: 2, .. }));
    });
    assert_refused(&ended, &[]);
    assert!(ended.adapter() == alone(FEDLLM));
}
