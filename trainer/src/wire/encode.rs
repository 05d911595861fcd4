//! A message as frames: one header, then the tensors' bytes in chunks.
//! Must not copy payload: chunks are slices of the tensors' own buffers wherever one tensor fills them.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use super::{CHUNK_BYTES, FIELDS_BYTES, Message, PROTOCOL_VERSION, WireError, WireTensor};
use crate::protocol::{self, Frame, Header, TensorHeader, frame::Body};

/// The frames of `message` in the run whose hash is `run`; refuses what every receiver would refuse.
pub fn encode(message: Message, run: &str) -> Result<impl Iterator<Item = Frame> + use<>, WireError> {
    message.tensors.iter().try_for_each(WireTensor::check_length)?;
    let header = write_header(&message, run)?.encode_to_vec();
    if header.len() > CHUNK_BYTES {
        return Err(WireError::HeaderTooLong { length: header.len(), allowed: CHUNK_BYTES });
    }
    let bytes = message.tensors.into_iter().map(|tensor| tensor.bytes).filter(|bytes| !bytes.is_empty()).collect();
    let bodies = std::iter::once(Body::Header(header.into())).chain(Chunks { bytes }.map(Body::Chunk));
    Ok(bodies.map(|body| Frame { body: Some(body) }))
}

fn write_header(message: &Message, run: &str) -> Result<Header, WireError> {
    Ok(Header {
        version: PROTOCOL_VERSION,
        run: run.to_owned(),
        subject: protocol::Subject::from(message.subject).into(),
        round: message.round,
        step: message.step,
        epoch: message.epoch,
        attempt: message.attempt,
        fields: write_fields(&message.fields)?,
        tensors: message.tensors.iter().map(write_tensor_header).collect(),
    })
}

fn write_fields(fields: &serde_json::Value) -> Result<Bytes, WireError> {
    if fields.is_null() {
        return Ok(Bytes::new());
    }
    let json = fields.to_string();
    if json.len() > FIELDS_BYTES {
        return Err(WireError::FieldsTooLong { length: json.len() });
    }
    Ok(json.into())
}

fn write_tensor_header(tensor: &WireTensor) -> TensorHeader {
    TensorHeader {
        name: tensor.name.clone(),
        kind: protocol::Kind::from(tensor.kind).into(),
        element: protocol::Element::from(tensor.element).into(),
        shape: tensor.shape.clone(),
    }
}

/// The buffers' concatenation in pieces of [`CHUNK_BYTES`], the last one shorter; no buffer is empty.
struct Chunks {
    bytes: VecDeque<Bytes>,
}

impl Chunks {
    fn take(&mut self, most: usize) -> Option<Bytes> {
        let first = self.bytes.front_mut()?;
        let piece = first.split_to(most.min(first.len()));
        if !first.has_remaining() {
            self.bytes.pop_front();
        }
        Some(piece)
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let first = self.take(CHUNK_BYTES)?;
        if first.len() == CHUNK_BYTES || self.bytes.is_empty() {
            return Some(first);
        }
        // Tensors meet in this chunk: joining small pieces costs less than a frame for each.
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        chunk.extend_from_slice(&first);
        while let Some(piece) = self.take(CHUNK_BYTES - chunk.len()).filter(|piece| !piece.is_empty()) {
            chunk.extend_from_slice(&piece);
        }
        Some(chunk.freeze())
    }
}
