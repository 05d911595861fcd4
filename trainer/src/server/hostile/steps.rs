//! Steps of a Split turn: activations, lengths and labels that cannot be, and steps that have no place.
//! Must not leave a trace in the back: what a refused client's steps made is rolled back.

use fedtune_crds::report::PayloadKind;

use super::{
    answers::floats,
    peer::{Peer, fair_answer},
    scene::{FEDLLM, Held, SPLIT_V1, SPLIT_V2, alone, assert_refused, assert_says, play, play_set},
};
use crate::{
    frameworks,
    refusal::RefusalReason,
    wire::{Element, Message, Subject, WireTensor},
};

/// The tiny model's hidden states.
pub(super) const HIDDEN: i64 = 24;

/// A step that `ask` may be answered with: two rows of three tokens.
pub(super) fn step(ask: &Message, number: u32) -> Message {
    let tensors = vec![
        floats("hidden", PayloadKind::Activation, &[2, 3, HIDDEN], 0.5),
        WireTensor::from_i32s("lengths", PayloadKind::Length, &[3, 1]),
        WireTensor::from_i32s("labels", PayloadKind::Label, &[0, 2]),
    ];
    Message { subject: Subject::Step, step: number, tensors, ..frameworks::answer(ask) }
}

/// Joins, waits for its turn, and takes one good step.
fn begin_turn(third: &mut Peer) -> Message {
    third.join();
    let ask = third.wait_for(Subject::Begin);
    third.send(step(&ask, 0));
    third.wait_for(Subject::StepReply);
    ask
}

/// The third takes one good step and then the one that `spoil` makes of another.
fn refuses_step(
    framework: &'static str,
    reason: RefusalReason,
    says: &[&str],
    spoil: impl FnOnce(&mut Message) + Send,
) {
    let ended = play(framework, |third| {
        let ask = begin_turn(third);
        let mut odd = step(&ask, 1);
        spoil(&mut odd);
        third.send(odd);
        let told = third.refusal();
        assert_says(&told, says);
        // One whose step was stale still has its turn.
        third.give_up();
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(framework), "the refused turn changed the global adapter");
}

macro_rules! steps {
    ($($name:ident: $framework:ident, $reason:ident, $says:expr, $spoil:expr;)+) => {
        $(#[test]
        fn $name() {
            refuses_step($framework, RefusalReason::$reason, &$says, $spoil);
        })+
    };
}

fn numbers(name: &str, kind: PayloadKind, numbers: &[i32]) -> WireTensor {
    WireTensor::from_i32s(name, kind, numbers)
}

steps! {
    activations_of_another_width_are_refused: SPLIT_V1, Shape, ["shape [2, 3, 23]", "expected activation"],
        |step| step.tensors[0] = floats("hidden", PayloadKind::Activation, &[2, 3, HIDDEN - 1], 0.5);
    activations_of_two_dimensions_are_refused: SPLIT_V2, Shape, ["shape [6, 24]", "expected activation"],
        |step| step.tensors[0].shape = vec![6, HIDDEN];
    activations_without_rows_are_refused: SPLIT_V2, Shape, ["shape [0, 3, 24]", "[1 to 4, 1 to 12, 24]"],
        |step| step.tensors[0] = floats("hidden", PayloadKind::Activation, &[0, 3, HIDDEN], 0.5);
    more_rows_than_a_batch_are_refused: SPLIT_V1, Shape, ["shape [5, 3, 24]", "[1 to 4, 1 to 12, 24]"],
        |step| step.tensors[0] = floats("hidden", PayloadKind::Activation, &[5, 3, HIDDEN], 0.5);
    rows_longer_than_the_window_are_refused: SPLIT_V2, Shape, ["shape [1, 13, 24]", "[1 to 4, 1 to 12, 24]"],
        |step| step.tensors[0] = floats("hidden", PayloadKind::Activation, &[1, 13, HIDDEN], 0.5);
    activations_of_another_element_are_refused: SPLIT_V1, Shape, ["F16", "expected activation, F32"],
        |step| step.tensors[0] = WireTensor {
            element: Element::F16,
            bytes: vec![0; 2 * 3 * HIDDEN as usize * 2].into(),
            ..step.tensors[0].clone()
        };
    activations_of_another_kind_are_refused: SPLIT_V2, Shape, ["(adapter", "expected activation"],
        |step| step.tensors[0].kind = PayloadKind::Adapter;
    activations_with_nan_are_refused: SPLIT_V1, NotFinite, ["sent hidden with a value that is not finite"],
        |step| step.tensors[0] = floats("hidden", PayloadKind::Activation, &[2, 3, HIDDEN], f32::NAN);
    activations_with_infinity_are_refused: SPLIT_V2, NotFinite, ["sent hidden with a value that is not finite"],
        |step| step.tensors[0] = floats("hidden", PayloadKind::Activation, &[2, 3, HIDDEN], f32::INFINITY);
    a_step_without_labels_is_refused: SPLIT_V1, Count, ["sent 2 tensors in its step, expected 3"],
        |step| step.tensors.truncate(2);
    a_label_past_the_last_is_refused: SPLIT_V1, Range, ["a label of 3; it must be from 0 to 2"],
        |step| step.tensors[2] = numbers("labels", PayloadKind::Label, &[0, 3]);
    a_negative_label_is_refused: SPLIT_V2, Range, ["a label of -1; it must be from 0 to 2"],
        |step| step.tensors[2] = numbers("labels", PayloadKind::Label, &[-1, 0]);
    a_length_of_zero_is_refused: SPLIT_V1, Range, ["a length of 0; it must be from 1 to 3"],
        |step| step.tensors[1] = numbers("lengths", PayloadKind::Length, &[0, 3]);
    a_length_past_the_row_is_refused: SPLIT_V2, Range, ["a length of 4; it must be from 1 to 3"],
        |step| step.tensors[1] = numbers("lengths", PayloadKind::Length, &[4, 3]);
    more_labels_than_rows_are_refused: SPLIT_V1, Shape, ["labels (label", "expected 2 numbers of kind label"],
        |step| step.tensors[2] = numbers("labels", PayloadKind::Label, &[0, 1, 2]);
    lengths_in_place_of_labels_are_refused: SPLIT_V2, Shape, ["(length", "expected 2 numbers of kind label"],
        |step| step.tensors[2] = numbers("labels", PayloadKind::Length, &[0, 1]);
    labels_that_are_no_integers_are_refused: SPLIT_V1, Element, ["has elements of F32, expected I32"],
        |step| step.tensors[2] = floats("labels", PayloadKind::Label, &[2], 0.0);
    a_step_twice_is_refused: SPLIT_V2, StaleRound, ["silo/2 sent step 0 where step 1 belongs"], |step| step.step = 0;
    a_step_too_early_is_refused: SPLIT_V2, StaleRound, ["silo/2 sent step 2 where step 1 belongs"],
        |step| step.step = 2;
    a_step_of_an_old_round_is_refused: SPLIT_V1, StaleRound, ["a step of round 0, attempt 1", "; round 1, attempt 1 is"],
        |step| step.round = 0;
    a_step_of_a_future_round_is_refused: SPLIT_V2, StaleRound, ["a step of round 9", "; round 1, attempt 1 is"],
        |step| step.round = 9;
    a_step_of_another_attempt_is_refused: SPLIT_V2, StaleRound, ["attempt 7, which is not open", "attempt 1 is"],
        |step| step.attempt = 7;
    a_step_of_another_epoch_is_refused: SPLIT_V1, StaleEpoch, ["a message of epoch 3, and this server's is 1"],
        |step| step.epoch = 3;
}

#[test]
fn more_steps_than_a_turn_has_are_refused() {
    for (framework, sets) in [(SPLIT_V2, &[][..]), (SPLIT_V1, &["training.localSteps=null", "training.localEpochs=1"])]
    {
        // Two steps, or three batches of 4 for 12 examples.
        let most = if sets.is_empty() { 2 } else { 3 };
        let ended = play_set(framework, sets, Held::Nobody, |third| {
            let ask = begin_turn(third);
            for number in 1..most {
                third.send(step(&ask, number));
                third.wait_for(Subject::StepReply);
            }
            third.send(step(&ask, most));
            let expected =
                format!("silo/2 sent another step after the {most} that its examples and the spec give it in a round");
            assert_eq!(third.refusal(), expected);
        });
        assert_refused(&ended, &[RefusalReason::Range]);
        if sets.is_empty() {
            assert!(ended.adapter() == alone(framework), "steps of a turn that was not accepted changed the adapter");
        }
    }
}

#[test]
fn steps_of_a_turn_that_is_over_are_refused() {
    let ended = play(SPLIT_V2, |third| {
        let ask = begin_turn(third);
        third.send(fair_answer(&ask));
        third.send(step(&ask, 1));
        let told = third.refusal();
        assert!(told.starts_with("silo/2 sent a step of round 1, attempt 1, which is not open for it"), "{told}");
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::StaleRound]);
}

#[test]
fn a_step_where_the_framework_has_none_is_refused() {
    let ended = play(FEDLLM, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(step(&ask, 0));
        let told = third.refusal();
        assert_eq!(told, "silo/2 sent a step of round 1, attempt 1, which is not open for it");
        third.give_up();
    });
    assert_refused(&ended, &[RefusalReason::StaleRound]);
    assert!(ended.adapter() == alone(FEDLLM));
}

#[test]
fn activations_beyond_any_scale_take_out_their_sender_alone() {
    for value in [f32::MAX, 1e20] {
        let ended = play(SPLIT_V2, |third| {
            let ask = begin_turn(third);
            let mut odd = step(&ask, 1);
            odd.tensors[0] = floats("hidden", PayloadKind::Activation, &[2, 3, HIDDEN], value);
            third.send(odd);
            let reply = third.receive().unwrap();
            if reply.subject == Subject::StepReply {
                // All values that the back made of it are numbers.
                third.give_up();
            } else {
                let told = reply.fields["reason"].as_str().unwrap();
                assert!(told.starts_with("NonFiniteLoss: the loss of silo/2 became NaN in round 1, step 2"), "{told}");
            }
        });
        assert!(ended.refused().iter().all(|refused| *refused == ("silo/2", RefusalReason::Other)));
        assert!(ended.adapter() == alone(SPLIT_V2));
    }
}
