//! The tokenizer inside a GGUF file: byte-level BPE from its token and merge lists.
//! Must not invent a pre-tokenizer: the file names one, and an unknown name is refused.

use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    normalizers::NFC,
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{
    super::{
        LoadError, LoadedTokenizer,
        chat::{self, ChatTemplate},
        tokenizer,
    },
    metadata::Metadata,
    open_header,
};

/// ggml's token types: control tokens are special, user-defined ones are matched whole in a text.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Builds the tokenizer that the file describes.
pub(in crate::models::load) fn load_tokenizer(path: &Path) -> Result<LoadedTokenizer, LoadError> {
    let header = open_header(path)?;
    let metadata = Metadata { path, header: &header };
    let splits = check_kind(&metadata)?;
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let merges = metadata.texts("tokenizer.ggml.merges")?;
    let types = metadata.integers("tokenizer.ggml.token_type")?;
    if types.len() != tokens.len() {
        let reason = format!("it has {} tokens, but types of {}", tokens.len(), types.len());
        return Err(metadata.unusable(reason));
    }
    let tokenizer = tokenizer::build(|| build(splits, tokens, merges, types))
        .map_err(|reason| LoadError::Tokenizer { path: path.into(), reason })?;
    let chat = chat_template(&metadata, tokens);
    let eos_id = metadata.token_id("tokenizer.ggml.eos_token_id");
    let hash = chat::hash_with(&hash(tokens, merges), chat.as_ref(), eos_id);
    Ok(LoadedTokenizer { tokenizer, hash, pad_id: metadata.pad_token_id(), eos_id, chat })
}

fn chat_template(metadata: &Metadata, tokens: &[String]) -> Option<ChatTemplate> {
    let token = |key| metadata.token_id(key).and_then(|id| tokens.get(id as usize)).cloned();
    Some(ChatTemplate {
        source: metadata.text("tokenizer.chat_template")?.to_owned(),
        bos_token: token("tokenizer.ggml.bos_token_id"),
        eos_token: token("tokenizer.ggml.eos_token_id"),
    })
}

/// How a text is split before pairs of bytes are merged, by the name that a file gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Splits {
    /// GPT-2's regular expression.
    Gpt2,
    /// Each digit alone, then GPT-2's.
    SmolLm,
    /// Composed characters, Qwen2's regular expression.
    Qwen2,
}

impl Splits {
    fn of_name(name: &str) -> Option<Self> {
        match name {
            "gpt-2" => Some(Self::Gpt2),
            "smollm" => Some(Self::SmolLm),
            "qwen2" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// The last step makes bytes visible characters, as the vocabulary has them.
    fn steps(self) -> tokenizers::Result<Vec<PreTokenizerWrapper>> {
        let gpt2 = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
        Ok(match self {
            Self::Gpt2 => vec![gpt2],
            Self::SmolLm => vec![PreTokenizerWrapper::Digits(Digits::new(true)), gpt2],
            Self::Qwen2 => {
                let pattern = SplitPattern::Regex(QWEN2.to_owned());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
                vec![
                    PreTokenizerWrapper::Split(split),
                    PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)),
                ]
            }
        })
    }
}

/// Qwen2's split: contractions, letters with what stands before them, single digits, signs, ends of lines, spaces.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

fn check_kind(metadata: &Metadata) -> Result<Splits, LoadError> {
    let unknown = |key: &str, found: Option<&str>, wanted: &str| {
        let found = found.unwrap_or("(none)");
        metadata.unusable(format!("its {key} is {found}; of GGUF files only {wanted} is read"))
    };
    let (model, pre) = ("tokenizer.ggml.model", "tokenizer.ggml.pre");
    if metadata.text(model) != Some("gpt2") {
        return Err(unknown(model, metadata.text(model), "gpt2"));
    }
    let splits = metadata.text(pre).and_then(Splits::of_name);
    let splits = splits.ok_or_else(|| unknown(pre, metadata.text(pre), "gpt-2, qwen2 or smollm"))?;
    if metadata.bool("tokenizer.ggml.add_bos_token") == Some(true) {
        return Err(metadata.unusable("its tokenizer adds a first token to every text, which is not supported".into()));
    }
    Ok(splits)
}

fn build(splits: Splits, tokens: &[String], merges: &[String], types: &[i64]) -> tokenizers::Result<Tokenizer> {
    let vocab: Vocab = tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), id)).collect();
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or("a merge is not two tokens with a space between them")?;
    let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(vocab, merges).build()?);
    let byte_level = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(splits.steps()?))).with_decoder(Some(byte_level));
    if splits == Splits::Qwen2 {
        tokenizer.with_normalizer(Some(NFC));
    }
    let of_type = |wanted, special| {
        let chosen = tokens.iter().zip(types).filter(move |(_, kind)| **kind == wanted);
        chosen.map(|(token, _)| AddedToken::from(token.clone(), special)).collect::<Vec<_>>()
    };
    tokenizer.add_special_tokens(&of_type(CONTROL, true));
    tokenizer.add_tokens(&of_type(USER_DEFINED, false));
    Ok(tokenizer)
}

fn hash(tokens: &[String], merges: &[String]) -> String {
    let mut hash = Sha256::new();
    for text in tokens.iter().chain(merges) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    fedtune_crds::hex(&hash.finalize())
}
