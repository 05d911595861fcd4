use std::fs;

use serde_json::{Value as Json, json};
use tch::{Device, Tensor};
use tempfile::TempDir;

use super::{header::Value, *};
use crate::models::{
    Base, Head, LoraSettings, Model, Precision, Tokens,
    golden::{file, load, real_model},
};

const OPTIONS: LoadOptions = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };

/// Writes GGUF version 3 by its specification.
#[derive(Default)]
struct Writer {
    entries: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    fn number(mut self, key: &str, value: u32) -> Self {
        self.entries.push([text(key), 4u32.to_le_bytes().into(), value.to_le_bytes().into()].concat());
        self
    }

    fn float(mut self, key: &str, value: f32) -> Self {
        self.entries.push([text(key), 6u32.to_le_bytes().into(), value.to_le_bytes().into()].concat());
        self
    }

    fn word(mut self, key: &str, value: &str) -> Self {
        self.entries.push([text(key), 8u32.to_le_bytes().into(), text(value)].concat());
        self
    }

    /// A list of `count` elements of a type.
    fn list(mut self, key: &str, type_id: u32, count: usize, elements: &[u8]) -> Self {
        let (list, count) = (9u32.to_le_bytes(), (count as u64).to_le_bytes());
        self.entries.push([&text(key), &list[..], &type_id.to_le_bytes(), &count, elements].concat());
        self
    }

    fn tensor(mut self, name: &str, shape: &[usize], type_id: u32, bytes: &[u8]) -> Self {
        let mut info = [text(name), (shape.len() as u32).to_le_bytes().into()].concat();
        shape.iter().rev().for_each(|&n| info.extend((n as u64).to_le_bytes()));
        info.extend(type_id.to_le_bytes());
        info.extend((self.data.len() as u64).to_le_bytes());
        self.infos.push(info);
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [b"GGUF".as_slice(), &3u32.to_le_bytes()].concat();
        bytes.extend((self.infos.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        bytes.extend(self.entries.concat());
        bytes.extend(self.infos.concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

fn header_of_tiny_llama() -> Writer {
    Writer::default()
        .word("general.architecture", "llama")
        .number("llama.embedding_length", 24)
        .number("llama.feed_forward_length", 40)
        .number("llama.block_count", 3)
        .number("llama.attention.head_count", 4)
        .number("llama.attention.head_count_kv", 2)
        .number("llama.attention.key_length", 16)
        .number("llama.context_length", 64)
        .float("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .float("llama.rope.freq_base", 10_000.0)
}

/// A tensor of a folder as a GGUF file has it.
fn with_weight(writer: Writer, name: &str, weight: &Tensor) -> Writer {
    let shape: Vec<usize> = weight.size().iter().map(|&n| n as usize).collect();
    let numbers = Vec::<f32>::try_from(weight.flatten(0, -1)).unwrap();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    writer.tensor(name, &shape, 0, &bytes)
}

fn with_weights(
    mut writer: Writer,
    folder: &str,
    names: &[(&str, &str)],
    arrange: impl Fn(&str, Tensor) -> Tensor,
) -> Writer {
    for (name, weight) in Tensor::read_safetensors(file(&format!("{folder}/model.safetensors"))).unwrap() {
        let gguf = names.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
        writer = with_weight(writer, &gguf, &arrange(&name, weight));
    }
    writer
}

const LLAMA_NAMES: [(&str, &str); 13] = [
    ("model.", ""),
    ("embed_tokens", "token_embd"),
    ("layers.", "blk."),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("norm.", "norm."),
];

/// The tiny Llama as llama.cpp would convert it: other names, query and key rows interleaved.
fn tiny_llama() -> Writer {
    let names = LLAMA_NAMES;
    let mut writer = header_of_tiny_llama();
    for (name, weight) in Tensor::read_safetensors(file("tiny-llama/model.safetensors")).unwrap() {
        let gguf = names.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
        let gguf = if gguf == "norm.weight" { "output_norm.weight".to_owned() } else { gguf };
        let weight = match name.rsplit('.').nth(1).unwrap() {
            "q_proj" => weight.view([4, 2, 8, 24]).transpose(1, 2).reshape([64, 24]),
            "k_proj" => weight.view([2, 2, 8, 24]).transpose(1, 2).reshape([32, 24]),
            _ => weight,
        };
        writer = with_weight(writer, &gguf, &weight);
    }
    writer
}

/// The tiny Qwen2 as llama.cpp would convert it: other names, rows as they are.
fn tiny_qwen2() -> Writer {
    let header = Writer::default()
        .word("general.architecture", "qwen2")
        .number("qwen2.embedding_length", 24)
        .number("qwen2.feed_forward_length", 40)
        .number("qwen2.block_count", 2)
        .number("qwen2.attention.head_count", 4)
        .number("qwen2.attention.head_count_kv", 2)
        .number("qwen2.context_length", 64)
        .float("qwen2.attention.layer_norm_rms_epsilon", 1e-5)
        .float("qwen2.rope.freq_base", 10_000.0);
    let names = [&[("model.norm", "output_norm")], &LLAMA_NAMES[..12]].concat();
    with_weights(header, "tiny-qwen2", &names, |_, weight| weight)
}

/// The tiny GPT-2 as llama.cpp would convert it: other names, matrices with outputs first.
fn tiny_gpt2() -> Writer {
    let header = Writer::default()
        .word("general.architecture", "gpt2")
        .number("gpt2.embedding_length", 24)
        .number("gpt2.feed_forward_length", 40)
        .number("gpt2.block_count", 2)
        .number("gpt2.attention.head_count", 3)
        .number("gpt2.context_length", 24)
        .float("gpt2.attention.layer_norm_epsilon", 1e-5);
    let names = [
        ("wte", "token_embd"),
        ("wpe", "position_embd"),
        ("ln_f", "output_norm"),
        ("h.", "blk."),
        ("ln_1", "attn_norm"),
        ("ln_2", "ffn_norm"),
        ("attn.c_attn", "attn_qkv"),
        ("attn.c_proj", "attn_output"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
    ];
    let outputs_first = |name: &str, weight: Tensor| {
        let is_matrix = name.contains(".c_") && name.ends_with("weight");
        if is_matrix { weight.transpose(0, 1).contiguous() } else { weight }
    };
    with_weights(header, "tiny-gpt2", &names, outputs_first)
}

/// A model of one block with a tokenizer, every supported element type, and numbers that are nearly all zero.
pub(crate) fn smallest() -> Vec<u8> {
    let texts = |texts: &[&str]| texts.iter().flat_map(|word| text(word)).collect::<Vec<u8>>();
    let types = [3i32, 1, 1, 1, 4].map(i32::to_le_bytes).concat();
    let mut writer = Writer::default()
        .word("general.architecture", "llama")
        .number("llama.embedding_length", 32)
        .number("llama.feed_forward_length", 32)
        .number("llama.block_count", 1)
        .number("llama.attention.head_count", 2)
        .number("llama.attention.head_count_kv", 1)
        .number("llama.context_length", 16)
        .word("tokenizer.ggml.model", "gpt2")
        .word("tokenizer.ggml.pre", "smollm")
        .list("tokenizer.ggml.tokens", 8, 5, &texts(&["<end>", "a", "b", "ab", "word"]))
        .list("tokenizer.ggml.merges", 8, 1, &texts(&["a b"]))
        .list("tokenizer.ggml.token_type", 5, 5, &types)
        .word("tokenizer.chat_template", "{{ messages }}")
        .number("tokenizer.ggml.eos_token_id", 0);
    let (f32s, f16s, bf16s) = ((0, 128), (1, 64), (30, 64));
    let (q4_0, q4_1, q5_0, q5_1, q8_0) = ((2, 18), (3, 20), (6, 22), (7, 24), (8, 34));
    for (name, rows, (type_id, row_bytes)) in [
        ("token_embd", 5, q8_0),
        ("blk.0.attn_q", 32, q4_1),
        ("blk.0.attn_k", 16, q4_0),
        ("blk.0.attn_v", 16, q5_0),
        ("blk.0.attn_output", 32, q5_1),
        ("blk.0.ffn_gate", 32, q8_0),
        ("blk.0.ffn_up", 32, bf16s),
        ("blk.0.ffn_down", 32, f16s),
    ] {
        writer = writer.tensor(&format!("{name}.weight"), &[rows, 32], type_id, &vec![0x11; rows * row_bytes]);
    }
    // Blocks of 256: tensors of a second block that the configuration does not count, so that they are made and not used.
    for (name, type_id, bytes) in [
        ("attn_output", 10, 84),
        ("ffn_gate", 11, 110),
        ("attn_v", 12, 144),
        ("ffn_up", 13, 176),
        ("ffn_down", 14, 210),
    ] {
        writer = writer.tensor(&format!("blk.1.{name}.weight"), &[1, 256], type_id, &vec![0x11; bytes]);
    }
    for name in ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"] {
        writer = writer.tensor(&format!("{name}.weight"), &[32], f32s.0, &vec![0; f32s.1]);
    }
    writer.bytes()
}

/// Writes `bytes` to a file of its own and loads it.
fn load_bytes(bytes: &[u8]) -> Result<Base, LoadError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    Base::load(&path, OPTIONS)
}

/// The sentence with which loading fails, from the file's name on.
fn sentence(bytes: &[u8]) -> String {
    let sentence = load_bytes(bytes).unwrap_err().to_string();
    sentence[sentence.find("model.gguf").unwrap()..].to_owned()
}

#[test]
fn a_gguf_file_gives_the_bits_of_the_folder_it_was_made_from() {
    let folder = TempDir::new().unwrap();
    let config = fs::read(file("tiny-llama/config.json")).unwrap();
    let mut config: Json = serde_json::from_slice(&config).unwrap();
    config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 10000.0});
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::copy(file("tiny-llama/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let lora =
        LoraSettings { rank: 1, alpha: 1.0, dropout: 0.0, rs_lora: false, target_modules: vec!["q_proj".into()] };
    let tokens = Tokens::right_padded(&[&[5, 9, 7, 33], &[8, 6]], 0, Device::Cpu);
    let logits = |base| Model::new(base, &lora, Head::Classifier(3), 1).unwrap().forward(&tokens, None);
    let expected = logits(load(folder.path()));
    assert!(logits(load_bytes(&tiny_llama().bytes()).unwrap()).equal(&expected));
}

#[test]
fn qwen2_and_gpt2_from_gguf_files_give_the_bits_of_their_folders() {
    let tokens = Tokens::right_padded(&[&[5, 9, 7, 33], &[8, 6]], 0, Device::Cpu);
    for (writer, folder) in [(tiny_qwen2(), "tiny-qwen2"), (tiny_gpt2(), "tiny-gpt2")] {
        let logits = |base: Base| {
            let lora = crate::models::golden::query_value(&base);
            Model::new(base, &lora, Head::Classifier(3), 1).unwrap().forward(&tokens, None)
        };
        let found = logits(load_bytes(&writer.bytes()).unwrap());
        let difference = crate::models::golden::largest_difference(&found, &logits(load(&file(folder))));
        // GPT-2's matrices lie the other way round in memory, and sums may be taken in another order.
        assert!(difference < 1e-6, "{folder}: logits differ by {difference}");
    }
}

#[derive(serde::Deserialize)]
struct GoldenTokenizer {
    tokens: Vec<String>,
    merges: Vec<String>,
    texts: Vec<String>,
    ids: std::collections::BTreeMap<String, Vec<Vec<u32>>>,
}

/// Golden: GPT2Tokenizer and Qwen2Tokenizer of transformers with the same vocabulary.
#[test]
fn texts_are_split_as_transformers_splits_them_for_gpt2_and_qwen2() {
    let golden: GoldenTokenizer = crate::models::golden::json("gguf_tokenizers.json");
    let words = |words: &[String]| words.iter().flat_map(|word| text(word)).collect::<Vec<u8>>();
    let types: Vec<u8> =
        golden.tokens.iter().flat_map(|token| if token == "<|end|>" { 3i32 } else { 1 }.to_le_bytes()).collect();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    assert_eq!(golden.ids.len(), 2);
    for (pre, expected) in &golden.ids {
        let writer = Writer::default()
            .word("tokenizer.ggml.model", "gpt2")
            .word("tokenizer.ggml.pre", pre)
            .list("tokenizer.ggml.tokens", 8, golden.tokens.len(), &words(&golden.tokens))
            .list("tokenizer.ggml.merges", 8, golden.merges.len(), &words(&golden.merges))
            .list("tokenizer.ggml.token_type", 5, golden.tokens.len(), &types);
        fs::write(&path, writer.bytes()).unwrap();
        let loaded = super::super::load_tokenizer(&path).unwrap();
        for (text, ids) in golden.texts.iter().zip(expected) {
            assert_eq!(loaded.tokenizer.encode(text.as_str(), true).unwrap().get_ids(), ids, "{pre}: {text:?}");
        }
    }
    let other = Writer::default().word("tokenizer.ggml.model", "gpt2").word("tokenizer.ggml.pre", "llama-bpe");
    fs::write(&path, other.bytes()).unwrap();
    let found = super::super::load_tokenizer(&path).unwrap_err().to_string();
    assert!(
        found.ends_with("its tokenizer.ggml.pre is llama-bpe; of GGUF files only gpt-2, qwen2 or smollm is read"),
        "{found}"
    );
}

#[test]
fn smollm2_is_read_from_its_folder_with_shape_and_padding_token() {
    let base = load(&real_model("smollm2"));
    let shape = base.shape();
    assert_eq!((shape.blocks, shape.hidden, shape.heads, shape.kv_heads), (30, 576, 9, 3));
    assert_eq!((shape.head_dim, shape.intermediate, shape.vocab, shape.max_positions), (64, 1536, 49152, 8192));
    assert_eq!(base.pad_token_id(), 2);
}

#[test]
fn the_tokenizer_of_smollm2_splits_digits_keeps_bytes_and_finds_special_tokens() {
    let loaded = super::super::load_tokenizer(&real_model("smollm2")).unwrap();
    let encoding = |text: &str| loaded.tokenizer.encode(text, true).unwrap();
    assert_eq!(encoding("Year 2025").get_tokens(), ["Year", "Ġ", "2", "0", "2", "5"]);
    // As transformers' tokenizer of the same file has them.
    assert_eq!(encoding("Year 2025").get_ids(), [19840, 216, 34, 32, 34, 37]);
    assert_eq!(
        encoding("The library was closed, and it rained.").get_ids(),
        [504, 4971, 436, 6370, 28, 284, 357, 689, 1210, 30]
    );
    assert_eq!(encoding("<|im_start|>user").get_ids()[0], 1);
    let text = "Grüße, 世界! \u{1f680}\n\tTabs  and   spaces 3.14";
    assert_eq!(loaded.tokenizer.decode(encoding(text).get_ids(), false).unwrap(), text);
    assert_eq!(loaded.pad_id, 2);
    loaded.check(load(&real_model("smollm2")).shape()).unwrap();
}

#[test]
fn the_chat_template_of_smollm2_is_read_with_the_token_that_ends_a_turn() {
    let loaded = super::super::load_tokenizer(&real_model("smollm2")).unwrap();
    let chat = loaded.chat.unwrap();
    assert!(chat.source.contains("add_generation_prompt"), "{}", chat.source);
    let [bos, eos] = [chat.bos_token, chat.eos_token].map(Option::unwrap);
    // As transformers' tokenizer of the same model has them.
    assert_eq!((bos.as_str(), eos.as_str(), loaded.eos_id), ("<|im_start|>", "<|im_end|>", Some(2)));
}

#[test]
fn no_truncated_or_spoilt_gguf_file_makes_loading_panic() {
    let writer = tiny_llama();
    let bytes = writer.bytes();
    let header = bytes.len() - writer.data.len();
    assert!(load_bytes(&bytes).is_ok());
    for at in (0..header).step_by(13) {
        assert!(load_bytes(&bytes[..at]).is_err(), "cut at {at}");
        for change in [0x01, 0x28, 0xff] {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= change;
            drop(load_bytes(&spoilt)); // a changed float is no error
        }
    }
    assert!(sentence(&bytes[..bytes.len() - 32]).contains("ends at byte"));
}

#[test]
fn a_header_that_claims_more_than_the_file_holds_is_refused() {
    let mut bytes = tiny_llama().bytes();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let found = sentence(&bytes);
    assert!(found.starts_with("model.gguf is truncated or corrupt: it claims 18446744073709551615 tensors"), "{found}");
    let mut bytes = tiny_llama().bytes();
    bytes[24..32].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert!(sentence(&bytes).contains("it claims 1099511627776 characters of text, but only"));
}

#[test]
fn tensors_that_share_their_bytes_are_refused() {
    let mut writer = header_of_tiny_llama().tensor("token_embd.weight", &[64, 24], 0, &[0; 64 * 24 * 4]);
    for block in 0..3 {
        let info =
            [text(&format!("blk.{block}.attn_norm.weight")), writer.infos[0][text("token_embd.weight").len()..].into()];
        writer.infos.push(info.concat());
    }
    let found = sentence(&writer.bytes());
    let expected = "model.gguf is truncated or corrupt: its tensors overlap: up to blk.0.attn_norm.weight they are ";
    assert!(found.starts_with(expected), "{found}");
}

#[test]
fn a_list_of_bytes_is_read_over_and_not_kept_as_numbers() {
    let listed = tiny_llama().list("tokenizer.ggml.token_type", 0, 2, &[1, 1]).list("x", 7, 1, &[1]).bytes();
    let header = read_header(&listed[..], listed.len() as u64).unwrap();
    assert_eq!(header.metadata["tokenizer.ggml.token_type"], Value::Skipped);
    let listed = tiny_llama().list("tokenizer.ggml.token_type", 5, 1, &[1, 0, 0, 0]).bytes();
    let header = read_header(&listed[..], listed.len() as u64).unwrap();
    assert_eq!(header.metadata["tokenizer.ggml.token_type"], Value::Integers(vec![1]));
}

#[test]
fn what_is_no_gguf_is_refused() {
    assert_eq!(sentence(b"PK\x03\x04...."), "model.gguf is truncated or corrupt: it does not start with GGUF");
    let mut bytes = tiny_llama().bytes();
    bytes[4] = 1;
    assert_eq!(sentence(&bytes), "model.gguf is truncated or corrupt: its GGUF version is 1; supported are 2 and 3");
}

#[test]
fn other_quantisations_are_refused_by_name() {
    let bytes = |type_id| header_of_tiny_llama().tensor("token_embd.weight", &[64, 24], type_id, &[0; 9000]).bytes();
    let found = sentence(&bytes(23));
    let supported = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K";
    assert_eq!(found, format!("model.gguf has elements of type IQ4_XS; supported are {supported}"));
    assert!(sentence(&bytes(40)).contains("number 40"));
}

#[test]
fn tensors_and_settings_that_llama_does_not_have_are_refused_by_name() {
    let extra = tiny_llama().tensor("blk.0.attn_q.bias", &[64], 0, &[0; 256]);
    assert_eq!(
        sentence(&extra.bytes()),
        "model.gguf cannot be used: its tensor blk.0.attn_q.bias is not part of a Llama model as it is supported here"
    );
    let scaled = tiny_llama().word("llama.rope.scaling.type", "yarn");
    assert!(sentence(&scaled.bytes()).contains("its rope scaling is \"yarn\""));
    let partial = tiny_llama().number("llama.rope.dimension_count", 8);
    assert!(sentence(&partial.bytes()).contains("it rotates 8 dimensions of heads"));
    let mut other = Writer::default().word("general.architecture", "mamba");
    other.data = vec![0; 64];
    assert!(sentence(&other.bytes()).starts_with("model.gguf describes a model of architecture mamba; supported are"));
}
