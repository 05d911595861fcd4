//! The tokenizer that belongs to a model.
//! Must not pad or truncate: batches are bucketed by their true length, so what the file asks for is cleared.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{
    super::shape::ModelShape,
    LoadError,
    chat::{self, ChatTemplate},
    files::ModelFiles,
    gguf, hash_files, parse, read,
};
use crate::caught::caught;

/// A tokenizer with what a run records of it.
#[derive(Debug, Clone)]
pub struct LoadedTokenizer {
    /// Without padding, without truncation.
    pub tokenizer: Tokenizer,
    /// SHA-256 of what it was made from, in hexadecimal.
    pub hash: String,
    /// The token that fills rows.
    pub pad_id: u32,
    /// The token that ends a text, where the files name one.
    pub eos_id: Option<u32>,
    /// How the model wants a conversation laid out, where its files say it.
    pub chat: Option<ChatTemplate>,
}

impl LoadedTokenizer {
    /// Checks that every token has a row in the model's embedding.
    ///
    /// # Errors
    /// [`LoadError::TokenizerMismatch`] with both numbers.
    pub fn check(&self, shape: &ModelShape) -> Result<(), LoadError> {
        let largest_id =
            self.tokenizer.get_vocab(true).into_values().chain([self.pad_id]).chain(self.eos_id).max().unwrap_or(0);
        if (largest_id as usize) < shape.vocab {
            return Ok(());
        }
        Err(LoadError::TokenizerMismatch { largest_id, vocab: shape.vocab })
    }
}

/// Loads the tokenizer of the model at `path`: its `tokenizer.json`, or what its GGUF file holds.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn load_tokenizer(path: &Path) -> Result<LoadedTokenizer, LoadError> {
    match ModelFiles::find(path)? {
        ModelFiles::HuggingFace { .. } => from_folder(path),
        ModelFiles::Gguf(file) => gguf::load_tokenizer(&file),
    }
}

fn from_folder(folder: &Path) -> Result<LoadedTokenizer, LoadError> {
    let file = folder.join("tokenizer.json");
    let wrong = |reason| LoadError::Tokenizer { path: file.clone(), reason };
    let tokenizer = parse_tokenizer(&read(&file)?).map_err(wrong)?;
    let config = read_config(folder)?;
    let id = |key| chat::token(&config, key).and_then(|token| tokenizer.token_to_id(token));
    let eos_id = id("eos_token");
    let pad_id = id("pad_token").or(eos_id).unwrap_or(0);
    let chat = chat::of_folder(folder, &config)?;
    let hash = chat::hash_with(&hash_files(&[&file])?, chat.as_ref(), eos_id);
    Ok(LoadedTokenizer { tokenizer, hash, pad_id, eos_id, chat })
}

/// `tokenizer_config.json`, or nothing where there is none.
fn read_config(folder: &Path) -> Result<Value, LoadError> {
    let file = folder.join("tokenizer_config.json");
    if file.is_file() { parse(&file, &read(&file)?) } else { Ok(Value::Null) }
}

/// What a `tokenizer.json` describes, without the padding and truncation it asks for.
pub(super) fn parse_tokenizer(json: &[u8]) -> Result<Tokenizer, String> {
    build(|| {
        let mut tokenizer = Tokenizer::from_bytes(json)?;
        tokenizer.with_padding(None).with_truncation(None)?;
        Ok(tokenizer)
    })
}

/// Makes a tokenizer; the library panics on some that make no sense, and that is an error too.
pub(super) fn build(make: impl FnOnce() -> tokenizers::Result<Tokenizer>) -> Result<Tokenizer, String> {
    caught(make)?.map_err(|error| error.to_string())
}
