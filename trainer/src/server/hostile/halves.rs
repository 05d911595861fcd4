//! Steps of two halves, where the head is the client's, and hidden states in INT8: halves that cannot be or have no place.
//! Must not leave a trace in the back: what a refused client's steps made is rolled back.

use fedtune_crds::report::PayloadKind;

use super::{
    answers::floats,
    peer::{Peer, fair_answer},
    scene::{SPLIT_INT8, SPLIT_U, SPLIT_V1, alone, assert_refused, assert_says, play},
    steps::{HIDDEN, step},
};
use crate::{
    refusal::RefusalReason,
    wire::{Element, Message, Subject, WireTensor},
};

/// The first half of a step: no labels.
fn first(ask: &Message, number: u32) -> Message {
    let mut step = step(ask, number);
    step.tensors.truncate(2);
    step
}

/// The second half.
fn second(ask: &Message, number: u32) -> Message {
    let tensors = vec![floats("gradient", PayloadKind::ActivationGradient, &[2, 3, HIDDEN], 0.1)];
    Message { subject: Subject::StepGradient, tensors, ..step(ask, number) }
}

/// Takes one good step, and the first half of another.
fn begin_second_step(third: &mut Peer) -> Message {
    third.join();
    let ask = third.wait_for(Subject::Begin);
    third.send(first(&ask, 0));
    third.wait_for(Subject::StepReply);
    third.send(second(&ask, 0));
    third.wait_for(Subject::StepGradientReply);
    third.send(first(&ask, 1));
    third.wait_for(Subject::StepReply);
    ask
}

/// The third is in the middle of its second step, and sends what `odd` makes of the question.
fn refuses_half(reason: RefusalReason, says: &[&str], odd: impl FnOnce(&Message) -> Message + Send) {
    let ended = play(SPLIT_U, |third| {
        let ask = begin_second_step(third);
        third.send(odd(&ask));
        let told = third.refusal();
        assert_says(&told, says);
        // One whose message was stale still has its turn.
        third.give_up();
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(SPLIT_U), "the refused turn changed the global adapter");
}

macro_rules! halves {
    ($($name:ident: $reason:ident, $says:expr, $odd:expr;)+) => {
        $(#[test]
        fn $name() {
            refuses_half(RefusalReason::$reason, &$says, $odd);
        })+
    };
}

/// The second half of the second step with another tensor.
fn with(ask: &Message, tensor: WireTensor) -> Message {
    Message { tensors: vec![tensor], ..second(ask, 1) }
}

halves! {
    a_gradient_with_nan_is_refused: NotFinite, ["silo/2 sent gradient with a value that is not finite"],
        |ask| with(ask, floats("gradient", PayloadKind::ActivationGradient, &[2, 3, HIDDEN], f32::NAN));
    a_gradient_of_another_shape_is_refused: Shape, ["shape [2, 2, 24]", "expected activationGradient, F32, shape [2, 3, 24]"],
        |ask| with(ask, floats("gradient", PayloadKind::ActivationGradient, &[2, 2, HIDDEN], 0.0));
    a_gradient_of_another_kind_is_refused: Shape, ["(activation,", "expected activationGradient"],
        |ask| with(ask, floats("gradient", PayloadKind::Activation, &[2, 3, HIDDEN], 0.0));
    a_gradient_of_another_element_is_refused: Shape, ["F16", "expected activationGradient, F32"],
        |ask| with(ask, WireTensor {
            element: Element::F16,
            bytes: vec![0; 2 * 3 * HIDDEN as usize * 2].into(),
            ..second(ask, 1).tensors.remove(0)
        });
    two_gradients_are_refused: Count, ["sent 2 tensors in its step gradient, expected 1"], |ask| {
        let gradient = second(ask, 1).tensors.remove(0);
        Message { tensors: vec![gradient.clone(), gradient], ..second(ask, 1) }
    };
    a_gradient_of_a_step_that_is_over_is_refused: StaleRound,
        ["silo/2 sent step gradient 0 where step gradient 1 belongs"], |ask| second(ask, 0);
    a_gradient_of_a_step_to_come_is_refused: StaleRound,
        ["silo/2 sent step gradient 2 where step gradient 1 belongs"], |ask| second(ask, 2);
    the_first_half_of_a_step_twice_is_refused: StaleRound,
        ["silo/2 sent step 1 where step gradient 1 belongs"], |ask| first(ask, 1);
    a_step_before_the_end_of_the_last_is_refused: StaleRound,
        ["silo/2 sent step 2 where step gradient 1 belongs"], |ask| first(ask, 2);
    a_gradient_of_another_attempt_is_refused: StaleRound, ["a step gradient of round 1, attempt 7", "attempt 1 is"],
        |ask| Message { attempt: 7, ..second(ask, 1) };
    a_gradient_of_another_epoch_is_refused: StaleEpoch, ["a message of epoch 3, and this server's is 1"],
        |ask| Message { epoch: 3, ..second(ask, 1) };
    an_answer_in_the_middle_of_a_step_is_refused: Phase,
        ["silo/2 sent a upload where a step gradient belongs"], fair_answer;
}

#[test]
fn a_step_with_labels_is_refused_where_they_stay() {
    let ended = play(SPLIT_U, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(step(&ask, 0));
        assert_says(&third.refusal(), &["sent 3 tensors in its step, expected 2"]);
    });
    assert_refused(&ended, &[RefusalReason::Count]);
    assert!(ended.adapter() == alone(SPLIT_U));
}

#[test]
fn a_gradient_before_its_step_is_refused() {
    let ended = play(SPLIT_U, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(second(&ask, 0));
        assert_says(&third.refusal(), &["silo/2 sent step gradient 0 where step 0 belongs"]);
    });
    assert_refused(&ended, &[RefusalReason::StaleRound]);
    assert!(ended.adapter() == alone(SPLIT_U));
}

#[test]
fn a_gradient_where_steps_have_one_half_is_refused() {
    let ended = play(SPLIT_V1, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(second(&ask, 0));
        assert_says(&third.refusal(), &["silo/2 sent a step gradient where a step belongs"]);
    });
    assert_refused(&ended, &[RefusalReason::Phase]);
    assert!(ended.adapter() == alone(SPLIT_V1));
}

#[test]
fn a_gradient_beyond_any_scale_takes_out_its_sender_alone() {
    let ended = play(SPLIT_U, |third| {
        let ask = begin_second_step(third);
        third.send(with(&ask, floats("gradient", PayloadKind::ActivationGradient, &[2, 3, HIDDEN], f32::MAX)));
        let told = third.refusal();
        assert!(told.starts_with("NonFiniteLoss: the loss of silo/2 became NaN in round 1, step 2"), "{told}");
    });
    assert_refused(&ended, &[RefusalReason::Other]);
    assert!(ended.adapter() == alone(SPLIT_U));
}

/// A step in INT8: two rows of three tokens, each number one step of a half.
fn int8_step(ask: &Message, scale: f32) -> Message {
    let mut step = step(ask, 0);
    let kind = PayloadKind::Activation;
    let bytes = vec![1; 2 * 3 * HIDDEN as usize].into();
    let shape = vec![2, 3, HIDDEN];
    step.tensors[0] = WireTensor { name: "hidden".to_owned(), kind, element: Element::I8, shape, bytes };
    step.tensors.insert(1, floats("hidden.scale", kind, &[2, 3], scale));
    step
}

/// The third takes a step that `spoil` makes of a good one in INT8.
fn refuses_int8(reason: RefusalReason, says: &[&str], spoil: impl FnOnce(&mut Message) + Send) {
    let ended = play(SPLIT_INT8, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        let mut odd = int8_step(&ask, 0.5);
        spoil(&mut odd);
        third.send(odd);
        assert_says(&third.refusal(), says);
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(SPLIT_INT8));
}

macro_rules! int8 {
    ($($name:ident: $reason:ident, $says:expr, $spoil:expr;)+) => {
        $(#[test]
        fn $name() {
            refuses_int8(RefusalReason::$reason, &$says, $spoil);
        })+
    };
}

int8! {
    a_scale_that_is_no_number_is_refused_by_client_and_step: NotFinite,
        ["hidden.scale of silo/2 in round 1, step 1 holds what INT8 cannot carry"],
        |step| step.tensors[1] = floats("hidden.scale", PayloadKind::Activation, &[2, 3], f32::NAN);
    a_scale_below_zero_is_refused: NotFinite, ["hidden.scale of silo/2 in round 1, step 1", "a scale from 0 up"],
        |step| step.tensors[1] = floats("hidden.scale", PayloadKind::Activation, &[2, 3], -0.5);
    a_scale_for_each_row_is_refused: Shape, ["shape [2])", "expected activation, F32, shape [2, 3]"],
        |step| step.tensors[1] = floats("hidden.scale", PayloadKind::Activation, &[2], 0.5);
    int8_without_scales_is_refused: Count, ["sent 3 tensors in its step, expected 4"],
        |step| drop(step.tensors.remove(1));
    numbers_of_32_bits_in_place_of_int8_are_refused: Shape, ["F32", "expected activation, I8"],
        |step| step.tensors[0] = floats("hidden", PayloadKind::Activation, &[2, 3, HIDDEN], 0.5);
}

#[test]
fn a_good_step_in_int8_is_answered_in_int8() {
    let ended = play(SPLIT_INT8, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(int8_step(&ask, 0.5));
        let reply = third.wait_for(Subject::StepReply);
        let forms: Vec<_> = reply.tensors.iter().map(|tensor| (tensor.element, tensor.shape.clone())).collect();
        assert_eq!(forms, [(Element::I8, vec![2, 3, HIDDEN]), (Element::F32, vec![2, 3])]);
        third.give_up();
    });
    assert_refused(&ended, &[]);
    assert!(ended.adapter() == alone(SPLIT_INT8));
}
