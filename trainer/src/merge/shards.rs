//! Tensors into safetensors files, one tensor in memory at a time; several files with an index where one would be large.
//! Must not know where a tensor comes from.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use fedtune_crds::report::PayloadKind;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Delta, MergeError, write_json};
use crate::{
    adapter_files::AdapterError,
    durable,
    models::{StoredTensor, Weights},
    wire::{Element, WireTensor},
};

/// Bytes of one file, as Hugging Face's own tools cut them.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// A tensor that is to be written.
pub(super) struct Content<'a> {
    pub(super) name: String,
    pub(super) kind: Kind,
    shape: Vec<i64>,
    source: Source<'a>,
}

/// An element type as files and programs call it.
pub(super) struct ElementNames {
    element: Element,
    /// In safetensors.
    stored: &'static str,
    /// In `config.json`.
    pub(super) name: &'static str,
}

/// The type that elements of `kind` are written as.
pub(super) fn element_of(kind: Kind) -> ElementNames {
    match kind {
        Kind::BFloat16 => ElementNames { element: Element::BF16, stored: "BF16", name: "bfloat16" },
        Kind::Half => ElementNames { element: Element::F16, stored: "F16", name: "float16" },
        _ => ElementNames { element: Element::F32, stored: "F32", name: "float32" },
    }
}

enum Source<'a> {
    Stored { tensor: StoredTensor, weights: &'a Weights, delta: Option<Delta<'a>> },
    Made(Tensor),
}

impl<'a> Content<'a> {
    /// The base's own, with what the adapter adds to it.
    pub(super) fn stored(tensor: StoredTensor, weights: &'a Weights, delta: Option<Delta<'a>>, kind: Kind) -> Self {
        let shape = tensor.shape.iter().map(|&size| size as i64).collect();
        Self { name: tensor.name.clone(), kind, shape, source: Source::Stored { tensor, weights, delta } }
    }

    pub(super) fn made(name: String, tensor: Tensor, kind: Kind) -> Self {
        Self { name, kind, shape: tensor.size(), source: Source::Made(tensor) }
    }

    pub(super) fn is_changed(&self) -> bool {
        matches!(self.source, Source::Stored { delta: Some(_), .. })
    }

    fn bytes(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64 * element_of(self.kind).element.size() as u64
    }

    fn read(&self) -> Result<WireTensor, MergeError> {
        let tensor = match &self.source {
            Source::Made(tensor) => tensor.shallow_clone(),
            Source::Stored { tensor, weights, delta } => {
                let weight = weights.read(tensor)?;
                delta.as_ref().map_or(Ok(weight.shallow_clone()), |delta| delta.add_to(&weight))?
            }
        };
        let written = WireTensor::from_tensor(&self.name, PayloadKind::Adapter, &tensor, element_of(self.kind).element);
        Ok(written.map_err(AdapterError::from)?)
    }
}

/// Writes `contents` to `folder` in files of at most `most` bytes; gives the bytes of all tensors and the number of files.
pub(super) fn write_shards(folder: &Path, contents: &[Content<'_>], most: u64) -> Result<(u64, usize), MergeError> {
    let shards = cut(contents, most);
    let count = shards.len();
    let name = |index: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    let mut places = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        write_file(&folder.join(name(index)), shard)?;
        places.extend(shard.iter().map(|content| (content.name.clone(), name(index))));
    }
    let total = contents.iter().map(Content::bytes).sum();
    if count > 1 {
        let path = folder.join("model.safetensors.index.json");
        let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
        write_json(&path, &index).map_err(|source| MergeError::Write { path, source })?;
    }
    Ok((total, count))
}

/// Runs of tensors that fit into a file; a tensor that does not is alone in its own.
fn cut<'c, 'a>(contents: &'c [Content<'a>], most: u64) -> Vec<&'c [Content<'a>]> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, content) in contents.iter().enumerate() {
        if at > start && bytes + content.bytes() > most {
            shards.push(&contents[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += content.bytes();
    }
    shards.push(&contents[start..]);
    shards
}

/// Length of the header, the header, then the tensors' bytes in its order.
fn write_file(path: &Path, contents: &[Content<'_>]) -> Result<(), MergeError> {
    let failed = |source| MergeError::Write { path: path.to_owned(), source };
    let mut header = serde_json::Map::new();
    // What Hugging Face's readers ask for before they read anything else.
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut end = 0;
    for content in contents {
        let start = end;
        end += content.bytes();
        let about =
            json!({ "dtype": element_of(content.kind).stored, "shape": content.shape, "data_offsets": [start, end] });
        header.insert(content.name.clone(), about);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut unreadable = None;
    let written = durable::write_with(path, |mut file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for content in contents {
            match content.read() {
                Ok(tensor) => file.write_all(&tensor.bytes)?,
                Err(error) => return Err(io::Error::other(unreadable.insert(error).to_string())),
            }
        }
        Ok(())
    });
    unreadable.map_or_else(|| written.map_err(failed), Err)
}
