//! Answers that are no answers: tensors that do not fit, values that are no numbers, figures that cannot be.
//! Must not be refused by anyone but the engine: each of them is a whole message.

use fedtune_crds::report::PayloadKind;
use serde_json::json;

use super::{
    peer::fair_answer,
    scene::{
        FEDLLM, GRADIENTS, KD, KD_TOP_K, LOCAL_ONLY, SPLIT_V1, SPLIT_V2, alone, assert_refused, assert_says, play,
    },
};
use crate::{
    refusal::RefusalReason,
    wire::{Element, Message, Subject, WireTensor},
};

/// The answer that the framework wants, of the right form.
fn answer_to(framework: &str, ask: &Message) -> Message {
    let mut answer = fair_answer(ask);
    match framework {
        GRADIENTS => answer.tensors.iter_mut().for_each(|tensor| tensor.kind = PayloadKind::Gradient),
        // Eight public examples, three labels.
        KD => answer.tensors = vec![floats("logits", PayloadKind::Logits, &[8, 3], 0.0)],
        // Of each the two first labels, with probabilities of 1/e, which is 0.37.
        KD_TOP_K => {
            answer.tensors = vec![top_k("logits", Element::F16, &[0x00, 0xbc]), top_k("classes", Element::U8, &[0, 1])];
        }
        _ => {}
    }
    answer
}

/// Two of each of the eight public examples, which repeat `bytes`.
fn top_k(name: &str, element: Element, bytes: &[u8]) -> WireTensor {
    let bytes = bytes.repeat(16 * element.size() / bytes.len()).into();
    WireTensor { name: name.to_owned(), kind: PayloadKind::Logits, element, shape: vec![8, 2], bytes }
}

/// Puts `last` in the place of the tensor's last bytes.
fn ending(tensor: &mut WireTensor, last: &[u8]) {
    let mut bytes = tensor.bytes.to_vec();
    let end = bytes.len() - last.len();
    bytes[end..].copy_from_slice(last);
    tensor.bytes = bytes.into();
}

/// A tensor of F32, all of one value.
pub(super) fn floats(name: &str, kind: PayloadKind, shape: &[i64], value: f32) -> WireTensor {
    let count: i64 = shape.iter().product();
    let bytes = value.to_le_bytes().repeat(count as usize).into();
    WireTensor { name: name.to_owned(), kind, element: Element::F32, shape: shape.to_vec(), bytes }
}

/// The same tensor with `value` as its last number.
fn with_last(tensor: &WireTensor, value: f32) -> WireTensor {
    let mut bytes = tensor.bytes.to_vec();
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&value.to_le_bytes());
    WireTensor { bytes: bytes.into(), ..tensor.clone() }
}

/// The third answers its first question with what `spoil` makes of a fair answer.
fn refuses_answer(
    framework: &'static str,
    reason: RefusalReason,
    says: &[&str],
    spoil: impl FnOnce(&mut Message) + Send,
) {
    let ended = play(framework, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        let mut answer = answer_to(framework, &ask);
        spoil(&mut answer);
        third.send(answer);
        let told = third.refusal();
        assert_says(&told, says);
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(framework), "the refused answer changed the global adapter");
}

macro_rules! answers {
    ($($name:ident: $framework:ident, $reason:ident, $says:expr, $spoil:expr;)+) => {
        $(#[test]
        fn $name() {
            refuses_answer($framework, RefusalReason::$reason, &$says, $spoil);
        })+
    };
}

fn reshape(tensor: &mut WireTensor) {
    tensor.shape.reverse();
}

fn halve(tensor: &mut WireTensor) {
    tensor.element = Element::BF16;
    tensor.bytes = tensor.bytes.slice(..tensor.bytes.len() / 2);
}

fn drop_last(answer: &mut Message) {
    answer.tensors.pop();
}

fn add_one(answer: &mut Message) {
    answer.tensors.push(floats("more", PayloadKind::Adapter, &[0], 0.0));
}

fn spoil_last(answer: &mut Message, value: f32) {
    let last = answer.tensors.last_mut().unwrap();
    *last = with_last(last, value);
}

answers! {
    an_adapter_of_another_shape_is_refused: FEDLLM, Shape, ["silo/2 sent", "expected", "shape ["],
        |answer| reshape(&mut answer.tensors[0]);
    an_adapter_of_another_element_is_refused: FEDLLM, Shape, ["BF16", "expected", "F32"],
        |answer| halve(&mut answer.tensors[0]);
    an_adapter_of_another_kind_is_refused: FEDLLM, Shape, ["logits", "expected", "adapter"],
        |answer| answer.tensors[0].kind = PayloadKind::Logits;
    an_adapter_of_another_name_is_refused: FEDLLM, Shape, ["sent mine", "expected"],
        |answer| answer.tensors[0].name = "mine".to_owned();
    a_name_without_end_is_cut_where_it_is_quoted: FEDLLM, Shape, ["sent xxxxxxxx", "expected"],
        |answer| answer.tensors[0].name = "x".repeat(256);
    a_shape_of_many_dimensions_is_refused: FEDLLM, Shape, ["shape [1, 1, 1, 1, 1, 1, 1, 1])", "expected"],
        |answer| answer.tensors[0] = floats("t", PayloadKind::Adapter, &[1; 8], 0.0);
    too_few_parameters_are_refused: FEDLLM, Count, ["tensors in its upload, expected"], drop_last;
    too_many_parameters_are_refused: FEDLLM, Count, ["tensors in its upload, expected"], add_one;
    an_adapter_with_nan_is_refused: FEDLLM, NotFinite, ["with a value that is not finite"],
        |answer| spoil_last(answer, f32::NAN);
    an_adapter_with_infinity_is_refused: FEDLLM, NotFinite, ["with a value that is not finite"],
        |answer| spoil_last(answer, f32::NEG_INFINITY);

    gradients_of_another_shape_are_refused: GRADIENTS, Shape, ["silo/2 sent", "expected", "gradient"],
        |answer| reshape(&mut answer.tensors[0]);
    gradients_of_another_element_are_refused: GRADIENTS, Shape, ["BF16", "expected"],
        |answer| halve(&mut answer.tensors[0]);
    parameters_where_gradients_belong_are_refused: GRADIENTS, Shape, ["(adapter", "expected", "(gradient"],
        |answer| answer.tensors[0].kind = PayloadKind::Adapter;
    too_few_gradients_are_refused: GRADIENTS, Count, ["expected"], drop_last;
    gradients_with_nan_are_refused: GRADIENTS, NotFinite, ["not finite"], |answer| spoil_last(answer, f32::NAN);
    gradients_with_infinity_are_refused: GRADIENTS, NotFinite, ["not finite"],
        |answer| spoil_last(answer, f32::INFINITY);

    logits_of_another_shape_are_refused: KD, Shape, ["shape [3, 8]", "expected", "shape [8, 3]"],
        |answer| reshape(&mut answer.tensors[0]);
    logits_of_another_element_are_refused: KD, Shape, ["BF16", "expected", "F32"],
        |answer| halve(&mut answer.tensors[0]);
    logits_of_another_kind_are_refused: KD, Shape, ["adapter", "expected", "logits"],
        |answer| answer.tensors[0].kind = PayloadKind::Adapter;
    no_logits_are_refused: KD, Count, ["sent 0 tensors in its upload, expected 1"], drop_last;
    logits_and_more_are_refused: KD, Count, ["sent 2 tensors in its upload, expected 1"], add_one;
    logits_with_nan_are_refused: KD, NotFinite, ["logits with a value that is not finite"],
        |answer| spoil_last(answer, f32::NAN);
    logits_with_infinity_are_refused: KD, NotFinite, ["logits with a value that is not finite"],
        |answer| spoil_last(answer, f32::INFINITY);

    top_logits_of_another_element_are_refused: KD_TOP_K, Shape, ["BF16", "expected", "F16"],
        |answer| answer.tensors[0].element = Element::BF16;
    top_logits_of_another_k_are_refused: KD_TOP_K, Shape, ["shape [16, 1]", "expected", "shape [8, 2]"],
        |answer| answer.tensors[0].shape = vec![16, 1];
    top_logits_after_their_classes_are_refused: KD_TOP_K, Shape, ["U8", "expected", "F16"],
        |answer| answer.tensors.reverse();
    classes_of_another_kind_are_refused: KD_TOP_K, Shape, ["classes (label", "expected", "classes (logits"],
        |answer| answer.tensors[1].kind = PayloadKind::Label;
    top_logits_without_their_classes_are_refused: KD_TOP_K, Count, ["sent 1 tensors in its upload, expected 2"],
        drop_last;
    top_logits_and_more_are_refused: KD_TOP_K, Count, ["sent 3 tensors in its upload, expected 2"], add_one;
    all_logits_where_few_belong_are_refused: KD_TOP_K, TooLarge, ["48"],
        |answer| answer.tensors = vec![floats("logits", PayloadKind::Logits, &[8, 3], 0.0)];
    a_class_out_of_range_is_refused: KD_TOP_K, Range, ["read state 7 names class 3; there are 3, from 0"],
        |answer| ending(&mut answer.tensors[1], &[3]);
    a_class_that_stands_twice_is_refused: KD_TOP_K, Range, ["read state 7 names class 1 after class 1"],
        |answer| ending(&mut answer.tensors[1], &[1, 1]);
    classes_out_of_order_are_refused: KD_TOP_K, Range, ["read state 7 names class 1 after class 2"],
        |answer| ending(&mut answer.tensors[1], &[2, 1]);
    a_probability_above_one_is_refused: KD_TOP_K, Range, ["read state 7 has a log-probability of 0.5"],
        |answer| ending(&mut answer.tensors[0], &[0x00, 0x38]);
    probabilities_of_more_than_one_together_are_refused: KD_TOP_K, Range,
        ["read state 7 has probabilities that add up to 1.14"], |answer| ending(&mut answer.tensors[0], &[0x00, 0xb4]);
    a_top_logit_that_is_nan_is_refused: KD_TOP_K, NotFinite, ["logits with a value that is not finite"],
        |answer| ending(&mut answer.tensors[0], &[0x00, 0x7e]);
    a_top_logit_that_is_infinite_is_refused: KD_TOP_K, NotFinite, ["logits with a value that is not finite"],
        |answer| ending(&mut answer.tensors[0], &[0x00, 0xfc]);

    a_front_of_another_shape_is_refused: SPLIT_V1, Shape, ["silo/2 sent", "expected"],
        |answer| reshape(&mut answer.tensors[0]);
    a_front_of_another_element_is_refused: SPLIT_V2, Shape, ["BF16", "expected", "F32"],
        |answer| halve(&mut answer.tensors[0]);
    a_front_of_another_name_is_refused: SPLIT_V1, Shape, ["sent mine", "expected"],
        |answer| answer.tensors[0].name = "mine".to_owned();
    a_front_with_a_head_is_refused: SPLIT_V2, Count, ["tensors in its upload, expected"], add_one;
    a_front_with_nan_is_refused: SPLIT_V1, NotFinite, ["not finite"], |answer| spoil_last(answer, f32::NAN);
    a_front_with_infinity_is_refused: SPLIT_V2, NotFinite, ["not finite"],
        |answer| spoil_last(answer, f32::INFINITY);

    tensors_where_none_belong_are_refused: LOCAL_ONLY, Count, ["sent 1 tensors in its upload, expected 0"], add_one;

    a_loss_as_text_is_refused: FEDLLM, Protocol, ["the fields of a upload cannot be read", "expected f64"],
        |answer| answer.fields["trainLoss"] = json!("NaN");
    a_loss_beyond_any_is_refused: FEDLLM, Protocol, ["trainLoss is not the loss of any step"],
        |answer| answer.fields["trainLoss"] = json!(1e300);
    no_figures_are_refused: FEDLLM, Protocol, ["the fields of a upload cannot be read"],
        |answer| answer.fields = json!(null);
    figures_that_are_a_list_are_refused: FEDLLM, Protocol, ["the fields of a upload cannot be read"],
        |answer| answer.fields = json!([[[1, 2], 3]]);
    negative_flops_are_refused: FEDLLM, Protocol, ["meter holds a figure that no machine reaches"],
        |answer| answer.fields["meter"]["flops"]["train"] = json!(-1.0);
    flops_beyond_any_are_refused: KD, Protocol, ["meter holds a figure that no machine reaches"],
        |answer| answer.fields["meter"]["flops"]["distill"] = json!(1e300);
    more_steps_than_a_life_has_are_refused: FEDLLM, Protocol, ["meter holds a figure that no machine reaches"],
        |answer| answer.fields["meter"]["steps"] = json!(u64::MAX);
    an_evaluation_of_other_labels_is_refused: LOCAL_ONLY, Protocol, ["evaluation cannot be one of 3 labels"],
        |answer| answer.fields["evaluation"] = evaluation(4, 8);
    an_evaluation_with_more_right_than_there_are_is_refused: LOCAL_ONLY, Protocol,
        ["evaluation cannot be one of 3 labels"], |answer| answer.fields["evaluation"] = evaluation(3, 9);
}

/// The counts of an evaluation over 8 examples of each label.
fn evaluation(labels: usize, right: u64) -> serde_json::Value {
    let label = json!({ "have": 8, "given": 8, "right": right });
    json!({ "loss_sum": 1.0, "labels": vec![label; labels] })
}

#[test]
fn logits_in_the_exchange_that_has_none_are_refused() {
    let ended = play(KD, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        third.send(answer_to(KD, &ask));
        let ask = third.wait_for(Subject::Exchange);
        let logits = floats("logits", PayloadKind::Logits, &[8, 3], 0.0);
        third.send(Message { tensors: vec![logits], ..fair_answer(&ask) });
        assert_eq!(third.refusal(), "silo/2 sent 1 tensors in its exchange reply, expected 0");
    });
    assert_refused(&ended, &[RefusalReason::Count]);
}
