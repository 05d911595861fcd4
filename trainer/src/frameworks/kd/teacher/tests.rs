use super::*;
use crate::{
    frameworks::kd::{layout::Selection, logits::Sheet},
    wire::{Message, Subject},
};

/// Logits of a client, as they arrive.
fn shared(rows: &[Vec<f32>], selection: Selection, temperature: f64) -> Logits {
    let z = Tensor::from_slice2(rows);
    let layout = selection.layout(rows.len(), rows[0].len());
    let mut sheet = Sheet::blank(layout, temperature);
    sheet.write(&(0..rows.len()).collect::<Vec<_>>(), &z).unwrap();
    let upload = Message { tensors: sheet.finish(), ..Message::new(Subject::Upload, 1) };
    Logits::read(&upload, layout, "silo/0").unwrap()
}

fn p(clients: &[(u64, Vec<Vec<f32>>)], weighting: Weighting, selection: Selection, temperature: f64) -> Vec<Vec<f64>> {
    let shared = clients.iter().map(|(examples, rows)| (*examples, shared(rows, selection, temperature))).collect();
    let teacher = Teacher::mean(shared, weighting, temperature, Device::Cpu).unwrap();
    let reads: Vec<usize> = (0..clients[0].1.len()).collect();
    Vec::try_from(teacher.log_p(&reads).unwrap().to_kind(Kind::Double).exp()).unwrap()
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let sum: f64 = z.iter().map(|z| z.exp()).sum();
    z.iter().map(|z| z.exp() / sum).collect()
}

fn assert_near(found: &[f64], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < within, "{found} {expected}");
    }
}

/// Two clients on two read states of three classes.
fn two() -> [(u64, Vec<Vec<f32>>); 2] {
    [(10, vec![vec![4.0, 0.0, -1.0], vec![0.5, 0.25, 0.0]]), (30, vec![vec![0.0, 1.0, 0.0], vec![-1.0, 2.0, 0.0]])]
}

/// `softmax((w_1 z_1 + w_2 z_2) / (w_1 + w_2) / T)` by hand.
fn by_hand(read: usize, weights: [f64; 2], temperature: f64) -> Vec<f64> {
    let [one, other] = two().map(|(_, rows)| rows[read].clone());
    let mean = one.iter().zip(&other).map(|(one, other)| {
        (weights[0] * f64::from(*one) + weights[1] * f64::from(*other)) / (weights[0] + weights[1]) / temperature
    });
    softmax(&mean.collect::<Vec<_>>())
}

#[test]
fn a_mean_is_plain_or_weighted_by_examples() {
    for (weighting, weights) in [(Weighting::Uniform, [1.0, 1.0]), (Weighting::Examples, [10.0, 30.0])] {
        // Dense in F32; of top-k with k of all classes in F16, whose log-probabilities are z / T up to a constant.
        for (selection, within) in [(Selection::All, 1e-6), (Selection::TopK(3), 2e-3)] {
            let found = p(&two(), weighting, selection, 2.0);
            for (read, found) in found.iter().enumerate() {
                assert_near(found, &by_hand(read, weights, 2.0), within);
            }
        }
    }
}

/// 1 - H(p) / ln 3 of p = softmax(z / T), by hand.
fn confidence_by_hand(z: &[f32], temperature: f64) -> f64 {
    let p = softmax(&z.iter().map(|z| f64::from(*z) / temperature).collect::<Vec<_>>());
    1.0 + p.iter().map(|p| p * p.ln()).sum::<f64>() / 3f64.ln()
}

#[test]
fn by_confidence_each_read_state_has_weights_of_its_own() {
    let [one, other] = two().map(|(_, rows)| rows);
    for (selection, within) in [(Selection::All, 1e-6), (Selection::TopK(3), 2e-3)] {
        let found = p(&two(), Weighting::Confidence, selection, 2.0);
        for (read, found) in found.iter().enumerate() {
            let weights = [&one, &other].map(|rows| confidence_by_hand(&rows[read], 2.0));
            assert_near(found, &by_hand(read, weights, 2.0), within);
        }
    }
    // At the first state the first client is the surer one, at the second the other; so it is no weight of a client.
    let sure = |rows: &[Vec<f32>], read: usize| confidence_by_hand(&rows[read], 2.0);
    assert!(sure(&one, 0) > 2.0 * sure(&other, 0) && sure(&other, 1) > 2.0 * sure(&one, 1));
}

#[test]
fn confidence_is_one_where_a_model_is_sure_and_zero_where_all_is_as_likely() {
    let z = Tensor::from_slice2(&[[0.0f32, 200.0, 0.0], [3.0, 3.0, 3.0]]);
    let found = Vec::<f64>::try_from(confidence(&soften(&z, 1.0)).squeeze_dim(1)).unwrap();
    assert_near(&found, &[1.0, 0.0], 1e-6);
    let single = Vec::<f64>::try_from(confidence(&Tensor::from_slice2(&[[0.0f32]])).squeeze_dim(1)).unwrap();
    assert_near(&single, &[1.0], 1e-12);
}

#[test]
fn where_nobody_is_sure_of_anything_the_mean_is_plain() {
    let even = or_even(vec![Tensor::from_slice2(&[[0.0f64], [0.5]]), Tensor::from_slice2(&[[0.0f64], [0.0]])]);
    let weights = even.iter().map(|weights| Vec::<f64>::try_from(weights.squeeze_dim(1)).unwrap());
    assert_eq!(weights.collect::<Vec<_>>(), [[1.0, 0.5], [1.0, 0.0]]);
}

#[test]
fn equal_clients_are_their_own_teacher_whatever_the_weights() {
    let rows = vec![vec![4.0f32, 0.0, -1.0], vec![0.5, 0.25, 0.0]];
    for selection in [Selection::All, Selection::TopK(1), Selection::TopK(2)] {
        let alone = Teacher::alone(shared(&rows, selection, 2.0), 2.0, Device::Cpu).log_p(&[0, 1]).unwrap();
        let alone: Vec<Vec<f64>> = Vec::try_from(alone.to_kind(Kind::Double).exp()).unwrap();
        for weighting in [Weighting::Uniform, Weighting::Examples, Weighting::Confidence] {
            let together = p(&[(3, rows.clone()), (8, rows.clone())], weighting, selection, 2.0);
            for (together, alone) in together.iter().zip(&alone) {
                assert_near(together, alone, 1e-7);
            }
        }
    }
}

#[test]
fn more_read_states_than_a_chunk_are_the_same_as_one_after_another() {
    let rows: Vec<Vec<f32>> = (0..CHUNK + 5).map(|read| vec![read as f32 / 50.0, 1.0, 0.0]).collect();
    let teacher = Teacher::alone(shared(&rows, Selection::TopK(2), 2.0), 2.0, Device::Cpu);
    let reads: Vec<usize> = (0..rows.len()).rev().collect();
    let together = teacher.log_p(&reads).unwrap();
    assert_eq!(together.size(), [CHUNK as i64 + 5, 3]);
    for (place, &read) in reads.iter().enumerate() {
        assert!(together.get(place as i64).equal(&teacher.log_p(&[read]).unwrap().get(0)));
    }
}
