//! Messages that are fair in themselves and have no place: another round, attempt, epoch or phase.
//! Must not take the third out of the run: it says itself when it has enough.

use serde_json::json;

use super::{
    peer::{Peer, fair_answer, giving_up},
    scene::{FEDLLM, Held, KD, SPLIT_V1, alone, assert_refused, play, play_set},
};
use crate::{
    events::Event,
    refusal::RefusalReason,
    wire::{Message, Subject},
};

/// The third is asked, does what `offends` makes of a fair answer, is told why not, and gives up.
fn refuses(reason: RefusalReason, says: &str, offends: impl FnOnce(Message) -> Message + Send) {
    let ended = play(FEDLLM, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(offends(fair_answer(&ask)));
        assert_eq!(third.refusal(), says);
        third.give_up();
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(FEDLLM), "what was refused changed the global adapter");
}

macro_rules! places {
    ($($name:ident: $reason:ident, $says:literal, $offends:expr;)+) => {
        $(#[test]
        fn $name() {
            refuses(RefusalReason::$reason, $says, $offends);
        })+
    };
}

fn out_of_phase(subject: Subject) -> impl FnOnce(Message) -> Message {
    move |answer| Message { subject, ..answer }
}

places! {
    an_answer_of_an_old_round_is_refused_by_number: StaleRound,
        "silo/2 sent a upload of round 0, attempt 1, which is not open for it; round 1, attempt 1 is",
        |answer| Message { round: 0, ..answer };
    an_answer_of_a_future_round_is_refused_by_number: StaleRound,
        "silo/2 sent a upload of round 2, attempt 1, which is not open for it; round 1, attempt 1 is",
        |answer| Message { round: 2, ..answer };
    an_answer_of_the_last_round_of_all_numbers_is_refused_by_number: StaleRound,
        "silo/2 sent a upload of round 4294967295, attempt 1, which is not open for it; round 1, attempt 1 is",
        |answer| Message { round: u32::MAX, ..answer };
    an_answer_of_no_attempt_is_refused_by_number: StaleRound,
        "silo/2 sent a upload of round 1, attempt 0, which is not open for it; round 1, attempt 1 is",
        |answer| Message { attempt: 0, ..answer };
    an_answer_of_a_future_attempt_is_refused_by_number: StaleRound,
        "silo/2 sent a upload of round 1, attempt 2, which is not open for it; round 1, attempt 1 is",
        |answer| Message { attempt: 2, ..answer };
    an_answer_of_an_earlier_start_of_the_server_is_refused: StaleEpoch,
        "silo/2 sent a message of epoch 0, and this server's is 1", |answer| Message { epoch: 0, ..answer };
    an_answer_of_a_later_start_of_the_server_is_refused: StaleEpoch,
        "silo/2 sent a message of epoch 18446744073709551615, and this server's is 1",
        |answer| Message { epoch: u64::MAX, ..answer };
    an_exchange_reply_in_the_first_exchange_is_refused: Phase,
        "silo/2 sent a exchange reply where a upload belongs", out_of_phase(Subject::ExchangeReply);
    an_upload_in_a_later_exchange_is_refused: Phase,
        "silo/2 sent a upload where a exchange reply belongs", |answer| Message { step: 1, ..answer };
    a_welcome_from_a_client_is_refused: Phase, "silo/2 sent a welcome where a upload belongs",
        out_of_phase(Subject::Welcome);
    a_question_from_a_client_is_refused: Phase, "silo/2 sent a begin where a upload belongs",
        out_of_phase(Subject::Begin);
    a_further_question_from_a_client_is_refused: Phase, "silo/2 sent a exchange where a upload belongs",
        out_of_phase(Subject::Exchange);
    a_step_reply_from_a_client_is_refused: Phase, "silo/2 sent a step reply where a upload belongs",
        out_of_phase(Subject::StepReply);
    an_end_before_the_end_is_refused: Phase, "silo/2 sent a finish where a upload belongs",
        out_of_phase(Subject::Finish);
    a_replay_from_a_client_is_refused: Phase, "silo/2 sent a replay where a upload belongs",
        out_of_phase(Subject::Replay);
    a_second_join_in_a_session_is_refused: Phase, "silo/2 sent a join where a upload belongs",
        out_of_phase(Subject::Join);
    a_recall_of_no_round_is_refused: Protocol, "the fields of a recall cannot be read: after is no round",
        |answer| Message { fields: json!({ "after": "yesterday" }), tensors: Vec::new(), ..out_of_phase(Subject::Recall)(answer) };
    a_recall_of_a_round_that_never_was_is_refused: Protocol,
        "the fields of a recall cannot be read: the client did no round after 0",
        |answer| Message { fields: json!({ "after": 0 }), tensors: Vec::new(), ..out_of_phase(Subject::Recall)(answer) };
}

#[test]
fn an_answer_before_anyone_was_asked_is_refused() {
    let ended = play_set(FEDLLM, &[], Held::Engine, |third| {
        third.join();
        // The labels are frozen; the engine has not asked yet.
        let early = Message { attempt: 1, epoch: 1, ..Message::new(Subject::Upload, 1) };
        third.send(Message { round: 0, ..early });
        third.others.open();
        let told = third.refusal();
        assert!(told.starts_with("silo/2 sent a upload of round 0, attempt 1, which is not open for it"), "{told}");
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::StaleRound]);
    assert!(ended.adapter() == alone(FEDLLM));
}

/// Takes part in the first round, and is asked in the second.
fn take_part_once(third: &mut Peer) -> (Message, Message) {
    third.join();
    let first = third.wait_for(Subject::Begin);
    third.send(fair_answer(&first));
    let second = third.wait_for(Subject::Begin);
    assert_eq!(second.round, 2);
    (first, second)
}

#[test]
fn an_answer_of_the_round_before_changes_nothing_and_is_refused_by_number() {
    let calm = play(FEDLLM, |third| {
        take_part_once(third);
        third.give_up();
    });
    let ended = play(FEDLLM, |third| {
        let (first, _) = take_part_once(third);
        let says = "silo/2 sent a upload of round 1, attempt 1, which is not open for it; round 2, attempt 1 is";
        third.send(fair_answer(&first));
        assert_eq!(third.refusal(), says);
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::StaleRound]);
    assert!(ended.adapter() == calm.adapter());
}

#[test]
fn an_answer_of_an_old_attempt_is_refused_by_number() {
    let ended = play(FEDLLM, |third| {
        third.join();
        let first = third.wait_for(Subject::Begin);
        *third = third.back();
        assert_eq!(third.wait_for(Subject::Begin).attempt, 2);
        third.send(fair_answer(&first));
        let says = "silo/2 sent a upload of round 1, attempt 1, which is not open for it; round 1, attempt 2 is";
        assert_eq!(third.refusal(), says);
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::StaleRound]);
    assert!(ended.adapter() == alone(FEDLLM));
}

#[test]
fn an_answer_twice_counts_once() {
    let calm = play(FEDLLM, |third| {
        take_part_once(third);
        third.give_up();
    });
    let ended = play_set(FEDLLM, &[], Held::Clients, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(fair_answer(&ask));
        third.send(fair_answer(&ask));
        let told = third.refusal();
        assert_eq!(told, "silo/2 sent a upload of round 1, attempt 1, which is not open for it");
        third.others.open();
        third.wait_for(Subject::Begin);
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::StaleRound]);
    assert!(ended.adapter() == calm.adapter());
}

/// The third gives up with these fields; that is no refusal, and takes out nobody else.
fn gives_up(framework: &'static str, fields: &serde_json::Value, said: &str) {
    let ended = play(framework, |third| {
        third.join();
        third.wait_for(Subject::Begin);
        third.send(giving_up(fields));
    });
    assert_refused(&ended, &[]);
    let failed = ended.told.iter().find_map(|event| match event {
        Event::ClientFailed { client, reason } => Some((client.as_str(), reason.as_str())),
        _ => None,
    });
    assert_eq!(failed, Some(("silo/2", said)));
    assert!(ended.adapter() == alone(framework));
}

#[test]
fn a_client_that_gives_up_is_heard_and_takes_out_itself_alone() {
    gives_up(FEDLLM, &json!({ "reason": "the dog ate it" }), "the dog ate it");
}

#[test]
fn a_client_that_gives_up_without_a_reason_takes_out_itself_alone() {
    gives_up(KD, &json!(null), "gave up without a reason");
    gives_up(SPLIT_V1, &json!({ "reason": 7, "cause": [] }), "gave up without a reason");
}

#[test]
fn a_client_whose_loss_is_no_number_takes_out_itself_alone_where_others_are_enough() {
    let fields = json!({ "reason": "the loss became NaN", "cause": "NonFiniteLoss" });
    gives_up(FEDLLM, &fields, "the loss became NaN");
}

#[test]
fn a_reason_without_end_is_cut_and_stays_on_one_line() {
    let fields = json!({ "reason": format!("one\ntwo\u{1b}[31m{}", "x".repeat(60_000)) });
    gives_up(FEDLLM, &fields, &format!("one two [31m{}…", "x".repeat(988)));
}
