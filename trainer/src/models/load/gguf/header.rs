//! The header of a GGUF file: metadata by key, and where each tensor lies.
//! Must not allocate for what the file does not hold: every count is checked against the bytes that are left.
//!
//! Own code because the readers at hand panic on reserved type numbers and take a file's word for its lengths.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// What stands before the tensors' bytes.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: Vec<TensorInfo>,
    /// Where the tensors' bytes start in the file.
    pub(super) data_start: u64,
}

/// Where a tensor lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// Outermost first; the file has them the other way round.
    pub(super) shape: Vec<usize>,
    /// ggml's number of the element type.
    pub(super) type_id: u32,
    /// From `data_start`.
    pub(super) offset: u64,
}

/// A metadata value; what no model or tokenizer needs is read over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Skipped,
}

/// What is wrong with a header, as the end of a sentence.
pub(super) type Problem = String;

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: i64 = 32;
const MOST_DIMENSIONS: u32 = 4;
/// Bytes of the shortest tensor entry: name length, dimension count, type, offset.
const SHORTEST_TENSOR_INFO: u64 = 8 + 4 + 4 + 8;
/// Bytes of the shortest metadata entry: key length, type, one byte.
const SHORTEST_ENTRY: u64 = 8 + 4 + 1;

/// Reads the header of a file of `length` bytes.
pub(super) fn read_header(file: impl Read, length: u64) -> Result<Header, Problem> {
    let mut reader = Reader { file, length, left: length };
    if reader.bytes::<4>()? != MAGIC {
        return Err("it does not start with GGUF".to_owned());
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("its GGUF version is {version}; supported are 2 and 3"));
    }
    let tensor_count = reader.count("tensors", SHORTEST_TENSOR_INFO)?;
    let entry_count = reader.count("metadata entries", SHORTEST_ENTRY)?;
    let metadata = (0..entry_count).map(|_| reader.entry()).collect::<Result<BTreeMap<_, _>, _>>()?;
    let tensors = (0..tensor_count).map(|_| reader.tensor_info()).collect::<Result<Vec<_>, _>>()?;
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(Value::Integer(alignment)) if *alignment > 0 && alignment % 8 == 0 => *alignment,
        Some(other) => return Err(format!("its alignment is {other:?}; it must be a multiple of 8")),
    };
    let data_start = (length - reader.left).next_multiple_of(alignment as u64);
    Ok(Header { metadata, tensors, data_start })
}

struct Reader<R> {
    file: R,
    length: u64,
    left: u64,
}

impl<R: Read> Reader<R> {
    fn claim(&mut self, count: u64) -> Result<(), Problem> {
        let at = self.length - self.left;
        self.left = self
            .left
            .checked_sub(count)
            .ok_or_else(|| format!("at byte {at} it claims {count} bytes more, {} are left", self.left))?;
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Problem> {
        self.file.read_exact(buffer).map_err(|error: io::Error| error.to_string())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A count of things that take at least `shortest` bytes each.
    fn count(&mut self, what: &str, shortest: u64) -> Result<u64, Problem> {
        let count = self.u64()?;
        if count > self.left / shortest {
            return Err(format!("it claims {count} {what}, but only {} bytes are left", self.left));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<String, Problem> {
        let length = self.count("characters of text", 1)?;
        self.claim(length)?;
        let mut text = vec![0; length as usize];
        self.fill(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn entry(&mut self) -> Result<(String, Value), Problem> {
        let key = self.text()?;
        let type_id = self.u32()?;
        let value = if type_id == ARRAY { self.array(&key)? } else { self.scalar(&key, type_id)? };
        Ok((key, value))
    }

    fn scalar(&mut self, key: &str, type_id: u32) -> Result<Value, Problem> {
        Ok(match type_id {
            0 => Value::Integer(u8::from_le_bytes(self.bytes()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.bytes()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Integer(u32::from_le_bytes(self.bytes()?).into()),
            5 => Value::Integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Bool(self.bytes::<1>()? != [0]),
            TEXT => Value::Text(self.text()?),
            10 => Value::Integer(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Value::Integer(i64::from_le_bytes(self.bytes()?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            unknown => return Err(format!("the value of {key} has unknown type {unknown}")),
        })
    }

    fn array(&mut self, key: &str) -> Result<Value, Problem> {
        let type_id = self.u32()?;
        let shortest = match type_id {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            TEXT | 10..=12 => 8,
            unknown => return Err(format!("the list {key} has elements of unknown type {unknown}")),
        };
        let count = self.count(&format!("elements of {key}"), shortest)?;
        if type_id == TEXT {
            return Ok(Value::Texts((0..count).map(|_| self.text()).collect::<Result<_, _>>()?));
        }
        // No list that is needed has smaller numbers, and as i64 a list of bytes would take eight times its file.
        let kept = matches!(type_id, 4 | 5 | 10 | 11);
        let mut integers = Vec::new();
        for _ in 0..count {
            let value = self.scalar(key, type_id)?;
            if let Value::Integer(value) = value
                && kept
            {
                integers.push(value);
            }
        }
        Ok(if kept { Value::Integers(integers) } else { Value::Skipped })
    }

    fn tensor_info(&mut self) -> Result<TensorInfo, Problem> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(format!("tensor {name} claims {dimensions} dimensions; at most {MOST_DIMENSIONS} are allowed"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(usize::try_from(self.u64()?).map_err(|_| format!("tensor {name} is larger than memory"))?);
        }
        shape.reverse();
        Ok(TensorInfo { name, shape, type_id: self.u32()?, offset: self.u64()? })
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;
