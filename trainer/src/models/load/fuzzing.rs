//! The readers of model files, led to with bytes in place of a path.
//! Must not read anything itself: it writes a file of its own and calls what a run calls.

use std::{fs, path::PathBuf};

use tch::Device;
use tempfile::TempDir;
use tokenizers::Tokenizer;

use super::{
    super::base::{Base, LoadOptions, Precision},
    LoadError, gguf, safetensors,
};

const OPTIONS: LoadOptions = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false };

/// Lists the tensors of a safetensors file and makes each of them.
pub(crate) fn load_safetensors(bytes: &[u8]) -> Result<(), LoadError> {
    let file = File::holding(bytes, "model.safetensors");
    safetensors::open(file.folder.path(), &[file.path()], OPTIONS)?.decode_all()
}

/// Reads a GGUF file's model, every tensor of it, and its tokenizer.
pub(crate) fn load_gguf(bytes: &[u8]) -> Result<(), LoadError> {
    let file = File::holding(bytes, "model.gguf");
    let decoded = gguf::open(&file.path(), OPTIONS).and_then(|gguf| gguf.checkpoint.decode_all());
    let model = Base::load(&file.path(), OPTIONS).map(drop);
    let tokenizer = super::load_tokenizer(&file.path()).map(drop);
    decoded.and(model).and(tokenizer)
}

/// Reads a `tokenizer.json`.
pub(crate) fn load_tokenizer(json: &[u8]) -> Result<Tokenizer, String> {
    super::tokenizer::parse_tokenizer(json)
}

/// A file in a folder of its own, gone with it.
struct File {
    folder: TempDir,
    name: &'static str,
}

impl File {
    fn holding(bytes: &[u8], name: &'static str) -> Self {
        let folder = TempDir::new().expect("a machine that fuzzes and tests has room for a temporary folder");
        let file = Self { folder, name };
        fs::write(file.path(), bytes).expect("a temporary folder can be written");
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(self.name)
    }
}

#[cfg(test)]
pub(crate) use gguf::tests::smallest as smallest_gguf;
