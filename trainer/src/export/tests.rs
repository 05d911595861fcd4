//! What the files say, on a tiny model; `scripts/check_adapter.py` has PEFT itself read them.

use std::{collections::BTreeMap, fs};

use safetensors::SafeTensors;

use super::*;
use crate::models::{
    Head,
    golden::{self, cases, load, query_value},
};

/// A tiny BERT, hidden width 24, of 3 blocks, with an adapter for three labels.
fn model(lora: &LoraSettings) -> Model {
    Model::new(load(&golden::file("tiny-bert")), lora, Head::Classifier(3), 0).unwrap()
}

fn lora() -> LoraSettings {
    query_value(&load(&golden::file("tiny-bert")))
}

fn write(folder: &Path, lora: &LoraSettings) -> Result<(), ExportError> {
    let labels = ["eggs", "ham", "spam"].map(str::to_owned);
    write_adapter(
        folder,
        &model(lora),
        &Export {
            lora,
            base: "lab/tiny".to_owned(),
            revision: Some("v2"),
            labels: &labels,
            pad_id: 7,
            system_prompt: None,
        },
    )
}

fn read_json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort_unstable();
    names
}

#[test]
fn tensors_have_the_names_shapes_and_values_that_peft_has() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    let case = cases().into_iter().find(|case| case.name == "bert-query-value").unwrap();
    let golden = golden::tensors(&case.name);
    let lora = case.lora();
    let export = Export {
        lora: &lora,
        base: "models/tiny".to_owned(),
        revision: None,
        labels: &[],
        pad_id: 0,
        system_prompt: None,
    };
    write_adapter(&adapter, &case.model(&golden), &export).unwrap();
    let bytes = fs::read(adapter.join("adapter_model.safetensors")).unwrap();
    let written = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(written.len(), case.order.len());
    for name in &case.order {
        let tensor = written.tensor(&format!("base_model.model.{name}")).unwrap();
        let expected = &golden[&format!("value.{name}")];
        let shape: Vec<i64> = tensor.shape().iter().map(|&size| size as i64).collect();
        let values: Vec<f32> = Vec::try_from(expected.flatten(0, -1)).unwrap();
        assert_eq!((tensor.dtype(), shape), (Dtype::F32, expected.size()), "{name}");
        assert_eq!(tensor.data(), values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn the_configuration_names_the_adapter_and_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    write(&adapter, &LoraSettings { dropout: 0.25, rs_lora: true, ..lora() }).unwrap();
    let config = read_json(&adapter, "adapter_config.json");
    let expected = json!({
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": "lab/tiny",
        "revision": "v2",
        "r": 8,
        "lora_alpha": 16.0,
        "lora_dropout": 0.25,
        "use_rslora": true,
        "target_modules": ["query", "value"],
        "modules_to_save": ["classifier"],
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
    });
    assert_eq!(config, expected);
}

#[test]
fn all_linear_is_a_text_of_its_own_as_peft_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    for targets in [vec!["all-linear"], vec!["query", "all-linear"]] {
        let target_modules = targets.iter().map(ToString::to_string).collect();
        write(&adapter, &LoraSettings { target_modules, ..lora() }).unwrap();
        assert_eq!(read_json(&adapter, "adapter_config.json")["target_modules"], "all-linear", "{targets:?}");
    }
}

#[test]
fn the_models_configuration_has_the_labels_in_the_order_of_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    write(&adapter, &lora()).unwrap();
    let expected = json!({
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "num_labels": 3,
        "id2label": {"0": "eggs", "1": "ham", "2": "spam"},
        "label2id": {"eggs": 0, "ham": 1, "spam": 2},
        "pad_token_id": 7,
        "vocab_size": model(&lora()).shape().vocab,
    });
    assert_eq!(read_json(&adapter, "config.json"), expected);
}

#[test]
fn a_folder_that_exists_is_replaced_and_nothing_is_left_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    fs::write(adapter.join("of-an-earlier-run"), "").unwrap();
    fs::create_dir(folder.path().join("adapter.partial")).unwrap();
    fs::write(folder.path().join("adapter.partial/half"), "").unwrap();
    write(&adapter, &lora()).unwrap();
    assert_eq!(names(&adapter), ["adapter_config.json", "adapter_model.safetensors", "config.json"]);
    assert_eq!(names(folder.path()), ["adapter"]);
}

#[test]
fn the_same_adapter_is_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let files = |name: &str| -> BTreeMap<String, Vec<u8>> {
        let adapter = folder.path().join(name);
        write(&adapter, &lora()).unwrap();
        names(&adapter).into_iter().map(|file| (file.clone(), fs::read(adapter.join(&file)).unwrap())).collect()
    };
    assert_eq!(files("first"), files("second"));
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    fs::write(&file, "").unwrap();
    let adapter = file.join("adapter");
    let error = write(&adapter, &lora()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("the adapter cannot be written to {}: ", adapter.display())), "{error}");
}

#[test]
fn a_language_model_is_exported_as_peft_has_it_without_a_head() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    for (name, class, model_type, inputs_first) in [
        ("llama-language", "LlamaForCausalLM", "llama", false),
        ("gpt2-language", "GPT2LMHeadModel", "gpt2", true),
        ("mistral-language", "MistralForCausalLM", "mistral", false),
        ("qwen2-language", "Qwen2ForCausalLM", "qwen2", false),
    ] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let golden = golden::tensors(name);
        let lora = case.lora();
        let labels = ["ham".to_owned(), "spam".to_owned()];
        let export = Export {
            lora: &lora,
            base: "models/tiny".into(),
            revision: None,
            labels: &labels,
            pad_id: 2,
            system_prompt: None,
        };
        write_adapter(&adapter, &case.model(&golden), &export).unwrap();
        let config = read_json(&adapter, "adapter_config.json");
        assert_eq!(config["task_type"], "CAUSAL_LM", "{name}");
        assert_eq!(config["modules_to_save"], Value::Null, "{name}");
        assert_eq!(config["fan_in_fan_out"], inputs_first, "{name}");
        let vocabulary = case.model(&golden).shape().vocab;
        let expected =
            json!({"architectures": [class], "model_type": model_type, "pad_token_id": 2, "vocab_size": vocabulary});
        assert_eq!(read_json(&adapter, "config.json"), expected, "{name}");
        let bytes = fs::read(adapter.join("adapter_model.safetensors")).unwrap();
        let written = SafeTensors::deserialize(&bytes).unwrap();
        // `order` is what PEFT lists, without its first part.
        let names: std::collections::BTreeSet<_> = written.names().into_iter().map(str::to_owned).collect();
        assert_eq!(names, case.order.iter().map(|name| format!("base_model.model.{name}")).collect(), "{name}");
    }
}
