use super::{super::super::base::Precision, *};
use crate::models::golden::file;

const OPTIONS: LoadOptions = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };

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
fn parting_halves_undoes_ggufs_interleaving() {
    // llama.cpp's permutation: reshape(heads, 2, half, in), swap the middle two.
    let weight = Tensor::arange(2 * 6 * 3, (Kind::Float, Device::Cpu)).view([12, 3]);
    let interleaved = weight.view([2, 2, 3, 3]).transpose(1, 2).reshape([12, 3]);
    assert!(!interleaved.equal(&weight));
    assert!(part_halves(&interleaved, 2).unwrap().equal(&weight));
}
