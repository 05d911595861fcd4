//! Tensors as they lie in a file, handed out by Hugging Face name in the wanted precision and on the wanted device.
//! Must not copy what can be mapped: where type and device are right, a tensor is a view of the file.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tch::{Device, Kind, TchError, Tensor};

use super::{super::base::LoadOptions, LoadError};

/// All tensors of a model's files.
pub(in crate::models) struct Checkpoint {
    path: PathBuf,
    tensors: HashMap<String, Stored>,
    options: LoadOptions,
}

/// One tensor as it lies in a file.
pub(super) struct Stored {
    /// The file.
    pub(super) path: Arc<Path>,
    /// Exactly its bytes, `[bytes]`, mapped.
    pub(super) bytes: Tensor,
    /// How the bytes stand for numbers, or the name of a type that is not supported.
    pub(super) encoding: Result<Encoding, String>,
    /// Its shape, outermost first.
    pub(super) shape: Vec<usize>,
    /// Number of heads where the rows of each head alternate between its two halves.
    pub(super) interleaved_heads: Option<usize>,
}

/// How bytes stand for numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// One element after the other.
    Plain(Kind),
    /// Blocks of 32: an F16 scale, 32 signed bytes.
    Q8_0,
    /// Blocks of 32: an F16 scale, an F16 minimum, 16 bytes with the first half in the low and the second half in the
    /// high four bits.
    Q4_1,
}

/// Elements of a quantised block.
const BLOCK: usize = 32;

impl Encoding {
    /// Bytes of a tensor of this shape; none where its rows are no whole blocks, or where it does not fit.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n))?;
        let blocks = shape.last().filter(|row| row.is_multiple_of(BLOCK)).map(|_| count / BLOCK);
        match self {
            Self::Plain(kind) => count.checked_mul(kind.elt_size_in_bytes()),
            Self::Q8_0 => blocks?.checked_mul(34),
            Self::Q4_1 => blocks?.checked_mul(20),
        }
    }

    /// Numbers from bytes, in one row; quantised ones as F32.
    fn decode(self, bytes: &Tensor) -> Result<Tensor, TchError> {
        let blocks = |length: i64| bytes.f_view([-1, length]);
        match self {
            Self::Plain(kind) => view_as(bytes, kind),
            Self::Q8_0 => {
                let blocks = blocks(34)?;
                let numbers = blocks.f_narrow(1, 2, 32)?.f_view_dtype(Kind::Int8)?; // [blocks, 32]
                numbers.f_mul(&half(&blocks, 0)?)
            }
            Self::Q4_1 => {
                let blocks = blocks(20)?;
                let nibbles = blocks.f_narrow(1, 4, 16)?; // [blocks, 16]
                let (low, high) = (nibbles.f_bitwise_and(15)?, nibbles.f_bitwise_right_shift_tensor_scalar(4)?);
                let numbers = Tensor::f_cat(&[low, high], 1)?; // [blocks, 32]
                numbers.f_mul(&half(&blocks, 0)?)?.f_add(&half(&blocks, 2)?)
            }
        }
    }
}

/// The F16 number at byte `start` of each block, as F32, `[blocks, 1]`.
fn half(blocks: &Tensor, start: i64) -> Result<Tensor, TchError> {
    blocks.f_narrow(1, start, 2)?.f_detach_copy()?.f_contiguous()?.f_view_dtype(Kind::Half)?.f_to_kind(Kind::Float)
}

impl Checkpoint {
    pub(super) fn new(path: &Path, tensors: HashMap<String, Stored>, options: LoadOptions) -> Self {
        Self { path: path.into(), tensors, options }
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
        stored.decode(encoding, self.options).map_err(|source| LoadError::Tensor {
            path: stored.path.to_path_buf(),
            name: name.into(),
            source,
        })
    }

    /// Name, shape and element type of each tensor of numbers, no type where they are quantised; buffers of integers are
    /// left out.
    pub(super) fn list(&self) -> impl Iterator<Item = (&str, &[usize], Option<Kind>)> {
        self.tensors.iter().filter_map(|(name, stored)| {
            let kind = match stored.encoding.as_ref().ok()? {
                Encoding::Plain(kind) => Some(*kind),
                Encoding::Q8_0 | Encoding::Q4_1 => None,
            };
            Some((name.as_str(), &stored.shape[..], kind))
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

    /// An error that says what is wrong with the whole.
    pub(in crate::models) fn unusable(&self, reason: &str) -> LoadError {
        LoadError::Unusable { path: self.path.clone(), reason: reason.to_owned() }
    }

    /// A model saved without its head lacks the first part of the names, `bert.` or `model.`.
    fn find(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name).or_else(|| self.tensors.get(name.split_once('.')?.1))
    }
}

impl Stored {
    fn decode(&self, encoding: Encoding, options: LoadOptions) -> Result<Tensor, TchError> {
        let size: Vec<i64> = self.shape.iter().map(|&n| n as i64).collect();
        let tensor = encoding.decode(&self.bytes)?.f_view(size.as_slice())?;
        let tensor = match self.interleaved_heads {
            None => tensor,
            Some(heads) => part_halves(&tensor, heads as i64)?,
        };
        tensor.f_to_device(options.device)?.f_to_kind(options.precision.kind())
    }
}

/// Rows of each head from alternating between its halves to one half after the other.
fn part_halves(weight: &Tensor, heads: i64) -> Result<Tensor, TchError> {
    let inputs = weight.size().last().copied().unwrap_or(1);
    let pairs = weight.f_view([heads, -1, 2, inputs])?; // [heads, head_dim / 2, 2, inputs]
    pairs.f_transpose(1, 2)?.f_reshape([-1, inputs])
}

/// Bytes as elements of `kind`: a view, or a copy where the file puts them at an address that the type forbids.
pub(super) fn view_as(bytes: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    match bytes.f_view_dtype(kind) {
        Ok(view) => Ok(view),
        Err(_) => bytes.f_detach_copy()?.f_view_dtype(kind),
    }
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
