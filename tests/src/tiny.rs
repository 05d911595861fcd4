//! A BERT of three blocks with a tokenizer of its own, and texts whose label one word gives away.
//! Must not be random: the same files each time.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// Tokens of a text beside its words: `[CLS]` and `[SEP]`.
const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
const THINGS: [&str; 8] = ["parcel", "letter", "invoice", "ticket", "cable", "lamp", "chair", "kettle"];
const TIMES: [&str; 6] = ["today", "yesterday", "monday", "tuesday", "friday", "sunday"];
const GOOD: [&str; 5] = ["fine", "lovely", "bright", "sturdy", "quick"];
const BAD: [&str; 5] = ["broken", "late", "dented", "dull", "lost"];
const SHOPS: [&str; 4] = ["north", "east", "south", "west"];

/// Blocks of the model.
pub const BLOCKS: usize = 3;
/// Width of its hidden states.
pub const HIDDEN: u64 = 24;
/// Most tokens of a text.
pub const POSITIONS: usize = 16;
/// Rows of its embedding.
pub const VOCABULARY: usize = 61;

/// A file of the golden models, whose makers are beside them.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(path)
}

/// Writes the tiny BERT, tokenizer included, into `folder`.
pub fn write_model(folder: &Path) {
    fs::create_dir_all(folder).expect("a temporary folder can be written");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("tiny-bert").join(file), folder.join(file)).expect("the golden model is there");
    }
    let words = SPECIAL.iter().chain(&["the", "came", "and", "was"]).chain(&THINGS).chain(&TIMES);
    let words: Vec<&str> = words.chain(&GOOD).chain(&BAD).copied().collect();
    write_tokenizer(folder, &words);
}

/// Writes the tiny Llama, with a tokenizer that ends texts and has no chat template, into `folder`.
pub fn write_language_model(folder: &Path) {
    fs::create_dir_all(folder).expect("a temporary folder can be written");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("tiny-llama").join(file), folder.join(file)).expect("the golden model is there");
    }
    let words = SPECIAL.iter().chain(&["the", "came", "and", "was", "ham", "spam", "good", "bad"]);
    let words = words.chain(&THINGS).chain(&TIMES).chain(&GOOD).chain(&BAD).copied().collect::<Vec<_>>();
    write_tokenizer_with(folder, &words, &json!(null));
    let config = json!({"eos_token": "[SEP]", "pad_token": "[PAD]"}).to_string();
    fs::write(folder.join("tokenizer_config.json"), config).expect("a temporary folder can be written");
}

/// Writes a tokenizer that knows these words and puts `[CLS]` and `[SEP]` around a text.
pub fn write_tokenizer(folder: &Path, words: &[&str]) {
    write_tokenizer_with(folder, words, &json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}));
}

fn write_tokenizer_with(folder: &Path, words: &[&str], post_processor: &Value) {
    let vocabulary: Value = words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special = |id: usize| {
        let content = SPECIAL[id];
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": (0..SPECIAL.len()).map(special).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": post_processor,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("a temporary folder can be written");
}

/// `rows` different texts as CSV with the columns `text`, `mood` and `shop`: as many good as bad ones.
pub fn csv(rows: usize) -> String {
    let mut csv = String::from("text,mood,shop\n");
    for row in 0..rows {
        let (mood, words) = if row % 2 == 0 { ("good", GOOD) } else { ("bad", BAD) };
        let number = row / 2;
        let (word, thing) = (words[number % 5], THINGS[number / 5 % 8]);
        let (time, shop) = (TIMES[number / 40 % 6], SHOPS[number % 4]);
        // Two lengths, so that batches have padding.
        let tail = if number % 3 == 0 { " and was the lamp" } else { "" };
        writeln!(csv, "the {thing} came {word} {time}{tail},{mood},{shop}")
            .expect("a String takes all that is written");
    }
    csv
}

/// Writes `rows` of the texts, from the row `first` on, as a file each into `folder`.
pub fn write_folder(folder: &Path, first: usize, rows: usize) {
    fs::create_dir_all(folder).expect("a temporary folder can be written");
    for (number, line) in csv(first + rows).lines().skip(1 + first).enumerate() {
        let text = line.split(',').next().expect("a line has a first field");
        fs::write(folder.join(format!("{number:03}.txt")), text).expect("a temporary folder can be written");
    }
}
