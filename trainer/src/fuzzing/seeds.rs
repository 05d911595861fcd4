//! The inputs that fuzzing starts from, made from the golden models, the manifests and this program's own writers.
//! Must not hold what fuzzing found: that is in the corpus as it was found.
//!
//! `good-*` is accepted, `bad-*` is refused.

use std::fs;

use serde_json::{Value, json};

use super::{RUN, models};
use crate::{
    models::golden,
    protocol::{Frame, frame::Body},
    wire::{CHUNK_BYTES, Element, Message, Subject, WireTensor, encode},
};
use fedtune_crds::report::PayloadKind;
use prost::Message as _;

/// Target, name and bytes of each seed.
pub(super) fn all() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let of = |target, seeds: Vec<(&'static str, Vec<u8>)>| {
        seeds.into_iter().map(move |(name, bytes)| (target, name, bytes)).collect::<Vec<_>>()
    };
    [
        of("checkpoint", checkpoint()),
        of("gguf", gguf()),
        of("safetensors", safetensors()),
        of("spec_yaml", spec_yaml()),
        of("tensor_bytes", tensor_bytes()),
        of("tokenizer", tokenizer()),
        of("wire_frames", wire_frames()),
    ]
    .concat()
}

fn checkpoint() -> Vec<(&'static str, Vec<u8>)> {
    let description = json!({
        "header": {"runHash": "ab12", "round": 3, "content": "state"},
        "tensors": [{"name": "w", "kind": "adapter"}, {"name": "l", "kind": "label"}], "fields": {"examples": 12},
    });
    let tensors = json!({
        "__metadata__": {"fedtune": description.to_string()},
        "0:w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "1:l": {"dtype": "I32", "shape": [2], "data_offsets": [12, 20]},
    });
    let mut missing = tensors.clone();
    missing["2:l"] = missing.as_object_mut().unwrap().remove("1:l").unwrap();
    let good = with_header(&tensors, 20);
    let cut = good[..good.len() - 1].to_vec();
    vec![("good-state", good), ("bad-missing", with_header(&missing, 20)), ("bad-cut", cut)]
}

fn gguf() -> Vec<(&'static str, Vec<u8>)> {
    let good = models::fuzzing::smallest_gguf();
    let cut = good[..good.len() / 2].to_vec();
    let mut many = good.clone();
    many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    vec![("good-every-type", good), ("bad-cut", cut), ("bad-many-tensors", many)]
}

fn safetensors() -> Vec<(&'static str, Vec<u8>)> {
    let golden = fs::read(golden::file("tiny-llama-sharded/model-00004-of-00004.safetensors")).unwrap();
    let cut = golden[..golden.len() - 4].to_vec();
    let half = |dtype: &str, offsets: [usize; 2]| json!({"dtype": dtype, "shape": [2, 3], "data_offsets": offsets});
    let types = json!({
        "__metadata__": {"format": "pt"}, "a": half("F16", [0, 12]), "b": half("BF16", [12, 24]),
        "c": {"dtype": "F32", "shape": [], "data_offsets": [24, 28]},
        "d": {"dtype": "F32", "shape": [0, 4], "data_offsets": [28, 28]},
    });
    let mut overlapping = types.clone();
    overlapping["b"] = half("BF16", [0, 12]);
    vec![
        ("good-golden", golden),
        ("good-every-type", with_header(&types, 28)),
        ("bad-cut", cut),
        ("bad-overlap", with_header(&overlapping, 28)),
        ("bad-length", u64::MAX.to_le_bytes().to_vec()),
    ]
}

fn with_header(header: &Value, data: usize) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![1; data]].concat()
}

fn spec_yaml() -> Vec<(&'static str, Vec<u8>)> {
    let manifest = |name: &str| fs::read(golden::file(&format!("../../manifests/{name}.yaml"))).unwrap();
    let everything = fs::read(golden::file("../../crds/tests/full.yaml")).unwrap();
    let sets = b"\0training.rounds=3\0clients.groups[0].replicas=2\0model.precision=F32";
    let merged = b"a: &a {b: [1, 2]}\nc: {<<: *a, d: *a}\n--- \nkind: x\n";
    vec![
        ("good-fedllm", manifest("fedllm")),
        ("good-split-with-sets", [&manifest("split-v1")[..], sets].concat()),
        ("good-kd", manifest("kd")),
        ("bad-every-field", everything),
        ("bad-aliases", merged.to_vec()),
        ("bad-set", [&manifest("central")[..], b"\0clients.groups[9].replicas=2"].concat()),
    ]
}

fn tensor_bytes() -> Vec<(&'static str, Vec<u8>)> {
    let tensor = |element: u8, shape: &[i64], bytes: usize| {
        let shape_bytes: Vec<u8> = shape.iter().flat_map(|dimension| dimension.to_le_bytes()).collect();
        [&[element, shape.len() as u8][..], &shape_bytes, &vec![1; bytes]].concat()
    };
    vec![
        ("good-f32", tensor(0, &[2, 3], 24)),
        ("good-bf16", tensor(1, &[2, 1, 3], 12)),
        ("good-f16", tensor(2, &[6], 12)),
        ("good-i32", tensor(3, &[3], 12)),
        ("good-u8", tensor(4, &[], 1)),
        ("good-empty", tensor(0, &[4, 0], 0)),
        ("bad-short", tensor(0, &[2, 3], 23)),
        ("bad-negative", tensor(0, &[-2, -3], 24)),
        ("bad-overflow", tensor(0, &[1 << 62, 4], 0)),
        ("bad-deep", tensor(0, &[1; 65], 4)),
    ]
}

fn tokenizer() -> Vec<(&'static str, Vec<u8>)> {
    let special = json!([{"id": 0, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}]);
    let whole = |model: Value, more: Value| {
        let mut json = json!({"version": "1.0", "truncation": {"direction": "Right", "max_length": 8,
            "strategy": "LongestFirst", "stride": 0}, "padding": null, "added_tokens": special.clone(),
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        [json.to_string().as_bytes(), b"\0a word, \xf0\x9f\x9a\x80 and another [UNK] 12"].concat()
    };
    let words = json!({"[UNK]": 0, "a": 1, "word": 2, "##d": 3, "w": 4, "ab": 5, "[SEP]": 6, "[CLS]": 7});
    let bert = json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 6], "cls": ["[CLS]", 7]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    });
    let piece = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": words});
    let pairs = json!({"type": "BPE", "dropout": null, "unk_token": "[UNK]", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {"[UNK]": 0, "a": 1, "b": 2,
        "ab": 3}, "merges": ["a b"]});
    let bytes = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "Split", "pattern": {"Regex": "\\s+|\\w+"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[UNK]", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[UNK]": {"id": "[UNK]", "ids": [0], "tokens": ["[UNK]"]}}}});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [["[UNK]", 0.0], ["\u{2581}a", -1.0], ["w", -2.5]],
        "byte_fallback": false});
    let metaspace = json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace",
        "pattern": {"String": " "}, "content": "_"}]}, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}",
        "prepend_scheme": "always", "split": true}});
    vec![
        ("good-word-piece", whole(piece, bert)),
        ("good-byte-pairs", whole(pairs.clone(), bytes)),
        ("good-unigram", whole(unigram, metaspace)),
        // The library panics on it.
        ("bad-pieces-of-nothing", whole(pairs, json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}))),
        ("bad-model", whole(json!({"type": "Unknown"}), json!({}))),
    ]
}

fn wire_frames() -> Vec<(&'static str, Vec<u8>)> {
    let tensor = |name: &str, kind, element: Element, shape: &[i64]| {
        let length = shape.iter().product::<i64>() as usize * element.size();
        WireTensor { name: name.to_owned(), kind, element, shape: shape.to_vec(), bytes: vec![0; length].into() }
    };
    let step = Message {
        step: 2,
        epoch: 1,
        tensors: vec![
            tensor("hidden", PayloadKind::Activation, Element::BF16, &[2, 3, 4]),
            tensor("lengths", PayloadKind::Length, Element::I32, &[2]),
            tensor("labels", PayloadKind::Label, Element::I32, &[2]),
        ],
        ..Message::new(Subject::Step, 1)
    };
    let fields = json!({"client": "silo/0", "examples": 12, "labels": {"ham": 7, "spam": 5}});
    let join = Message { fields, ..Message::new(Subject::Join, 0) };
    let large = [tensor("large", PayloadKind::Adapter, Element::U8, &[CHUNK_BYTES as i64 + 3])];
    let upload = Message { tensors: large.to_vec(), ..Message::new(Subject::Upload, 1) };
    let [step, join, upload] = [step, join, upload].map(|message| frames(message, RUN));
    let other = frames(Message::new(Subject::Join, 0), "another");
    vec![
        ("good-session", [&join[..], &step, &step].concat()),
        ("good-two-chunks", upload.clone()),
        ("bad-cut-off", upload[..upload.len() - 4].to_vec()),
        ("bad-other-run", other),
        ("bad-empty-frame", vec![b'F', 0]),
    ]
}

/// The frames as the target takes them, chunks of zeros by their length.
fn frames(message: Message, run: &str) -> Vec<u8> {
    let written = encode(message, run).unwrap().flat_map(|frame| match frame.body {
        Some(Body::Chunk(chunk)) if chunk.len() > 100 => [&b"C"[..], &(chunk.len() as u32).to_le_bytes()[..3]].concat(),
        body => [&b"F"[..], &Frame { body }.encode_length_delimited_to_vec()].concat(),
    });
    written.collect()
}
