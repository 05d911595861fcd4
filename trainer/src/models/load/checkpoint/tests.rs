use super::{super::super::base::Precision, *};
use crate::models::golden::file;

const OPTIONS: LoadOptions = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

#[test]
fn weights_of_the_wanted_type_are_the_file_itself() {
    let folder = file("tiny-bert");
    let checkpoint = super::super::safetensors::open(&folder, &[folder.join("model.safetensors")], OPTIONS).unwrap();
    let name = "bert.encoder.layer.1.intermediate.dense.weight";
    let stored = checkpoint.find(name).unwrap();
    let tensor = checkpoint.tensor(name, &[40, 24]).unwrap();
    assert_eq!(tensor.data_ptr(), stored.bytes.data_ptr());
}

#[test]
fn bytes_at_an_odd_address_are_copied_and_read_right() {
    let bytes = Tensor::from_slice(&[9u8, 0, 0, 128, 63, 0, 0, 0, 64]).narrow(0, 1, 8);
    assert_eq!(numbers(&view_as(&bytes, Kind::Float).unwrap()), [1.0, 2.0]);
}

#[test]
fn q8_0_is_a_scale_times_signed_bytes() {
    // ggml: x = d * q. Here d = 0.5 (F16 0x3800).
    let quants: Vec<i8> = (0..32).map(|i| (i * 7 - 100) as i8).collect();
    let block: Vec<u8> = [0x00, 0x38].into_iter().chain(quants.iter().map(|&q| q as u8)).collect();
    let expected: Vec<f32> = quants.iter().map(|&q| 0.5 * f32::from(q)).collect();
    let two = [block.clone(), block].concat();
    let decoded = Encoding::Q8_0.decode(&Tensor::from_slice(&two)).unwrap();
    assert_eq!(numbers(&decoded), [expected.clone(), expected].concat());
}

#[test]
fn q4_1_is_a_scale_times_nibbles_and_a_minimum() {
    // ggml: x = d * q + m, low nibbles first. Here d = 2 (0x4000), m = -1 (0xbc00).
    let packed: Vec<u8> = (0..16).map(|i| (i | ((15 - i) << 4)) as u8).collect();
    let block: Vec<u8> = [0x00, 0x40, 0x00, 0xbc].into_iter().chain(packed).collect();
    let low = (0..16).map(|i| 2.0 * i as f32 - 1.0);
    let high = (0..16).map(|i| 2.0 * (15 - i) as f32 - 1.0);
    let decoded = Encoding::Q4_1.decode(&Tensor::from_slice(&block)).unwrap();
    assert_eq!(numbers(&decoded), low.chain(high).collect::<Vec<_>>());
}

#[test]
fn rows_must_be_whole_blocks_and_fit_memory() {
    assert_eq!(Encoding::Q4_1.bytes(&[3, 64]), Some(3 * 2 * 20));
    assert_eq!(Encoding::Q8_0.bytes(&[64, 3]), None);
    assert_eq!(Encoding::Plain(Kind::Float).bytes(&[usize::MAX, 2]), None);
    assert_eq!(Encoding::Plain(Kind::BFloat16).bytes(&[]), Some(2));
}

#[test]
fn parting_halves_undoes_ggufs_interleaving() {
    // llama.cpp's permutation: reshape(heads, 2, half, in), swap the middle two.
    let weight = Tensor::arange(2 * 6 * 3, (Kind::Float, Device::Cpu)).view([12, 3]);
    let interleaved = weight.view([2, 2, 3, 3]).transpose(1, 2).reshape([12, 3]);
    assert!(!interleaved.equal(&weight));
    assert!(part_halves(&interleaved, 2).unwrap().equal(&weight));
}
