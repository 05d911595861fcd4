//! The tokenizer that belongs to a model.
//! Must not pad or truncate: batches are bucketed by their true length, so what the file asks for is cleared.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{super::shape::ModelShape, LoadError, files::ModelFiles, gguf, hash_files, parse, read};
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
}

impl LoadedTokenizer {
    /// Checks that every token has a row in the model's embedding.
    ///
    /// # Errors
    /// [`LoadError::TokenizerMismatch`] with both numbers.
    pub fn check(&self, shape: &ModelShape) -> Result<(), LoadError> {
        let largest_id = self.tokenizer.get_vocab(true).into_values().chain([self.pad_id]).max().unwrap_or(0);
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
    let pad_id = pad_token(folder, &tokenizer)?;
    Ok(LoadedTokenizer { tokenizer, hash: hash_files(&[&file])?, pad_id })
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

/// The padding token of `tokenizer_config.json`, else its end-of-text token, else 0.
fn pad_token(folder: &Path, tokenizer: &Tokenizer) -> Result<u32, LoadError> {
    let file: PathBuf = folder.join("tokenizer_config.json");
    if !file.is_file() {
        return Ok(0);
    }
    let config: Value = parse(&file, &read(&file)?)?;
    let text = |key: &str| {
        let token = config.get(key)?;
        token.as_str().or_else(|| token.get("content")?.as_str())
    };
    Ok(["pad_token", "eos_token"].into_iter().filter_map(text).find_map(|t| tokenizer.token_to_id(t)).unwrap_or(0))
}
