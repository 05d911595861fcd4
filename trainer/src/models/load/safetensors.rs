//! Safetensors files: a JSON header that says where each tensor lies, then the bytes.
//! Must not believe the header: it must cover the file exactly, each tensor as long as its shape says.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::{Dtype, tensor::Metadata};
use tch::Kind;

use super::{
    super::base::LoadOptions,
    LoadError,
    checkpoint::{Checkpoint, Layout, Stored, map},
    quantised::Encoding,
};

/// Bytes of the length that stands before the header.
const PREFIX: u64 = 8;

/// Bytes of a header, at most, as Hugging Face's own reader has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// Maps the files and lists their tensors.
pub(super) fn open(folder: &Path, files: &[PathBuf], options: LoadOptions) -> Result<Checkpoint, LoadError> {
    let mut tensors = HashMap::new();
    for file in files {
        list_tensors(file, &mut tensors)?;
    }
    Ok(Checkpoint::new(folder, tensors, options))
}

fn list_tensors(path: &Path, tensors: &mut HashMap<String, Stored>) -> Result<(), LoadError> {
    let (data_start, metadata) = read_header(path)?;
    let bytes = map(path)?;
    let path: Arc<Path> = path.into();
    for (name, info) in metadata.tensors() {
        // Buffers such as position ids are integers; nobody asks for them.
        let encoding = element_kind(info.dtype).map(Encoding::Plain).ok_or_else(|| info.dtype.to_string());
        let (start, end) = info.data_offsets;
        let bytes = bytes
            .f_narrow(0, (data_start + start) as i64, (end - start) as i64)
            .map_err(|source| LoadError::Tensor { path: path.to_path_buf(), name: name.clone(), source })?;
        let (path, shape) = (Arc::clone(&path), info.shape.clone());
        tensors.insert(name, Stored { path, bytes, encoding, shape, layout: Layout::AsIs });
    }
    Ok(())
}

/// Where the data starts, and what lies there. `Metadata` checks order, overlap and lengths while it is parsed.
fn read_header(path: &Path) -> Result<(usize, Metadata), LoadError> {
    let failed = |source| LoadError::Read { path: path.into(), source };
    let corrupt = |reason| LoadError::Corrupt { path: path.into(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length < PREFIX {
        return Err(corrupt(format!("it has {length} bytes, too few for a safetensors header")));
    }
    let mut prefix = [0; PREFIX as usize];
    file.read_exact(&mut prefix).map_err(failed)?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > length - PREFIX {
        return Err(corrupt(format!("its header claims {header_length} bytes, the file has {length}")));
    }
    if header_length > LONGEST_HEADER {
        return Err(corrupt(format!("its header claims {header_length} bytes; at most {LONGEST_HEADER} are allowed")));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| corrupt(format!("its header is wrong: {error}")))?;
    let (wanted, found) = (metadata.data_len() as u64, length - PREFIX - header_length);
    if wanted != found {
        return Err(corrupt(format!("its header describes {wanted} bytes of tensors, the file holds {found}")));
    }
    Ok(((PREFIX + header_length) as usize, metadata))
}

fn element_kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}
