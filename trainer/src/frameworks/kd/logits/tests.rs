use super::*;
use crate::{
    frameworks::kd::layout::Selection,
    random::{Key, Site},
    wire::Subject,
};

/// Normal logits of deviation 3, `[reads, classes]`.
fn noise(reads: usize, classes: usize) -> Tensor {
    let mut stream = Key { seed: 7, ..Key::default() }.stream(Site::Init(0));
    let values: Vec<f32> = (0..reads * classes).map(|_| stream.normal() * 3.0).collect();
    Tensor::from_slice(&values).view([reads as i64, classes as i64])
}

fn written(z: &Tensor, selection: Selection, temperature: f64) -> (Vec<WireTensor>, Layout) {
    let [reads, classes] = [0, 1].map(|dimension| z.size()[dimension] as usize);
    let layout = selection.layout(reads, classes);
    let mut sheet = Sheet::blank(layout, temperature);
    sheet.write(&(0..reads).collect::<Vec<_>>(), z).unwrap();
    (sheet.finish(), layout)
}

fn read(tensors: Vec<WireTensor>, layout: Layout) -> Result<Logits, FrameworkError> {
    Logits::read(&Message { tensors, ..Message::new(Subject::Upload, 1) }, layout, "silo/0")
}

/// What arrives of `z`, of every class.
fn arrived(z: &Tensor, selection: Selection, temperature: f64) -> Tensor {
    let (tensors, layout) = written(z, selection, temperature);
    let reads: Vec<usize> = (0..layout.reads).collect();
    read(tensors, layout).unwrap().rows(&reads, Device::Cpu).unwrap()
}

fn classes_of(tensors: &[WireTensor]) -> Vec<Vec<i64>> {
    Vec::try_from(tensors[1].to_tensor(Device::Cpu).unwrap().to_kind(Kind::Int64)).unwrap()
}

#[test]
fn with_k_of_all_classes_top_k_equals_dense_at_the_same_element_type() {
    for (classes, temperature) in [(3, 1.0), (61, 2.0), (300, 0.5)] {
        let z = noise(9, classes);
        let dense = soften(&z, temperature).to_kind(Kind::Half).to_kind(Kind::Float);
        assert!(arrived(&z, Selection::TopK(classes), temperature).equal(&dense), "{classes} classes");
        assert!(arrived(&z, Selection::All, temperature).equal(&z));
    }
}

#[test]
fn bytes_are_what_the_layout_says_to_the_byte() {
    for (selection, classes, element) in [
        (Selection::All, 61, Element::F32),
        (Selection::TopK(5), 61, Element::U8),
        (Selection::TopK(5), 300, Element::U16),
        (Selection::TopK(5), 65_537, Element::U32),
        (Selection::ByteBudget(1000), 61, Element::U8),
    ] {
        let (tensors, layout) = written(&noise(9, classes), selection, 2.0);
        assert_eq!(tensors.iter().map(WireTensor::payload_bytes).sum::<u64>(), layout.bytes());
        assert_eq!(tensors.last().unwrap().element, element, "{selection:?} of {classes}");
    }
}

#[test]
fn the_largest_are_sent_as_they_are_and_the_others_share_the_rest() {
    // Probabilities 1/2, 1/4, 1/8, 1/16, 1/16: with k = 2 the rest is 1/4, 1/12 for each of three.
    let z = Tensor::from_slice2(&[[0.125f32, 0.5, 0.0625, 0.25, 0.0625]]).log();
    let (tensors, _) = written(&z, Selection::TopK(2), 1.0);
    assert_eq!(classes_of(&tensors), [[1, 3]]);
    let p: Vec<Vec<f32>> = Vec::try_from(arrived(&z, Selection::TopK(2), 1.0).exp()).unwrap();
    for (p, expected) in p[0].iter().zip([1.0 / 12.0, 0.5, 1.0 / 12.0, 0.25, 1.0 / 12.0]) {
        assert!((p - expected).abs() < 2e-4, "{p} {expected}");
    }
}

/// A value v moves by at most |v| 2^-11 when it is rounded to F16, so sum and rest together by 2^-11 ln k at most.
#[test]
fn all_that_arrives_sums_to_one_within_rounding() {
    for (k, temperature) in [(1, 1.0), (4, 1.0), (60, 2.0), (61, 0.5), (61, 100.0)] {
        let sums = arrived(&noise(50, 61), Selection::TopK(k), temperature).exp().sum_dim_intlist(
            [-1i64].as_slice(),
            false,
            Kind::Double,
        );
        for sum in Vec::<f64>::try_from(sums).unwrap() {
            assert!((sum - 1.0).abs() < 61f64.ln() / 2048.0 + 1e-6, "k = {k}, T = {temperature}: {sum}");
        }
    }
}

/// Against sorting all classes, the larger first and of equal ones the smaller; halves make many equal.
#[test]
fn the_largest_are_those_that_sorting_finds() {
    for (classes, k) in [(1, 1), (5, 5), (61, 1), (61, 7), (1000, 128), (1000, 999), (5000, 128)] {
        for grain in [1e-6, 0.5] {
            // A zero with a sign would be smaller than one without where it is sorted.
            let z = (noise(1, classes) / grain).round() * grain + 0.0;
            let row = numbers(&z);
            let mut expected: Vec<usize> = (0..classes).collect();
            expected.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            expected.truncate(k);
            expected.sort_unstable();
            let chosen: Vec<i64> = Vec::try_from(largest(&z, k).flatten(0, -1)).unwrap();
            assert_eq!(chosen, expected.iter().map(|&class| class as i64).collect::<Vec<_>>(), "{k} of {classes}");
        }
    }
}

#[test]
fn of_equal_logits_those_of_the_smaller_classes_are_sent() {
    let z = Tensor::from_slice2(&[[1.0f32, 5.0, 1.0, 1.0, 5.0], [2.0, 2.0, 2.0, 2.0, 2.0]]);
    for (k, expected) in [(1, [vec![1], vec![0]]), (3, [vec![0, 1, 4], vec![0, 1, 2]])] {
        assert_eq!(classes_of(&written(&z, Selection::TopK(k), 1.0).0), expected);
    }
}

#[test]
fn rows_stand_where_their_read_states_belong_in_whatever_order_they_come() {
    let z = noise(5, 61);
    for selection in [Selection::All, Selection::TopK(7)] {
        let (together, layout) = written(&z, selection, 2.0);
        let mut sheet = Sheet::blank(layout, 2.0);
        for reads in [&[3usize, 1][..], &[4, 0, 2]] {
            let rows = Tensor::from_slice(&reads.iter().map(|read| *read as i64).collect::<Vec<_>>());
            sheet.write(reads, &z.index_select(0, &rows)).unwrap();
        }
        assert_eq!(sheet.finish(), together);
        let picked = read(together, layout).unwrap().rows(&[4, 1], Device::Cpu).unwrap();
        let all = arrived(&z, selection, 2.0);
        assert!(picked.equal(&all.index_select(0, &Tensor::from_slice(&[4i64, 1]))));
    }
}

#[test]
fn a_certain_model_leaves_a_rest_whose_logarithm_is_a_number() {
    let z = Tensor::from_slice2(&[[0.0f32, 200.0, 0.0], [-3e38, 3e38, 0.0]]);
    for k in [1, 2, 3] {
        let log_p = arrived(&z, Selection::TopK(k), 1.0);
        assert!(is_finite(&log_p), "k = {k}");
        assert!(log_p.exp().select(1, 1).ge(0.999).all().int64_value(&[]) != 0);
    }
}

/// A fair upload of two read states, k = 2 of 61 classes, to be spoilt.
fn refused(spoil: impl FnOnce(&mut Vec<f32>, &mut Vec<i64>)) -> String {
    let (mut values, mut classes) = (vec![-1.0f32, -2.0, -0.5, -3.0], vec![4i64, 60, 0, 7]);
    spoil(&mut values, &mut classes);
    let values = Tensor::from_slice(&values).view([2, 2]);
    let classes = Tensor::from_slice(&classes).view([2, 2]);
    let tensors = [("logits", &values, Element::F16), ("classes", &classes, Element::U8)]
        .map(|(name, tensor, element)| WireTensor::from_tensor(name, PayloadKind::Logits, tensor, element).unwrap());
    match read(tensors.into(), Selection::TopK(2).layout(2, 61)) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_no_model_says_is_refused_and_told() {
    assert_eq!(refused(|_, _| {}), "");
    let told = "silo/0 sent logits whose read state 1 ";
    for (sentence, says) in [
        (refused(|_, classes| classes[3] = 61), "names class 61; there are 61, from 0"),
        (refused(|_, classes| classes[3] = 0), "names class 0 after class 0; classes rise and none stands twice"),
        (refused(|_, classes| classes[2] = 9), "names class 7 after class 9; classes rise and none stands twice"),
        (refused(|values, _| values[3] = 0.5), "has a log-probability of 0.5; none is above 0"),
        (refused(|values, _| values[3] = -0.25), "has probabilities that add up to 1.385"),
    ] {
        assert!(sentence.starts_with(told) && sentence.contains(says), "{sentence}");
    }
    for value in [f32::NAN, f32::NEG_INFINITY] {
        assert_eq!(refused(|values, _| values[0] = value), "silo/0 sent logits with a value that is not finite");
    }
}

/// The most that rounding to F16 can add: every class equally likely and rounded up.
#[test]
fn an_honest_sum_above_one_is_taken() {
    for classes in [2, 3, 61, 300, 5_000, 49_152] {
        for k in [1, 2, classes] {
            let z = Tensor::zeros([2, classes as i64], (Kind::Float, Device::Cpu));
            let (tensors, layout) = written(&z, Selection::TopK(k), 1.0);
            assert!(read(tensors, layout).is_ok(), "k = {k} of {classes}");
        }
    }
}
