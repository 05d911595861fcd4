//! One checkpoint as bytes: a magic, a SHA-256 of all that follows, the format's version, then safetensors.
//! Must not believe a length: each is checked against the bytes there are before it is used.
//!
//! What safetensors cannot say stands as JSON under `fedtune` in its `__metadata__`: whose file it is, the order of the
//! tensors, what each is counted as, and the fields. A tensor's key is its place and its name (`0:score.weight`), so
//! that two may have one name.

use std::collections::HashMap;

use bytes::Bytes;
use fedtune_crds::report::PayloadKind;
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorView},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{CheckpointError, FileError, Snapshot};
use crate::wire::{Element, WireTensor};

/// Newest version of the format, the one that is written.
pub const FORMAT: u64 = 1;

const MAGIC: &[u8; 8] = b"fedtune\n";

/// Bytes before the safetensors: magic, hash, version.
const PREFIX: usize = MAGIC.len() + 32 + size_of::<u64>();

/// Where the description stands in `__metadata__`. One key, so that the same checkpoint always has the same bytes.
const DESCRIPTION: &str = "fedtune";

/// Whose checkpoint it is, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// SHA-256 over spec, base model and tokenizer, in hex.
    pub run_hash: String,
    /// The round after which it was taken, or in which it was sent.
    pub round: u32,
    /// What it holds.
    pub content: Content,
}

/// What a checkpoint file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    /// What a run, or a client in it, had reached.
    State,
    /// What was sent to all.
    Broadcast,
}

impl Content {
    /// The word for it in sentences and file names.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Broadcast => "broadcast",
        }
    }
}

/// All that safetensors cannot say.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    header: Header,
    tensors: Vec<Described>,
    fields: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    name: String,
    kind: PayloadKind,
}

impl Described {
    fn key(&self, place: usize) -> String {
        format!("{place}:{}", self.name)
    }
}

/// The bytes of a checkpoint file after its prefix.
pub(super) fn encode(header: Header, snapshot: &Snapshot) -> Result<Vec<u8>, CheckpointError> {
    let round = header.round;
    let named = snapshot.tensors.iter().map(|tensor| Described { name: tensor.name.clone(), kind: tensor.kind });
    let description = Description { header, tensors: named.collect(), fields: snapshot.fields.clone() };
    let views = snapshot.tensors.iter().zip(&description.tensors).enumerate();
    let views = views.map(|(place, (tensor, named))| Ok((named.key(place), view(tensor, round)?)));
    let views = views.collect::<Result<Vec<_>, CheckpointError>>()?;
    let text = serde_json::to_string(&description).expect("a description has text keys only");
    let metadata = HashMap::from([(DESCRIPTION.to_owned(), text)]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| CheckpointError::Format { round, error })
}

fn view(tensor: &WireTensor, round: u32) -> Result<TensorView<'_>, CheckpointError> {
    // Before safetensors multiplies the dimensions, unchecked.
    tensor.check_length().map_err(|error| CheckpointError::Tensor { round, error })?;
    let shape = tensor.shape.iter().map(|&size| size as usize).collect();
    TensorView::new(dtype(tensor.element), shape, &tensor.bytes)
        .map_err(|error| CheckpointError::Format { round, error })
}

/// What stands before `content` in a file.
pub(super) fn prefix(content: &[u8]) -> [u8; PREFIX] {
    let version = FORMAT.to_le_bytes();
    let hash = Sha256::new().chain_update(version).chain_update(content).finalize();
    let mut prefix = [0; PREFIX];
    let (magic, rest) = prefix.split_at_mut(MAGIC.len());
    let (hash_place, version_place) = rest.split_at_mut(hash.len());
    magic.copy_from_slice(MAGIC);
    hash_place.copy_from_slice(&hash);
    version_place.copy_from_slice(&version);
    prefix
}

/// A file whose hash is right whatever `content` is, for a fuzzer that must get past it.
pub fn seal(content: &[u8]) -> Vec<u8> {
    [&prefix(content)[..], content].concat()
}

/// Parses the bytes of one checkpoint file. Allocates in proportion to their number, whatever they say.
pub fn parse(bytes: &[u8]) -> Result<(Header, Snapshot), FileError> {
    decode(&Bytes::copy_from_slice(bytes))
}

/// As [`parse`]; the tensors share the memory of `bytes`.
pub(super) fn decode(bytes: &Bytes) -> Result<(Header, Snapshot), FileError> {
    check_seal(bytes)?;
    let (metadata, data) = split(&bytes.slice(PREFIX..))?;
    let Description { header, tensors, fields } = describe(&metadata)?;
    let found = metadata.tensors().len();
    if found != tensors.len() {
        return Err(FileError::Count { found, expected: tensors.len() });
    }
    let tensors = tensors.into_iter().enumerate().map(|(place, named)| tensor(named, place, &metadata, &data));
    Ok((header, Snapshot { fields, tensors: tensors.collect::<Result<_, _>>()? }))
}

/// Magic, hash, version, in this order: of a damaged file nothing is believed, not even that it is of a newer version.
fn check_seal(bytes: &[u8]) -> Result<(), FileError> {
    let cut_short = FileError::CutShort { length: bytes.len() };
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else { return Err(cut_short) };
    if magic != MAGIC {
        return Err(FileError::NotACheckpoint);
    }
    let Some((hash, sealed)) = rest.split_first_chunk::<32>() else { return Err(cut_short) };
    let Some((version, _)) = sealed.split_first_chunk::<8>() else { return Err(cut_short) };
    if Sha256::digest(sealed).as_slice() != hash {
        return Err(FileError::Damaged);
    }
    match u64::from_le_bytes(*version) {
        FORMAT => Ok(()),
        found => Err(FileError::Newer { found }),
    }
}

/// The header of the safetensors, and the tensors' bytes, which it covers exactly.
fn split(content: &Bytes) -> Result<(Metadata, Bytes), FileError> {
    let Some((length, rest)) = content.split_first_chunk::<8>() else {
        return Err(FileError::CutShort { length: PREFIX + content.len() });
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let header = header.ok_or(FileError::HeaderLength { length })?;
    let metadata: Metadata = serde_json::from_slice(header)?;
    let data = content.slice(8 + header.len()..);
    // The crate's own check adds to this length without looking, and what it adds may overflow.
    match metadata.data_len() {
        expected if expected == data.len() => Ok((metadata, data)),
        expected => Err(FileError::Length { length: data.len(), expected }),
    }
}

fn describe(metadata: &Metadata) -> Result<Description, FileError> {
    let text = metadata.metadata().as_ref().and_then(|entries| entries.get(DESCRIPTION));
    Ok(serde_json::from_str(text.ok_or(FileError::NoDescription)?)?)
}

fn tensor(named: Described, place: usize, metadata: &Metadata, data: &Bytes) -> Result<WireTensor, FileError> {
    let info = metadata.info(&named.key(place));
    let Described { name, kind } = named;
    let Some(info) = info else { return Err(FileError::Missing { name }) };
    let Some(element) = element(info.dtype) else { return Err(FileError::Element { name, dtype: info.dtype }) };
    let shape = info.shape.iter().map(|&size| i64::try_from(size)).collect();
    let Ok(shape) = shape else { return Err(FileError::Shape { name }) };
    // In bounds: reading the header made sure that the tensors lie end to end, and `split` that they end with the data.
    let bytes = data.slice(info.data_offsets.0..info.data_offsets.1);
    Ok(WireTensor { name, kind, element, shape, bytes })
}

fn dtype(element: Element) -> Dtype {
    match element {
        Element::F32 => Dtype::F32,
        Element::BF16 => Dtype::BF16,
        Element::F16 => Dtype::F16,
        Element::I32 => Dtype::I32,
        Element::U8 => Dtype::U8,
        Element::U16 => Dtype::U16,
        Element::U32 => Dtype::U32,
        Element::I8 => Dtype::I8,
    }
}

fn element(kept: Dtype) -> Option<Element> {
    Element::ALL.into_iter().find(|element| dtype(*element) == kept)
}

#[cfg(test)]
mod tests;
