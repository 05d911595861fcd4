//! Frames put together to messages again, each frame checked before it is kept.
//! Must not allocate from a peer's word: memory grows with bytes that arrived, and within the receiver's limits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use fedtune_crds::report::PayloadKind;
use prost::Message as _;

use super::{
    CHUNK_BYTES, Element, FIELDS_BYTES, Message, PROTOCOL_VERSION, Subject, WireError, WireTensor, error::quote,
    tensor::byte_length, words::ours,
};
use crate::protocol::{self, Frame, Header, TensorHeader, frame::Body};

/// What a receiver accepts in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub payload_bytes: u64,
}

impl Limits {
    /// For messages that carry fields alone.
    pub const FIELDS_ONLY: Self = Self { tensors: 0, payload_bytes: 0 };

    /// Bytes of a header within these limits: its fields, and 1 KiB for each tensor's name and shape.
    fn header_bytes(&self) -> usize {
        FIELDS_BYTES.saturating_add(self.tensors.saturating_add(1).saturating_mul(1024)).min(CHUNK_BYTES)
    }
}

/// The limits of one session, which change as it is known who sends; clones share them.
#[derive(Debug, Clone)]
pub struct SharedLimits(Arc<Mutex<Limits>>);

impl SharedLimits {
    /// These limits, until others are set.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(limits)))
    }

    /// Holds the next messages to other limits.
    pub fn set(&self, limits: Limits) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn get(&self) -> Limits {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the frames of one session together. After an error it must not be used again: the session is lost.
#[derive(Debug)]
pub struct Decoder {
    run: String,
    limits: SharedLimits,
    unfinished: Option<Unfinished>,
}

impl Decoder {
    /// For messages of the run whose hash is `run`, within `limits`.
    pub fn new(run: impl Into<String>, limits: Limits) -> Self {
        Self { run: run.into(), limits: SharedLimits::new(limits), unfinished: None }
    }

    /// For messages within limits that someone else may change.
    #[cfg(test)]
    pub(crate) fn within(run: &str, limits: SharedLimits) -> Self {
        Self { run: run.to_owned(), limits, unfinished: None }
    }

    /// The limits of the next messages, to be changed once it is known who sends them.
    pub fn limits(&self) -> SharedLimits {
        self.limits.clone()
    }

    /// Takes the next frame; gives the message that it completes.
    pub fn push(&mut self, frame: Frame) -> Result<Option<Message>, WireError> {
        let unfinished = match (frame.body.ok_or(WireError::EmptyFrame)?, self.unfinished.take()) {
            (Body::Header(header), None) => self.begin(header)?,
            (Body::Header(_), Some(unfinished)) => {
                return Err(WireError::HeaderTooEarly { missing: unfinished.missing });
            }
            (Body::Chunk(chunk), None) => return Err(WireError::ChunkBeforeHeader { length: chunk.len() }),
            (Body::Chunk(chunk), Some(mut unfinished)) => {
                unfinished.take_chunk(chunk)?;
                unfinished
            }
        };
        if unfinished.missing == 0 {
            return Ok(Some(unfinished.finish()));
        }
        self.unfinished = Some(unfinished);
        Ok(None)
    }

    /// Bytes that it has made room for.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let Some(Unfinished { message, awaited, pieces, missing: _ }) = &self.unfinished else { return 0 };
        let tensors = message.tensors.iter().map(|tensor| tensor.bytes.len()).sum::<usize>();
        let came = pieces.iter().map(Bytes::len).sum::<usize>();
        let described = awaited.iter().map(|tensor| tensor.name.capacity() + 8 * tensor.shape.capacity());
        let room = awaited.capacity() * size_of::<Awaited>() + pieces.capacity() * size_of::<Bytes>();
        tensors + came + room + described.sum::<usize>()
    }

    /// Says whether the session may end here.
    pub fn finish(&self) -> Result<(), WireError> {
        match &self.unfinished {
            None => Ok(()),
            Some(unfinished) => Err(WireError::CutOff { missing: unfinished.missing }),
        }
    }

    fn begin(&self, header: Bytes) -> Result<Unfinished, WireError> {
        let limits = self.limits.get();
        let (length, allowed) = (header.len(), limits.header_bytes());
        if length > allowed {
            return Err(WireError::HeaderTooLong { length, allowed });
        }
        let header =
            Header::decode(header).map_err(|reason| WireError::HeaderUnreadable { reason: reason.to_string() })?;
        if header.version != PROTOCOL_VERSION {
            return Err(WireError::Version { theirs: header.version });
        }
        if header.run != self.run {
            return Err(WireError::Run { theirs: quote(&header.run), ours: quote(&self.run) });
        }
        let subject: Subject =
            ours::<protocol::Subject, _>(header.subject).ok_or(WireError::Subject { number: header.subject })?;
        let (awaited, missing) = read_tensor_headers(header.tensors, limits)?;
        let message = Message {
            round: header.round,
            step: header.step,
            epoch: header.epoch,
            attempt: header.attempt,
            fields: read_fields(&header.fields)?,
            ..Message::new(subject, 0)
        };
        Ok(Unfinished { message, awaited, pieces: Vec::new(), missing })
    }
}

fn read_tensor_headers(headers: Vec<TensorHeader>, limits: Limits) -> Result<(VecDeque<Awaited>, u64), WireError> {
    let count = headers.len();
    if count > limits.tensors {
        return Err(WireError::TooManyTensors { count, allowed: limits.tensors });
    }
    let awaited = headers.into_iter().map(Awaited::try_from).collect::<Result<VecDeque<_>, _>>()?;
    let allowed = limits.payload_bytes;
    let total = awaited.iter().try_fold(0u64, |total, tensor| total.checked_add(tensor.length));
    let total = total.filter(|total| *total <= allowed).ok_or(WireError::TooManyBytes { allowed })?;
    Ok((awaited, total))
}

/// A tensor whose header came and whose bytes have not all come.
#[derive(Debug)]
struct Awaited {
    name: String,
    kind: PayloadKind,
    element: Element,
    shape: Vec<i64>,
    length: u64,
}

impl TryFrom<TensorHeader> for Awaited {
    type Error = WireError;

    fn try_from(header: TensorHeader) -> Result<Self, WireError> {
        let TensorHeader { name, kind, element, shape } = header;
        let kind = ours::<protocol::Kind, _>(kind)
            .ok_or_else(|| WireError::UnknownKind { name: quote(&name), number: kind })?;
        let element = ours::<protocol::Element, _>(element)
            .ok_or_else(|| WireError::UnknownElement { name: quote(&name), number: element })?;
        let length = byte_length(&name, &shape, element)?;
        Ok(Self { name, kind, element, shape, length })
    }
}

/// A message whose header came and whose tensors have not all come.
#[derive(Debug)]
struct Unfinished {
    /// With the tensors that are whole.
    message: Message,
    /// The others, in order.
    awaited: VecDeque<Awaited>,
    /// What came of the first of them.
    pieces: Vec<Bytes>,
    /// Bytes of all of them that have not come.
    missing: u64,
}

impl Unfinished {
    fn take_chunk(&mut self, mut chunk: Bytes) -> Result<(), WireError> {
        let (length, expected) = (chunk.len(), self.missing.min(CHUNK_BYTES as u64) as usize);
        if length > expected {
            return Err(WireError::ChunkTooLong { length, expected });
        }
        if length < expected {
            return Err(WireError::ChunkTooShort { length, expected });
        }
        self.missing -= length as u64;
        while let Some(tensor) = self.awaited.front()
            && !chunk.is_empty()
        {
            let came: usize = self.pieces.iter().map(Bytes::len).sum();
            let wanted = tensor.length - came as u64;
            self.pieces.push(chunk.split_to(wanted.min(chunk.len() as u64) as usize));
            if wanted == 0 || self.pieces.last().is_some_and(|piece| piece.len() as u64 == wanted) {
                self.complete_first();
            }
        }
        Ok(())
    }

    fn complete_first(&mut self) {
        let bytes = join(std::mem::take(&mut self.pieces));
        if let Some(Awaited { name, kind, element, shape, length: _ }) = self.awaited.pop_front() {
            self.message.tensors.push(WireTensor { name, kind, element, shape, bytes });
        }
    }

    /// The message; empty tensors after the last byte have no chunk that would complete them.
    fn finish(mut self) -> Message {
        while !self.awaited.is_empty() {
            self.complete_first();
        }
        self.message
    }
}

/// The pieces in one buffer, copied only if there are several.
fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

fn read_fields(json: &Bytes) -> Result<serde_json::Value, WireError> {
    if json.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    if json.len() > FIELDS_BYTES {
        return Err(WireError::FieldsTooLong { length: json.len() });
    }
    serde_json::from_slice(json).map_err(|reason| WireError::FieldsNotJson { reason: reason.to_string() })
}

#[cfg(test)]
mod tests;
