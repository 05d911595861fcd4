//! How a model wants a conversation laid out: its Jinja template, and the tokens that the template may name.
//! Must not render anything: what is said to whom is the data's, the template is the model's.

use std::{fs, path::Path};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::LoadError;

/// A model's own chat template, as its authors wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    /// The template, in Jinja.
    pub source: String,
    /// What the template's `bos_token` stands for.
    pub bos_token: Option<String>,
    /// What the template's `eos_token` stands for.
    pub eos_token: Option<String>,
}

/// The template of a Hugging Face folder: `chat_template.jinja`, else what `tokenizer_config.json` holds, as
/// transformers has it.
pub(super) fn of_folder(folder: &Path, config: &Value) -> Result<Option<ChatTemplate>, LoadError> {
    let file = folder.join("chat_template.jinja");
    let source = if file.is_file() {
        Some(fs::read_to_string(&file).map_err(|source| LoadError::Read { path: file, source })?)
    } else {
        config.get("chat_template").and_then(default_template).map(str::to_owned)
    };
    let token = |key| token(config, key).map(str::to_owned);
    Ok(source.map(|source| ChatTemplate { source, bos_token: token("bos_token"), eos_token: token("eos_token") }))
}

/// A template alone, or of several the one named `default`.
fn default_template(templates: &Value) -> Option<&str> {
    let of_name = |named: &&Value| named.get("name").and_then(Value::as_str) == Some("default");
    templates.as_str().or_else(|| templates.as_array()?.iter().find(of_name)?.get("template")?.as_str())
}

/// A special token of `tokenizer_config.json`: its text alone, or with how it is matched.
pub(super) fn token<'a>(config: &'a Value, key: &str) -> Option<&'a str> {
    let token = config.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The hash of a tokenizer that also covers its chat template and the token that ends a text.
pub(super) fn hash_with(tokenizer: &str, chat: Option<&ChatTemplate>, eos_id: Option<u32>) -> String {
    let mut hash = Sha256::new();
    let chat = chat.map(|chat| (Some(&chat.source), chat.bos_token.as_ref(), chat.eos_token.as_ref()));
    let (source, bos, eos) = chat.unwrap_or_default();
    let eos_id = eos_id.map(|id| id.to_string());
    for text in [
        Some(tokenizer),
        source.map(String::as_str),
        bos.map(String::as_str),
        eos.map(String::as_str),
        eos_id.as_deref(),
    ] {
        // What is absent is told from what is empty.
        hash.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        hash.update(text.unwrap_or_default());
    }
    fedtune_crds::hex(&hash.finalize())
}
