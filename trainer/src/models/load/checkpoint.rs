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
    /// How the bytes stand for numbers.
    pub(super) encoding: Encoding,
    /// Its shape, outermost first.
    pub(super) shape: Vec<usize>,
}

/// How bytes stand for numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// One element after the other.
    Plain(Kind),
}

impl Encoding {
    /// Bytes of `count` elements, none where that is no whole number or does not fit.
    pub(super) fn bytes(self, count: usize) -> Option<usize> {
        match self {
            Self::Plain(kind) => count.checked_mul(kind.elt_size_in_bytes()),
        }
    }
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
        stored.decode(self.options).map_err(|source| LoadError::Tensor {
            path: stored.path.to_path_buf(),
            name: name.into(),
            source,
        })
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
    fn decode(&self, options: LoadOptions) -> Result<Tensor, TchError> {
        let size: Vec<i64> = self.shape.iter().map(|&n| n as i64).collect();
        let tensor = match self.encoding {
            Encoding::Plain(kind) => view_as(&self.bytes, kind)?.f_view(size.as_slice())?,
        };
        tensor.f_to_device(options.device)?.f_to_kind(options.precision.kind())
    }
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
