//! Tensors as they lie in a file, handed out by Hugging Face name in the wanted precision and on the wanted device.
//! Must not copy what can be mapped: where type and device are right, a tensor is a view of the file, unless most of that
//! file is decoded: its pages would stay in memory for the sake of a few.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tch::{Device, Kind, TchError, Tensor};

use super::{super::base::LoadOptions, LoadError, quantised::Encoding};

/// All tensors of a model's files.
pub(in crate::models) struct Checkpoint {
    path: PathBuf,
    tensors: HashMap<String, Stored>,
    options: LoadOptions,
    /// Whether the files stay mapped: those with blocks of small numbers, where only the norms could be views, do not.
    stays_mapped: bool,
}

/// One tensor as it lies in a file.
pub(super) struct Stored {
    /// The file.
    pub(super) path: Arc<Path>,
    /// Exactly its bytes, `[bytes]`, mapped.
    pub(super) bytes: Tensor,
    /// How the bytes stand for numbers, or the name of a type that is not supported.
    pub(super) encoding: Result<Encoding, String>,
    /// Its shape as Hugging Face has it, outermost first.
    pub(super) shape: Vec<usize>,
    /// How it lies there.
    pub(super) layout: Layout,
}

/// How a matrix lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As Hugging Face has it.
    AsIs,
    /// The rows of each of so many heads alternate between its two halves.
    InterleavedHeads(usize),
    /// Rows and columns have changed places.
    Transposed,
}

impl Layout {
    /// The shape that Hugging Face gives to what has this shape in a file.
    pub(super) fn hugging_face_shape(self, shape: &[usize]) -> Vec<usize> {
        match self {
            Self::AsIs | Self::InterleavedHeads(_) => shape.into(),
            Self::Transposed => shape.iter().rev().copied().collect(),
        }
    }

    /// Numbers in the order of a file as the tensor of this Hugging Face shape.
    fn arrange(self, numbers: &Tensor, shape: &[i64]) -> Result<Tensor, TchError> {
        match self {
            Self::AsIs => numbers.f_view(shape),
            Self::InterleavedHeads(heads) => part_halves(&numbers.f_view(shape)?, heads as i64),
            Self::Transposed => {
                let reversed: Vec<i64> = shape.iter().rev().copied().collect();
                numbers.f_view(reversed.as_slice())?.f_transpose(0, -1)?.f_contiguous()
            }
        }
    }
}

impl Checkpoint {
    pub(super) fn new(path: &Path, tensors: HashMap<String, Stored>, options: LoadOptions) -> Self {
        let in_blocks = |stored: &Stored| stored.encoding.as_ref().is_ok_and(|encoding| !encoding.is_plain());
        let stays_mapped = !tensors.values().any(in_blocks);
        Self { path: path.into(), tensors, options, stays_mapped }
    }

    /// A tensor by its full Hugging Face name, of this shape, frozen, in the wanted precision on the wanted device.
    pub(in crate::models) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let stored =
            self.find(name).ok_or_else(|| LoadError::Missing { path: self.path.clone(), name: name.into() })?;
        if stored.shape != shape {
            return Err(LoadError::Shape {
                path: stored.path.to_path_buf(),
                name: name.into(),
                found: stored.shape.clone(),
                wanted: shape.into(),
            });
        }
        let encoding = stored.encoding.clone().map_err(|found| LoadError::Encoding {
            path: stored.path.to_path_buf(),
            name: name.into(),
            found,
            supported: "F32, F16 and BF16",
        })?;
        self.decode(stored, encoding).map_err(|source| LoadError::Tensor {
            path: stored.path.to_path_buf(),
            name: name.into(),
            source,
        })
    }

    /// Name, shape, element type and bytes of each tensor of numbers, no type where they are quantised; buffers of integers
    /// are left out.
    pub(super) fn list(&self) -> impl Iterator<Item = (&str, &[usize], Option<Kind>, u64)> {
        self.tensors.iter().filter_map(|(name, stored)| {
            let kind = if let Encoding::Plain(kind) = stored.encoding.as_ref().ok()? { Some(*kind) } else { None };
            Some((name.as_str(), &stored.shape[..], kind, stored.bytes.numel() as u64))
        })
    }

    /// Makes every tensor of it as a model would ask for it; the first that cannot be made is the error.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn decode_all(&self) -> Result<(), LoadError> {
        let decoded = self.tensors.iter().map(|(name, stored)| self.tensor(name, &stored.shape).map(drop));
        decoded.fold(Ok(()), Result::and)
    }

    /// Whether there is a tensor of this name.
    pub(in crate::models) fn holds(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The layer over the vocabulary `[vocab, hidden]`: the embedding table `words` where the two are tied, else a
    /// matrix of its own; none where nobody asked, or the file has none.
    pub(in crate::models) fn vocabulary(
        &self,
        words: &Tensor,
        tied: bool,
        options: LoadOptions,
    ) -> Result<Option<Tensor>, LoadError> {
        let name = "lm_head.weight";
        if !options.language_head || (!tied && !self.holds(name)) {
            return Ok(None);
        }
        if tied {
            return Ok(Some(words.shallow_clone()));
        }
        let size: Vec<usize> = words.size().iter().map(|&n| n as usize).collect();
        self.tensor(name, &size).map(Some)
    }

    /// An error that says what is wrong with the whole.
    pub(in crate::models) fn unusable(&self, reason: &str) -> LoadError {
        LoadError::Unusable { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn decode(&self, stored: &Stored, encoding: Encoding) -> Result<Tensor, TchError> {
        let decoded = stored.decode(encoding, self.options)?;
        if self.stays_mapped || !encoding.is_plain() {
            return Ok(decoded);
        }
        let mut own = decoded.f_empty_like()?;
        own.f_copy_(&decoded)?;
        Ok(own)
    }

    /// A model saved without its head lacks the first part of the names, `bert.` or `model.`.
    fn find(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name).or_else(|| self.tensors.get(name.split_once('.')?.1))
    }
}

impl Stored {
    fn decode(&self, encoding: Encoding, options: LoadOptions) -> Result<Tensor, TchError> {
        let size: Vec<i64> = self.shape.iter().map(|&n| n as i64).collect();
        let tensor = self.layout.arrange(&encoding.decode(&self.bytes)?, &size)?;
        tensor.f_to_device(options.device)?.f_to_kind(options.precision.kind())
    }
}

/// Rows of each head from alternating between its halves to one half after the other.
fn part_halves(weight: &Tensor, heads: i64) -> Result<Tensor, TchError> {
    let inputs = weight.size().last().copied().unwrap_or(1);
    let pairs = weight.f_view([heads, -1, 2, inputs])?; // [heads, head_dim / 2, 2, inputs]
    pairs.f_transpose(1, 2)?.f_reshape([-1, inputs])
}

/// The bytes of a file as a tensor `[length]`; pages come into memory when they are first read.
pub(super) fn map(path: &Path) -> Result<Tensor, LoadError> {
    let length = fs::metadata(path).map_err(|source| LoadError::Read { path: path.into(), source })?.len();
    let name = path
        .to_str()
        .ok_or_else(|| LoadError::Unusable { path: path.into(), reason: "its path is not valid Unicode".to_owned() })?;
    Tensor::f_from_file(name, false, length as i64, (Kind::Uint8, Device::Cpu)).map_err(|source| LoadError::Tensor {
        path: path.into(),
        name: "(the whole file)".to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
