//! What the merged files say; `scripts/check_merge.py` has transformers and PEFT compare the logits.

use super::*;
use crate::{
    export::{Export, write_adapter},
    models::{
        Base, LoadOptions, LoraSettings, Model, Tokens,
        golden::{self, load, query_value},
    },
    random::{Key, Site},
};

const ROWS: [&[u32]; 3] = [&[3, 7, 11, 4], &[9, 2], &[5]];

/// A model whose adapter changes its logits: B is not zero.
fn trained(base: &str, head: Head) -> Model {
    let base = load(&golden::file(base));
    let lora = query_value(&base);
    let model = Model::new(base, &lora, head, 3).unwrap();
    let _no_graph = tch::no_grad_guard();
    for (ordinal, parameter) in model.adapter().parameters().iter().enumerate() {
        let mut stream = Key { seed: 5, ..Key::default() }.stream(Site::Init(ordinal as u32));
        let values: Vec<f32> = (0..parameter.tensor.numel()).map(|_| stream.normal() * 0.2).collect();
        parameter.tensor.shallow_clone().copy_(&Tensor::from_slice(&values).view_as(&parameter.tensor));
    }
    model
}

fn export(above: &Path, base: &str, model: &Model) -> PathBuf {
    let (folder, lora) = (above.join("adapter"), query_value(model.base()));
    let labels = ["ham", "spam"].map(str::to_owned);
    let export = Export {
        lora: &lora,
        base: golden::file(base).display().to_string(),
        revision: None,
        labels: &labels,
        pad_id: 0,
        system_prompt: None,
    };
    write_adapter(&folder, model, &export).unwrap();
    folder
}

fn logits(model: &Model) -> Tensor {
    tch::no_grad(|| model.forward(&Tokens::right_padded(&ROWS, 0, Device::Cpu), None))
}

/// The merged model without any adapter: B of a fresh one is zero.
fn load_merged(folder: &Path, precision: Precision, lora: &LoraSettings, adapter: &AdapterFiles) -> Model {
    let options = LoadOptions { precision, device: Device::Cpu, language_head: false };
    let base = Base::load(folder, options).unwrap();
    let weights = Weights::open(folder).unwrap();
    let model = Model::new(base, lora, Head::Classifier(2), 0).unwrap();
    let _no_graph = tch::no_grad_guard();
    for parameter in model.adapter().parameters().iter().filter(|parameter| !parameter.name.contains(".lora_")) {
        let head = weights.tensors().into_iter().find(|tensor| tensor.name == parameter.name).unwrap();
        let (value, expected) = (
            weights.read(&head).unwrap(),
            adapter.tensor(&parameter.name, &parameter.tensor.size(), Device::Cpu).unwrap(),
        );
        assert!(precision == Precision::BF16 || value.equal(&expected), "{}", parameter.name);
        parameter.tensor.shallow_clone().copy_(&value);
    }
    model
}

#[test]
fn a_merged_model_has_the_logits_of_base_and_adapter() {
    for name in ["tiny-bert", "tiny-gpt2", "tiny-llama", "tiny-mistral", "tiny-qwen2"] {
        let above = tempfile::tempdir().unwrap();
        let model = trained(name, Head::Classifier(2));
        let (adapter, out) = (export(above.path(), name, &model), above.path().join("merged"));
        let merge = Merge { adapter: &adapter, base: None, out: &out, precision: None, shard_bytes: SHARD_BYTES };
        let merged = merge.run().unwrap();
        assert_eq!((merged.changed, merged.files), (model.adapter().targets().len(), 1), "{name}");
        let files = AdapterFiles::read(&adapter).unwrap();
        let again = load_merged(&out, Precision::F32, &files.lora, &files);
        let difference = (logits(&again) - logits(&model)).abs().max().double_value(&[]);
        assert!(difference < 1e-4, "{name}: {difference}");
        let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], json!([model.shape().architecture.class_name(Head::Classifier(3))]));
        assert_eq!((&config["id2label"]["1"], &config["torch_dtype"]), (&json!("spam"), &json!("float32")));
    }
}

#[test]
fn a_large_model_is_cut_into_files_that_an_index_names() {
    let above = tempfile::tempdir().unwrap();
    let model = trained("tiny-llama", Head::Classifier(2));
    let (adapter, out) = (export(above.path(), "tiny-llama", &model), above.path().join("merged"));
    let (base, shard_bytes) = (golden::file("tiny-llama"), 20_000);
    let merge =
        Merge { adapter: &adapter, base: Some(&base), out: &out, precision: Some(Precision::BF16), shard_bytes };
    let merged = merge.run().unwrap();
    assert!(merged.files > 2);
    let index: Value = serde_json::from_slice(&fs::read(out.join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], json!(merged.bytes));
    assert_eq!(index["weight_map"].as_object().unwrap().len(), merged.tensors);
    // The reader of models follows the index; half of the bits of a weight are gone.
    let files = AdapterFiles::read(&adapter).unwrap();
    let again = load_merged(&out, Precision::BF16, &files.lora, &files);
    let difference = (logits(&again) - logits(&model)).abs().max().double_value(&[]);
    assert!(difference < 0.1 * logits(&model).abs().max().double_value(&[]), "{difference}");
}

#[test]
fn nothing_is_written_over_and_nothing_is_left_of_what_failed() {
    let above = tempfile::tempdir().unwrap();
    let model = trained("tiny-bert", Head::Classifier(2));
    let (adapter, out) = (export(above.path(), "tiny-bert", &model), above.path().join("merged"));
    let merge = |base| Merge { adapter: &adapter, base, out: &out, precision: None, shard_bytes: SHARD_BYTES }.run();
    let llama = golden::file("tiny-llama");
    assert!(matches!(merge(Some(&llama)).unwrap_err(), MergeError::Adapter(_)));
    assert!(!out.exists());
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.txt"), "three years").unwrap();
    assert!(matches!(merge(None).unwrap_err(), MergeError::Taken(_)));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}
