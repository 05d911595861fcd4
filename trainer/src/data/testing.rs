//! What the tests of this folder share: a tiny tokenizer, files on disk, a listener.
//! Must not be part of the program.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::json;
use tokenizers::Tokenizer;

use super::{Columns, Format, Source};
use crate::{
    events::{Event, Events},
    models::LoadedTokenizer,
    sources::{Access, Fetcher, Origin},
};

/// One token a word: `[UNK]` 0, `[CLS]` 1, `[SEP]` 2, `w0` 10, `w1` 11 ... `w999` 1009.
/// Like many a published one it pads and truncates by itself, to 8 tokens, which nobody wants.
pub(super) fn tokenizer(special_tokens: bool) -> Tokenizer {
    let mut vocabulary = json!({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2});
    for word in 0..1000 {
        vocabulary[format!("w{word}")] = json!(word + 10);
    }
    let special = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let template = json!({
        "type": "TemplateProcessing",
        "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
            "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]},
        },
    });
    let json = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"},
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": special_tokens.then_some(template),
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    Tokenizer::from_bytes(json.to_string()).unwrap()
}

/// [`tokenizer`] as it is loaded with a model.
pub(super) fn loaded(special_tokens: bool) -> LoadedTokenizer {
    let mut tokenizer = tokenizer(special_tokens);
    tokenizer.with_padding(None).with_truncation(None).unwrap();
    LoadedTokenizer { tokenizer, hash: "hash".into(), pad_id: 0, eos_id: None, chat: None }
}

/// Writes a file and the folders above it.
pub(super) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// A source with the columns `text` and `label`.
pub(super) fn source(path: impl Into<PathBuf>, format: Format) -> Source {
    Source {
        path: path.into(),
        format,
        columns: Columns::Labelled { text: "text".into(), label: Some("label".into()) },
    }
}

/// [`source`] as a plan names it.
pub(super) fn planned(path: impl Into<PathBuf>, format: Format) -> Source<Origin> {
    let Source { path, format, columns } = source(path, format);
    Source { path: path.into(), format, columns }
}

/// Brings nothing.
pub(super) fn nowhere() -> Fetcher {
    Fetcher::new(None, Access::of([]), Events::silent())
}

/// Folders `a` and `b` of ham, `c` of spam.
pub(super) fn folders() -> Format {
    Format::Folders { label_map: [("a", "ham"), ("b", "ham"), ("c", "spam")].map(|(k, v)| (k.into(), v.into())).into() }
}

/// Events, and all that they were told.
pub(super) fn recorded() -> (Events, Arc<Mutex<Vec<Event>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    (Events::to(move |event| list.lock().unwrap().push(event)), told)
}

/// The notes among the events.
pub(super) fn notes(told: &Mutex<Vec<Event>>) -> Vec<String> {
    let note = |event: &Event| if let Event::Note { text } = event { Some(text.clone()) } else { None };
    told.lock().unwrap().iter().filter_map(note).collect()
}
