//! Which files of a path make up a model.
//! Must not read weights: names and the shard index only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;

use super::{LoadError, parse, read};

/// The files of one model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ModelFiles {
    /// A configuration and one or more safetensors files.
    HuggingFace { config: PathBuf, weights: Vec<PathBuf> },
    /// One file that holds everything.
    Gguf(PathBuf),
}

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl ModelFiles {
    /// Looks at `path`: a folder in Hugging Face's layout, a GGUF file, or a folder with one GGUF file.
    pub(super) fn find(path: &Path) -> Result<Self, LoadError> {
        let about = fs::metadata(path).map_err(|source| LoadError::Read { path: path.into(), source })?;
        if about.is_file() {
            return if is_gguf(path) {
                Ok(Self::Gguf(path.into()))
            } else {
                Err(LoadError::NoModel { path: path.into() })
            };
        }
        let config = path.join("config.json");
        if config.is_file() {
            return Ok(Self::HuggingFace { config, weights: weight_files(path)? });
        }
        let mut found = gguf_files(path)?;
        match found.len() {
            0 => Err(LoadError::NoModel { path: path.into() }),
            1 => Ok(Self::Gguf(found.remove(0))),
            count => Err(LoadError::ManyGguf { path: path.into(), count }),
        }
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn gguf_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read { path: folder.into(), source };
    let entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| is_gguf(path)).collect())
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index_file = folder.join("model.safetensors.index.json");
    if !index_file.is_file() {
        return Err(LoadError::NoModel { path: folder.into() });
    }
    let index: ShardIndex = parse(&index_file, &read(&index_file)?)?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    shards.into_iter().map(|shard| shard_path(folder, &index_file, &shard)).collect()
}

/// A shard must lie in the folder itself: an index is data, and data may not point anywhere.
fn shard_path(folder: &Path, index_file: &Path, shard: &str) -> Result<PathBuf, LoadError> {
    let mut parts = Path::new(shard).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Ok(folder.join(name)),
        _ => Err(LoadError::Corrupt {
            path: index_file.into(),
            reason: format!("it names a file outside the folder, {shard:?}"),
        }),
    }
}
