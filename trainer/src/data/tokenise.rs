//! Texts into tokens, with the model's special tokens, truncated as Hugging Face truncates.
//! Must not pad: how far a batch is padded depends on the batch.

use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use super::cache;
use crate::{
    caught::caught,
    events::{Event, Events},
};

/// Why a text cannot become tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokeniseError {
    /// Special tokens alone fill the sequence.
    #[error("maxSequenceLength is {length}, but this tokenizer adds {special} special tokens to every text; give more")]
    TooShort {
        /// What the spec asks for.
        length: usize,
        /// Tokens that are added.
        special: usize,
    },
    /// The tokenizer refused.
    #[error("the tokenizer cannot read a text: {0}")]
    Refused(String),
    /// A model needs at least one token.
    #[error("{place} gives no token: its text is empty and the tokenizer adds nothing; take it out")]
    NoToken {
        /// The row.
        place: String,
    },
}

/// What is tokenised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Texts {
    /// Whole texts, with the model's special tokens, cut to so many tokens.
    Whole(usize),
    /// Pieces of longer texts, as they stand.
    Pieces,
}

/// Tokens of each text, from `cache` where they are there.
pub(crate) fn tokenise(
    texts: &[&str],
    what: Texts,
    tokenizer: &Tokenizer,
    tokenizer_hash: &str,
    cache: Option<&Path>,
    events: &Events,
) -> Result<Vec<Vec<u32>>, TokeniseError> {
    let entry = cache.map(|folder| cache::Entry::new(folder, &key_of(texts, what, tokenizer_hash)));
    if let Some(tokens) = entry.as_ref().and_then(|entry| entry.read(texts.len())) {
        return Ok(tokens);
    }
    let tokens = match what {
        Texts::Whole(max_length) => encode_all(texts, &truncating(tokenizer, max_length)?, true, events)?,
        Texts::Pieces => encode_all(texts, tokenizer, false, events)?,
    };
    if let Some(Err(error)) = entry.map(|entry| entry.write(&tokens)) {
        // A full or read-only disk costs time in the next run, not this one.
        events.tell(Event::Note { text: format!("the tokenised texts were not cached: {error}") });
    }
    Ok(tokens)
}

/// Everything that decides the tokens; so sources that differ in their texts alone cannot meet in the cache.
fn key_of(texts: &[&str], what: Texts, tokenizer_hash: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{tokenizer_hash}\n{what:?}\n"));
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

/// A clone that truncates to `max_length` with special tokens kept, and does not pad.
fn truncating(tokenizer: &Tokenizer, max_length: usize) -> Result<Tokenizer, TokeniseError> {
    let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    if max_length <= special {
        return Err(TokeniseError::TooShort { length: max_length, special });
    }
    let mut tokenizer = tokenizer.clone();
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(Some(TruncationParams { max_length, ..TruncationParams::default() }))
        .map_err(|error| TokeniseError::Refused(error.to_string()))?;
    Ok(tokenizer)
}

fn encode_all(
    texts: &[&str],
    tokenizer: &Tokenizer,
    special: bool,
    events: &Events,
) -> Result<Vec<Vec<u32>>, TokeniseError> {
    /// Texts from one report of progress to the next.
    const STRIDE: usize = 64;
    let stage = format!("Tokenising {} texts", with_commas(texts.len()));
    events.tell(Event::StageStarted { stage, of: texts.len() as u64 });
    let mut tokens = Vec::with_capacity(texts.len());
    for text in texts {
        tokens.push(encode(text, tokenizer, special).map_err(TokeniseError::Refused)?);
        if tokens.len().is_multiple_of(STRIDE) {
            events.tell(Event::StageAdvanced { at: tokens.len() as u64 });
        }
    }
    events.tell(Event::StageFinished);
    Ok(tokens)
}

/// A tokenizer's file may ask for what the library panics on when it comes to a text.
pub(super) fn encode(text: &str, tokenizer: &Tokenizer, special: bool) -> Result<Vec<u32>, String> {
    let encoding = caught(|| tokenizer.encode_fast(text, special))?.map_err(|error| error.to_string())?;
    Ok(encoding.get_ids().to_vec())
}

/// `6046` as `6,046`.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
