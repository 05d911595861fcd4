use serde_json::{Value, json};
use tch::Device;
use tempfile::TempDir;

use super::{super::base::Precision, *};
use crate::models::golden::{file, real_model};

const OPTIONS: LoadOptions = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };

/// A copy of a tiny model that a test may spoil.
struct Copied(TempDir);

impl Copied {
    fn of(model: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for entry in fs::read_dir(file(model)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self(folder)
    }

    fn weights(&self) -> Vec<u8> {
        fs::read(self.0.path().join("model.safetensors")).unwrap()
    }

    fn set_weights(&self, bytes: &[u8]) {
        fs::write(self.0.path().join("model.safetensors"), bytes).unwrap();
    }

    /// Changes the safetensors header and keeps the bytes of the tensors.
    fn edit_header(&self, edit: impl Fn(&mut Value)) {
        let bytes = self.weights();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        edit(&mut header);
        let header = serde_json::to_vec(&header).unwrap();
        self.set_weights(&[&(header.len() as u64).to_le_bytes(), &header[..], &bytes[8 + length..]].concat());
    }

    fn edit_config(&self, edit: impl Fn(&mut Value)) {
        let path = self.0.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// The sentence with which loading fails, without the folder's name.
    fn sentence(&self) -> String {
        sentence(self.0.path())
    }
}

fn sentence(path: &Path) -> String {
    let error = Base::load(path, OPTIONS).unwrap_err().to_string();
    error.replace(&format!("{}/", path.display()), "").replace(&path.display().to_string(), "MODEL")
}

const QUERY: &str = "encoder.layer.1.attention.self.query.weight";

#[test]
fn a_truncated_safetensors_file_is_refused() {
    let model = Copied::of("tiny-bert");
    let bytes = model.weights();
    model.set_weights(&bytes[..bytes.len() - 4]);
    let found = model.sentence();
    assert!(found.starts_with("model.safetensors is truncated or corrupt: its header describes "), "{found}");
    model.set_weights(&bytes[..5]);
    assert_eq!(
        model.sentence(),
        "model.safetensors is truncated or corrupt: it has 5 bytes, too few for a safetensors header"
    );
}

#[test]
fn a_header_that_lies_about_its_length_is_refused() {
    let model = Copied::of("tiny-bert");
    let mut bytes = model.weights();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    model.set_weights(&bytes);
    let found = model.sentence();
    assert!(found.contains("its header claims 18446744073709551615 bytes, the file has"), "{found}");
}

#[test]
fn a_header_longer_than_any_model_needs_is_refused_unread() {
    let model = Copied::of("tiny-bert");
    model.set_weights(&100_000_001u64.to_le_bytes());
    // The file has the length and takes no room: nothing is written there.
    let file = fs::File::options().write(true).open(model.0.path().join("model.safetensors")).unwrap();
    file.set_len(200_000_000).unwrap();
    assert_eq!(
        model.sentence(),
        "model.safetensors is truncated or corrupt: its header claims 100000001 bytes; at most 100000000 are allowed"
    );
}

#[test]
fn a_head_that_claims_to_be_wide_is_held_against_the_weights_before_anything_is_made_for_it() {
    let model = Copied::of("tiny-llama");
    model.edit_config(|config| config["head_dim"] = json!(1u64 << 31));
    let found = model.sentence();
    assert!(found.ends_with("the configuration asks for [8589934592, 24]"), "{found}");
}

#[test]
fn a_header_that_lies_about_a_tensor_is_refused() {
    for edit in [
        |tensor: &mut Value| tensor["shape"] = json!([24, 23]),
        |tensor: &mut Value| tensor["shape"] = json!([u64::MAX, u64::MAX]),
        |tensor: &mut Value| tensor["data_offsets"] = json!([0, 2304]),
        |tensor: &mut Value| tensor["data_offsets"] = json!([u64::MAX - 1, u64::MAX]),
        |tensor: &mut Value| tensor["dtype"] = json!("F99"),
    ] {
        let model = Copied::of("tiny-bert");
        model.edit_header(|header| edit(&mut header[QUERY]));
        let found = model.sentence();
        assert!(found.starts_with("model.safetensors is truncated or corrupt: its header is wrong: "), "{found}");
    }
}

#[test]
fn no_spoilt_safetensors_header_makes_loading_panic() {
    let model = Copied::of("tiny-bert");
    let bytes = model.weights();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in (0..header).step_by(23) {
        model.set_weights(&bytes[..at]);
        assert!(Base::load(model.0.path(), OPTIONS).is_err(), "cut at {at}");
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 0x15;
        model.set_weights(&spoilt);
        drop(Base::load(model.0.path(), OPTIONS)); // a changed name in `__metadata__` is no error
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let model = Copied::of("tiny-bert");
    model.edit_header(|header| {
        let header = header.as_object_mut().unwrap();
        let tensor = header.remove(QUERY).unwrap();
        header.insert("something.else".into(), tensor);
    });
    assert_eq!(model.sentence(), format!("MODEL holds no tensor bert.{QUERY}, which its configuration asks for"));
}

#[test]
fn a_shape_that_the_configuration_does_not_ask_for_is_named() {
    let model = Copied::of("tiny-bert");
    model.edit_config(|config| config["intermediate_size"] = json!(41));
    assert_eq!(
        model.sentence(),
        "tensor bert.encoder.layer.0.intermediate.dense.weight in model.safetensors has shape [40, 24]; \
         the configuration asks for [41, 24]"
    );
}

#[test]
fn an_element_type_that_is_no_float_is_named() {
    let model = Copied::of("tiny-bert");
    model.edit_header(|header| header[QUERY]["dtype"] = json!("I32"));
    assert_eq!(
        model.sentence(),
        format!("tensor bert.{QUERY} in model.safetensors has elements of type I32; supported are F32, F16 and BF16")
    );
}

#[test]
fn a_bert_without_pooler_is_refused() {
    let model = Copied::of("tiny-bert");
    model.edit_header(|header| {
        let header = header.as_object_mut().unwrap();
        let tensor = header.remove("pooler.dense.weight").unwrap();
        header.insert("something.else".into(), tensor);
    });
    assert!(model.sentence().starts_with("MODEL cannot be used: it holds no pooler"), "{}", model.sentence());
}

#[test]
fn a_model_of_an_architecture_we_lack_is_refused_by_name() {
    let model = Copied::of("tiny-bert");
    model.edit_config(|config| config["model_type"] = json!("mamba"));
    assert_eq!(
        model.sentence(),
        "config.json describes a model of architecture mamba; supported are BERT, GPT-2, Llama (also SmolLM2 and TinyLlama), Mistral and Qwen2"
    );
}

#[test]
fn what_a_configuration_asks_for_and_we_lack_is_refused() {
    let refused = |model: &str, key: &str, value: Value| {
        let model = Copied::of(model);
        model.edit_config(|config| config[key] = value.clone());
        model.sentence()
    };
    assert_eq!(
        refused("tiny-bert", "hidden_act", json!("relu")),
        "config.json cannot be used: hidden_act is \"relu\"; for BERT only \"gelu\" is supported"
    );
    assert_eq!(
        refused("tiny-bert", "num_attention_heads", json!(0)),
        "config.json cannot be used: hidden_size 24 is not a multiple of num_attention_heads 0"
    );
    assert_eq!(
        refused("tiny-llama", "num_key_value_heads", json!(3)),
        "config.json cannot be used: num_attention_heads 4 is not a multiple of num_key_value_heads 3"
    );
    assert_eq!(
        refused("tiny-llama", "rope_parameters", json!({"rope_type": "yarn", "factor": 4.0})),
        "config.json cannot be used: its rope scaling is \"yarn\"; supported are default, linear and llama3"
    );
    assert_eq!(
        refused("tiny-llama", "head_dim", json!(1u64 << 40)),
        "config.json cannot be used: its width of a head is 1099511627776; it must lie between 1 and 2147483648"
    );
    assert_eq!(
        refused("tiny-bert", "pad_token_id", json!(61)),
        "config.json cannot be used: its padding token 61 has no row in the embedding of 61"
    );
    assert!(refused("tiny-llama", "hidden_size", json!(-1)).starts_with("config.json is not what it should be: "));
}

#[test]
fn a_path_without_a_model_is_refused() {
    let folder = TempDir::new().unwrap();
    assert_eq!(
        sentence(folder.path()),
        "MODEL holds no model; expected config.json with model.safetensors (or model.safetensors.index.json), or one \
         .gguf file"
    );
    for name in ["a.gguf", "b.GGUF"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    assert_eq!(sentence(folder.path()), "MODEL holds 2 .gguf files; name the one that is meant");
    assert!(sentence(&folder.path().join("nowhere")).contains("cannot be read"));
}

#[test]
fn a_shard_index_may_not_point_out_of_its_folder() {
    for shard in ["../tiny-bert/model.safetensors", "/etc/passwd", "a/b", ""] {
        let model = Copied::of("tiny-llama-sharded");
        let index = json!({"weight_map": {"a": shard}}).to_string();
        fs::write(model.0.path().join("model.safetensors.index.json"), index).unwrap();
        let found = model.sentence();
        assert!(found.contains("it names a file outside the folder"), "{shard}: {found}");
    }
}

#[test]
fn a_missing_shard_is_named() {
    let model = Copied::of("tiny-llama-sharded");
    fs::remove_file(model.0.path().join("model-00002-of-00004.safetensors")).unwrap();
    assert!(model.sentence().starts_with("model-00002-of-00004.safetensors cannot be read: "), "{}", model.sentence());
}

#[test]
fn the_hash_follows_every_byte_of_weights_and_configuration() {
    let model = Copied::of("tiny-bert");
    let hash = || Base::load(model.0.path(), OPTIONS).unwrap().hash();
    let first = hash();
    assert_eq!((first.len(), hash()), (64, first.clone()));
    let mut bytes = model.weights();
    *bytes.last_mut().unwrap() ^= 1;
    model.set_weights(&bytes);
    let second = hash();
    assert_ne!(first, second);
    model.edit_config(|config| config["pad_token_id"] = json!(1));
    assert_ne!(second, hash());
}

#[test]
fn the_tokenizer_of_minilm_neither_pads_nor_truncates() {
    let loaded = load_tokenizer(&real_model("minilm")).unwrap();
    let ids = |text: &str| loaded.tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    // BERT's uncased vocabulary: [CLS] hello , world ! [SEP].
    assert_eq!(ids("Hello, world!"), [101, 7592, 1010, 2088, 999, 102]);
    assert_eq!(ids(&"word ".repeat(300)).len(), 302);
    assert_eq!(loaded.pad_id, 0);
}

#[test]
fn a_tokenizer_and_a_model_that_disagree_are_refused() {
    let loaded = load_tokenizer(&real_model("minilm")).unwrap();
    let tiny = Base::load(&file("tiny-bert"), OPTIONS).unwrap();
    assert_eq!(
        loaded.check(tiny.shape()).unwrap_err().to_string(),
        "tokenizer and model disagree: the tokenizer's largest token id is 30521, the model's embedding has 61 rows"
    );
    let minilm = Base::load(&real_model("minilm"), OPTIONS).unwrap();
    loaded.check(minilm.shape()).unwrap();
}

#[test]
fn a_folder_without_tokenizer_is_refused() {
    let found = load_tokenizer(&file("tiny-bert")).unwrap_err().to_string();
    assert!(found.contains("tokenizer.json cannot be read"), "{found}");
}

/// A folder with the tokenizer of MiniLM and a `tokenizer_config.json` of its own.
fn with_tokenizer_config(config: &Value) -> Copied {
    let model = Copied::of("tiny-bert");
    fs::copy(real_model("minilm").join("tokenizer.json"), model.0.path().join("tokenizer.json")).unwrap();
    fs::write(model.0.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    model
}

#[test]
fn the_chat_template_of_a_folder_is_read_with_its_special_tokens() {
    let tokens = json!({"bos_token": "[CLS]", "eos_token": {"content": "[SEP]", "lstrip": false}});
    let loaded = |template: Value| {
        let mut config = tokens.clone();
        config["chat_template"] = template;
        load_tokenizer(with_tokenizer_config(&config).0.path()).unwrap()
    };
    let expected = |source: &str| {
        let [bos_token, eos_token] = ["[CLS]", "[SEP]"].map(|token| Some(token.to_owned()));
        Some(ChatTemplate { source: source.to_owned(), bos_token, eos_token })
    };
    let plain = loaded(json!("{{ messages }}"));
    assert_eq!((plain.chat, plain.eos_id, plain.pad_id), (expected("{{ messages }}"), Some(102), 102));
    let several = json!([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]);
    assert_eq!(loaded(several).chat, expected("b"));
    for none in [Value::Null, json!([{"name": "rag", "template": "a"}]), json!(7), json!([])] {
        assert_eq!(loaded(none).chat, None);
    }
}

#[test]
fn a_chat_template_in_a_file_of_its_own_goes_before_the_one_in_the_configuration() {
    let model = with_tokenizer_config(&json!({"chat_template": "old", "eos_token": "no such token"}));
    fs::write(model.0.path().join("chat_template.jinja"), "new").unwrap();
    let loaded = load_tokenizer(model.0.path()).unwrap();
    let eos_token = Some("no such token".to_owned());
    assert_eq!(loaded.chat, Some(ChatTemplate { source: "new".to_owned(), bos_token: None, eos_token }));
    assert_eq!(loaded.eos_id, None);
    fs::write(model.0.path().join("chat_template.jinja"), [0xff, 0xfe]).unwrap();
    let found = load_tokenizer(model.0.path()).unwrap_err().to_string();
    assert!(found.contains("chat_template.jinja cannot be read: stream did not contain valid UTF-8"), "{found}");
}

#[test]
fn the_tokenizers_hash_covers_the_chat_template_and_its_tokens() {
    let hash = |config: Value| load_tokenizer(with_tokenizer_config(&config).0.path()).unwrap().hash;
    let hashes = [
        json!({}),
        json!({"eos_token": "[SEP]"}),
        json!({"eos_token": "[SEP]", "chat_template": "a"}),
        json!({"eos_token": "[SEP]", "chat_template": "b"}),
        json!({"eos_token": "[SEP]", "chat_template": "b", "bos_token": ""}),
        json!({"eos_token": "[SEP]", "chat_template": "b", "bos_token": "[CLS]"}),
        json!({"eos_token": "[CLS]", "chat_template": "b", "bos_token": "[CLS]"}),
    ]
    .map(hash);
    for (index, one) in hashes.iter().enumerate() {
        assert!(one.len() == 64 && !hashes[..index].contains(one), "{index}");
    }
    assert_eq!(hash(json!({})), hashes[0]);
}
